"""Two ranks give each head the output that one process gives it, bit by bit, through whole runs."""

from __future__ import annotations

import functools

import pytest
import torch
from shared_run import Case, alone, settings, shared

CASES = {
    "first run": Case(settings()),
    "known profile": Case(settings(watch="if needed"), known=True),
    "known and watched": Case(settings(), known=True),
    "uneven heads, batch 2, text": Case(
        settings(), heads=3, batch=2, prefix=7, suffix=5, grid=(2, 7, 11)
    ),
    "dynamic masks": Case(settings(mask="dynamic")),
    "heads made denser": Case(settings(meter_limit=0.3), heads=8),
    "target error": Case(settings(density="auto", target_error=0.4)),
    "bf16": Case(settings(precision="bf16", tail=False)),
    "dense steps by ours": Case(settings(dense_steps="int8", end_percent=0.8)),
    "a dense head": Case(settings(watch="if needed"), known=True, heads=6, dense_heads=(1, 2)),
    "as on a GPU": Case(settings(), on_device=True, heads=6),
    "as on a GPU, known": Case(settings(), on_device=True, known=True, heads=6, dense_heads=(1,)),
    "heads in parts": Case(
        settings(watch="if needed"), known=True, heads=3, grid=(6, 11, 13), prefix=9, suffix=70
    ),
    "heads in parts, as on a GPU": Case(
        settings(meter_limit=0.3), on_device=True, heads=3, grid=(6, 11, 13), prefix=9
    ),
    "heads that move": Case(settings(), known=True, heads=6, dense_heads=(1, 2)),
}


@functools.cache
def whole(name: str) -> dict:
    """The case's run in one process."""
    return alone(CASES[name])


def _line(line: dict) -> dict:
    return line | {name: pytest.approx(line[name], abs=1e-9) for name in ("density", "retained")}


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one(team, name):
    one, both = whole(name), team.run(shared, CASES[name])
    for number, out in enumerate(one["outputs"]):
        parts = torch.cat([part["outputs"][number] for part in both], 2)
        assert torch.equal(parts, out), number
    assert one["summary"]["paths"]["sparse"] > 0
    for part in both:
        # What was measured, and what follows from it, is the same on every rank.
        assert part["readings"] == one["readings"]
        assert part["densities"] == one["densities"]
        assert part["summary"] == one["summary"] | {
            name: pytest.approx(one["summary"][name], abs=1e-12)
            for name in ("density", "density_total", "retained")
        }
    assert [len(part["saved"]) for part in both] == [len(one["saved"]), 0]
    assert both[0]["saved"] == one["saved"]
    assert [_line(line) for line in both[0]["lines"]] == [_line(line) for line in one["lines"]]
    assert both[0]["dealings"] == both[1]["dealings"]
    assert both[0]["parts"] > 0 or "in parts" not in name


def test_the_cases_come_to_what_they_are_for():
    """Else two ranks would agree on nothing."""
    runs = {name: whole(name) for name in CASES}
    assert any(taken for _, taken, _ in runs["first run"]["summary"]["renewals"])
    assert any(head for layer in runs["heads made denser"]["densities"] for head in layer)
    assert runs["target error"]["summary"]["budgets"]
    assert runs["first run"]["saved"] and runs["dynamic masks"]["readings"]
    assert runs["dense steps by ours"]["summary"]["paths"].keys() >= {"observe", "sparse", "dense"}


def test_heads_move_once_the_steps_are_sparse(team):
    """Watched steps are dealt out evenly, sparse ones by their loads; each layer once."""
    dealings = team.run(shared, CASES["heads that move"])[0]["dealings"]
    assert dealings[:4] == [((0, 1, 2), (3, 4, 5))] * 4
    moved = dealings[4]
    assert moved != ((0, 1, 2), (3, 4, 5)) and not {1, 2} <= set(moved[0])
    assert not {1, 2} <= set(moved[1])
    assert dealings[4::2] == [moved] * len(dealings[4::2])
    assert dealings[5::2] == [((0, 1, 2), (3, 4, 5))] * len(dealings[5::2])
