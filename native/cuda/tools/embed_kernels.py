"""Compiled device code as a C++ source: embed_kernels.py OUTPUT.cpp FATBIN IMAGE...

The source holds FATBIN's bytes and a Kernel object for each kernel (src/driver/kernel.h). IMAGEs
are what FATBIN was made of, NAME.sm_*.cubin and NAME.compute_*.ptx. All must hold the same kernels
with the same parameters. A kernel that host code names and none of them holds fails the link.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

Kernels = dict[str, int]  # bytes of parameters by name


def _sections(elf: bytes) -> list[tuple[str, bytes]]:
    """(name, contents) of an ELF file of 64 bits."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names_at = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    contents = [b"" if one[1] == 8 else elf[one[4] : one[4] + one[5]] for one in headers]
    names = contents[names_at]
    return [
        (names[one[0] : names.index(b"\0", one[0])].decode(), content)
        for one, content in zip(headers, contents, strict=True)
    ]


def _parameter_bytes(info: bytes) -> int:
    """Of a kernel, from its .nv.info section: attribute 0x0a, a symbol, an offset and a size."""
    at = 0
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        if form == 4 and attribute == 0x0A:
            return struct.unpack_from("<IHH", info, at + 4)[2]
        at += 4 + (value if form == 4 else 0)
    raise ValueError("its .nv.info says nothing of parameters")


def cubin_kernels(cubin: bytes) -> Kernels:
    prefix = ".nv.info."
    found = [(name, content) for name, content in _sections(cubin) if name.startswith(prefix)]
    return {name.removeprefix(prefix): _parameter_bytes(content) for name, content in found}


def ptx_kernels(ptx: str) -> Kernels:
    """With the bytes of parameters as far as they are one array or plain numbers."""
    found = {}
    for name, parameters in re.findall(r"\.entry\s+(\w+)\((.*?)\)", ptx, re.DOTALL):
        end = 0
        pattern = r"\.param\s+(?:\.align\s+(\d+)\s+)?\.\w(\d+)\s+\w+(?:\[(\d+)\])?"
        for align, bits, count in re.findall(pattern, parameters):
            each = int(bits) // 8
            boundary = int(align or each)
            end = (end + boundary - 1) // boundary * boundary + each * int(count or 1)
        found[name] = end
    return found


def common_kernels(images: dict[str, Kernels]) -> Kernels:
    """What all images hold. Raises ValueError where one differs from the first."""
    (first, wanted), *others = images.items()
    for other, found in others:
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"kernel {name}: {first} and {other} must hold it with the same parameters"
                    f" (bytes: {wanted.get(name)} and {found.get(name)})"
                )
    return wanted


SOURCE = """// Made by embed_kernels.py.
#include "driver/kernel.h"

#if defined(__GNUC__) && !defined(_WIN32)
#define PARO_FATBIN __attribute__((section(".nv_fatbin")))  // where cuobjdump looks
#else
#define PARO_FATBIN
#endif

namespace paro::cuda {{
namespace {{

alignas(64) PARO_FATBIN const unsigned long long bytes[] = {{
{words}
}};
constinit DeviceImage image(bytes, "{architectures}");

}}  // namespace

namespace kernels {{
{kernels}
}}  // namespace kernels
}}  // namespace paro::cuda
"""


def source_of(fatbin: bytes, kernels: Kernels, architectures: list[str]) -> str:
    padded = fatbin + bytes(-len(fatbin) % 8)
    words = [f"{word:#x}," for (word,) in struct.iter_unpack("<Q", padded)]
    lines = ["".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    objects = [
        f'extern constinit Kernel {name};\nconstinit Kernel {name}(image, "{name}", {size});'
        for name, size in sorted(kernels.items())
    ]
    return SOURCE.format(
        words="\n".join(lines), architectures=", ".join(architectures), kernels="\n".join(objects)
    )


def main(arguments: list[str]) -> int:
    output, fatbin, *files = map(Path, arguments)
    images = {
        file.name: ptx_kernels(file.read_text())
        if file.suffix == ".ptx"
        else cubin_kernels(file.read_bytes())
        for file in files
    }
    try:
        kernels = common_kernels(images)
    except ValueError as error:
        print(f"{output.name}: {error}", file=sys.stderr)
        return 1
    if not kernels:
        print(f"{output.name}: {files[0]} holds no kernel", file=sys.stderr)
        return 1
    architectures = [file.suffixes[-2].removeprefix(".") for file in files]
    output.write_text(source_of(fatbin.read_bytes(), kernels, architectures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
