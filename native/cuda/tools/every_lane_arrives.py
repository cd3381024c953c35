"""The Hopper kernels of a cubin with every lane arriving: every_lane_arrives.py CUBIN [OUTPUT].

A consumer warp of the Hopper kernel frees a stage by one arrival, of its lane 0 after __syncwarp.
compute-sanitizer's racecheck does not follow one arrival for a warp (native/cuda/README.md). This
changes the machine code of the usual build, and nothing else of it: the arrivals lose their
predicate, so that each lane arrives itself, and their barriers are made for 32 times as many.
tests/cuda/compare_arrivals.py shows the difference. Fails where a kernel does not look as expected.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# An instruction of sm_90 is 16 bytes. The lowest 12 bits say which one it is, the next three the
# predicate (7: none), the next one whether it is negated; the upper half of the first word holds
# an immediate.
SIZE, PREDICATE, NONE = 16, 0xF << 12, 7 << 12
UMOV, SYNCS_EXCH, SYNCS_ARRIVE = 0x882, 0x5B2, 0x9A7
# In the second word of SYNCS.ARRIVE: .A1T0, one arrival and no bytes of a copy.
A1T0 = 1 << 20
LANES = 32
NAME = re.compile(r"paro_attention_hopper_int8_d\d+_q(\d+)_k\d+")
# The producer, which is one thread, ends a query tile's keys and the last query tile itself.
OF_THE_PRODUCER = 2


@dataclass(frozen=True)
class Changed:
    """What was changed in a kernel: arrivals, and the count of their barriers from and to."""

    arrivals: int
    count: tuple[int, int]


def kernels(elf: bytes) -> Iterator[tuple[str, int, int]]:
    """(kernel, offset, bytes) of the machine code in an ELF file of 64 bits."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names_at = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    names = headers[names_at][4]
    for header in headers:
        start = names + header[0]
        name = elf[start : elf.index(b"\0", start)].decode()
        if name.startswith(".text."):
            yield name.removeprefix(".text."), header[4], header[5]


def _change(name: str, code: bytearray, warps: int) -> Changed:
    """Changes a kernel's code in its place."""
    count_at, arrivals, unconditional, inits = [], [], 0, 0
    for at in range(0, len(code), SIZE):
        low, high = struct.unpack_from("<QQ", code, at)
        which, predicate = low & 0xFFF, low & PREDICATE
        inits += which == SYNCS_EXCH
        # Before the first barrier is made: what their counts are.
        if which == UMOV and not inits and low >> 32 == warps:
            count_at.append(at)
        if which == SYNCS_ARRIVE and high & A1T0:
            unconditional += predicate == NONE
            if predicate != NONE:
                arrivals.append(at)
    if len(count_at) != 1 or not arrivals or unconditional != OF_THE_PRODUCER:
        raise ValueError(
            f"{name}: must make its barriers for {warps} arrivals by one UMOV, and arrive by lane 0"
            f" of its consumers and {OF_THE_PRODUCER} times without a predicate (got"
            f" {len(count_at)} UMOV, {len(arrivals)} and {unconditional}): compile it with CUDA"
            " 12.9 or 13.0, whose code this knows"
        )
    for at in arrivals:
        (low,) = struct.unpack_from("<Q", code, at)
        struct.pack_into("<Q", code, at, low & ~PREDICATE | NONE)
    struct.pack_into("<I", code, count_at[0] + 4, LANES * warps)
    return Changed(len(arrivals), (warps, LANES * warps))


def change(elf: bytes) -> tuple[bytes, dict[str, Changed]]:
    """The file with every lane of the Hopper kernels arriving, and what was changed by kernel.

    Raises ValueError where a Hopper kernel is not as expected.
    """
    whole, changed = bytearray(elf), {}
    for name, offset, size in kernels(elf):
        if match := NAME.fullmatch(name):
            code = whole[offset : offset + size]
            # Four warps for each 64 query rows.
            changed[name] = _change(name, code, int(match[1]) // 64 * 4)
            whole[offset : offset + size] = code
    return bytes(whole), changed


def main(source: str, output: str = "") -> int:
    whole, changed = change(Path(source).read_bytes())
    if not changed:
        raise ValueError(f"{source}: must hold a Hopper kernel of attention (got none)")
    for name, one in changed.items():
        print(f"{name}: {one.arrivals} arrivals by every lane, barriers for {one.count[1]}")
    Path(output or source).write_bytes(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
