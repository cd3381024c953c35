"""Where the grid lies in a model's sequence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLayout:
    """prefix | grid F x H x W | suffix, counted in tokens; the grid in patches."""

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0

    @property
    def grid_size(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def length(self) -> int:
        return self.prefix + self.grid_size + self.suffix
