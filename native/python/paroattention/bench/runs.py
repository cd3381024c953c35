"""`bench runs`: whole runs on the bundled model, as users have them, against dense ones.

A first run watches its own first steps. A second one also goes by the profile that a run of another
prompt has saved. An unwatched one goes by that profile alone and is sparse from its first step.
Prompts and seeds were held out from the model's training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from .. import _core, metrics
from ..limits import TILES
from ..run.session import Session
from ..settings import DENSE_STEPS, ModelInfo, Settings
from .attention import _commit
from .bundled import Bundle
from .fidelity import CALIBRATION, HELD_OUT, _device_name, sample

FIRST, SECOND, UNWATCHED = "first", "second", "unwatched"
# As the node does: runs of up to so many steps watch one of them.
FEW_STEPS, FEW_WATCHED, WATCHED = 8, 1, 4


class Runs:
    """Of one number of steps. Dense results are made once a prompt."""

    def __init__(self, bundle: Bundle, steps: int):
        self.bundle, self.steps = bundle, steps
        self._sigmas = [float(sigma) for sigma in bundle.wan.simple_sigmas(steps)]
        self._dense: dict = {}

    def row(self, settings: Settings, name: str, prompt: str, seed: int, known=None) -> dict:
        """One run beside its dense one. known: a profile that is found."""
        if (prompt, seed) not in self._dense:
            pixels, seconds = sample(self.bundle, [prompt], [seed], self.steps)
            self._dense[prompt, seed] = pixels[0].numpy(), seconds
        dense, dense_seconds = self._dense[prompt, seed]
        session = self._session(settings, seed, known)
        pixels, seconds = sample(self.bundle, [prompt], [seed], self.steps, session)
        told = session.finish()
        return {
            "name": name,
            "steps": self.steps,
            "watched": 0 if name == UNWATCHED else settings.observe_steps,
            "dense_steps": settings.dense_steps,
            "tile": settings.block_q,
            "density_asked": settings.density,
            "density": round(told["density"], 4),
            "density_total": round(told["density_total"], 4),
            "prompt": prompt,
            "seed": seed,
            "psnr_db": round(metrics.psnr(dense, pixels[0].numpy()), 3),
            "measured_error": told["measured_error"] and round(told["measured_error"], 5),
            "run_s": round(seconds, 3),
            "run_dense_s": round(dense_seconds, 3),
            "paths": told["paths"],
            "dense_calls": told["dense_calls"],
            "reasons": told["reasons"],
        }

    def learn(self, settings: Settings, prompt: str, seed: int) -> _core.Profile:
        """What a first run of this prompt saves."""
        saved: list[_core.Profile] = []
        session = self._session(settings, seed, None, lambda profile, _: saved.append(profile))
        sample(self.bundle, [prompt], [seed], self.steps, session)
        session.finish()
        return saved[-1]

    def _session(self, settings: Settings, seed: int, known, save=None) -> Session:
        find = None if known is None else lambda grid: (known, "of another prompt")
        given = {"model": ModelInfo("wan2.1"), "seed": seed}
        return Session(settings, self._sigmas, find_profile=find, save_profile=save, **given)


def rows(options):
    """Rows one by one."""
    runs = Runs(Bundle(options.assets, options.device), options.steps)
    usual = FEW_WATCHED if options.steps <= FEW_STEPS else WATCHED
    for tile, watched in itertools.product(options.tile or TILES, options.watched or [usual]):
        base = Settings(
            observe_steps=watched, dense_steps=options.dense_steps, block_q=tile, block_kv=tile
        )
        known = runs.learn(base, *CALIBRATION)
        for density in options.density or (0.5, 0.3, 0.2):
            settings = replace(base, density=density)
            alone = replace(settings, watch="if needed")
            for prompt, seed in HELD_OUT[: options.prompts]:
                yield runs.row(settings, FIRST, prompt, seed)
                yield runs.row(settings, SECOND, prompt, seed, known)
                if watched == usual:
                    yield runs.row(alone, UNWATCHED, prompt, seed, known)


def table(found: list[dict]) -> str:
    """Markdown: a line for each kind of run, tile, watched steps and density; means of prompts."""
    lines = ["| run | steps | watched | tile | asked | ran | PSNR, dB | by prompt |"]
    lines.append("|" + "---|" * 8)
    keys = ("steps", "tile", "watched", "density_asked", "name")
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    for (steps, tile, watched, asked, name), own in groups.items():
        psnr = [row["psnr_db"] for row in own]
        ran = sum(row["density"] for row in own) / len(own)
        each = ", ".join(f"{value:.1f}" for value in psnr)
        lines.append(
            f"| {name} | {steps} | {watched} | {tile} | {asked} | {ran:.4f}"
            f" | {sum(psnr) / len(psnr):.2f} | {each} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench runs", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=len(HELD_OUT))
    parser.add_argument("--density", type=float, action="append")
    parser.add_argument("--tile", type=int, choices=TILES, action="append")
    parser.add_argument("--watched", type=int, action="append", help="default: the node's")
    parser.add_argument("--dense-steps", choices=DENSE_STEPS, default=DENSE_STEPS[0])
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    found = []
    for row in rows(options):
        found.append(row)
        if options.out:
            # Each time: a run that is cut short keeps its rows.
            _write(options, found)
    print(table(found))
    return 0


def _write(options, found: list[dict]) -> None:
    device = _device_name(options.device)
    meta = {"commit": _commit(), "date": time.strftime("%Y-%m-%d"), "device": device}
    meta |= {"torch": torch.__version__, "profile_of": list(CALIBRATION)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in found)
    options.out.write_text(f'{json.dumps(meta, indent=1)[:-2]},\n "rows": [\n{lines}\n]}}\n')
