"""`bench fidelity`: the policies against dense on the bundled model, held-out prompts and seeds.

Attention runs in this package's kernels for --device; unquantised cases run in plain torch in fp32
with `--kernel torch`: the same definition, sooner done on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from .. import _core, metrics
from ..kernels.attention import attention
from .bundled import Bundle
from .policies import Calibration, Case, cases, session_for
from .torch_attention import TorchAttention

# Calibration's prompt is one the model was trained on; the others are combinations it never saw.
CALIBRATION = ("cat closer ball", 11)
HELD_OUT = (
    ("coffee down face", 111),
    ("cat clockwise horse", 109),
    ("galaxy closer cup", 110),
    ("photographer up face", 31),
)


def sample(bundle: Bundle, prompts, seeds, steps, session=None):
    """(pixels, seconds): one batch through the model, attention by a session or dense."""
    current = {}

    def attention(q, k, v, layer):
        def dense():
            return bundle.wan.sdpa(q, k, v, layer)

        name = f"double.{layer}.0"
        return session.attention(current["forward"], name, q, k, v, bundle.layout, dense)[0]

    def on_step(step, sigma, x):
        if session is not None:
            current["forward"] = session.begin_forward(sigma)

    bundle.model.attention = attention if session is not None else bundle.wan.sdpa
    started = time.perf_counter()
    noise, context = bundle.noise(seeds), bundle.context(prompts)
    latent = bundle.wan.sample(bundle.model, noise, context, steps, on_step=on_step)
    pixels = bundle.decode(latent)
    return pixels, time.perf_counter() - started


def _scores(reference, pixels) -> dict:
    row = {
        "psnr_db": metrics.psnr(reference, pixels),
        "flicker": metrics.flicker(reference, pixels),
    }
    try:
        row["ssim"] = metrics.ssim(reference, pixels)
    except ImportError:
        row["ssim"] = None
    return row


class Bench:
    """Runs cases over prompts; rows in the format of report.json."""

    def __init__(
        self, bundle: Bundle, prompts, seeds, steps: int, exact_every: int, tiles, kernel: str
    ):
        self.bundle, self.prompts, self.seeds, self.steps = bundle, prompts, seeds, steps
        started = time.perf_counter()
        self.calibration = Calibration(bundle, *CALIBRATION, steps, tiles, exact_every)
        self.calibration_seconds = time.perf_counter() - started
        self.dense, _ = sample(bundle, prompts, seeds, steps)
        self.kernel = kernel
        self.pool = ThreadPoolExecutor(8)
        self._pending: list = []

    def run(self, case: Case) -> None:
        # A run that watches is one user's: prompts of a batch would share its samples.
        batches = [[i] for i in range(len(self.prompts))]
        if not case.policy.startswith("auto") and "+" not in case.policy:
            batches = [list(range(len(self.prompts)))]
        for batch in batches:
            prompts, seeds = ([x[i] for i in batch] for x in (self.prompts, self.seeds))
            kernel = attention
            if self._in_torch(case):
                kernel = TorchAttention(keep=not case.policy.endswith("+dynamic"))
            session = session_for(case, self.calibration, seeds[0], kernel)
            pixels, seconds = sample(self.bundle, prompts, seeds, self.steps, session)
            summary = session.finish()
            if summary["reasons"]:
                raise RuntimeError(f"{case}: not all calls were sparse: {summary['reasons']}")
            for place, index in enumerate(batch):
                scores = self.pool.submit(_scores, self.dense[index].numpy(), pixels[place].numpy())
                self._pending.append((case, index, summary, seconds / len(batch), scores))

    def rows(self) -> list[dict]:
        return [self._row(*entry) for entry in self._pending]

    def _row(self, case, index, summary, seconds, scores) -> dict:
        tail = "-tail" if case.tail else ""
        row = asdict(case)
        block = row.pop("block")
        return {
            "name": f"{case.policy}{tail}-{case.density}-{case.precision}",
            **row,
            "density": round(summary["density"], 4),
            "density_asked": case.density,
            "density_total": round(summary["density_total"], 4),
            "retained": summary["retained"] and round(summary["retained"], 4),
            "measured_error": summary["measured_error"] and round(summary["measured_error"], 5),
            "mask": summary["mask"],
            "block_q": block,
            "block_kv": block,
            "prompt": self.prompts[index],
            "seed": self.seeds[index],
            **{k: v if v is None else round(v, 4) for k, v in scores.result().items()},
            "seconds": round(seconds, 3),
            "attention_seconds": round(summary["attention_seconds"], 3),
            "device": _device_name(self.bundle.device),
            "kernel": "torch" if self._in_torch(case) else "native",
        }

    def _in_torch(self, case: Case) -> bool:
        return self.kernel == "torch" and case.precision != "int8"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def mean_psnr(rows: list[dict], **wanted) -> float | None:
    """Mean PSNR of the rows with these values, None if there are none."""
    found = [r["psnr_db"] for r in rows if all(r[k] == v for k, v in wanted.items())]
    return sum(found) / len(found) if found else None


def table(rows: list[dict]) -> str:
    """Markdown: a line per policy, tail, tile, precision and dense steps; densities across."""
    densities = sorted({r["density_asked"] for r in rows}, reverse=True)
    keys = ("dense_steps", "block_q", "precision", "policy", "tail")
    lines = [
        "| dense steps | tile | precision | policy | tail | " + " | ".join(map(str, densities))
    ]
    lines[0] += " |"
    lines.append("|" + "---|" * (len(keys) + len(densities)))
    groups = sorted({tuple(r[k] for k in keys) for r in rows}, key=lambda g: (-g[0], *g[1:]))
    for group in groups:
        wanted = dict(zip(keys, group, strict=True))
        cells = [mean_psnr(rows, **wanted, density_asked=d) for d in densities]
        shown = " | ".join("-" if c is None else f"{c:.2f}" for c in cells)
        steps, block, precision, policy, tail = group
        place = f"| {steps} | {block}x{block} | {precision} | {policy} | {'yes' if tail else 'no'}"
        lines.append(f"{place} | {shown} |")
    return "\n".join(lines)


def _arguments(arguments):
    parser = argparse.ArgumentParser(prog="paroattention bench fidelity", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=4, help="how many held-out prompts")
    parser.add_argument(
        "--exact-every", type=int, default=2, help="calibrate exact maps on every n-th step"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=1e9,
        help="time limit in seconds; cases after it are left out",
    )
    parser.add_argument("--policy", action="append", help="only these policies, such as auto")
    parser.add_argument("--density", action="append", type=float, help="only these densities")
    parser.add_argument("--tile", type=int, help="only with these tiles, such as 128")
    parser.add_argument("--precision", choices=("fp32", "int8"), help="only this precision")
    parser.add_argument("--tail", choices=("yes", "no"), help="only with the tail, or without")
    parser.add_argument("--quick", action="store_true", help="64x64, fp32, densities .3 and .2")
    parser.add_argument("--kernel", choices=("native", "torch"), default="native")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument(
        "--resume",
        type=Path,
        help="JSON file of an earlier run: keep its rows and run the cases that it left out",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = _arguments(arguments)
    started = time.perf_counter()
    bundle = Bundle(options.assets, options.device)
    held_out = HELD_OUT[: options.prompts]
    prompts, seeds = [p for p, _ in held_out], [s for _, s in held_out]
    todo, kept = _wanted(cases(options.quick), options), []
    if options.resume:
        todo, kept = _resume(options.resume, options.steps)
    # Exact maps are dear on a CPU: made where a case asks for them.
    tiles = sorted({case.block for case in todo if case.policy == "exact"})
    bench = Bench(bundle, prompts, seeds, options.steps, options.exact_every, tiles, options.kernel)
    print(f"calibrated in {bench.calibration_seconds:.1f} s", flush=True)
    left_out = []
    for number, case in enumerate(todo):
        if time.perf_counter() - started > options.limit:
            left_out.append(asdict(case))
            continue
        bench.run(case)
        if number % 16 == 15 or options.device == "cpu":
            print(f"{number + 1}/{len(todo)}: {time.perf_counter() - started:.0f} s", flush=True)
    rows = [*kept, *bench.rows()]
    if options.out:
        _write(options, bench, rows, left_out)
    print(table(rows))
    if left_out:
        print(f"time limit reached: {len(left_out)} cases were left out")
    return 0


def _wanted(all_cases: list[Case], options) -> list[Case]:
    """The cases that --policy, --density, --tile, --precision and --tail leave."""
    tails = {"yes": (True,), "no": (False,), None: (True, False)}[options.tail]
    return [
        case
        for case in all_cases
        if (not options.policy or case.policy in options.policy)
        and (not options.density or case.density in options.density)
        and options.tile in (None, case.block)
        and options.precision in (None, case.precision)
        and case.tail in tails
    ]


def _resume(path: Path, steps: int) -> tuple[list[Case], list[dict]]:
    """The cases that a file of an earlier run left out, and its rows."""
    before = json.loads(path.read_text())
    for name, now in (("calibration", list(CALIBRATION)), ("steps", steps)):
        if before[name] != now:
            raise SystemExit(f"--resume: {path} must have {name} {now} (got {before[name]})")
    return [Case(**case) for case in before["left_out"]], before["runs"]


def _write(options, bench, rows, left_out):
    profile = bench.calibration.profiles["profile"]
    meta = {
        "date": time.strftime("%Y-%m-%d"),
        "version": _core.__version__,
        "isa": _core.active_isa(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": _device_name(options.device),
        "steps": options.steps,
        "calibration": list(CALIBRATION),
        "profile_bytes": len(profile.dump()),
        "left_out": left_out,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = json.dumps(meta, indent=1)[:-2]
    options.out.write_text(f'{head},\n "runs": [\n{lines}\n]}}\n')
    options.out.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")
