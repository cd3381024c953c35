"""What a session tells: reasons, the run log's lines, the node's text and the closing summary."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from ..heads import Heads
from ..kernels.attention import CPU_PRECISION
from ..limits import ALL_BLOCKS
from ..runlog import RunLog
from ..steps import Mark

# Paths of a call, as the run log names them.
DENSE, OBSERVE, SPARSE, FALLBACK = "dense", "observe", "sparse", "fallback"
# What the user asked for: logged, but no warning.
BETWEEN, OUTSIDE = "between watched steps", "outside start_percent and end_percent"

# So many causes are told apart: an error's text may hold figures that are other ones in each call.
_TOLD = 32
OTHERS = "further causes, which are not named here"

# Retained mass that is not estimated; one object, since NaN is not equal to another one.
_UNKNOWN = math.nan


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


class Reasons:
    """Warnings, and why calls stayed dense, each with its count. Threads may note at once."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self._dense: set[str] = set()
        self._lock = threading.Lock()

    def note(self, reason: str, count: int = 1, *, dense: bool = False) -> None:
        """Counts a warning, or (dense) why a call was not ours; shown once per cause."""
        with self._lock:
            if reason not in self.counts and len(self.counts) >= _TOLD:
                reason = OTHERS
            self.counts[reason] += count
            if dense:
                self._dense.add(reason)

    @property
    def told_dense(self) -> bool:
        """Whether the user was told why a call stays dense."""
        return bool(self._dense)

    def is_dense(self, reason: str) -> bool:
        """Whether this reason kept calls dense, and is no mere warning."""
        return reason in self._dense

    def lines(self) -> list[str]:
        """The most frequent ones, as the node shows them."""
        with self._lock:
            most = self.counts.most_common(3)
        return [f"dense: {text} ({n} calls)" if self.is_dense(text) else text for text, n in most]


