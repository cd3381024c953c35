"""What samples of sparse calls tell: the meter of every head, and whether new masks keep more.

While a run is sparse a few queries of every head are computed densely at every other step. They
say what the head's present mask keeps of its attention and how far its output is off; they go on
teaching the offset kernels; and they are the jury when masks are renewed: a new mask is made from
older samples and judged by newer ones, head by head, against the present one. Masks that every call
finds for itself have nothing to renew: they are metered, and the kernels learn for the profile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from .. import _core
from ..kernels.cuda_masks import host_plan
from ..layout import TokenLayout
from ..learn.budget import LADDER, Budget, Curves
from ..learn.device_watch import DeviceWatch, Reading
from ..learn.observer import Observer
from ..learn.sampling import LOST, WHOLE, Tally, relative_error, retained
from ..learn.seen_blocks import MOST_BYTES, SeenBlocks
from ..plan.denser import Denser
from ..plan.dynamic import curves_for
from ..plan.planning import Key, Planner
from ..plan.proposal import Proposal, gained
from ..plan.renewal import OTHER_HALF, PRIOR_ROWS, renewed, with_densities
from ..settings import Settings
from ..steps import Mark
from .completion import filled

# Sampled steps before the first proposal of new masks, and the most between two: each waits twice
# as long as the last, since what a sample adds to those before it grows less and less.
PROPOSE_AFTER = 2
MOST_BETWEEN = 8


@dataclass
class HostReading:
    """Of one call whose rows came to the host: what a device_watch.Reading is of one that was
    sampled where it lies. seen: (head, places, block sums)."""

    key: Key
    mark: Mark
    sums: Tally
    curves: Curves | None = None
    gain: torch.Tensor | None = None
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def tally(self) -> Tally:
        return self.sums

    def gains(self) -> np.ndarray | None:
        return None if self.gain is None else self.gain.cpu().numpy()

    def teach(self, seen: SeenBlocks) -> None:
        for head, places, sums in self.seen:
            seen.add_sums(head, places, sums)

    def see(self, sampled, blocks: SeenBlocks) -> None:
        """Sums rows as `blocks` is to be taught them."""
        for place, head in enumerate(range(self.key.heads)[sampled.heads]):
            sums = sampled.block_sums(place, blocks.orders[head], blocks.block_kv)
            self.seen.append((head, sampled.places[place], sums))

    def add_gain(self, gain: torch.Tensor) -> None:
        self.gain = gain if self.gain is None else self.gain + gain


@dataclass
class _Over:
    """What a step that is over has left to be acted upon. Readings are taken in the order of their
    marks: sums of floats depend on it, and threads must not."""

    step: tuple[int, float] = (-1, 0.0)
    readings: list[Reading | HostReading] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)
    # What the planner had for each sampled call: another one may have come since.
    ran: dict[Key, object] = field(default_factory=dict)
    # Was before the jury in that step.
    judged: Proposal | None = None
    # (step, timestep group, weights, whether the second half begins) of new masks to be made.
    due: tuple | None = None


class Watch:
    """The samples of a session's sparse steps. note(text, count): tells the user, once a cause."""

    def __init__(self, settings: Settings, observer: Observer, planner: Planner, note):
        self._settings, self._observer, self._planner = settings, observer, planner
        self._note = note
        self.queries = max(1, settings.queries // 2)
        # Whether the calls of the step under way are sampled.
        self.sampling = False
        # {step, sigma, layer, retained, error}, arrays by head: for the run log and the viewer.
        self.history: list[dict] = []
        # (step, heads that took their new mask, heads judged)
        self.renewals: list[tuple[int, int, int]] = []
        self.denser = Denser(planner, settings.meter_limit, note)
        self._step = (-1, 0.0)
        self._readings: list[HostReading] = []
        self._ran: dict[Key, object] = {}
        self._sparse_steps = self._sampled_since = 0
        self._patience = PROPOSE_AFTER
        self._half: int | None = None
        self._border = False
        # Before the jury, and made but not there yet.
        self._proposal: Proposal | None = None
        self._coming: Proposal | None = None
        self._over = _Over()
        self._stopped = False
        # Rows of the dense steps, until the orders are known that sum them by block.
        self._rows: dict[str, list] = {}
        self._row_bytes = 0
        self._fits = False
        self._device = DeviceWatch(observer, settings.tail)
        # Of the step under way, what static masks are chosen by.
        self._maps: dict[Key, list] = {}
        self._curves_due, self._measuring = True, False
        # Densities that a user or an earlier rule gave a head: not ours to choose.
        self._fixed: dict[tuple[str, int], float] = {}
        # (step, mean density, predicted error) of what was chosen for a target error.
        self.budgets: list[tuple[int, float, float]] = []
        # Whether the profile is made of this run's own samples.
        self.own = False

    # -- steps ---------------------------------------------------------------------------------

    def begin_step(self, step: int, sigma: float, half: int, sparse: bool) -> None:
        """A new step begins. What the last one's samples said is acted upon by `work`: at once, or
        where a GPU computes when the caller has given that enough to do."""
        self.work()
        self._hand_over()
        beside = self._planner.background
        if not beside:
            self.work()
        self._step = step, sigma
        self.sampling = False
        wanted = self._settings.refresh and self._settings.start_density < 1
        if self._stopped or not sparse or not wanted or self._planner.given:
            return
        if self._half not in (None, half):
            self._border = self._curves_due = True
        self._half = half
        if self._proposal is None:
            self._proposal, self._coming = self._coming, None
        free = self._proposal is None and self._over.judged is None
        if free and self._due() and not self._settings.dynamic:
            self._begin_proposal(step, sigma, half)
            if not beside:
                self.work()
                self._proposal, self._coming = self._coming, None
        waiting = self._proposal is not None
        self.sampling = waiting or self._sparse_steps % self._settings.refresh_every == 0
        # Curves of error against density: at the first sparse step, and once in the second half.
        self._measuring = self._settings.automatic and self.sampling and self._curves_due
        self._sparse_steps += 1
        self._sampled_since += self.sampling

    def _due(self) -> bool:
        return self._sampled_since >= (1 if self._border else self._patience)

    def _hand_over(self) -> None:
        """The step is over: its samples are all there, or on their way."""
        readings = sorted(self._readings + self._device.take(), key=lambda one: one.mark)
        over = self._over = _Over(self._step, readings, self._curves, self._ran)
        self._readings, self._maps, self._ran = [], {}, {}
        if over.curves:
            self._curves_due = False
        if self._proposal is not None and self._proposal.asked:
            over.judged, self._proposal = self._proposal, None

    def settle(self) -> None:
        """Acts upon all samples so far."""
        self.work()
        self._hand_over()
        self.work()

    def work(self) -> None:
        """What samples of the step that is over said is acted upon, if it was not yet: the only
        place that waits for a device, and only for what that had to do before this step."""
        over, self._over = self._over, _Over()
        tallies: dict[Key, Tally] = {}
        for reading in over.readings:
            self._take(reading, over.judged or self._proposal, tallies)
        for key, tally in tallies.items():
            sums = self._record(key, tally, over.step)
            if over.ran.get(key) is self._planner.get(key):
                self.denser.add(key, sums, tally.queries)
        if over.judged is not None:
            self._adopt(over.judged)
        if over.curves:
            self._spend(over.curves, over.step[0])
        if over.due is not None:
            self._coming = self._propose(*over.due)

    def _take(self, reading, proposal: Proposal | None, tallies: dict[Key, Tally]) -> None:
        """What was measured of one call, now that the step is over."""
        key, tally, gains = reading.key, reading.tally(), reading.gains()
        if tally is not None:
            tallies.setdefault(key, Tally(key.heads)).add_tally(tally)
        if gains is not None and proposal is not None:
            proposal.add(key, gains)
        seen = self._seen_blocks(key)
        if seen is not None:
            reading.teach(seen)

    def measured(self) -> tuple[float, float] | None:
        """(mean retained mass of the heads, relative error of a layer's output) at the newest
        sampled step; None before the first one."""
        newest = [one for one in self.history if one["step"] == self.history[-1]["step"]]
        if not newest:
            return None
        lost, whole = sum(one["sums"].sum(0)[[LOST, WHOLE]] for one in newest)
        mass = float(np.mean([one["retained"].mean() for one in newest]))
        return mass, float(np.sqrt(lost / max(whole, 1e-30)))

    @property
    def learned(self) -> bool:
        """Whether a profile of this run's samples would now be another one."""
        return bool(self.history if self._settings.dynamic else self.renewals)

    def stop(self) -> None:
        """No more samples in this run."""
        self._stopped, self.sampling = True, False
        for proposal in (self._proposal, self._coming, self._over.judged):
            if proposal is not None:
                proposal.end()
        self._proposal = self._coming = None
        self._readings, self._maps, self._ran, self._over = [], {}, {}, _Over()
        self._device.take()

    def clear(self) -> None:
        """Lets go of everything but what was found."""
        self.stop()
        self.denser.clear()
        self._rows = {}
        self._planner.seen.clear()

    def _record(self, key: Key, tally: Tally, at: tuple[int, float]) -> np.ndarray:
        sums = tally.read()
        step, sigma = at
        self.history.append(
            {
                "step": step,
                "sigma": sigma,
                "layer": key.layer,
                "retained": retained(sums),
                "error": relative_error(sums),
                "sums": sums,
            }
        )
        return sums

    # -- a call --------------------------------------------------------------------------------

    def call(
        self, key: Key, plan, q, k, v, out, scale: float, group: int, mark: Mark | None = None
    ) -> None:
        """Samples one sparse call of a run; q, k, v, out (B, H, N, D), plan: what it ran. Calls on
        another grid than the layer's first one (context windows, areas) teach and tell nothing."""
        known = self._observer.layers.get(key.layer)
        if known is not None and known.layout.grid != key.layout.grid:
            return
        self._ran.setdefault(key, self._planner.running(key))
        proposal = self._proposal
        other = proposal.plan(key) if proposal is not None else None
        blocks = self._seen_blocks(key)
        if self._observer.on_device(q) and not self._measuring:
            plans = [plan] if other is None else [plan, other]
            self._device.call(key, plans, q, k, v, scale, group, self.queries, blocks, mark)
            return
        reading = HostReading(key, mark or Mark(len(self._readings)), Tally(key.heads))
        reading.curves, ran = self._curves_of(key, q, k, scale), host_plan(plan)

        def look(sampled):
            reading.sums.add(sampled, ran, v, out)
            if reading.curves is not None:
                reading.curves.add(sampled, k, v)
            if other is not None:
                reading.add_gain(gained(key.heads, sampled, ran, other))
            if blocks is not None:
                reading.see(sampled, blocks)

        self._observer.observe(
            key.layer,
            q,
            k,
            key.layout,
            sm_scale=scale,
            group=group,
            queries=self.queries,
            look=look,
            mark=mark,
        )
        self._readings.append(reading)

    @property
    def _curves(self) -> dict[str, Curves]:
        """By layer, of the step under way."""
        found: dict[str, Curves] = {}
        for reading in sorted(self._readings, key=lambda one: one.mark):
            if reading.curves is not None:
                known = found.get(reading.key.layer)
                found[reading.key.layer] = known + reading.curves if known else reading.curves
        return found

    def _curves_of(self, key: Key, q, k, scale: float) -> Curves | None:
        if not self._measuring:
            return None
        # Masks that are found are other ones in every call.
        if key not in self._maps or self._settings.dynamic:
            self._maps[key] = self._planner.maps(key, q, k, scale)
        return curves_for(self._settings, self._maps[key], scale)

    # -- what samples saw of each block --------------------------------------------------------

    def remember(self, layer: str, sampled, mark: Mark | None = None) -> None:
        """Keeps rows of a dense step until the head's order is known; all or none of them."""
        rows = sampled.grid_rows.half().cpu()
        self._row_bytes += rows.numel() * rows.element_size()
        if self._row_bytes > MOST_BYTES:
            self._rows.clear()
        else:
            pieces = self._rows.setdefault(layer, [])
            name = mark or Mark(len(pieces)), sampled.entry, sampled.heads.start
            pieces.append((name, sampled.heads, sampled.places, rows))

    def begin_with(self, profile: _core.Profile, grid, own: bool) -> None:
        """Plans come from this profile from now on. own: it is made of this run's samples."""
        self.own, self._fixed = own, {}
        self._begin_layers(profile, profile, grid)

    def add(self, fresh: _core.Profile, grid) -> None:
        """Plans of layers that the profile in use lacks come from this one; all samples of the
        others so far are acted upon, and new masks that are not judged by then are given up."""
        self.settle()
        for proposal in (self._proposal, self._coming):
            if proposal is not None:
                proposal.end()
        self._proposal = self._coming = None
        self._begin_layers(filled(self._planner.profile, fresh), fresh, grid)

    def _begin_layers(self, profile: _core.Profile, fresh: _core.Profile, grid) -> None:
        """The planner uses `profile`; the layers of `fresh` are new in it."""
        self._planner.use(profile)
        self._fixed |= {
            (layer.id, place): head.density
            for layer in fresh.layers
            for place, head in enumerate(layer.heads)
            if head.density is not None
        }
        settings, heads = self._settings, profile.model.heads
        size = SeenBlocks.bytes(grid, heads, settings.block_q, settings.block_kv)
        self._fits = settings.refresh and not settings.dynamic
        self._fits = self._fits and size * profile.model.layers <= MOST_BYTES
        # Rows of layers that are still being watched wait for their own turn.
        for layer in [one for one in self._rows if self._planner.index(one) is not None]:
            pieces, layout = self._rows.pop(layer), self._observer.layers[layer].layout
            self._row_bytes -= sum(rows.numel() * rows.element_size() for *_, rows in pieces)
            seen = self._seen_blocks(Key(layer, 0, TokenLayout(layout.grid), heads, 0))
            if seen is None:
                continue
            for _, part, places, rows in sorted(pieces, key=lambda piece: piece[0]):
                for place, head in enumerate(range(heads)[part]):
                    seen.add_rows(head, places[place], rows[place])

    def _seen_blocks(self, key: Key) -> SeenBlocks | None:
        planner, settings = self._planner, self._settings
        place = planner.index(key.layer)
        if not self._fits or place is None:
            return None
        if key.layer not in planner.seen:
            orders = [head.order for head in planner.profile.layers[place].heads]
            planner.seen[key.layer] = SeenBlocks(
                key.layout.grid, orders, settings.block_q, settings.block_kv
            )
        seen = planner.seen[key.layer]
        return seen if seen.grid == key.layout.grid else None

    # -- new masks -----------------------------------------------------------------------------

    def _begin_proposal(self, step: int, sigma: float, half: int) -> None:
        """`work` is to make new masks of what was seen so far."""
        border, self._border, self._sampled_since = self._border, False, 0
        self._patience = PROPOSE_AFTER if border else min(2 * self._patience, MOST_BETWEEN)
        group = self._planner.profile.timestep_group(sigma)
        self._over.due = step, group, {half: 1.0, 1 - half: OTHER_HALF}, border
        self._observer.send()

    def _propose(self, step: int, group: int, weights: dict[int, float], border: bool) -> Proposal:
        if border:
            for seen in self._planner.seen.values():
                seen.fade(OTHER_HALF)
        prior = 0 if self.own else PRIOR_ROWS
        fresh = renewed(self._planner.profile, self._observer, group, weights, prior)
        proposal = Proposal(fresh, step, self._planner)
        proposal.begin()
        return proposal

    def _adopt(self, proposal: Proposal) -> None:
        """Every head takes its new mask if newer samples say that it keeps more."""
        taken = judged = 0
        for key, plan, better in proposal.verdicts():
            judged += len(better)
            if not better.any():
                continue
            taken += int(better.sum())
            choice = zip(plan.heads, self._planner.get(key).heads, better, strict=True)
            heads = [new if use else old for new, old, use in choice]
            self._planner.replace(key, self._planner.mixed(key, heads))
            self.denser.forget(key)
        proposal.end()
        self._planner.use(proposal.profile)
        self.renewals.append((proposal.step, taken, judged))

    # -- density by target error ---------------------------------------------------------------

    def _spend(self, curves: dict[str, Curves], step: int) -> None:
        """Densities by the measured curves: one for all heads, or (per_head) one for each."""
        budget, target = Budget(curves, self._fixed), self._settings.target_error
        if self._settings.per_head:
            places = budget.spend(target=target)
            values, error = np.array(LADDER)[places], budget.predicted(places)
        else:
            values = np.full(len(budget.heads), budget.even(target))
            error = target if values[0] > LADDER[0] else budget.predicted(budget.uniform(LADDER[0]))
        chosen = np.array(
            [self._fixed.get(name, value) for name, value in zip(budget.heads, values, strict=True)]
        )
        self.budgets.append((step, float(chosen.mean()), error))
        self._planner.use(with_densities(self._planner.profile, budget.densities(values)))
        self._planner.forget()
        self.denser.clear()
