"""What a session tells: reasons, the run log's lines, the node's text and the closing summary."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable

import numpy as np

from ..kernels.attention import CPU_PRECISION
from ..learn.sampling import LOST, WHOLE
from ..runlog import RunLog
from ..steps import Mark

# Paths of a call, as the run log names them.
DENSE, OBSERVE, SPARSE, FALLBACK = "dense", "observe", "sparse", "fallback"
# What the user asked for: logged, but no warning.
BETWEEN, OUTSIDE = "between watched steps", "outside start_percent and end_percent"

# Retained mass that is not estimated; one object, since NaN is not equal to another one.
_UNKNOWN = math.nan

# Density of a head whose mask holds every block.
_ALL = 0.999


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


# Plan -> (density, density_total, retained): it counts the bits of its masks each time.
_shares: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _shares_of(plan) -> tuple[float, float, float | None]:
    """A plan's density, density_total and retained mass (None: not estimated)."""
    if plan not in _shares:
        _shares[plan] = plan.density, plan.density_total, plan.retained
    return _shares[plan]


def _rounded(values) -> list[float]:
    return [round(float(value), 4) for value in values]


class Telling:
    """The part of a session that counts and tells. It reads the session's state and changes none
    but its own."""

    def __init__(
        self, progress: Callable[[str, int, int], None] | None, runlog: RunLog | None
    ) -> None:
        self.runlog = runlog or RunLog(None)
        self._progress = progress or (lambda text, step, steps: None)
        self.profile_note = ""
        self._counted = None
        self._heads = (0, 0)
        self.reasons: Counter[str] = Counter()
        self._dense_reasons: set[str] = set()
        self.paths: Counter[str] = Counter()
        self.attention_seconds = self.observe_seconds = self.meter_seconds = 0.0
        self.plan_seconds = 0.0
        self._started = time.perf_counter()
        self._logged: dict[tuple[int, str], dict] = {}
        # By step and layer, the call that the line is of.
        self._logged_of: dict[tuple[int, str], Mark] = {}
        # Of sparse calls, by density, density_total and retained of their plans.
        self._ran: Counter[tuple[float, float, float]] = Counter()
        self._telling = threading.RLock()

    def note(self, reason: str, count: int = 1, *, dense: bool = False) -> None:
        """Counts a warning, or (dense) why a call was not ours; shown once per cause."""
        with self._telling:
            self.reasons[reason] += count
            if dense:
                self._dense_reasons.add(reason)

    @property
    def told_dense(self) -> bool:
        """Whether the user was told why a call stays dense."""
        return bool(self._dense_reasons)

    def is_dense(self, reason: str) -> bool:
        """Whether this reason kept calls dense, and is no mere warning."""
        return reason in self._dense_reasons

    def _log(self, forward, mark, layer, heads, path, reason, plan) -> None:
        self.paths[path] += 1
        if plan is not None:
            # What masks that are found on the fly keep is measured, never estimated.
            density, total, retained = _shares_of(plan)
            self._ran[density, total, _UNKNOWN if retained is None else retained] += 1
        if reason not in ("", BETWEEN, OUTSIDE) and path in (DENSE, FALLBACK):
            self.note(reason, dense=True)
        # A step with several evaluations keeps its last line: one per step and layer.
        name = forward.step, layer
        if mark < self._logged_of.get(name, mark):
            return
        self._logged_of[name] = mark
        self._logged[name] = {
            "step": forward.step,
            "sigma": round(forward.sigma, 6),
            "layer": layer,
            "heads": list(range(heads)),
            "path": path,
            "reason": reason,
            "density": _shares_of(plan)[0] if plan else 1.0,
            "retained": _shares_of(plan)[2] if plan else 1.0,
            "error": None,
        }

    def _end_log(self, summary: dict) -> None:
        """Writes the run's lines; measured values take the place of the plan's own estimate."""
        for reading in self.watch.history:
            line = self._logged.get((reading["step"], reading["layer"]))
            if line is None or line["path"] != SPARSE:
                continue
            sums = reading["sums"].sum(0)
            line["retained"] = round(float(np.mean(reading["retained"])), 6)
            line["error"] = round(float(np.sqrt(sums[LOST] / max(sums[WHOLE], 1e-30))), 6)
            line["head_retained"] = _rounded(reading["retained"])
            line["head_error"] = _rounded(reading["error"])
        # Written as one thread would have come to them.
        for name in sorted(self._logged, key=lambda name: (name[0], self._logged_of[name])):
            line = self._logged[name]
            self.runlog.add(**line)
        self.runlog.add(**summary)
        try:
            self.runlog.flush()
        except OSError as error:
            self.note(f"run log not written: {error}")

    # -- the node's text -----------------------------------------------------------------------

    def status(self, forward=None) -> str:
        """Lines for the node: state, density, retained mass, what stays dense and why."""
        lines = [self._state(forward)]
        sparse = self.planner.plans()
        if sparse:
            density, retained = self._means(sparse.values())
            kept = "masks found in every call"
            if retained is not None:
                kept = f"retained mass {retained:.0%}"
            lines.append(f"density {density:.2f}, {kept} ({self.profile_note})")
            spread = self.count_heads()[0]
            if spread and self.settings.start_density < 1:
                lines.append(f"heads kept dense: {spread} (they look everywhere at once)")
        measured = self.watch.measured()
        if measured is not None:
            lines.append("measured: retained mass {:.0%}, error {:.3f}".format(*measured))
        with self._telling:
            reasons = self.reasons.most_common(3)
        for reason, count in reasons:
            known = reason in self._dense_reasons
            lines.append(f"dense: {reason} ({count} calls)" if known else reason)
        return "\n".join(lines)

    def _state(self, forward) -> str:
        if forward is None:
            return "finished"
        place = f"step {forward.step + 1} of {self.steps.count}"
        if self.settings.calibrate:
            return f"{place}: calibrating"
        if self.planner.ready:
            return f"{place}: {'sparse' if self.steps.allowed(forward.step) else 'dense'}"
        if not self._looked_up:
            return f"{place}: starting"
        observing = self.settings.observe_steps and not self._no_plan
        return f"{place}: {'observing' if observing else 'dense'}"

    def count_heads(self) -> tuple[int, int]:
        """(heads kept dense, all heads) of the profile; counted once a profile."""
        profile = self.planner.profile
        if profile is not None and profile is not self._counted:
            self._counted = profile
            own = [head.density or 0.0 for layer in profile.layers for head in layer.heads]
            self._heads = sum(density >= _ALL for density in own), len(own)
        return self._heads

    @staticmethod
    def _means(plans) -> tuple[float, float | None]:
        """(density, retained mass or None where any is not estimated)."""
        densities, _, kept = zip(*map(_shares_of, plans), strict=True)
        density = float(np.mean(densities))
        return density, None if None in kept else float(np.mean(kept))

    # -- the end -------------------------------------------------------------------------------

    def capture_tensors(self) -> dict:
        """rows/... and queries/... of the watched heads (32 at most, spread over the layers)."""
        tensors = {}
        for watched in self.observer.layers.values():
            watched.take_rows()
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

    def _mean_ran(self) -> list[float]:
        """Of density, density_total and retained over the sparse calls; exact sums, so that their
        order does not matter."""
        calls = self.paths[SPARSE]
        every = list(self._ran.items())
        return [math.fsum(one[at] * count for one, count in every) / calls for at in range(3)]

    def summary(self, ok: bool = True) -> dict:
        """What the run did; the run log's closing line. Densities are means over sparse calls,
        since plans may change."""
        plans = list(self.planner.plans().values())
        calls = self.paths[SPARSE]
        density, total, retained = self._mean_ran() if calls else (1.0, 1.0, 1.0)
        settings, measured = self.settings, self.watch.measured()
        return {
            "end": True,
            "ok": ok,
            "seconds": time.perf_counter() - self._started,
            "attention_seconds": self.attention_seconds,
            "observe_seconds": self.observe_seconds,
            "meter_seconds": self.meter_seconds,
            "plan_seconds": self.plan_seconds + self.planner.seconds,
            "density": density,
            "density_total": total,
            "retained": None if math.isnan(retained) else retained,
            "measured_retained": measured[0] if measured else None,
            "measured_error": measured[1] if measured else None,
            "budgets": [list(entry) for entry in self.watch.budgets],
            "renewals": [list(entry) for entry in self.watch.renewals],
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
