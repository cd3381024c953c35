"""The GPU tests: python tests/cuda/run.py [--sanitize] [--race-package DIR] [--seconds N] [...]

Needs a GPU, pytest, and the package built with PARO_BUILD_CUDA; with COMFYUI_DIR runs in the real
ComfyUI are among them (pytest-xdist: --dist loadgroup). Says first which commit last passed whole
(last_pass.py). Writes what came of it to results/<gpu>.json, apart for a library that shares its
C++ runtime and one that holds its own; with --sanitize also runs sanitize.py under memcheck,
racecheck, initcheck and synccheck. racecheck does not follow one arrival for a whole warp and
reports the Hopper kernel for it: DIR is a copy of native/python whose library was built with
PARO_EVERY_LANE_ARRIVES=ON, the same but for that (compare_arrivals.py). Fails where a test fails, a
process dies, nothing ran, or a sanitizer finds something. Further arguments go to pytest; a run of
a selection is never a whole pass.
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
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import check_exports  # noqa: E402
import last_pass  # noqa: E402

# What pytest and pytest-xdist print of processes that end on their own.
_DEATHS = re.compile(
    r"^.*(?:node down:|crashed while running|INTERNALERROR>|Fatal Python error|Segmentation fault)"
    r".*$",
    re.MULTILINE,
)
# Options after which all tests still run; whatever else is given selects some.
_WHOLE = re.compile(r"-(?:n|-dist|-durations|-maxfail|-tb|v+|q+|x)\b|\d+$|auto$|load\w*$")


def _build() -> str:
    """Whether the operators' library shares its C++ runtime with the process."""
    from paroattention.kernels import cuda

    needed = check_exports.needed(str(cuda.LIBRARY)) if cuda.LIBRARY.exists() else set()
    shared = any(name.startswith(check_exports.RUNTIMES) for name in needed)
    return "shared C++ runtime" if shared else "own C++ runtime"


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


def outcome(code: int, text: str, report: Path, arguments: list[str]) -> dict:
    """What a run of pytest came to: its exit code, its output, its JUnit report, its arguments.

    `whole`: every test ran and passed but for those that the machine does not allow, and no
    process died on the way.
    """
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    reasons: dict[str, int] = {}
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif skipped is not None:
            counts["skipped"] += 1
            reason = skipped.get("message") or "no reason"
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            counts["passed"] += 1
    died = [line.strip()[:200] for line in _DEATHS.findall(text)]
    if code < 0:
        died.append(f"pytest ended by signal {-code}")
    elif code > 1:
        died.append(f"pytest ended with exit code {code}")
    selects = [one for one in arguments if not _WHOLE.match(one)]
    ran = code == 0 and not died and counts["passed"] > 0 and counts["failed"] == 0
    return {**counts, "skip_reasons": reasons, "died": died, "whole": ran and not selects}


def keep(path: Path, build: str, report: dict) -> None:
    """Writes the report into the GPU's file; what another build or an earlier run showed stays."""
    held = json.loads(path.read_text()) if path.exists() else {}
    shared = ("date", "commit", "torch")
    kept = {"device": report.pop("device"), "last_whole_pass": held.get("last_whole_pass", {})}
    if report["whole"]:
        fields = (*shared, "passed", "skipped", "sanitizer")
        kept["last_whole_pass"][build] = {name: report[name] for name in fields}
    kept["last_run"] = {**held.get("last_run", {}), build: report}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--race-package", default="", help="what racecheck looks at instead")
    parser.add_argument("--seconds", type=float, default=1800, help="then whatever runs is ended")
    options, arguments = parser.parse_known_args()
    print("\n".join(last_pass.lines()), flush=True)
    deadline = time.monotonic() + options.seconds
    (HERE / "results").mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp())
    path = str(ROOT / "native" / "python")
    sys.path.insert(0, path)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    env["PARO_MEASURED"] = str(scratch)
    junit = scratch / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE.parent / "pytest.ini")]
    command += [f"--junitxml={junit}", str(HERE), *arguments]
    sanitizers = _start_sanitizers(env, options.race_package) if options.sanitize else {}
    code, text = Child(command, env).finish(deadline)
    print(text, flush=True)
    found = outcome(code, text, junit, arguments)
    verdicts = _verdicts(sanitizers, deadline)
    clean = all(v.startswith("0 ") and "ran" in v for v in verdicts.values())
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    build = _build()
    found["whole"] = found["whole"] and clean and name != "none"
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": last_pass.commit(),
        "device": name,
        "torch": torch.__version__,
        **found,
        "pytest": (text.strip().splitlines() or [""])[-1],
        "sanitizer": verdicts,
        "measured": _merged(scratch),
    }
    shutil.rmtree(scratch)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    keep(HERE / "results" / f"{slug}.json", build, report)
    for line in found["died"]:
        print(f"died: {line}", flush=True)
    print(
        f"{build}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
    )
    return 0 if code == 0 and clean and not found["died"] and found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
