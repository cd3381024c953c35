"""Exact maps: what a calibration sums, how they are kept, and where plans use them."""

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, TokenLayout, _core, exact_maps
from paroattention.exact_maps import ExactMaps, ExactSums, decode, encode, map_block, refine
from problems import profile
from test_watching import exact_maps as full_maps
from test_watching import shifted

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


def test_a_map_of_the_same_blocks_is_taken_as_it_is():
    cells = random_map(6, 6, 1)
    found = refine(random_map(6, 6), cells, 64, (64, 64))
    assert np.allclose(found / found.sum(), cells / cells.sum(), rtol=1e-5)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_larger_cells_bring_their_masses(side):
    """6 x 6 blocks of 64: cells of 4 are cut off at the edge."""
    step = side // 64
    count = -(-6 // step)
    by_kernel, cells = random_map(6, 6), random_map(count, count, 1)
    found = refine(by_kernel, cells, side, (64, 64))
    assert found.shape == (6, 6) and found.sum() == pytest.approx(by_kernel.sum(), rel=1e-5)
    edges = np.arange(0, 6, step)
    got = np.add.reduceat(np.add.reduceat(found, edges, 0), edges, 1)
    assert np.allclose(got / got.sum(), cells / cells.sum(), rtol=1e-3)


def test_smaller_cells_are_summed():
    cells = random_map(11, 11, 1)
    found = refine(random_map(6, 11), cells, 64, (128, 64))
    want = np.add.reduceat(cells, np.arange(0, 11, 2), 0)
    assert np.allclose(found / found.sum(), want / want.sum(), rtol=1e-4)


def test_sums_are_those_of_full_attention():
    sums, qkv = ExactSums(), shifted(1)
    sums.orders["a"] = ["HFW", "WHF"]
    for _ in range(2):
        sums.add("a", 0, *qkv[:2], LAYOUT, SCALE)
    sums.settle()
    for head, blocks in enumerate(full_maps(qkv, sums.orders["a"], 64, 64, LAYOUT)):
        assert np.allclose(sums._sums[("a", 0)][head], 2 * blocks.numpy(), rtol=1e-3, atol=1e-3)


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
    assert maps.layers() == {"double.0.0", "double.1.0"}
    values, side = maps.get("double.0.0", 1, 0)
    assert values.shape == (6, 6) and side == 64


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
        retained[name] = host.session.watch.measured()[0]
        assert ("exact maps" in host.session.profile_note) == (name == "exact")
    assert retained["exact"] > 0.95 and retained["kernels"] < retained["exact"] - 0.2


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
    assert host.session.paths == {"sparse": 12}
    assert host.reasons() == {"exact maps not used: OSError: disk gone": 1}


def test_exact_sums_let_go_at_the_end():
    sums = ExactSums()
    sums.orders["a"] = ["FHW", "FHW"]
    sums.add("a", 0, *shifted(0)[:2], LAYOUT, SCALE)
    sums.clear()
    assert sums.tensors(profile()) == {} and exact_maps.MOST_BLOCKS == 512


def test_every_second_step_of_a_group_is_summed():
    exact = ExactSums()
    evaluations = [(step, branch) for step in range(5) for branch in ("cond", "uncond")]
    summed = [step for step, _ in evaluations if exact.wants("0", 0, step)]
    assert summed == [0, 0, 2, 2, 4, 4]
    assert exact.wants("0", 1, 5) and not exact.wants("0", 1, 6)
    assert exact.wants("1", 0, 3)
