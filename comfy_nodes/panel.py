"""What the page is shown of a run: the node's progress bar, and the state of its panel."""

from __future__ import annotations

import contextlib
import time

import comfy.utils
from server import PromptServer

EVENT = "paro.status"


class NodeProgress:
    """Callable (text, step, steps) for a session. Silent without a server or node id.

    The text itself is the panel's: ComfyUI would show it a second time below.
    """

    def __init__(self, node_id: str | None):
        self.node_id = node_id
        self._bar = None

    @property
    def server(self):
        # Without a server (tests, scripts) PromptServer has no instance.
        return getattr(PromptServer, "instance", None) if self.node_id else None

    def __call__(self, text: str, step: int, steps: int) -> None:
        server = self.server
        if server is None:
            return
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(steps, node_id=self.node_id)
        # A bar stays "running" until it stands at its maximum: the last call of a run sets it.
        self._bar.update_absolute(step, steps)


class StepTimes:
    """Seconds of the run's steps, by what they were: dense by the model's own attention, dense by
    ours, or sparse. dense_calls: the session's; it knows how long both take for a call."""

    def __init__(self, dense_calls=None):
        self._open: tuple[int, float, tuple[int, int]] | None = None
        self._calls = dense_calls
        self.dense: list[float] = []
        self.ours: list[float] = []
        self.sparse: list[float] = []
        # Of a step that is dense by ours: calls.
        self._count = 0

    def begin(self, step: int | None, sparse: int, ours: int, model: int) -> None:
        """A model evaluation of this step begins; None: the run ends. Calls so far, by what they
        were: sparse, dense by ours, dense by the model's own attention."""
        now, counts = time.perf_counter(), (sparse, ours, model)
        if self._open is not None:
            if self._open[0] == step:
                return
            ran = [count - before for count, before in zip(counts, self._open[2], strict=True)]
            kinds = (self.sparse, self.ours, self.dense)
            kind = next((kind for kind, count in zip(kinds, ran, strict=True) if count), None)
            if kind is not None:
                kind.append(now - self._open[1])
            if kind is self.ours:
                self._count = ran[1]
        self._open = None if step is None else (step, now, counts)

    @property
    def dense_seconds(self) -> float | None:
        """Of a step by the model's own attention. Where the run has none it follows from a call
        that was computed by both. The first step also loads and warms up, so it counts only alone.
        """
        if self.dense:
            return _mean(self.dense[1:] or self.dense)
        both = self._calls.seconds if self._calls is not None else None
        if not self.ours or both is None:
            return None
        return _mean(self.ours[1:] or self.ours) + (both[0] - both[1]) * self._count

    @property
    def saved(self) -> float | None:
        """Seconds against steps that are dense by the model's own; None while that is not known."""
        dense, ours = self.dense_seconds, self.ours[1:]
        if not self.sparse or dense is None:
            return None
        return dense * len(self.sparse + ours) - sum(self.sparse) - sum(ours)

    def of_skipped(self, count: int) -> float | None:
        """Seconds that steps which a cache skipped would have taken: as a sparse step, or as a
        dense one where the run has none."""
        each = _mean(self.sparse) if self.sparse else self.dense_seconds
        return None if each is None or not count else count * each


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def tell_not_begun(node_id: str | None, reason: str) -> None:
    """The last state of a run that is the host's from its start. Never raises."""
    server = NodeProgress(node_id).server
    why = {"text": reason, "count": 1, "dense": True}
    state = {"node": node_id, "state": "dense", "step": 1, "steps": 1, "done": True}
    with contextlib.suppress(Exception):
        if server is not None:
            server.send_sync(EVENT, state | {"reasons": [why]})


class Panel:
    """Progress callable of a session that also sends the panel's state to the page."""

    def __init__(self, node_id: str | None):
        self.progress = NodeProgress(node_id)
        self.times = StepTimes()
        self.saved = self.profile = ""  # names: what was saved, what the run went by
        self._session = self._seen = None
        self._known: tuple[int, dict] | None = None

    def open(self, session, seen) -> None:
        """session, seen: of the run that begins."""
        self._session, self._seen = session, seen
        self.times = StepTimes(session.dense_calls)

    def begin(self, step: int | None) -> None:
        """A model evaluation of this step begins; None: the run ends."""
        calls = self._session.report.calls
        model = calls.by["model"]
        ours = sum(calls.by.values()) - model
        self.times.begin(step, calls.paths["sparse"], ours, model)

    def __call__(self, text: str, step: int, steps: int) -> None:
        self.progress(text, step, steps)
        server = self.progress.server
        if server is not None and self._session is not None:
            server.send_sync(EVENT, self.state(text, step, steps))

    def close(self, summary: dict) -> None:
        """The run is over: the last state."""
        server = self.progress.server
        if server is not None:
            text, steps = "finished" if summary["ok"] else "stopped", summary["steps"]
            server.send_sync(EVENT, self.state(text, steps, steps, summary) | {"done": True})

    def state(self, text: str, step: int, steps: int, summary: dict | None = None) -> dict:
        """JSON for the page. Times in seconds; what is not known yet is None.

        summary: the session's, where it has ended (its plans are gone by then).
        """
        session, times = self._session, self.times
        ended, summary = summary is not None, summary or self._summary()
        sparse = summary["paths"].get("sparse", 0) > 0
        dense_heads, heads = session.report.count_heads()
        measured = session.watch.meter.measured()
        skipped = self._seen.skipped(None if ended else step)
        return {
            "node": self.progress.node_id,
            "state": text.splitlines()[0],
            "step": step,
            "steps": steps,
            "done": False,
            "sparse": sparse,
            "density": summary["density"] if sparse else None,
            # As the samples have it; before the first ones, as the plans estimate it.
            "retained": (measured or (summary["retained"],))[0] if sparse else None,
            "error": measured[1] if measured and sparse else None,
            "target_error": session.settings.target_error if session.settings.automatic else None,
            "renewed": len(session.watch.proposals.renewals),
            "dense_heads": dense_heads,
            "heads": heads,
            "dense_step_seconds": times.dense_seconds,
            "sparse_step_seconds": sum(times.sparse) / len(times.sparse) if times.sparse else None,
            "saved_seconds": times.saved,
            "skipped_steps": skipped,
            "skipped_seconds": times.of_skipped(skipped),
            "cache": self._seen.cache,
            "profile": summary["profile"],
            "profile_name": self.profile,
            "saved_as": self.saved,
            "grid": summary["grid"],
            "reasons": [
                {"text": reason, "count": count, "dense": session.report.reasons.is_dense(reason)}
                for reason, count in session.report.reasons.counts.most_common(8)
            ],
        }

    def _summary(self) -> dict:
        """The session's, made anew only when a plan has come: it counts the bits of all masks."""
        version = self._session.planner.version
        if self._known is None or self._known[0] != version:
            self._known = version, self._session.report.summary()
        report = self._session.report
        current = {"paths": report.paths, "profile": report.profile_note}
        return self._known[1] | current
