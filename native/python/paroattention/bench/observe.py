"""`bench observe`: what watching costs on a GPU, beside attention in the same run.

Whole calls with bf16 tensors as models hand them over, timed with CUDA events, medians. Each row
names what it is held against: torch's own dense attention, our dense int8, or our sparse int8.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import _core
from ..kernels import cuda_masks, cuda_observe
from ..kernels.attention import attention
from ..kernels.capability import observed_in_torch
from ..kernels.head_orders import HeadOrders, OrderedHead
from ..layout import TokenLayout
from ..limits import TILES
from . import gpu

QUERIES = 64
# Of 20 steps: how many the observer watches.
OBSERVED = 4
DENSITY = 0.3


def _layout(shape) -> TokenLayout:
    return TokenLayout(shape[2], prefix=shape[3])


def _draws(shape, count):
    generator = torch.Generator().manual_seed(2)
    size = (shape[1], count)
    high = _layout(shape).grid_size
    return torch.randint(high, size, generator=generator, dtype=torch.int32).cuda()


def _paths() -> tuple[str, ...]:
    hopper = torch.cuda.get_device_capability() == (9, 0)
    return ("hopper", "portable") if hopper else ("portable",)


def _calls(shape, queries):
    """name: (call(q, k, v), what it is held against, the most it may cost of that)."""
    layout, scale = _layout(shape), shape[-1] ** -0.5
    places = _draws(shape, queries)
    plan = gpu.random_plan(shape, DENSITY)
    wide = gpu.random_plan(shape, DENSITY, block=128)
    asked = HeadOrders(layout, tuple(OrderedHead(order, DENSITY) for order in plan.orders))
    bins = _core.Bins.even(layout.grid)
    state = cuda_observe.ObserveState(bins, layout.grid, shape[1], "cuda")
    signed = _core.Bins.signed(layout.grid)
    signed = cuda_observe.ObserveState(signed, layout.grid, shape[1], "cuda")
    observing = 0.01 * 20 / OBSERVED
    return {
        "observe": (
            lambda q, k, v: state.observe(q, k, layout, places, scale),
            "torch-dense",
            observing,
        ),
        "observe, signed bins": (
            lambda q, k, v: signed.observe(q, k, layout, places, scale),
            "torch-dense",
            observing,
        ),
        "meter": (
            lambda q, k, v: cuda_observe.meter(q, k, v, plan, layout, places, scale, True),
            "paro-sparse",
            None,
        ),
        "meter, mass alone": (
            lambda q, k, v: cuda_observe.meter(q, k, None, plan, layout, places, scale, True),
            "paro-sparse",
            None,
        ),
        "meter, 128 x 128": (
            lambda q, k, v: cuda_observe.meter(q, k, v, wide, layout, places, scale, True),
            "paro-sparse",
            None,
        ),
        "dynamic masks, density": (
            lambda q, k, v: cuda_masks.find_masks(q, k, asked),
            "paro-dense",
            0.06,
        ),
        **{
            f"exact importance, {path}": (
                lambda q, k, v, path=path: cuda_observe.block_importance(
                    q, k, layout, plan.orders, 64, 64, scale, path=path
                ),
                "torch-dense",
                0.5,
            )
            for path in _paths()
        },
    }


def _baselines(shape, sets):
    """ms of each; ours over the tiles of 64 and 128, the faster."""
    times = {"torch-dense": gpu.median_ms(F.scaled_dot_product_attention, sets)}
    for name, density in (("paro-dense", 1.0), ("paro-sparse", DENSITY)):
        plans = [gpu.random_plan(shape, density, block=block) for block in TILES]
        times[name] = min(
            gpu.median_ms(lambda q, k, v, p=plan: attention(q, k, v, p), sets) for plan in plans
        )
    return times


def rows_of(name: str, queries: int):
    shape = gpu.SHAPES[name]
    sets = gpu.inputs(shape)
    times = _baselines(shape, sets)
    for label, ms in times.items():
        yield {"shape": name, "name": label, "ms": round(ms, 4)}
    for label, (call, base, most) in _calls(shape, queries).items():
        ms = gpu.median_ms(call, sets)
        share = ms / times[base]
        row = {"shape": name, "name": label, "queries": queries, "ms": round(ms, 4)}
        row |= {"against": base, "share": round(share, 4), "most": most}
        if label.startswith("observe"):
            row["share_of_run"] = round(share * OBSERVED / 20, 5)
        if label.startswith("meter"):
            # How many calls may go by for one that is metered, at half a percent of the run.
            row["one_in"] = max(1, round(share / 0.005))
        yield row


def _text(row: dict) -> str:
    text = f"{row['shape']:13} {row['name']:24} {row['ms']:9.4f} ms"
    if "against" in row:
        text += f" {100 * row['share']:7.2f} % of {row['against']}"
    if row.get("most"):
        text += f" (at most {100 * row['most']:.0f} %)"
    if "share_of_run" in row:
        text += f", {100 * row['share_of_run']:.2f} % of 20 steps, {OBSERVED} of them watched"
    if "one_in" in row:
        text += f", 0.5 % of the run at one call in {row['one_in']}"
    return text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench observe", description=__doc__)
    parser.add_argument("--shape", choices=gpu.SHAPES, action="append")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise _core.Error("bench observe must run on a CUDA GPU (torch found none)")
    probe = torch.empty(1, 1, 1, 64, device="cuda", dtype=torch.bfloat16)
    reason = observed_in_torch(probe)
    if reason:
        raise _core.Error(f"bench observe needs the CUDA kernels: {reason}")
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": os.environ.get("PARO_COMMIT", "unknown"),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    rows: list[dict] = []
    for name in options.shape or gpu.SHAPES:
        for row in rows_of(name, options.queries):
            print(_text(row), flush=True)
            rows.append(row)
            if options.out:  # each time: a run that is cut short keeps its rows
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        torch.cuda.empty_cache()
    return 0
