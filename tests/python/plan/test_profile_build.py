"""From observations to a profile, and merging two of them."""

import numpy as np
import pytest
import torch
from paroattention import Error, ModelInfo, Observer, Profile, Settings, TokenLayout, _core
from paroattention.plan.profile_build import build_profile, merge_profiles
from problems import GRID, MODEL, observed, profile, tensors

TWO = ((1.0, 0.6), (0.6, 0.0))
# Profiles hold kernels in steps of 8 codes, three quarters of an octave.
HALF_A_STEP = 2 ** (4.01 * 24 / 254) - 1


def kernels(built, layer=0, head=0):
    """The dequantised kernels of a head, one per group."""
    groups = built.layers[layer].heads[head].groups
    return [_core.dequantise(built.bins, group.code, group.peak) for group in groups]


# -- building --------------------------------------------------------------------------------------


def test_says_what_it_is():
    built = profile()
    model, run = built.model, built.calibration
    assert (model.family, model.fingerprint, model.patches) == ("wan2.1", "ab" * 32, "")
    assert (model.layers, model.heads, model.head_dim) == (2, 2, 64)
    assert (run.grids, run.steps, run.sampler) == ([GRID], 8, "euler")
    assert (run.prompts, run.queries, run.version) == (1, 32, _core.__version__)
    assert (built.defaults.density, built.defaults.precision, built.defaults.tail) == (
        0.3, "int8", True,
    )  # fmt: skip
    assert built.layer_ids() == ["double.0.0", "double.1.0"]


def test_defaults_come_from_the_settings():
    settings = Settings(density=0.5, precision="bf16", tail=False)
    built = build_profile(observed(), MODEL, settings, [(1.0, 0.0)], steps=8)
    assert (built.defaults.density, built.defaults.precision, built.defaults.tail) == (
        0.5, "bf16", False,
    )  # fmt: skip


def test_round_trip_keeps_every_value(tmp_path):
    built = profile(groups=TWO)
    built.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert again.dump() == built.dump()
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_kernels_are_those_of_the_observer():
    observer = observed()
    built = build_profile(observer, MODEL, Settings(), [(1.0, 0.0)], steps=8)
    for layer, name in enumerate(built.layer_ids()):
        for head, want in enumerate(observer.kernels(name)):
            (got,) = kernels(built, layer, head)
            # 254 steps of 24 octaves: half a step is 3.3 %.
            assert np.allclose(got, want, rtol=HALF_A_STEP, atol=want.max() * 2**-24)


def test_order_is_that_of_greatest_retained_mass():
    observer = observed()
    built = build_profile(observer, MODEL, Settings(density=0.4), [(1.0, 0.0)], steps=8)
    for layer, name in enumerate(built.layer_ids()):
        for head, values in enumerate(observer.kernels(name)):
            bins, kept = observer.layers[name].bins, {}
            for order in _core.ORDERS:
                own = _core.importance(bins, values, GRID, order, 64, 64)
                kept[order] = _core.retained_mass(own, _core.make_mask(own, 0.4))
            order = built.layers[layer].heads[head].order
            assert kept[order] == pytest.approx(max(kept.values()))


def test_a_head_that_looks_along_frames_keeps_its_mass():
    layout, place = TokenLayout((8, 8, 8)), torch.arange(64).repeat(8)
    q = 12 * torch.nn.functional.one_hot(place, 64).float()[None, None]
    observer = Observer(64)
    observer.observe("double.0.0", q, q, layout, sm_scale=64**-0.5)
    built = build_profile(observer, MODEL, Settings(density=0.125), [(1.0, 0.0)], steps=8)
    (head,) = built.layers[0].heads
    assert head.order[0] != "F"
    assert head.groups[0].mass[1] > 0.95  # at density 0.2
    plan = _core.plan_layer(built, 0, 0, layout.grid, density=0.125)
    assert plan.heads[0].order == head.order and plan.retained > 0.95


