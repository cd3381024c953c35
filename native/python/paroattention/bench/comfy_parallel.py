"""`bench comfy-parallel`: the real ComfyUI's Wan over several GPUs by Ulysses, dense and ours.

Each process has the whole model and samples the same noise. Its blocks compute some of the tokens:
the first block cuts them, the last one gathers them again, and attention in between is
parallel.ulysses. Patches of ComfyUI's own kinds do that; its code stays as it is. Weights are
random. On CPUs (--device cpu, gloo) it shows that the parts fit together, not speed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _core
from ..heads import Heads
from ..kernels.cuda import preferred_tile
from ..layout import TokenLayout
from ..parallel.dealing import even
from ..parallel.ranks import Ranks
from ..parallel.ulysses import Ulysses, token_counts
from ..run.session import Session
from ..settings import Settings
from . import processes
from .attention import _commit, _write
from .comfy_host import MODELS, random_wan, start

_TIMEOUT = 600.0
KEY = "paro-bench-parallel"


@dataclass(frozen=True)
class Work:
    """What every process samples. densities: None is dense. latents: a folder for the results."""

    model: str
    densities: list
    steps: int
    watched: int
    cfg: float
    device: str
    comfyui: str | None
    latents: str | None


class Sharded:
    """Wan's blocks on one rank. engine: None for one process. settings: None for dense."""

    def __init__(self, size, engine: Ulysses | None, settings: Settings | None):
        self.engine, self._settings = engine, settings
        self.layout = TokenLayout(size.grid)
        self.session: Session | None = None
        self.summary: dict = {}
        ranks = engine.ranks if engine else None
        self._tokens = token_counts(self.layout.length, ranks.size if ranks else 1)
        rank = ranks.rank if ranks else 0
        first = sum(self._tokens[:rank])
        self._own = slice(first, first + self._tokens[rank])
        self._layers, self._forward = size.layers, None

    def apply(self, patcher):
        """A clone of a ComfyUI model with the patches."""
        from comfy.patcher_extension import WrappersMP

        model = patcher.clone()
        options = model.model_options.setdefault("transformer_options", {})
        options["optimized_attention_override"] = self._attention
        for number in range(self._layers) if self.engine else ():
            model.set_model_patch_replace(self._block(number), "dit", "double_block", number)
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self._outer_sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._apply_model)
        return model

    def _outer_sample(self, executor, *args, **kwargs):
        sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
        if self._settings is None:
            return executor(*args, **kwargs)
        ranks = self.engine.ranks if self.engine else None
        self.session = Session(self._settings, [float(one) for one in sigmas], ranks=ranks)
        ok = False
        try:
            found = executor(*args, **kwargs)
            ok = True
            return found
        finally:
            self.summary = self.session.finish(ok)

    def _apply_model(self, executor, x, t, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[3]
        if self.session is not None:
            conds = tuple(options.get("cond_or_uncond", (0,)))
            self._forward = self.session.begin_forward(float(t.max()), conds=conds)
        return executor(x, t, *args, **kwargs)

    def _block(self, number: int):
        last = number == self._layers - 1

        def block(args, extra):
            img = args["img"][:, self._own] if number == 0 else args["img"]
            given = {**args, "img": img, "pe": args["pe"][:, self._own]}
            img = extra["original_block"](given)["img"]
            return {"img": self.engine.whole(img, self._tokens) if last else img}

        return block

    def _attention(self, func, q, k, v, heads, *args, **kwargs):
        if q.shape != k.shape or q.shape[1] != self._own.stop - self._own.start:
            return func(q, k, v, heads, *args, **kwargs)
        batch, length, width = q.shape
        shape = (batch, length, heads, width // heads)
        parts = [x.view(shape).transpose(1, 2) for x in (q, k, v)]

        def dense(q, k, v):
            own = {**kwargs, "skip_reshape": True, "skip_output_reshape": True}
            return func(q, k, v, q.shape[1], *args, **own)

        out = self._whole_attention(kwargs["transformer_options"], parts, dense)
        return out.transpose(1, 2).reshape(batch, length, width)

    def _whole_attention(self, options: dict, parts: list, dense):
        """(B, H, own tokens, D) of the layer's attention over all tokens."""
        session, engine, layout = self.session, self.engine, self.layout
        if session is None:
            if engine is None:
                return dense(*parts)
            dealing = even(parts[0].shape[1], engine.ranks.size)
            own = engine.heads_here(torch.cat(parts), dealing, self._tokens)
            out = dense(*own.split(parts[0].shape[0]))
            return engine.tokens_here(out, dealing, self._tokens)
        layer = self._forward.layer_id(options["block_type"], options["block_index"])
        if engine is not None:
            return engine.attention(session, self._forward, layer, *parts, layout, dense)
        every = Heads.all_of(parts[0].shape[1])
        given = (*parts, layout, lambda: dense(*parts))
        return session.attention(self._forward, layer, *given, heads=every)[0]


def sample(model, size, steps: int, cfg: float) -> tuple[torch.Tensor, list[float]]:
    """(latent, seconds by step) of one KSampler run."""
    import comfy.sample

    frames, height, width = size.grid
    latent = torch.zeros(1, 16, frames, 2 * height, 2 * width)
    draw = torch.Generator().manual_seed(3)
    texts = [[[torch.randn(1, 512, 4096, generator=draw), {}]] for _ in range(2)]
    noise, marks = comfy.sample.prepare_noise(latent, 1), []

    def callback(*_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    begin = time.perf_counter()
    given = (steps, cfg, "euler", "simple", *texts, latent)
    found = comfy.sample.sample(model, noise, *given, callback=callback, disable_pbar=True, seed=1)
    return found, [b - a for a, b in zip([begin, *marks], marks, strict=False)]


def _collectives(engine: Ulysses | None) -> float:
    """Seconds in all-to-alls; waits for the device. Begins anew."""
    if engine is None:
        return 0.0
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    spans = sum(begin.elapsed_time(end) for begin, end in engine.events) * 1e-3
    found, engine.seconds = engine.seconds + spans, 0.0
    engine.events.clear()
    return found


def rows(work: Work, rank: int, count: int):
    """One row a density, on every rank; see processes.rows_of."""
    start(work.comfyui)
    with torch.inference_mode():
        yield from _rows(work, rank, count)


def _rows(work: Work, rank: int, count: int):
    size = MODELS[work.model]
    patcher = random_wan(size)
    tile = preferred_tile(work.device)
    for density in work.densities:
        ranks = Ranks(timeout=_TIMEOUT) if count > 1 else None
        engine = Ulysses(ranks) if ranks else None
        if engine is not None:
            engine.timed = True
        given = {"observe_steps": work.watched, "block_q": tile, "block_kv": tile}
        settings = None if density is None else Settings(density=density, **given)
        sharded = Sharded(size, engine, settings)
        latent, seconds = sample(sharded.apply(patcher), size, work.steps, work.cfg)
        exchanged = _collectives(engine)
        if work.latents and rank == 0:
            Path(work.latents).mkdir(parents=True, exist_ok=True)
            torch.save(latent, Path(work.latents, f"{count}-{density}.pt"))
        yield {
            "model": work.model,
            "gpus": count,
            "name": "dense" if density is None else "paro",
            "density_asked": density or 1.0,
            "density": sharded.summary.get("density", 1.0),
            "paths": sharded.summary.get("paths", {}),
            "reasons": sharded.summary.get("reasons", {}),
            "s_it": round(statistics.median(seconds[work.watched + 1 :] or seconds), 4),
            "step_s": [round(one, 3) for one in seconds],
            "all_to_all_s": round(exchanged, 4),
            "told_s": round(ranks.seconds, 4) if ranks else 0.0,
        }


def _line(row: dict) -> str:
    return (
        f"{row['model']:12} {row['gpus']} x {row['name']:5} {row['density_asked']:4}"
        f" {row['s_it']:8.3f} s/it, all-to-all {row['all_to_all_s']:.3f} s,"
        f" told {row['told_s']:.3f} s, {row['paths']}"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench comfy-parallel", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="wan14b-720p")
    parser.add_argument("--gpus", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--density", type=float, action="append", help="default: .3 and .2")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--watched", type=int, default=2, help="first steps that are watched")
    parser.add_argument("--cfg", type=float, default=1.0, help="1: one evaluation a step")
    parser.add_argument("--comfyui", help="ComfyUI's folder; default: $COMFYUI_DIR")
    parser.add_argument("--latents", help="folder for the sampled latents")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    counts, cuda = options.gpus or [1, 2], options.device == "cuda"
    if cuda:
        processes.require_gpus(max(counts))
    if math.prod(MODELS[options.model].grid) // max(counts) == 512:
        raise _core.Error("--gpus must not leave each rank as many tokens as the text has (512)")
    densities = [None, *(options.density or [0.3, 0.2])]
    given = options.steps, options.watched, options.cfg, options.device
    work = Work(options.model, densities, *given, options.comfyui, options.latents)
    about = {"commit": _commit(), "device": options.device}
    if cuda:
        about["device"] = torch.cuda.get_device_name()
    found = []
    for count in counts:
        given = {"cuda": cuda, "seconds": _TIMEOUT, "line": _line}
        found += processes.rows_of(count, rows, work, **given)
        _write(options.out, about, found)
    return 0
