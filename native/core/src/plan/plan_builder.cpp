#include "paro/plan_builder.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "paro/error.h"
#include "paro/thread_pool.h"

namespace paro {

namespace {

// One layer under way. Heads are written by the threads that took them; the rest is guarded by the builder's mutex.
struct Work {
    std::vector<HeadPlan> heads;
    std::size_t taken = 0, done = 0;
    bool asked = false, finished = false;
    std::shared_ptr<const Plan> plan;
    std::exception_ptr error;
};

// A profile of the layers asked for alone, and of them the one group that is planned.
Profile needed(const Profile& profile, const PlanRequest& request) {
    Profile part;
    part.bins = profile.bins;
    part.timestep_groups = {profile.timestep_groups[request.group]};
    part.layers.resize(profile.layers.size());
    for (const std::size_t index : request.layers) {
        const std::string place = "profile.layers[" + std::to_string(index) + "].heads";
        require(!profile.layers[index].heads.empty(), place, "must hold at least one head", 0);
        for (const ProfileHead& head : profile.layers[index].heads) {
            require(request.group < head.groups.size(), place,
                    "must all hold timestep group " + std::to_string(request.group),
                    "a head of " + std::to_string(head.groups.size()) + " groups");
            part.layers[index].heads.push_back({head.order, head.density, head.locked, {head.groups[request.group]}});
        }
    }
    return part;
}

PlanRequest checked(const Profile& profile, PlanRequest request) {
    require(request.group < profile.timestep_groups.size(), "group",
            "must be below " + std::to_string(profile.timestep_groups.size()) + ", the profile's timestep groups",
            request.group);
    if (request.layers.empty()) {
        for (std::size_t i = 0; i < profile.layers.size(); ++i) request.layers.push_back(i);
    }
    std::vector<bool> seen(profile.layers.size(), false);
    for (const std::size_t layer : request.layers) {
        require(layer < profile.layers.size(), "layers",
                "must hold numbers below " + std::to_string(profile.layers.size()) + ", the profile's layers", layer);
        require(!seen[layer], "layers", "must not name a layer twice", layer);
        seen[layer] = true;
    }
    validate(request.layout);
    block_layout(request.layout, request.block_q);
    block_layout(request.layout, request.block_kv);
    require(request.density > 0.0 && request.density <= 1.0, "density", "must be above 0 and at most 1",
            request.density);
    require(request.known.empty() || request.known.size() == profile.layers.size(), "known",
            "must hold one entry per layer of the profile, " + std::to_string(profile.layers.size()),
            request.known.size());
    request.known.resize(profile.layers.size());
    for (const std::size_t layer : request.layers) {
        validate(request.known[layer], profile.layers[layer].heads.size(), request.layout.grid, request.block_q,
                 request.block_kv);
    }
    return request;
}

}  // namespace

class PlanBuilder::State {
   public:
    State(const Profile& profile, PlanRequest request)
        : request_(checked(profile, std::move(request))), profile_(needed(profile, request_)) {
        works_.resize(profile_.layers.size());
        for (const std::size_t layer : request_.layers) {
            works_[layer].asked = true;
            works_[layer].heads.resize(profile_.layers[layer].heads.size());
            progress_.all += static_cast<std::int64_t>(works_[layer].heads.size());
            queue_.push_back(layer);
        }
        start();
    }

    ~State() {
        cancel();
        for (std::thread& thread : threads_) thread.join();
    }

    bool ready(std::size_t layer) const {
        const std::lock_guard lock(mutex_);
        return work(layer).finished || cancelled_;
    }

    bool busy(std::size_t layer) const {
        const std::lock_guard lock(mutex_);
        const Work& own = work(layer);
        // Of a cancelled builder the heads that were taken are still finished.
        return !own.finished && !(cancelled_ && own.done == own.taken);
    }

    bool wait(std::size_t layer, std::optional<std::chrono::milliseconds> limit) {
        std::unique_lock lock(mutex_);
        hurry(layer);
        const auto settled = [&] { return work(layer).finished || cancelled_; };
        if (limit) return changed_.wait_for(lock, *limit, settled);
        changed_.wait(lock, settled);
        return true;
    }

