"""The verdicts of `bench attention` on rows whose answers are known."""

from __future__ import annotations

import pytest
from paroattention.bench.gpu_targets import verdicts


def _row(ms, total=1.0, **other):
    row = {"shape": "wan1.3b-480p", "name": "paro", "path": "hopper", "precision": "int8"}
    row |= {"tail": False, "tile": "128x128", "order": "HWF", "density_total": total, "ms": ms}
    return row | other


def _one(rows, what):
    found = [entry for entry in verdicts(rows) if what in entry["what"]]
    assert len(found) == 1, found
    return found[0]


def test_the_fastest_row_counts_against_the_limit():
    rows = [_row(7.0), _row(6.5, tile="64x64"), _row(5.0, precision="bf16"), _row(4.0, tail=True)]
    entry = _one(rows, "ms at 1.0")
    assert (entry["value"], entry["limit"], entry["holds"]) == (6.5, 6.6, True)
    assert not _one([_row(6.7)], "ms at 1.0")["holds"]
    assert verdicts([_row(1.0, 0.7)]) == []


@pytest.mark.parametrize("ms, holds", [(1.11, True), (1.13, False)])
def test_the_tail_against_the_same_call_without(ms, holds):
    rows = [_row(1.0, 0.2), _row(ms, 0.2, tail=True), _row(1.0, 0.2, tail=True, tile="64x64")]
    entry = _one(rows, "tail adds")
    assert entry["holds"] is holds and entry["value"] == pytest.approx(ms - 1)


@pytest.mark.parametrize("ms, holds", [(1.005, True), (1.02, False)])
def test_an_order_against_the_identity(ms, holds):
    rows = [_row(ms, 0.3), _row(1.0, 0.3, order="FHW")]
    assert _one(rows, "order adds")["holds"] is holds


def test_the_portable_path_against_its_peers():
    rows = [_row(8.0, path="portable"), _row(10.0, name="kitchen-int8"), _row(1.0)]
    rows += [_row(6.0, 0.3, path="portable"), _row(10.0, 0.3, name="kitchen-sol-topk")]
    assert _one(rows, "portable to kitchen-int8")["holds"]
    assert not _one(rows, "portable to kitchen-sol-topk")["holds"]
