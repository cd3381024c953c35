"""`bench caches`: ComfyUI's EasyCache and LazyCache, ours, and both, on the bundled model.

Each row is a KSampler run (euler, simple, shift 3, CFG 1) in the real ComfyUI, beside the dense run
of the same prompt and seed. Prompts and seeds were held out from the model's training.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

import torch

from .. import metrics
from .attention import _commit, _write
from .bundled import Bundle
from .comfy import _last_summary
from .comfy_host import plugin, start
from .fidelity import HELD_OUT, _device_name

CACHES = ("none", "EasyCache", "LazyCache")
# What the cache's nodes begin with, but for the threshold.
_RANGE = {"start_percent": 0.15, "end_percent": 0.95, "verbose": False}


class Host:
    """ComfyUI with the bundled model, and ours beside its cache nodes."""

    def __init__(self, options):
        start(options.comfyui)
        self.ours = plugin(options.plugin).PAROAttention
        import nodes

        asyncio.run(nodes.init_builtin_extra_nodes())
        import comfy.sd

        self._kinds, self.steps = nodes.NODE_CLASS_MAPPINGS, options.steps
        self.bundle = Bundle(options.assets, "cpu")
        weights = options.assets / "paro-wan-tiny.safetensors"
        self.plain = comfy.sd.load_diffusion_model(str(weights))
        self.plain = _copying(self.node("ModelSamplingSD3", model=self.plain, shift=3.0))

    def node(self, name: str, **inputs):
        """The first output of one of ComfyUI's own nodes."""
        kind = self._kinds[name]
        if hasattr(kind, "define_schema"):
            return kind.EXECUTE_NORMALIZED(**inputs).result[0]
        return getattr(kind(), kind.FUNCTION)(**inputs)[0]

    def model(self, cache: str, threshold: float, density: float | None):
        """The model behind these nodes. density: ours at this one, else without it."""
        model = self.plain
        if density is not None:
            model = self.ours.execute(
                model=model, profile="none", density=density, precision="int8", mask="static",
                tail=True, start_percent=0.0, end_percent=1.0, observe_steps=4, save_as="",
            ).result[0]  # fmt: skip
        if cache != CACHES[0]:
            model = self.node(cache, model=model, reuse_threshold=threshold, **_RANGE)
        return model

    def sample(self, model, prompt: str, seed: int):
        """(pixels, seconds) of one run."""
        import comfy.sample

        latent = torch.zeros(1, *self.bundle.wan.LATENT_SHAPE)
        noise = self.bundle.wan.make_noise(seed)
        text = [[self.bundle.extras.context(prompt), {}]]
        begin = time.perf_counter()
        out = comfy.sample.sample(
            model, noise, self.steps, 1.0, "euler", "simple", text, text, latent,
            disable_pbar=True, seed=seed,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        return self.bundle.decode(model.model.latent_format.process_in(out))[0].numpy(), seconds


def _copying(model):
    """The model whose caches get a copy of the latent. EasyCache adds to what it is given; where
    the model computes in float32, as on a CPU, that is the latent that ComfyUI goes on with."""
    from comfy.patcher_extension import WrappersMP

    def copy(executor, x, *args, **kwargs):
        return executor(x.clone(), *args, **kwargs)

    clone = model.clone()
    # The first wrapper of a kind is the outermost.
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "paro_bench_copy", copy)
    return clone


def _noting(model, computed: list[float]):
    """The model with a note of the sigma of every evaluation that a cache lets through."""
    from comfy.patcher_extension import WrappersMP

    def note(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[-1]
        computed.append(float(options["sigmas"][0]))
        return executor(*args, **kwargs)

    clone = model.clone()
    # The last wrapper of a kind is the innermost: a cache that skips does not come to it.
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "paro_bench", note)
    return clone


def combinations(options) -> list[tuple[str, float, float | None]]:
    """(cache, its threshold, our density or None), but for the dense run."""
    densities, thresholds = options.density or [0.3], options.threshold or [0.2]
    alone = [(CACHES[0], 0.0, density) for density in densities]
    return alone + [
        (cache, threshold, density)
        for cache in CACHES[1:]
        for threshold in thresholds
        for density in (None, *densities)
    ]


def rows(options):
    """Rows one by one, a prompt at a time."""
    host = Host(options)
    with torch.inference_mode():
        host.sample(host.plain, *HELD_OUT[0])  # loads
        for prompt, seed in HELD_OUT[: options.prompts]:
            dense, dense_seconds = host.sample(host.plain, prompt, seed)
            for cache, threshold, density in combinations(options):
                computed: list[float] = []
                model = _noting(host.model(cache, threshold, density), computed)
                pixels, seconds = host.sample(model, prompt, seed)
                yield {
                    "cache": cache,
                    "threshold": threshold,
                    "density_asked": density,
                    "steps": host.steps,
                    "computed": len(set(computed)),
                    "prompt": prompt,
                    "seed": seed,
                    "psnr_db": round(metrics.psnr(dense, pixels), 3),
                    "run_s": round(seconds, 3),
                    "run_dense_s": round(dense_seconds, 3),
                    "run_speedup": round(dense_seconds / seconds, 3),
                    **_told(density),
                }


def _told(density: float | None) -> dict:
    """What ours tells of the run that is over."""
    if density is None:
        return {}
    told = _last_summary()
    kept = ("density", "density_total", "paths", "dense_calls", "renewals", "reasons")
    return {key: told[key] for key in kept}


def table(found: list[dict]) -> str:
    """Markdown: a line a combination, means over prompts."""
    lines = [
        "| cache | threshold | ours | steps computed | PSNR, dB | by prompt |",
        "|" + "---|" * 6,
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        name = row["cache"], row["threshold"], row["density_asked"]
        groups.setdefault(name, []).append(row)
    for (cache, threshold, density), own in groups.items():
        psnr = [row["psnr_db"] for row in own]
        computed = sum(row["computed"] for row in own) / len(own)
        each = ", ".join(f"{value:.1f}" for value in psnr)
        lines.append(
            f"| {cache} | {threshold or '–'} | {density or 'no'}"
            f" | {computed:.1f} of {own[0]['steps']} | {sum(psnr) / len(psnr):.2f} | {each} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench caches", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument("--comfyui", help="ComfyUI's folder (default $COMFYUI_DIR)")
    parser.add_argument("--plugin", help="the plugin's folder (default: the current one)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=len(HELD_OUT))
    parser.add_argument("--density", type=float, action="append", help="default: 0.3")
    parser.add_argument("--threshold", type=float, action="append", help="default: 0.2")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    device = _device_name("cuda" if torch.cuda.is_available() else "cpu")
    found: list[dict] = []
    for row in rows(options):
        found.append(row)
        # Each time: a run that is cut short keeps its rows.
        _write(options.out, {"commit": _commit(), "device": device}, found)
    print(table(found))
    return 0
