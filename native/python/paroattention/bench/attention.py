"""`bench attention`: our kernels beside torch's SDPA and other peers, in one run, medians.

Times are those of whole calls, from q, k, v in original order to o in original order.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import _core
from ..kernels import reference
from ..kernels.attention import attention
from ..limits import TILES

# name: (B, H, grid, prefix, head_dim)
SHAPES = {
    "tiny-wan": (1, 2, (10, 16, 22), 0, 128),
    "video-4k": (1, 12, (8, 22, 24), 0, 128),
    "cogvideo-4k": (1, 12, (8, 22, 24), 226, 64),
    "image-4k": (1, 12, (1, 64, 64), 0, 128),
}
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)


def random_plan(shape, density: float, *, block_q=64, block_kv=64, order="HWF", seed=0):
    """A plan with a random mask in every head: exactly round(density * blocks) of them."""
    _, heads, grid, prefix, _ = shape
    rows = math.ceil(math.prod(grid) / block_q)
    cols = math.ceil(math.prod(grid) / block_kv)
    generator = torch.Generator().manual_seed(seed)
    plans = []
    for _ in range(heads):
        keep = torch.randperm(rows * cols, generator=generator)[: round(density * rows * cols)]
        mask = torch.zeros(rows * cols, dtype=torch.bool)
        mask[keep] = True
        mask = mask.view(rows, cols).numpy()
        plans.append(_core.HeadPlan(order, _core.BlockMask(mask)))
    return _core.Plan(grid, prefix=prefix, block_q=block_q, block_kv=block_kv, heads=plans)


def _inputs(shape, dtype, sets=2):
    batch, heads, grid, prefix, head_dim = shape
    length = prefix + math.prod(grid)
    generator = torch.Generator().manual_seed(1)
    make = lambda: torch.randn(batch, heads, length, head_dim, generator=generator).to(dtype)  # noqa: E731
    return [tuple(make() for _ in range(3)) for _ in range(sets)]


def _median_ms(function, inputs, repeats: int) -> float:
    function(*inputs[0])
    times = []
    for index in range(repeats):
        started = time.perf_counter()
        function(*inputs[index % len(inputs)])
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def _row(shape_name, shape, name, path, precision, density, total, tail, ms, error):
    batch, heads, grid, prefix, head_dim = shape
    length = prefix + math.prod(grid)
    work = 4 * batch * heads * length * length * head_dim * total
    return {
        "shape": shape_name,
        "name": name,
        "path": path,
        "precision": precision,
        "density": density,
        "density_total": round(total, 4),
        "tail": tail,
        "ms": round(ms, 2),
        "tflops": round(work / ms * 1e-9, 4),
        "error": error,
    }


def _sdpa_rows(name, shape, repeats):
    for dtype, precision in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        inputs = _inputs(shape, dtype)
        ms = _median_ms(F.scaled_dot_product_attention, inputs, repeats)
        yield _row(name, shape, "torch-sdpa", "cpu", precision, 1.0, 1.0, False, ms, None)


def _paro_rows(name, shape, densities, repeats):
    inputs = _inputs(shape, torch.float32)
    for density in densities:
        plan = random_plan(shape, density)
        for precision, label in (("bf16", "fp32"), ("int8", "int8")):
            for tail in (False, True) if density < 1 else (False,):

                def call(q, k, v, plan=plan, precision=precision, tail=tail):
                    return attention(q, k, v, plan, precision=precision, tail=tail)

                ms = _median_ms(call, inputs, repeats)
                error = _error(call, inputs[0], plan, tail)
                total = plan.density_total
                yield _row(
                    name, shape, "paro", _core.active_isa(), label, density, total, tail, ms, error
                )


def _error(call, inputs, plan, tail) -> float:
    """Relative error to fp64 on the first head, whose reference is affordable."""
    q, k, v = (x[:1, :1] for x in inputs)
    single = _core.Plan(
        plan.grid,
        prefix=plan.prefix,
        suffix=plan.suffix,
        block_q=plan.block_q,
        block_kv=plan.block_kv,
        heads=plan.heads[:1],
    )
    ours = call(*inputs)[:1, :1]
    return round(reference.relative_error(ours, reference.sparse(q, k, v, single, tail=tail)), 6)


def _print(rows: list[dict]) -> None:
    base = {(r["shape"], r["precision"]): r["ms"] for r in rows if r["name"] == "torch-sdpa"}
    print(f"{'shape':12} {'name':11} {'prec':5} {'dens':>5} {'tail':>5} {'ms':>9} {'vs SDPA':>8}")
    for row in rows:
        peer = base.get((row["shape"], "bf16" if row["precision"] == "int8" else "fp32"))
        ratio = f"{peer / row['ms']:.2f}x" if peer and row["name"] == "paro" else ""
        print(
            f"{row['shape']:12} {row['name']:11} {row['precision']:5} {row['density']:5.2f}"
            f" {row['tail']!s:>5} {row['ms']:9.2f} {ratio:>8}"
        )


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        # Words of our own alone.
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    except OSError:
        return "unknown"
    return done.stdout.strip() or os.environ.get("PARO_COMMIT", "unknown")


def _options(arguments: list[str], shapes: dict, on_gpu: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="paroattention bench attention", description=__doc__)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU, else cpu"
    )
    parser.add_argument("--shape", choices=shapes, action="append")
    parser.add_argument(
        "--density",
        type=float,
        action="append",
        help="share of blocks to compute; on a GPU of all blocks, text included",
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    if on_gpu:
        parser.add_argument("--path", choices=("hopper", "portable", "narrow"), action="append")
        parser.add_argument(
            "--peers",
            action="store_true",
            help="also time attention of other libraries that are installed",
        )
        parser.add_argument("--tile", type=int, choices=TILES, action="append")
        parser.add_argument("--precision", choices=("int8", "bf16"), action="append")
        parser.add_argument(
            "--fast", action="store_true", help="leave out the rows of tail, order and packing"
        )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    if device.parse_known_args(arguments)[0].device == "cuda":
        from . import gpu, gpu_targets

        options = _options(arguments, gpu.SHAPES, True)
        about = {"commit": _commit(), "device": torch.cuda.get_device_name()}
        for rows in gpu.run(options):
            targets = gpu_targets.verdicts(rows)
            # Each time: a run that is cut short keeps its rows.
            _write(options.out, {**about, "targets": targets}, rows)
        gpu_targets.show(targets)
        return 0
    options = _options(arguments, SHAPES, False)
    rows = []
    for name in options.shape or SHAPES:
        shape = SHAPES[name]
        rows += _sdpa_rows(name, shape, options.repeats)
        rows += _paro_rows(name, shape, options.density or DENSITIES, options.repeats)
    _print(rows)
    print("vs SDPA: fp32 beside SDPA in fp32, int8 beside SDPA in bf16; more than 1 is faster")
    about = {
        "version": _core.__version__,
        "machine": platform.machine(),
        "isa": _core.active_isa(),
        "threads": torch.get_num_threads(),
    }
    _write(options.out, about, rows)
    return 0


def _write(path: Path | None, about: dict, rows: list[dict]) -> None:
    if path is None:
        return
    meta = {"date": time.strftime("%Y-%m-%d"), **about, "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**meta, "rows": rows}, indent=1) + "\n")
