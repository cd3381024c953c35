"""Puts the outcome of the demo into its folder: report.json, report.html, and the closing table."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.setup.steps import Progress, say

from . import heads
from .machine import describe
from .page import Page
from .results import SECOND

if TYPE_CHECKING:
    from .driver import Demo

STEADY = 0.1  # of the dense run's time
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def compute_precision(server_log: Path) -> str:
    """What ComfyUI computed the model in, from its own words."""
    text = server_log.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"model weight dtype torch\.(\w+), manual cast: (?:torch\.)?(\w+)", text)
    if found is None:
        return "unknown"
    name = found[1] if found[2] == "None" else found[2]
    return PRECISIONS.get(name, name)


def report(demo: Demo) -> dict:
    rows = demo.table(compute_precision(demo.out / "server.log"))
    end = demo.calibration.summary
    kept = {name: (demo.out / name) for name in demo.kept}
    return {
        "schema": "paroattention-demo/1",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **describe(demo.comfyui),
        "sampling": {
            **demo.sampling(),
            "grid": end["grid"],
            "tokens": int(np.prod(end["grid"])),
        },
        "calibration": {
            "prompt": demo.calibration.prompt,
            "seed": demo.calibration.seed,
            "seconds": demo.calibration.seconds,
            "observe_seconds": end["observe_seconds"],
            "observe_share": end["observe_seconds"] / demo.calibration.seconds,
            **demo.calibration_settings(),
        },
        "files": {name: path.stat().st_size for name, path in kept.items() if path.is_file()},
        "pass_through_equal": demo.pass_through_equal,
        "dense_seconds_again": demo.pass_through.seconds if demo.pass_through else None,
        "failures": demo.failures,
        "runs": rows,
        "details": {name: detail(run) for name, run in demo.runs.items()}
        | {name + SECOND: detail(run) for name, run in demo.others.items()},
    }


def detail(run) -> dict:
    """Beside the figures of `runs`, whose keys are fixed: a title and what the session said."""
    ends = [line for line in run.log if line.get("end")]
    wanted = ("retained", "profile", "observe_seconds", "plan_seconds", "paths", "reasons")
    said = {key: ends[0][key] for key in wanted} if ends else {}
    return {"title": run.title, **said}


def write_report(demo: Demo) -> int:
    content = report(demo)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    (demo.out / "report.json").write_text(text, encoding="utf-8")
    with Progress("drawing the report"):
        videos = {name: run.frames for name, run in demo.runs.items()}
        found = heads.heads_of(demo.out / demo.profile_file, 0.3, demo.tile)
        warning = unsteady(content) if drift(content) > STEADY else ""
        page = Page(content, videos, found, {"density": 0.3, "tile": demo.tile}, warning)
        (demo.out / "report.html").write_text(page.html(), encoding="utf-8")
    say("")
    for line in closing_table(content):
        say(line)
    if drift(content) > STEADY:
        say(f"\n{unsteady(content)}")
    say(f"\nReport: {demo.out / 'report.html'}")
    for failure in demo.failures:
        say(f"FAILED: {failure}")
    return 1 if demo.failures else 0


def drift(content: dict) -> float:
    """How far the dense run's time at the end lies from that at the start, as a share."""
    again, first = content["dense_seconds_again"], content["runs"][0]["seconds"]
    return 0.0 if again is None else abs(again / first - 1.0)


def unsteady(content: dict) -> str:
    first, again = content["runs"][0]["seconds"], content["dense_seconds_again"]
    return (
        f"This machine was not idle: the dense run took {first:.1f} s at the start and "
        f"{again:.1f} s at the end, so times here are uncertain by {drift(content):.0%}."
    )


def closing_table(content: dict) -> list[str]:
    dense, rows = content["runs"][0], {row["name"]: row for row in content["runs"]}
    columns = ("run", "density", "PSNR dB", "second", "SSIM", "flicker", "run s", "x")
    columns += ("attention s", "x")
    table = [columns]
    for name, row in rows.items():
        if name.endswith(SECOND):
            continue
        second = rows.get(name + SECOND)
        table.append(
            (
                name,
                f"{row['density']:.2f}",
                number(row["psnr_db"], 1),
                number(second["psnr_db"] if second else None, 1),
                number(row["ssim"], 3),
                number(row["flicker"], 3),
                number(row["seconds"], 1),
                ratio(dense["seconds"], row["seconds"]),
                number(row["attention_seconds"], 1),
                ratio(dense["attention_seconds"], row["attention_seconds"]),
            )
        )
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return [
        line[0].ljust(widths[0])
        + "".join(
            "  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        )
        for line in table
    ]


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(dense: float | None, value: float | None) -> str:
    return "-" if not dense or not value else f"{dense / value:.2f}"


def keep_outputs(demo: Demo) -> None:
    """Copies profile, capture and run log out of ComfyUI's folders, whatever happened before."""
    sources = {name: demo.profiles / name for name in demo.kept} | {demo.log.name: demo.log}
    for name, source in sources.items():
        if source.is_file():
            shutil.copy2(source, demo.out / name)
