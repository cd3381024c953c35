"""Exact maps: what a calibration sums, how they are kept, and where plans use them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Observer, Settings, TokenLayout, _core, exact_maps
from paroattention.kernels import cuda_observe
from paroattention.kernels import observe_torch as plain
from paroattention.learn.exact_maps import ExactMaps, ExactSums, encode, map_block
from paroattention.plan.planning import Planner
from plan_reference import decode, joined, kernel_map, plan_head, refine, seen_importance
from problems import profile, tensors
from shifting import exact_maps as full_maps
from shifting import shifted

GRID = (6, 8, 8)
LAYOUT = TokenLayout(GRID)
SCALE = 64**-0.5


def random_map(rows, cols, seed=0):
    return np.random.default_rng(seed).random((rows, cols)).astype(np.float32) ** 8


def test_codes_keep_masses_within_their_step():
    values = random_map(30, 40)
    again = decode(encode(values)) * values.max()
    large = values > values.max() * 2.0**-23
    assert np.abs(np.log2(again[large] / values[large])).max() <= 12 / 254 + 1e-4
    assert (again[values < values.max() * 2.0**-25] == 0).all()


def test_codes_of_nothing():
    assert not encode(np.zeros((2, 3), np.float32)).any()
    assert not decode(np.zeros((2, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("grid", "side"), [((6, 8, 8), 64), ((21, 30, 52), 64), ((21, 45, 80), 256), ((1, 1, 1), 64)],
    ids=str,
)  # fmt: skip
def test_maps_fit_a_capture(grid, side):
    assert map_block(grid, 64) == side
    assert -(-np.prod(grid) // side) <= 512


# Two grids: whole blocks, and a ragged last one.
GRIDS = [GRID, (5, 9, 11)]
TILES = [(64, 64), (128, 64), (64, 128), (128, 128)]


def cells_of(grid, side, heads=2, seed=1):
    """Codes of a head each, but of the last head, which has no map."""
    count = -(-np.prod(grid) // side)
    return [encode(random_map(count, count, seed + head)) for head in range(heads - 1)] + [None]


def importance(built, tile, **known):
    """By head, and what its kernel alone says."""
    grid, size = built.calibration.grids[0], {"block_q": tile[0], "block_kv": tile[1]}
    known = _core.KnownBlocks(**known)
    maps = _core.layer_importance(built, 0, 0, grid, known=known, **size)
    bare = [kernel_map(built.bins, head, 0, grid, *tile) for head in built.layers[0].heads]
    return [one.numpy() for one in maps], bare


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("side", [64, 128, 256, 512])
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_exact_maps_refine_what_kernels_say(grid, side, tile):
    built, codes = profile(grid=grid), cells_of(grid, side)
    found, bare = importance(built, tile, exact=codes)
    want = refine(bare[0], decode(codes[0]), side, tile)
    assert np.allclose(found[0], want, rtol=1e-4, atol=1e-6 * want.max())
    assert found[0].sum() == pytest.approx(bare[0].sum(), rel=1e-4)
    assert np.array_equal(found[1], bare[1])
    # At the size of the larger of cells and blocks the masses are the exact ones.
    got = joined(found[0], *(max(1, side // block) for block in tile))
    masses = joined(decode(codes[0]), *(max(1, block // side) for block in tile))
    assert np.allclose(got / got.sum(), masses / masses.sum(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("side", [64, 256])
def test_samples_are_blended_into_exact_maps_too(side):
    grid, tile = GRIDS[1], (64, 64)
    built, codes, draws = profile(grid=grid), cells_of(grid, side), np.random.default_rng(2)
    blocks = -(-np.prod(grid) // 64)
    sums = draws.random((2, blocks, blocks)).astype(np.float32)
    counts = draws.integers(0, 9, (2, blocks)).astype(np.float32)
    seen = {"sums": sums, "counts": counts, "prior": 4.0, "exact": codes, "exact_prior": 16.0}
    found, bare = importance(built, tile, **seen)
    bases = [refine(bare[0], decode(codes[0]), side, tile), bare[1]]
    plan = _core.plan_layer(built, 0, 0, grid, density=0.4, known=_core.KnownBlocks(**seen))
    for head, (base, prior) in enumerate(zip(bases, (16.0, 4.0), strict=True)):
        want = seen_importance(sums[head], counts[head], base, prior, np.prod(grid), 64)
        assert np.allclose(found[head], want, rtol=1e-4, atol=1e-6 * want.max())
        wanted = plan_head(found[head], built.layers[0].heads[head].order, 0.4)
        assert (plan.heads[head].mask.numpy() == wanted.mask.numpy()).all()
        assert plan.heads[head].retained == pytest.approx(wanted.retained, rel=1e-5)


@pytest.mark.parametrize("where", ["plan_layer", "plan_heads", "layer_importance", "PlanBuilder"])
@pytest.mark.parametrize(
    ("exact", "message"),
    [
        (
            [np.ones((6, 6), np.uint8)],
            r"known.exact must hold one map for each of the 2 heads \(got 1\)",
        ),
        ([np.ones((5, 5), np.uint8), None], r"known.exact\[0\] must have n x n cells.*got 25\)"),
        ([None, np.ones((6, 6), np.uint8)], r"known.exact\[1\] must have cells of which"),
    ],
    ids=["heads", "cells", "tile"],
)
def test_refuses_exact_maps_of_another_layer(where, exact, message):
    built, known = profile(grid=GRID), _core.KnownBlocks(exact=exact)
    size = {"block_q": 96} if "cells of which" in message else {}
    with pytest.raises(_core.Error, match=message):
        if where == "PlanBuilder":
            _core.PlanBuilder(built, 0, GRID, known={"double.0.0": known}, **size)
        else:
            getattr(_core, where)(built, 0, 0, GRID, known=known, **size)


@pytest.mark.parametrize(
    ("exact", "message"),
    [
        (np.ones((6, 6), np.float32), r"exact\[0\] must be uint8 \(got float32\)"),
        (np.ones(36, np.uint8), r"exact\[0\] must have 2 dimensions \(got 1\)"),
        (np.ones((6, 4), np.uint8), r"exact\[0\] must be square \(got 6 x 4\)"),
        (np.ones((6, 12), np.uint8)[:, ::2], r"exact\[0\] must be contiguous"),
    ],
    ids=["dtype", "dimensions", "shape", "strides"],
)
def test_refuses_what_is_no_exact_map(exact, message):
    with pytest.raises(_core.Error, match=message):
        _core.KnownBlocks(exact=[exact])


def test_sums_are_those_of_full_attention():
    sums, qkv = ExactSums(), shifted(1)
    sums.orders["a"] = ["HFW", "WHF"]
    for _ in range(2):
        sums.add("a", 0, *qkv[:2], LAYOUT, SCALE)
    sums.settle()
    for head, blocks in enumerate(full_maps(qkv, sums.orders["a"], 64, 64, LAYOUT)):
        assert np.allclose(sums._sums[("a", 0)][head], 2 * blocks.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threads", [False, True])
def test_sums_beyond_the_limit_are_kept_in_larger_blocks(monkeypatch, threads):
    """Those that were there, and one that was on its way; the user is told once."""
    grid = (5, 9, 11)
    given = tensors(2, 495, 64, seed=0), tensors(2, 495, 64, seed=1)
    layers, orders, told = ("a", "b", "c"), ["HFW", "WHF"], []

    def summed(note=told.append):
        sums = ExactSums(note=note)
        sums.threads, sums.orders = threads, dict.fromkeys(layers, orders)
        for qkv in given:
            for layer in layers:
                sums.add(layer, 0, *qkv[:2], TokenLayout(grid), SCALE)
        sums.settle()
        return sums._sums

    fine = summed()
    assert not told and fine[("a", 0)].shape == (2, 8, 8)
    one = fine[("a", 0)].nbytes
    for limit, cells in ((2 * one, 4), (one // 2, 2)):
        told.clear()
        monkeypatch.setattr(exact_maps, "MOST_BYTES", limit)
        coarse = summed()
        assert sum(x.nbytes for x in coarse.values()) <= limit
        for name, sums in coarse.items():
            assert sums.shape == (2, cells, cells)
            want = np.stack([joined(head, 8 // cells, 8 // cells) for head in fine[name]])
            np.testing.assert_allclose(sums, want, rtol=1e-5)
        assert told == [
            "exact maps are summed over larger blocks: they would take more than 0 MB of memory"
        ]


def test_halves_keep_a_last_one_alone():
    sums = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    found = exact_maps.halved(sums)[0]
    assert np.array_equal(found, [[12, 20, 13], [52, 60, 33], [41, 45, 24]])


def test_a_device_sums_a_long_video_by_some_heads_at_a_time(monkeypatch):
    """MiniMax-H3's longest: 3 GB for 56 heads at once. The pieces are those of all together."""
    asked = []

    def operator(_, q, k, orders, prefix, *sides_and_more):
        asked.append(q.shape[1])
        names = [_core.ORDERS[one] for one in orders.tolist()]
        return plain.block_importance(q, k, LAYOUT, names, (64, 64), SCALE)[None]

    q, k, _ = tensors(5, LAYOUT.length, 64, dtype=torch.float16)
    orders = ["HFW", "WHF", "FHW", "HWF", "FWH"]
    want = cuda_observe.block_importance(q, k, LAYOUT, orders, 128, 64, SCALE)
    monkeypatch.setattr(cuda_observe.capability, "summed_in_torch", lambda *given: None)
    monkeypatch.setattr(cuda_observe.cuda, "run", operator)
    named = SimpleNamespace(default=None)
    monkeypatch.setattr(torch.ops.paro, "block_importance", named, raising=False)
    for limit, pieces in ((512 << 20, [5]), (2 * 4 * 36, [2, 2, 1]), (0, [1] * 5)):
        asked.clear()
        monkeypatch.setattr(cuda_observe, "_MOST_SUMS", limit)
        found = cuda_observe.block_importance(q, k, LAYOUT, orders, 128, 64, SCALE)
        assert asked == pieces
        assert torch.allclose(found, want, rtol=1e-5)
    monkeypatch.undo()
    long = torch.empty(1, 56, 0, 128), TokenLayout((234, 24, 42))
    sizes = [part.stop - part.start for part in cuda_observe._head_pieces(*long)]
    assert sizes == [9] * 6 + [2]


