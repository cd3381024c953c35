"""Observer: watches a dense run and learns where each head looks.

It samples a few query rows a head and bins them into offset kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from .. import _core
from ..heads import Heads, checked
from ..kernels import cuda_observe
from ..layout import TokenLayout
from ..limits import MAX_QUERIES
from ..steps import Mark
from .sampling import Sampled, sample

# Of one layer, for a capture: all heads of a small model, one of a large one, and of that as many
# rows as fit.
_KEPT_BYTES = 8 << 20


class _Watched:
    """What is known of one layer: accumulators[group][head] and the newest rows for a capture."""

    def __init__(self, layout: TokenLayout, bins, heads: int, head_dim: int, first: Mark):
        self.layout, self.bins, self.heads, self.head_dim = layout, bins, heads, head_dim
        # The first call that watched it: layers are told in this order.
        self.first = first
        self._groups: dict[int, list] = {}
        # Rows that came to the host beside a device's work: counted from the next send on, as what
        # the device itself has seen is, so that nobody meets half a step's.
        self._late: dict[int, list] = {}
        # By group, device and heads: what was seen there and is not here yet; rows on their way
        # for a capture, by group.
        self.states: dict[tuple, cuda_observe.ObserveState] = {}
        self.coming: dict[int, tuple] = {}
        self.newest: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        # By the same names, the call that the rows are of: the last one's are kept.
        self._kept_of: dict = {}
        # By group, the heads that this process has watched since they were last told (of several
        # ranks each watches some).
        self.touched: dict[int, set[int]] = {}

    def send(self) -> None:
        """Starts what devices have seen on its way here; does not wait."""
        late, self._late = self._late, {}
        for group, heads in late.items():
            for own, one in zip(self._own(group), heads, strict=True):
                own.merge(one)
        for state in self.states.values():
            state.send()

    def arrived(self) -> dict[int, list]:
        """Accumulators by group, with what was sent: devices are waited for up to there."""
        for (group, _, numbers), state in sorted(self.states.items(), key=lambda one: str(one[0])):
            own = self._own(group)
            state.take([own[number] for number in numbers])
        return self._groups

    @property
    def groups(self) -> dict[int, list]:
        """Accumulators by group and head, with all that was seen: waits for devices."""
        self.send()
        return self.arrived()

    def accumulators(self, group: int) -> list:
        return self.groups.get(group) or self._own(group)

    def late(self, group: int) -> list:
        return self._made(self._late, group)

    def _own(self, group: int) -> list:
        return self._made(self._groups, group)

    def _made(self, groups: dict[int, list], group: int) -> list:
        if group not in groups:
            make = _core.OffsetAccumulator
            groups[group] = [make(self.bins, self.layout.grid) for _ in range(self.heads)]
        return groups[group]

    def state(self, group: int, device, numbers: tuple[int, ...]) -> cuda_observe.ObserveState:
        name = group, device, numbers
        if name not in self.states:
            make = cuda_observe.ObserveState
            self.states[name] = make(self.bins, self.layout.grid, len(numbers), device)
        return self.states[name]

    def newer(self, name, mark: Mark) -> bool:
        """Whether rows of this call take the place of those kept under a name (of `newest` or
        `coming`): not where they come late from another thread."""
        newer = mark >= self._kept_of.get(name, mark)
        if newer:
            self._kept_of[name] = mark
        return newer

    def touch(self, group: int, numbers) -> None:
        self.touched.setdefault(group, set()).update(numbers)

    def put(self, group: int, head: int, accumulator) -> None:
        """What another rank has seen of a head takes the place of what is known here."""
        self._own(group)[head] = accumulator

    def keep_rows(self, name: tuple[int, int], sampled: Sampled, place: int) -> None:
        """Keeps rows of sampled.heads[place] for a capture; a head's queries may come in pieces."""
        room = max(0, _kept_rows(self.layout) - sampled.first)
        own = (
            sampled.places[place, :room].numpy().astype(np.int32),
            sampled.grid_rows[place, :room].half().cpu().numpy(),
        )
        if sampled.first:
            before = self.newest[name]
            own = tuple(np.concatenate(both) for both in zip(before, own, strict=True))
        self.newest[name] = own

    def take_rows(self) -> None:
        """Takes over the rows for a capture that a device was asked for."""
        for group, (heads, places, readback) in self.coming.items():
            for place, (local, head) in enumerate(heads):
                own = places[local].numpy().astype(np.int32), readback.get()[place].numpy()
                self.newest[(group, head)] = own
        self.coming.clear()

    def seen_groups(self) -> list[int]:
        """The groups in which every head has rows; one whose rows were not finite has none."""
        return _complete(self.groups)


