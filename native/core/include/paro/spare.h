// Memory that is used again, by whichever thread needs it next: fresh pages cost as much as what is written to them.
// Not thread_local: where a thread ends, mingw's runtime frees such memory before it destroys what lies in it.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

namespace paro {

template <class T>
class Spares {
   public:
    // A value as its last user left it, or a fresh one.
    T take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (free_.empty()) return T{};
        T value = std::move(free_.back());
        free_.pop_back();
        return value;
    }

    // For the next one that takes. As many are kept as were in use at once.
    void give(T&& value) {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.push_back(std::move(value));
    }

   private:
    std::mutex mutex_;
    std::vector<T> free_;
};

// A value from the spares, and back to them at the end of its scope.
template <class T>
class Borrowed {
   public:
    explicit Borrowed(Spares<T>& spares) : spares_(spares), value_(spares.take()) {}
    ~Borrowed() { spares_.give(std::move(value_)); }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    T& operator*() { return value_; }

   private:
    Spares<T>& spares_;
    T value_;
};

}  // namespace paro