class CallLog:
    """The path of every call, and the run log's line of every step and layer."""

    def __init__(self, runlog: RunLog | None):
        self.runlog = runlog or RunLog(None)
        self.paths: Counter[str] = Counter()
        # Dense calls by what computed them.
        self.by: Counter[str] = Counter()
        self._lines: dict[tuple[int, str], dict] = {}
        # By step and layer, the call that the line is of.
        self._calls: dict[tuple[int, str], Mark] = {}
        # Of sparse calls, by density, density_total and retained of their plans, and by the share
        # of the model's heads that they held: of several ranks each computes some.
        self._ran: Counter[tuple[float, float, float, float]] = Counter()
        # By step and layer, that share.
        self._shares: dict[tuple[int, str], float] = {}

    def add(self, forward, mark: Mark, layer: str, heads: Heads, path: str, reason: str, plan, by):
        """Logs one call. plan: what it ran; None for a dense one. by: what computed it, the
        precision of our kernels or "model"."""
        share = len(heads.own.numbers) / heads.total
        self.paths[path] += 1
        if plan is None:
            self.by[by] += 1
        if plan is not None:
            # What masks that are found on the fly keep is measured, never estimated.
            retained = _UNKNOWN if plan.retained is None else plan.retained
            self._ran[plan.density, plan.density_total, retained, share] += 1
        # A step with several evaluations keeps its last line: one per step and layer.
        name = forward.step, layer
        if mark < self._calls.get(name, mark):
            return
        self._calls[name], self._shares[name] = mark, share
        self._lines[name] = {
            "step": forward.step,
            "sigma": round(forward.sigma, 6),
            "layer": layer,
            "heads": list(range(heads.total)),
            "path": path,
            "reason": reason,
            "attention": by,
            "density": plan.density if plan else 1.0,
            "retained": plan.retained if plan else 1.0,
            "error": None,
        }

    def means(self) -> tuple[float, float, float]:
        """density, density_total and retained over the sparse calls; 1 where there was none. The
        sums are exact, so that the order of calls does not matter."""
        calls, every = self.paths[SPARSE], list(self._ran.items())
        if not calls:
            return 1.0, 1.0, 1.0
        weights = [one[3] * count for one, count in every]
        pairs = [(one, weight) for (one, _), weight in zip(every, weights, strict=True)]
        sums = (math.fsum(one[at] * weight for one, weight in pairs) for at in range(3))
        density, total, retained = (one / math.fsum(weights) for one in sums)
        return density, total, retained

    def told(self) -> dict:
        """What another rank needs of this one's calls, as JSON can hold it."""
        ran = [[_or_none(value) for value in one] + [count] for one, count in self._ran.items()]
        sparse = {name: line for name, line in self._lines.items() if line["path"] == SPARSE}
        lines = [
            [*name, line["density"], _or_none(line["retained"]), self._shares[name]]
            for name, line in sparse.items()
        ]
        return {"ran": ran, "lines": lines}

    def merge(self, told: list[dict]) -> None:
        """Densities and retained mass become those of all ranks' heads. told: of the others."""
        for one in told:
            for *values, count in one["ran"]:
                self._ran[tuple(_UNKNOWN if value is None else value for value in values)] += count
        every: dict[tuple[int, str], list] = {}
        for one in [self.told(), *told]:
            for step, layer, *values in one["lines"]:
                every.setdefault((step, layer), []).append(values)
        for name, parts in every.items():
            line, share = self._lines.get(name), math.fsum(part[2] for part in parts)
            if line is None or line["path"] != SPARSE:
                continue
            line["density"] = math.fsum(part[0] * part[2] for part in parts) / share
            if all(part[1] is not None for part in parts):
                line["retained"] = math.fsum(part[1] * part[2] for part in parts) / share

    def write(self, readings: list[dict], summary: dict) -> None:
        """Writes the run's lines and its summary; what was measured takes the place of the plan's
        own estimate. Raises OSError."""
        for reading in readings:
            line = self._lines.get((reading["step"], reading["layer"]))
            if line is None or line["path"] != SPARSE:
                continue
            line["retained"] = round(float(np.mean(reading["retained"])), 6)
            line["error"] = round(reading["layer_error"], 6)
            line["head_retained"] = _rounded(reading["retained"])
            line["head_error"] = _rounded(reading["error"])
        # As one thread would have come to them.
        for name in sorted(self._lines, key=lambda name: (name[0], self._calls[name])):
            self.runlog.add(**self._lines[name])
        self.runlog.add(**summary)
        self.runlog.flush()


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _rounded(values) -> list[float]:
    return [round(float(value), 4) for value in values]


