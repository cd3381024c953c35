"""The library for racecheck: its arrivals are changed and nothing else, or the build fails."""

from __future__ import annotations

import struct

import compare_arrivals
import pytest
from compare_arrivals import every_lane_arrives as lanes
from elf_file import elf

NAME = "paro_attention_hopper_int8_d64_q128_k64"
OTHER, EXCH = 0x7A24, 0x75B2


def code(*words: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<QQ", *word) for word in words)


def arrival(predicate: int, high: int = 0x810003F) -> tuple[int, int]:
    """predicate: 0x8 is @!P0, 7 none."""
    return 0x0001_48FF_11FF_09A7 | predicate << 12, high & ~(1 << 20) | 1 << 20


def count_of(warps: int) -> tuple[int, int]:
    return warps << 32 | 0x00067882, 0


def kernel(*, warps=8, arrivals=(0x8, 0xB), by_producer=2) -> bytes:
    words = [(OTHER, 1), count_of(1), count_of(warps), (EXCH, 0), count_of(warps)]
    words += [arrival(predicate) for predicate in arrivals]
    # A copy's bytes are expected without .A1T0: not an arrival of a consumer.
    words += [(0x0001_8803_08FF_89A7, 0x5E2000800003F & ~(1 << 20))]
    words += [arrival(7)] * by_producer
    return code(*words)


def cubin(**sections: bytes) -> bytes:
    """An ELF file with these kernels' machine code."""
    return elf({f".text.{name}": body for name, body in sections.items()})


def test_arrivals_lose_their_predicate_and_barriers_count_lanes():
    before = cubin(**{NAME: kernel(), "paro_pack": kernel()})
    after, changed = lanes.change(before)
    assert changed == {NAME: lanes.Changed(2, (8, 256))}
    bytes_changed = [
        at for at, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1
    ]
    # The first byte of a kernel is 64 bytes into the file.
    assert bytes_changed == [64 + 2 * 16 + 4, 64 + 2 * 16 + 5, 64 + 5 * 16 + 1, 64 + 6 * 16 + 1]


@pytest.mark.parametrize(
    "other", [{"warps": 4}, {"arrivals": ()}, {"by_producer": 1}, {"by_producer": 3}], ids=str
)
def test_code_of_another_compiler_is_refused(other):
    with pytest.raises(ValueError, match=NAME):
        lanes.change(cubin(**{NAME: kernel(**other)}))


def test_a_file_without_the_kernel_is_refused(tmp_path):
    file = tmp_path / "pack.cubin"
    file.write_bytes(cubin(paro_pack=kernel()))
    with pytest.raises(ValueError, match="must hold a Hopper kernel"):
        lanes.main(str(file))


USUAL = [
    "UMOV UR6, 0x8",
    "UIADD3 UR6, -UR6, 0x100000, URZ",
    "LDS R0, [UR14+0x30900]",
    "@!P3 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [R17+URZ+0x148], RZ",
    "@!P0 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR22+0x198], RZ",
]
LANES = ["UMOV UR6, 0x100", *USUAL[1:3], *(line.partition(" ")[2] for line in USUAL[3:])]


def test_what_may_differ_is_counted():
    found = compare_arrivals.compare(USUAL, LANES)
    assert found == {"instructions": 5, "arrivals": 2, "counts": 1, "else": []}
    assert compare_arrivals.sound(NAME, found)
    assert not compare_arrivals.sound("paro_pack", found)
    same = compare_arrivals.compare(USUAL, USUAL)
    assert compare_arrivals.sound("paro_pack", same) and not compare_arrivals.sound(NAME, same)


@pytest.mark.parametrize(
    "at, line",
    [
        (0, "UMOV UR6, 0x101"),
        (0, "UMOV UR7, 0x100"),
        (2, "LDS R1, [UR14+0x30900]"),
        (3, "SYNCS.ARRIVE.TRANS64.A1T0 RZ, [R17+URZ+0x150], RZ"),
        (4, "@!P1 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR22+0x198], RZ"),
    ],
)
def test_what_else_differs_is_found(at, line):
    other = [*LANES]
    other[at] = line
    found = compare_arrivals.compare(USUAL, other)
    assert len(found["else"]) == 1 and not compare_arrivals.sound(NAME, found)
    assert not compare_arrivals.sound(NAME, compare_arrivals.compare(USUAL, LANES[:-1]))


def test_a_count_that_is_used_elsewhere_is_found():
    usual, other = ([first, "MOV R1, UR6", *rest] for first, *rest in (USUAL, LANES))
    assert compare_arrivals.compare(usual, other)["else"]
