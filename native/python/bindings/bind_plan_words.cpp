// A plan as the words that the CUDA kernels walk (native/cuda/include/paro/cuda/params.h, PlanParams).
#include "bindings.h"
#include "paro/plan.h"

namespace paro::python {

namespace {

// orders [heads], schedule [heads][grid query tiles] longest first, masks [heads][grid query tiles][words].
std::vector<std::int32_t> plan_words(const Plan& plan) {
    const BlockLayout q = plan.q_blocks();
    const auto heads = plan.heads.size(), tiles = static_cast<std::size_t>(q.grid_blocks);
    std::vector<std::int32_t> words;
    for (const HeadPlan& head : plan.heads) words.push_back(static_cast<std::int32_t>(head.order));
    words.resize(heads + heads * tiles);
    std::vector<std::size_t> filled(heads);
    for (const Tile& tile : plan.schedule) {
        if (!q.is_grid_block(tile.index)) continue;
        const auto head = static_cast<std::size_t>(tile.head);
        words[heads + head * tiles + filled[head]++] = static_cast<std::int32_t>(tile.index - q.first_grid_block());
    }
    for (const HeadPlan& head : plan.heads) {
        words.insert(words.end(), head.mask.words().begin(), head.mask.words().end());
    }
    return words;
}

}  // namespace

void bind_plan_words(py::module_& m) {
    m.def("plan_words", [](const Plan& plan) {
        const std::vector<std::int32_t> words = plan_words(plan);
        return to_numpy(words, {static_cast<py::ssize_t>(words.size())});
    });
}

}  // namespace paro::python
