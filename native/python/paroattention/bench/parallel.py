"""`bench parallel`: attention of a sharded sequence on one and several GPUs, collectives apart.

Each rank holds some tokens of all heads. A call is an all-to-all of q, k and v, attention of the
rank's heads, and the all-to-all of the output: what one layer of a model does. dense is cuDNN.
Densities by head are those of a real profile (parallel_simulated.py), masks are random.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import _core
from ..kernels.attention import attention
from ..kernels.cuda import preferred_tile
from ..layout import TokenLayout
from ..parallel.dealing import Dealing, deal, even
from ..parallel.loads import fixed_load, plan_loads
from ..parallel.parts import with_parts
from ..parallel.ranks import Ranks
from ..parallel.slices import slice_of
from ..parallel.ulysses import Ulysses, token_counts
from . import parallel_simulated as simulated
from . import processes
from .attention import _commit, _write

# name: (B, H, grid, prefix, head_dim). tiny is for trying the bench itself.
SHAPES = {
    "wan14b-720p": (1, 40, (21, 45, 80), 0, 128),
    "minimax-h3": (1, 56, (27, 42, 70), 187, 128),
    "minimax-h3-236k": (1, 56, (234, 24, 42), 187, 128),
    "tiny": (1, 4, (4, 8, 10), 5, 64),
}
DENSITIES = (1.0, 0.3, 0.2)
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Work:
    """What every rank measures. head_densities: by density, of the heads of each shape's layer."""

    shapes: list[str]
    densities: list[float]
    head_densities: dict[tuple[str, float], list[float]]
    device: str
    repeats: int


def masked_plan(shape, densities: list[float], block: int, seed: int = 0) -> _core.Plan:
    """Random masks, of each head at its density."""
    _, _, grid, prefix, _ = shape
    side = math.ceil(math.prod(grid) / block)
    draw = torch.Generator().manual_seed(seed)
    heads = []
    for density in densities:
        mask = torch.eye(side, dtype=torch.bool)
        free = torch.nonzero(~mask.view(-1)).squeeze(1)
        count = max(0, round(density * side * side) - side)
        mask.view(-1)[free[torch.randperm(len(free), generator=draw)[:count]]] = True
        heads.append(_core.HeadPlan("HWF", _core.BlockMask(mask.numpy())))
    return TokenLayout(grid, prefix).plan(heads, block, block)


def _parts(dealing: Dealing, plan: _core.Plan) -> Dealing:
    """With parts of whatever evens ranks out, whether sending pays or not."""
    layout = TokenLayout(tuple(plan.grid), plan.prefix, plan.suffix)
    fixed = fixed_load(layout, plan.block_q, plan.block_kv)
    rows = plan.heads[0].mask.rows
    return with_parts(dealing, plan_loads(plan), fixed, plan.orders, rows, plan.block_q)


def _mark(device: str):
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin, end) -> float:
    """Milliseconds."""
    return 1e3 * (end - begin) if isinstance(begin, float) else begin.elapsed_time(end)


def _dense(q, k, v):
    if q.device.type != "cuda":
        return F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


