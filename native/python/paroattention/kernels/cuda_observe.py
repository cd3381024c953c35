"""What sampled queries and block sums say about a layer, on the device of its tensors.

`ObserveState` learns offset kernels from a dense or sparse run, `meter` says what a plan keeps,
`block_importance` sums exact attention by block. On a GPU with the library these are kernels
(native/cuda); everywhere else, and where a kernel cannot take the tensors (capability.py), the same
in plain torch. Nothing here waits for the device but
`ObserveState.sums`, `rows`, `add_to` and `take`, and `Readback.get`.

q, k, v are (B, H, N, D) of float32, float16 or bfloat16, in any strides, tokens in original order
(prefix | grid F x H x W | suffix). Errors are Error (a ValueError) naming argument, rule and value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import _core
from ..layout import TokenLayout
from ..limits import MAX_BLOCK
from . import capability, cuda, observe_inputs
from . import observe_torch as plain
from .head_orders import FoundMasks

# A probability in the units that the kernels sum.
_UNIT = 2.0**32
# Bytes of exact sums that a device makes at a time.
_MOST_SUMS = 512 << 20

# Of block_importance.
_PATHS = ("auto", "portable", "hopper")


class ObserveState:
    """Offset-kernel sums of every head of one layer, kept on a device and added to by each call.

    bins_per_axis: _core.Bins, or edges (F, H, W). The same calls give the same bits: the kernels
    sum integers. Rows that are not finite are left out and counted.
    """

    def __init__(self, bins_per_axis, grid: Sequence[int], heads: int, device):
        if not isinstance(bins_per_axis, _core.Bins):
            bins_per_axis = _core.Bins(*(list(edges) for edges in bins_per_axis))
        if heads < 1:
            raise _core.Error(f"heads must be at least 1 (got {heads})")
        self.bins, self.grid = bins_per_axis, tuple(int(side) for side in grid)
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise _core.Error(f"grid must be three sides of 1 and more (got {self.grid})")
        self.heads, self.device = heads, torch.device(device)
        edges = (self.bins.F, self.bins.H, self.bins.W)
        self.counts = tuple(len(axis) for axis in edges)
        edges = tuple(tuple(axis) for axis in edges)
        self._tables, self._flat = observe_inputs.tables_on(edges, self.grid, self.device)
        # [2, heads, bins]: probabilities and pairs. What the kernels add to, in units of 2^-32, and
        # what plain torch does; each made when needed.
        self._units: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None
        self._rows = torch.zeros(heads, 2, dtype=torch.int64, device=self.device)
        # Whether anything was added since it was made, cleared or sent.
        self.fresh = False
        # (units or None, sums or None, rows) that were sent and not taken yet.
        self._sent: list[tuple[Readback | None, Readback | None, Readback]] = []

    @torch.no_grad()
    def observe(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        layout: TokenLayout,
        queries: torch.Tensor,
        sm_scale: float,
        *,
        keep: Sequence[int] = (),
    ) -> torch.Tensor | None:
        """Adds the softmax rows of sampled queries; softmax over all keys, grid keys binned.

        queries: int32 (H, n), grid places in original order. With a batch the n queries of a head
        are shared out in order: number i is looked at in entry i * B // n.
        keep: heads whose rows are wanted: returns float16 (len(keep), n, grid tokens) on the
        device, rows that are not finite as zeros; else None. Does not wait for the device.
        """
        observe_inputs.check_tensor("q", q)
        observe_inputs.check_tensor("k", k, q)
        observe_inputs.check_layout(q, layout)
        scale = observe_inputs.check_scale(sm_scale)
        if (tuple(layout.grid), q.shape[1]) != (self.grid, self.heads):
            raise _core.Error(
                f"layout must keep the grid and heads of this state, {self.grid} and {self.heads}"
                f" (got {tuple(layout.grid)} and {q.shape[1]})"
            )
        if q.device != self._rows.device:
            raise _core.Error(f"q must be on the state's device, {self.device} (got {q.device})")
        places = observe_inputs.sampled_queries(queries, q, layout)
        keep = [int(head) for head in keep]
        if any(not 0 <= head < self.heads for head in keep):
            raise _core.Error(f"keep must hold heads, 0 to {self.heads - 1} (got {keep})")
        kept = None
        if keep:
            shape = (len(keep), places.shape[1], layout.grid_size)
            kept = torch.zeros(shape, dtype=torch.float16, device=q.device)
        self.fresh = True
        if capability.observed_in_torch(q) is None:
            self._observe_kernel(q, k, layout, places, scale, keep, kept)
        else:
            if self._sums is None:
                dtype = plain.sum_dtype(self.device)
                self._sums = torch.zeros(self._shape, dtype=dtype, device=self.device)
            plain.observe(
                q,
                k,
                layout,
                places,
                scale,
                self._tables,
                self.counts,
                *self._sums,
                self._rows,
                (keep, kept) if keep else None,
            )
        return kept

    def _observe_kernel(self, q, k, layout, places, scale, keep, kept) -> None:
        if self._units is None:
            self._units = torch.zeros(self._shape, dtype=torch.int64, device=q.device)
        slots = [keep.index(head) if head in keep else -1 for head in range(self.heads)]
        cuda.run(
            torch.ops.paro.observe.default,
            observe_inputs.half(q),
            observe_inputs.half(k),
            places,
            self._flat,
            self._units,
            self._rows,
            observe_inputs.numbers_on(tuple(slots), q.device) if keep else None,
            kept,
            *observe_inputs.grid_numbers(layout),
            *self.counts,
            scale,
        )

    @property
    def _shape(self) -> tuple[int, int, int]:
        return 2, self.heads, len(self.bins)

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum of probabilities, number of pairs), float64 (H, bins) on the CPU. Waits."""
        return self._total(self._units, self._sums)

    def rows(self) -> tuple[list[int], list[int]]:
        """Rows that were counted and rows that were left out, by head. Waits."""
        counted, left_out = self._rows.cpu().T.tolist()
        return counted, left_out

    def add_to(self, accumulators: Sequence) -> None:
        """Adds what was seen to one _core.OffsetAccumulator per head. Waits."""
        self._check(accumulators)
        _add(accumulators, self.sums(), self.rows()[0])

    def send(self) -> None:
        """Starts what was seen on its way to the host, for `take`, and begins anew. Does not
        wait."""
        if self.fresh:
            parts = self._units, self._sums, self._rows
            self._sent.append(tuple(part if part is None else Readback(part) for part in parts))
            self.clear()

    def take(self, accumulators: Sequence) -> None:
        """As add_to, of what was sent since the last time. Waits for that alone, not for what the
        device was given after it."""
        self._check(accumulators)
        sent, self._sent = self._sent, []
        for parts in sent:
            units, sums, rows = (part if part is None else part.get() for part in parts)
            _add(accumulators, self._total(units, sums), rows[:, 0].tolist())

    def _total(self, units, sums) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.zeros(self._shape, dtype=torch.float64)
        if units is not None:
            units = units.double()
            units[0] /= _UNIT
            found = units.cpu()
        if sums is not None:
            found = found + sums.cpu().double()
        total, pairs = found
        return total, pairs

    def _check(self, accumulators: Sequence) -> None:
        if len(accumulators) != self.heads:
            rule = f"must hold one accumulator per head, {self.heads}"
            raise _core.Error(f"accumulators {rule} (got {len(accumulators)})")

    def clear(self) -> None:
        """Forgets everything but what was sent. Does not wait."""
        self.fresh = False
        for tensor in (self._units, self._sums, self._rows):
            if tensor is not None:
                tensor.zero_()


