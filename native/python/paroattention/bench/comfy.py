"""`bench comfy`: seconds a step in the real ComfyUI, dense and ours, with Wan at full size.

Weights are random: speed and memory do not depend on them, quality is measured elsewhere. Every
variant is a KSampler run with CFG in this process; steps are timed between the sampler's callbacks
with the GPU idle at each, self-attention by CUDA events around ComfyUI's own call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..settings import DENSE_STEPS, MASKS
from .attention import _commit, _write
from .comfy_host import MODELS, plugin, random_wan, start
from .step_trace import StepTrace, longest, pauses, shares

PEERS = ("kitchen-int8",)
# The profile that a calibration saves.
CALIBRATED = "exact"


@dataclass
class Clock:
    """Times of one run: a mark a step, and self-attention inside; and what came out."""

    length: int
    latent: torch.Tensor | None = None
    marks: list[float] = field(default_factory=list)
    attention: list[float] = field(default_factory=list)
    _spans: list = field(default_factory=list)

    def mark(self) -> None:
        """The end of a step (first call: the start of the run)."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        if len(self.marks) > 1:
            self.attention.append(sum(_seconds(*span) for span in self._spans))
        self._spans.clear()

    def steps(self) -> list[float]:
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]

    @contextlib.contextmanager
    def around_attention(self):
        """While open, Wan's self-attention calls are timed where ComfyUI makes them."""
        import comfy.ldm.wan.model as wan

        host = wan.optimized_attention

        def timed(q, k, *args, **kwargs):
            if q.shape[1] != self.length or k.shape[1] != self.length:
                return host(q, k, *args, **kwargs)
            begin = _now()
            out = host(q, k, *args, **kwargs)
            self._spans.append((begin, _now()))
            return out

        wan.optimized_attention = timed
        try:
            yield
        finally:
            wan.optimized_attention = host


def _now():
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(begin, end) -> float:
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) * 1e-3


def sample(model, size, steps: int, trace: StepTrace | None = None, traced: int = 0):
    """One KSampler run (euler, simple, CFG 6, one positive and one negative text of 512 tokens).

    traced: further steps, after the clock's, that the trace looks at. Returns the run's Clock and
    its peak of GPU memory in GB.
    """
    import comfy.sample

    frames, height, width = size.grid
    clock = Clock(frames * height * width)
    latent = torch.zeros(1, 16, frames, 2 * height, 2 * width)
    draw = torch.Generator().manual_seed(3)
    texts = [[[torch.randn(1, 512, 4096, generator=draw), {}]] for _ in range(2)]
    noise = comfy.sample.prepare_noise(latent, 1)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()

    def callback(step, *_):
        if step < steps:
            clock.mark()
        if traced and step + 1 == steps:
            trace.start()
        elif traced and step + 1 == steps + traced:
            torch.cuda.synchronize()
            trace.stop()

    def begin(executor, *args, **kwargs):
        # The first evaluation, when the model is loaded: loading is not a step.
        if not clock.marks:
            clock.mark()
        return executor(*args, **kwargs)

    from comfy.patcher_extension import WrappersMP

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "paro_bench", begin)
    with clock.around_attention():
        clock.latent = comfy.sample.sample(
            model,
            noise,
            steps + traced,
            6.0,
            "euler",
            "simple",
            *texts,
            latent,
            callback=callback,
            disable_pbar=True,
            seed=1,
        )
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return clock, peak


def with_peer(model, name: str):
    """The model with comfy-kitchen's attention for its self-attention. ImportError without it."""
    if name != "kitchen-int8":
        raise ValueError(f"name must be one of {PEERS} (got {name!r})")
    from comfy_kitchen.sage_attention import int8_attention

    def override(host, q, k, v, heads, *args, **kwargs):
        if q.shape[1] != k.shape[1] or kwargs.get("skip_reshape"):
            return host(q, k, v, heads, *args, **kwargs)
        split = [x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v)]
        out = int8_attention(*split)
        return out.transpose(1, 2).reshape(q.shape)

    clone = model.clone()
    options = clone.model_options.setdefault("transformer_options", {})
    options["optimized_attention_override"] = override
    return clone


def _last_summary() -> dict:
    import folder_paths

    log = Path(folder_paths.get_output_directory()) / "paro" / "runlog.jsonl"
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


