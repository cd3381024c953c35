"""python check_exports.py LIBRARY...: each exports its entry points and nothing else.

A C++ runtime's symbols above all must stay inside: another library of the process would bind to
them, or this one to its. None may link a library of CUDA. With --own-runtime they must also link no
shared C++ runtime.
"""

from __future__ import annotations

import subprocess
import sys

ENTRIES = {
    "_core": {"PyInit__core"},
    "_torch_ops": {"paro_register_operators", "paro_last_status", "paro_last_error"},
}
CUDA = ("libcuda", "libnvrtc", "libtorch_cuda", "libc10_cuda")
RUNTIMES = ("libstdc++.so", "libgcc_s.so", "libc++.so")


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def exported(library: str) -> set[str]:
    """Names that other libraries of a process can bind to."""
    lines = _run("nm", "--dynamic", "--defined-only", "--format=posix", library).splitlines()
    # Absolute ones are names of versions.
    return {line.split()[0] for line in lines if line.split()[1] != "A"}


def needed(library: str) -> set[str]:
    lines = _run("readelf", "--dynamic", "--wide", library).splitlines()
    return {line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line}


def faults(library: str, *, own_runtime: bool) -> list[str]:
    """What is wrong with a library, in words."""
    stem = library.rpartition("/")[2].partition(".")[0]
    found, wanted, told = exported(library), ENTRIES[stem], []
    if found != wanted:
        told.append(
            f"{library} exports {sorted(found - wanted)[:10]} more and lacks"
            f" {sorted(wanted - found)}: {len(found)} symbols for {len(wanted)}"
        )
    cuda = [name for name in needed(library) if name.startswith(CUDA)]
    if cuda:
        told.append(f"{library} must find CUDA in the system when it runs, and links {cuda}")
    shared = [name for name in needed(library) if name.startswith(RUNTIMES)]
    if own_runtime and shared:
        told.append(f"{library} was to hold its own C++ runtime and needs {shared}")
    return told


def main(arguments: list[str]) -> int:
    own = "--own-runtime" in arguments
    libraries = [one for one in arguments if not one.startswith("--")]
    told = [text for one in libraries for text in faults(one, own_runtime=own)]
    print("\n".join(told) or f"{len(libraries)} libraries export their entry points alone.")
    return 1 if told or not libraries else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
