"""torch.ops.paro.*: loads the library `_torch_ops` and defines its operators.

The library's own operators, torch.ops.paro_native.*, throw nothing, since the process may hold
another C++ runtime than theirs: one that fails returns None in place of tensors and keeps a status
and a text. Those of torch.ops.paro, which everybody calls, ask for both after each call and raise
RuntimeError, or torch.OutOfMemoryError. They can be compiled with fullgraph and captured in a CUDA
graph.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from .. import _core

# Statuses of torch_ops/edge.h.
_OK, _OUT_OF_MEMORY = 0, 2


class _Library:
    """The library's entry points. PyDLL: they return at once, so Python's lock stays held."""

    def __init__(self, path: Path):
        self._loaded = ctypes.PyDLL(str(path))
        try:
            self.register = self._loaded.paro_register_operators
            self.status = self._loaded.paro_last_status
            self._text = self._loaded.paro_last_error
        except AttributeError as error:
            raise RuntimeError(f"{path.name} is not the operators' library: {error}") from None
        self.register.restype = self.status.restype = ctypes.c_int32
        self._text.restype = ctypes.c_char_p
        for entry in (self.register, self.status, self._text):
            entry.argtypes = ()

    def error(self, status: int) -> RuntimeError:
        """What this thread's last call failed with."""
        text = self._text().decode(errors="replace")
        kind = torch.OutOfMemoryError if status == _OUT_OF_MEMORY else RuntimeError
        return kind(f"paro: {text}" if status == _OUT_OF_MEMORY else text)


def _raising(operator, library: _Library):
    """The operator as a function that raises what the library kept."""

    def call(*args):
        result = operator(*args)
        status = library.status()
        if status != _OK:
            raise library.error(status)
        return result

    return call


# Operators are there as long as this is.
_defined: torch.library.Library | None = None


def load(path: Path) -> None:
    """Defines torch.ops.paro.*; once a process. OSError or RuntimeError where that fails."""
    global _defined
    library = _Library(path)
    status = library.register()
    if status != _OK:
        raise library.error(status)
    defined = torch.library.Library("paro", "FRAGMENT")
    for packet, fake in FAKES.items():
        native = getattr(torch.ops.paro_native, packet)
        for operator in (getattr(native, overload) for overload in native.overloads()):
            schema = str(operator._schema).removeprefix("paro_native::")
            defined.define(schema)
            name = schema.partition("(")[0]
            defined.impl(name, _raising(operator, library), "CUDA")
            if fake is not None:
                torch.library.register_fake(f"paro::{name}", fake, lib=defined)
    _defined = defined


def _attention(q, k, v, plan, *rest):
    batch, heads, length, head_dim = q.shape
    return q.new_empty((batch, length, heads, head_dim)).transpose(1, 2)


def _observe(q, *rest):
    return None


def _meter(q, *rest):
    return q.new_empty((q.shape[1], 2), dtype=torch.float32)


def _dynamic_plan(q, k, orders, densities, prefix, f, h, w, suffix, block_q, block_kv, sm_scale):
    rows, cols = (-(-f * h * w // block) for block in (block_q, block_kv))
    return orders.new_empty(_core.PlanWords(q.shape[1], rows, cols).count)


def _block_importance(q, k, orders, prefix, f, h, w, *rest):
    blocks = -(-f * h * w // 64)
    return q.new_empty((*q.shape[:2], blocks, blocks), dtype=torch.float32)


# Every operator of the library, and what it returns for torch.compile and meta tensors: only the
# library knows how large packed tensors are.
FAKES = {
    "attention": _attention,
    "pack_queries": None,
    "pack_keys": None,
    "attention_packed": None,
    "observe": _observe,
    "meter": _meter,
    "dynamic_plan": _dynamic_plan,
    "block_importance": _block_importance,
}
