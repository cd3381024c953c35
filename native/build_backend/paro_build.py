"""pip's way into the build: scikit-build-core, and one sentence where something is missing.

pip prints whatever a failed build printed, with a frame of its own around it. So what can be known
is asked before anything is built, or even downloaded; what CMake and the compiler say goes to a
file; and the last line names what is missing and what to do. PARO_BUILD_VERBOSE=1 shows everything
as it comes. Nothing is written into the source folder, which may be read-only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

WINDOWS = sys.platform == "win32"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
AGAIN = "then run pip again. Without the native library the nodes still register and run dense."


class Missing(Exception):
    """What a person has to get first, in one sentence."""


try:
    import scikit_build_core.build as backend
except ImportError:
    backend = None


# What can be asked beforehand


def given(config_settings: dict | None, word: str) -> bool:
    """The caller names something himself, by -C or CMAKE_ARGS: CMake knows better then."""
    return word in f"{config_settings or {}} {os.environ.get('CMAKE_ARGS', '')}"


def check_backend() -> None:
    if backend is None:
        raise Missing(
            "scikit-build-core is not installed in this Python: leave --no-build-isolation away, "
            "or run `pip install scikit-build-core pybind11 cmake ninja` first"
        )


def check_headers(config_settings: dict | None) -> None:
    include = Path(sysconfig.get_path("include"))
    folders = {include, Path(sysconfig.get_path("platinclude"))}
    if given(config_settings, "Python_INCLUDE_DIR"):
        return
    library = Path(sys.base_prefix) / "libs" / f"python{VERSION.replace('.', '')}.lib"
    found = any((folder / "Python.h").is_file() for folder in folders)
    if found and (not WINDOWS or library.is_file()):
        return
    what = f"no headers (Python.h is not in {include})" if not found else f"no {library.name}"
    if WINDOWS:
        todo = (
            f"install Python {VERSION} from python.org and copy its folders include and libs into "
            f"{sys.base_prefix}"
        )
    else:
        todo = (
            f"install them (Debian, Ubuntu: `sudo apt install python{VERSION}-dev`; Fedora: "
            f"`sudo dnf install python{VERSION}-devel`), or use a Python that has them"
        )
    raise Missing(f"this Python ({sys.executable}, {VERSION}) has {what}: {todo}")


def compiler_todo() -> str:
    if WINDOWS:
        return (
            "install the Visual Studio 2022 Build Tools with 'Desktop development with C++' and "
            "run pip in their 'x64 Native Tools Command Prompt'"
        )
    if sys.platform == "darwin":
        return "run `xcode-select --install`"
    return (
        "install one (Debian, Ubuntu: `sudo apt install g++`; Fedora: `sudo dnf install gcc-c++`)"
    )


def check_compiler(config_settings: dict | None) -> None:
    """CMake takes CXX, then the one that Python was built with, then what is usual."""
    for variable, names in {
        "CXX": ("c++", "g++", "clang++", "cl", "clang-cl"),
        "CC": ("cc", "gcc", "clang", "cl", "clang-cl"),
    }.items():
        if given(config_settings, f"CMAKE_{variable}_COMPILER"):
            continue
        what = "C++ compiler" if variable == "CXX" else "C compiler"
        named = os.environ.get(variable, "").strip()
        if named:
            if shutil.which(named) is None and shutil.which(named.split()[0]) is None:
                raise Missing(
                    f"{variable} names {named}, which is not a program on this machine: unset"
                    f" {variable} or correct it"
                )
            continue
        found = next((path for path in map(shutil.which, names) if path), None)
        if found is None:
            raise Missing(f"there is no {what} on the PATH: {compiler_todo()}")
        built_with = (sysconfig.get_config_var(variable) or "").split()
        if built_with and shutil.which(built_with[0]) is None:
            # Python's own compiler, which scikit-build-core would ask for, is on another machine.
            os.environ[variable] = found


def check(config_settings: dict | None) -> None:
    check_backend()
    check_headers(config_settings)
    check_compiler(config_settings)


# What CMake and the compiler said

SAID = (
    (r"No space left on device", "the disk is full: make room in the folder for temporary files"),
    (
        r"PermissionError.*?: '([^']+)'|cannot create.*?([/\w.-]+): Permission denied",
        "{0} cannot be written: get the right to write there, or set TMPDIR to a folder of yours",
    ),
    (r"(?s)PARO needs (a compiler .+?)\n\s*\n", "it needs {0}"),
    (
        r"Could NOT find ZLIB|zlib\.h: No such file",
        "zlib's headers are missing: install them (Debian, Ubuntu: `sudo apt install zlib1g-dev`; "
        "Fedora: `sudo dnf install zlib-devel`; Windows: `vcpkg install zlib`, and name it by "
        "-C cmake.define.ZLIB_ROOT=FOLDER)",
    ),
    (
        r"(?s)nlohmann.*?(?:download|Could not resolve|Failed to connect|timed out)",
        "nlohmann/json is neither installed nor can it be downloaded: connect to the internet, or "
        "install it (Debian, Ubuntu: `sudo apt install nlohmann-json3-dev`; Fedora: `sudo dnf "
        "install json-devel`)",
    ),
    (
        r"No CMAKE_CUDA_COMPILER|Failed to find nvcc|Could NOT find CUDAToolkit",
        "PARO_BUILD_CUDA needs nvcc, which was not found: install the CUDA toolkit, or put nvcc on "
        "the PATH",
    ),
    (
        r"(?:RandR|Xinerama|Xcursor|XInput|X11|XKB|XShape) headers not found|Could NOT find X11",
        "PARO_BUILD_VIEWER needs OpenGL's and X11's headers (Debian, Ubuntu: `sudo apt install "
        "libgl-dev libegl-dev libxrandr-dev libxinerama-dev libxcursor-dev libxi-dev`)",
    ),
    (
        r"(?:Could not find CMake with version|CMake.*? or higher is required)[^\n]*",
        "CMake 3.24 or newer is missing: leave --no-build-isolation away, or run `pip install "
        "cmake ninja`",
    ),
    (
        r"Could not find a package configuration file provided by \"pybind11\"|pybind11Config",
        "pybind11 3 is missing: leave --no-build-isolation away, or run `pip install pybind11`",
    ),
    (
        r"Ninja is required",
        "ninja is missing: leave --no-build-isolation away, or run `pip install ninja`",
    ),
    (
        r"Could NOT find Python\b[^\n]*",
        "CMake does not find this Python's headers: install them, or name them by "
        "-C cmake.define.Python_INCLUDE_DIR=FOLDER",
    ),
    (
        r"No CMAKE_C(?:XX)?_COMPILER could be found|is not able to compile a simple test program"
        r"|is not a full path to an existing compiler",
        "the C++ compiler does not work: {compiler}",
    ),
    (
        r"internal compiler error: Killed|Killed signal terminated|out of memory allocating"
        r"|cc1plus: out of",
        "the compiler ran out of memory: close other programs, or set CMAKE_BUILD_PARALLEL_LEVEL=1",
    ),
)


def explained(output: str) -> str | None:
    for pattern, sentence in SAID:
        if match := re.search(pattern, output):
            groups = [group for group in match.groups() if group] or [match.group(0)]
            # CMake breaks what it says into short lines.
            return " ".join(sentence.format(*groups, compiler=compiler_todo()).split())
    return None


def first_error(output: str) -> str:
    """A compiler's or CMake's first complaint, with the line after it where that is the text."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if re.search(r"\b(?:fatal )?error\b[:( ]|CMake Error|Error:", line):
            more = next((text.strip() for text in lines[number + 1 :] if text.strip()), "")
            return f"{line.strip()} {more}" if line.startswith("CMake Error") else line.strip()
    return lines[-1].strip() if lines else "the build printed nothing"


@contextlib.contextmanager
def kept(file):
    """What this process and its children print goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    try:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(before, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def told(build):
    """Runs it; a failure ends the process with one sentence, and the file that has the rest."""
    if os.environ.get("PARO_BUILD_VERBOSE"):
        return build()
    handle, name = tempfile.mkstemp(prefix="paroattention-build-", suffix=".log")
    with os.fdopen(handle, "w+", encoding="utf-8", errors="replace") as file:
        try:
            with kept(file):
                result = build()
        except (Exception, SystemExit) as error:
            file.seek(0)
            output = file.read() + (f"\n{type(error).__name__}: {error}\n")
            file.seek(0)
            file.write(output)
            reason = explained(output) or f"the build failed: {first_error(output)}"
            refuse(f"{reason.rstrip('.')}; {AGAIN} The whole output is in {name}.")
        file.seek(0)
        sys.stdout.write(file.read())  # pip shows it with -v
    os.unlink(name)
    return result


def refuse(sentence: str) -> None:
    raise SystemExit(f"PARO Attention cannot be built: {sentence}") from None


def asked(config_settings: dict | None) -> None:
    try:
        check(config_settings)
    except Missing as missing:
        refuse(f"{missing}; {AGAIN}")


# The hooks of PEP 517 and 660. Wheels are asked for before anything is downloaded.


def get_requires_for_build_wheel(config_settings=None):
    asked(config_settings)
    return backend.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings=None):
    asked(config_settings)
    return backend.get_requires_for_build_editable(config_settings)


def get_requires_for_build_sdist(config_settings=None):
    return backend.get_requires_for_build_sdist(config_settings)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    asked(config_settings)
    return backend.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    asked(config_settings)
    return backend.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    asked(config_settings)
    return told(lambda: backend.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    asked(config_settings)
    arguments = wheel_directory, config_settings, metadata_directory
    return told(lambda: backend.build_editable(*arguments))


def build_sdist(sdist_directory, config_settings=None):
    return backend.build_sdist(sdist_directory, config_settings)


def leave_no_bytecode() -> None:
    """Python keeps this module's bytecode beside it; the folder stays as it was."""
    if __cached__ is not None:
        with contextlib.suppress(OSError):
            Path(__cached__).unlink()
            Path(__cached__).parent.rmdir()


leave_no_bytecode()
