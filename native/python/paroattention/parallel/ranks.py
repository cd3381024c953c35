"""The ranks of one run: what they tell each other, and how a rank that fails ends it for all.

Ranks speak over a group of their own on the CPU (gloo), apart from the engine's all-to-all. Every
rank must take part in each exchange, in the same order; who waits looks at a board at the same
time, where a rank that fails says why. So nobody waits for a rank that does not come.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from .. import _core
from ..settings import in_range, shown
from .messages import packed, unpacked

# Bytes that go along with a message's length: most messages need no second exchange.
_INLINE = 16 << 10
# Seconds between two looks at what is waited for: the first one, and the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.0001, 0.01
# Seconds between two looks at the board, and how long it may say nothing after a rank was lost.
_BOARD_EVERY, _LAST_WORDS = 0.2, 1.0

# Runs by members: each has a board of its own.
_runs: Counter[tuple[int, ...]] = Counter()


class RanksError(RuntimeError):
    """The run cannot go on, on any rank: one failed or is gone, or they were not given the same."""


class Ranks:
    """This process's rank among those that share each layer's heads.

    group: the process group of the engine's all-to-all (None: all processes). It may use any
    backend. timeout: seconds that an exchange waits for the slowest rank. board: a
    torch.distributed.Store that all ranks reach; the default group's by default.
    Make one a run, on all ranks at the same point. Raises Error without torch.distributed.
    """

    def __init__(self, group=None, *, timeout: float = 600.0, board=None):
        if not (dist.is_available() and dist.is_initialized()):
            raise _core.Error(
                "group must be of torch.distributed, which is not set up in this process: call"
                " torch.distributed.init_process_group first"
            )
        if not in_range(timeout, 0.1, 86400):
            raise _core.Error(f"timeout must be from 0.1 to 86400 seconds (got {shown(timeout)})")
        members = dist.get_process_group_ranks(group or dist.group.WORLD)
        self.rank, self.size, self.timeout = dist.get_rank(group), len(members), timeout
        if self.rank < 0:
            raise _core.Error(f"group must hold this process (got ranks {members})")
        _runs[tuple(members)] += 1
        name = f"paro/{'-'.join(map(str, members))}/{_runs[tuple(members)]}"
        if board is None:
            board = dist.distributed_c10d._get_default_store()
        self._board = dist.PrefixStore(name, board)
        self._group = dist.new_group(
            members,
            # Ours comes first: it knows what to say.
            timeout=timedelta(seconds=2 * timeout + 60),
            backend="gloo",
            use_local_synchronization=True,
        )
        # Why the run is over on all ranks, once it is.
        self._over, self._failed = "", False
        self._under_way: list[tuple] = []
        # Seconds spent in exchanges, the waits for slower ranks included.
        self.seconds = 0.0

    # -- failing -------------------------------------------------------------------------------

    def fail(self, why: str) -> None:
        """Tells all ranks that this one cannot go on. The first one to fail is heard. Never
        raises."""
        text = f"rank {self.rank} of {self.size} failed: {shown_line(why)}"
        heard = text
        with contextlib.suppress(Exception):
            heard = self._board.compare_set("failed", "", text).decode()
        self._over, self._failed = self._over or heard, self._failed or heard == text

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around what this rank does in a run: an error that leaves it is told to all ranks. Where
        another rank has failed before, RanksError says so in place of what came of that here."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) and not self._failed:
                try:
                    self.check()
                except RanksError as told:
                    raise told from error
            if not isinstance(error, RanksError):
                self.fail(f"{type(error).__name__}: {error}")
            raise

    def check(self) -> None:
        """Raises RanksError if a rank has failed."""
        if not self._over:
            with contextlib.suppress(Exception):
                if self._board.check(["failed"]):
                    self._over = self._board.get("failed").decode()
        if self._over:
            raise RanksError(f"{self._over}; the run ends on all ranks")

    def wait(self, work, *buffers: torch.Tensor) -> None:
        """Waits for a torch.distributed Work on the CPU, or until a rank fails. buffers: what it
        reads and writes; kept where it does not end, since it may still be under way.

        Raises RanksError: a rank failed, is gone, or took longer than `timeout`.
        """
        try:
            self._wait(work)
        except RanksError:
            self._under_way.append((work, buffers))
            raise

    def _wait(self, work) -> None:
        started = told = time.monotonic()
        pause = _FIRST_LOOK
        while not work.is_completed():
            now = time.monotonic()
            if now - told > _BOARD_EVERY:
                told = now
                self.check()
            if now - started > self.timeout:
                self._lost(f"a rank did not come within {self.timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        try:
            work.wait()
        except RuntimeError as error:
            self._lost(f"a rank is gone ({shown_line(error)})")

    def _lost(self, why: str) -> None:
        """A rank is missing: says why, in its own words if it left any."""
        until = time.monotonic() + _LAST_WORDS
        while time.monotonic() < until:
            self.check()
            time.sleep(_LONGEST_LOOK)
        self.fail(why)
        self.check()

    # -- exchanges -----------------------------------------------------------------------------

    def exchange(
        self, told: dict, arrays: dict[str, np.ndarray] | None = None
    ) -> list[tuple[dict, dict[str, np.ndarray]]]:
        """What each rank tells, by rank: (told, arrays). told: what JSON can hold.

        Raises RanksError: see `wait`.
        """
        started = time.monotonic()
        self.check()
        content = np.frombuffer(packed(told, arrays), np.uint8)
        head = np.zeros(8 + _INLINE, np.uint8)
        head[:8] = np.array([len(content)], np.int64).view(np.uint8)
        inline = content[:_INLINE]
        head[8 : 8 + len(inline)] = inline
        heads = self._gathered(head)
        sizes = [int(one[:8].view(np.int64)[0]) for one in heads]
        rest = [b""] * self.size
        most = max(sizes) - _INLINE
        if most > 0:
            more = np.zeros(most, np.uint8)
            more[: max(0, len(content) - _INLINE)] = content[_INLINE:]
            rest = [one.tobytes() for one in self._gathered(more)]
        found = []
        for size, first, second in zip(sizes, heads, rest, strict=True):
            found.append(unpacked((first[8:].tobytes() + second)[:size]))
        self.seconds += time.monotonic() - started
        return found

    def _gathered(self, content: np.ndarray) -> list[np.ndarray]:
        own = torch.from_numpy(content)
        every = [torch.empty_like(own) for _ in range(self.size)]
        try:
            work = dist.all_gather(every, own, group=self._group, async_op=True)
        except RuntimeError as error:
            self._lost(f"a rank is gone ({shown_line(error)})")
        self.wait(work, own, *every)
        return [one.numpy() for one in every]

    def agree(self, what: dict[str, object]) -> None:
        """Checks that all ranks were given the same. what: names, and values that JSON can hold.

        Raises RanksError on all ranks, naming what differs and the first two different values.
        """
        every = [told for told, _ in self.exchange({"given": what})]
        first = every[0]["given"]
        for rank, told in enumerate(every[1:], 1):
            given = told["given"]
            for name in sorted(first.keys() | given.keys()):
                here, there = first.get(name), given.get(name)
                if here != there:
                    raise RanksError(
                        f"{name} must be the same on all ranks (rank 0 has {shown(here)}, rank"
                        f" {rank} has {shown(there)}); the run ends on all ranks"
                    )


def size_of(group) -> int:
    """Ranks of a process group; 1 for None."""
    return 1 if group is None else dist.get_world_size(group)


def shown_line(error: object) -> str:
    """The first line of an error's text, cut short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
