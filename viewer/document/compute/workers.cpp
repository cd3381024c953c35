#include "document/compute/workers.h"

#include <algorithm>
#include <chrono>

namespace paro::viewer {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Workers::Workers(int threads) {
    if (threads <= 0) threads = std::max(2, static_cast<int>(std::thread::hardware_concurrency()) - 1);
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

void Workers::serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        const auto next = [this] {
            return std::find_if(std::begin(waiting_), std::end(waiting_), [](const auto& q) { return !q.empty(); });
        };
        wake_.wait(lock, [&] { return ending_ || next() != std::end(waiting_); });
        if (ending_) return;
        const auto queue = next();
        const auto level = static_cast<std::size_t>(queue - std::begin(waiting_));
        Task task = std::move(queue->front());
        queue->pop_front();
        if (task.ticket.cancelled()) {
            --open_[level];
            continue;
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
    }
}

std::size_t Workers::deliver(double seconds) {
    const double begun = now();
    std::size_t count = 0;
    for (;;) {
        Arrived arrived;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
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
