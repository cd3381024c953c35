"""Planner: the plans of one run, by layer, timestep group and token layout; made once, renewed."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .. import _core
from ..heads import Heads
from ..layout import TokenLayout, other_sizes
from ..learn.budget import Maps
from ..learn.seen_blocks import EXACT_PRIOR, PRIOR, SeenBlocks
from ..settings import Settings
from .head_densities import afforded, free_density
from .profile_copy import with_densities


class Key(NamedTuple):
    """What a plan depends on. group: the timestep group."""

    layer: str
    group: int
    layout: TokenLayout
    heads: int
    head_dim: int


class _Held(NamedTuple):
    """The plans that the calls of the present step get; see Planner.hold."""

    profile: _core.Profile | None
    plans: dict[Key, _core.Plan | str]
    builders: dict[tuple, object]
    # Planner._changes at that time.
    changes: int


def _cancel(builders: dict) -> None:
    for builder in builders.values():
        builder.cancel()
    builders.clear()


class Planner:
    """Plans from `profile`, once it is set.

    background: build the plans of all layers on threads of their own, from the first one that is
    asked for.
    """

    def __init__(self, settings: Settings, *, background: bool = False):
        self._settings, self.background = settings, background
        self.profile: _core.Profile | None = None
        # By layer: what samples saw of each block, blended into masks where there is any.
        self.seen: dict[str, SeenBlocks] = {}
        # Exact maps of a calibration: ExactMaps, where there are any for this profile and grid.
        self.exact = None
        self._ids: dict[str, int] = {}
        self._plans: dict[Key, _core.Plan | str] = {}
        self._builders: dict[tuple, object] = {}
        self._layouts: set[TokenLayout] = set()
        self._held: _Held | None = None
        # How often plans were replaced; those that are made when first asked for do not count.
        self._changes = 0
        self._lock = threading.RLock()
        # Of the profile that was asked about last.
        self._free: tuple = None, 0.0
        # Goes up whenever the plans in use change: what is counted of them is then out of date.
        self.version = 0
        self.seconds = 0.0

    @property
    def ready(self) -> bool:
        return self.profile is not None

    def use(self, profile: _core.Profile) -> None:
        """Plans from this profile from now on; those already made stay until they are replaced."""
        with self._lock:
            self._drop_builders()
            self._changes += 1
            self.profile = profile
            self._ids = {name: place for place, name in enumerate(profile.layer_ids())}

    def give_up(self) -> None:
        """There is no profile to go by after all."""
        self.forget()
        with self._lock:
            self.profile, self._ids, self._held = None, {}, None

    def key(
        self, layer: str, sigma: float, layout: TokenLayout, q, heads: Heads | None = None
    ) -> Key:
        """Of a call with this q. heads: those in q; None for all of the model's."""
        total = q.shape[1] if heads is None else heads.total
        return Key(layer, self.profile.timestep_group(sigma), layout, total, q.shape[-1])

    def get(self, key: Key) -> _core.Plan | str:
        """The newest plan, or why there is none."""
        with self._lock:
            if key not in self._plans:
                self._plans[key] = self._make(key, self.profile, self._builders)
                self.version += 1
            return self._plans[key]

    def hold(self, sigma: float) -> None:
        """A step at sigma begins: all its calls get the plans of this moment.

        New plans may be made during the step. Which of two threads comes first must not decide
        which call gets them.
        """
        with self._lock:
            before = self._held
            if self.background and self.profile is not None:
                self._begin_builders(self.profile.timestep_group(sigma))
            self._held = _Held(self.profile, dict(self._plans), self._builders, self._changes)
            if before is not None and before.builders is not self._builders:
                _cancel(before.builders)

    def _begin_builders(self, group: int) -> None:
        """Of the plans that a step will ask for and that are not there."""
        made = {(key.group, key.layout) for key in self._plans}
        for layout in self._layouts:
            name = group, layout
            if name not in made and name not in self._builders:
                self._builders[name] = self.builder(self.profile, *name)

    def running(self, key: Key) -> _core.Plan | str:
        """The plan of a call of the present step, or why there is none."""
        with self._lock:
            held = self._held
            if held is None:
                return self.get(key)
            if key not in held.plans:
                if held.changes == self._changes:
                    held.plans[key] = self.get(key)
                else:
                    held.plans[key] = self._make(key, held.profile, held.builders)
            return held.plans[key]

    def for_call(self, plan: _core.Plan, q, k, scale: float) -> _core.Plan:
        """What one call with these q and k runs of its plan: static masks fit all."""
        return plan

    def maps(self, key: Key, q, k, scale: float) -> Maps:
        """What a call's masks are chosen by, made anew whenever it is asked for. What samples saw
        until now is read from where it lies: see SeenBlocks.lend."""
        profile = self.profile
        place, group, grid, options = self._request(key, profile)

        def of(heads: Sequence[int]) -> list:
            given = profile, place, group, grid
            found = _core.layer_importance(*given, heads=list(heads), **options)
            return [(one.order, one.numpy()) for one in found]

        return of

    def replace(self, key: Key, plan: _core.Plan) -> None:
        with self._lock:
            self._plans[key] = plan
            self._changes += 1
            self.version += 1

    def forget(self) -> None:
        """Makes every plan anew at its next use."""
        with self._lock:
            # A builder may know of the layers alone that had no plan when it began.
            self._drop_builders()
            self._plans.clear()
            self._changes += 1
            self.version += 1

    def plans(self) -> dict[Key, _core.Plan]:
        with self._lock:
            return {key: plan for key, plan in self._plans.items() if not isinstance(plan, str)}

    def clear(self) -> None:
        """Ends background building and lets go of every plan."""
        with self._lock:
            _cancel(self._builders)
            if self._held is not None:
                _cancel(self._held.builders)
            self._plans.clear()
            self._held = self.exact = None
            self.version += 1

    def lacks(self, key: Key) -> bool:
        """Whether the profile fits a call but for its layer, which it does not hold."""
        return key.layer not in self._ids and not self.misfit(key)

    def index(self, layer: str) -> int | None:
        return self._ids.get(layer)

    def _drop_builders(self) -> None:
        """Ends background building, except of plans that the present step holds."""
        held = self._held
        if held is None or held.builders is not self._builders:
            _cancel(self._builders)
        self._builders = {}

    def _make(self, key: Key, profile, builders: dict) -> _core.Plan | str:
        started = time.perf_counter()
        try:
            reason = self.misfit(key)
            if reason:
                return reason
            if key.layer not in self._ids:
                return f"layer {key.layer} is not in the profile"
            self._layouts.add(key.layout)
            return self.build(profile, key, builders)
        finally:
            self.seconds += time.perf_counter() - started

    def misfit(self, key: Key) -> str:
        """Why the profile cannot serve a call of this shape, whatever its layer; or ""."""
        profile, model = self.profile, self.profile.model
        if (model.heads, model.head_dim) != (key.heads, key.head_dim):
            return (
                f"the profile has {model.heads} heads of size {model.head_dim},"
                f" the model has {key.heads} heads of size {key.head_dim}"
            )
        if profile.match_grid(key.layout.grid) == "far":
            return other_sizes("the profile is", profile.calibration.grids, key.layout.grid)
        return ""

    def build(self, profile: _core.Profile, key: Key, builders: dict | None = None) -> _core.Plan:
        """A plan of a profile with the same layers, which the cache does not learn of. builders: of
        this profile; in the background they build all its layers."""
        if not self.background or builders is None:
            place, group, grid, options = self._request(key, profile)
            return _core.plan_layer(profile, place, group, grid, **options)
        name = (key.group, key.layout)
        if name not in builders:
            planned = {one.layer for one in self.plans() if (one.group, one.layout) == name}
            left = [layer for layer in profile.layer_ids() if layer not in planned]
            builders[name] = self.builder(profile, *name, layers=left)
        return builders[name].get(key.layer)

    def heads(self, profile: _core.Profile, key: Key, heads: list[int]) -> list:
        """HeadPlans of these heads of a layer."""
        place, group, grid, options = self._request(key, profile)
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
            profile,
            group,
            layout.grid,
            layers=layers,
            known=known,
            **self._options(layout, profile),
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

    def affordable(self, profile: _core.Profile) -> _core.Profile:
        """The profile with as many dense heads as the run's density affords; any of them where a
        target error chooses densities."""
        settings = self._settings
        if settings.automatic:
            return profile
        return with_densities(profile, afforded(profile, settings.start_density))

    def density(self, profile: _core.Profile) -> float:
        """Of the heads that have none of their own. Where a target error chooses densities there is
        no sum to be kept."""
        settings, (known, value) = self._settings, self._free
        if settings.automatic:
            return settings.start_density
        if known is not profile:
            value = free_density(profile, settings.start_density)
            self._free = profile, value
        return value

    def _options(self, layout: TokenLayout, profile: _core.Profile) -> dict:
        settings, threads = self._settings, torch.get_num_threads()
        return {
            "prefix": layout.prefix,
            "suffix": layout.suffix,
            "block_q": settings.block_q,
            "block_kv": settings.block_kv,
            "density": self.density(profile),
            # Beside a GPU a core is left to the thread that gives it its work.
            "threads": max(1, threads - 1) if self.background else threads,
        }

    def _request(self, key: Key, profile: _core.Profile) -> tuple:
        """What plans of a layer depend on, as _core asks for it after the profile."""
        options = self._options(key.layout, profile)
        options["known"] = self._known(key.layer, key.group, key.layout)
        return self._ids[key.layer], key.group, key.layout.grid, options

    def _known(self, layer: str, group: int, layout: TokenLayout):
        """KnownBlocks of what samples and exact maps say of a layer on this grid, or None."""
        seen, exact, known = self.seen.get(layer), self.exact, {}
        if seen is not None and seen.grid == layout.grid and not seen.empty:
            known = {"sums": seen.sums, "counts": seen.counts, "prior": PRIOR}
            known["pool_q"], known["pool_kv"] = seen.pools
        if exact is not None and exact.grid == layout.grid:
            codes = exact.codes(layer, group)
            if codes:
                known |= {"exact": codes, "exact_prior": EXACT_PRIOR}
        return _core.KnownBlocks(**known) if known else None

    def mixed(self, key: Key, heads: list) -> _core.Plan:
        """A plan of these heads, with this key's layout."""
        return key.layout.plan(heads, self._settings.block_q, self._settings.block_kv)