def _row(options, size, name, clock, peak, **more) -> dict:
    """Medians by kind of step: the first `observed` ones, then the rest without the first of each
    kind, which loads, compiles or plans."""
    steps, watched = clock.steps(), more.get("observed", 0)
    later = steps[watched + 1 :] or steps[-1:]
    attention = clock.attention[watched + 1 :] or clock.attention[-1:]
    per_step = statistics.median(later)
    row = {
        "model": options.model,
        "grid": list(size.grid),
        "name": name,
        "steps": len(steps),
        "s_it": round(per_step, 4),
        "s_it_mean": round(statistics.mean(later), 4),
        "attention_s_it": round(statistics.median(attention), 4),
        "run_s": round(sum(steps), 3),
        "step_s": [round(x, 3) for x in steps],
        "peak_gb": round(peak, 3),
        **more,
    }
    if watched:
        dense = steps[1:watched] or steps[:1]
        row["s_it_observed"] = round(statistics.median(dense), 4)
        row["s_it_first_sparse"] = round(steps[watched], 4) if len(steps) > watched else None
        row["run_20_steps_4_observed_s"] = round(
            4 * row["s_it_observed"] + 16 * per_step + max(0, steps[watched] - per_step), 2
        )
    return row


# What runs of ours are called: by their profile, and whether they watch.
_NAMES = {"none": "paro-watching", CALIBRATED: "paro-exact"}


def _paro_row(options, size, nodes, model, density, profile, mask, *, whole: int = 0) -> dict:
    """One run of ours. profile: none observes in this run, else one that was saved before. whole:
    a run of so many steps as a user has it, watching its first ones in any case."""
    watched = options.observe if profile == "none" or whole else 0
    ours = nodes.PAROAttention.execute(
        model=model,
        profile=profile,
        density=density,
        precision=options.precision,
        mask=mask,
        tail=not options.no_tail,
        start_percent=0.0,
        end_percent=1.0,
        observe_steps=options.observe,
        save_as="bench" if profile == "none" else "",
        dense_steps=options.dense_attention,
        watch="always" if whole else "if needed",
    ).result[0]
    steps, trace = whole or watched + options.steps, StepTrace()
    clock, peak = sample(ours, size, steps, trace, options.trace)
    told, more = _last_summary(), {}
    if trace.events:
        more["traced"] = shares(trace.events, trace.seconds, options.trace)
        _tell_trace(trace.events, options.trace)
    return _row(
        options,
        size,
        _NAMES.get(profile, "paro") + ("-run" if whole else ""),
        clock,
        peak,
        density_asked=density,
        density=round(told["density"], 4),
        density_total=round(told["density_total"], 4),
        precision=told["precision"],
        dense_calls=told["dense_calls"],
        dense_error=told["dense_error"],
        mask=told["mask"],
        tail=told["tail"],
        observed=watched,
        observe_s=round(told["observe_seconds"], 4),
        plan_s=round(told["plan_seconds"], 4),
        tile=f"{told['block_q']}x{told['block_kv']}",
        profile=told["profile"],
        paths=told["paths"],
        reasons=told["reasons"],
        **more,
    )


def _calibration_row(options, size, nodes, model) -> dict:
    """A calibration with exact maps; s/it is the mean, since its steps take turns at summing."""
    ours = nodes.PAROCalibrate.execute(
        model=model, name=CALIBRATED, queries=64, every_n_steps=1, exact=True
    ).result[0]
    clock, peak = sample(ours, size, options.steps)
    saved = time.perf_counter() - clock.marks[-1]
    told = _last_summary()
    return _row(options, size, "calibrate-exact", clock, peak) | {
        "s_it": round(statistics.mean(clock.steps()), 4),
        "density_asked": 1.0,
        "save_s": round(saved, 3),
        "observe_s": round(told["observe_seconds"], 4),
        "paths": told["paths"],
        "reasons": told["reasons"],
    }


def rows(options):
    """Rows one by one, dense first."""
    size = MODELS[options.model]
    start(options.comfyui)
    nodes = plugin(options.plugin)
    with torch.inference_mode():
        model = random_wan(size)
        clock, peak = sample(model, size, 1 + options.dense_steps)
        yield _row(options, size, "dense", clock, peak, density_asked=1.0, precision="dense")
        for name in PEERS if options.peers else ():
            try:
                clock, peak = sample(with_peer(model, name), size, options.steps)
            except (ImportError, RuntimeError) as reason:
                print(f"{name}: {str(reason).splitlines()[0][:200]}")
                continue
            yield _row(options, size, name, clock, peak, density_asked=1.0, precision="int8")
        densities = options.density or (0.3, 0.2, 0.5, 1.0)
        if options.whole:
            yield from _whole_runs(options, size, nodes, model, densities)
            return
        # The run that watches itself pays for that; the others begin with what it saved.
        masks = options.mask or MASKS[:1]
        yield _paro_row(options, size, nodes, model, densities[0], "none", masks[0])
        for mask in masks:
            for density in densities if mask == masks[0] else densities[:1]:
                yield _paro_row(options, size, nodes, model, density, "bench", mask)
        if options.calibrate:
            yield _calibration_row(options, size, nodes, model)
            yield _paro_row(options, size, nodes, model, densities[0], CALIBRATED, masks[0])


