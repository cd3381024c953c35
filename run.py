#!/usr/bin/env python3
"""Sets everything up and runs it: the demo, the tests, the benchmarks.

Only Python 3.10 or newer is needed to start; the rest lands in .cache (or PARO_CACHE).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.setup import (
    comfyui,
    console,
    coverage,
    fuzz,
    native,
    python_env,
    suites,
    system,
    viewer,
)
from tools.setup.paths import Paths
from tools.setup.steps import Lock, SetupError, end_process, say
from tools.web_viewer import build as web_viewer_build
from tools.web_viewer import toolchain as web_viewer_toolchain
from tools.wheels import make, pack, trial
from tools.wheels.inputs import WINDOWS_PYTHONS
from tools.windows import trial as windows_trial

REPO = Path(__file__).resolve().parent
SOAK = "test_soak.py"


def set_up(paths: Paths, *, with_tests: bool, wheel: str = "") -> Path:
    """Everything that the demo and the tests stand on; the library from a wheel if one is given.
    Returns ComfyUI's folder."""
    start = time.monotonic()
    say(f"Setting up in {paths.cache}")
    python_env.check_python()
    if not wheel:
        system.ensure(with_tests, paths.logs)
    python_env.ensure_venv(paths)
    folder, pinned = comfyui.ensure(paths)
    say(f"ComfyUI {comfyui.version(folder)} in {folder}")
    python_env.ensure_packages(paths, folder, pinned)
    if wheel:
        native.install_wheel(paths, Path(wheel).expanduser().resolve())
    else:
        native.ensure_package(paths)
    say(f"Set-up is ready after {time.monotonic() - start:.0f} s.\n")
    return folder


def demo(paths: Paths, arguments: argparse.Namespace) -> int:
    comfy = set_up(paths, with_tests=False, wheel=arguments.wheel)
    driver = [str(paths.python), str(REPO / "tools" / "demo" / "driver.py")]
    driver += [
        "--out",
        str(Path(arguments.out).resolve()),
        "--base",
        str(paths.cache / "comfy-base"),
    ]
    return call(driver, paths.environment(COMFYUI_DIR=str(comfy)))


def bench(paths: Paths, arguments: argparse.Namespace) -> int:
    comfy = set_up(paths, with_tests=False)
    command = [str(paths.python), "-m", "paroattention", "bench", *arguments.arguments]
    return call(command, paths.environment(COMFYUI_DIR=str(comfy)))


def view(paths: Paths, arguments: argparse.Namespace) -> int:
    """The desktop viewer, on a file or on the demo's capture (the demo runs first if need be)."""
    set_up(paths, with_tests=arguments.measure)
    program = viewer.ensure(paths, with_tests=False)
    if arguments.measure:
        large = native.ensure_tests(paths) / "tests" / "viewer" / "paro_viewer_large"
        script = REPO / "tests" / "viewer" / "measure.py"
        return call([str(paths.python), str(script), str(program), str(large)], os.environ.copy())
    if arguments.pictures:
        script = REPO / "tests" / "viewer" / "pictures.py"
        shown = [str(Path(arguments.file).resolve())] if arguments.file else []
        command = [str(paths.python), str(script), str(program), str(REPO / "out/pictures"), *shown]
        return call(command, os.environ.copy())
    file = Path(arguments.file).resolve() if arguments.file else REPO / "out/demo/demo.json"
    if not arguments.file and not file.is_file():
        say("The viewer shows the demo's profile, which is not there yet: running the demo first.")
        if code := demo(paths, argparse.Namespace(out=str(file.parent), wheel="")):
            return code
    return call([str(program), str(file), *arguments.options], os.environ.copy())


