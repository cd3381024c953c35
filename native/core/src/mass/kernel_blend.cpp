#include "mass/kernel_blend.h"

#include <algorithm>
#include <cstdlib>

namespace paro {

Rebin::Rebin(const Bins& source, const Bins& target) : source_(source), target_(target) {
    if (source == target) return;
    axis_ = {shares(source.f, target.f), shares(source.h, target.h), shares(source.w, target.w)};
}

Rebin::AxisShares Rebin::shares(const AxisBins& source, const AxisBins& target) {
    const std::int32_t reach = std::max(std::abs(source.edges.front()), std::abs(source.edges.back()));
    AxisShares result;
    for (const std::int32_t offset : target.edges) {
        std::vector<Share> own;
        if (std::abs(offset) <= reach) {
            if (target.even() && !source.even()) {
                own = {{source.bin(offset), 0.5f}, {source.bin(-offset), 0.5f}};
            } else {
                own = {{source.bin(offset), 1.0f}};
            }
        }
        result.push_back(std::move(own));
    }
    return result;
}

OffsetKernel Rebin::operator()(OffsetKernel kernel) const {
    if (source_ == target_) return kernel;
    const std::int64_t height = source_.h.count(), width = source_.w.count();
    OffsetKernel result{target_, {}};
    result.value.reserve(static_cast<std::size_t>(target_.size()));
    for (const auto& in_f : axis_[0]) {
        for (const auto& in_h : axis_[1]) {
            for (const auto& in_w : axis_[2]) {
                float sum = 0.0f;
                for (const Share& a : in_f) {
                    for (const Share& b : in_h) {
                        for (const Share& c : in_w) {
                            const std::int64_t index = (a.bin * height + b.bin) * width + c.bin;
                            sum += a.weight * b.weight * c.weight * kernel.value[static_cast<std::size_t>(index)];
                        }
                    }
                }
                result.value.push_back(sum);
            }
        }
    }
    return result;
}

void blend(OffsetKernel& known, const OffsetKernel& fresh, double weight) {
    const auto w = static_cast<float>(weight);
    for (std::size_t i = 0; i < known.value.size(); ++i) {
        float& value = known.value[i];
        const float other = fresh.value[i];
        if (value <= 0.0f) {
            value = other;
        } else if (other > 0.0f) {
            value = value * w + other * (1.0f - w);
        }
    }
}

}  // namespace paro
