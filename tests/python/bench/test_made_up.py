"""Heads made up for benches, and what `bench offsets` says of them."""

import numpy as np
import pytest
from paroattention.bench import made_up, offsets

GRID = (4, 6, 8)


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_rows_are_those_of_a_softmax(kind):
    rows = made_up.rows(kind, GRID, np.array([0, 100]), np.random.default_rng(1))
    assert rows.shape == (2, 192) and rows.dtype == np.float32
    assert np.allclose(rows.sum(1), 1, atol=1e-5)


def test_kinds_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        made_up.rows("spiral", GRID, np.array([0]), np.random.default_rng(0))


def test_masks_of_kernels_are_judged_beside_exact_ones():
    rows = offsets.synthetic(GRID, queries=8)
    assert [row["kind"] for row in rows[:: len(offsets.DENSITIES)]] == list(made_up.KINDS)
    for row in rows:
        assert 0 < row["profile"] <= row["exact_of_this_run"] <= 1
