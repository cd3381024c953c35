"""Token layouts by model family: where the F x H x W grid lies in a self-attention call.

A family registers `layout(call) -> TokenLayout | str`; a string says why the call is not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paroattention import TokenLayout

# Reason for calls that are dense by nature; counted, never shown as a problem.
CROSS_ATTENTION = "cross-attention"


@dataclass(frozen=True)
class Call:
    """One attention call as an override sees it. context_length: the text's, if known."""

    qo_len: int
    kv_len: int
    options: dict
    context_length: int | None = None


_FAMILIES: dict[str, Callable] = {}


def register(*families: str) -> Callable:
    """Decorator: the layout function of the given families (ComfyUI's `image_model` names)."""

    def add(function: Callable) -> Callable:
        for family in families:
            _FAMILIES[family] = function
        return function

    return add


def layout_for(family: str, call: Call) -> TokenLayout | str:
    """The layout of a call, or the reason why it stays dense."""
    if family not in _FAMILIES:
        return f"no token layout for model family {family!r} yet"
    return _FAMILIES[family](call)


from . import wan  # noqa: E402,F401  (registers itself)
