#include "document/compute/workers.h"

#include <algorithm>
#include <chrono>

namespace paro::viewer {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Workers::Workers(int threads) {
    if (threads == kAutomatic) threads = std::max(2, static_cast<int>(std::thread::hardware_concurrency()) - 1);
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
}

Workers::~Workers() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        ending_ = true;
        for (auto& queue : waiting_) queue.clear();
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Workers::post(Priority priority, const Ticket& ticket, Work work) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto level = static_cast<std::size_t>(priority);
        waiting_[level].push_back({ticket, std::move(work)});
        ++open_[level];
    }
    wake_.notify_one();
}

bool Workers::work_one(Lock& lock, std::size_t levels) {
    const auto end = std::begin(waiting_) + static_cast<std::ptrdiff_t>(levels);
    const auto queue = std::find_if(std::begin(waiting_), end, [](const auto& q) { return !q.empty(); });
    if (queue == end) return false;
    const auto level = static_cast<std::size_t>(queue - std::begin(waiting_));
    Task task = std::move(queue->front());
    queue->pop_front();
    if (task.ticket.cancelled()) {
        --open_[level];
        return true;
    }
    lock.unlock();
    Delivery delivery;
    // Work reports its own failures; what still escapes must not end the program.
    try {
        delivery = task.work();
    } catch (...) {
    }
    task.work = nullptr;  // what it captured is released outside of the lock
    lock.lock();
    arrived_.push_back({static_cast<Priority>(level), task.ticket, std::move(delivery)});
    return true;
}

void Workers::serve() {
    Lock lock(mutex_);
    const auto waits = [this] {
        return std::ranges::any_of(waiting_, [](const auto& queue) { return !queue.empty(); });
    };
    for (;;) {
        wake_.wait(lock, [&] { return ending_ || waits(); });
        if (ending_) return;
        work_one(lock, std::size(waiting_));
    }
}

bool Workers::work_here(Lock& lock, bool idle) {
    const std::size_t levels = std::size(waiting_) - (idle ? 0 : 1);
    while (arrived_.empty()) {
        if (!work_one(lock, levels)) return false;
    }
    return true;
}

std::size_t Workers::deliver(double seconds, bool idle) {
    const double begun = now();
    if (threads_.empty()) seconds = std::max(seconds, kSlice);
    std::size_t count = 0;
    for (;;) {
        Arrived arrived;
        {
            Lock lock(mutex_);
            if (threads_.empty()) work_here(lock, idle);
            if (arrived_.empty()) return count;
            arrived = std::move(arrived_.front());
            arrived_.pop_front();
            --open_[static_cast<std::size_t>(arrived.priority)];
        }
        if (arrived.delivery && !arrived.ticket.cancelled()) arrived.delivery();
        ++count;
        if (now() - begun > seconds) return count;
    }
}

std::size_t Workers::pending() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return open_[0] + open_[1] + open_[2];
}

std::size_t Workers::pending(Priority priority) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return open_[static_cast<std::size_t>(priority)];
}

bool Workers::drain(double seconds) {
    const double end = now() + seconds;
    while (pending() > 0) {
        if (now() > end) return false;
        if (deliver(1.0) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

}  // namespace paro::viewer
