// Two profiles compared. `profile diff` and the viewer's comparison show these figures and make none of their own.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "paro/profile.h"

namespace paro {

struct ProfileDiff {
    // A field outside the heads, such as "model.fingerprint", and what each profile has there.
    struct Field {
        std::string name, a, b;
    };
    // Retained mass: the share of one profile's attention, as its own kernels tell it, that lies in a mask. A head's
    // mask is that of its order and density: its own one, or its profile's default.
    struct Kept {
        double a_by_a = 0.0, a_by_b = 0.0;  // a's attention in a's mask and in b's
        double b_by_b = 0.0, b_by_a = 0.0;  // b's attention in b's mask and in a's
    };
    // A head that both hold, in one timestep group.
    struct Head : Kept {
        std::string layer;
        std::size_t head = 0, group = 0;
        AxisOrder order_a = AxisOrder::FHW, order_b = AxisOrder::FHW;
        double density_a = 0.0, density_b = 0.0;  // its own, or its profile's default
        bool locked_a = false, locked_b = false;

        // Kernels do not count: those of two runs always differ, and the retained masses tell what that is worth.
        bool changed() const { return order_a != order_b || density_a != density_b || locked_a != locked_b; }
    };
    std::vector<Field> fields;                // those that differ
    std::vector<std::string> only_a, only_b;  // layers
    std::vector<Head> heads;                  // by layer of a, head and group: as many groups as both have

    // How many entries of `heads` changed.
    std::size_t changed() const;
    // Over all entries of `heads`; zeros without any.
    Kept mean() const;
};

// Compared on a's first grid, in blocks of `block` x `block`. Throws Error for a bad block, or a profile that is not
// valid.
ProfileDiff diff_profiles(const Profile& a, const Profile& b, std::int32_t block, int threads);

}  // namespace paro