def test_an_order_can_be_given():
    built = build_profile(
        observed(), MODEL, Settings(), [(1.0, 0.0)], steps=8, order_of=lambda kernels: "WFH"
    )
    assert {head.order for layer in built.layers for head in layer.heads} == {"WFH"}


@pytest.mark.parametrize("seen", [0, 1])
def test_a_group_that_saw_nothing_borrows_from_the_other(seen):
    observer = observed(groups=(seen,))
    built = build_profile(observer, MODEL, Settings(), list(TWO), steps=8)
    first, second = kernels(built)
    assert np.array_equal(first, second) and first.max() > 0


def test_groups_have_kernels_of_their_own():
    first, second = kernels(profile(groups=TWO))
    assert not np.array_equal(first, second)


def spoilt(layer):
    """An observer whose rows of one layer were not finite in one of its heads."""
    observer = observed()
    layout = TokenLayout(GRID)
    q, k, _ = tensors(2, layout.length, 64)
    q = torch.cat([q[:, :1], q[:, 1:] * float("nan")], 1)
    observer.layers.pop(layer, None)
    with pytest.raises(Error, match="finite"):
        observer.observe(layer, q, k, layout, sm_scale=0.1)
    return observer


@pytest.mark.parametrize("layer", ["double.0.0", "double.1.0"])
def test_a_layer_that_was_never_finite_is_left_out(layer):
    built = build_profile(spoilt(layer), MODEL, Settings(), [(1.0, 0.0)], steps=8)
    assert built.layer_ids() == [{"double.0.0": "double.1.0", "double.1.0": "double.0.0"}[layer]]
    assert built.model.layers == 1


def nothing_finite():
    observer = spoilt("double.0.0")
    del observer.layers["double.1.0"]
    return observer


@pytest.mark.parametrize("observer", [Observer(), nothing_finite()], ids=["none", "not finite"])
def test_nothing_watched_is_refused(observer):
    with pytest.raises(Error, match=r"observer must have watched .*got none"):
        build_profile(observer, MODEL, Settings(), [(1.0, 0.0)], steps=8)


def test_layers_of_different_heads_are_refused():
    observer = observed(layers=("double.0.0",), heads=2)
    other = observed(layers=("double.1.0",), heads=3)
    observer.layers |= other.layers
    with pytest.raises(Error, match="heads"):
        build_profile(observer, MODEL, Settings(), [(1.0, 0.0)], steps=8)


# -- merging ---------------------------------------------------------------------------------------


def with_prompts(built, prompts):
    calibration = built.calibration
    calibration.prompts = prompts
    built.calibration = calibration
    return built


@pytest.mark.parametrize(("old", "new"), [(1, 1), (3, 1), (1, 4), (0, 0)], ids=str)
def test_merge_weighs_by_prompts(old, new):
    a, b = with_prompts(profile(seed=1), old), with_prompts(profile(seed=2), new)
    merged = merge_profiles(a, b, density=0.3)
    weight = old / (old + new) if old + new else 0.5
    for x, y, got in zip(*(kernels(p, 1, 1) for p in (a, b, merged)), strict=True):
        both = (x > 0) & (y > 0)
        assert both.sum() > 50
        want = (weight * x + (1 - weight) * y)[both]
        assert np.allclose(got[both], want, rtol=HALF_A_STEP, atol=1e-7)
    assert merged.calibration.prompts == old + new


def test_prompts_stay_within_the_files_range():
    a, b = (with_prompts(profile(seed=seed), 2**31 - 1) for seed in (1, 2))
    assert merge_profiles(a, b, density=0.3).calibration.prompts == 2**31 - 1


