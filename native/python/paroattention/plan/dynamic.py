"""mask dynamic: a run's plans are orders and densities; every sparse call finds its own masks."""

from __future__ import annotations

import numpy as np
import torch

from .. import _core
from ..heads import Heads, checked
from ..kernels import cuda_masks
from ..kernels import observe_torch as plain
from ..kernels.head_orders import HeadOrders, OrderedHead
from ..learn.budget import LADDER, Curves, Maps
from ..settings import Settings
from .planning import Key, Planner


class Nothing:
    """Stands for a builder: with dynamic masks nothing is built ahead of time."""

    def cancel(self) -> None:
        pass


class DynamicPlanner(Planner):
    """Of a profile it takes each head's order and density. A layer whose heads are all dense has
    nothing to find: its plan is the one that static masks would give."""

    def for_call(self, plan, q, k, scale: float):
        """The plan with masks that one call runs: those that its q and k ask for."""
        if isinstance(plan, _core.Plan):
            return plan
        return cuda_masks.find_masks(q, k, plan, scale)

    def build(self, profile: _core.Profile, key: Key, builders: dict | None = None):
        return self.mixed(key, self.heads(profile, key, range(profile.model.heads)))

    def heads(self, profile: _core.Profile, key: Key, heads) -> list[OrderedHead]:
        entries, start = profile.layers[self.index(key.layer)].heads, self.density(profile)
        own = ((entries[head].order, entries[head].density) for head in heads)
        return [OrderedHead(order, start if given is None else given) for order, given in own]

    def mixed(self, key: Key, heads: list):
        tile = self._settings.block_q, self._settings.block_kv
        found = HeadOrders(key.layout, tuple(heads), *tile)
        if any(head.density < 1 for head in heads):
            return found
        full = _core.BlockMask(np.ones((found.rows, found.cols), dtype=bool))
        return super().mixed(key, [_core.HeadPlan(head.order, full) for head in heads])

    def builder(self, profile, group: int, layout, *, layers=()) -> Nothing:
        return Nothing()

    def maps(self, key: Key, q, k, scale: float, heads: Heads | None = None) -> Maps:
        """Orders and scores [rows, cols]: what this call's masks are chosen by. heads: those in q
        and k, None for all; maps are asked for by their places."""
        orders = [head.order for head in checked(heads, q.shape[1]).of(self.running(key).heads)]
        tile = self._settings.block_q, self._settings.block_kv
        scores = plain.block_scores(q, k, orders, key.layout, tile, scale)
        found = list(zip(orders, scores.cpu().numpy(), strict=True))
        return lambda heads: [found[head] for head in heads]


class FoundCurves(Curves):
    """Curves of masks that are found by row; maps are the scores of the call that is added."""

    @staticmethod
    def chosen(scores: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """bool [ladder, n, cols], as observe_torch.select chooses."""
        rows = torch.from_numpy(scores[tiles])
        every = rows[None].expand(len(LADDER), -1, -1)
        return plain.select(every, torch.tensor(LADDER)).numpy()


def planner_for(settings: Settings) -> Planner:
    """The planner of a run with these settings."""
    return DynamicPlanner(settings) if settings.dynamic else Planner(settings)


def curves_for(settings: Settings, heads: int, sm_scale: float) -> Curves:
    kind = FoundCurves if settings.dynamic else Curves
    tile = settings.block_q, settings.block_kv
    return kind(heads, *tile, sm_scale=sm_scale, tail=settings.tail)