class Rank:
    """One process of the bench."""

    def __init__(self, ranks: Ranks, work: Work):
        self.ranks, self.work, self.engine = ranks, work, Ulysses(ranks)

    def _tensors(self, shape) -> list[torch.Tensor]:
        """q, k, v (B, H, own tokens, D)."""
        batch, heads, grid, prefix, head_dim = shape
        tokens = token_counts(prefix + math.prod(grid), self.ranks.size)[self.ranks.rank]
        device, dtype = self.work.device, torch.bfloat16
        draw = torch.Generator(device).manual_seed(self.ranks.rank)
        size = (batch, heads, tokens, head_dim)
        return [
            torch.randn(size, device=device, generator=draw, dtype=torch.float32).to(dtype)
            for _ in range(3)
        ]

    def measure(self, shape, dealing: Dealing, compute) -> dict:
        """Medians over repeats, milliseconds: of this rank, and its two parts."""
        tensors, device = self._tensors(shape), self.work.device
        tokens = token_counts(shape[3] + math.prod(shape[2]), self.ranks.size)
        found = []
        for number in range(self.work.repeats + 2):
            # All begin together: what a rank waits for others then is part of its all-to-all.
            self.ranks.exchange({})
            if device == "cuda":
                torch.cuda.synchronize()
            marks = [_mark(device)]
            if self.ranks.size > 1:
                own = self.engine.heads_here(torch.cat(tensors), dealing, tokens)
                own = own.split(shape[0])
            else:
                own = tensors
            marks.append(_mark(device))
            out = compute(*own)
            marks.append(_mark(device))
            if self.ranks.size > 1:
                layout = TokenLayout(shape[2], shape[3])
                self.engine.tokens_here(out, dealing, tokens, layout)
            marks.append(_mark(device))
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= 2:  # the first ones warm up
                found.append([_between(marks[a], marks[b]) for a, b in ((0, 3), (1, 2))])
        total, inside = (statistics.median(one) for one in zip(*found, strict=True))
        return {"total_ms": total, "attention_ms": inside}

    def row(self, name: str, label: str, density: float, how: str, dealing, compute) -> dict:
        told = [one for one, _ in self.ranks.exchange(self.measure(SHAPES[name], dealing, compute))]
        inside = [one["attention_ms"] for one in told]
        total = max(one["total_ms"] for one in told)
        return {
            "shape": name,
            "gpus": self.ranks.size,
            "name": label,
            "density": density,
            "dealing": how,
            "heads": list(dealing.counts),
            "ms": round(total, 3),
            "attention_ms": [round(one, 3) for one in inside],
            # What is not the slowest rank's attention: exchange, and copies around it.
            "collectives_ms": round(total - max(inside), 3),
            "imbalance": round(max(inside) * len(inside) / sum(inside) - 1, 4),
        }

    def rows(self):
        size, rank, work = self.ranks.size, self.ranks.rank, self.work
        for name in work.shapes:
            heads = SHAPES[name][1]
            plain = even(heads, size)
            yield self.row(name, "dense", 1.0, "even", plain, _dense)
            for density in work.densities:
                block = preferred_tile(work.device)
                plan = masked_plan(SHAPES[name], work.head_densities[name, density], block)
                ways = {"even": plain}
                if size > 1 and density < 1:
                    ways["dealt"] = deal(plan_loads(plan), size)
                    ways["parts"] = _parts(ways["dealt"], plan)
                for how, dealing in ways.items():
                    own = slice_of(plan, dealing.of(rank))
                    compute = functools.partial(attention, plan=own)
                    yield self.row(name, "paro", density, how, dealing, compute)


def rows(work: Work, rank: int, count: int):
    """Of one process; see processes.rows_of."""
    ranks = Ranks(timeout=_TIMEOUT)
    with ranks.guarded():
        yield from Rank(ranks, work).rows()


def _line(row: dict) -> str:
    parts = " ".join(f"{one:.2f}" for one in row["attention_ms"])
    return (
        f"{row['shape']:16} {row['gpus']} x {row['name']:5} {row['density']:4} {row['dealing']:5}"
        f" {row['ms']:9.2f} ms, attention {parts}, collectives {row['collectives_ms']:.2f},"
        f" imbalance {row['imbalance']:.1%}"
    )


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="paroattention bench parallel", description=__doc__)
    parser.add_argument("--simulate", action="store_true", help=simulated.__doc__.splitlines()[0])
    parser.add_argument(
        "--profile",
        type=Path,
        default=Path("tests/bench/bundled-profile.json"),
        help="a real profile; default: the bundled model's, as --calibrate makes it",
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="makes that profile anew, on the CPU"
    )
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument(
        "--times",
        type=Path,
        default=Path("tests/bench/results/h100.json"),
        help="rows of `bench attention` on a GPU, for --simulate",
    )
    parser.add_argument("--gpus", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--density", type=float, action="append", help="default: 1, .3 and .2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    return parser.parse_args(arguments)


def _profile(options) -> _core.Profile:
    if options.calibrate:
        simulated.calibrated(options.assets).save(options.profile)
    return _core.Profile.load(options.profile)


def _simulate(options) -> int:
    head_time = simulated.fitted(options.times)
    found = simulated.rows(_profile(options), head_time)
    simulated.show(found)
    about = {"commit": _commit(), "simulated": True, "times": options.times.name}
    about |= {"fixed_ms": round(head_time.fixed, 4), "each_ms": round(head_time.each, 4)}
    _write(options.out, about | {"fit_off": round(head_time.off, 4)}, found)
    return 0


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    if options.simulate:
        return _simulate(options)
    sizes, cuda = options.gpus or [1, 2], options.device == "cuda"
    if cuda:
        processes.require_gpus(max(sizes))
    shapes = options.shape or [name for name in SHAPES if name != "tiny"]
    densities = options.density or list(DENSITIES)
    profile, by_head = _profile(options), {}
    for name in shapes:
        model = simulated.tiled(profile, SHAPES[name][1], 2 if name == "tiny" else 8, True)
        for density in densities:
            by_head[name, density] = simulated.densities_of(model, density)[0]
    work = Work(shapes, densities, by_head, options.device, options.repeats)
    found = []
    about = {"commit": _commit(), "device": torch.cuda.get_device_name() if cuda else "cpu"}
    for size in sizes:
        given = {"cuda": cuda, "seconds": _TIMEOUT, "line": _line}
        found += processes.rows_of(size, rows, work, **given)
        _write(options.out, about, found)
    return 0
