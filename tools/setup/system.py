"""What has to come from the operating system: a C++20 compiler, Python's headers, three libraries.

As root on a Debian-like system they are installed by apt-get; anywhere else the exact command is
named. nlohmann/json and Catch2 are wanted rather than required: CMake can download them itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .steps import SetupError, run_logged, say

BACKPORTS_FILE = Path("/etc/apt/sources.list.d/paroattention-backports.sources")


@dataclass(frozen=True)
class Need:
    what: str
    required: bool
    apt: str
    dnf: str
    pacman: str
    brew: str


COMPILER = Need("a C++20 compiler", True, "g++", "gcc-c++", "gcc", "")
PYTHON_H = Need("Python's headers", True, "python3-dev", "python3-devel", "python", "")
VENV = Need("Python's venv module", True, "python3-venv", "python3", "python", "")
ZLIB = Need("zlib's headers", True, "zlib1g-dev", "zlib-devel", "zlib", "zlib")
JSON = Need(
    "nlohmann/json", False, "nlohmann-json3-dev", "json-devel", "nlohmann-json", "nlohmann-json"
)
CATCH2 = Need("Catch2 3", False, "libcatch2-dev", "catch-devel", "catch2", "catch2")
# For the tests of ComfyUI's page; without a browser they are skipped, and named as skipped.
CHROMIUM = Need("Chromium", False, "chromium", "chromium", "chromium", "")
# For the tests of strange machines, which fail without them.
QEMU = Need("QEMU for programs", False, "qemu-user", "qemu-user", "qemu-user", "")
LOCALES = Need("sources of locales", False, "locales", "glibc-locale-source", "glibc", "")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_compiler() -> str | None:
    named = os.environ.get("CXX")
    for name in (named.split()[0],) if named else ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    return None


def compiles(compiler: str, source: str) -> bool:
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    result = subprocess.run(command, input=source.encode(), capture_output=True, timeout=120)
    return result.returncode == 0


def missing(with_tests: bool) -> list[Need]:
    """What this machine lacks. On Windows CMake finds Visual Studio itself."""
    needs = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        needs.append(VENV)
    if sys.platform == "win32":
        return needs
    if with_tests and sys.platform == "linux" and not any(map(shutil.which, BROWSERS)):
        needs.append(CHROMIUM)
    if with_tests and sys.platform == "linux":
        needs += [QEMU] if shutil.which("qemu-x86_64") is None else []
        needs += [LOCALES] if not Path("/usr/share/i18n/locales/tr_TR").is_file() else []
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        needs.append(PYTHON_H)
    headers = [(ZLIB, "zlib.h"), (JSON, "nlohmann/json.hpp")]
    if with_tests:
        headers.append((CATCH2, "catch2/catch_test_macros.hpp"))
    compiler = find_compiler()
    if compiler is None or not compiles(compiler, "#include <span>\n#include <concepts>\n"):
        return [COMPILER, *needs, *_not_found_on_disk(headers)]
    needs += [need for need, header in headers if not compiles(compiler, f"#include <{header}>\n")]
    return needs


def _not_found_on_disk(headers: list[tuple[Need, str]]) -> list[Need]:
    """Without a compiler to ask, the two usual folders must do."""
    folders = [Path("/usr/include"), Path("/usr/local/include")]
    return [need for need, header in headers if not any((f / header).is_file() for f in folders)]


def ensure(with_tests: bool, logs: Path) -> None:
    """Installs what a build needs and is missing, or says how to. Throws SetupError for what
    nothing can replace."""
    needs = missing(with_tests)
    if not needs:
        return
    names = ", ".join(need.what for need in needs)
    if is_root() and shutil.which("apt-get"):
        say(f"Missing on this system: {names}.")
        apt_install(needs, logs / "apt.log")
        left = missing(with_tests)
        required = [need.what for need in left if need.required]
        if required:
            raise SetupError(
                f"apt-get ran, but {', '.join(required)} is still missing", "", logs / "apt.log"
            )
        return
    command = install_command(needs)
    if any(need.required for need in needs):
        raise SetupError(f"{names} must be installed first", f"run: {command}")
    of_tests = all(need in (CHROMIUM, QEMU, LOCALES) for need in needs)
    how = "tests that need it are skipped or fail" if of_tests else "CMake will download it"
    say(f"{names} not found: {how}. To use the system's: {command}")


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def install_command(needs: list[Need]) -> str:
    """The exact command for a person with root's rights."""
    if sys.platform == "win32":
        return "winget install Python.Python.3.11 Microsoft.VisualStudio.2022.BuildTools"
    if sys.platform == "darwin":
        tools = ["xcode-select --install"] if COMPILER in needs else []
        brew = " ".join(need.brew for need in needs if need.brew)
        return " && ".join(tools + ([f"brew install {brew}"] if brew else []))
    if shutil.which("apt-get"):
        steps = [f"apt-get install {' '.join(need.apt for need in needs if need != CATCH2)}"]
        if CATCH2 in needs:
            package = catch2_package()
            if package is not None:
                steps.append(f"apt-get install {package}")
            elif (release := debian_release()) is not None:
                steps.append(f"apt-get install -t {release}-backports libcatch2-dev")
        return " && ".join(step for step in steps if step != "apt-get install ")
    if shutil.which("dnf"):
        return f"dnf install {' '.join(need.dnf for need in needs)}"
    if shutil.which("pacman"):
        return f"pacman -S {' '.join(need.pacman for need in needs)}"
    return f"install {', '.join(need.what for need in needs)} with this system's package manager"


