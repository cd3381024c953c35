"""What policies are compared with: plans from exact maps of the model itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from .. import _core
from ..kernels.attention import attention
from ..layout import TokenLayout
from ..settings import Settings
from ..steps import Forward, Steps


class ExactObserver:
    """Full attention maps, summed per block for all six orders at one tile."""

    def __init__(self, block_q: int = 64, block_kv: int = 64, chunk: int = 512):
        self.block_q, self.block_kv, self.chunk = block_q, block_kv, chunk
        self.layouts: dict[str, TokenLayout] = {}
        self.maps: dict[tuple[str, int], list[list]] = {}
        self._pool = ThreadPoolExecutor(len(_core.ORDERS))

    def observe(self, layer: str, q, k, layout: TokenLayout, *, sm_scale: float, group: int = 0):
        """Adds one dense evaluation of a layer; q, k (B, H, N, D) in original order."""
        self.layouts.setdefault(layer, layout)
        heads = self.maps.setdefault(
            (layer, group),
            [
                [
                    _core.empty_map(layout.grid, order, self.block_q, self.block_kv)
                    for order in _core.ORDERS
                ]
                for _ in range(q.shape[1])
            ],
        )
        for entry in range(q.shape[0]):
            for head, maps in enumerate(heads):
                self._add_head(maps, q[entry, head], k[entry, head], layout, sm_scale)

    def _add_head(self, maps, q, k, layout, scale):
        grid = slice(layout.prefix, layout.prefix + layout.grid_size)
        for start in range(0, layout.grid_size, self.chunk):
            stop = min(start + self.chunk, layout.grid_size)
            places = np.arange(start, stop, dtype=np.int32)
            rows = torch.softmax((q[grid][start:stop] @ k.T).float() * scale, -1)[:, grid]
            values = rows.cpu().numpy()
            # The six sums are independent and run outside of the interpreter's lock.
            add = partial(_core.accumulate_rows, grid=layout.grid, queries=places, rows=values)
            list(self._pool.map(add, maps))

    def plan(
        self,
        layer: str,
        density: float,
        *,
        group: int = 0,
        order: str | None = None,
        densities: Sequence[float] = (),
    ):
        """A Plan from the exact maps: per head the order of greatest retained mass, or `order`.

        density: of all heads; densities, one a head, where they differ.
        """
        layout = self.layouts[layer]
        heads = []
        every = self.maps[(layer, group)]
        for maps, own in zip(every, densities or [density] * len(every), strict=True):
            chosen = order or _core.score_order_maps(maps, density)["order"]
            heads.append(_core.plan_head(maps[_core.ORDERS.index(chosen)], own))
        return layout.plan(heads, self.block_q, self.block_kv)


class ExactRun:
    """As a Session that goes by plans(layer, sigma) -> Plan: for who samples with `attention`."""

    def __init__(self, settings: Settings, sigmas: list[float], plans: Callable, kernel=attention):
        settings.validate()
        self.settings, self.steps = settings, Steps(sigmas, settings)
        self._plans, self._kernel = plans, kernel
        self._ran: list = []
        self._paths: Counter[str] = Counter()
        self._seconds = 0.0

    def begin_forward(self, sigma: float) -> Forward:
        return Forward(self.steps.index(sigma), sigma)

    def attention(self, forward, layer: str, q, k, v, layout, dense) -> tuple[torch.Tensor, bool]:
        """(o, whether it is sparse), as Session.attention."""
        started = time.perf_counter()
        sparse = self.steps.allowed(forward.step)
        self._paths["sparse" if sparse else "dense"] += 1
        if sparse:
            plan, settings = self._plans(layer, forward.sigma), self.settings
            out = self._kernel(q, k, v, plan, precision=settings.precision, tail=settings.tail)
            self._ran.append((plan.density, plan.density_total, plan.retained))
        else:
            out = dense()
        self._seconds += time.perf_counter() - started
        return out, sparse

    def finish(self) -> dict:
        """The part of a session's summary that benches read."""
        density, total, retained = np.mean(self._ran, axis=0) if self._ran else (1.0, 1.0, 1.0)
        return {
            "density": float(density),
            "density_total": float(total),
            "retained": float(retained),
            "measured_error": None,
            "mask": self.settings.mask,
            "attention_seconds": self._seconds,
            "paths": dict(self._paths),
            "reasons": {},
        }
