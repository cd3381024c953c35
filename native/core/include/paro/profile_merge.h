// Profiles of one model brought together, and two of them compared.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "paro/profile_plan.h"

namespace paro {

// The mean of two profiles' kernels, weighted by the prompts that each one saw (equally where neither says); where one
// never observed an offset the other one counts. Kernels of different bins meet in the ones that reach farther, the
// finer ones of two that reach equally far. Orders are chosen anew at `density`, mean over the groups, on the new
// profile's first grid; heads that are locked in `old` keep their order, and all keep the density and lock they have
// there. A layer that one of them alone holds is taken over as it is, order, density and lock too. A profile of one
// timestep group counts for every group of the other. Model and defaults are old's, the calibration is new's with
// both's grids and prompts. Throws Error if they differ in family, fingerprint, patches, heads or head_dim, or if new's
// first grid is far from old's.
Profile merge_profiles(const Profile& old, const Profile& fresh, double density, int threads);

// What two profiles have in common and what not.
struct ProfileDiff {
    // A field outside the heads, such as "model.fingerprint", and what each profile has there.
    struct Field {
        std::string name, a, b;
    };
    // A head that both hold. Densities are its own or the profile's default; retained masses are by the kernels of the
    // named profile at that density: of a's attention under a's mask and under b's, of b's under its own and under a's.
    struct Head {
        std::string layer;
        std::size_t head = 0, group = 0;
        AxisOrder order_a = AxisOrder::FHW, order_b = AxisOrder::FHW;
        double density_a = 0.0, density_b = 0.0;
        bool locked_a = false, locked_b = false;
        double a_by_a = 0.0, a_by_b = 0.0, b_by_b = 0.0, b_by_a = 0.0;

        bool changed() const { return order_a != order_b || density_a != density_b || locked_a != locked_b; }
    };
    std::vector<Field> fields;
    std::vector<std::string> only_a, only_b;  // layers
    std::vector<Head> heads;                  // by layer of a, head and group: as many groups as both have
};

// Compared on a's first grid at one tile. Throws Error for a bad tile, or a profile that is not valid.
ProfileDiff diff_profiles(const Profile& a, const Profile& b, std::int32_t block, int threads);

}  // namespace paro