# Debian and its relatives


def apt_install(needs: list[Need], log: Path) -> None:
    apt_run(["update"], log)
    packages = [need.apt for need in needs if need != CATCH2]
    if packages:
        apt_run(["install", "-y", "--no-install-recommends", *packages], log)
    if CATCH2 in needs:
        try:
            install_catch2(log)
        except SetupError as error:  # CMake downloads it instead
            say(f"Catch2 3 could not be installed: {error.what}.")


def apt_run(arguments: list[str], log: Path) -> None:
    command = ["apt-get", *arguments]
    say(f"Running as root: {' '.join(command)}")
    run_logged(
        " ".join(command[:2]),
        command,
        log,
        "check the package sources and the network, or install the packages by hand",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        timeout=900,
    )


def catch2_package() -> str | None:
    """The distribution's package that holds Catch2 3, if it has one."""
    for name in ("libcatch2-dev", "catch2"):
        result = subprocess.run(
            ["apt-cache", "policy", name],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        found = re.search(r"Candidate: (?:\d+:)?(\d+)\.", result.stdout)
        if found and int(found[1]) >= 3:
            return name
    return None


def install_catch2(log: Path) -> None:
    package = catch2_package()
    if package is not None:
        apt_run(["install", "-y", "--no-install-recommends", package], log)
        return
    release = debian_release()
    if release is None:
        raise SetupError("this distribution has Catch2 2 at most")
    suite = f"{release}-backports"
    if not backports_enabled(suite):
        enable_backports(release, suite)
        apt_run(["update"], log)
    apt_run(["install", "-y", "--no-install-recommends", "-t", suite, "libcatch2-dev"], log)


def debian_release(os_release: Path = Path("/etc/os-release")) -> str | None:
    """The code name, on Debian itself."""
    try:
        text = os_release.read_text(encoding="utf-8")
    except OSError:
        return None
    if not re.search(r"^ID=\"?debian\"?$", text, re.M):
        return None
    name = re.search(r"^VERSION_CODENAME=\"?([a-z]+)\"?$", text, re.M)
    return name[1] if name else None


def backports_enabled(suite: str) -> bool:
    result = subprocess.run(["apt-cache", "policy"], capture_output=True, text=True)
    return f"/{suite}/" in result.stdout or f"a={suite}," in result.stdout


def enable_backports(release: str, suite: str) -> None:
    source = find_source(release, Path("/etc/apt"))
    if source is None:
        raise SetupError(f"no package source for {release} found under /etc/apt")
    uri, signed_by = source
    entry = f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n"
    if signed_by:
        entry += f"Signed-By: {signed_by}\n"
    say(f"Enabling {suite} from this machine's own mirror in {BACKPORTS_FILE} (delete it to undo).")
    BACKPORTS_FILE.write_text(entry, encoding="utf-8")


def find_source(release: str, folder: Path) -> tuple[str, str] | None:
    """URI and key of the source that this machine takes the release itself from."""
    for file in sorted((folder / "sources.list.d").glob("*.sources")):
        for paragraph in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", paragraph, re.M))
            enabled = fields.get("Enabled", "yes").lower() != "no"
            if enabled and release in fields.get("Suites", "").split() and fields.get("URIs"):
                return fields["URIs"].split()[0], fields.get("Signed-By", "").strip()
    for file in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))):
        if not file.is_file():
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s", line)
            if entry and entry[3] == release:
                key = re.search(r"signed-by=(\S+)", entry[1] or "")
                return entry[2], key[1] if key else ""
    return None