def _add(accumulators: Sequence, sums: tuple, rows: list[int]) -> None:
    total, pairs = (x.numpy() for x in sums)
    _core.add_sums(accumulators, total, pairs, rows, threads=torch.get_num_threads())


@torch.no_grad()
def meter(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    plan,
    layout: TokenLayout,
    queries: torch.Tensor,
    sm_scale: float,
    tail: bool,
) -> torch.Tensor:
    """What a plan, or found masks, keep of the attention of sampled queries: float32 (H, 2) on the
    device.

    [h, 0]: grid mass inside the mask / grid mass, [h, 1]: sum |o_sparse - o|^2 / sum |o|^2, both
    over the head's queries. o_sparse is unquantised, with the tail if asked. queries as in
    ObserveState.observe. Rows that are not finite are left out; NaN where none is left. Without v
    the retained mass alone, which moves half the bytes; the error is NaN then. Does not wait for
    the device: see Readback.
    """
    observe_inputs.check_tensor("q", q)
    observe_inputs.check_tensor("k", k, q)
    if v is not None:
        observe_inputs.check_tensor("v", v, q)
    own = observe_inputs.check_plan("plan", plan, (_core.Plan, FoundMasks), q, layout)
    scale = observe_inputs.check_scale(sm_scale)
    places = observe_inputs.sampled_queries(queries, q, own)
    tile = (plan.block_q, plan.block_kv)
    if capability.observed_in_torch(q, tile) is None:
        return cuda.run(
            torch.ops.paro.meter.default,
            *(None if x is None else observe_inputs.half(x) for x in (q, k, v)),
            cuda.words(plan, q.device, aside=True),
            places,
            *cuda.layout(plan),
            scale,
            bool(tail),
        )
    masks = observe_inputs.masks_of(plan).to(q.device)
    return plain.meter(q, k, v, plan.orders, masks, own, tile, places, scale, bool(tail))


