"""A plan's part for some of its heads."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np

from .. import _core
from ..heads import Heads
from ..kernels.head_orders import HeadOrders
from ..layout import TokenLayout


def slice_of(plan, heads: Heads):
    """A plan (or a HeadOrders) of these heads alone, in this order. It itself for all heads.

    Of rows that are not wanted one block is computed, so that their output is finite; it is of no
    use. Raises Error where the plan has another number of heads.
    """
    if plan.head_count != heads.total:
        raise _core.Error(
            f"heads must be of the plan's {plan.head_count} heads (got {heads.total} in all)"
        )
    if heads.whole:
        return plan
    if isinstance(plan, HeadOrders):
        return replace(plan, heads=tuple(heads.of(plan.heads)))
    layout = TokenLayout(tuple(plan.grid), plan.prefix, plan.suffix)
    own = heads.of(plan.heads)
    if heads.rows:
        own = [_part(head, rows) for head, rows in zip(own, heads.rows, strict=True)]
    return layout.plan(own, plan.block_q, plan.block_kv)


def _part(head: _core.HeadPlan, rows: tuple[int, int] | None) -> _core.HeadPlan:
    if rows is None:
        return head
    mask = head.mask.numpy().copy()
    first_block = mask.argmax(1)
    outside = np.ones(len(mask), dtype=bool)
    outside[slice(*rows)] = False
    mask[outside] = False
    mask[outside, first_block[outside]] = True
    return _core.HeadPlan(head.order, _core.BlockMask(mask), head.retained)


class Slices:
    """Slices of plans, each made once: what keeps plans on a device knows them by identity."""

    def __init__(self):
        self._made: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def of(self, plan, heads: Heads):
        """As slice_of; the same object as long as the plan lives."""
        if heads.whole:
            return plan
        known = self._made.setdefault(plan, {})
        if heads not in known:
            known[heads] = slice_of(plan, heads)
        return known[heads]