def web_viewer(paths: Paths, arguments: argparse.Namespace) -> int:
    """The viewer for ComfyUI's page, as WebAssembly."""
    python_env.check_python()
    python_env.ensure_venv(paths)
    folder = web_viewer_build.ensure(paths)
    say("\n".join(web_viewer_build.describe(folder)))
    if not arguments.measure:
        say(f"In {folder}. Copied to {web_viewer_build.install(paths)}: restart ComfyUI to see it.")
        return 0
    comfy = set_up(paths, with_tests=True)
    web_viewer_build.install(paths)
    large = native.ensure_tests(paths) / "tests" / "viewer" / "paro_viewer_large"
    script = REPO / "tests" / "comfy" / "measure_web_viewer.py"
    env = paths.environment(COMFYUI_DIR=str(comfy))
    return call([str(paths.python), str(script), str(large)], env)


def wheels(paths: Paths, arguments: argparse.Namespace) -> int:
    """Installable packages with the kernels inside, for systems without a compiler."""
    if arguments.trial:
        wheel = Path(arguments.out).resolve() / pack.name("linux")
        if arguments.quick:
            return 0 if trial.sound(trial.run_quick(paths, wheel)) else 1
        return 0 if trial.sound(trial.run(paths, wheel, arguments.python or [*trial.TRIALS])) else 1
    set_up(paths, with_tests=False)
    systems, out = tuple(arguments.system or make.SYSTEMS), Path(arguments.out).resolve()
    make.make(paths, systems, out, quick=arguments.quick)
    return 0


def windows(paths: Paths, arguments: argparse.Namespace) -> int:
    """The wheel for Windows, tried under wine. Nothing of the project is built for it."""
    named = Path(arguments.wheel) if arguments.wheel else None
    wheel = windows_trial.find_wheel(named)  # before anything is downloaded
    python_env.check_python()
    python_env.ensure_venv(paths)
    passed = windows_trial.try_wheel(paths, wheel, arguments.python, arguments.quick)
    return 0 if passed else 1


def fuzz_core(paths: Paths, arguments: argparse.Namespace) -> int:
    """Random input for everything that reads a file or takes a plan, under sanitizers."""
    python_env.check_python()
    out = Path(arguments.out).resolve() if arguments.out else None
    command = f"python3 run.py fuzz --seconds {arguments.seconds:g} --jobs {arguments.jobs}"
    sound = fuzz.run(paths, arguments.target or [], arguments.seconds, arguments.jobs, out, command)
    return 0 if sound else 1


def call(command: list[str], env: dict[str, str]) -> int:
    """Runs a child that talks on this terminal, and whose own clean-up is waited for."""
    child = subprocess.Popen(command, cwd=REPO, env=env)
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                pass  # the terminal sent it to the child too
    finally:
        end_process(child, patience=30)


