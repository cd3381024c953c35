"""python tests/cuda/run.py [--sanitize] [pytest arguments]: the GPU tests, and what they measured.

Needs a GPU, pytest, and the package built with PARO_BUILD_CUDA. Writes results/<gpu>.json; with
--sanitize also runs sanitize.py under memcheck, racecheck, initcheck and synccheck.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or os.environ.get("PARO_COMMIT", "unknown")


def _start_sanitizers(env) -> dict[str, subprocess.Popen]:
    """All tools at once: they wait for the CPU more than for the GPU."""
    return {
        tool: subprocess.Popen(
            ["compute-sanitizer", "--tool", tool, sys.executable, str(HERE / "sanitize.py")],
            # The caching allocator would hide reads past an end.
            env={**env, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
    }


def _verdicts(processes: dict[str, subprocess.Popen]) -> dict[str, str]:
    verdicts = {}
    for tool, process in processes.items():
        text = process.communicate()[0]
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
        ran = re.findall(r"kernels ran: \d+", text)
        verdicts[tool] = "; ".join(summary + ran) or text[-300:]
        print(f"{tool}: {verdicts[tool]}", flush=True)
        if not (summary and ran and summary[0].startswith("0 ")):
            print(text[-3000:], flush=True)
    return verdicts


def _merged(folder: Path) -> dict:
    merged: dict = {}
    for path in folder.glob("*.json"):
        merged.update(json.loads(path.read_text()))
    return dict(sorted(merged.items()))


def main() -> int:
    import torch

    arguments = sys.argv[1:]
    sanitize = "--sanitize" in arguments
    arguments = [a for a in arguments if a != "--sanitize"]
    (HERE / "results").mkdir(exist_ok=True)
    measured = tempfile.mkdtemp()
    path = str(ROOT / "native" / "python")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    env["PARO_MEASURED"] = measured
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(HERE.parent / "pytest.ini"),
        str(HERE),
    ]
    sanitizers = _start_sanitizers(env) if sanitize else {}
    done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True)
    print(done.stdout[-9000:], done.stderr[-3000:], flush=True)
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "device": name,
        "torch": torch.__version__,
        "pytest": done.stdout.strip().splitlines()[-1] if done.stdout else "",
        "sanitizer": _verdicts(sanitizers),
        "measured": _merged(Path(measured)),
    }
    shutil.rmtree(measured)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    (HERE / "results" / f"{slug}.json").write_text(json.dumps(report, indent=1) + "\n")
    clean = all(v.startswith("0 ") and "ran" in v for v in report["sanitizer"].values())
    return done.returncode or (0 if clean else 1)


if __name__ == "__main__":
    sys.exit(main())