def test_where_one_saw_nothing_the_other_counts():
    a, b = profile(seed=1), profile(seed=2)
    blank = bytes(len(a.bins))
    layers = a.layers
    head = layers[0].heads[0]
    head.groups = [_core.HeadGroup(blank, 0.0, [0, 0, 0, 0])]
    a.layers = [_core.ProfileLayer("double.0.0", [head, layers[0].heads[1]]), layers[1]]
    (got,), (want,) = kernels(merge_profiles(a, b, density=0.3)), kernels(b)
    assert want.max() > 0 and np.allclose(got, want, rtol=HALF_A_STEP)


def test_merge_leaves_both_as_they_were():
    a, b = profile(seed=1), profile(seed=2)
    before = a.dump(), b.dump()
    merge_profiles(a, b, density=0.3)
    assert (a.dump(), b.dump()) == before


def locked(built, order, density):
    """The same profile with its first head locked, as the viewer's user would."""
    first, *rest = built.layers
    head = first.heads[0]
    head.order, head.density, head.locked = order, density, True
    built.layers = [_core.ProfileLayer(first.id, [head, *first.heads[1:]]), *rest]
    return built


@pytest.mark.parametrize("order", ["FHW", "WHF"])
def test_locked_heads_keep_order_and_density(order):
    old = locked(profile(seed=1), order, 0.7)
    merged = merge_profiles(old, profile(seed=2), density=0.3, dense_below=0.0)
    head, other = merged.layers[0].heads
    assert (head.order, head.density, head.locked) == (order, 0.7, True)
    assert (other.density, other.locked) == (None, False)
    assert kernels(merged)[0].max() > 0


def test_merged_profiles_merge_again(tmp_path):
    merged = profile(seed=1)
    for seed in (2, 3):
        merged = merge_profiles(merged, profile(seed=seed), density=0.3)
    merged.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json").calibration.prompts == 3