def test(paths: Paths, arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    comfy = set_up(paths, with_tests=True)
    results = paths.cache / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    env = paths.environment(COMFYUI_DIR=str(comfy), PARO_REQUIRE_COMFY="1")
    # Two lanes share the cores: threads that spin for work would take the time of the suite beside.
    env["OMP_WAIT_POLICY"] = "passive"
    env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // 2))
    if sys.platform == "linux":
        env["PARO_VIEWER"] = str(viewer.ensure(paths, with_tests=True))
        env["PARO_REQUIRE_VIEWER"] = "1"
        if web_viewer_toolchain.ready(paths):
            web_viewer_build.install(paths)
            env["PARO_REQUIRE_WEB_VIEWER"] = "1"
        else:
            say("The viewer for the page is not tested: `python3 run.py web-viewer` builds it.")

    def tests(name: str, *words: str) -> suites.Suite:
        return suites.pytest(paths, name, results, arguments.quick, *words)

    python, tools, window = tests("python"), tests("tools"), tests("viewer")
    # The longest test on its own, so that the two lanes are as long as each other.
    engine, soak = tests("comfy", f"--ignore=tests/comfy/{SOAK}"), tests(f"comfy/{SOAK}")
    native_tests = [suites.ctest(paths, results)]
    if arguments.coverage:
        native_tests += coverage.native_suites(paths, results)
        env |= coverage.environment(results)
        for suite in (python, engine):
            coverage.watch(paths, suite)
    lane = [*native_tests, python, tools, window]
    if not arguments.quick:
        lane.append(soak)
    suites.run_lanes([lane, [engine]], env)
    enough = coverage.report(paths, results) if arguments.coverage else True
    code = suites.summarise([*lane, engine], time.monotonic() - start)
    return code or (0 if enough else 1)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description="PAROAttention for ComfyUI: set-up included in every command."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "demo", help="sample the bundled model in a real ComfyUI, dense and sparse"
    )
    one.add_argument(
        "--out", default=str(REPO / "out" / "demo"), help="folder for the report (out/demo)"
    )
    one.add_argument(
        "--wheel", default="", help="install this wheel instead of compiling: needs no compiler"
    )
    one.set_defaults(run=demo)
    one = commands.add_parser("test", help="run all tests")
    one.add_argument("--quick", action="store_true", help="leave out the slow ones")
    one.add_argument(
        "--coverage", action="store_true", help="say which share of the sources the tests run"
    )
    one.set_defaults(run=test)
    one = commands.add_parser(
        "bench", help="benchmarks; arguments go to python -m paroattention bench"
    )
    one.add_argument("arguments", nargs=argparse.REMAINDER)
    one.set_defaults(run=bench)
    one = commands.add_parser("view", help="build the desktop viewer and open it")
    one.add_argument("file", nargs="?", help="a profile or capture (the demo's)")
    one.add_argument("--measure", action="store_true", help="measure it on a generated large one")
    one.add_argument(
        "--pictures", action="store_true", help="every panel at every size (out/pictures)"
    )
    one.add_argument("options", nargs=argparse.REMAINDER, help="go to paro-viewer")
    one.set_defaults(run=view)
    one = commands.add_parser("web-viewer", help="build the viewer for ComfyUI's page")
    one.add_argument(
        "--measure", action="store_true", help="measure it in Chromium on a generated large profile"
    )
    one.set_defaults(run=web_viewer)
    one = commands.add_parser("wheels", help="build and check the wheels for Linux and Windows")
    one.add_argument("--system", choices=make.SYSTEMS, action="append", help="only for this system")
    one.add_argument("--out", default=str(REPO / "out" / "wheels"), help="folder (out/wheels)")
    one.add_argument(
        "--try", action="store_true", dest="trial",
        help="instead, try the wheel for Linux under each CPython, in ComfyUI",
    )  # fmt: skip
    one.add_argument(
        "--quick",
        action="store_true",
        help="for one CPython and two architectures: whether wheels can be made at all;"
        " with --try: under that CPython with the newest torch",
    )
    one.add_argument(
        "--python", action="append", choices=[*trial.TRIALS], help="try only this CPython"
    )
    one.set_defaults(run=wheels)
    one = commands.add_parser(
        "fuzz", help="random input under sanitizers for files, layouts, plans and attention"
    )
    one.add_argument("--seconds", type=float, default=120, help="of fuzzing, set-up aside (120)")
    one.add_argument(
        "--target",
        action="append",
        help=f"only this one; {fuzz.RACES}: threads under TSan (all but {fuzz.RACES})",
    )
    one.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="targets side by side (every core)"
    )
    one.add_argument("--out", help="JSON to which executions are added")
    one.set_defaults(run=fuzz_core)
    one = commands.add_parser("windows", help="try the wheel for Windows under wine")
    one.add_argument("--wheel", help="this one (the newest in out/wheels)")
    one.add_argument("--python", choices=WINDOWS_PYTHONS, default="3.12", help="CPython (3.12)")
    one.add_argument("--quick", action="store_true", help="leave out the slow tests")
    one.set_defaults(run=windows)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    with console.prepared():
        return run(argv)


def run(argv: list[str]) -> int:
    arguments = parse(argv)
    paths = Paths()
    # So that a plain `kill` ends our children as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Lock(paths.cache / "lock"):
            return arguments.run(paths, arguments)
    except SetupError as error:
        print(f"\nrun.py {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted. Finished stages are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
