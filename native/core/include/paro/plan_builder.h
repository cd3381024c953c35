// Plans of all layers, built in the background while a run goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "paro/profile_plan.h"

namespace paro {

// What plans to build. layers: indices into the profile's layers in the order in which the model calls them; empty
// means all of them as they stand. threads as in parallel_for.
struct PlanRequest {
    std::size_t group = 0;  // timestep group
    TokenLayout layout;
    std::int32_t block_q = 64, block_kv = 64;
    double density = 0.3;  // of heads without a density of their own
    int threads = 0;
    std::vector<std::size_t> layers;
    // By layer of the profile, or empty: nothing is known of any but its kernels. The memory must stay as it is while
    // the layer is busy.
    std::vector<KnownBlocks> known = {};
};

// Counted in heads, the unit of work.
struct PlanProgress {
    std::int64_t done = 0, all = 0;
};

// Builds on threads of its own, so that attention on the shared pool never queues behind it. Heads are handed out layer
// by layer; a layer that somebody waits for moves to the front. Every member may be called from any thread.
class PlanBuilder {
   public:
    // Starts at once, on a copy of what it needs of the profile. Throws Error for a layer, group, layout, tile or
    // density that does not exist or is out of range, and for what is known of other sizes.
    PlanBuilder(const Profile& profile, PlanRequest request);
    // Cancels, and returns when the heads under way are done.
    ~PlanBuilder();
    PlanBuilder(const PlanBuilder&) = delete;
    PlanBuilder& operator=(const PlanBuilder&) = delete;

    // Whether get(layer) would return (or throw) at once.
    bool ready(std::size_t layer) const;
    // Whether a thread reads, or may come to read, what is known of the layer.
    bool busy(std::size_t layer) const;
    // Waits at most `limit`; whether the layer is ready then. Throws Error for a layer that was not asked for.
    bool wait(std::size_t layer, std::chrono::milliseconds limit);
    // Waits for a layer's plan. Rethrows what building it threw; the other layers go on. Throws Error for a layer that
    // was not asked for, or once cancelled for one that is not finished.
    std::shared_ptr<const Plan> get(std::size_t layer);

    PlanProgress progress() const;
    // Returns at once; heads under way are finished in the background.
    void cancel();

   private:
    class State;
    std::unique_ptr<State> state_;
};

}  // namespace paro
