"""A rank that fails ends the run on all of them, with its reason and at once; nobody hangs."""

from __future__ import annotations

import time

import failing
import pytest
from team import Failed, Team


def _failed(team, *work) -> tuple[Failed, float]:
    started = time.monotonic()
    with pytest.raises(Failed) as caught:
        team.run(*work)
    return caught.value, time.monotonic() - started


@pytest.mark.parametrize(
    ("where", "step", "call"),
    [(1, 0, "double.0.0"), (0, 1, "double.1.0"), (1, 4, "double.0.0"), (0, 7, "double.1.0")],
    ids=["watched", "before adopting", "sparse", "last"],
)
def test_an_error_ends_the_run_on_all_ranks(team, where, step, call):
    failed, seconds = _failed(team, failing.raises, where, step, call)
    kind, told, _ = failed.errors[where]
    assert (kind, told) == ("MemoryError", "no room for the next block")
    kind, told, _ = failed.errors[1 - where]
    assert kind == "RanksError"
    assert told == (
        f"rank {where} of 2 failed: MemoryError: no room for the next block; the run ends on all"
        " ranks"
    )
    # Not by the time limit of 30 s.
    assert seconds < 15


def test_an_interrupted_rank_ends_the_run(team):
    failed, _ = _failed(team, failing.ends_early)
    assert failed.errors[1] is None
    assert "rank 1 of 2 failed: the run was ended early" in failed.message(0)


def test_ranks_work_again_after_a_run_that_failed(team):
    _failed(team, failing.raises, 1, 2, "double.0.0")
    assert len(team.run(failing.sampling_fails)) == 2


def test_a_rank_that_is_gone_is_told():
    own = Team(2)
    try:
        failed, seconds = _failed(own, failing.dies)
    finally:
        own.end()
    assert failed.errors[0][0] == "RanksError"
    assert "a rank is gone" in failed.message(0) and "the run ends on all ranks" in failed.message(
        0
    )
    assert seconds < 15


def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_asked(team):
    failed, _ = _failed(team, failing.stays_away, 0.5)
    assert "a rank did not come within 0.5 s" in failed.message(0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": {"density": 0.2}}, "settings.density must be the same on all ranks"
         " (rank 0 has 0.3, rank 1 has 0.2)"),
        ({"settings": {"block_kv": 128}}, "settings.block_kv must be the same"),
        ({"seed": 6}, "seed must be the same on all ranks (rank 0 has 5, rank 1 has 6)"),
        ({"sigmas": (1.0, 0.5, 0.0)}, "sigmas must be the same on all ranks"),
        ({"known": True}, "profile must be the same on all ranks (rank 0 has 'none (none)', rank 1"
         " has 'found ("),
    ],
)  # fmt: skip
def test_ranks_that_were_given_something_else_are_refused(team, changes, told):
    failed, _ = _failed(team, failing.with_own, [{}, changes])
    for rank in range(2):
        assert told in failed.message(rank), failed.message(rank)


def test_another_profile_is_refused(team):
    changes = {"known": True}, {"known": True, "dense_heads": (0,)}
    failed, _ = _failed(team, failing.with_own, list(changes))
    assert all("profile must be the same on all ranks" in failed.message(rank) for rank in (0, 1))


def test_more_ranks_than_heads_are_refused(team):
    failed, _ = _failed(team, failing.with_own, [{"heads": 1}] * 2)
    told = (
        "ranks must be at most the model's 1 heads, since every rank computes whole heads (got 2)"
    )
    assert all(told in failed.message(rank) for rank in (0, 1))


def test_exact_maps_are_refused(team):
    failed, _ = _failed(team, failing.with_own, [{"settings": {"exact": True}}] * 2)
    assert "exact must be false on several ranks" in failed.message(1)


def test_samples_that_fail_on_one_rank_stop_on_all(team):
    """The run itself goes on, sparse."""
    for part in team.run(failing.sampling_fails):
        assert part["summary"]["renewals"] == []
        assert part["summary"]["paths"]["sparse"] == 12
        assert "masks are not renewed any more: MemoryError: no room for samples" in part["reasons"]


def test_plans_that_fail_on_one_rank_leave_all_dense(team):
    for part in team.run(failing.adopting_fails):
        assert "sparse" not in part["summary"]["paths"]
        assert any("MemoryError: no room for plans" in reason for reason in part["reasons"])


def test_a_rank_that_can_watch_nothing_leaves_all_dense(team):
    for part in team.run(failing.observing_fails):
        assert "sparse" not in part["summary"]["paths"]
        assert any("no masks could be made from the watched" in one for one in part["reasons"])
