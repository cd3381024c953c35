// A kernel that hangs must not hold the GPU for long: every wait has an end, and whoever overruns it ends the program
// with the name of what ran. What went before is kept in a file, so that the next start goes on behind it.
#pragma once

#include <cuda_runtime_api.h>

#include <set>
#include <string>

namespace paro::cuda::bench {

constexpr int kHung = 3;  // the program's exit status after a kernel that failed or did not end

class Watchdog {
   public:
    // `state`: file of what earlier starts did; empty: none. Ends the program after `seconds` whatever it does.
    Watchdog(std::string state, int seconds);

    // Numbers the steps of a run: false for those that an earlier start has done, or that use what is bad.
    bool step(const std::string& name, const std::string& uses = {});
    // Waits for all work of the default stream; ends the program if that takes longer or fails.
    void wait(double seconds);
    // Milliseconds between two events that follow each other on the default stream; see wait.
    float elapsed(cudaEvent_t begin, cudaEvent_t end, double seconds);

   private:
    void save() const;
    // Ends the program; what ran is not run again.
    [[noreturn]] void give_up(const char* why);
    std::string state_, name_, uses_;
    std::set<std::string> bad_;
    int next_ = 0, at_ = -1;
};

}  // namespace paro::cuda::bench
