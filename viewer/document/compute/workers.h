// The viewer's own threads. Work runs on them; what it found is delivered on the thread that owns the document, so no
// state of the document needs a lock. Where there are no threads, as in a browser's page, work runs between frames.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace paro::viewer {

enum class Priority : std::uint8_t { urgent, normal, idle };

// Shared by tasks that become pointless together: what was not started when it is cancelled never runs, and what was
// computed is not delivered.
class Ticket {
   public:
    Ticket() : cancelled_(std::make_shared<std::atomic<bool>>(false)) {}
    void cancel() { cancelled_->store(true, std::memory_order_relaxed); }
    bool cancelled() const { return cancelled_->load(std::memory_order_relaxed); }

   private:
    std::shared_ptr<std::atomic<bool>> cancelled_;
};

class Workers {
   public:
    using Delivery = std::function<void()>;
    using Work = std::function<Delivery()>;

    static constexpr int kAutomatic = 0, kNone = -1;
    // kAutomatic: one less than the machine has, at least two. kNone: deliver() works too, in slices of kSlice seconds.
    explicit Workers(int threads = kAutomatic);
    // Drops what waits and joins what runs.
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    void post(Priority priority, const Ticket& ticket, Work work);
    // Runs what has arrived, on the calling thread, until `seconds` have passed. Returns how many. Without threads it
    // begins tasks until kSlice is over; idle ones only when `idle` allows it.
    std::size_t deliver(double seconds = 0.004, bool idle = true);
    // Tasks that wait, run or were not delivered yet.
    std::size_t pending() const;
    std::size_t pending(Priority priority) const;
    // Delivers until nothing is pending. False after `seconds`.
    bool drain(double seconds);
    // A slice leaves three quarters of a frame of 50 ms to drawing.
    static constexpr double kSlice = 0.012;
    int threads() const { return static_cast<int>(threads_.size()); }

   private:
    struct Task {
        Ticket ticket;
        Work work;
    };
    struct Arrived {
        Priority priority;
        Ticket ticket;
        Delivery delivery;
    };

    using Lock = std::unique_lock<std::mutex>;
    void serve();
    // The most urgent task that waits among the first `levels` queues, run. Called and left under the lock.
    bool work_one(Lock& lock, std::size_t levels);
    // Without threads: work until something has arrived. False when nothing waits.
    bool work_here(Lock& lock, bool idle);

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Task> waiting_[3];
    std::deque<Arrived> arrived_;
    std::size_t open_[3] = {0, 0, 0};  // waiting, running or arrived
    bool ending_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace paro::viewer
