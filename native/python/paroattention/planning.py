"""Planner: the plans of one run, by layer, timestep group and token layout; made once, renewed."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from . import _core
from .layout import TokenLayout
from .seen_blocks import EXACT_PRIOR, PRIOR, SeenBlocks
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
        place, group, grid, options = self._request(key)
        found = _core.layer_importance(self.profile, place, group, grid, **options)
        return [(one.order, one.numpy()) for one in found]

    def replace(self, key: Key, plan: _core.Plan) -> None:
        with self._lock:
            self._plans[key] = plan
            self.version += 1

    def forget(self) -> None:
        """Makes every plan anew at its next use."""
        with self._lock:
            # A builder may know of the layers alone that had no plan when it began.
            self._cancel()
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

    def lacks(self, key: Key) -> bool:
        """Whether the profile fits a call but for its layer, which it does not hold."""
        return not self.given and key.layer not in self._ids and not self.misfit(key)

    def index(self, layer: str) -> int | None:
        return self._ids.get(layer)

    def _cancel(self) -> None:
        for builder in self._builders.values():
            builder.cancel()
        self._builders.clear()

    def _make(self, key: Key) -> _core.Plan | str:
        if self._given is not None:
            return self._given(key.layer, key.group, key.layout) or "no exact map of this layer"
        reason = self.misfit(key)
        if reason:
            return reason
        if key.layer not in self._ids:
            return f"layer {key.layer} is not in the profile"
        exact = self._ahead(key) if self._ahead else None
        return exact or self.build(self.profile, key)

    def misfit(self, key: Key) -> str:
        """Why the profile cannot serve a call of this shape, whatever its layer; or ""."""
        profile, model = self.profile, self.profile.model
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
        if not self.background or profile is not self.profile:
            place, group, grid, options = self._request(key)
            return _core.plan_layer(profile, place, group, grid, **options)
        name = (key.group, key.layout)
        if name not in self._builders:
            planned = {one.layer for one in self.plans() if (one.group, one.layout) == name}
            left = [layer for layer in profile.layer_ids() if layer not in planned]
            self._builders[name] = self.builder(profile, *name, layers=left)
        return self._builders[name].get(key.layer)

    def heads(self, profile: _core.Profile, key: Key, heads: list[int]) -> list:
        """HeadPlans of these heads of a layer."""
        place, group, grid, options = self._request(key)
        return _core.plan_heads(profile, place, group, grid, heads=heads, **options)

    def builder(
        self, profile: _core.Profile, group: int, layout: TokenLayout, *, layers: Sequence[str] = ()
    ):
        """A PlanBuilder of these layers, under way; () for all."""
        known = {}
        for layer in layers or profile.layer_ids():
            own = self._known(layer, group, layout)
            if own is not None:
                known[layer] = own
        builder = _core.PlanBuilder(
            profile, group, layout.grid, layers=layers, known=known, **self._options(layout)
        )
        for layer in known.keys() & self.seen.keys():
            self.seen[layer].lend(functools.partial(builder.busy, layer))
        return builder

    def adopt(self, builder, group: int, layout: TokenLayout) -> None:
        """Plans of the profile in use come from this builder, unless samples say more by now."""
        with self._lock:
            if self.seen:
                builder.cancel()
            else:
                self._builders[(group, layout)] = builder

    def _options(self, layout: TokenLayout) -> dict:
        settings, threads = self._settings, torch.get_num_threads()
        return {
            "prefix": layout.prefix,
            "suffix": layout.suffix,
            "block_q": settings.block_q,
            "block_kv": settings.block_kv,
            "density": settings.start_density,
            # Beside a GPU a core is left to the thread that gives it its work.
            "threads": max(1, threads - 1) if self.background else threads,
        }

    def _request(self, key: Key) -> tuple:
        """What plans of a layer depend on, as _core asks for it after the profile."""
        options = self._options(key.layout)
        options["known"] = self._known(key.layer, key.group, key.layout)
        return self._ids[key.layer], key.group, key.layout.grid, options

    def _known(self, layer: str, group: int, layout: TokenLayout):
        """KnownBlocks of what samples and exact maps say of a layer on this grid, or None."""
        seen, exact, known = self.seen.get(layer), self.exact, {}
        if seen is not None and seen.grid == layout.grid:
            known = {"sums": seen.sums, "counts": seen.counts, "prior": PRIOR}
        if exact is not None and exact.grid == layout.grid:
            codes = exact.codes(layer, group)
            if codes:
                known |= {"exact": codes, "exact_prior": EXACT_PRIOR}
        return _core.KnownBlocks(**known) if known else None

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
