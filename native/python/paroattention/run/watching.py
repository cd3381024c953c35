"""Sampling a run's sparse calls: what the meter, new masks and densities are made from.

While a run is sparse a few queries of every head are computed densely at every other step. They
say what the head's present mask keeps of its attention and how far its output is off; they go on
teaching the offset kernels; and they judge new masks. Masks that every call
finds for itself have nothing to renew: they are metered, and the kernels learn for the profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .. import _core
from ..heads import Heads, checked
from ..kernels.cuda_masks import host_plan
from ..learn.budget import Curves
from ..learn.device_watch import DeviceWatch, Reading
from ..learn.observer import Observer
from ..learn.sampling import Tally
from ..parallel.slices import slice_of
from ..plan.denser import Denser
from ..plan.planning import Key, Planner
from ..plan.proposal import Proposal, gained
from ..settings import Settings
from ..steps import Mark
from . import faults
from .block_memory import BlockMemory
from .completion import filled
from .meter import Meter
from .proposals import Proposals
from .readings import HostReading, Measured, sum_curves
from .report import first_line
from .target_error import TargetError

NO_MORE = "masks are not renewed any more: {why}"


@dataclass
class _Over:
    """What was sampled in a step that is over, and is still to be acted upon.

    Readings are taken in the order of their marks. Sums of floats depend on the order, and results
    must not depend on which thread came first.
    """

    step: tuple[int, float] = (-1, 0.0)
    readings: list[Reading | HostReading] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)
    # What the planner had for each sampled call: another one may have come since.
    ran: dict[Key, object] = field(default_factory=dict)
    # The proposal that this step's samples judged.
    judged: Proposal | None = None
    # Whether ranks still have to tell each other what they measured in it.
    untold: bool = False


class Watch:
    """The samples of a session's sparse steps. note(text, count): tells the user, once a cause.
    gather(measured, stopped) -> (what all ranks measured, why one of them stopped or ""): where
    each of several ranks computes some of the heads. Every rank calls it once a step."""

    def __init__(self, settings: Settings, observer: Observer, planner: Planner, note, gather=None):
        self._note, self._gather = note, gather
        self._settings, self._observer, self._planner = settings, observer, planner
        # Whether the calls of the step under way are sampled.
        self.sampling = False
        self.meter = Meter(
            planner, Denser(planner, settings.meter_limit, settings.start_density, note)
        )
        self.proposals = Proposals(settings, observer, planner)
        self.target = TargetError(settings, planner)
        self.blocks = BlockMemory(settings, observer, planner, note)
        self._device = DeviceWatch(observer, settings.tail)
        self._step, self._sparse_steps = (-1, 0.0), 0
        # Whether the step under way counts among the sparse ones once one of its calls has come.
        self._counts = False
        # Of the step under way.
        self._readings: list[HostReading] = []
        self._ran: dict[Key, object] = {}
        self._over = _Over()
        self._stopped = ""

    # -- the profile in use --------------------------------------------------------------------

    def begin_with(self, profile: _core.Profile, grid, own: bool) -> None:
        """Plans come from this profile from now on. own: it is made of this run's samples."""
        self.proposals.own = own
        self.target.forget_kept()
        self._begin_layers(profile, profile, grid)

    def add(self, fresh: _core.Profile, grid) -> None:
        """Plans of layers that the profile in use lacks come from this one; all samples of the
        others so far are acted upon, and new masks that are not judged by then are given up."""
        self.settle()
        self.proposals.give_up()
        self._begin_layers(filled(self._planner.profile, fresh), fresh, grid)

    def _begin_layers(self, profile: _core.Profile, fresh: _core.Profile, grid) -> None:
        """The planner uses `profile`; the layers of `fresh` are new in it."""
        self._planner.use(self._planner.affordable(profile))
        self.target.keep(fresh)
        self.blocks.begin(profile, grid)

    @property
    def learned(self) -> bool:
        """Whether a profile of this run's samples would now be another one."""
        return bool(self.meter.history if self._settings.dynamic else self.proposals.renewals)

    # -- steps ---------------------------------------------------------------------------------

    def begin_step(
        self, step: int, sigma: float, half: int, sparse: bool, called: bool = True
    ) -> None:
        """A new step begins. What the last one's samples said is acted upon by `work`: at once, or
        where a GPU computes when the caller has given that enough to do.

        called: whether the last step made any call. A cache may have skipped it: its turn to be
        sampled is then this step's.
        """
        self.work()
        self._hand_over()
        if not self._planner.background:
            self.work()
        if self._counts and called:
            self._sparse_steps += 1
            if self.sampling:
                self.proposals.sampled()
        self._step, self.sampling, self._counts = (step, sigma), False, False
        settings = self._settings
        if self._stopped or not sparse or not settings.refresh or settings.start_density >= 1:
            return
        crossed = self.proposals.enter(half)
        self.proposals.begin_step(step, sigma, judging=self._over.judged is not None)
        waiting = self.proposals.proposal is not None
        self.sampling = waiting or self._sparse_steps % settings.refresh_every == 0
        self.target.begin_step(self.sampling, crossed)
        self._counts = True

    def _hand_over(self) -> None:
        """The step is over: its samples are all there, or on their way."""
        readings = sorted(self._readings + self._device.take(), key=lambda one: one.mark)
        curves, judged = sum_curves(self._readings), self.proposals.take_judged()
        untold = self._gather is not None
        self._over = _Over(self._step, readings, curves, self._ran, judged, untold)
        self._readings, self._ran = [], {}
        self.target.end_step(curves)

    def settle(self) -> None:
        """Acts upon all samples so far."""
        self.work()
        self._hand_over()
        self.work()

    def work(self) -> None:
        """What samples of the step that is over said is acted upon, if it was not yet: the only
        place that waits for a device, and only for what that had to do before this step."""
        over, self._over = self._over, _Over()
        if self._gather is None:
            self._act(over, self._measured(over))
            return
        # Of several ranks each takes its part in every step, whatever went wrong here.
        if not over.untold:
            self._contained(lambda: self._act(over, self._measured(over)))
            return
        measured = self._contained(lambda: self._measured(over))
        whole, stopped = self._gather(measured or Measured(), self._stopped)
        if stopped and not self._stopped:
            self._note(NO_MORE.format(why=stopped))
            self.stop(stopped)
        if not self._stopped:
            self._contained(lambda: self._act(over, whole))

    def _contained(self, work: Callable):
        """What work() gives. An error ends sampling here, and at the next step on all ranks."""
        try:
            return work()
        except Exception as error:
            faults.free(error)
            self._note(NO_MORE.format(why=first_line(error)))
            self.stop(first_line(error))
            return None

    def _measured(self, over: _Over) -> Measured:
        """What this process has measured in a step. Samples teach their layer's blocks here."""
        measured = Measured(curves=over.curves)
        for reading in over.readings:
            measured.add(reading)
            seen = self.blocks.of(reading.key)
            if seen is not None:
                reading.teach(seen)
        return measured

    def _act(self, over: _Over, measured: Measured) -> None:
        proposal = over.judged or self.proposals.proposal
        for key, gains in measured.gains.items() if proposal is not None else ():
            proposal.add(key, gains)
        self.meter.read(measured.tallies, *over.step, over.ran)
        self._pay_for_raised(over)
        if over.judged is not None:
            self.proposals.adopt(over.judged, self.meter.denser)
        if measured.curves:
            self.target.spend(measured.curves, over.step[0])
            self.meter.denser.clear()
        self.proposals.make()

    def _pay_for_raised(self, over: _Over) -> None:
        """Where heads were made denser all others get less: masks of the densities before, made or
        in the making, would bring the run above the one that was asked for."""
        denser = self.meter.denser
        if not denser.raised_some:
            return
        denser.raised_some = False
        if self._settings.automatic:
            return
        if over.judged is not None:
            over.judged.end()
            over.judged = None
        self.proposals.give_up()
        self._planner.forget()
        denser.clear()

    def stop(self, why: str = "it was asked to stop") -> None:
        """No more samples in this run."""
        self._stopped, self.sampling = self._stopped or why, False
        if self._over.judged is not None:
            self._over.judged.end()
        self.proposals.give_up()
        self.target.end_step({})
        self._readings, self._ran, self._over = [], {}, _Over(untold=self._over.untold)
        self._device.take()

    def clear(self) -> None:
        """Lets go of everything but what was found."""
        self.stop()
        self.meter.denser.clear()
        self.blocks.clear()

    # -- a call --------------------------------------------------------------------------------

    @property
    def looks_at_output(self) -> bool:
        """Whether the calls of the step under way are looked at with their output."""
        return self.sampling and (not self._planner.background or self.target.measuring)

    def needs_output(self, q: torch.Tensor) -> bool:
        """Whether `call` looks at the output of such a call, so that it comes after it."""
        return not self._observer.on_device(q) or self.target.measuring

    def call(
        self,
        key: Key,
        plan,
        q,
        k,
        v,
        out,
        scale: float,
        group: int,
        mark: Mark | None = None,
        heads: Heads | None = None,
    ) -> None:
        """Samples one sparse call of a run; q, k, v, out (B, H, N, D), plan: what it runs; out may
        be None where it is not needed. heads: those in q, k, v and plan; None for all. Calls on
        another grid than the layer's first one (context windows, areas) teach and tell nothing."""
        heads = checked(heads, q.shape[1])
        known = self._observer.layers.get(key.layer)
        if known is not None and known.layout.grid != key.layout.grid:
            return
        self._ran.setdefault(key, self._planner.running(key))
        proposal, queries = self.proposals.proposal, max(1, self._settings.queries // 2)
        other = slice_of(proposal.plan(key), heads) if proposal is not None else None
        blocks = self.blocks.of(key)
        if not self.needs_output(q):
            plans = [plan] if other is None else [plan, other]
            self._device.call(key, plans, q, k, v, scale, group, queries, blocks, mark, heads)
            return
        count, own = len(heads.numbers), mark or Mark(len(self._readings))
        reading = HostReading(key, own, Tally(count), heads=heads)
        reading.curves, maps = self.target.curves(key, q, k, scale, heads)
        ran = host_plan(plan)

        def look(sampled):
            reading.sums.add(sampled, ran, v, out)
            if reading.curves is not None:
                reading.curves.add(sampled, k, v, maps)
            if other is not None:
                reading.add_gain(gained(count, sampled, ran, other))
            if blocks is not None:
                reading.see(sampled, blocks)

        self._observer.observe(
            key.layer,
            q,
            k,
            key.layout,
            sm_scale=scale,
            group=group,
            queries=queries,
            look=look,
            mark=mark,
            heads=heads,
        )
        self._readings.append(reading)
