"""`pip install .` by people who lack something: one sentence says what, and the folder stays clean.

pip itself runs, without a network: the build's own requirements come from the tests' environment.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PARTS = ("native", "viewer", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE = Path(sysconfig.get_path("purelib"))

pytest.importorskip("scikit_build_core")
if sys.platform != "linux":
    pytest.skip("makes a Python without headers from Linux's", allow_module_level=True)


@pytest.fixture
def source(tmp_path) -> Path:
    """The plugin's folder as git clones it."""
    folder = tmp_path / "comfyui-paroattention"
    folder.mkdir()
    for name in PARTS:
        ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, folder / name, ignore=ignore)
        else:
            shutil.copy2(REPO / name, folder / name)
    return folder


def state(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def virtual(folder: Path, python: str = sys.executable) -> Path:
    """An environment that finds pip and the build's requirements where the tests have them."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / "lib" / f"python{VERSION}" / "site-packages"
    # After its own packages: what is installed into it comes first.
    (packages / "tests.pth").write_text(f"{HERE}\n", encoding="utf-8")
    return folder / "bin" / "python"


@pytest.fixture
def python(tmp_path) -> Path:
    return virtual(tmp_path / "venv")


@pytest.fixture
def python_without_headers(tmp_path) -> Path:
    """This Python at another place, everything but its headers."""
    real = Path(os.path.realpath(sys.executable))
    prefix = tmp_path / "portable"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").mkdir()
    shutil.copy2(real, prefix / "bin" / f"python{VERSION}")
    for library in (Path(sys.base_prefix) / "lib").glob("libpython*"):
        (prefix / "lib" / library.name).symlink_to(library)
    (prefix / "lib" / f"python{VERSION}").symlink_to(Path(os.__file__).parent)
    python = virtual(tmp_path / "venv", str(prefix / "bin" / f"python{VERSION}"))
    where = "import sysconfig; print(sysconfig.get_path('include'))"
    done = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    assert not (Path(done.stdout.strip()) / "Python.h").exists()
    return python


def install(python: Path, source: Path, *options: str, **environment):
    """The finished pip."""
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", *options, str(source)]
    # What is installed is only imported.
    command += ["--config-settings", "cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PARO_")}
    env |= {"PYTHONPATH": "", "TMPDIR": str(source.parent), **environment}
    if shutil.which("ccache"):
        env.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1200, env=env, cwd=source.parent
    )


def reason(done: subprocess.CompletedProcess) -> str:
    """Our sentence: the last thing that the build says, in a line of its own."""
    assert done.returncode != 0, done.stdout
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    end = lines.index("[end of output]")
    sentence = lines[end - 1]
    assert sentence.startswith("PARO Attention cannot be built: "), text
    assert "output]" in lines[end - 2], "only our sentence, none of CMake's lines: " + text
    assert "then run pip again" in sentence
    return sentence


def test_a_python_without_headers(python_without_headers, source):
    before = state(source)
    sentence = reason(install(python_without_headers, source))
    assert "Python.h" in sentence and f"python{VERSION}-dev" in sentence
    assert str(python_without_headers) in sentence
    assert state(source) == before


def test_no_compiler(python, source, tmp_path):
    before = state(source)
    (tmp_path / "empty").mkdir()
    sentence = reason(install(python, source, PATH=str(tmp_path / "empty"), CC="", CXX=""))
    assert "C++ compiler" in sentence and "apt install g++" in sentence
    assert state(source) == before


def test_a_compiler_that_is_named_and_is_none(python, source):
    before = state(source)
    sentence = reason(install(python, source, CXX="/opt/gone/g++-99"))
    assert "CXX names /opt/gone/g++-99" in sentence
    assert state(source) == before


def wrapper(folder: Path, text: str) -> Path:
    path = folder / "compiler"
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.slow
def test_a_compiler_without_cpp20(python, source, tmp_path):
    real = shutil.which("g++") or shutil.which("c++")
    old = wrapper(tmp_path, f'exec {real} $(echo "$@" | sed "s/-std=[a-z+0-9]*/-std=c++17/g")\n')
    before = state(source)
    sentence = reason(install(python, source, CXX=str(old), CMAKE_CXX_COMPILER_LAUNCHER=""))
    assert "C++20" in sentence and "GCC 11" in sentence and str(old) in sentence
    assert state(source) == before


@pytest.mark.slow
def test_a_compiler_that_does_not_work(python, source, tmp_path):
    broken = wrapper(tmp_path, "echo nothing works here >&2\nexit 1\n")
    before = state(source)
    sentence = reason(install(python, source, CXX=str(broken), CMAKE_CXX_COMPILER_LAUNCHER=""))
    assert "compiler does not work" in sentence and "apt install g++" in sentence
    assert state(source) == before


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["zlib", "nlohmann/json"])
def test_a_library_without_headers(python, source, tmp_path, missing):
    """CMake is told to look nowhere, and for zlib's test where a stand-in for the other one is."""
    options = ["--config-settings", "cmake.define.CMAKE_IGNORE_PREFIX_PATH=/usr;/usr/local;/"]
    options += ["--config-settings", "cmake.define.CMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON"]
    if missing == "zlib":
        stand_in = tmp_path / "json"
        stand_in.mkdir()
        (stand_in / "nlohmann_jsonConfig.cmake").write_text("set(nlohmann_json_FOUND TRUE)\n")
        version = "set(PACKAGE_VERSION 3.12.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n"
        (stand_in / "nlohmann_jsonConfigVersion.cmake").write_text(version)
        options += ["--config-settings", f"cmake.define.nlohmann_json_DIR={stand_in}"]
    before = state(source)
    offline = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    sentence = reason(install(python, source, *options, **offline))
    assert missing in sentence and "apt install" in sentence
    assert state(source) == before


@pytest.mark.slow
def test_an_error_in_the_code_names_it_and_the_file_with_the_rest(python, source):
    (source / "native/core/src/grid/broken.cpp").write_text("int broken = ;\n", encoding="utf-8")
    before = state(source)
    sentence = reason(install(python, source))
    assert "broken.cpp" in sentence and "error" in sentence
    log = Path(sentence.rsplit(" in ", 1)[1].rstrip("."))
    assert "broken" in log.read_text(encoding="utf-8")
    assert state(source) == before


@pytest.mark.slow
def test_installed_twice_from_a_folder_that_cannot_be_written(python, source, tmp_path):
    for path in (source, *source.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(source)
    works = "import paroattention._core as c; print(c.__file__)"
    try:
        for _ in range(2):
            done = install(python, source, "--force-reinstall", "-v")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Building CXX object" in done.stdout + done.stderr  # -v still shows the build
            shown = subprocess.run(
                [python, "-c", works], capture_output=True, text=True, cwd=tmp_path
            )
            assert str(tmp_path / "venv") in shown.stdout, shown.stderr
        assert state(source) == before
        left = [path.name for path in tmp_path.iterdir() if path.name.startswith("paroattention-")]
        assert not left, "a build that went well leaves no log"
    finally:
        for path in (source, *source.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_without_the_requirements_of_the_build(source, tmp_path):
    """--no-build-isolation in a Python that has pip alone."""
    bare = str(tmp_path / "bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    packages = tmp_path / "bare" / "lib" / f"python{VERSION}" / "site-packages"
    (packages / "pip").symlink_to(HERE / "pip")
    sentence = reason(install(tmp_path / "bare" / "bin" / "python", source))
    assert "scikit-build-core" in sentence and "--no-build-isolation" in sentence


def test_the_source_archive_holds_what_builds_it(source, tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'native/build_backend'); import paro_build;"
        f"print(paro_build.build_sdist({str(tmp_path)!r}))"
    )
    command = [sys.executable, "-B", "-c", script]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    archive = tmp_path / done.stdout.split()[-1]
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"native/build_backend/paro_build.py", "pyproject.toml", "CMakeLists.txt"} <= names
    assert "viewer/CMakeLists.txt" in names
    assert not any(name.startswith(("assets", "tools", "tests", "build/")) for name in names)
