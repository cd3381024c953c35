"""What computes an attention call that is not ours: the graph's and ComfyUI's own functions."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

from .operands import Operands, is_container, taken

# Overrides of other nodes that this thread is in: one that calls back must not be called again.
_entered = threading.local()


class HostAttention:
    """Of one call. previous: the override that was set before ours, if any. func: ComfyUI's own
    function; None where ComfyUI hands over containers, and so no function. layer_function: the one
    that the checkpoint chose for the layer, which an override otherwise hides."""

    def __init__(
        self,
        previous: Callable | None,
        func: Callable | None,
        layer_function: Callable | None,
        operands: Operands,
    ):
        self._previous, self._func, self._layer = previous, func, layer_function
        self._operands = operands

    def __call__(self, given: list | None = None):
        """The call's output. given: q, k and v, else those that were handed over."""
        operands, previous = self._operands, self._previous
        given = operands.given if given is None else given
        if previous is None or under_way(previous):
            return self._own(given, operands.rest, operands.kwargs)
        entered = _entered.__dict__.setdefault("ids", set())
        entered.add(id(previous))
        try:
            contained = any(map(is_container, given))
            if contained and hasattr(previous, "container_function"):
                return previous.container_function(*given, *operands.rest, **operands.kwargs)
            given = taken(given)
            return previous(self._function(), *given, *operands.rest, **operands.kwargs)
        finally:
            entered.discard(id(previous))

    def _function(self) -> Callable:
        """ComfyUI's function as an override is handed it."""
        if self._func is not None and self._layer is None:
            return self._func

        def function(q, k, v, *rest, **kwargs):
            return self._own([q, k, v], rest, kwargs)

        return function

    def _own(self, given: list, rest: tuple, kwargs: dict):
        """The layer's own function, else ComfyUI's."""
        function = self._layer or self._func
        if function is not None:
            return function(*taken(given), *rest, **kwargs)
        from comfy.ldm.modules.attention import optimized_attention

        # The mark keeps it from calling the override again. It takes containers and lets go early.
        return optimized_attention(*given, *rest, **({"_inside_attn_wrapper": True} | kwargs))


def under_way(previous: Callable | None) -> bool:
    """Whether this thread is in that override: a call from there is part of one that it has."""
    return id(previous) in _entered.__dict__.get("ids", ())


def name_of(function) -> str:
    """What a bug report calls another node's function: module and name."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(kind, '__module__', '?')}.{kind.__qualname__}"


def foreign_attention(model) -> str:
    """The name of the function that another node has put in the place of ComfyUI's attention for
    this model (a module) or for all; "" without one. No override hears of its calls."""
    from comfy.ldm.modules import attention

    for module in (inspect.getmodule(type(model)), attention):
        for name in ("optimized_attention", "optimized_attention_masked"):
            function = getattr(module, name, None)
            ours = (getattr(function, "__module__", None) or "comfy.").startswith("comfy.")
            if function is not None and not ours:
                return name_of(function)
    return ""
