"""Planner: the plans of one run, by layer, timestep group and token layout; made once, renewed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from . import _core
from .exact_maps import refine
from .layout import TokenLayout
from .seen_blocks import EXACT_PRIOR, PRIOR, SeenBlocks, kernel_map, plan_head
from .settings import Settings


class Key(NamedTuple):
    """What a plan depends on. group: the timestep group, or the sigma where plans are given."""

    layer: str
    group: int | float
    layout: TokenLayout
    heads: int
    head_dim: int


class Planner:
    """Plans from `profile`, once it is set, or from given(layer, sigma, layout).

    background: build the plans of all layers on threads of their own, from the first one that is
    asked for. ahead(key) -> Plan or None comes before the profile (exact maps).
    """

    def __init__(
        self,
        settings: Settings,
        given: Callable | None = None,
        *,
        background: bool = False,
        ahead: Callable | None = None,
    ):
        self._settings, self._given, self._ahead = settings, given, ahead
        self.background = background
        self.profile: _core.Profile | None = None
        # By layer: what samples saw of each block, blended into masks where there is any.
        self.seen: dict[str, SeenBlocks] = {}
        # Exact maps of a calibration: ExactMaps, where there are any for this profile and grid.
        self.exact = None
        self._ids: dict[str, int] = {}
        # Reading a profile's layers makes an object a head: done once.
        self._layers: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._plans: dict[Key, _core.Plan | str] = {}
        self._builders: dict[tuple, object] = {}
        self._lock = threading.RLock()
        # Goes up whenever the plans in use change: what is counted of them is then out of date.
        self.version = 0
        self.seconds = 0.0

    @property
    def ready(self) -> bool:
        return self.profile is not None or self._given is not None

    @property
    def given(self) -> bool:
        return self._given is not None

    def use(self, profile: _core.Profile) -> None:
        """Plans from this profile from now on; those already made stay until they are replaced."""
        with self._lock:
            self._cancel()
            self.profile = profile
            self._ids = {name: place for place, name in enumerate(profile.layer_ids())}

    def key(self, layer: str, sigma: float, layout: TokenLayout, q) -> Key:
        group = self.profile.timestep_group(sigma) if self.profile else sigma
        return Key(layer, group, layout, q.shape[1], q.shape[-1])

    def get(self, key: Key) -> _core.Plan | str:
        """The plan, or why there is none."""
        with self._lock:
            if key not in self._plans:
                started = time.perf_counter()
                self._plans[key] = self._make(key)
                self.version += 1
                self.seconds += time.perf_counter() - started
            return self._plans[key]

    def for_call(self, plan: _core.Plan, q, k, scale: float) -> _core.Plan:
        """What one call with these q and k runs of its plan: static masks fit all."""
        return plan

    def maps(self, key: Key, q, k, scale: float) -> list:
        """(order, importance [rows, cols]) by head: what a call's masks are chosen by."""
        heads = self._heads(self.profile, key.layer)
        return [
            (head.order, self.importance(self.profile, key, place))
            for place, head in enumerate(heads)
        ]

    def replace(self, key: Key, plan: _core.Plan) -> None:
        with self._lock:
            self._plans[key] = plan
            self.version += 1

    def forget(self) -> None:
        """Makes every plan anew at its next use."""
        with self._lock:
            self._plans.clear()
            self.version += 1

    def plans(self) -> dict[Key, _core.Plan]:
        with self._lock:
            return {key: plan for key, plan in self._plans.items() if not isinstance(plan, str)}

    def known(self) -> int:
        """How many keys were asked for, those without a plan included."""
        return len(self._plans)

    def clear(self) -> None:
        """Ends background building and lets go of every plan."""
        with self._lock:
            self._cancel()
            self._plans.clear()
            self.exact = None
            self.version += 1

    def index(self, layer: str) -> int | None:
        return self._ids.get(layer)

    def _cancel(self) -> None:
        for builder in self._builders.values():
            builder.cancel()
        self._builders.clear()

    def _make(self, key: Key) -> _core.Plan | str:
        if self._given is not None:
            return self._given(key.layer, key.group, key.layout) or "no exact map of this layer"
        reason = self._misfit(key)
        if reason:
            return reason
        exact = self._ahead(key) if self._ahead else None
        return exact or self.build(self.profile, key)

    def _misfit(self, key: Key) -> str:
        profile, model = self.profile, self.profile.model
        if key.layer not in self._ids:
            return f"layer {key.layer} is not in the profile"
        if (model.heads, model.head_dim) != (key.heads, key.head_dim):
            return (
                f"the profile has {model.heads} heads of {model.head_dim},"
                f" the model {key.heads} of {key.head_dim}"
            )
        if profile.match_grid(key.layout.grid) == "far":
            return f"grid {key.layout.grid} is far from the calibrated {profile.calibration.grids}"
        return ""

    def build(self, profile: _core.Profile, key: Key) -> _core.Plan:
        """A plan of another profile with the same layers, which the cache does not learn of."""
        layout, seen = key.layout, self.seen.get(key.layer)
        if self._refined(key.layer):
            heads = self._heads(profile, key.layer)
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                one = lambda head: self.head(profile, key, head)  # noqa: E731
                return self.mixed(key, list(pool.map(one, range(len(heads)))))
        if seen is not None or not self.background or profile is not self.profile:
            options = self._options(layout) | (seen.given(PRIOR) if seen is not None else {})
            return _core.plan_layer(
                profile, self._ids[key.layer], key.group, layout.grid, **options
            )
        name = (key.group, layout)
        if name not in self._builders:
            self._builders[name] = self.builder(profile, *name)
        return self._builders[name].get(key.layer)

    def blended(self, layer: str) -> bool:
        """Whether a layer's masks are made of more than kernels."""
        return layer in self.seen or self._refined(layer)

    def _refined(self, layer: str) -> bool:
        """Whether there are exact maps of the layer."""
        return self.exact is not None and layer in self.exact.layers()

    def builder(self, profile: _core.Profile, group: int, layout: TokenLayout):
        """A PlanBuilder of all layers, under way."""
        return _core.PlanBuilder(profile, group, layout.grid, **self._options(layout))

    def adopt(self, builder, group: int, layout: TokenLayout) -> None:
        """Plans of the profile in use come from this builder."""
        with self._lock:
            self._builders[(group, layout)] = builder

    def _options(self, layout: TokenLayout) -> dict:
        settings = self._settings
        return {
            "prefix": layout.prefix,
            "suffix": layout.suffix,
            "block_q": settings.block_q,
            "block_kv": settings.block_kv,
            "density": settings.start_density,
            "threads": torch.get_num_threads(),
        }

    def _heads(self, profile, layer: str) -> list:
        if profile not in self._layers:
            self._layers[profile] = [one.heads for one in profile.layers]
        return self._layers[profile][self._ids[layer]]

    def importance(self, profile, key: Key, head: int):
        """[rows, cols]: what a head's mask is made from."""
        settings, entry = self._settings, self._heads(profile, key.layer)[head]
        tile = settings.block_q, settings.block_kv
        found = kernel_map(profile.bins, entry, key.group, key.layout.grid, *tile)
        seen, prior = self.seen.get(key.layer), PRIOR
        cells = self.exact.get(key.layer, head, key.group) if self.exact else None
        if cells is not None:
            found, prior = refine(found, *cells, tile), EXACT_PRIOR
        return found if seen is None else seen.importance(head, found, prior)

    def head(self, profile, key: Key, head: int, density: float | None = None):
        """One head's HeadPlan; its own density comes first, then the run's."""
        entry = self._heads(profile, key.layer)[head]
        own = self._settings.start_density if entry.density is None else entry.density
        importance = self.importance(profile, key, head)
        return plan_head(importance, entry.order, own if density is None else density)

    def mixed(self, key: Key, heads: list) -> _core.Plan:
        """A plan of these heads, with this key's layout."""
        layout, settings = key.layout, self._settings
        return _core.Plan(
            layout.grid,
            prefix=layout.prefix,
            suffix=layout.suffix,
            block_q=settings.block_q,
            block_kv=settings.block_kv,
            heads=heads,
        )
