"""`bench attention` on a GPU: our kernels and every peer that can be imported, in one run.

Whole calls from bf16 q, k, v in original order to bf16 o in original order, timed with CUDA events
around groups of calls, medians of the groups. Densities are total ones: prefix and suffix count.
"""

from __future__ import annotations

import math
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import _core
from ..kernels import cuda
from ..kernels.attention import attention
from ..limits import TILES
from .gpu_reference import error

# name: (B, H, grid, prefix, head_dim)
SHAPES = {
    "wan1.3b-480p": (1, 12, (21, 30, 52), 0, 128),
    "cogvideox-5b": (2, 48, (13, 30, 45), 226, 64),
    "wan14b-720p": (1, 10, (21, 45, 80), 0, 128),
    "flux-1024": (1, 24, (1, 64, 64), 512, 128),
    # A quarter of its heads, at 10 s of 768p; four of them at the longest that people run.
    "minimax-h3": (1, 14, (27, 42, 70), 187, 128),
    "minimax-h3-236k": (1, 4, (234, 24, 42), 187, 128),
}
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)
GROUP_MS = 8.0
GROUPS = 7


def random_plan(shape, total: float, *, block=64, order="HWF", seed=0):
    """Random masks of a total density: as many grid blocks as prefix and suffix leave over."""
    _, heads, grid, prefix, _ = shape
    side, outside = math.ceil(math.prod(grid) / block), math.ceil(prefix / block)
    share = (total * (side + outside) ** 2 - outside**2 - 2 * side * outside) / side**2
    count = max(side, min(side * side, round(share * side * side)))
    generator = torch.Generator().manual_seed(seed)
    entries = []
    for _ in range(heads):
        mask = torch.zeros(side, side, dtype=torch.bool)
        mask[torch.arange(side), torch.randint(side, (side,), generator=generator)] = True
        free = torch.nonzero(~mask.view(-1)).squeeze(1)
        free = free[torch.randperm(len(free), generator=generator)[: count - side]]
        mask.view(-1)[free] = True
        entries.append(_core.HeadPlan(order, _core.BlockMask(mask.numpy())))
    return _core.Plan(grid, prefix=prefix, block_q=block, block_kv=block, heads=entries)


def inputs(shape, sets=2):
    """Sets of (B, N, H * D) memory seen as (B, H, N, D), as models hand q, k, v over."""
    batch, heads, grid, prefix, head_dim = shape
    size = (batch, prefix + math.prod(grid), heads, head_dim)
    generator = torch.Generator("cuda").manual_seed(1)
    make = lambda: torch.randn(size, device="cuda", generator=generator).to(torch.bfloat16)  # noqa: E731
    return [tuple(make().transpose(1, 2) for _ in range(3)) for _ in range(sets)]


def median_ms(function, sets) -> float:
    """Milliseconds a call: the median over groups of calls that take turns with the inputs."""

    def group(count):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(count):
            function(*sets[i % len(sets)])
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count

    group(2)
    count = max(2, math.ceil(GROUP_MS / group(2)))
    return statistics.median(group(count) for _ in range(GROUPS))


def _row(name, shape, label, path, precision, density, total, tail, ms, exact, **more):
    batch, heads, grid, prefix, head_dim = shape
    length = prefix + math.prod(grid)
    work = 4 * batch * heads * length * length * head_dim * total
    row = {
        "shape": name,
        "name": label,
        "path": path,
        "precision": precision,
        "density": round(density, 4),
        "density_total": round(total, 4),
        "tail": tail,
        "ms": round(ms, 4),
        "tflops": round(work / ms * 1e-9, 2),
        "error": exact,
    }
    return {**row, **more}


def _paths(wanted, q, plan, precision):
    """Paths that run here; those that were asked for by name must."""
    for path in wanted or ("hopper", "portable"):
        if precision != "int8" and path == "hopper":
            continue
        try:
            attention(q, q, q, plan, precision=precision, path=path)
            yield path
        except _core.Error as reason:
            if wanted:
                raise
            print(f"{path}: {reason}")


def paro_rows(name, shape, densities, wanted, tiles, precisions, *, details=True):
    sets = inputs(shape)
    for density in densities:
        for block in tiles:
            plan = random_plan(shape, density, block=block)
            for precision in precisions:
                for path in _paths(wanted, sets[0][0], plan, precision):
                    tails = (False, True) if density < 1 and details else (False,)
                    for tail in tails:
                        yield _paro_row(name, shape, sets, plan, path, precision, tail, block)
            if details and density == 0.3:
                same = random_plan(shape, density, block=block, order="FHW")
                for path in _paths(wanted, sets[0][0], same, "int8"):
                    yield _paro_row(name, shape, sets, same, path, "int8", False, block)
    if details:
        yield pack_row(name, shape, sets)


