"""Faults for stress.py to find: --plant NAME exchanges the call for one with this fault.

Most are faults of some calls only, as real ones are: of one tile, one dtype, every so often.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal

import torch
from paroattention import ORDERS, _core
from paroattention.kernels import cuda_masks
from stress_calls import Attend, attend


def _block(case, q, k, v, plan, broken=None):
    """The first block of 64 tokens of the last head comes out a third too large."""
    o = attend(case, q, k, v, plan, broken)
    if case.tile == (128, 64):
        o[:, -1, :64] *= 1.33
    return o


def _changed(case, plan, change):
    """The plan with change(order, mask) in place of each head."""
    plan = cuda_masks.host_plan(plan)
    made = [change(head.order, head.mask.numpy().copy()) for head in plan.heads]
    entries = [_core.HeadPlan(order, _core.BlockMask(mask)) for order, mask in made]
    return case.layout.plan(entries, *case.tile)


def _mask(case, q, k, v, plan, broken=None):
    """Head 0 leaves out a block of its first row that has several."""

    def without(order, mask):
        rows = (mask.sum(1) > 1).nonzero()[0]
        if len(rows):
            mask[rows[0], mask[rows[0]].nonzero()[0][-1]] = False
        return order, mask

    return attend(case, q, k, v, _changed(case, plan, without), broken)


def _order(case, q, k, v, plan, broken=None):
    """A head in FHW gets its masks in another order."""

    def other(order, mask):
        return (ORDERS[1] if order == ORDERS[0] else order), mask

    return attend(case, q, k, v, _changed(case, plan, other), broken)


def _stride(case, q, k, v, plan, broken=None):
    """k is read as if its heads lay one after another, whatever its strides."""
    if k.untyped_storage().nbytes() >= (k.storage_offset() + k.numel()) * k.element_size():
        k = torch.as_strided(k, k.shape, torch.empty(k.shape, device="meta").stride())
    return attend(case, q, k, v, plan, broken)


def _tail(case, q, k, v, plan, broken=None):
    """The tail is left out in float16."""
    if case.dtype == "float16":
        case = dataclasses.replace(case, tail=False)
    return attend(case, q, k, v, plan, broken)


_count = itertools.count()


def _bit(case, q, k, v, plan, broken=None):
    """Every seventh call has another last bit in one value."""
    o = attend(case, q, k, v, plan, broken)
    if next(_count) % 7 == 6:
        bits = {4: torch.int32, 2: torch.int16}[o.element_size()]
        o.view(bits)[0, 0, 0, 0] ^= 1
    return o


_first: dict[tuple, torch.Tensor] = {}


def _stale(case, q, k, v, plan, broken=None):
    """A call with the plan of the last one returns what that one did."""
    key = (id(plan), q.shape, q.dtype)
    if key not in _first:
        _first.clear()
        _first[key] = attend(case, q, k, v, plan, broken).clone()
    return _first[key].clone().transpose(1, 2).contiguous().transpose(1, 2)


def _memory(case, q, k, v, plan, broken=None):
    """A call that gets no memory says so by an error of another class."""
    try:
        return attend(case, q, k, v, plan, broken)
    except torch.OutOfMemoryError as error:
        raise ValueError(str(error)) from error


def _offset(case, q, k, v, plan, broken=None):
    """Offsets are counted in 32 bits: what lies beyond 2^31 elements is not found."""
    if max(side * step for side, step in zip(q.shape, q.stride(), strict=True)) > 2**31:
        q = q.flip(0) if q.stride(0) > 2**30 else torch.zeros_like(q)
    return attend(case, q, k, v, plan, broken)


def _death(case, q, k, v, plan, broken=None):
    """A process that meets a prefix of more than 40 tokens dies, as by a bad address."""
    if case.prefix > 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return attend(case, q, k, v, plan, broken)


PLANTS: dict[str, Attend] = {
    "block": _block,
    "mask": _mask,
    "order": _order,
    "stride": _stride,
    "tail": _tail,
    "bit": _bit,
    "stale": _stale,
    "memory": _memory,
    "offset": _offset,
    "death": _death,
}
