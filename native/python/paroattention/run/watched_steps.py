"""In which steps something was watched, and when it was watched enough."""

from __future__ import annotations


class WatchedSteps:
    """Counts steps by name: of a layer, or of anything else. enough: steps that each name needs."""

    def __init__(self, enough: int):
        self.enough = enough
        self._steps: dict[str, set[int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._steps

    def add(self, name: str, step: int) -> None:
        self._steps.setdefault(name, set()).add(step)

    def count(self, name: str) -> int:
        return len(self._steps.get(name, ()))

    def due(self, step: int) -> list[str]:
        """Names that were watched enough when this step begins. A step that is under way counts
        once it is over: its later calls are still to be watched."""
        return [
            name
            for name, steps in self._steps.items()
            if len(steps) >= self.enough and step not in steps
        ]

    def is_last(self, name: str, step: int) -> bool:
        """Whether watching in this step too would be enough."""
        return len(self._steps.get(name, set()) | {step}) == self.enough

    def names(self) -> list[str]:
        return list(self._steps)

    def forget(self, name: str) -> None:
        self._steps.pop(name, None)
