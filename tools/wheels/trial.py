"""Tries the wheel for Linux as a user has it: installed alone, under each CPython, in ComfyUI."""

from __future__ import annotations

import datetime
import json
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from ..setup import comfyui, python_env
from ..setup.paths import REPO, Paths
from ..setup.steps import SetupError, commit, hash_file, say
from . import archive, places
from .inputs import QUICK_PYTHON, Inputs

# CPython and torch: every CPython once, and the oldest torch, the one that the wheel is compiled
# with and the newest.
TRIALS = {"3.10": "2.9.1", "3.11": "2.11.0", "3.12": "2.15.0", "3.13": "2.15.0", "3.14": "2.15.0"}
AUDIO_OF_ITS_OWN = ("2.9.1", "2.11.0")
NEWEST = TRIALS["3.14"]
RESULTS = REPO / "tests" / "wheels" / "linux.json"
# Of the tests, what they import beside ComfyUI's own packages.
TESTS_NEED = ("pytest", "jsonschema", "scikit-image")
# What differs by CPython and torch: the binding, the operators, the command line.
PYTHON_TESTS = ("kernels", "run", "cli", "test_native_errors.py", "test_profile_schema.py")
COMFY_TESTS = ("test_nodes.py", "test_override.py", "test_first_test.py", "test_server.py")
# Of these, what a quick trial runs.
QUICK = (("kernels",), ("test_nodes.py", "test_override.py"))
OPERATORS = (
    "import torch; from paroattention.kernels import cuda, operators;"
    " missing = cuda.load();"
    " print(missing or sum(hasattr(torch.ops.paro, name) for name in operators.FAKES))"
)


def run(paths: Paths, wheel: Path, versions: list[str]) -> dict:
    """Tries each CPython; returns the results, which RESULTS then holds. Raises SetupError."""
    if not wheel.is_file():
        raise SetupError(f"There is no wheel {wheel}", "run: python3 run.py wheels")
    inputs, comfy = Inputs(paths), comfyui.ensure(paths)[0]
    plugin = archive.make(inputs.folder)
    results = {
        "command": "python3 run.py wheels --try",
        "wheel": wheel.name,
        "sha256": hash_file(wheel),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "comfyui": comfyui.version(comfy),
        "trials": [],
    }
    for version in versions:
        say(f"\nCPython {version} with torch {TRIALS[version]}")
        found = Trial(inputs, version, wheel, comfy, plugin).run()
        results["trials"].append(found)
        say(f"  {json.dumps(found)}")
        write(results)
    return results


def run_quick(paths: Paths, wheel: Path) -> dict:
    """Tries the CPython that a quick wheel is for, with the newest torch and transformers: other
    ones than those of the tests. Keeps no results."""
    version = QUICK_PYTHON
    inputs, comfy = Inputs(paths), comfyui.ensure(paths)[0]
    say(f"CPython {version} with torch {NEWEST}")
    trial = Trial(inputs, version, wheel, comfy, archive.make(inputs.folder))
    trial.torch, trial.python_tests, trial.comfy_tests = NEWEST, *QUICK
    found = trial.run()
    say(f"  {json.dumps(found)}")
    return {"trials": [found]}


def write(results: dict) -> None:
    """Keeps what an earlier call found of the same wheel under other CPythons."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    trials = {one["python"]: one for one in before.get("trials", ())}
    if before.get("sha256") != results["sha256"]:
        trials = {}
    trials |= {one["python"]: one for one in results["trials"]}
    kept = results | {"trials": [trials[version] for version in TRIALS if version in trials]}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def interpreter(version: str) -> Path | None:
    """This machine's CPython of a version, if it has one."""
    found = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    found += [Path(folder) / f"python{version}" for folder in ("/usr/bin", "/usr/local/bin")]
    return next((path for path in found if path.exists()), None)