def _paro_row(name, shape, sets, plan, path, precision, tail, block):
    def call(q, k, v):
        return attention(q, k, v, plan, precision=precision, tail=tail, path=path)

    ms = median_ms(call, sets)
    o = call(*sets[0])
    exact = round(error(o, *sets[0], plan, tail=tail, rows=128, heads=(0,)), 5)
    return _row(
        name,
        shape,
        "paro",
        path,
        precision,
        plan.density,
        plan.density_total,
        tail,
        ms,
        exact,
        tile=f"{block}x{block}",
        order=plan.heads[0].order,
    )


def pack_row(name, shape, sets):
    """Gather and quantise alone, with the bytes that it cannot do without: v counts twice."""
    plan = random_plan(shape, 1.0)
    q = sets[0][0]
    words, sizes, ops = cuda.upload(plan, q.device), cuda.layout(plan), torch.ops.paro

    def call(q, k, v):
        ops.pack_queries(q, words, *sizes, 0.1)
        ops.pack_keys(k, v, words, *sizes, False)

    ms = median_ms(call, sets)
    moved = q.numel() * (4 * 2 + 3)
    row = _row(name, shape, "paro-pack", "portable", "int8", 1.0, 1.0, False, ms, None)
    return {**row, "tflops": None, "gb_per_s": round(moved / ms * 1e-6, 1)}


def _sdpa(backend):
    def call(q, k, v):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v)

    return call


def _kitchen():
    """comfy-kitchen's int8 attention and sol_attn, or None for what is missing."""
    try:
        import comfy_kitchen
        from comfy_kitchen.sage_attention import int8_attention
    except ImportError as reason:
        print(f"comfy-kitchen: {reason}")
        return None, None
    return int8_attention, getattr(comfy_kitchen, "sol_attn", None)


def peer_rows(name, shape, densities):
    """Dense peers once, ComfyUI core's sparse one at each density (it takes head_dim 128 only)."""
    sets = inputs(shape)
    dense = random_plan(shape, 1.0)
    int8, sol = _kitchen()
    peers = {
        ("torch-cudnn", "bf16"): _sdpa(SDPBackend.CUDNN_ATTENTION),
        ("torch-flash", "bf16"): _sdpa(SDPBackend.FLASH_ATTENTION),
        ("kitchen-int8", "int8"): int8,
    }
    for (label, precision), call in peers.items():
        if call is None or 1.0 not in densities:
            continue
        try:
            exact = round(error(call(*sets[0]), *sets[0], dense, rows=128, heads=(0,)), 5)
            ms = median_ms(call, sets)
        except RuntimeError as reason:
            print(f"{label}: {str(reason).splitlines()[0][:200]}")
            continue
        yield _row(name, shape, label, "cuda", precision, 1.0, 1.0, False, ms, exact)
    if sol is None or shape[-1] != 128:
        return
    rows = [tuple(x.transpose(1, 2) for x in entry) for entry in sets]
    for density in densities:
        if density == 1.0:
            continue
        try:
            ms = median_ms(lambda q, k, v, d=density: sol(q, k, v, topk_ratio=d), rows)
        except RuntimeError as reason:
            print(f"sol_attn: {str(reason).splitlines()[0][:200]}")
            return
        yield _row(
            name, shape, "kitchen-sol-topk", "cuda", "int8", density, density, True, ms, None
        )


def run(options):
    """All rows so far of parsed options of `bench attention`, after each shape."""
    rows = []
    for name in options.shape or SHAPES:
        shape, densities = SHAPES[name], options.density or DENSITIES
        if options.peers:
            rows += _told(peer_rows(name, shape, densities))
        tiles = options.tile or TILES
        precisions = options.precision or ("int8", "bf16")
        details = not options.fast
        rows += _told(
            paro_rows(name, shape, densities, options.path, tiles, precisions, details=details)
        )
        torch.cuda.empty_cache()
        yield rows


def _told(rows):
    for row in rows:
        print(
            f"{row['shape']:13} {row['name']:17} {row['path']:9} {row['precision']:5}"
            f" {row['density_total']:6.3f} tail={row['tail']!s:5} {row.get('tile', ''):8}"
            f" {row.get('order', ''):4} {row['ms']:9.3f} ms {row['tflops'] or 0:8.1f} TFLOP/s"
            f" error {row['error']} {row.get('gb_per_s', '')}",
            flush=True,
        )
        yield row
