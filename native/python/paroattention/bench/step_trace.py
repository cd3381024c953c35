"""What a GPU does in a step of a run: seconds by kind of work, and how long it had none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import torch

# By the names of kernels and copies; what none of them fits is the rest of the model.
KINDS = {
    "attention": ("paro_attention_",),
    "packing": ("paro_pack_",),
    "observation": ("paro_observe_",),
    "meter": ("paro_meter_",),
    "masks": ("paro_pool_", "paro_select_blocks_", "paro_sort_rows"),
    "exact maps": ("paro_importance_",),
    # ComfyUI's own copies (weights, latents) are among them.
    "copies to the device": ("Memcpy HtoD",),
    "copies to the host": ("Memcpy DtoH",),
}
REST, IDLE, SECONDS = "rest of the model", "idle", "seconds"
Event = tuple[str, int, int]  # name, start and end in ns


def kind_of(name: str) -> str:
    fits = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
    return next(fits, REST)


def covered(events: Iterable[Event]) -> int:
    """ns in which at least one of the events was under way."""
    total = until = 0
    for _, start, end in sorted(events, key=lambda event: event[1]):
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def shares(events: list[Event], seconds: float, steps: int) -> dict[str, float]:
    """Seconds a step by kind, of `steps` steps that took `seconds`; copies beside a kernel count
    in full, so that the kinds can add up to more than the step."""
    sums: Counter[str] = Counter()
    for name, start, end in events:
        sums[kind_of(name)] += end - start
    found = {kind: ns * 1e-9 for kind, ns in sums.most_common()}
    found[IDLE] = max(0.0, seconds - covered(events) * 1e-9)
    found[SECONDS] = seconds
    return {kind: round(value / steps, 6) for kind, value in found.items()}


def longest(events: list[Event], count: int = 12) -> list[tuple[str, int, float]]:
    """(name, how often, seconds in all) of what took longest."""
    sums, calls = Counter(), Counter()
    for name, start, end in events:
        sums[name] += (end - start) * 1e-9
        calls[name] += 1
    return [(name, calls[name], total) for name, total in sums.most_common(count)]


def pauses(events: list[Event], least: float = 1e-4) -> list[tuple[float, float, str, str]]:
    """Times of at least `least` seconds without work, longest first: (when, how long, what came
    before, what after), seconds since the first event."""
    found, before = [], None
    ordered = sorted(events, key=lambda event: event[1])
    for event in ordered:
        if before is not None and event[1] - before[2] >= least * 1e9:
            when = (before[2] - ordered[0][1]) * 1e-9
            found.append((when, (event[1] - before[2]) * 1e-9, before[0], event[0]))
        if before is None or event[2] > before[2]:
            before = event
    return sorted(found, key=lambda pause: -pause[1])


class StepTrace:
    """start() before the first of some steps, stop() after the last, the device idle at both."""

    def __init__(self):
        self.events: list[Event] = []
        self.seconds = 0.0

    def start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        # Without the host's side, which would slow down what it looks at.
        self._profile = profile(activities=[ProfilerActivity.CUDA])
        self._profile.start()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._started
        self._profile.stop()
        self.events = [
            (event.name(), event.start_ns(), event.end_ns())
            for event in self._profile.profiler.kineto_results.events()
            if event.device_type() == torch.autograd.DeviceType.CUDA
            and not event.is_user_annotation()
        ]
