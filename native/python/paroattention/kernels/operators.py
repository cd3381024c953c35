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


def _overloads(packet) -> list:
    return [getattr(packet, name) for name in packet.overloads()]


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
    for packet in _NAMES:
        for operator in _overloads(getattr(torch.ops.paro_native, packet)):
            schema = str(operator._schema).removeprefix("paro_native::")
            defined.define(schema)
            name = schema.partition("(")[0]
            defined.impl(name, _raising(operator, library), "CUDA")
    _register_fakes()
    _defined = defined


_NAMES = (
    *("attention", "pack_queries", "pack_keys", "attention_packed"),
    *("observe", "meter", "dynamic_plan", "block_importance"),
)


def _register_fakes() -> None:
    """What the operators return, for torch.compile and meta tensors."""
    fake = torch.library.register_fake

    @fake("paro::attention")
    @fake("paro::attention.broken")
    def _(q, k, v, plan, *rest):
        batch, heads, length, head_dim = q.shape
        return q.new_empty((batch, length, heads, head_dim)).transpose(1, 2)

    @fake("paro::observe")
    def _(q, *rest):
        return None

    @fake("paro::meter")
    def _(q, *rest):
        return q.new_empty((q.shape[1], 2), dtype=torch.float32)

    @fake("paro::dynamic_plan")
    def _(q, k, plan, targets, prefix, f, h, w, suffix, block_q, *rest):
        return torch.empty_like(plan), plan.new_empty((q.shape[1], -(-f * h * w // block_q)))

    @fake("paro::block_importance")
    def _(q, k, orders, prefix, f, h, w, *rest):
        blocks = -(-f * h * w // 64)
        return q.new_empty((*q.shape[:2], blocks, blocks), dtype=torch.float32)
