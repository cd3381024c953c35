"""What sampled queries and block sums say about a layer, on the device of its tensors.

`ObserveState` learns offset kernels from a dense or sparse run, `meter` says what a plan keeps,
`dynamic_mask` finds masks from pooled queries and keys, `block_importance` sums exact attention by
block. On a GPU with the library these are kernels (native/cuda); everywhere else, and where a
kernel cannot take the tensors, the same in plain torch. Nothing here waits for the device but
`ObserveState.sums`, `rows` and `add_to`.

q, k, v are (B, H, N, D) of float32, float16 or bfloat16, in any strides, tokens in original order
(prefix | grid F x H x W | suffix). Errors are Error (a ValueError) naming argument, rule and value.
"""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections.abc import Sequence

import torch

from . import _core, cuda
from . import observe_torch as plain
from .layout import TokenLayout

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_QUERIES = 4096
# A probability in the units that the kernels sum.
_UNIT = 2.0**32

_lock = threading.Lock()
_plan_orders: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_plan_masks: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _check(name: str, x, like: torch.Tensor | None = None) -> None:
    if not isinstance(x, torch.Tensor):
        raise _core.Error(f"{name} must be a tensor (got {type(x).__name__})")
    if x.dim() != 4 or 0 in x.shape:
        raise _core.Error(f"{name} must have the shape (B, H, N, D) (got {tuple(x.shape)})")
    if x.dtype not in _DTYPES:
        raise _core.Error(f"{name} must be float32, float16 or bfloat16 (got {x.dtype})")
    for what in ("shape", "dtype", "device") if like is not None else ():
        got, want = getattr(x, what), getattr(like, what)
        if got != want:
            raise _core.Error(f"{name} must have the {what} of q, {want} (got {got})")


def _check_layout(q: torch.Tensor, layout: TokenLayout) -> None:
    if min(layout.grid) < 1 or layout.prefix < 0 or layout.suffix < 0:
        raise _core.Error(f"layout must have sides of 1 and more and no negative part ({layout})")
    if q.shape[2] != layout.length:
        raise _core.Error(f"q must hold the layout's {layout.length} tokens (got {q.shape[2]})")


def _check_scale(scale: float) -> float:
    if not (math.isfinite(scale) and scale > 0):
        raise _core.Error(f"sm_scale must be finite and above 0 (got {scale})")
    return float(scale)


