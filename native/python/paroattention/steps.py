"""Which step of a run a sigma belongs to, and what that step does."""

from __future__ import annotations

from dataclasses import dataclass, field

from .settings import Settings


@dataclass
class Forward:
    """One model evaluation: its step, how often each block has called self-attention, and whether
    one of its calls is under way."""

    step: int
    sigma: float
    context_length: int | None = None
    calls: dict[str, int] = field(default_factory=dict)
    busy: bool = False

    def layer_id(self, block_type: str, block_index: int) -> str:
        """`block_type.block_index.occurrence`, counting this call."""
        block = f"{block_type}.{block_index}"
        occurrence = self.calls.get(block, 0)
        self.calls[block] = occurrence + 1
        return f"{block}.{occurrence}"


class Steps:
    """The intervals of a run's sigmas (n + 1 falling values for n steps)."""

    def __init__(self, sigmas: list[float], settings: Settings):
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.settings = settings

    @property
    def count(self) -> int:
        return max(1, len(self.sigmas) - 1)

    def index(self, sigma: float) -> int:
        """The interval that holds sigma: sigmas[i] >= sigma > sigmas[i+1]; clamped outside."""
        # Samplers hand sigma over in float32 and sometimes rescaled: a hair below is still equal.
        reached = [i for i, edge in enumerate(self.sigmas[:-1]) if sigma <= edge * (1 + 1e-5)]
        return reached[-1] if reached else 0

    def allowed(self, step: int) -> bool:
        """Whether a step lies within start_percent and end_percent, as shares of the steps."""
        share = step / self.count
        inside = self.settings.start_percent - 1e-6 <= share
        return inside and (share < self.settings.end_percent - 1e-6)

    def groups(self, halves: bool) -> list[tuple[float, float]]:
        """(sigma_max, sigma_min) of the timestep groups: two halves of the steps, or all."""
        first, last = self.sigmas[0], self.sigmas[-1]
        middle = self.sigmas[(len(self.sigmas) - 1) // 2]
        if halves and first > middle > last:
            return [(first, middle), (middle, last)]
        return [(first, min(last, first - 1e-6))]
