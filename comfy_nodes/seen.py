"""Counts the attention calls of a run that stay dense without a message.

If no other call came, the node tells of them: the user sees why nothing got faster.
"""

from __future__ import annotations

from collections import Counter

from .layouts import Geometry

# So many kinds of calls are told apart.
_TOLD = 4


class Seen:
    """Of one run. geometry: the newest evaluation's, or why it had none; None before any call."""

    def __init__(self):
        self._calls: Counter[tuple[int, int]] = Counter()
        self.geometry: Geometry | str | None = None

    def add(self, queries: int, keys: int) -> None:
        self._calls[(queries, keys)] += 1

    def told(self) -> str:
        """Why nothing of the run was taken."""
        if not self._calls:
            return "the model made no attention call that this node can see"
        if isinstance(self.geometry, str):
            return self.geometry
        grid = ""
        if self.geometry is not None:
            sides = "x".join(map(str, self.geometry.grid))
            grid = f" {sides} ({self.geometry.grid_size} tokens)"
        kinds = [
            f"{count} of {queries} tokens"
            if queries == keys
            else f"{count} of {queries} queries to {keys} keys"
            for (queries, keys), count in self._calls.most_common(_TOLD)
        ]
        rest = self._calls.total() - sum(count for _, count in self._calls.most_common(_TOLD))
        if rest:
            kinds.append(f"{rest} of other lengths")
        return f"no attention call covers the grid{grid}; calls seen: {', '.join(kinds)}"
