"""Kernels with gains of keys, from Python: what an accumulator hands out goes through as it is."""

import numpy as np
import pytest
from paroattention import Error, Profile, _core
from paroattention.bench import made_up
from problems import MODEL, profile

GRID = (4, 6, 8)


def seen(kind: str, bins, rows: int = 64):
    random = np.random.default_rng(1)
    places = random.integers(0, np.prod(GRID), rows).astype(np.int32)
    accumulator = _core.OffsetAccumulator(bins, GRID)
    values = made_up.rows(kind, GRID, places, random)
    _core.add_rows([accumulator], places[None], values[None])
    return accumulator.kernel()


def test_kernels_hold_offsets_then_gains():
    plain, bins = _core.Bins.even(GRID), _core.Bins.observed(GRID)
    assert (plain.keys, bins.keys) == ([0, 0, 0], [4, 6, 8])
    assert len(bins) == len(plain) == plain.codes and bins.codes == len(bins) + 18
    kernel = seen("sinks", bins)
    assert kernel.shape == (bins.codes,)
    frames = kernel[len(bins) :][:4]
    assert frames[0] > 2 * frames[1:].max()


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_codes_go_there_and_back(kind):
    bins = _core.Bins.observed(GRID)
    kernel = seen(kind, bins)
    code, peak = _core.quantise(bins, kernel)
    again = _core.dequantise(bins, code, peak)
    assert np.allclose(again[len(bins) :], kernel[len(bins) :], rtol=0.023)
    with pytest.raises(Error, match=f"code must have {bins.codes} values"):
        _core.dequantise(bins, code[:-1], peak)
    with pytest.raises(Error, match="values must hold one value per bin"):
        _core.importance(bins, kernel[:-1], GRID, "FHW", 16, 16)


def test_a_profile_with_gains_saves_loads_and_plans(tmp_path):
    bins = _core.Bins.observed(GRID)
    built = profile(grid=GRID, layers=("double.0.0",), heads=2)
    heads = _core.build_heads(bins, [[seen("sinks", bins)], [seen("stripes", bins)]], GRID, 0.3)
    built.bins, built.layers = bins, [_core.ProfileLayer("double.0.0", heads)]
    built.save(tmp_path / "p.json")
    assert '"paroattention/2"' in (tmp_path / "p.json").read_text()
    loaded = Profile.load(tmp_path / "p.json")
    assert loaded.dump() == built.dump() and loaded.model.fingerprint == MODEL.fingerprint
    plan = _core.plan_layer(loaded, 0, 0, GRID, block_q=16, block_kv=16, density=0.3)
    # The first frame's three blocks of keys are in for every query, wherever they stand.
    head = plan.heads[0]
    order = _core.permutation(GRID, head.order)
    first = np.unique(np.flatnonzero(order < 48) // 16)
    assert head.mask.numpy()[:, first].mean() > 0.9


def test_made_up_heads_say_which_kinds_there_are():
    with pytest.raises(ValueError, match="kind must be one of"):
        made_up.rows("spiral", GRID, np.array([0]), np.random.default_rng(0))
