"""Ranks that fail, are gone, or were given something else; for Team.run."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from paroattention.parallel.ranks import Ranks
from shared_run import Case, Runner, settings


def raises(rank: int, size: int, where: int, step: int, call: str) -> None:
    """Rank `where` raises behind its call of a layer in a step; the host calls guarded()."""
    ranks = Ranks(timeout=30.0)
    runner = Runner(Case(settings()), ranks)

    def after(at: int, layer: str) -> None:
        if rank == where and (at, layer) == (step, call):
            raise MemoryError("no room for the next block")

    with ranks.guarded():
        runner.run(after)


def ends_early(rank: int, size: int) -> None:
    """Rank 1 is interrupted: its host only finishes the session."""
    runner = Runner(Case(settings()), Ranks(timeout=30.0))

    def after(at: int, layer: str) -> None:
        if rank == 1 and at == 3:
            raise KeyError("interrupted")

    try:
        runner.run(after)
    except KeyError:
        runner.session.finish(ok=False)


def dies(rank: int, size: int) -> None:
    """Rank 1's process ends without a word."""
    runner = Runner(Case(settings()), Ranks(timeout=30.0))

    def after(at: int, layer: str) -> None:
        if rank == 1 and at == 2:
            os._exit(7)

    runner.run(after)


def stays_away(rank: int, size: int, timeout: float) -> float:
    """Rank 1 is busy with something else for longer than the others wait."""
    ranks = Ranks(timeout=timeout)
    started = time.monotonic()
    if rank == 1:
        time.sleep(3 * timeout)
        return 0.0
    try:
        ranks.exchange({})
    finally:
        seconds = time.monotonic() - started
        assert seconds < 2 * timeout + 2, seconds
    return seconds


def with_own(rank: int, size: int, changes: list[dict]) -> None:
    """Each rank has fields of the case of its own."""
    case = Case(settings())
    own = dict(changes[rank])
    if "settings" in own:
        own["settings"] = settings(**own["settings"])
    Runner(replace(case, **own), Ranks(timeout=30.0)).run()


def sampling_fails(rank: int, size: int) -> dict:
    """Acting on samples raises on rank 1: its masks are not renewed, and so nobody's are."""
    runner = Runner(Case(settings()), Ranks(timeout=30.0))
    if rank == 1:
        meter = runner.session.watch.meter

        def read(*given):
            raise MemoryError("no room for samples")

        meter.read = read
    return runner.run()


def adopting_fails(rank: int, size: int) -> dict:
    """No plan can be made on rank 1."""
    runner = Runner(Case(settings()), Ranks(timeout=30.0))
    if rank == 1:

        def profile(*given):
            raise MemoryError("no room for plans")

        runner.session.learning.observation.profile = profile
    return runner.run()


def observing_fails(rank: int, size: int) -> dict:
    """Rank 1 can watch nothing: its heads have no rows."""
    runner = Runner(Case(settings()), Ranks(timeout=30.0))
    if rank == 1:

        def observe(*given, **options):
            raise MemoryError("no room for rows")

        runner.session.observer.observe = observe
    return runner.run()