    std::shared_ptr<const Plan> result(std::size_t layer) const {
        const std::lock_guard lock(mutex_);
        const Work& own = work(layer);
        if (own.error) std::rethrow_exception(own.error);
        require(own.finished, "layer", "must have been built before the builder was cancelled", layer);
        return own.plan;
    }

    PlanProgress progress() const {
        const std::lock_guard lock(mutex_);
        return progress_;
    }

    void cancel() {
        const std::lock_guard lock(mutex_);
        cancelled_ = true;
        changed_.notify_all();
    }

   private:
    void start() {
        const auto wanted = std::min<std::int64_t>(resolve_threads(request_.threads), progress_.all);
        try {
            while (static_cast<std::int64_t>(threads_.size()) < wanted) threads_.emplace_back([this] { serve(); });
        } catch (const std::system_error&) {
            // Fewer threads than asked for are slower; none at all would wait for ever.
            if (threads_.empty()) throw;
        }
    }

    const Work& work(std::size_t layer) const {
        require(layer < works_.size() && works_[layer].asked, "layer", "must be one that the builder was asked for",
                layer);
        return works_[layer];
    }

    // Under the mutex: what somebody waits for comes first.
    void hurry(std::size_t layer) {
        work(layer);
        const auto place = std::find(queue_.begin(), queue_.end(), layer);
        if (place == queue_.end()) return;
        queue_.erase(place);
        queue_.push_front(layer);
    }

    void serve() {
        std::unique_lock lock(mutex_);
        while (!queue_.empty() && !cancelled_) {
            const std::size_t layer = queue_.front();
            Work& own = works_[layer];
            const std::size_t head = own.taken++;
            if (own.taken >= own.heads.size()) queue_.pop_front();
            lock.unlock();
            std::exception_ptr error = build(layer, head);
            lock.lock();
            if (error && !own.error) own.error = std::move(error);
            ++progress_.done;
            if (++own.done < own.heads.size()) continue;
            // Nobody else touches the heads any more: the schedule is sorted without the lock.
            lock.unlock();
            finish(own);
            lock.lock();
            own.finished = true;
            changed_.notify_all();
        }
    }

    std::exception_ptr build(std::size_t layer, std::size_t head) {
        try {
            works_[layer].heads[head] =
                plan_head(profile_.bins, profile_.layers[layer].heads[head], 0, request_.layout, request_.block_q,
                          request_.block_kv, request_.density, request_.known[layer], head);
        } catch (...) {
            return std::current_exception();
        }
        return {};
    }

    void finish(Work& own) {
        if (!own.error) {
            try {
                own.plan = std::make_shared<const Plan>(
                    make_plan(request_.layout, request_.block_q, request_.block_kv, std::move(own.heads)));
            } catch (...) {
                own.error = std::current_exception();
            }
        }
        own.heads = {};
    }

    const PlanRequest request_;
    const Profile profile_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Work> works_;        // by layer of the profile
    std::deque<std::size_t> queue_;  // layers with heads that nobody took yet
    PlanProgress progress_;
    bool cancelled_ = false;
    std::vector<std::thread> threads_;  // last: they use all the others
};

PlanBuilder::PlanBuilder(const Profile& profile, PlanRequest request)
    : state_(std::make_unique<State>(profile, std::move(request))) {}

PlanBuilder::~PlanBuilder() = default;

bool PlanBuilder::ready(std::size_t layer) const { return state_->ready(layer); }

bool PlanBuilder::busy(std::size_t layer) const { return state_->busy(layer); }

bool PlanBuilder::wait(std::size_t layer, std::chrono::milliseconds limit) { return state_->wait(layer, limit); }

std::shared_ptr<const Plan> PlanBuilder::get(std::size_t layer) {
    state_->wait(layer, {});
    return state_->result(layer);
}

PlanProgress PlanBuilder::progress() const { return state_->progress(); }

void PlanBuilder::cancel() { state_->cancel(); }

}  // namespace paro
