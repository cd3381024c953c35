"""Allocations of ours that fail, one at a time.

On a CPU the allocator never refuses. So the failure is injected: what a GPU raises where torch
makes a new tensor, and what the host raises where a function of the core is called.
"""

from __future__ import annotations

import types

import paroattention
import torch
from paroattention import _core
from torch.utils import _python_dispatch

NO_MEMORY = "CUDA out of memory. Tried to allocate 1.00 GiB."


class Allocations(_python_dispatch.TorchDispatchMode):
    """Counts what takes memory, and refuses the one with the number `at`; 0: none.

    for_good: and all that come after it. of_host: what is allocated now is not ours. Each
    allocation is handed to `seen`.
    """

    for_good = False

    def __init__(self, monkeypatch, at: int = 0):
        super().__init__()
        self.count, self.at, self.of_host = 0, at, False
        self.seen = lambda count: None
        for module in (_core, paroattention):
            for name, function in vars(module).items():
                if isinstance(function, types.BuiltinFunctionType):
                    monkeypatch.setattr(module, name, self._counting(function))

    def _counting(self, function):
        def counting(*args, **kwargs):
            self._take(MemoryError())
            return function(*args, **kwargs)

        return counting

    def _take(self, error: BaseException) -> None:
        if not self.of_host:
            self.count += 1
            self.seen(self.count)
            if self.count == self.at or (self.for_good and self.count > self.at > 0):
                raise error

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        if _storages([out]) - _storages([args, *kwargs.values()]):
            self._take(torch.OutOfMemoryError(NO_MEMORY))
        return out


def _storages(values) -> set[int]:
    found = set()
    for one in values:
        if isinstance(one, torch.Tensor):
            found.add(one.untyped_storage()._cdata)
        elif isinstance(one, (list, tuple)):
            found |= _storages(one)
    return found