def _whole_runs(options, size, nodes, model, densities):
    """Runs as a user has them: the first one at each density, and a second one with its profile."""
    mask, whole = (options.mask or MASKS[:1])[0], options.whole
    for density in densities:
        yield _paro_row(options, size, nodes, model, density, "none", mask, whole=whole)
        if options.second:
            yield _paro_row(options, size, nodes, model, density, "bench", mask, whole=whole)


def _tell_trace(events: list, steps: int) -> None:
    for name, calls, seconds in longest(events):
        print(f"  {1e3 * seconds / steps:9.2f} ms a step, {calls:5} calls: {name[:90]}")
    for when, seconds, before, after in pauses(events)[:12]:
        print(f"  {1e3 * seconds:9.2f} ms idle at {when:.3f} s: {before[:40]} | {after[:40]}")


def _tell(row: dict, dense: dict) -> None:
    row["speedup"] = round(dense["s_it"] / row["s_it"], 3)
    # The dense run's own time where it had as many steps, else that many of its steps.
    steps = row["steps"]
    row["run_dense_is"] = "measured" if dense["steps"] == steps else "a sum of measured steps"
    whole = dense["run_s"] if dense["steps"] == steps else steps * dense["s_it_mean"]
    row["run_dense_s"] = round(whole, 3)
    row["run_speedup"] = round(whole / row["run_s"], 3)
    row["peak_ratio"] = round(row["peak_gb"] / dense["peak_gb"], 4) if dense["peak_gb"] else None
    print(
        f"{row['name']:17} density {row['density_asked']:4} {row['s_it']:9.4f} s/it"
        f" (attention {row['attention_s_it']:.4f}) {row['speedup']:6.2f}x,"
        f" run {row['run_s']:.1f} s {row['run_speedup']:.2f}x"
        f" peak {row['peak_gb']:.2f} GB {row.get('reasons') or ''}",
        flush=True,
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench comfy", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="wan1.3b-480p")
    parser.add_argument("--comfyui", help="ComfyUI's folder (default $COMFYUI_DIR)")
    parser.add_argument("--plugin", help="the plugin's folder (default: the current one)")
    parser.add_argument("--density", type=float, action="append")
    parser.add_argument("--precision", choices=("int8", "bf16"), default="int8")
    parser.add_argument(
        "--mask",
        choices=MASKS,
        action="append",
        help="default: static; a second one is timed at the first density only",
    )
    parser.add_argument("--no-tail", action="store_true")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each variant")
    parser.add_argument("--dense-steps", type=int, default=2, help="timed steps of the dense run")
    parser.add_argument(
        "--observe", type=int, default=2, help="observed steps of runs without a profile"
    )
    parser.add_argument(
        "--whole",
        type=int,
        default=0,
        help="instead, runs of so many steps that watch their first ones, as a user has them",
    )
    parser.add_argument(
        "--second", action="store_true", help="with --whole: each run again, with its profile"
    )
    parser.add_argument(
        "--dense-attention",
        choices=DENSE_STEPS,
        default=DENSE_STEPS[0],
        help="what computes watched steps",
    )
    parser.add_argument("--calibrate", action="store_true", help="also time an exact calibration")
    parser.add_argument(
        "--trace",
        type=int,
        default=0,
        help="further sparse steps, with the time of each GPU kernel",
    )
    parser.add_argument(
        "--peers", action="store_true", help="also time comfy-kitchen's int8 attention"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    if options.trace and not torch.cuda.is_available():
        parser.error("--trace must run on a CUDA GPU (torch found none)")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found: list[dict] = []
    for row in rows(options):
        found.append(row)
        _tell(row, found[0])
        # Each time: a run that is cut short keeps its rows.
        _write(options.out, {"commit": _commit(), "device": device}, found)
    return 0
