// Fibers of one CTA, and the places where they meet.
#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "emulated_launch.h"
#include "paro/error.h"

namespace paro::emulator {
namespace {

constexpr std::size_t kStack = 256 << 10;

// Where `count` fibers meet; the last to come does the work, then all go on.
struct Meeting {
    unsigned come = 0, round = 0;
};

struct Warp {
    Meeting meeting;
    unsigned char in[32][kOperand], out[32][kOperand];
};

struct Group {
    Meeting meeting;
    unsigned char in[128][kOperand], out[128][kGroupOutput];
};

struct ByteBarrier {
    std::uint32_t count = 0, pending = 0, phase = 0;
    std::int64_t bytes = 0;
};

// Bytes on their way to shared memory; zeros where `from` is null.
struct Copy {
    std::uint32_t to = 0, bytes = 0, barrier = 0;
    const void* from = nullptr;
};

// A matrix product that was asked for.
struct Product {
    std::int32_t* sums = nullptr;
    std::function<void()> work;
};
constexpr std::int32_t kPoisonedSum = 0x5eadbeef;
constexpr int kPoisonedByte = 0xee;

struct Fiber {
    ucontext_t context;  // to start it; afterwards jumps, which do not ask the kernel for signal masks
    jmp_buf here;
    bool started = false;
    std::deque<std::vector<Copy>> copies{1};  // cp.async: committed groups, and the open one
    std::deque<std::vector<Product>> products{1};
    std::map<std::int32_t*, std::vector<std::int32_t>> sums;  // what poisoned accumulators held
    std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
    bool done = false;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
std::vector<Group> groups;
std::map<int, Meeting> named;
std::map<std::uint32_t, ByteBarrier> byte_barriers;
std::vector<Copy> bulk_copies;
std::exception_ptr failure;
jmp_buf outside;
Meeting cta;
unsigned current = 0, block = 0, running = 0, count = 0;
std::uint64_t progress = 0;
const std::function<void()>* body_of_all = nullptr;

void enter() {
    try {
        (*body_of_all)();
    } catch (...) {
        failure = std::current_exception();
    }
    fibers[current]->done = true;
    --running;
    ++progress;
    _longjmp(outside, 1);
}

void yield() {
    if (_setjmp(fibers[current]->here) == 0) _longjmp(outside, 1);
}

// Until the fiber yields or ends.
[[gnu::noinline]] void resume(Fiber& fiber) {
    if (_setjmp(outside) != 0) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

template <class Work>
void meet(Meeting& meeting, unsigned size, Work work) {
    const unsigned round = meeting.round;
    ++progress;
    if (++meeting.come == size) {
        work();
        meeting.come = 0;
        ++meeting.round;
        return;
    }
    while (meeting.round == round) yield();
}

void land(const Copy& copy) {
    if (copy.from) {
        std::memcpy(dynamic_shared + copy.to, copy.from, copy.bytes);
    } else {
        std::memset(dynamic_shared + copy.to, 0, copy.bytes);
    }
}

// Poisons accumulators that products are under way to; what they held is kept.
void hide_sums(Fiber& fiber, std::int32_t* sums, std::size_t count) {
    fiber.sums[sums].assign(sums, sums + count);
    std::fill(sums, sums + count, kPoisonedSum);
}

// Nothing may be left under way or half arrived.
void check_end() {
    require(bulk_copies.empty(), "bulk copies", "must be waited for before a CTA ends", bulk_copies.size());
    for (const auto& [id, meeting] : named)
        require(meeting.come == 0, "named barrier", "must end with nobody come", id);
    for (unsigned i = 0; i < count; ++i) {
        const auto& products = fibers[i]->products;
        require(products.size() == 1 && products[0].empty(), "products", "must be waited for before a thread ends", i);
    }
}

void run_cta() {
    cta = {};
    bulk_copies.clear();
    failure = nullptr;
    for (Warp& warp : warps) warp.meeting = {};
    for (Group& group : groups) group.meeting = {};
    named.clear();
    byte_barriers.clear();
    running = count;
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = *fibers[i];
        fiber.done = fiber.started = false;
        fiber.copies.assign(1, {});
        fiber.products.assign(1, {});
        fiber.sums.clear();
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStack;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    while (running > 0) {
        const std::uint64_t before = progress;
        for (unsigned i = 0; i < count; ++i) {
            current = block % 2 ? count - 1 - i : i;  // what must not depend on who comes first
            if (!fibers[current]->done) resume(*fibers[current]);
            if (failure) std::rethrow_exception(failure);
        }
        if (progress == before) throw std::runtime_error("threads of a CTA wait for each other for ever");
    }
    check_end();
}

}  // namespace

Index thread_index() { return {current}; }
Index block_index() { return {block}; }

void barrier() {
    meet(cta, count, [] {});
}
void warp_barrier() {
    meet(warps[current / 32].meeting, 32, [] {});
}

void warp_operation(const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes,
                    void (*work)(const unsigned char (*)[kOperand], unsigned char (*)[kOperand])) {
    Warp& warp = warps[current / 32];
    const unsigned lane = current % 32;
    std::memcpy(warp.in[lane], in, in_bytes);
    meet(warp.meeting, 32, [&] { work(warp.in, warp.out); });
    std::memcpy(out, warp.out[lane], out_bytes);
}

void group_operation(const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes,
                     void (*work)(const unsigned char (*)[kOperand], unsigned char (*)[kGroupOutput])) {
    Group& group = groups[current / 128];
    const unsigned lane = current % 128;
    std::memcpy(group.in[lane], in, in_bytes);
    meet(group.meeting, 128, [&] { work(group.in, group.out); });
    std::memcpy(out, group.out[lane], out_bytes);
}

void named_barrier(int id, int threads, bool wait) {
    Meeting& meeting = named[id];
    const unsigned round = meeting.round;
    ++progress;
    if (++meeting.come == static_cast<unsigned>(threads)) {
        meeting.come = 0;
        ++meeting.round;
        return;
    }
    while (wait && meeting.round == round) yield();
}

void mbarrier_init(std::uint32_t address, std::uint32_t arrivals) {
    require(address % 8 == 0, "barrier", "must be on 8 bytes", address);
    byte_barriers[address] = {arrivals, arrivals, 0, 0};
}

void mbarrier_change(std::uint32_t address, std::uint32_t arrivals, std::int64_t bytes) {
    ByteBarrier& barrier = byte_barriers.at(address);
    require(barrier.pending >= arrivals, "barrier", "must not get more arrivals than it counts", address);
    ++progress;
    barrier.pending -= arrivals;
    barrier.bytes += bytes;
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.pending = barrier.count;
        ++barrier.phase;
    }
}

void mbarrier_wait(std::uint32_t address, std::uint32_t parity) {
    // The phase of that parity is over when the one under way has the other.
    while (byte_barriers.at(address).phase % 2 == parity) {
        std::vector<Copy> mine;
        const auto elsewhere = [&](const Copy& copy) { return copy.barrier != address; };
        const auto first = std::stable_partition(bulk_copies.begin(), bulk_copies.end(), elsewhere);
        mine.assign(first, bulk_copies.end());
        bulk_copies.erase(first, bulk_copies.end());
        for (const Copy& copy : mine) {
            land(copy);
            mbarrier_change(address, 0, -std::int64_t{copy.bytes});
        }
        if (mine.empty()) yield();
    }
}

void copy_in_bulk(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
    std::memset(dynamic_shared + to, kPoisonedByte, bytes);
    bulk_copies.push_back({to, bytes, barrier, from});
}

void copy_async(std::uint32_t to, const void* from, std::uint32_t bytes) {
    std::memset(dynamic_shared + to, kPoisonedByte, bytes);
    fibers[current]->copies.back().push_back({to, bytes, 0, from});
}
void commit_copies() { fibers[current]->copies.emplace_back(); }
void wait_copies(unsigned pending) {
    auto& groups = fibers[current]->copies;
    for (; groups.size() > pending + 1; groups.pop_front()) {
        for (const Copy& copy : groups.front()) land(copy);
    }
}

void multiply_later(std::int32_t* sums, std::size_t count, std::function<void()> work) {
    Fiber& fiber = *fibers[current];
    if (!fiber.sums.contains(sums)) hide_sums(fiber, sums, count);
    fiber.products.back().push_back({sums, std::move(work)});
}
void commit_products() { fibers[current]->products.emplace_back(); }
void wait_products(unsigned pending) {
    yield();  // whoever was told too early that the operands are free may now write
    Fiber& fiber = *fibers[current];
    while (fiber.products.size() > pending + 1) {
        const std::vector<Product> group = std::move(fiber.products.front());
        fiber.products.pop_front();
        for (std::size_t i = 0; i < group.size(); ++i) {
            std::int32_t* sums = group[i].sums;
            const std::vector<std::int32_t> held = std::move(fiber.sums.at(sums));
            fiber.sums.erase(sums);
            for (std::size_t r = 0; r < held.size(); ++r) {
                require(sums[r] == kPoisonedSum, "accumulators", "must not be touched under way", r);
                sums[r] = held[r];
            }
            group[i].work();
            const auto same = [&](const Product& other) { return other.sums == sums; };
            bool more = std::any_of(group.begin() + static_cast<std::ptrdiff_t>(i) + 1, group.end(), same);
            for (const auto& later : fiber.products) more = more || std::any_of(later.begin(), later.end(), same);
            if (more) hide_sums(fiber, sums, held.size());
        }
    }
}

void run(unsigned grid, unsigned threads, const std::function<void()>& body) {
    count = threads;
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    warps.resize((threads + 31) / 32);
    groups.resize((threads + 127) / 128);
    body_of_all = &body;
    for (block = 0; block < grid; ++block) run_cta();
}

}  // namespace paro::emulator
