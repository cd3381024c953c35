"""One attention call on its way through a session, and its q, k and v while anybody needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..heads import Heads
from ..layout import TokenLayout
from ..steps import Forward, Mark


class Held:
    """q, k, v (B, H, N, D) of one call, in original order.

    take(): empties what else holds them; None where that cannot be done. Once they are owned, a
    kernel that packs them takes them out of `parts` one by one, so that their memory is free before
    the output is made. last: the host's function comes next, and nobody needs them after it.
    """

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        take: Callable[[], object] | None = None,
    ):
        self.parts: list[torch.Tensor | None] = [q, k, v]
        self.last = False
        self.owned = False
        self._take = take

    def own(self) -> bool:
        """Whether nobody else holds them from now on."""
        if self._take is not None and not self.owned:
            self._take()
            self.owned = True
        return self.owned

    @property
    def whole(self) -> bool:
        """Whether all three are still there."""
        return len(self.parts) == 3 and all(part is not None for part in self.parts)

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k, v. Whoever keeps them keeps their memory. RuntimeError if one is gone."""
        if not self.whole:
            raise RuntimeError("q, k and v of this call were let go of")
        return tuple(self.parts)

    @property
    def q(self) -> torch.Tensor:
        return self.tensors[0]


@dataclass
class AttentionCall:
    """dense() runs the host's own function. scale: of q k^T."""

    forward: Forward
    mark: Mark
    layer: str
    held: Held
    layout: TokenLayout
    scale: float
    dense: Callable[[], torch.Tensor]
    # Of the model's heads, those in q, k and v.
    heads: Heads