def _inside(heads: Heads, numbers) -> list[tuple[int, int]]:
    """(place in the tensors, number) of those heads of the model that a call holds."""
    return [(heads.numbers.index(one), one) for one in numbers if one in heads.numbers]


def _kept_rows(layout: TokenLayout) -> int:
    """The most rows of a head that are kept for a capture."""
    return max(1, _KEPT_BYTES // (2 * layout.grid_size))


def _complete(groups: dict[int, list]) -> list[int]:
    return [group for group, heads in groups.items() if all(head.rows for head in heads)]


class Observer:
    """Samples `queries` grid queries per head and model evaluation, split over the batch.

    Draws are its own, so watching never changes the user's noise. Of a call that is marked they
    follow from the seed and the mark alone, so that threads may come in any order.
    keep_rows: keep the newest rows for a capture, of as many heads a layer as _KEPT_BYTES hold.
    on_device(q): whether q is observed where it lies, by cuda_observe; else rows come to the host.
    """

    def __init__(
        self,
        queries: int = 64,
        seed: int = 0,
        *,
        keep_rows: bool = False,
        on_device: Callable | None = None,
    ):
        if not 1 <= queries <= MAX_QUERIES:
            raise _core.Error(f"queries must be from 1 to {MAX_QUERIES} (got {queries})")
        self.queries = queries
        self.keep_rows = keep_rows
        self.on_device = on_device or (lambda q: q.device.type == "cuda")
        self.layers: dict[str, _Watched] = {}
        self._seed, self._generator = seed, torch.Generator().manual_seed(seed)
        self._unmarked = 0

    def observe(
        self,
        layer: str,
        q,
        k,
        layout: TokenLayout,
        *,
        sm_scale: float,
        group: int = 0,
        queries: int | None = None,
        look: Callable[[Sampled], None] | None = None,
        mark: Mark | None = None,
        heads: Heads | None = None,
    ):
        """Adds one evaluation of a layer; q, k (B, H, N, D) in original order.

        queries: how many a head, in place of the observer's own number. look: called with what was
        sampled, once it is added. mark: which call of the run it is; without one the next. heads:
        those that q and k hold; None for all. Queries are drawn for all heads, so that each head
        gets the same ones however many are here.
        Raises Error when the layer was watched on another grid before, or rows are not finite.
        """
        batch, heads = q.shape[0], checked(heads, q.shape[1])
        given, mark = mark, mark or self._next_mark(layer)
        watched = self._watched(layer, q, layout, mark, heads)
        share = -(-(queries or self.queries) // batch)
        drawn = self.draw(layout, heads, share, batch, given and (layer, given))
        # A capture shows what was watched densely; samples while sparse are few.
        size = share * layout.grid_size
        kept = [] if queries else self._kept_heads(mark.place, heads.total, size)
        if self.on_device(q) and look is None:
            places, own = torch.cat(drawn, 1), _inside(heads, kept)
            local = [one for one, _ in own]
            rows = self.add_on_device(
                layer, q, k, layout, places, sm_scale, group, local, mark, heads
            )
            if rows is not None and watched.newer(group, mark):
                # Of the first entry, as below.
                room = min(share, _kept_rows(layout))
                readback = cuda_observe.Readback(rows[:, :room])
                watched.coming[group] = own, drawn[0][:, :room], readback
            return
        watched.touch(group, heads.numbers)
        for sampled in sample(q, k, layout, drawn, sm_scale, heads.numbers):
            rows = sampled.grid_rows.cpu().contiguous()
            known = watched.late(group) if self.on_device(q) else watched.accumulators(group)
            own = [known[number] for number in sampled.numbers]
            self._add(own, sampled.places, rows.numpy())
            for head in kept if sampled.entry == 0 else ():
                if head in sampled.numbers and watched.newer((group, head), mark):
                    watched.keep_rows((group, head), sampled, sampled.numbers.index(head))
            if look is not None:
                look(sampled)

    def _next_mark(self, layer: str) -> Mark:
        """A mark for a call that came without one."""
        self._unmarked += 1
        known = list(self.layers)
        place = known.index(layer) if layer in known else len(known)
        return Mark(self._unmarked, place=place)

    def _watched(self, layer: str, q, layout: TokenLayout, mark: Mark, heads: Heads) -> _Watched:
        return self.watched(layer, layout, heads.total, q.shape[-1], mark)

    def watched(
        self, layer: str, layout: TokenLayout, heads: int, head_dim: int, mark: Mark
    ) -> _Watched:
        """What is known of a layer of so many heads; made where it was not watched yet. Raises
        Error when it was watched on another grid before."""
        watched = self.layers.get(layer)
        if watched is None:
            watched = _Watched(layout, _core.Bins.even(layout.grid), heads, head_dim, mark)
            self.layers[layer] = watched
        if (watched.layout.grid, watched.heads) != (layout.grid, heads):
            raise _core.Error(
                f"every call of layer {layer} must have the grid {watched.layout.grid} and"
                f" {watched.heads} heads, as its first one (got {layout.grid} and {heads})"
            )
        watched.first = min(watched.first, mark)
        return watched

    def in_order(self) -> dict[str, _Watched]:
        """`layers` in the order of their calls, whichever thread came first."""
        return dict(sorted(self.layers.items(), key=lambda one: one[1].first))

    def draw(
        self,
        layout: TokenLayout,
        heads: Heads,
        share: int,
        batch: int,
        call: tuple[str, Mark] | None = None,
    ) -> list[torch.Tensor]:
        """Grid places (heads, share) for every batch entry. call: layer and mark of the call that
        they are for; the next ones of a sequence without it. Drawn for all of the model's heads:
        each gets the same ones whichever process computes it."""
        generator = self._generator
        if call is not None:
            name = repr((self._seed, call[0], tuple(call[1]))).encode()
            digest = hashlib.blake2b(name, digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        drawn = (
            torch.randint(layout.grid_size, (heads.total, share), generator=generator)
            for _ in range(batch)
        )
        own = slice(None) if heads.whole else list(heads.numbers)
        return [places[own] for places in drawn]

    def add_on_device(
        self, layer, q, k, layout, places, sm_scale, group, keep=(), mark=None, heads=None
    ):
        """Adds queries places (H, n) where q lies, without waiting for it. Returns the rows of the
        heads `keep` (places in q), float16 [len(keep), n, grid tokens] on that device, or None."""
        mark, heads = mark or self._next_mark(layer), checked(heads, q.shape[1])
        watched = self._watched(layer, q, layout, mark, heads)
        watched.touch(group, heads.numbers)
        state = watched.state(group, q.device, heads.numbers)
        return state.observe(q, k, layout, places.int(), sm_scale, keep=keep)

    def send(self) -> None:
        """Starts what devices have seen on its way to the host; does not wait."""
        for watched in self.layers.values():
            watched.send()

    def _kept_heads(self, first: int, heads: int, numbers: int) -> list[int]:
        """Heads of a layer whose newest rows are kept, other ones in each layer."""
        if not self.keep_rows:
            return []
        count = min(heads, max(1, _KEPT_BYTES // (2 * numbers)))
        return sorted({(first + place * heads // count) % heads for place in range(count)})

    @staticmethod
    def _add(heads, places, rows):
        index = places.numpy().astype(np.int32)
        _core.add_rows(heads, index, rows, threads=torch.get_num_threads())

    def release(self) -> None:
        """Lets go of the rows that were kept for a capture; what was learned stays."""
        for watched in self.layers.values():
            watched.newest.clear()
            watched.coming.clear()
            watched.states.clear()

    def kernels(self, layer: str, group: int = 0) -> np.ndarray:
        """Offset kernels of the heads, float32 [heads, bins]."""
        heads = self.layers[layer].accumulators(group)
        return _core.kernels(heads, threads=torch.get_num_threads())


class Snapshot:
    """What an observer knows at one moment, as build_profile asks it; another thread may read it
    while the observer goes on. Of devices it knows what they have sent (Observer.send)."""

    def __init__(self, observer: Observer):
        self.queries = observer.queries
        self.layers = {}
        self._kernels = {}
        threads = torch.get_num_threads()
        for name, watched in observer.in_order().items():
            known = watched.arrived()
            groups = _complete(known)
            size = watched.heads, watched.head_dim, watched.first
            still = _Watched(watched.layout, watched.bins, *size)
            still.seen_groups = lambda groups=groups: groups
            self.layers[name] = still
            for group in groups:
                self._kernels[(name, group)] = _core.kernels(known[group], threads=threads)

    def in_order(self) -> dict[str, _Watched]:
        return self.layers

    def kernels(self, layer: str, group: int = 0) -> np.ndarray:
        return self._kernels[(layer, group)]