# -- a calibration and a run -----------------------------------------------------------------------


def calibrated(frames=0):
    """(profile, tensors) of an exact calibration of heads that look `frames` on."""
    kept = []
    settings = Settings(calibrate=True, exact=True, dense_below=0.0)
    host = Host(settings, grid=GRID, save_profile=lambda *given: kept.append(given))
    outputs = []
    for sigma in SIGMAS[:-1]:
        forward = host.session.begin_forward(sigma)
        for layer in host.layers:
            mark = torch.zeros(1)
            out, ours = host.call(forward, layer, shifted(frames), lambda mark=mark: mark)
            outputs.append(out is mark and not ours)
    summary = host.session.finish()
    assert all(outputs) and not summary["reasons"]
    (given,) = kept
    return given


def test_a_calibration_keeps_a_map_a_head_and_half():
    built, tensors = calibrated()
    maps = {name for name in tensors if name.startswith("maps/")}
    orders = {(one.id, i): head.order for one in built.layers for i, head in enumerate(one.heads)}
    assert maps == {
        f"maps/{layer}/{head}/{group}/{orders[(layer, head)]}"
        for layer in ("double.0.0", "double.1.0") for head in (0, 1) for group in (0, 1)
    }  # fmt: skip
    assert all(not head.locked for one in built.layers for head in one.heads)