class Report:
    """What a run tells of itself. It reads the run's parts and changes none but its own.

    profile_note: where the run's profile is from. grid: the run's, once it is known.
    """

    def __init__(
        self,
        settings,
        steps,
        planner,
        watch,
        reasons: Reasons,
        dense_calls,
        runlog: RunLog | None,
        progress: Callable[[str, int, int], None] | None,
    ):
        self._settings, self._steps, self._planner, self._watch = settings, steps, planner, watch
        self.reasons, self.calls, self.dense_calls = reasons, CallLog(runlog), dense_calls
        self._progress = progress or (lambda text, step, steps: None)
        self.profile_note = ""
        self.grid: tuple[int, int, int] | None = None
        self.seconds = dict.fromkeys(("attention", "observe", "meter", "plan"), 0.0)
        self._started = time.perf_counter()
        self._counted, self._heads = None, (0, 0)

    @property
    def paths(self) -> Counter[str]:
        """Calls by path."""
        return self.calls.paths

    @contextlib.contextmanager
    def timed(self, what: str):
        """Adds the time of a block to `seconds[what]`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - started

    def call(self, forward, mark, layer, heads: Heads, path: str, reason: str, plan, ours) -> None:
        """Logs one call; see CallLog.add. ours: whether our kernels computed it."""
        by = CPU_PRECISION[self._settings.precision] if ours else "model"
        self.calls.add(forward, mark, layer, heads, path, reason, plan, by)
        if reason not in ("", BETWEEN, OUTSIDE) and path in (DENSE, FALLBACK):
            self.reasons.note(reason, dense=True)

    # -- the node's text -----------------------------------------------------------------------

    def show(self, state: str, step: int) -> None:
        """Shows the user the state of the run. What fails there does not end it."""
        try:
            self._progress(self.text(state), step, self._steps.count)
        except Exception as error:
            self.reasons.note(f"the state of the run could not be shown: {first_line(error)}")

    def text(self, state: str) -> str:
        """Lines for the node: state, density, retained mass, what stays dense and why."""
        lines = [state]
        plans = self._planner.plans()
        if plans:
            density, retained = _means(plans.values())
            kept = "masks found in every call"
            if retained is not None:
                kept = f"retained mass {retained:.0%}"
            lines.append(f"density {density:.2f}, {kept} ({self.profile_note})")
            spread, heads = self.count_heads()
            if spread and self._settings.start_density < 1:
                others = self._planner.density(self._planner.profile)
                lines.append(
                    f"{spread} of {heads} heads look at all tokens and get more; the others have"
                    f" a density of {others:.2f}"
                )
        measured = self._watch.meter.measured()
        if measured is not None:
            lines.append("measured: retained mass {:.0%}, error {:.3f}".format(*measured))
        return "\n".join(lines + self.reasons.lines())

    def count_heads(self) -> tuple[int, int]:
        """(heads that rules or the user gave more than their share, all heads) of the profile;
        counted once a profile."""
        profile, settings = self._planner.profile, self._settings
        if profile is not None and profile is not self._counted:
            self._counted = profile
            more = ALL_BLOCKS if settings.automatic else settings.start_density + 1e-6
            own = [head.density or 0.0 for layer in profile.layers for head in layer.heads]
            self._heads = sum(density >= more for density in own), len(own)
        return self._heads

    # -- the end -------------------------------------------------------------------------------

    def end(self, ok: bool) -> dict:
        """Writes the run log and shows the last state. Returns the summary."""
        summary = self.summary(ok)
        try:
            self.calls.write(self._watch.meter.history, summary)
        except OSError as error:
            self.reasons.note(f"the run log could not be written: {error}")
        self.show("finished", self._steps.count)
        return summary

    def summary(self, ok: bool = True) -> dict:
        """What the run did; the run log's closing line. Densities are means over sparse calls,
        since plans may change."""
        settings, watch, seconds = self._settings, self._watch, self.seconds
        planned = bool(self._planner.plans())
        density, total, retained = self.calls.means()
        measured = watch.meter.measured()
        return {
            "end": True,
            "ok": ok,
            "seconds": time.perf_counter() - self._started,
            "attention_seconds": seconds["attention"],
            "observe_seconds": seconds["observe"],
            "meter_seconds": seconds["meter"],
            "plan_seconds": seconds["plan"] + self._planner.seconds,
            "density": density,
            "density_total": total,
            "retained": None if math.isnan(retained) else retained,
            "measured_retained": measured[0] if measured else None,
            "measured_error": measured[1] if measured else None,
            "budgets": [list(entry) for entry in watch.target.budgets],
            "renewals": [list(entry) for entry in watch.proposals.renewals],
            "precision": CPU_PRECISION[settings.precision] if planned else "dense",
            "tail": settings.tail and planned,
            "dense_calls": dict(self.calls.by),
            "dense_error": self.dense_calls.error,
            "mask": settings.mask,
            "block_q": settings.block_q,
            "block_kv": settings.block_kv,
            "steps": self._steps.count,
            "grid": list(self.grid) if self.grid else None,
            "profile": self.profile_note,
            "paths": dict(self.paths),
            "reasons": dict(self.reasons.counts),
        }


def _means(plans) -> tuple[float, float | None]:
    """(density, retained mass or None where any is not estimated)."""
    densities, kept = [plan.density for plan in plans], [plan.retained for plan in plans]
    return float(np.mean(densities)), None if None in kept else float(np.mean(kept))
