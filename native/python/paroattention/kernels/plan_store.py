"""Plans of a run on one GPU: bit-packed in pinned host memory, few of them on the device at a time.

The masks of a large model are larger than what a user would give up for them (Wan 14B at 720p: 7 MB
a layer in tiles of 64, 280 MB in all). Layers come in the same order in every evaluation, so two
buffers and a copy one layer ahead, on a stream of its own, hide all but the first pass.
"""

from __future__ import annotations

import threading
import weakref

import torch

from .. import _core

# Up to here all plans stay on the device and nothing is copied twice.
RESIDENT_BYTES = 16 << 20


class CudaCopies:
    """What the store needs of a device: memory, and copies on the current or on a side stream."""

    def __init__(self, device: torch.device):
        self.device = device
        self._side = torch.cuda.Stream(device)

    def pin(self, words: torch.Tensor) -> torch.Tensor:
        try:
            return words.pin_memory()
        except RuntimeError:
            # No memory left to lock: such a copy is slower, and right.
            return words

    def empty(self, count: int) -> torch.Tensor:
        return torch.empty(count, dtype=torch.int32, device=self.device)

    def record(self) -> torch.cuda.Event:
        """An event behind all that is queued on the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self, event: torch.cuda.Event) -> None:
        """Lets the current stream wait for an event, not the host."""
        torch.cuda.current_stream(self.device).wait_event(event)

    def copy(self, buffer: torch.Tensor, words: torch.Tensor) -> None:
        """On the current stream."""
        buffer[: len(words)].copy_(words, non_blocking=True)

    def copy_aside(self, buffer, words, after) -> torch.cuda.Event:
        """On the side stream, once `after` has happened; returns the event of its end."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._side):
            self._side.wait_event(after)
            self.copy(buffer, words)
            # Its memory must not be handed out again while this copy is under way.
            buffer.record_stream(self._side)
            event = torch.cuda.Event()
            event.record(self._side)
        return event


class _Buffer:
    """Device memory for one plan, and what is in it or on its way."""

    def __init__(self):
        self.memory: torch.Tensor | None = None
        self.plan: weakref.ref | None = None
        self.count = 0
        # The end of a copy beside the current stream; None once that waits for it.
        self.ready = None

    def hold(self, plan, count: int, ready=None) -> None:
        self.plan, self.count, self.ready = weakref.ref(plan), count, ready

    def holds(self, plan) -> bool:
        return self.plan is not None and self.plan() is plan


class _Held:
    """What a store has of one plan."""

    def __init__(self):
        # Its words in pinned memory; the same on the device, as long as they stay there.
        self.host: torch.Tensor | None = None
        self.device: torch.Tensor | None = None
        # Whether they stay on the device until the plan is gone.
        self.kept = False
        # The plan that was asked for after it, the last time.
        self.next: weakref.ref | None = None


