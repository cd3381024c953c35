"""Session: one sampling run. Observes, plans, goes sparse; every departure is counted and told."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable

import torch

from .. import _core
from ..kernels import plan_store
from ..kernels.attention import attention, unsupported
from ..layout import TokenLayout
from ..learn.exact_maps import ExactSums
from ..learn.observer import Observer, Snapshot
from ..plan.dynamic import planner_for
from ..plan.profile_build import build_profile
from ..plan.renewal import unlock
from ..runlog import RunLog
from ..settings import ModelInfo, Settings
from ..steps import Forward, Steps
from . import faults
from .beside import Ahead, Beside
from .completion import COMPLETED, Missing, named
from .model_calls import ModelCalls
from .saving import Saver
from .telling import BETWEEN, DENSE, FALLBACK, OBSERVE, OUTSIDE, SPARSE, Telling, first_line
from .watching import Watch

# Values of one layer's sampled rows that are fetched from a device in a dense step.
_FEW_ROWS = 1 << 20


class Session(Telling):
    """One run of a sampler over `sigmas` (n + 1 values for n steps; see Steps).

    find_profile(grid) -> (Profile or None, its name or why there is none): looked up at the first
    call, when the grid is known. find_maps(profile, grid) -> ExactMaps or None: of a profile that
    was found. save_profile(profile, tensors): called when an observed profile is complete, and once
    more at the end of a run that went on learning. progress(text, step, steps): what the user sees.
    plans(layer, sigma, layout) -> Plan or None: replaces profiles altogether (exact maps), asked
    once per layer and step. seed: of the observer's own draws.

    Evaluations may come from several threads. What a run does then follows from the seed and the
    inputs alone where each says what it evaluates: see begin_call and begin_forward.
    """

    def __init__(
        self,
        settings: Settings,
        sigmas: list[float],
        *,
        model: ModelInfo | None = None,
        find_profile: Callable | None = None,
        find_maps: Callable | None = None,
        save_profile: Callable | None = None,
        plans: Callable | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        runlog: RunLog | None = None,
        sampler: str = "",
        seed: int = 0,
    ):
        settings.validate()
        super().__init__(progress, runlog)
        self.settings, self.model, self.sampler = settings, model or ModelInfo(), sampler
        self.steps = Steps(sigmas, settings)
        self.observer = Observer(settings.queries, seed, keep_rows=save_profile is not None)
        self.profile: _core.Profile | None = None
        self.planner = planner_for(settings, plans)
        self.watch = Watch(settings, self.observer, self.planner, self.note)
        steps = settings.observe_steps
        self.missing = Missing(steps, self._build_layers, self.watch, self.note)
        self._find, self._find_maps = find_profile, find_maps
        self._saver = Saver(save_profile, self.note)
        self._exact = ExactSums(settings.block_kv) if settings.exact else None
        self._lock = threading.RLock()
        self._looked_up = self._saved = False
        # The first of the steps that were watched for want of a profile.
        self._first_watched: int | None = None
        # Why no profile was found, if there is more to say than that there is none.
        self._why = ""
        # Why nothing can be made of what was observed, if so: the rest of the run is dense.
        self._no_plan = ""
        self._grid: tuple[int, int, int] | None = None
        self._halves = self.steps.groups(halves=True)
        self._groups = self._halves if settings.calibrate else self.steps.groups(halves=False)
        self._step: int | None = None
        self._calls = ModelCalls(self.steps)
        # entered(step): called as a model call begins, before anything is done for it.
        self.entered: Callable[[int], None] = lambda step: None
        # Host work beside a GPU's; on a CPU it would only take the cores from the step.
        self._background, self._ahead = False, None
        self._beside = Beside()
        self._layout: TokenLayout | None = None
        self.faults = faults.Faults(self.note)

    # -- one model evaluation ------------------------------------------------------------------

    def begin_call(self, sigma: float) -> None:
        """Call before each model call of the sampler, from the thread that waits for it; its
        evaluations (of each conditioning, perhaps in threads) come until end_call."""
        with self._lock:
            self._enter(sigma)
            self._calls.hold()

    def end_call(self) -> None:
        """Call when a model call is over, whatever came of it."""
        with self._lock:
            self._calls.let_go()

    def begin_forward(
        self,
        sigma: float,
        context_length: int | None = None,
        conds: tuple[int, ...] | None = None,
    ) -> Forward:
        """Call before each model evaluation; the result goes along with its attention calls.

        conds: numbers of the conditionings that it evaluates, the same ones in every run. Without
        begin_call a model call ends where one of them comes again or sigma changes; without conds
        each evaluation is one.
        """
        with self._lock:
            if self._calls.is_next(sigma, conds):
                self._enter(sigma)
            forward = self._calls.forward(sigma, context_length, conds)
            text = self.status(forward)
        self._progress(text, forward.step, self.steps.count)
        return forward

    def _enter(self, sigma: float) -> None:
        step = self._calls.enter(sigma)
        self.entered(step)
        # Plans are made and renewed between two evaluations: no layer is then half observed.
        if self._observed_enough(step):
            self._guarded(self._adopt_observed, "no plan could be made")
        if self._calls.threads and self._exact is not None:
            self._guarded(self._choose_exact_orders, "")
        self._complete(self.missing.due(step))
        if step != self._step:
            self._step = step
            self._guarded(lambda: self._begin_step(step, sigma), "")

    def _guarded(self, work: Callable, failed: str) -> None:
        """Runs what must not end the user's run. failed: the rest is dense, and this is why."""
        started = time.perf_counter()
        try:
            work()
        except Exception as error:
            faults.free(error)
            if failed:
                self._no_plan = f"{failed}: {first_line(error)}"
            else:
                self.watch.stop()
                self.note(f"masks are not renewed any more: {first_line(error)}")
        finally:
            self.plan_seconds += time.perf_counter() - started

    def _begin_step(self, step: int, sigma: float) -> None:
        self._beside.run()  # of a step that was too short for it
        self.faults.send()
        last = self._background and step == self._last_watched
        if last:
            self.observer.send()
        sparse = self.planner.ready and self.steps.allowed(step)
        self.watch.begin_step(step, sigma, self._half(sigma), sparse)
        self.planner.hold(sigma)

        def work():
            self.faults.read()
            if last:
                self._start_ahead()
            self.watch.work()

        self._beside.begin(work)
        if not self._background:
            self._beside.run()

    def _called(self) -> None:
        if self._beside.called():
            self._guarded(self._beside.run, "")

    def _half(self, sigma: float) -> int:
        """The timestep group of a run's own halves: 0 at its higher sigmas, 1 at the lower ones."""
        return int(len(self._halves) > 1 and sigma <= self._halves[0][1] * (1 + 1e-5))

    def _observed_enough(self, step: int) -> bool:
        settings = self.settings
        ready = not (self.planner.ready or settings.calibrate or self._no_plan)
        if not ready or not self.observer.layers or self._first_watched is None:
            return False
        return step > self._last_watched

    @property
    def _last_watched(self) -> int:
        """The last step to be watched, if nothing keeps calls from it."""
        return (self._first_watched or 0) + self.settings.observe_steps - 1

    def _start_ahead(self) -> None:
        """Builds the plan beside the last dense step, where a GPU computes that: from the samples
        before it. What this step adds comes with the first renewal."""
        if self._ahead or self.settings.calibrate or self.planner.ready:
            return
        snapshot, layout = Snapshot(self.observer), self._layout
        if not any(watched.seen_groups() for watched in snapshot.layers.values()):
            return

        def work():
            profile = self._build(self._groups, snapshot)
            return profile, self.planner.builder(profile, 0, layout), layout

        self._ahead = Ahead(work, lambda result: result[1].cancel())

    def _adopt_observed(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self.profile, builder, layout = ahead.result()
        else:
            self.profile = self._build(self._groups)
        self.watch.begin_with(self.profile, self._grid, own=True)
        if ahead is not None:
            self.planner.adopt(builder, 0, layout)
        self.planner.hold(self._calls.sigma)
        watched = self.steps.count if self.settings.calibrate else self.settings.observe_steps
        why = f", {self._why}" if self._why else ""
        self.profile_note = f"observed in this run ({min(watched, self.steps.count)} steps){why}"
        self._store(self.profile)

    def _complete(self, layers: list[str]) -> None:
        """Adds layers that the profile lacks to it, from what was watched of them."""
        if not layers:
            return
        started, known = time.perf_counter(), len(self.missing.added)
        self.profile = self.missing.add(layers, self.profile, self._grid)
        self.plan_seconds += time.perf_counter() - started
        if len(self.missing.added) > known:
            note = self.profile_note.split(COMPLETED)[0]
            self.profile_note = note + COMPLETED + named(self.missing.added)
            if self._saves_completed:
                self._store(self.profile)
            else:
                self.profile_note += ", in this run only"

    @property
    def _saves_completed(self) -> bool:
        # A profile of other patches, chosen by name, stays what it is.
        return self._saver.wanted and self.profile.model.patches == self.model.patches

    def _build_layers(self, groups, layers: list[str]) -> _core.Profile:
        return self._build(groups, only=layers)

    def _build(self, groups, observer=None, only=None) -> _core.Profile:
        order_of = None
        if self._exact is not None:
            # Kept, since the maps were summed in them. Asked for by layer and head, as observed.
            self._choose_exact_orders()
            watched = self.observer.in_order().items()
            known = [self._exact.orders[layer] for layer, one in watched if one.seen_groups()]
            orders = itertools.chain(*known)

            def order_of(kernels):
                return next(orders)

        profile = build_profile(
            observer or self.observer,
            self.model,
            self.settings,
            groups,
            steps=self.steps.count,
            sampler=self.sampler,
            order_of=order_of,
            only=only,
        )
        if self._exact is not None:
            unlock(profile, self.settings.dense_below)
        return profile

    def _store(self, profile: _core.Profile) -> None:
        def tensors():
            maps = self._exact.tensors(profile) if self._exact is not None else {}
            return self.capture_tensors() | maps

        if self._saver.wanted:
            self._saved = True
            self._saver.store(profile, tensors, self._background)

    # -- one attention call --------------------------------------------------------------------

    def attention(
        self,
        forward: Forward,
        layer: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layout: TokenLayout,
        dense: Callable[[], torch.Tensor],
        *,
        sm_scale: float | None = None,
    ) -> tuple[torch.Tensor, bool]:
        """(o, whether it is ours). q, k, v (B, H, N, D) in original order.

        dense() runs the host's function; its result is handed back as it is (ours=False). Ours is
        (B, H, N, D). Errors of our own side end in dense(), counted with their reason.
        """
        scale = sm_scale or q.shape[-1] ** -0.5
        mark, started = forward.next_mark(), time.perf_counter()
        path, reason, plan, ran, out, key = FALLBACK, "", None, None, None, None
        try:
            path, reason, key = self._decide(forward, layer, q, layout)
            if path == SPARSE:
                plan = self.planner.running(key)
                if isinstance(plan, str):
                    path, reason, plan = DENSE, plan, None
                else:
                    ran = self.planner.for_call(plan, q, k, scale)
                    out = self._run_sparse(layer, q, k, v, ran, scale)
                    if out is None:
                        path, reason, plan = FALLBACK, faults.NOT_FINITE, None
        except Exception as error:
            path, reason, plan, out = FALLBACK, first_line(error), None, None
            self.faults.failed(layer, error)
        ours = out is not None
        if not ours:
            out = dense()
        seconds = time.perf_counter() - started
        if path == OBSERVE:
            reason = self._observe(forward, mark, layer, q, k, layout, scale) or reason
        elif ours and self.watch.sampling:
            self._sample(forward, mark, key, ran, q, k, v, out, scale)
        with self._lock:
            self.attention_seconds += seconds
            self._log(forward, mark, layer, q.shape[1], path, reason, plan)
            self._called()
        return out, ours

    def _decide(self, forward, layer, q, layout) -> tuple[str, str, object]:
        """(path, reason, the plan's key) of a call; the key only for a sparse one."""
        with self._lock:
            self._look_up(forward, layout)
            self._layout = self._layout or layout
            self._background = self.planner.background = self.observer.on_device(q)
        settings = self.settings
        if settings.calibrate:
            if forward.step % settings.every_n_steps:
                return DENSE, BETWEEN, None
            return OBSERVE, "calibrating", None
        if not self.planner.ready:
            return self._without_profile(forward)
        key = self.planner.key(layer, forward.sigma, layout, q)
        if self.planner.lacks(key):
            with self._lock:
                return *self.missing.decide(layer, forward.step), None
        if not self.steps.allowed(forward.step):
            return DENSE, OUTSIDE, None
        why = self.faults.refusal(layer) or (not settings.offload and unsupported(q))
        if why:
            return DENSE, why, None
        return SPARSE, "", key

    def _without_profile(self, forward) -> tuple[str, str, None]:
        if self._no_plan:
            return DENSE, self._no_plan, None
        if self.settings.observe_steps == 0:
            return DENSE, "no profile, and observe_steps is 0", None
        # Masks may have kept the first steps from it.
        with self._lock:
            known = self._first_watched
            self._first_watched = forward.step if known is None else min(known, forward.step)
        return OBSERVE, "observing", None

    def look_up(self, forward: Forward | None, layout: TokenLayout) -> None:
        """Finds the run's profile by the grid of its first call, if that was not done yet."""
        with self._lock:
            self._look_up(forward, layout)

    def _look_up(self, forward: Forward | None, layout: TokenLayout) -> None:
        if self._looked_up:
            return
        self._looked_up, self._grid = True, layout.grid
        if self._find is not None and not self.settings.calibrate:
            self.profile, note = self._find(layout.grid)
            self.profile_note = note if self.profile is not None else ""
            self._why = note if self.profile is None else ""
            if self.profile is not None:
                self._saved = True
                self.watch.begin_with(self.profile, layout.grid, own=False)
                self._use_exact(layout.grid)
                # This step has begun before anybody knew that it is sparse.
                if forward is not None:
                    self._begin_step(self._calls.step, self._calls.sigma)

    def _use_exact(self, grid) -> None:
        """Plans from the exact maps that lie beside a found profile, if there are any."""
        if self._find_maps is None or self.settings.dynamic:
            return
        try:
            self.planner.exact = self._find_maps(self.profile, grid)
        except Exception as error:
            self.note(f"exact maps not used: {first_line(error)}")
        if self.planner.exact is not None:
            self.profile_note += ", exact maps"

    def _run_sparse(self, layer, q, k, v, plan, scale) -> torch.Tensor | None:
        """Our output, or None if it is known not to be finite."""
        device = q.device
        if unsupported(q):  # offload
            q, k, v = (x.cpu() for x in (q, k, v))
        broken = self.faults.flag(layer, q.device)
        settings = self.settings
        options = {"precision": settings.precision, "tail": settings.tail, "broken": broken}
        out = attention(q, k, v, plan, sm_scale=scale, **options)
        if broken is None and not self.faults.finite(out):
            return None
        return out.to(device)

    def _observe(self, forward, mark, layer, q, k, layout, scale) -> str:
        """Watches a dense call; returns a reason if that failed (the run goes on)."""
        started = time.perf_counter()
        # One run's first steps are one group, wherever they end: they make one plan.
        calibrate = self.settings.calibrate
        group = self._half(forward.sigma) if calibrate else 0
        # Rows are for masks in the heads' own orders, which are not known yet. Few come to the
        # host; of a large model on a device they would be too many.
        rows = q.shape[1] * self.settings.queries * layout.grid_size
        here = not (calibrate or self.settings.dynamic)
        here = here and (rows <= _FEW_ROWS or not self.observer.on_device(q))
        look = functools.partial(self.watch.remember, layer, mark=mark) if here else None
        try:
            with self._lock:
                self.observer.observe(
                    layer, q, k, layout, sm_scale=scale, group=group, look=look, mark=mark
                )
                if calibrate and self._exact is not None:
                    self._add_exact(forward.step, layer, group, q, k, layout, scale)
        except Exception as error:
            faults.free(error)
            return f"not observed: {first_line(error)}"
        finally:
            self.observe_seconds += time.perf_counter() - started
        return ""

    def _add_exact(self, step, layer, group, q, k, layout, scale) -> None:
        exact, density = self._exact, self.settings.start_density
        if self._calls.threads and layer not in exact.orders:
            return  # which thread's samples come first must not choose them: see _enter
        if exact.wants(layer, group, step):
            exact.choose_orders(layer, group, self.observer, layout.grid, density)
            exact.threads = self._calls.threads
            exact.add(layer, group, q, k, layout, scale)

    def _choose_exact_orders(self) -> None:
        """Of layers that were watched and have none yet."""
        for layer, watched in self.observer.in_order().items():
            for group in watched.seen_groups()[:1]:
                grid, density = watched.layout.grid, self.settings.start_density
                self._exact.choose_orders(layer, group, self.observer, grid, density)

    def _sample(self, forward, mark, key, plan, q, k, v, out, scale) -> None:
        """Watches a sparse call: the meter, and what new masks are made from and judged by."""
        started = time.perf_counter()
        try:
            with self._lock:
                group = self._half(forward.sigma)
                self.watch.call(key, plan, q, k, v, out, scale, group, mark)
        except Exception as error:
            faults.free(error)
            self.note(f"not sampled: {first_line(error)}")
        finally:
            self.meter_seconds += time.perf_counter() - started

    # -- the end -------------------------------------------------------------------------------

    def finish(self, ok: bool = True) -> dict:
        """Ends the run: saves what was learned, flushes the log, lets go of plans and samples.

        ok False (error or interrupt) saves nothing that is half done. Returns the summary.
        """
        with self._lock:
            if self._ahead is not None and not ok:
                self._ahead.cancel()
            self._guarded(self._settle, "")
            if ok and self._saver.wanted and self.observer.layers and not self.planner.given:
                self._save_learned()
            self._saver.settle()
        summary = self.summary(ok)
        self._end_log(summary)
        self._progress(self.status(), self.steps.count, self.steps.count)
        self.planner.clear()
        plan_store.release()
        self.watch.clear()
        self.faults.clear()
        self.observer.release()
        if self._exact is not None:
            self._exact.clear()
        return summary

    def _settle(self) -> None:
        self.faults.send()
        self.faults.read()
        self.watch.settle()

    def _save_learned(self) -> None:
        """Saves a calibration, a run that ended while it watched, or what was learned since."""
        try:
            if self.profile is None and not self._no_plan:
                self._adopt_observed()
            self._complete(self.missing.pending())
            if not self.watch.learned:
                return
            if self.watch.own:
                self._store(self._build(self._halves))
            elif self.missing.added and self._saves_completed:
                self._store(self.missing.learned(self.profile))
        except Exception as error:
            self.note(f"profile not built: {first_line(error)}")
