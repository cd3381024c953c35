"""Session: one sampling run. Observes, plans, goes sparse; every departure is counted and told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch

from .. import _core
from ..heads import Heads, checked
from ..kernels import plan_store
from ..kernels.attention import attention, attention_letting_go, unsupported
from ..layout import TokenLayout
from ..learn.observer import Observer
from ..parallel.ranks import Ranks, RanksError
from ..plan.dynamic import planner_for
from ..runlog import RunLog
from ..settings import ModelInfo, Settings
from ..steps import Forward, Steps
from . import faults
from .across_ranks import AcrossRanks
from .beside import Beside
from .dense_calls import DenseCalls
from .held import AttentionCall, Held
from .learning import Learning
from .model_calls import ModelCalls
from .observation import Observation
from .report import BETWEEN, DENSE, FALLBACK, OBSERVE, OUTSIDE, SPARSE, Reasons, Report, first_line
from .watching import NO_MORE, Watch


class Session:
    """One run of a sampler over `sigmas` (n + 1 values for n steps; see Steps).

    find_profile(grid) -> (Profile or None, its name or why there is none): looked up at the first
    call, when the grid is known. find_maps(profile, grid) -> ExactMaps or None: of a profile that
    was found. save_profile(profile, tensors): called when an observed profile is complete, and once
    more at the end of a run that went on learning. progress(text, step, steps): what the user sees.
    seed: of the observer's own draws. kernel: runs the sparse calls; as paroattention.attention,
    which it is by default. ranks: the processes that share each layer's heads, each with a session
    of its own (docs/parallel.md); rank 0 alone saves, logs and shows progress.

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
        progress: Callable[[str, int, int], None] | None = None,
        runlog: RunLog | None = None,
        sampler: str = "",
        seed: int = 0,
        kernel: Callable | None = None,
        ranks: Ranks | None = None,
    ):
        settings.validate()
        self.settings, self.model = settings, model or ModelInfo()
        self.steps = Steps(sigmas, settings)
        self.planner = planner_for(settings)
        reasons = Reasons()
        self.faults = faults.Faults(reasons.note)
        self.dense_calls = DenseCalls(settings, self._run_ours, reasons.note)
        given = settings, self.planner, self.faults, self.dense_calls
        self._across = across = AcrossRanks(ranks, *given)
        if not across.first:
            save_profile = runlog = progress = None
        self.observer = Observer(settings.queries, seed, keep_rows=save_profile is not None)
        gather = across.measured if across.several else None
        self.watch = Watch(settings, self.observer, self.planner, reasons.note, gather)
        told = reasons, self.dense_calls, runlog, progress
        self.report = Report(settings, self.steps, self.planner, self.watch, *told)
        keep, seen = self.watch.blocks.keep, self.observer
        given = seen, sampler, keep, reasons.note
        observation = Observation(settings, self.model, self.steps, *given)
        parts = self.planner, self.watch, observation, self.report
        given = find_profile, find_maps, save_profile
        self.learning = Learning(settings, *parts, *given, across)
        given = find_profile is not None, save_profile is not None
        across.agree(self.steps.sigmas, self.model, sampler, seed, *given)
        # entered(step): called as a model call begins, before anything is done for it.
        self.entered: Callable[[int], None] = lambda step: None
        self._kernel = kernel or attention
        self._lock = threading.RLock()
        self._calls = ModelCalls(self.steps)
        # Host work beside a GPU's; on a CPU it would only take the cores from the step.
        self._beside = Beside()
        self._step: int | None = None

    @property
    def profile(self) -> _core.Profile | None:
        """What the run goes by, once there is one."""
        return self.learning.profile

    def note(self, reason: str, count: int = 1, *, dense: bool = False) -> None:
        """Counts a warning, or (dense) why a call was not ours; shown once per cause."""
        self.report.reasons.note(reason, count, dense=dense)

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
            state = f"step {forward.step + 1} of {self.steps.count}: {self._state(forward.step)}"
            self.report.show(state, forward.step)
        return forward

    def _state(self, step: int) -> str:
        if self.settings.calibrate or not self.planner.ready:
            return self.learning.state
        return "sparse" if self.steps.allowed(step) else "dense"

    def _enter(self, sigma: float) -> None:
        step = self._calls.enter(sigma)
        try:
            self.entered(step)
        except Exception as error:
            self.note(f"the start of a step could not be told: {first_line(error)}")
        if self._calls.threads:
            self._guarded(self.learning.observation.choose_orders)
        self.learning.enter(step, sigma)
        if step != self._step:
            self._step = step
            self._guarded(lambda: self._begin_step(step, sigma))

    def _guarded(self, work: Callable) -> None:
        """Runs what must not end the user's run; after an error there are no more samples."""
        with self.report.timed("plan"):
            try:
                work()
            except RanksError:
                raise
            except Exception as error:
                faults.free(error)
                self.watch.stop(first_line(error))
                self.note(NO_MORE.format(why=first_line(error)))

    def _begin_step(self, step: int, sigma: float) -> None:
        self._beside.run()  # of a step that was too short for it
        self.faults.send()
        background = self.planner.background
        last = background and self.learning.is_last_watched(step)
        if last:
            self.observer.send()
        sparse = self.planner.ready and self.steps.allowed(step)
        half, called = self.learning.observation.half(sigma), self._beside.calls > 0
        self.watch.begin_step(step, sigma, half, sparse, called)
        self.planner.hold(sigma)

        def work():
            self.faults.read()
            if last:
                self.learning.start_ahead()
            self.watch.work()

        self._beside.begin(work)
        if not background:
            self._beside.run()

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
        heads: Heads | None = None,
    ) -> tuple[torch.Tensor, bool]:
        """(o, whether it is ours). q, k, v (B, H, N, D) in original order.

        dense() runs the host's function; its result is handed back as it is (ours=False). Ours is
        (B, H, N, D). Errors of our own side end in dense(), counted with their reason. heads: of
        the model's heads those in q, k, v, as `dealing` gave them to this rank; None for all.
        Raises RanksError where another rank has failed.
        """
        given = {"sm_scale": sm_scale, "heads": heads}
        return self.attention_of(forward, layer, Held(q, k, v), layout, dense, **given)

    def dealing(self, forward: Forward, layer: str, layout: TokenLayout, heads: int, **how):
        """The Dealing of the call that comes next, of a layer with so many heads: ask before the
        all-to-all. The same on all ranks, and in one step. how: as of Shares.dealing. Raises Error
        where there are more ranks than heads."""
        with self._lock:
            self._look_up(forward, layout)
            sparse = self.planner.ready and self.steps.allowed(forward.step)
            how["whole"] = self.watch.looks_at_output
            return self._across.shares.dealing(layer, layout, heads, sparse, **how)

    def attention_of(
        self,
        forward: Forward,
        layer: str,
        held: Held,
        layout: TokenLayout,
        dense: Callable[[], torch.Tensor],
        *,
        sm_scale: float | None = None,
        heads: Heads | None = None,
    ) -> tuple[torch.Tensor, bool]:
        """As `attention`, of q, k and v that may be let go of on the way: see Held.

        An error after they were let go of is raised: the host could not compute the call either.
        By then it would need more memory than we do.
        """
        heads = checked(heads, held.q.shape[1])
        scale, mark = sm_scale or held.q.shape[-1] ** -0.5, forward.next_mark()
        call = AttentionCall(forward, mark, layer, held, layout, scale, dense, heads)
        path, reason, plan, out, seconds = FALLBACK, "", None, None, 0.0
        try:
            path, reason, key = self._decide(call)
            if path == SPARSE:
                plan = self.planner.running(key)
                if isinstance(plan, str):
                    path, reason, plan = DENSE, plan, None
                else:
                    slices = self._across.shares.slices
                    ran, plan = slices.of(plan, heads), slices.of(plan, heads.own)
                    out, seconds = self._sparse(call, key, ran, plan)
                    if out is None:
                        path, reason, plan = FALLBACK, faults.NOT_FINITE, None
            elif path == OBSERVE or reason in (BETWEEN, OUTSIDE):
                if path == OBSERVE:
                    reason = self._observe(call) or reason
                started = time.perf_counter()
                out = self.dense_calls.contained(call, self.faults)
                seconds = time.perf_counter() - started
        except RanksError:
            raise
        except Exception as error:
            self.faults.failed(layer, error)
            if not held.whole:
                raise
            path, reason, plan, out = FALLBACK, first_line(error), None, None
        ours = out is not None
        if not ours:
            started, held.last = time.perf_counter(), True
            out = dense()
            seconds += time.perf_counter() - started
        with self._lock:
            self.report.seconds["attention"] += seconds
            try:
                self.report.call(forward, call.mark, layer, heads, path, reason, plan, ours)
            except Exception as error:
                # The output is there, and q, k and v may be gone.
                self.note(f"a call could not be counted: {first_line(error)}")
            if self._beside.called():
                self._guarded(self._beside.run)
        return out, ours

    def _decide(self, call: AttentionCall) -> tuple[str, str, object]:
        """(path, reason, the plan's key) of a call; the key only for a sparse one."""
        forward, layer, layout, q = call.forward, call.layer, call.layout, call.held.q
        with self._lock:
            self._look_up(forward, layout)
            self.planner.background = self.observer.on_device(q)
            decided = self.learning.decide(forward.step)
            if decided:
                return *decided, None
            key = self.planner.key(layer, forward.sigma, layout, q, call.heads)
            if self.planner.lacks(key):
                return *self.learning.missing.decide(layer, forward.step), None
        if not self.steps.allowed(forward.step):
            return DENSE, OUTSIDE, None
        settings = self.settings
        why = self.faults.refusal(layer) or self.dense_calls.wrong
        why = why or unsupported(q, settings, settings.precision)
        if why:
            return DENSE, why, None
        return SPARSE, "", key

    def look_up(self, forward: Forward | None, layout: TokenLayout) -> None:
        """Finds the run's profile by the grid of its first call, if that was not done yet."""
        with self._lock:
            self._look_up(forward, layout)

    def _look_up(self, forward: Forward | None, layout: TokenLayout) -> None:
        # The step has begun before anybody knew that it is sparse.
        if self.learning.look_up(layout) and forward is not None:
            self._begin_step(self._calls.step, self._calls.sigma)

    def _sparse(self, call: AttentionCall, key, plan, own) -> tuple[torch.Tensor | None, float]:
        """(our output, or None if it is known not to be finite; its seconds) of a sparse call. own:
        the plan of the heads that are sampled here."""
        sampling, device = self.watch.sampling, call.held.q.device
        early = sampling and not self.watch.needs_output(call.held.q)
        kept = call.held.tensors if sampling and not early else None
        started = time.perf_counter()
        ran = self.planner.for_call(plan, *call.held.tensors[:2], call.scale)
        if early:
            # What is sampled has all of its rows; what runs may have some.
            count = len(call.heads.own.numbers)
            watched = [x[:, :count] for x in call.held.tensors]
            self._sample(call, key, own if call.heads.rows else ran, watched, None)
            del watched
        out = self._run_ours(call, ran, device)
        seconds = time.perf_counter() - started
        if kept and out is not None:
            self._sample(call, key, ran, kept, out)
        return out, seconds

    def _run_ours(self, call: AttentionCall, plan, device: torch.device) -> torch.Tensor | None:
        """Our output, or None if it is known not to be finite."""
        settings, broken = self.settings, self.faults.flag(call.layer, device)
        options = {"sm_scale": call.scale, "tail": settings.tail, "broken": broken}
        packs = settings.precision == "int8" and self._kernel is attention
        if packs and call.held.own():
            out = attention_letting_go(call.held.parts, plan, **options)
        else:
            out = self._kernel(*call.held.tensors, plan, precision=settings.precision, **options)
        return out if broken is not None or self.faults.finite(out) else None

    def _observe(self, call: AttentionCall) -> str:
        """Watches a dense call; returns a reason if that failed (the run goes on)."""
        with self.report.timed("observe"):
            try:
                with self._lock:
                    self.learning.observation.add(call, self._calls.threads)
            except Exception as error:
                faults.free(error)
                if not isinstance(error, _core.Error):
                    # What is refused by a rule (another grid, values that are not finite) is in the
                    # run log alone.
                    self.note(f"a call could not be observed: {first_line(error)}")
                return f"this call could not be observed: {first_line(error)}"
        return ""

    def _sample(self, call: AttentionCall, key, plan, tensors, out) -> None:
        """Watches a sparse call: the meter, and what new masks are made from and judged by."""
        with self.report.timed("meter"):
            try:
                with self._lock:
                    group = self.learning.observation.half(call.forward.sigma)
                    given = call.scale, group, call.mark, call.heads.own
                    self.watch.call(key, plan, *tensors, out, *given)
            except Exception as error:
                faults.free(error)
                self.note(f"a sparse call could not be sampled: {first_line(error)}")

    # -- the end -------------------------------------------------------------------------------

    def finish(self, ok: bool = True) -> dict:
        """Ends the run: saves what was learned, flushes the log, lets go of plans and samples.

        ok False (error or interrupt) saves nothing that is half done. Returns the summary.
        """
        try:
            with self._lock:
                if ok or not self._across.several:
                    self._guarded(self._settle)
                else:
                    self._across.ranks.fail("the run was ended early (an error or an interrupt)")
                self.learning.finish(ok, self._calls.sigma)
                if ok:
                    self._across.told_calls(self.report.calls)
            return self.report.end(ok)
        finally:
            self._release()

    def _release(self) -> None:
        self.planner.clear()
        plan_store.release()
        self.watch.clear()
        self.faults.clear()
        self.dense_calls.clear()
        self.learning.observation.release()

    def _settle(self) -> None:
        self.faults.send()
        self.faults.read()
        self.watch.settle()
