"""The steps of a trial. Each returns (what is told of it, details for the results) or raises."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..setup.paths import REPO
from ..wheels.inputs import WINDOWS_PYTHONS
from .context import Context, Failed
from .viewer import try_viewer
from .wine import Done, windows_path

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
NO_CUDA = "torch for Windows on the package index is built without CUDA"
# Tests that cannot run here, by their names below tests/, and why: no fault of the wheel.
DESELECTED = {
    "cuda/test_without_gpu.py::test_masks_found_on_a_device_stay_there": NO_CUDA,
    "cuda/test_without_gpu.py::"
    "test_the_module_calls_the_observing_operators_as_they_are_declared": NO_CUDA,
}
Result = tuple[str, dict]


def install(context: Context) -> Result:
    """And pip is asked whether all that the wheel needs is there."""
    told = pip_install(context, context.python)
    checked = context.run("pip check", *PIP, "check")
    context.want(checked.code == 0, f"pip check: {checked.closing()}")
    script = "import paroattention, torch; print(paroattention.__version__, torch.__version__)"
    done = context.run("importing paroattention", "-c", script)
    context.want(done.code == 0, f"it cannot be imported: {done.closing()}")
    program = context.python / "Scripts" / "paroattention.exe"
    # pip's launcher takes the Python that is on the path, as one installed for all users is.
    on_path = {"cwd": context.scratch, "WINEPATH": windows_path(context.python)}
    ran = context.wine.run("paroattention.exe", program, "doctor", "--quick", **on_path)
    context.want(ran.code == 0, f"paroattention.exe doctor --quick: {ran.closing()}")
    version, torch = done.out.split()
    details = {"paroattention": version, "torch": torch, "import_seconds": round(done.seconds, 1)}
    return f"{told}; imported with torch {torch}", details


def pip_install(context: Context, python: Path) -> str:
    """By Windows' own pip; what an earlier trial has left is replaced."""
    arguments = ("install", "--no-index", "--no-deps", "--force-reinstall")
    arguments += ("--no-warn-script-location", windows_path(context.wheel))
    done = context.run(f"pip install into {python.name}", *PIP, *arguments, python=python)
    context.want(done.code == 0, f"pip install: {done.closing()}")
    return done.closing(1)


def doctor(context: Context) -> Result:
    done = context.run("doctor", "-m", "paroattention", "doctor")
    lines = done.out.splitlines()
    context.want(done.code == 0, f"exit code {done.code}: {done.closing()}")
    context.want("GPU kernels: in this build" in done.out, "it finds no kernels in the wheel")
    return lines[-1], {"output": lines}


def operators(context: Context) -> Result:
    """Of a library that needs a GPU's driver only once it is called."""
    found = answer(context.probe("operators"))
    context.want(found["missing"] is None, str(found["missing"]))
    defined = found["operators"]
    lacking = [name for name in found["wanted"] if not defined.get(name)]
    context.want(not lacking, f"not registered: {', '.join(lacking)}")
    context.want(found["alike"], "torch.ops.paro and the library's own operators differ")
    context.want("CPU" in found["refused"], "tensors of the processor are not refused")
    overloads = sum(map(len, defined.values()))
    told = f"{len(defined)} operators of {len(found['wanted'])} with {overloads} overloads"
    return told, {"operators": defined}


def pythons(context: Context) -> Result:
    """`_core` on every CPython that the wheel is for, without torch."""
    details = {}
    for version in WINDOWS_PYTHONS:
        python = context.environment.python(version, with_torch=False)
        pip_install(context, python)
        found = answer(context.probe("core", python=python))
        faults = core_faults(found, version)
        context.want(not faults, f"Python {version}: {'; '.join(faults)}")
        details[version] = {name: found[name] for name in ("python", "numpy", "kernels")}
    return f"_core plans and refuses on CPython {', '.join(details)}", {"pythons": details}


def core_faults(found: dict, version: str) -> list[str]:
    """What is wrong with what probes/core.py has told."""
    faults = []
    if not found["python"].startswith(f"{version}."):
        faults.append(f"it is Python {found['python']}")
    if found["heads"] != 6 or found["tokens"] != 3 * 6 * 8 + 5 + 7 or found["words"] <= 0:
        faults.append(f"its plan has {found['heads']} heads, {found['tokens']} tokens")
    if not all(0.3 < share < 0.7 for share in found["shares"]):
        faults.append(f"of half the blocks it kept {found['shares']}")
    if "(got 0)" not in found["refused"] or not found["refused_text"]:
        faults.append(f"bad input was refused with {found['refused']!r}")
    return faults


def answer(done: Done) -> dict:
    """The line of JSON that a probe ends with."""
    if done.code:
        raise Failed(f"exit code {done.code}: {done.closing()}")
    try:
        return json.loads(done.out.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"it has not answered: {done.closing()}") from None


# Tests


@dataclass
class Counts:
    """Of one report of pytest."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)  # by reason

    def told(self) -> str:
        skipped = sum(self.skipped.values())
        return f"{self.passed} passed, {len(self.failed)} failed, {skipped} skipped"


def count(report: str) -> Counts:
    """From the XML that pytest writes."""
    counts = Counts()
    for case in ElementTree.fromstring(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts.failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif skipped is not None:
            reason = skipped.get("message") or "no reason"
            counts.skipped[reason] = counts.skipped.get(reason, 0) + 1
        else:
            counts.passed += 1
    return counts


def python_tests(context: Context) -> Result:
    """tests/python of this checkout, on the installed wheel."""
    return run_pytest(context, "python", "tests/python")


def library_tests(context: Context) -> Result:
    """What the GPU tests can show of the operators' library without a GPU."""
    library = context.site / "paroattention" / "_torch_ops.dll"
    named = {"PARO_TORCH_OPS": windows_path(library)}
    return run_pytest(context, "cuda", "tests/cuda/test_without_gpu.py", **named)


def run_pytest(context: Context, name: str, tests: str, **extra: str) -> Result:
    report = context.scratch / f"{name}.xml"
    report.unlink(missing_ok=True)
    arguments = ["-m", "pytest", "-q", "-c", windows_path(REPO / "tests" / "pytest.ini")]
    # The checkout stays as it is: neither pytest nor Python writes into it.
    arguments += ["-p", "no:cacheprovider", f"--junitxml={windows_path(report)}"]
    left_out = {one: why for one, why in DESELECTED.items() if one.startswith(name)}
    arguments += [word for one in left_out for word in ("--deselect", one)]
    arguments += ["-m", "not slow"] if context.quick else []
    extra["PYTHONDONTWRITEBYTECODE"] = "1"
    command = (*arguments, windows_path(REPO / tests))
    done = context.run(tests, *command, timeout=3600, **extra)
    if not report.is_file():
        raise Failed(f"pytest made no report (exit code {done.code}): {done.closing()}")
    counts = count(report.read_text(encoding="utf-8"))
    details = {"tests": asdict(counts), "deselected": left_out}
    if done.code or counts.failed or not counts.passed:
        some = ", ".join(counts.failed[:5]) or f"exit code {done.code}"
        raise Failed(f"{counts.told()}: {some}", **details)
    return counts.told(), details


STEPS = {
    "install": install,
    "doctor": doctor,
    "operators": operators,
    "pythons": pythons,
    "library tests": library_tests,
    "tests": python_tests,
    "viewer": try_viewer,
}
