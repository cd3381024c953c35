// Fibers of one CTA, and the places where they meet.
#include <ucontext.h>

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

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
    bool done = false;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
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

void run(unsigned grid, unsigned threads, const std::function<void()>& body) {
    count = threads;
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    warps.resize((threads + 31) / 32);
    body_of_all = &body;
    for (block = 0; block < grid; ++block) run_cta();
}

}  // namespace paro::emulator
