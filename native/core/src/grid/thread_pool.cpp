#include "paro/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "paro/error.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define PARO_HAS_FORK 1
#endif

namespace paro {

namespace {

using Body = std::function<void(std::int64_t index, int worker)>;

constexpr int kMaxThreads = 1024;

// Set while a thread works on a job: a nested call must not wait for the pool that it is itself a part of.
thread_local bool inside_job = false;

struct Job {
    const Body& body;
    const std::int64_t count;
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    // The rest is guarded by the pool's mutex.
    int open = 0;     // workers that may still join
    int joined = 0;   // workers that joined; also the id of the latest
    int running = 0;  // workers that have not left yet
    std::exception_ptr error{};
};

class Pool {
   public:
    void run(Job& job, int threads) {
        const std::lock_guard<std::mutex> turn(callers_);
        std::unique_lock<std::mutex> lock(mutex_);
        grow(threads - 1);
        job.open = threads - 1;
        job_ = &job;
        lock.unlock();
        wake_.notify_all();

        work(job, 0);

        lock.lock();
        job_ = nullptr;  // a worker that wakes up only now has nothing left to join
        done_.wait(lock, [&job] { return job.running == 0; });
        if (job.error) std::rethrow_exception(job.error);
    }

   private:
    // Called under the mutex. Fewer threads than asked for are no error: the caller works too.
    void grow(int wanted) {
        try {
            for (; workers_ < wanted; ++workers_) std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return job_ != nullptr && job_->open > 0; });
            Job& job = *job_;
            --job.open;
            ++job.running;
            const int worker = ++job.joined;
            lock.unlock();
            work(job, worker);
            lock.lock();
            if (--job.running == 0) done_.notify_one();
        }
    }

    void work(Job& job, int worker) {
        inside_job = true;
        try {
            while (!job.failed.load(std::memory_order_relaxed)) {
                const std::int64_t index = job.next.fetch_add(1, std::memory_order_relaxed);
                if (index >= job.count) break;
                job.body(index, worker);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!job.error) job.error = std::current_exception();
            job.failed.store(true, std::memory_order_relaxed);
        }
        inside_job = false;
    }

    std::mutex callers_;  // one job at a time
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int workers_ = 0;
};

// Never destroyed: workers are detached and may still wait on it while the process ends, on every platform.
std::atomic<Pool*> current_pool{nullptr};

#ifdef PARO_HAS_FORK
// A child has none of the parent's workers and may inherit locked mutexes: it starts over with a pool of its own.
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr, std::memory_order_release); });
#endif

Pool& pool() {
    Pool* found = current_pool.load(std::memory_order_acquire);
    if (found != nullptr) return *found;
    Pool* fresh = new Pool;
    if (!current_pool.compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) {
        delete fresh;
        return *found;
    }
    return *fresh;
}

}  // namespace

int resolve_threads(int threads) {
    if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(threads, 1, kMaxThreads);
}

void parallel_for(std::int64_t count, int threads, const Body& body) {
    require(count >= 0, "count", "must not be negative", count);
    require(static_cast<bool>(body), "body", "must be callable", "an empty function");
    const auto used = static_cast<int>(std::min<std::int64_t>(resolve_threads(threads), count));
    if (used <= 1 || inside_job) {
        for (std::int64_t index = 0; index < count; ++index) body(index, 0);
        return;
    }
    Job job{body, count};
    pool().run(job, used);
}

}  // namespace paro
