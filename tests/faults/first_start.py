"""What the library does first on a machine: import, `doctor`, attention, a profile, a run's log.

    first_start.py FOLDER NAME    (started by test_strange_machines.py as a machine has it)

Writes FOLDER/NAME.json and its capture, FOLDER/doctor.txt, and FOLDER/first.json with the results.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import locale
import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

# As a window's library or another plugin does, for the whole process.
with contextlib.suppress(locale.Error):
    locale.setlocale(locale.LC_ALL, "")

import torch
from paroattention import (
    ModelInfo,
    Observer,
    Profile,
    Session,
    Settings,
    TokenLayout,
    _core,
    load_capture,
    reference,
    save_capture,
)
from paroattention.plan.profile_build import build_profile
from paroattention.runlog import RunLog

GRID, HEADS, DIM, LAYER = (3, 6, 8), 2, 64, "double.0.0"
SIGMAS = [1.0, 0.6, 0.3, 0.0]


def tensors() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(1, HEADS, 144, DIM, generator=draw) for _ in range(3)]


def run(folder: Path, settings: Settings, profile) -> dict:
    """A small run by a profile; its summary, with the error of its last call."""
    session = Session(
        settings,
        SIGMAS,
        model=ModelInfo("wan2.1", "ab" * 32),
        find_profile=lambda grid: (profile, "first"),
        runlog=RunLog(folder / "runlog.jsonl"),
    )
    q, k, v = tensors()
    want = reference.dense(q, k, v).float()
    for sigma in SIGMAS[:-1]:
        forward = session.begin_forward(sigma)
        out, ours = session.attention(forward, LAYER, q, k, v, TokenLayout(GRID), lambda: want)
    return session.finish() | {"off": reference.relative_error(out, want), "ours": ours}


def doctor(folder: Path) -> tuple[int, str]:
    """`python -m paroattention doctor`: its exit code and what it prints."""
    out, sys.argv = (
        io.StringIO(),
        ["paroattention", "doctor", "--report", str(folder / "doctor.txt")],
    )
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_module("paroattention", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, out.getvalue()


def main(folder: Path, name: str) -> None:
    observer, (q, k, _) = Observer(queries=32, seed=0), tensors()
    observer.observe(LAYER, q, k, TokenLayout(GRID), sm_scale=DIM**-0.5)
    model = ModelInfo("wan2.1", "ab" * 32)
    # Random attention is further off than any model's.
    settings = Settings(dense_below=0.0, meter_limit=0.0, watch="if needed")
    every = replace(settings, density=1.0, precision="bf16")
    profile = build_profile(observer, model, settings, [(1.0, 0.0)], steps=8)
    path, capture = folder / f"{name}.json", folder / f"{name}.capture.safetensors"
    profile.save(path)
    save_capture(capture, profile, {})
    read = Profile.load(path)
    exact, sparse = run(folder, every, read), run(folder, settings, read)
    code, told = doctor(folder)
    text = path.read_text(encoding="utf-8")
    found = {
        "same": read.dump() == profile.dump() == text,
        "captured": load_capture(capture)[0].dump() == profile.dump(),
        "refused": refusal(folder / "no such profile.json"),
        # But for the day.
        "content": hashlib.sha256(re.sub(r"\d{4}-\d\d-\d\d", "", text).encode()).hexdigest(),
        "exact": exact["off"],
        "sparse": sparse["off"],
        "ours": exact["ours"] and sparse["ours"],
        "reasons": exact["reasons"] | sparse["reasons"],
        "isas": _core.available_isas(),
        "threads": torch.get_num_threads(),
        "comma": locale.localeconv()["decimal_point"],
        "mode": oct(path.stat().st_mode & 0o777),
        "home": os.environ.get("HOME"),
        "uid": os.getuid(),
        "library": os.fsencode(_core.__file__).hex(),
        "doctor": [code, told],
    }
    (folder / "first.json").write_text(json.dumps(found), encoding="utf-8")


def refusal(path: Path) -> str:
    try:
        Profile.load(path)
    except _core.Error as error:
        return ascii(str(error))
    return ""


main(Path(sys.argv[1]), sys.argv[2])
