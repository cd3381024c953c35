"""Which of a model's heads the tensors of a call hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import _core
from .settings import shown


class Heads(NamedTuple):
    """numbers: the model's numbers of the heads in a tensor, in the tensor's order. total: how many
    heads the model has. One process computes all of them; of several ranks each computes some.

    rows: by head the query tiles of the grid (first, end) that are wanted of it, None for all; ()
    where all heads are whole. guests: so many of the last ones belong to another rank, which
    samples them; this one computes some of their rows.
    """

    numbers: tuple[int, ...]
    total: int
    rows: tuple[tuple[int, int] | None, ...] = ()
    guests: int = 0

    @classmethod
    def all_of(cls, total: int) -> Heads:
        return cls(tuple(range(total)), total)

    @property
    def whole(self) -> bool:
        """Whether these are all heads with all of their rows, in the model's order."""
        return self.numbers == tuple(range(self.total)) and not self.rows

    @property
    def own(self) -> Heads:
        """Those that are sampled here, with all of their rows."""
        if not self.rows:
            return self
        return Heads(self.numbers[: len(self.numbers) - self.guests], self.total)

    def of(self, values: Sequence) -> list:
        """What stands at these heads in a sequence over all of them."""
        return [values[number] for number in self.numbers]


def checked(heads: Heads | None, count: int) -> Heads:
    """The heads of a tensor with so many; None stands for all of them. Raises Error where both do
    not fit."""
    if heads is None:
        return Heads.all_of(count)
    numbers = heads.numbers
    inside = all(0 <= number < heads.total for number in numbers)
    own = list(heads.own.numbers)
    if len(numbers) != count or not inside or own != sorted(set(own)):
        rule = f"must be {count} different numbers below {heads.total}, rising, one for each head"
        raise _core.Error(f"heads {rule} of q (got {shown(numbers)})")
    return heads