OTHERS = {
    "family": (profile(model=ModelInfo("flux", "ab" * 32)), ["same model", "family", "flux"]),
    "fingerprint": (profile(model=ModelInfo("wan2.1", "cd" * 32)), ["same model", "fingerprint"]),
    "patches": (profile(model=ModelInfo("wan2.1", "ab" * 32, "f00")), ["patches", "f00"]),
    "heads": (profile(heads=3), ["same model", "heads", "3"]),
    "head_dim": (profile(head_dim=128), ["same model", "head_dim", "128"]),
    "far grid": (profile(grid=(9, 12, 8)), ["near", "9x12x8", "got 3x6x8"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_does_not_fit_is_refused(case):
    old, words = OTHERS[case]
    with pytest.raises(Error) as caught:
        merge_profiles(old, profile(), density=0.3)
    assert not [word for word in words if word not in str(caught.value)], caught.value


def test_layers_of_either_are_kept():
    old = profile(layers=("double.0.0", "single.0.0"), seed=1)
    new = profile(layers=("double.0.0", "double.1.0"), seed=2)
    merged = merge_profiles(old, new, density=0.3, dense_below=0.0)
    assert merged.layer_ids() == ["double.0.0", "double.1.0", "single.0.0"]
    assert merged.model.layers == 3 and Profile.parse(merged.dump()).dump() == merged.dump()
    for held, layer, place in ((old, 1, 2), (new, 1, 1)):
        heads = zip(held.layers[layer].heads, merged.layers[place].heads, strict=True)
        for want, got in heads:
            assert got.order == want.order and got.density == want.density
            assert [g.code for g in got.groups] == [g.code for g in want.groups]


@pytest.mark.parametrize("old", [((1.0, 0.0),), TWO], ids=["one", "two"])
def test_profiles_of_one_and_two_timestep_groups_merge(old):
    new = TWO if len(old) == 1 else ((1.0, 0.0),)
    merged = merge_profiles(profile(groups=old, seed=1), profile(groups=new, seed=2), density=0.3)
    assert merged.timestep_groups == list(TWO)
    assert all(len(head.groups) == 2 for layer in merged.layers for head in layer.heads)


@pytest.mark.parametrize("grids", [((4, 6, 8), (3, 6, 8)), ((3, 6, 8), (4, 6, 8))], ids=str)
def test_near_grids_merge_over_the_longer_bins(grids):
    a, b = (profile(grid=grid, seed=seed) for seed, grid in enumerate(grids))
    merged = merge_profiles(a, b, density=0.3)
    assert merged.calibration.grids == list(grids)
    assert merged.bins.F == [0, 1, 2, 3] and merged.bins.H == a.bins.H
    # The offset of three frames was seen on the taller grid alone.
    tall = a if grids[0] == (4, 6, 8) else b
    size = len(merged.bins) // 4
    got, want = kernels(merged)[0][3 * size :], kernels(tall)[0][3 * size :]
    assert want.max() > 0 and np.allclose(got, want, rtol=HALF_A_STEP, atol=1e-7)


def test_the_same_grid_is_listed_once():
    assert merge_profiles(profile(seed=1), profile(seed=2), density=0.3).calibration.grids == [GRID]


def falling(built, bins):
    """The same profile with kernels over `bins` that halve with every step of offset."""
    edges = np.meshgrid(*(np.abs(getattr(bins, axis)) for axis in "FHW"), indexing="ij")
    code, peak = _core.quantise(bins, 0.5 ** sum(edges).reshape(-1).astype(np.float32))
    layers = []
    for layer in built.layers:
        for head in layer.heads:
            head.groups = [_core.HeadGroup(code, peak, [0, 0, 0, 0])]
        layers.append(_core.ProfileLayer(layer.id, layer.heads))
    built.bins, built.layers = bins, layers
    return built


@pytest.mark.parametrize("first", ["even", "signed"])
@pytest.mark.parametrize("second", ["even", "signed"])
def test_bins_of_either_kind_merge(first, second):
    """The mean of two equal kernels is that kernel: no offset's value lands on another offset."""
    grid = (3, 4, 5)  # Sides up to 5 have a bin for every offset.
    kinds = {"even": _core.Bins.even(grid), "signed": _core.Bins.signed(grid)}
    pair = [falling(profile(grid=grid), kinds[kind]) for kind in (first, second)]
    merged = merge_profiles(*pair, density=0.3)
    (want,) = kernels(falling(profile(grid=grid), merged.bins))
    assert np.allclose(kernels(merged)[0], want, rtol=HALF_A_STEP)


def masses(built):
    place = _core.MASS_DENSITIES.index(0.3)
    return [
        np.mean([group.mass[place] for group in head.groups])
        for layer in built.layers
        for head in layer.heads
    ]


def densities(built):
    return [head.density for layer in built.layers for head in layer.heads]


def spread_floor(built, count):
    """A floor with `count` heads below it."""
    below = sorted(masses(built))
    return float(below[count - 1] + below[count]) / 2


@pytest.mark.parametrize(("below", "kept"), [(0, 0), (1, 1), (2, 2), (5, 2)])
def test_spread_heads_stay_dense_but_never_more_than_a_quarter(below, kept):
    watched = observed(heads=4)
    free = build_profile(watched, MODEL, Settings(dense_below=0.0), [(1.0, 0.0)], steps=8)
    assert densities(free) == [None] * 8
    floor = spread_floor(free, below) if below else 0.01
    settings = Settings(dense_below=floor)
    built = build_profile(watched, MODEL, settings, [(1.0, 0.0)], steps=8)
    worst = np.argsort(masses(free))[:kept]
    assert [d == 1.0 for d in densities(built)] == [i in worst for i in range(8)]


def test_a_locked_head_or_one_with_a_density_is_not_made_dense():
    old = locked(profile(seed=1, heads=4), "HWF", None)
    merged = merge_profiles(old, profile(seed=2, heads=4), density=0.3, dense_below=1.0)
    assert densities(merged)[0] is None and densities(merged).count(1.0) == 2
    assert Profile.parse(merged.dump()).layers[0].heads[1].density == densities(merged)[1]
