"""The GPU tests: python tests/cuda/run.py [--sanitize] [--race-package DIR] [--seconds N] [...]

Needs a GPU, pytest, and the package built with PARO_BUILD_CUDA; with COMFYUI_DIR runs in the real
ComfyUI are among them (pytest-xdist: --dist loadgroup). Writes what they measured to
results/<gpu>.json; with --sanitize also runs sanitize.py under memcheck, racecheck, initcheck and
synccheck. racecheck does not follow one arrival for a whole warp and reports the Hopper kernel for
it: DIR is a copy of native/python whose library was built with PARO_EVERY_LANE_ARRIVES=ON.
"""

from __future__ import annotations

import argparse
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


class Child:
    """A process whose output goes to a file, ended if it takes too long."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=subprocess.STDOUT)

    def finish(self, deadline: float) -> tuple[int, str]:
        try:
            code = self.process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.seek(0)
        return code, self.log.read()


def _start_sanitizers(env, race_package: str) -> dict[str, Child]:
    """All tools at once: they wait for the CPU more than for the GPU."""
    # The caching allocator would hide reads past an end.
    env = {**env, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    script, children = str(HERE / "sanitize.py"), {}
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        own = {**env, "PARO_PACKAGE": race_package} if tool == "racecheck" and race_package else env
        command = ["compute-sanitizer", "--tool", tool, sys.executable, script]
        children[tool] = Child(command, own)
    return children


def _verdicts(children: dict[str, Child], deadline: float) -> dict[str, str]:
    verdicts = {}
    for tool, child in children.items():
        text = child.finish(deadline)[1]
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
        ran = re.findall(r"kernels ran: \d+", text)
        verdicts[tool] = "; ".join(summary + ran) or "not finished: " + text[-200:]
        print(f"{tool}: {verdicts[tool]}", flush=True)
        if not (summary and ran and summary[0].startswith("0 ")):
            print(text[:3000], flush=True)
    return verdicts


def _merged(folder: Path) -> dict:
    merged: dict = {}
    for path in folder.glob("*.json"):
        merged.update(json.loads(path.read_text()))
    return dict(sorted(merged.items()))


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--race-package", default="", help="what racecheck looks at instead")
    parser.add_argument("--seconds", type=float, default=1800, help="then whatever runs is ended")
    options, arguments = parser.parse_known_args()
    deadline = time.monotonic() + options.seconds
    (HERE / "results").mkdir(exist_ok=True)
    measured = tempfile.mkdtemp()
    path = str(ROOT / "native" / "python")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    env["PARO_MEASURED"] = measured
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE.parent / "pytest.ini")]
    sanitizers = _start_sanitizers(env, options.race_package) if options.sanitize else {}
    code, text = Child([*command, str(HERE), *arguments], env).finish(deadline)
    print(text, flush=True)
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "device": name,
        "torch": torch.__version__,
        "pytest": (text.strip().splitlines() or [""])[-1],
        "sanitizer": _verdicts(sanitizers, deadline),
        "measured": _merged(Path(measured)),
    }
    shutil.rmtree(measured)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    (HERE / "results" / f"{slug}.json").write_text(json.dumps(report, indent=1) + "\n")
    clean = all(v.startswith("0 ") and "ran" in v for v in report["sanitizer"].values())
    return code or (0 if clean else 1)


if __name__ == "__main__":
    sys.exit(main())