def test_maps_survive_the_capture_and_are_found_again(tmp_path):
    built, tensors = calibrated()
    path = tmp_path / "mine.capture.safetensors"
    _core.save_capture(path, built, tensors)
    captured, again = _core.load_capture(path)
    maps = ExactMaps.of(built, captured, again, GRID)
    name = f"maps/double.0.0/1/0/{built.layers[0].heads[1].order}"
    (other, codes) = maps.codes("double.0.0", 0)
    assert codes.shape == (6, 6) and (codes == tensors[name]).all() and other is not None
    assert len(maps.codes("double.1.0", 1)) == 2 and maps.codes("double.2.0", 0) == []
    assert maps.grid == GRID
    del again[name]
    assert [
        one is None for one in ExactMaps.of(built, captured, again, GRID).codes("double.0.0", 0)
    ] == [False, True]


def test_a_run_plans_from_the_exact_maps():
    """Heads look one way along the frames, which an even kernel cannot tell from the other way."""
    built, tensors = calibrated(frames=1)
    retained = {}
    for name, maps in (("exact", ExactMaps.of(built, built, tensors, GRID)), ("kernels", None)):
        find, _ = finder(built)
        settings = Settings(density=1 / 6, dense_below=0.0)
        host = Host(settings, grid=GRID, find_profile=find, find_maps=lambda *given, m=maps: m)
        forward = host.session.begin_forward(1.0)
        host.call(forward, "double.0.0", shifted(1))
        host.session.begin_forward(0.9)
        retained[name] = host.session.watch.meter.measured()[0]
        assert ("exact maps" in host.session.report.profile_note) == (name == "exact")
    assert retained["exact"] > 0.95 and retained["kernels"] < retained["exact"] - 0.2


