"""What a run's dense calls teach: samples, exact maps where they are asked for, and the profiles
that are made of both."""

from __future__ import annotations

import functools
import itertools

from .. import _core
from ..heads import Heads
from ..learn.exact_maps import ExactSums
from ..learn.observer import Observer
from ..plan.profile_build import build_profile
from ..plan.renewal import unlock
from ..settings import ModelInfo, Settings
from ..steps import Steps
from .held import AttentionCall

# Values of one layer's sampled rows that are fetched from a device in a dense step.
_FEW_ROWS = 1 << 20
# Watched heads whose newest rows are saved for the viewer, spread over the layers.
_CAPTURED_HEADS = 32


class Observation:
    """Of one run. keep(layer, sampled, mark): takes rows that will be summed by block once the
    orders are known. note(text): tells the user."""

    def __init__(
        self,
        settings: Settings,
        model: ModelInfo,
        steps: Steps,
        observer: Observer,
        sampler: str,
        keep,
        note,
    ):
        self._settings, self.model, self._steps = settings, model, steps
        self.observer, self._sampler, self._keep = observer, sampler, keep
        # Timestep groups of a profile that is made of the whole run.
        self.halves = steps.groups(halves=True)
        self._exact = ExactSums(settings.block_kv, note) if settings.exact else None

    @property
    def groups(self) -> list:
        """Timestep groups of the run's first profile. One run's first steps are one group, wherever
        they end."""
        return self.halves if self._settings.calibrate else self._steps.groups(halves=False)

    def half(self, sigma: float) -> int:
        """The timestep group of a run's own halves: 0 at its higher sigmas, 1 at the lower ones."""
        return int(len(self.halves) > 1 and sigma <= self.halves[0][1] * (1 + 1e-5))

    def add(self, call: AttentionCall, threads: bool) -> None:
        """Watches a dense call. threads: evaluations come from several ones."""
        calibrate, layer, layout, mark = (
            self._settings.calibrate,
            call.layer,
            call.layout,
            call.mark,
        )
        (q, k, _), scale = call.held.tensors, call.scale
        group = self.half(call.forward.sigma) if calibrate else 0
        look = None
        if self._rows_come_here(q, layout, call.heads):
            look = functools.partial(self._keep, layer, mark=mark)
        given = {"sm_scale": scale, "group": group, "look": look, "mark": mark}
        self.observer.observe(layer, q, k, layout, heads=call.heads, **given)
        if calibrate and self._exact is not None:
            self._add_exact(call.forward.step, layer, group, q, k, layout, scale, threads)

    def _rows_come_here(self, q, layout, heads: Heads) -> bool:
        """Rows are for masks in the heads' own orders, which are not known yet. Few come to the
        host; of a large model on a device they would be too many."""
        if self._settings.calibrate or self._settings.dynamic:
            return False
        rows = heads.total * self._settings.queries * layout.grid_size
        return rows <= _FEW_ROWS or not self.observer.on_device(q)

    # -- exact maps ----------------------------------------------------------------------------

    def _add_exact(self, step, layer, group, q, k, layout, scale, threads) -> None:
        exact, density = self._exact, self._settings.start_density
        if threads and layer not in exact.orders:
            return  # which thread's samples come first must not choose them: see choose_orders
        if exact.wants(layer, group, step):
            exact.choose_orders(layer, group, self.observer, layout.grid, density)
            exact.threads = threads
            exact.add(layer, group, q, k, layout, scale)

    def choose_orders(self) -> None:
        """Of layers that were watched and have none yet; only exact maps need them so early. Call
        it between two evaluations."""
        for layer, watched in self.observer.in_order().items() if self._exact else ():
            for group in watched.seen_groups()[:1]:
                grid, density = watched.layout.grid, self._settings.start_density
                self._exact.choose_orders(layer, group, self.observer, grid, density)

    # -- what it comes to ----------------------------------------------------------------------

    def profile(self, groups, samples=None, only: list[str] | None = None) -> _core.Profile:
        """A profile of what was watched. samples: a Snapshot in place of the observer. only: these
        layers. Raises Error where nothing can be made of it."""
        order_of = None
        if self._exact is not None:
            # Kept, since the maps were summed in them. Asked for by layer and head, as observed.
            self.choose_orders()
            watched = self.observer.in_order().items()
            known = [self._exact.orders[layer] for layer, one in watched if one.seen_groups()]
            orders = itertools.chain(*known)

            def order_of(kernels):
                return next(orders)

        profile = build_profile(
            samples or self.observer,
            self.model,
            self._settings,
            groups,
            steps=self._steps.count,
            sampler=self._sampler,
            order_of=order_of,
            only=only,
        )
        if self._exact is not None:
            unlock(profile, self._settings.dense_below)
        return profile

    def tensors(self, profile: _core.Profile) -> dict:
        """What a capture holds beside the profile: rows/... and queries/... of some watched heads,
        and maps/... where they are exact."""
        maps = self._exact.tensors(profile) if self._exact is not None else {}
        return self._rows() | maps

    def _rows(self) -> dict:
        tensors = {}
        for watched in self.observer.layers.values():
            watched.take_rows()
        entries = [
            (layer, head, group, pair)
            for layer, watched in self.observer.layers.items()
            for (group, head), pair in watched.newest.items()
        ]
        heads = sorted({(layer, head) for layer, head, _, _ in entries})
        stride = -(-len(heads) // _CAPTURED_HEADS) if heads else 1
        chosen = set(heads[::stride])
        for layer, head, group, (queries, rows) in entries:
            if (layer, head) in chosen:
                tensors[f"rows/{layer}/{head}/{group}"] = rows
                tensors[f"queries/{layer}/{head}/{group}"] = queries
        return tensors

    def release(self) -> None:
        """Lets go of rows and maps; what was learned stays."""
        self.observer.release()
        if self._exact is not None:
            self._exact.clear()