def _queries(queries, q: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
    """queries as int32 (H, n) on the device of q; the values are checked on a CPU only."""
    if not isinstance(queries, torch.Tensor) or queries.dtype not in (torch.int32, torch.int64):
        got = queries.dtype if isinstance(queries, torch.Tensor) else type(queries).__name__
        raise _core.Error(f"queries must be an int32 tensor (got {got})")
    if queries.dim() != 2 or queries.shape[0] != q.shape[1]:
        rule = f"must have the shape (H, n) with H = {q.shape[1]}"
        raise _core.Error(f"queries {rule} (got {tuple(queries.shape)})")
    if not 1 <= queries.shape[1] <= _MAX_QUERIES:
        rule = f"must hold 1 to {_MAX_QUERIES} queries a head"
        raise _core.Error(f"queries {rule} (got {queries.shape[1]})")
    if queries.device.type == "cpu":
        low, high = (int(x) for x in torch.aminmax(queries))
        if low < 0 or high >= layout.grid_size:
            rule = f"must be grid places, 0 to {layout.grid_size - 1}"
            raise _core.Error(f"queries {rule} (got {low} to {high})")
    return queries.to(q.device, torch.int32, non_blocking=True).contiguous()


def _check_plan(plan, q: torch.Tensor, layout: TokenLayout | None) -> TokenLayout:
    """The plan's layout, checked against q and `layout`."""
    if not isinstance(plan, _core.Plan):
        raise _core.Error(f"plan must be a Plan (got {type(plan).__name__})")
    own = TokenLayout(tuple(plan.grid), plan.prefix, plan.suffix)
    if layout is not None and layout != own:
        raise _core.Error(f"plan must be made for the layout {layout} (got {own})")
    if q.shape[1] != plan.head_count:
        raise _core.Error(f"q must hold the plan's {plan.head_count} heads (got {q.shape[1]})")
    _check_layout(q, own)
    return own


def kernels_refuse(q: torch.Tensor) -> str | None:
    """Why q is observed in plain torch and not by a kernel, or None. Never raises."""
    if q.device.type != "cuda":
        return f"no kernel for device {q.device.type}"
    reason = cuda.unsupported(q)
    if reason is None and not hasattr(torch.ops.paro, "observe"):
        return "this build has no observing kernels"
    return reason


def _orders(plan) -> list[str]:
    with _lock:
        if plan not in _plan_orders:
            _plan_orders[plan] = [head.order for head in plan.heads]
        return _plan_orders[plan]


def _masks(plan, device) -> torch.Tensor:
    """[H, rows, cols] bool on a device, kept as long as the plan."""
    with _lock:
        copies = _plan_masks.setdefault(plan, {})
        if device not in copies:
            masks = [torch.from_numpy(head.mask.numpy()) for head in plan.heads]
            copies[device] = torch.stack(masks).to(device)
        return copies[device]


# -- the observer ------------------------------------------------------------------------------


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
        tables = plain.axis_tables(tuple(tuple(axis) for axis in edges), self.grid)
        self._tables = tuple(table.to(self.device) for table in tables)
        self._flat = torch.cat(self._tables).to(torch.int32)
        shape = (heads, len(self.bins))
        dtype = plain.sum_dtype(self.device)
        self._sum = torch.zeros(shape, dtype=dtype, device=self.device)
        self._pairs = torch.zeros(shape, dtype=dtype, device=self.device)
        # What the kernels add to: probabilities in units of 2^-32, and pairs. Made when needed.
        self._units: torch.Tensor | None = None
        self._rows = torch.zeros(heads, 2, dtype=torch.int64, device=self.device)

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
        _check("q", q)
        _check("k", k, q)
        _check_layout(q, layout)
        scale = _check_scale(sm_scale)
        if (tuple(layout.grid), q.shape[1]) != (self.grid, self.heads):
            raise _core.Error(
                f"layout must keep the grid and heads of this state, {self.grid} and {self.heads}"
                f" (got {tuple(layout.grid)} and {q.shape[1]})"
            )
        if q.device.type != self.device.type:
            raise _core.Error(f"q must be on the state's device, {self.device} (got {q.device})")
        places = _queries(queries, q, layout)
        keep = [int(head) for head in keep]
        if any(not 0 <= head < self.heads for head in keep):
            raise _core.Error(f"keep must hold heads, 0 to {self.heads - 1} (got {keep})")
        kept = None
        if keep:
            shape = (len(keep), places.shape[1], layout.grid_size)
            kept = torch.zeros(shape, dtype=torch.float16, device=q.device)
        if kernels_refuse(q) is None:
            self._observe_kernel(q, k, layout, places, scale, keep, kept)
        else:
            plain.observe(
                q,
                k,
                layout,
                places,
                scale,
                self._tables,
                self.counts,
                self._sum,
                self._pairs,
                self._rows,
                (keep, kept) if keep else None,
            )
        return kept

    def _observe_kernel(self, q, k, layout, places, scale, keep, kept) -> None:
        raise NotImplementedError

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum of probabilities, number of pairs), float64 (H, bins) on the CPU. Waits."""
        total, pairs = self._sum.cpu().double(), self._pairs.cpu().double()
        if self._units is not None:
            units = self._units.cpu().double()
            total, pairs = total + units[0] / _UNIT, pairs + units[1]
        return total, pairs

    def rows(self) -> tuple[list[int], list[int]]:
        """Rows that were counted and rows that were left out, by head. Waits."""
        counted, left_out = self._rows.cpu().T.tolist()
        return counted, left_out

    def add_to(self, accumulators: Sequence) -> None:
        """Adds what was seen to one _core.OffsetAccumulator per head. Waits."""
        if len(accumulators) != self.heads:
            rule = f"must hold one per head, {self.heads}"
            raise _core.Error(f"accumulators {rule} (got {len(accumulators)})")
        total, pairs = self.sums()
        counted, _ = self.rows()
        for head, accumulator in enumerate(accumulators):
            accumulator.add_sums(total[head].numpy(), pairs[head].numpy(), counted[head])

    def clear(self) -> None:
        """Forgets everything. Does not wait."""
        for tensor in (self._sum, self._pairs, self._units, self._rows):
            if tensor is not None:
                tensor.zero_()


# -- the meter ---------------------------------------------------------------------------------


@torch.no_grad()
def meter(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan,
    layout: TokenLayout,
    queries: torch.Tensor,
    sm_scale: float,
    tail: bool,
) -> torch.Tensor:
    """What a plan keeps of the attention of sampled queries: float32 (H, 2) on the device.

    [h, 0]: grid mass inside the mask / grid mass, [h, 1]: sum |o_sparse - o|^2 / sum |o|^2, both
    over the head's queries. o_sparse is unquantised, with the tail if asked. queries as in
    ObserveState.observe. Rows that are not finite are left out; NaN where none is left. Does not
    wait for the device: see Readback.
    """
    _check("q", q)
    _check("k", k, q)
    _check("v", v, q)
    own = _check_plan(plan, q, layout)
    scale = _check_scale(sm_scale)
    places = _queries(queries, q, own)
    masks, tile = _masks(plan, q.device), (plan.block_q, plan.block_kv)
    return plain.meter(q, k, v, _orders(plan), masks, own, tile, places, scale, bool(tail))


class Readback:
    """A tensor on its way to the host: pinned memory, copied on the current stream.

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
            self._host = tensor.cpu()

    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def get(self) -> torch.Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


