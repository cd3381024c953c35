"""What attention calls a run makes, as far as nothing else counts them.

Those that stay dense without a message: if no other call came, the node tells of them, and the user
sees why nothing got faster. And the steps without any call: a cache such as EasyCache skipped them.
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
        # What stands between the model and us, if it is known: see foreign_attention.
        self.foreign = ""
        # What skips steps, if it is one of ComfyUI's own caches.
        self.cache = ""
        self._begun: set[int] = set()
        self._called: set[int] = set()
        # Whether the sampler has called the model since it last said where it is.
        self._fresh = False

    def add(self, queries: int, keys: int) -> None:
        self._calls[(queries, keys)] += 1

    def begin(self, step: int) -> None:
        """The sampler calls the model in this step."""
        self._begun.add(step)
        self._fresh = True

    def call(self, step: int) -> None:
        """Any attention call comes in this step."""
        self._called.add(step)

    def pass_step(self, step: int) -> None:
        """The sampler says that this step's model call is over. Where there was none a cache stands
        between the sampler and us."""
        if not self._fresh:
            self._begun.add(step)
        self._fresh = False

    def skipped(self, current: int | None = None) -> int:
        """Steps that made no attention call; current: the one under way, whose calls may yet come.
        0 for a run without any call: nothing stands for what a step makes."""
        return len(self._begun - self._called - {current}) if self._called else 0

    def told(self) -> str:
        """Why nothing of the run was taken."""
        if not self._calls:
            by = f": {self.foreign} computes its attention" if self.foreign else ""
            return f"no attention call of this model reached PARO{by}"
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
