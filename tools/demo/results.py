"""From frames and the run log to the rows of report.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paroattention import metrics

DENSE_PATHS = ("dense", "observe")
# Ends the names of rows of the second prompt.
SECOND = " (2)"
RUN_KEYS = (
    "name",
    "policy",
    "density",
    "density_total",
    "precision",
    "tail",
    "mask",
    "dense_steps",
    "block_q",
    "block_kv",
    "prompt",
    "seed",
    "psnr_db",
    "ssim",
    "flicker",
    "seconds",
    "attention_seconds",
)


class ResultError(Exception):
    """A run that did not do what it should have: the report may not pretend otherwise."""


@dataclass
class Run:
    """One sampling run: what was asked, what came out."""

    name: str
    title: str
    policy: str
    prompt: str
    seed: int
    seconds: float
    frames: np.ndarray
    log: list[dict]

    @property
    def summary(self) -> dict:
        ends = [line for line in self.log if line.get("end")]
        if len(ends) != 1:
            raise ResultError(
                f"{self.name}: the run log has {len(ends)} closing lines instead of one"
            )
        return ends[0]


def unit(frames: np.ndarray) -> np.ndarray:
    """Decoded pixels, clipped to [-1, 1], as the metrics want them: in [0, 1]."""
    return (np.clip(frames, -1.0, 1.0) + 1.0) / 2.0


def read_log(path: Path, start: int = 0) -> tuple[list[dict], int]:
    """The lines from an offset on, and the offset behind them."""
    if not path.is_file():
        return [], start
    data = path.read_bytes()
    lines = []
    for text in data[start:].splitlines():
        if text.strip():
            lines.append(json.loads(text))
    return lines, len(data)


def check_frames(name: str, frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ResultError(f"{name}: frames must be (frames, height, width, 3), not {frames.shape}")
    bad = int(frames.size - np.isfinite(frames).sum())
    if bad:
        raise ResultError(f"{name}: {bad} of {frames.size} values are not finite")
    if float(np.ptp(frames)) == 0.0:
        raise ResultError(f"{name}: all pixels are equal")


def dense_steps(log: list[dict]) -> int:
    """Steps in which no layer was sparse."""
    paths: dict[int, set[str]] = {}
    for line in log:
        if "step" in line and "path" in line:
            paths.setdefault(line["step"], set()).add(line["path"])
    return sum(1 for taken in paths.values() if taken <= set(DENSE_PATHS))


def check_sparse(run: Run, first_dense: int) -> None:
    """A sparse run was sparse in every step after the dense ones, and nowhere fell back."""
    counted = dense_steps(run.log)
    if counted != first_dense:
        raise ResultError(f"{run.name}: {counted} dense steps, not {first_dense}")
    reasons = {
        line["reason"] or "no reason given"
        for line in run.log
        if "step" in line
        and (
            line["path"] == "fallback" or (line["path"] == "dense" and line["step"] >= first_dense)
        )
    }
    if reasons:
        raise ResultError(
            f"{run.name}: parts of the run stayed dense: {'; '.join(sorted(reasons))}"
        )


def dense_row(run: Run, steps: int, precision: str, attention_seconds: float | None) -> dict:
    row = dict.fromkeys(RUN_KEYS)
    row |= {
        "name": run.name,
        "policy": run.policy,
        "density": 1.0,
        "density_total": 1.0,
        "precision": precision,
        "tail": False,
        "dense_steps": steps,
        "prompt": run.prompt,
        "seed": run.seed,
        "ssim": 1.0,
        "flicker": 1.0,
        "seconds": run.seconds,
        "attention_seconds": attention_seconds,
    }
    return row


def sparse_row(run: Run, dense: Run) -> dict:
    end = run.summary
    frames, reference = unit(run.frames), unit(dense.frames)
    psnr = metrics.psnr(reference, frames)
    row = {
        "name": run.name,
        "policy": run.policy,
        "dense_steps": dense_steps(run.log),
        "prompt": run.prompt,
        "seed": run.seed,
        "psnr_db": psnr if math.isfinite(psnr) else None,  # None: equal to the last bit
        "ssim": metrics.ssim(reference, frames),
        "flicker": metrics.flicker(reference, frames),
        "seconds": run.seconds,
    }
    for key in ("density", "density_total", "precision", "tail", "mask", "block_q", "block_kv"):
        row[key] = end[key]
    row["attention_seconds"] = end["attention_seconds"]
    return {key: row[key] for key in RUN_KEYS}