# -- masks found on the fly --------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _targets(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).to(device)


def _check_targets(name: str, value, heads: int) -> tuple[float, ...]:
    same = isinstance(value, (int, float))
    values = (float(value),) * heads if same else tuple(map(float, value))
    if len(values) != heads:
        raise _core.Error(f"{name} must be one number, or one per head (got {len(values)})")
    for one in values:
        if not 0.0 < one <= 1.0:
            raise _core.Error(f"{name} must be above 0 and at most 1 (got {one})")
    return values


@torch.no_grad()
def dynamic_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    plan,
    *,
    density: float | Sequence[float] | None = None,
    mass: float | Sequence[float] | None = None,
    sm_scale: float | None = None,
) -> torch.Tensor:
    """Masks for these q and k in the plan's orders and tile: int32 words (H, rows, words).

    Blocks are scored by softmax(pooled q . pooled k) over grid key blocks, the mean over the batch.
    density: that share of each row's blocks, at least one; mass: the fewest blocks whose share of
    the row's scores reaches it. One number, or one per head. Ties go to the lower index. Bit c % 32
    of word c / 32: grid key block c is computed; prefix and suffix always are. `with_masks` makes a
    plan of them. Does not wait for the device.
    """
    _check("q", q)
    _check("k", k, q)
    own = _check_plan(plan, q, None)
    if (density is None) == (mass is None):
        raise _core.Error(f"density or mass must be given, not both (got {density} and {mass})")
    name, value = ("density", density) if mass is None else ("mass", mass)
    targets = _targets(_check_targets(name, value, q.shape[1]), q.device)
    scale = _check_scale(sm_scale or q.shape[-1] ** -0.5)
    p = plain.block_scores(q, k, _orders(plan), own, (plan.block_q, plan.block_kv), scale)
    return plain.pack_bits(plain.select(p, targets, by_mass=mass is not None))


def with_masks(plan, masks: torch.Tensor) -> torch.Tensor:
    """The plan's words on the device of `masks` with these masks in place of its own.

    What torch.ops.paro.attention wants as `plan`. The schedule is longest first, as a plan's own.
    """
    if masks.device.type == "cuda":
        words = cuda.upload(plan, masks.device)
    else:
        words = torch.from_numpy(_core.plan_words(plan))
    heads, rows, width = masks.shape
    if masks.dtype != torch.int32 or len(words) != heads * (1 + rows + rows * width):
        raise _core.Error(f"masks must be dynamic_mask's of this plan (got {tuple(masks.shape)})")
    schedule = torch.argsort(row_counts(masks), dim=1, descending=True, stable=True)
    return torch.cat([words[:heads], schedule.flatten().to(torch.int32), masks.flatten()])


def row_counts(masks: torch.Tensor) -> torch.Tensor:
    """Blocks computed in each mask row, int64 (H, rows)."""
    return plain.unpack_bits(masks, masks.shape[-1] * 32).sum(-1)


# -- exact importance --------------------------------------------------------------------------


@torch.no_grad()
def block_importance(
    q: torch.Tensor,
    k: torch.Tensor,
    layout: TokenLayout,
    orders: Sequence[str],
    block_q: int,
    block_kv: int,
    sm_scale: float,
) -> torch.Tensor:
    """Exact post-softmax mass of every grid block, each head in its order: float32 (H, rows, cols).

    Softmax over all keys; grid queries and grid keys summed, batch entries added up. Rows that are
    not finite are left out. Does not wait for the device: see Readback.
    """
    _check("q", q)
    _check("k", k, q)
    _check_layout(q, layout)
    scale = _check_scale(sm_scale)
    orders = list(orders)
    if len(orders) != q.shape[1]:
        raise _core.Error(f"orders must hold one per head, {q.shape[1]} (got {len(orders)})")
    for order in orders:
        if order not in _core.ORDERS:
            raise _core.Error(f"orders must be of {', '.join(_core.ORDERS)} (got {order!r})")
    for name, block in (("block_q", block_q), ("block_kv", block_kv)):
        if not 1 <= block <= 4096:
            raise _core.Error(f"{name} must lie in 1..4096 (got {block})")
    return plain.block_importance(q, k, layout, orders, (block_q, block_kv), scale)
