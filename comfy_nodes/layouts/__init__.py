"""Token layouts by model family: where the F x H x W grid lies in a self-attention call.

A family registers `geometry(inputs) -> Geometry | str` under ComfyUI's `image_model` name; a string
says why the family's calls stay dense. It is asked once per model evaluation, at the first
attention call, and `layout_of` then compares each call with it. Other custom nodes bring theirs in
transformer_options["paro_geometry"], see docs/comfyui.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from paroattention import TokenLayout

# Calls that are always dense: the user gets no message about them.
CROSS_ATTENTION = "cross-attention"
NO_GRID = "a call without the grid (refiner, audio, image encoder)"
QUIET = frozenset({CROSS_ATTENTION, NO_GRID})
# Calls over the grid that no mask of blocks is made for.
PART = "a call has the queries of only a part of the sequence"
OTHER_KEYS = "a call has more or fewer keys than the sequence has tokens"


@dataclass(frozen=True)
class Call:
    """One attention call as an override sees it; lengths in tokens."""

    qo_len: int
    kv_len: int
    head_dim: int = 0
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """One evaluation of a diffusion model: the module and its forward's arguments by name."""

    model: object
    arguments: dict
    options: dict = field(default_factory=dict)

    def get(self, name: str, default=None):
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def x(self) -> torch.Tensor:
        """The (first) latent: video, where audio comes along."""
        x = self.get("x", self.arguments.get("hidden_states"))
        return x[0] if isinstance(x, (list, tuple)) else x

    @property
    def text_length(self) -> int:
        return length(self.get("context"))


@dataclass(frozen=True)
class Geometry:
    """Where the grid lies in one evaluation's self-attention: prefix | grid | suffix, in tokens.

    prefix, suffix: one of them may be None: whatever a call has beyond the rest, at least `least`.
    texts: lengths of what cross-attention reads; a text as long as the sequence cannot be told
    from it. others: lengths of other self-attention (refiners). head_dim: of the calls meant, where
    another stream may have the same length. counted: the model names no blocks, so layers are
    numbered in the order of their calls. image_at: where single blocks say that the image starts,
    if not at the grid (references before it). joint: all text is in the sequence, so that there is
    no cross-attention beside it.
    """

    grid: tuple[int, int, int]
    prefix: int | None = 0
    suffix: int | None = 0
    least: int = 0
    texts: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    head_dim: int | None = None
    counted: bool = False
    image_at: int | None = None
    joint: bool = False

    @property
    def grid_size(self) -> int:
        return math.prod(self.grid)

    @property
    def known(self) -> int:
        """Tokens whose number is known before the call."""
        return self.grid_size + (self.prefix or 0) + (self.suffix or 0)


def length(value) -> int:
    """Tokens of an embedding (B, N, D); 0 without one."""
    shape = getattr(value, "shape", ())
    return int(shape[1]) if len(shape) > 1 else 0


def patches(x, patch: Sequence[int]) -> tuple[int, int, int]:
    """The grid of a latent (B, C, [F,] H, W) that is padded to whole patches; F is 1 for images."""
    sides = list(x.shape[2:])
    patch = list(patch)
    while len(sides) < 3:
        sides.insert(0, 1)
    while len(patch) < 3:
        patch.insert(0, 1)
    return tuple(-(-int(side) // int(step)) for side, step in zip(sides[-3:], patch, strict=True))


_FAMILIES: dict[str, Callable[[Inputs], Geometry | str]] = {}


def register(*families: str) -> Callable:
    """Decorator: the geometry function of the given families; a later one replaces an earlier."""

    def add(function: Callable) -> Callable:
        for family in families:
            _FAMILIES[family] = function
        return function

    return add


def families() -> tuple[str, ...]:
    """All registered family names, sorted."""
    return tuple(sorted(_FAMILIES))


def geometry_for(family: str, inputs: Inputs) -> Geometry | str:
    """Where the grid lies in this evaluation, or the reason why it stays dense. Never raises."""
    if family not in _FAMILIES:
        return f"models of family {family!r} are not supported: their token layout is not known"
    try:
        return _FAMILIES[family](inputs)
    except Exception as error:
        # Another version of the model class, or another node's change of it: dense, and said.
        why = f"{type(error).__name__}: {error}"
        return f"the token layout of model family {family} cannot be read: {why}"[:200]


def unequal(call: Call, geometry: Geometry) -> str:
    """What a call is whose queries and keys are not equally many."""
    whole = replace(call, qo_len=call.kv_len)
    if call.qo_len < call.kv_len and not isinstance(layout_of(whole, geometry), str):
        return PART
    # In joint attention the text is in the sequence: there is none to attend to beside it.
    whole = replace(call, kv_len=call.qo_len)
    if geometry.joint and not isinstance(layout_of(whole, geometry), str):
        return OTHER_KEYS
    return CROSS_ATTENTION


def layout_of(call: Call, geometry: Geometry) -> TokenLayout | str:
    """The layout of a call in this evaluation, or the reason why it stays dense."""
    if call.kv_len != call.qo_len:
        return unequal(call, geometry)
    if call.qo_len < geometry.grid_size or call.qo_len in geometry.others:
        return NO_GRID
    if geometry.head_dim and call.head_dim != geometry.head_dim:
        return NO_GRID
    prefix, suffix, rest = geometry.prefix, geometry.suffix, call.qo_len - geometry.known
    if prefix is None and rest >= geometry.least:
        prefix = rest
    elif suffix is None and rest >= geometry.least:
        suffix = rest
    elif rest or prefix is None or suffix is None:
        return (
            f"a call has {call.qo_len} tokens, but the grid {geometry.grid} has"
            f" {geometry.grid_size}, and text and references have"
            f" {geometry.known - geometry.grid_size}"
        )
    if call.qo_len in geometry.texts:
        # Block type and index are the same for both, and so would be the lengths.
        return (
            f"text and video have equally many tokens ({call.qo_len}): self-attention and"
            " cross-attention cannot be told apart; another size avoids this"
        )
    place, start = call.options.get("img_slice"), geometry.image_at
    start = prefix if start is None else start
    if place is not None and call.options.get("block_type") == "single" and place[0] != start:
        return (
            f"the image starts at token {place[0]}, but the token layout says {start}:"
            " another node may have added tokens"
        )
    from ..native import paro

    return paro.TokenLayout(geometry.grid, prefix, suffix)


# Each registers itself.
from . import (  # noqa: E402
    causal,  # noqa: F401
    cogvideox,  # noqa: F401
    cosmos,  # noqa: F401
    flux,  # noqa: F401
    hidream,  # noqa: F401
    hunyuan,  # noqa: F401
    kandinsky,  # noqa: F401
    ltx,  # noqa: F401
    lumina,  # noqa: F401
    minimax,  # noqa: F401
    mochi,  # noqa: F401
    pixeldit,  # noqa: F401
    qwen,  # noqa: F401
    wan,  # noqa: F401
)
