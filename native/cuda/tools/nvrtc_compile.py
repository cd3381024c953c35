"""Device code by NVRTC, called as nvcc would be: nvrtc_compile.py -cubin -arch=sm_90a -o OUT IN ...

NVRTC is the compiler inside nvcc as a library. PyPI has it for CUDA 12 too (nvidia-cuda-nvrtc-cu12
with the headers of nvidia-cuda-runtime-cu12 and nvidia-cuda-cccl-cu12), where it has no nvcc. Code
of CUDA 12 runs on drivers from 525 on, that of CUDA 13 on drivers from 580 on.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)


class Nvrtc:
    """The few calls of libnvrtc that a compilation takes."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != 0:
            text = self._library.nvrtcGetErrorString(result).decode()
            raise RuntimeError(f"{name}: {text}")

    def _bytes(self, program, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: Path, options: list[str], what: str) -> tuple[bytes, str]:
        """(`what` of the source, CUBIN or PTX; what the compiler said). Raises RuntimeError."""
        program = ctypes.c_void_p()
        text = source.read_bytes()
        create = (ctypes.byref(program), text, str(source).encode(), 0, None, None)
        self._call("nvrtcCreateProgram", *create)
        words = (ctypes.c_char_p * len(options))(*(one.encode() for one in options))
        try:
            self._call("nvrtcCompileProgram", program, len(options), words)
        except RuntimeError as error:
            log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode()
            raise RuntimeError(f"{error}\n{log}") from None
        log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode()
        return self._bytes(program, what), log


def included(source: Path, folders: list[Path]) -> set[Path]:
    """The source and what it includes, as far as it lies in `folders` or beside the includer."""
    found, waiting = set(), [source]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for name in re.findall(
            r'^\s*#\s*include\s+["<]([^">]+)[">]', one.read_text(), re.MULTILINE
        ):
            places = (folder / name for folder in (one.parent, *folders))
            waiting.extend([place for place in places if place.is_file()][:1])
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="nvrtc_compile.py", description=__doc__)
    parser.add_argument("--nvrtc", type=Path, required=True, help="libnvrtc.so or nvrtc64_*.dll")
    if "--version" in arguments:
        print(f"NVRTC, release {Nvrtc(parser.parse_known_args(arguments)[0].nvrtc).version()}")
        return 0
    parser.add_argument("source", type=Path)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("-cubin", action="store_const", dest="kind", const="CUBIN")
    kind.add_argument("-ptx", action="store_const", dest="kind", const="PTX")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("-I", dest="folders", type=Path, action="append", default=[])
    parser.add_argument("-MF", dest="depfile", type=Path, help="write what the output depends on")
    known, passed = parser.parse_known_args(arguments)
    options = [*passed, *(f"-I{folder}" for folder in known.folders)]
    try:
        result, log = Nvrtc(known.nvrtc).compile(known.source, options, known.kind)
    except (OSError, RuntimeError) as error:
        print(f"{known.source}: {error}", file=sys.stderr)
        return 1
    if log:
        print(log, file=sys.stderr)
    known.output.write_bytes(result.rstrip(b"\0") if known.kind == "PTX" else result)
    if known.depfile:
        names = " ".join(sorted(str(one) for one in included(known.source, known.folders)))
        known.depfile.write_text(f"{known.output}: {names}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
