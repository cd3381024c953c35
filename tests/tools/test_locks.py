"""What run.py installs is known to the byte: each package has its version and hashes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tools import locks  # noqa: E402
from tools.locks import install, renew  # noqa: E402
from tools.setup import comfyui, python_env  # noqa: E402
from tools.setup.paths import Paths  # noqa: E402
from tools.setup.steps import SetupError  # noqa: E402

SYSTEMS = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine}
    for system, name, machine in (
        ("linux", "Linux", "x86_64"),
        ("win32", "Windows", "AMD64"),
        ("darwin", "Darwin", "arm64"),
    )
]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def locked_packages():
    """The requirements of packages.txt, each with the number of its hashes."""
    text = locks.PACKAGES.read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        found.append((Requirement(line.split("--hash")[0]), line.count("--hash=sha256:")))
    return found


def wanted_packages(comfyui_tree):
    lines = [*python_env.own_requirements()]
    lines += python_env.comfy_requirements(comfyui_tree).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def tree():
    folder, pinned = comfyui.ensure(Paths())
    assert pinned, "these tests are about the ComfyUI that the lists are made for"
    return folder


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system["sys_platform"])
@pytest.mark.parametrize("python", PYTHONS)
def test_everything_that_is_asked_for_is_locked_once(tree, python, system):
    place = {"python_version": python, "python_full_version": f"{python}.5", **system}
    here = {}
    for requirement, hashes in locked_packages():
        assert hashes > 0, f"{requirement} has no hash"
        if requirement.marker is None or requirement.marker.evaluate(place):
            name = canonicalize_name(requirement.name)
            assert name not in here, f"{name} is locked twice for Python {python}"
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            here[name] = specifier.version
    for requirement in wanted_packages(tree):
        if requirement.marker is None or requirement.marker.evaluate(place):
            version = here.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not locked: {locks.RENEW}"
            assert requirement.specifier.contains(version), f"{requirement}, locked is {version}"


def test_every_single_package_is_locked():
    missing = [one for one in renew.single() if locks.normal(one) not in locks.table()]
    assert not missing, f"run {locks.RENEW}"


def test_an_unknown_package_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match=r"left-pad==1.0 is not among the locked packages"):
        locks.options(Paths(), ("left-pad==1.0",))
    with pytest.raises(SetupError, match="must have one locked version"):
        install.find("left-pad")


def test_pip_refuses_a_file_that_is_not_the_known_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    wheel = tmp_path / "files" / "execnet-2.1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"another file of that name")
    words = locks.options(Paths(), ("execnet==2.1.2",))
    command = [sys.executable, *python_env.PIP, "install", "--no-deps", "--no-index"]
    command += ["--find-links", str(wheel.parent), "--target", str(tmp_path / "site"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr and not (tmp_path / "site").exists()


def test_nothing_else_is_installed_by_pip():
    without_hashes = {
        "tools/setup/native.py": "the project itself, or a wheel that was named",
        "tools/wheels/trial.py": "the wheel that is tried",
    }
    calls = re.compile(
        r"""PIP,\s*["'](?:install|download)["']  # a list of words, as run.py's commands are
        | -m["',]*\s+["']?pip["',]*\s+["']?install  # or as a shell's""",
        re.VERBOSE,
    )
    files = [*REPO.glob("tools/**/*.py"), *REPO.glob(".ci/*"), REPO / "run.py"]
    found = {
        path.relative_to(REPO).as_posix()
        for path in files
        if calls.search(text := path.read_text(encoding="utf-8"))
        and not re.search("locks.options|--require-hashes", text)
    }
    # uv's own hash is in single.txt, which it renews.
    assert found - {"tools/locks/install.py", "tools/locks/renew.py"} == set(without_hashes)