class Readback:
    """A copy of a tensor on its way to the host: pinned memory, copied on the current stream.

    ready() says whether it has come, without waiting; get() waits for it.
    """

    def __init__(self, tensor: torch.Tensor):
        self._event = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor.to("cpu", copy=True)

    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def get(self) -> torch.Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


@torch.no_grad()
def block_importance(
    q: torch.Tensor,
    k: torch.Tensor,
    layout: TokenLayout,
    orders: Sequence[str],
    block_q: int,
    block_kv: int,
    sm_scale: float,
    *,
    path: str = "auto",
) -> torch.Tensor:
    """Exact post-softmax mass of every grid block, each head in its order: float32 (H, rows, cols).

    Softmax over all keys; grid queries and grid keys summed, batch entries added up. Rows that are
    not finite are left out. path: "auto", or "portable" or "hopper" on a GPU. Does not wait for
    the device: see Readback.
    """
    observe_inputs.check_tensor("q", q)
    observe_inputs.check_tensor("k", k, q)
    observe_inputs.check_layout(q, layout)
    scale = observe_inputs.check_scale(sm_scale)
    if path not in _PATHS:
        raise _core.Error(f"path must be one of {', '.join(_PATHS)} (got {path!r})")
    orders = list(orders)
    if len(orders) != q.shape[1]:
        rule = f"must hold one order per head, {q.shape[1]}"
        raise _core.Error(f"orders {rule} (got {len(orders)})")
    for order in orders:
        if order not in _core.ORDERS:
            raise _core.Error(f"orders must hold only {', '.join(_core.ORDERS)} (got {order!r})")
    for name, block in (("block_q", block_q), ("block_kv", block_kv)):
        if not 1 <= block <= MAX_BLOCK:
            raise _core.Error(f"{name} must lie in 1..{MAX_BLOCK} (got {block})")
    if capability.summed_in_torch(q, block_q, block_kv):
        return plain.block_importance(q, k, layout, orders, (block_q, block_kv), scale)
    found = []
    for part in _head_pieces(q, layout):
        sums = cuda.run(
            torch.ops.paro.block_importance.default,
            observe_inputs.half(q[:, part]),
            observe_inputs.half(k[:, part]),
            observe_inputs.orders_on(orders[part], q.device),
            *observe_inputs.grid_numbers(layout),
            scale,
            cuda.PATHS[path],
        ).sum(0)
        found.append(_joined(sums, block_q // 64, block_kv // 64))
    return found[0] if len(found) == 1 else torch.cat(found)


def _head_pieces(q: torch.Tensor, layout: TokenLayout) -> list[slice]:
    """As many heads at a time as the sums of blocks of 64 that the kernel gives take
    _MOST_SUMS bytes of."""
    batch, heads = q.shape[:2]
    step = max(1, _MOST_SUMS // (4 * batch * (-(-layout.grid_size // 64)) ** 2))
    return [slice(first, min(first + step, heads)) for first in range(0, heads, step)]


def _joined(blocks: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Sums of `rows` x `cols` neighbours of (H, R, C)."""
    if rows == cols == 1:
        return blocks
    heads, height, width = blocks.shape
    blocks = torch.nn.functional.pad(blocks, (0, -width % cols, 0, -height % rows))
    return blocks.view(heads, -(-height // rows), rows, -(-width // cols), cols).sum((2, 4))