class PlanStore:
    """Hands out plans' words on one device. copies: a CudaCopies (or a test's).

    One stream computes: the caller queues the work that reads a plan on the current stream before
    it asks for the next one.
    """

    def __init__(self, copies, resident_bytes: int = RESIDENT_BYTES):
        self._copies, self._limit = copies, resident_bytes
        self._lock = threading.Lock()
        self._held: weakref.WeakKeyDictionary[_core.Plan, _Held] = weakref.WeakKeyDictionary()
        self._last: weakref.ref | None = None
        self._buffers, self._aside = [_Buffer(), _Buffer()], _Buffer()
        self.hits = self.misses = 0

    @property
    def device_bytes(self) -> int:
        """Device memory held for plans, but for those that `keep` was asked to."""
        buffers = (buffer.memory for buffer in (*self._buffers, self._aside))
        stay = (held.device for held in self._held.values() if not held.kept)
        return sum(4 * memory.numel() for memory in (*buffers, *stay) if memory is not None)

    def words(self, plan: _core.Plan) -> torch.Tensor:
        """The plan's int32 words on the device, for work queued next on the current stream."""
        with self._lock:
            held = self._held.setdefault(plan, _Held())
            if held.kept:
                return held.device
            if held.host is None:
                held.host = self._pin(plan)
            hosts = (one.host for one in self._held.values() if one.host is not None)
            if sum(4 * len(host) for host in hosts) <= self._limit:
                if held.device is None:
                    held.device = self._to_device(held.host)
                return held.device
            for one in self._held.values():
                one.device = one.device if one.kept else None
            buffer = self._fetch(plan, held.host)
            self._learn(plan)
            self._prefetch(held, buffer)
            return buffer.memory[: len(held.host)]

    def keep(self, plan: _core.Plan) -> torch.Tensor:
        """The plan's words on the device, where they stay until the plan is gone."""
        with self._lock:
            held = self._held.setdefault(plan, _Held())
            if held.device is None:
                host = self._pin(plan) if held.host is None else held.host
                held.device = self._to_device(host)
            held.kept, held.host = True, None
            return held.device

    def aside(self, plan: _core.Plan) -> torch.Tensor:
        """The plan's words on the device, of any plan, without a change of what is prefetched.

        For work queued next on the current stream; the words of a plan that is not in use hold
        until this is asked for another one.
        """
        with self._lock:
            held = self._held.get(plan) or _Held()
            if held.device is not None:
                return held.device
            for buffer in (*self._buffers, self._aside):
                if buffer.holds(plan) and buffer.ready is None:
                    return buffer.memory[: buffer.count]
            # A plan that is not in use is not kept on the host either.
            self._fill(self._aside, plan, self._pin(plan) if held.host is None else held.host)
            return self._aside.memory[: self._aside.count]

    def release(self) -> None:
        """Lets go of all memory, host and device, but for plans that `keep` was asked to; the store
        can go on being used."""
        with self._lock:
            for plan in [plan for plan, held in self._held.items() if not held.kept]:
                del self._held[plan]
            self._buffers, self._aside, self._last = [_Buffer(), _Buffer()], _Buffer(), None

    def _pin(self, plan) -> torch.Tensor:
        return self._copies.pin(torch.from_numpy(_core.plan_words(plan)))

    def _to_device(self, host: torch.Tensor) -> torch.Tensor:
        memory = self._copies.empty(len(host))
        self._copies.copy(memory, host)
        return memory

    def _fetch(self, plan, host) -> _Buffer:
        """The buffer that holds the plan for work on the current stream."""
        for buffer in self._buffers:
            if buffer.holds(plan):
                self.hits += 1
                if buffer.ready is not None:
                    self._copies.wait(buffer.ready)
                    buffer.ready = None
                return buffer
        self.misses += 1
        last = self._last() if self._last is not None else None
        # Not over the plan that was handed out last, so that a model of two layers keeps both.
        free = next(b for b in self._buffers if last is None or not b.holds(last))
        if free.ready is not None:
            self._copies.wait(free.ready)
        self._fill(free, plan, host)
        return free

    def _fill(self, buffer: _Buffer, plan, host) -> None:
        """On the current stream."""
        self._reserve(buffer, len(host))
        self._copies.copy(buffer.memory, host)
        buffer.hold(plan, len(host))

    def _learn(self, plan) -> None:
        last = self._last() if self._last is not None else None
        if last is not None and last is not plan:
            self._held.setdefault(last, _Held()).next = weakref.ref(plan)
        self._last = weakref.ref(plan)

    def _prefetch(self, held: _Held, buffer: _Buffer) -> None:
        """Starts the copy of the plan that came after this one, which `buffer` has."""
        following = held.next() if held.next is not None else None
        other = self._buffers[1 - self._buffers.index(buffer)]
        if following is None or other.holds(following):
            return
        host = self._held.get(following, _Held()).host
        if host is None:
            return
        self._reserve(other, len(host))
        # All that read this buffer is queued on the current stream by now.
        ready = self._copies.copy_aside(other.memory, host, self._copies.record())
        other.hold(following, len(host), ready)

    def _reserve(self, buffer: _Buffer, count: int) -> None:
        if buffer.memory is None or buffer.memory.numel() < count:
            buffer.plan, buffer.memory = None, self._copies.empty(count)


_stores: dict[torch.device, PlanStore] = {}
_stores_lock = threading.Lock()


def store(device: torch.device) -> PlanStore:
    """The one store of a CUDA device (with its index)."""
    with _stores_lock:
        if device not in _stores:
            _stores[device] = PlanStore(CudaCopies(device))
        return _stores[device]


def release() -> None:
    """Releases the plans of every device: at the end of a run."""
    with _stores_lock:
        for held in _stores.values():
            held.release()