@pytest.mark.parametrize("background", [False, True])
def test_plans_of_exact_maps_are_the_same_in_the_background(background):
    built, tensors = calibrated(frames=1)
    planner = Planner(Settings(density=0.3), background=background)
    planner.use(built)
    planner.exact = ExactMaps.of(built, built, tensors, GRID)
    q = torch.empty(1, 2, 1, 64)
    for place, layer in enumerate(built.layer_ids()):
        plan = planner.get(planner.key(layer, 1.0, LAYOUT, q))
        codes = planner.exact.codes(layer, 0)
        for head, entry in enumerate(built.layers[place].heads):
            base = kernel_map(built.bins, entry, 0, GRID, 64, 64)
            wanted = plan_head(refine(base, decode(codes[head]), 64, (64, 64)), entry.order, 0.3)
            assert (plan.heads[head].mask.numpy() == wanted.mask.numpy()).all()
    # Another grid than theirs is planned from kernels alone.
    near = TokenLayout((6, 8, 7))
    plan = planner.get(planner.key("double.0.0", 1.0, near, q))
    assert (
        _core.plan_words(plan)
        == _core.plan_words(_core.plan_layer(built, 0, 0, near.grid, density=0.3))
    ).all()


def other(built, **changes):
    copy = type(built).parse(built.dump())
    for name, value in changes.items():
        setattr(copy.model if name != "grids" else copy.calibration, name, value)
    return copy


@pytest.mark.parametrize(
    "changes", [{"fingerprint": "cd" * 32}, {"patches": "ab" * 8}, {"grids": [(5, 8, 8)]}], ids=str
)
def test_maps_of_another_model_patch_or_grid_are_not_used(changes):
    built, tensors = calibrated()
    assert ExactMaps.of(built, other(built, **changes), tensors, GRID) is None


def test_maps_of_another_grid_than_the_runs_are_not_used():
    built, tensors = calibrated()
    assert ExactMaps.of(built, built, tensors, (6, 8, 7)) is None


def test_maps_in_an_order_that_the_head_no_longer_has_are_left_out():
    built, tensors = calibrated()
    renamed = {
        f"{name.rsplit('/', 1)[0]}/{'FHW' if name.endswith('WHF') else 'WHF'}": value
        for name, value in tensors.items() if name.startswith("maps/")
    }  # fmt: skip
    assert ExactMaps.of(built, built, renamed, GRID) is None


def test_a_cache_that_cannot_be_read_is_told_and_the_run_goes_on():
    def broken(found, grid):
        raise OSError("disk gone")

    find, _ = finder(profile())
    host = Host(find_profile=find, find_maps=broken)
    host.run()
    assert host.session.report.paths == {"sparse": 12}
    assert host.reasons() == {
        "the exact maps beside the profile are not used: OSError: disk gone": 1
    }


def test_exact_sums_let_go_at_the_end():
    sums = ExactSums()
    sums.orders["a"] = ["FHW", "FHW"]
    sums.add("a", 0, *shifted(0)[:2], LAYOUT, SCALE)
    sums.clear()
    assert sums.tensors(profile()) == {} and exact_maps.MOST_BLOCKS == 512


def test_orders_are_those_of_the_samples_so_far_and_stay():
    observer, exact = Observer(32), ExactSums()
    observer.observe("a", *shifted(0)[:2], LAYOUT, sm_scale=SCALE)
    exact.choose_orders("a", 0, observer, GRID, 0.3)
    bins, kernels = observer.layers["a"].bins, observer.kernels("a")
    want = [_core.build_head(bins, [kernel], GRID, 0.3)[0].order for kernel in kernels]
    assert exact.orders == {"a": want}
    observer.observe("a", *shifted(3)[:2], LAYOUT, sm_scale=SCALE)
    exact.choose_orders("a", 0, None, GRID, 0.3)
    assert exact.orders == {"a": want}


def test_every_second_step_of_a_group_is_summed():
    exact = ExactSums()
    evaluations = [(step, branch) for step in range(5) for branch in ("cond", "uncond")]
    summed = [step for step, _ in evaluations if exact.wants("0", 0, step)]
    assert summed == [0, 0, 2, 2, 4, 4]
    assert exact.wants("0", 1, 5) and not exact.wants("0", 1, 6)
    assert exact.wants("1", 0, 3)
