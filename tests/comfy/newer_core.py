"""Stand-ins for what newer versions of ComfyUI do around an attention call, by their protocol.

Written from the facts in docs/comfyui.md. PyPI holds no such version to test against.
"""

from __future__ import annotations

import contextlib
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

OVERRIDE = "optimized_attention_override"


class Container:
    """A tensor with one owner."""

    def __init__(self, tensor):
        self._tensor = tensor

    def peek(self):
        if self._tensor is None:
            raise RuntimeError("the container was taken from already")
        return self._tensor

    def take(self):
        tensor = self.peek()
        self._tensor = None
        return tensor

    @property
    def empty(self):
        return self._tensor is None


class Core:
    """The attention functions of such a version over those of the one at hand.

    hosts: of every call that ComfyUI's own path computes, what q, k and v came in. preferred: by
    the number of a self-attention call in a step, the module whose function the call asks for.
    """

    def __init__(self, monkeypatch):
        import comfy.ldm.modules.attention as attention
        import comfy.ldm.wan.model as wan

        self._plain = attention.optimized_attention
        self.hosts, self.containers = [], []
        self.extra: dict = {}
        monkeypatch.setattr(attention, "optimized_attention", self.optimized_attention)
        monkeypatch.setattr(wan, "optimized_attention", self.from_model)

    def from_model(self, q, k, v, heads, **kwargs):
        """As a model calls it: it keeps no tensor."""
        given = [Container(x) for x in (q, k, v)]
        self.containers.append(given)
        extra = self.extra if q.shape == k.shape else {}
        return self.optimized_attention(*given, heads, **kwargs, **extra)

    def optimized_attention(self, *args, **kwargs):
        """The wrapper around attention functions."""
        preferred = kwargs.pop("preferred_attention", None)
        if "_inside_attn_wrapper" not in kwargs:
            kwargs["_inside_attn_wrapper"] = True
            override = (kwargs.get("transformer_options") or {}).get(OVERRIDE)
            if override is not None and hasattr(override, "container_function"):
                return override.container_function(*args, **kwargs)
            if override is not None:
                return override(self.function, *map(taken, args[:3]), *args[3:], **kwargs)
        function = self.function if preferred is None else preferred.function
        self.hosts.append([type(x) for x in args[:3]])
        return function(*map(taken, args[:3]), *args[3:], **kwargs)

    def function(self, q, k, v, *rest, **kwargs):
        """One of ComfyUI's attention functions: it is handed tensors."""
        assert all(isinstance(x, torch.Tensor) for x in (q, k, v))
        kwargs.pop("low_precision_attention", None)
        return self._plain(q, k, v, *rest, **({"_inside_attn_wrapper": True} | kwargs))


def taken(x):
    return x.take() if isinstance(x, Container) else x


class Recorder(TorchDispatchMode):
    """Records what each block allocates, as the newer versions do, unless that is paused.

    steps: by block, one list a call of the block, of the sizes allocated in it. outlived: sizes
    that were recorded and still lived when their block was over, but for what the block returned.
    """

    def __init__(self):
        super().__init__()
        self.steps: dict[str, list[list[int]]] = {}
        self.outlived: list[tuple[str, int]] = []
        self._open: list | None = None
        self._paused = 0
        self._known: set[int] = set()

    @contextlib.contextmanager
    def pause(self):
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self._open is not None and not self._paused:
            given = {_storage(x) for x in _tensors((args, kwargs))}
            for tensor in _tensors(out):
                if _storage(tensor) not in given:
                    self._open.append((tensor.untyped_storage().nbytes(), weakref.ref(tensor)))
        return out

    def around(self, name: str, forward):
        """A block's forward, recorded."""

        def recorded(*args, **kwargs):
            outer, self._open = self._open, []
            try:
                out = forward(*args, **kwargs)
                kept = {_storage(x) for x in _tensors(out)}
                for size, tensor in self._open:
                    if (alive := tensor()) is not None and _storage(alive) not in kept:
                        self.outlived.append((name, size))
                    del alive
                self.steps.setdefault(name, []).append([size for size, _ in self._open])
                return out
            finally:
                self._open = outer

        return recorded


def _storage(tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
