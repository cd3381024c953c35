// Fibers of one CTA, and the places where they meet.
#include <ucontext.h>

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

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
    bool done = false;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
std::vector<Group> groups;
std::map<int, Meeting> named;
std::map<std::uint32_t, ByteBarrier> byte_barriers;
ucontext_t outside;
Meeting cta;
unsigned current = 0, block = 0, running = 0, count = 0;
std::uint64_t progress = 0;
const std::function<void()>* body_of_all = nullptr;

void enter() {
    (*body_of_all)();
    fibers[current]->done = true;
    --running;
    ++progress;
    swapcontext(&fibers[current]->context, &outside);
}

void yield() { swapcontext(&fibers[current]->context, &outside); }

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

void run_cta() {
    cta = {};
    for (Warp& warp : warps) warp.meeting = {};
    for (Group& group : groups) group.meeting = {};
    named.clear();
    byte_barriers.clear();
    running = count;
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = *fibers[i];
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStack;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    while (running > 0) {
        const std::uint64_t before = progress;
        for (current = 0; current < count; ++current) {
            if (!fibers[current]->done) swapcontext(&outside, &fibers[current]->context);
        }
        if (progress == before) throw std::runtime_error("threads of a CTA wait for each other for ever");
    }
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
    while (byte_barriers.at(address).phase % 2 == parity) yield();
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