class Trial:
    """One environment. Everything goes into the environment as copies."""

    def __init__(self, inputs: Inputs, version: str, wheel: Path, comfy: Path, plugin: Path):
        self.place = places.make(inputs, version, interpreter(version))
        self.version, self.torch = version, TRIALS[version]
        self.python_tests, self.comfy_tests = PYTHON_TESTS, COMFY_TESTS
        folder = str(inputs.folder / f"work-{version}")
        self.base = "/work" if self.place.root else folder
        self.wheel = self.place.give(wheel, f"{self.base}/{wheel.name}")
        self.repo = self.place.give(REPO, f"{self.base}/repo")
        self.comfy = self.place.give(comfy, f"{self.base}/comfyui")
        self._plugin = plugin
        needs = python_env.comfy_requirements(comfy)
        self._needs = f"{self.base}/comfyui-requirements.txt"
        self.place.outside(self._needs).write_text(needs, encoding="utf-8")

    def run(self) -> dict:
        place, python = self.place, self.place.python
        # It does not say which torch it goes with; one build serves several of the later ones.
        audio = "torchaudio" + (f"=={self.torch}" if self.torch in AUDIO_OF_ITS_OWN else "")
        packages = [f"torch=={self.torch}", "torchvision", audio, *TESTS_NEED]
        place.install("ComfyUI's packages", [*packages, "-r", self._needs])
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", self.wheel]
        place.run("pip install of the wheel", [python, *pip])
        code, told = place.ask([python, "-m", "paroattention", "doctor"])
        loaded, operators = place.ask([python, "-c", OPERATORS])
        return {
            "python": self.version,
            "system": "Debian's own, in a root of its own" if place.root else "this machine's",
            "torch": self._installed("torch"),
            "transformers": self._installed("transformers"),
            "doctor": self._doctor(code, told),
            "operators": int(operators) if operators.strip().isdigit() else operators[-200:],
            "operators_exit": loaded,
            "tests/python": self._tests([f"tests/python/{name}" for name in self.python_tests]),
            "tests/comfy": self._tests([f"tests/comfy/{name}" for name in self.comfy_tests]),
            "comfyui_start": self._start(),
        }

    def _installed(self, package: str) -> str:
        code = f"import {package}; print({package}.__version__)"
        return self.place.ask([self.place.python, "-c", code])[1].strip().splitlines()[-1]

    @staticmethod
    def _doctor(code: int, told: str) -> str:
        found = re.search(r"Self-test on cpu: (.* rightly)", told)
        return found[1] if found and code == 0 else f"exit code {code}: {told[-300:]}"

    def _tests(self, names: list[str]) -> dict | str:
        report = f"{self.base}/report.xml"
        self.place.outside(report).unlink(missing_ok=True)
        command = [self.place.python, "-m", "pytest", "-q", "-c", "tests/pytest.ini"]
        command += ["-m", "not slow", "-p", "no:cacheprovider", f"--junitxml={report}", *names]
        self.place.ask(command, 3000, cwd=self.repo, COMFYUI_DIR=self.comfy, PARO_REQUIRE_COMFY="1")
        return counts(self.place.outside(report))

    def _start(self) -> str:
        """ComfyUI itself with the plugin as the registry packs it."""
        folder = self.place.outside(f"{self.base}/base/custom_nodes/comfyui-paroattention")
        with zipfile.ZipFile(self._plugin) as held:
            held.extractall(folder)
        command = [self.place.python, f"{self.comfy}/main.py", "--cpu", "--quick-test-for-ci"]
        command += ["--base-directory", f"{self.base}/base", "--disable-api-nodes"]
        code, told = self.place.ask(command)
        # "0.2 seconds (IMPORT FAILED): ..." otherwise. Some of ComfyUI's own nodes want a display.
        if code or not re.search(r"seconds: .*comfyui-paroattention", told):
            return f"exit code {code}: {told[-300:]}"
        return "loads the plugin" if "native library" not in told else told[-300:]


def counts(report: Path) -> dict | str:
    """passed, failed, skipped and seconds of a JUnit report, with the names of what failed."""
    if not report.is_file():
        return "no report"
    suite = ElementTree.parse(report).getroot().find("testsuite")
    cases = list(suite.iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    found = {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed),
        "skipped": skipped,
        "seconds": round(float(suite.get("time", 0))),
    }
    return found | ({"names": failed[:20]} if failed else {})


def sound(results: dict) -> bool:
    """Whether every trial came out well."""
    return all(
        "of" in one["doctor"] and not one["doctor"].startswith("exit")
        and isinstance(one["operators"], int)
        and all(isinstance(one[key], dict) and not one[key]["failed"] and one[key]["passed"]
                for key in ("tests/python", "tests/comfy"))
        and one["comfyui_start"] == "loads the plugin"
        for one in results["trials"]
    )  # fmt: skip
