"""Attention functions that a checkpoint chose for single layers.

Newer versions of ComfyUI give an attention module a `comfy_attention` with a `function` of its own.
ComfyUI passes it along with the call, and drops it where an override is set. So the module that a
call comes from is noted as it runs, for those modules alone that have such a function.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import torch


class LayerFunctions:
    """Of one run. Hooks lie on the model's modules until `close`."""

    def __init__(self):
        self._handles: list = []
        self._known: set[int] = set()
        self._lock = threading.Lock()
        # Of each thread: the modules that it is in, innermost last.
        self._here = threading.local()

    def watch(self, model: torch.nn.Module | None) -> None:
        """Notes which of the model's layers have a function of their own; once a model."""
        with self._lock:
            if model is None or id(model) in self._known:
                return
            self._known.add(id(model))
            for module in model.modules():
                if _function(module) is not None:
                    enter = module.register_forward_pre_hook(self._enter)
                    leave = module.register_forward_hook(self._leave, always_call=True)
                    self._handles += [enter, leave]

    @torch.compiler.disable
    def _enter(self, module, args) -> None:
        with contextlib.suppress(Exception):  # it would end the model's call
            self._here.__dict__.setdefault("modules", []).append(module)

    @torch.compiler.disable
    def _leave(self, module, args, output) -> None:
        with contextlib.suppress(Exception):
            modules = self._here.__dict__.get("modules", [])
            if modules and modules[-1] is module:
                modules.pop()

    def current(self) -> Callable | None:
        """The function of the layer that this thread is in; None where that has none of its own."""
        modules = self._here.__dict__.get("modules")
        return _function(modules[-1]) if modules else None

    def close(self) -> None:
        """Takes the hooks away."""
        with self._lock:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()


def _function(module) -> Callable | None:
    """The function that a module's `comfy_attention` holds, if it is not the usual one."""
    from comfy.ldm.modules import attention

    function = getattr(getattr(module, "comfy_attention", None), "function", None)
    return (
        function if callable(function) and function is not attention.optimized_attention else None
    )
