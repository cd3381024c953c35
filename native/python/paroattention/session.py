"""Session: one sampling run. Observes, plans, goes sparse; every departure is counted and told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import torch

from . import _core
from .attention import CPU_PRECISION, attention, unsupported
from .layout import TokenLayout
from .observer import Observer
from .profile_build import build_profile
from .runlog import RunLog
from .settings import ModelInfo, Settings
from .steps import Forward, Steps

# Paths of a call, as the run log names them.
DENSE, OBSERVE, SPARSE, FALLBACK = "dense", "observe", "sparse", "fallback"
# What the user asked for: logged, but no warning.
_BETWEEN, _OUTSIDE = "between watched steps", "outside start_percent and end_percent"

# Density of a head whose mask holds every block.
_ALL = 0.999


class Session:
    """One run of a sampler over falling `sigmas` (n + 1 values for n steps).

    find_profile(grid) -> (Profile or None, why): looked up at the first call, when the grid is
    known. save_profile(profile, tensors): called once when an observed profile is complete.
    progress(text, step, steps): what the user sees. plans(layer, sigma, layout) -> Plan or None:
    replaces profiles altogether (exact maps), asked once per layer and step. seed: of the
    observer's own draws.
    """

    def __init__(
        self,
        settings: Settings,
        sigmas: list[float],
        *,
        model: ModelInfo | None = None,
        find_profile: Callable | None = None,
        save_profile: Callable | None = None,
        plans: Callable | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        runlog: RunLog | None = None,
        sampler: str = "",
        seed: int = 0,
    ):
        settings.validate()
        self.settings, self.model, self.sampler = settings, model or ModelInfo(), sampler
        self.steps = Steps(sigmas, settings)
        self.observer = Observer(settings.queries, seed, keep_rows=save_profile is not None)
        self.profile: _core.Profile | None = None
        self.profile_note = ""
        self._counted: _core.Profile | None = None
        self._heads = (0, 0)
        self.runlog = runlog or RunLog(None)
        self._find, self._save, self._plans = find_profile, save_profile, plans
        self._progress = progress or (lambda text, step, steps: None)
        self._plan_cache: dict[tuple, _core.Plan | str] = {}
        self._lock = threading.RLock()
        self._looked_up = self._saved = False
        # Why nothing can be made of what was observed, if so: the rest of the run is dense.
        self._no_plan = ""
        self._grid: tuple[int, int, int] | None = None
        self._groups = self.steps.groups(halves=settings.calibrate)
        self.reasons: Counter[str] = Counter()
        self._dense_reasons: set[str] = set()
        self.paths: Counter[str] = Counter()
        self.attention_seconds = self.observe_seconds = self.plan_seconds = 0.0
        self._started = time.perf_counter()
        self._logged: dict[tuple[int, str], dict] = {}

    # -- one model evaluation ------------------------------------------------------------------

    def begin_forward(self, sigma: float, context_length: int | None = None) -> Forward:
        """Call before each model evaluation; the result goes along with its attention calls."""
        forward = Forward(self.steps.index(sigma), sigma, context_length)
        with self._lock:
            # The plan is made between two evaluations: no layer is then half observed.
            if self._observed_enough(forward):
                try:
                    self._adopt_observed()
                except Exception as error:
                    self._no_plan = f"no plan could be made: {_first_line(error)}"
        self._progress(self.status(forward), forward.step, self.steps.count)
        return forward

    def _observed_enough(self, forward: Forward) -> bool:
        settings = self.settings
        ready = self.profile is None and self._plans is None and not settings.calibrate
        ready = ready and not self._no_plan
        return ready and bool(self.observer.layers) and forward.step >= settings.observe_steps

    def _adopt_observed(self) -> None:
        started = time.perf_counter()
        self.profile = build_profile(
            self.observer,
            self.model,
            self.settings,
            self._groups,
            steps=self.steps.count,
            sampler=self.sampler,
        )
        watched = self.steps.count if self.settings.calibrate else self.settings.observe_steps
        self.profile_note = f"observed in this run ({min(watched, self.steps.count)} steps)"
        self.plan_seconds += time.perf_counter() - started
        self._store()

    def _store(self) -> None:
        if self._save is None or self._saved or self.profile is None:
            return
        self._saved = True
        try:
            self._save(self.profile, self.capture_tensors())
        except Exception as error:
            # A full disk must not end a run that took the user minutes.
            self.note(f"profile not saved: {error}")

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
        started = time.perf_counter()
        try:
            path, reason, plan = self._decide(forward, layer, q, layout)
            out = self._run_sparse(q, k, v, plan, scale) if path == SPARSE else None
        except Exception as error:
            path, reason, plan, out = FALLBACK, _first_line(error), None, None
        if out is not None and not _finite(out):
            path, reason, plan, out = FALLBACK, "output was not finite", None, None
        ours = out is not None
        if not ours:
            out = dense()
        self.attention_seconds += time.perf_counter() - started
        if path == OBSERVE:
            reason = self._observe(forward, layer, q, k, layout, scale) or reason
        self._log(forward, layer, q.shape[1], path, reason, plan)
        return out, ours

    def _decide(self, forward, layer, q, layout) -> tuple[str, str, _core.Plan | None]:
        """(path, reason, plan) of a call; the plan only for a sparse one."""
        with self._lock:
            self._look_up(layout)
        settings = self.settings
        if settings.calibrate:
            if forward.step % settings.every_n_steps:
                return DENSE, _BETWEEN, None
            return OBSERVE, "calibrating", None
        if self.profile is None and self._plans is None:
            return self._without_profile(forward)
        if not self.steps.allowed(forward.step):
            return DENSE, _OUTSIDE, None
        why = unsupported(q)
        if why and not settings.offload:
            return DENSE, why, None
        plan = self._plan(forward, layer, q, layout)
        if isinstance(plan, str):
            return DENSE, plan, None
        return SPARSE, "", plan

    def _without_profile(self, forward) -> tuple[str, str, None]:
        if self._no_plan:
            return DENSE, self._no_plan, None
        if forward.step < self.settings.observe_steps:
            return OBSERVE, "observing", None
        if self.settings.observe_steps == 0:
            return DENSE, "no profile, and observe_steps is 0", None
        return DENSE, "no profile, and no step was watched yet", None

    def _look_up(self, layout: TokenLayout) -> None:
        if self._looked_up:
            return
        self._looked_up, self._grid = True, layout.grid
        if self._find is not None and not self.settings.calibrate:
            self.profile, self.profile_note = self._find(layout.grid)
            self._saved = self.profile is not None

    def _plan(self, forward, layer, q, layout) -> _core.Plan | str:
        """The cached plan of a layer at this sigma, or why there is none."""
        group = self.profile.timestep_group(forward.sigma) if self.profile else forward.sigma
        key = (layer, group, layout, q.shape[1], q.shape[-1])
        with self._lock:
            if key not in self._plan_cache:
                started = time.perf_counter()
                self._plan_cache[key] = self._make_plan(layer, group, layout, q)
                self.plan_seconds += time.perf_counter() - started
            return self._plan_cache[key]

    def _make_plan(self, layer, group, layout, q) -> _core.Plan | str:
        if self._plans is not None:
            return self._plans(layer, group, layout) or "no exact map of this layer"
        profile, settings = self.profile, self.settings
        ids = profile.layer_ids()
        if layer not in ids:
            return f"layer {layer} is not in the profile"
        model = profile.model
        if (model.heads, model.head_dim) != (q.shape[1], q.shape[-1]):
            return (
                f"the profile has {model.heads} heads of {model.head_dim},"
                f" the model {q.shape[1]} of {q.shape[-1]}"
            )
        if profile.match_grid(layout.grid) == "far":
            return f"grid {layout.grid} is far from the calibrated {profile.calibration.grids}"
        return _core.plan_layer(
            profile,
            ids.index(layer),
            group,
            layout.grid,
            prefix=layout.prefix,
            suffix=layout.suffix,
            block_q=settings.block_q,
            block_kv=settings.block_kv,
            density=settings.density,
            threads=torch.get_num_threads(),
        )

    def _run_sparse(self, q, k, v, plan, scale) -> torch.Tensor:
        device = q.device
        if unsupported(q):  # offload
            q, k, v = (x.cpu() for x in (q, k, v))
        settings = self.settings
        out = attention(
            q, k, v, plan, sm_scale=scale, precision=settings.precision, tail=settings.tail
        )
        return out.to(device)

    def _observe(self, forward, layer, q, k, layout, scale) -> str:
        """Watches a dense call; returns a reason if that failed (the run goes on)."""
        started = time.perf_counter()
        group = 0
        if len(self._groups) > 1 and forward.sigma <= self._groups[0][1] * (1 + 1e-5):
            group = 1
        try:
            with self._lock:
                self.observer.observe(layer, q, k, layout, sm_scale=scale, group=group)
        except Exception as error:
            return f"not observed: {_first_line(error)}"
        finally:
            self.observe_seconds += time.perf_counter() - started
        return ""

    # -- telling -------------------------------------------------------------------------------

    def note(self, reason: str, *, dense: bool = False) -> None:
        """Counts a warning, or (dense) why a call was not ours; shown once per cause."""
        self.reasons[reason] += 1
        if dense:
            self._dense_reasons.add(reason)

    def _log(self, forward, layer, heads, path, reason, plan) -> None:
        self.paths[path] += 1
        if reason not in ("", _BETWEEN, _OUTSIDE) and path in (DENSE, FALLBACK):
            self.note(reason, dense=True)
        # A step with several evaluations keeps its last line: one per step and layer.
        self._logged[(forward.step, layer)] = {
            "step": forward.step,
            "sigma": round(forward.sigma, 6),
            "layer": layer,
            "heads": list(range(heads)),
            "path": path,
            "reason": reason,
            "density": plan.density if plan else 1.0,
            "retained": plan.retained if plan else 1.0,
            "error": None,
        }

    def status(self, forward: Forward | None = None) -> str:
        """Lines for the node: state, density, retained mass, what stays dense and why."""
        lines = [self._state(forward)]
        sparse = [plan for plan in self._plan_cache.values() if not isinstance(plan, str)]
        if sparse:
            density, retained = self._means(sparse)
            lines.append(
                f"density {density:.2f}, retained mass {retained:.0%} ({self.profile_note})"
            )
            spread = self.count_heads()[0]
            if spread and self.settings.density < 1:
                lines.append(f"heads kept dense: {spread} (they look everywhere at once)")
        for reason, count in self.reasons.most_common(3):
            known = reason in self._dense_reasons
            lines.append(f"dense: {reason} ({count} calls)" if known else reason)
        return "\n".join(lines)

    def _state(self, forward) -> str:
        if forward is None:
            return "finished"
        place = f"step {forward.step + 1} of {self.steps.count}"
        if self.settings.calibrate:
            return f"{place}: calibrating"
        if self.profile is not None or self._plans is not None:
            return f"{place}: {'sparse' if self.steps.allowed(forward.step) else 'dense'}"
        if not self._looked_up:
            return f"{place}: starting"
        observing = forward.step < self.settings.observe_steps
        return f"{place}: {'observing' if observing else 'dense'}"

    def count_heads(self) -> tuple[int, int]:
        """(heads kept dense, all heads) of the profile; counted once: its layers are copies."""
        if self.profile is not None and self.profile is not self._counted:
            self._counted = self.profile
            default = self.settings.density
            own = [h.density or default for layer in self.profile.layers for h in layer.heads]
            self._heads = sum(density >= _ALL for density in own), len(own)
        return self._heads

    @staticmethod
    def _means(plans) -> tuple[float, float]:
        count = len(plans)
        return sum(p.density for p in plans) / count, sum(p.retained for p in plans) / count

    def capture_tensors(self) -> dict:
        """rows/... and queries/... of the watched heads (32 at most, spread over the layers)."""
        tensors = {}
        entries = [
            (layer, head, group, pair)
            for layer, watched in self.observer.layers.items()
            for (group, head), pair in watched.newest.items()
        ]
        heads = sorted({(layer, head) for layer, head, _, _ in entries})
        stride = -(-len(heads) // 32) if heads else 1
        chosen = set(heads[::stride])
        for layer, head, group, (queries, rows) in entries:
            if (layer, head) in chosen:
                tensors[f"rows/{layer}/{head}/{group}"] = rows
                tensors[f"queries/{layer}/{head}/{group}"] = queries
        return tensors

    def finish(self, ok: bool = True) -> dict:
        """Ends the run: saves a finished calibration, flushes the log, releases plans.

        ok False (error or interrupt) saves nothing that is half done. Returns the summary.
        """
        complete = ok and self.observer.layers and self.profile is None and not self._no_plan
        if complete and self._save is not None and self._plans is None:
            try:
                self._adopt_observed()
            except Exception as error:
                self.note(f"profile not built: {_first_line(error)}")
        summary = self.summary(ok)
        for line in self._logged.values():
            self.runlog.add(**line)
        self.runlog.add(**summary)
        try:
            self.runlog.flush()
        except OSError as error:
            self.note(f"run log not written: {error}")
        self._progress(self.status(), self.steps.count, self.steps.count)
        self._plan_cache.clear()
        return summary

    def summary(self, ok: bool = True) -> dict:
        plans = [plan for plan in self._plan_cache.values() if not isinstance(plan, str)]
        density, retained = self._means(plans) if plans else (1.0, 1.0)
        total = sum(p.density_total for p in plans) / len(plans) if plans else 1.0
        settings = self.settings
        return {
            "end": True,
            "ok": ok,
            "seconds": time.perf_counter() - self._started,
            "attention_seconds": self.attention_seconds,
            "observe_seconds": self.observe_seconds,
            "plan_seconds": self.plan_seconds,
            "density": density,
            "density_total": total,
            "retained": retained,
            "precision": CPU_PRECISION[settings.precision] if plans else "dense",
            "tail": settings.tail and bool(plans),
            "mask": settings.mask,
            "block_q": settings.block_q,
            "block_kv": settings.block_kv,
            "steps": self.steps.count,
            "grid": list(self._grid) if self._grid else None,
            "profile": self.profile_note,
            "paths": dict(self.paths),
            "reasons": dict(self.reasons),
        }


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _finite(out: torch.Tensor) -> bool:
    # One reduction instead of a bool tensor as large as the output.
    return bool(torch.isfinite(out.sum(dtype=torch.float32)))
