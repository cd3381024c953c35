"""What goes from compiled device code into the library: every kernel in every image."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest
from elf_file import elf

TOOL = Path(__file__).parents[2] / "native" / "cuda" / "tools" / "embed_kernels.py"
spec = importlib.util.spec_from_file_location("embed_kernels", TOOL)
embed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(embed)

PTX = """
.visible .entry paro_one(
\t.param .align 8 .b8 paro_one_param_0[20],
\t.param .u32 paro_one_param_1,
\t.param .u64 paro_one_param_2
)
.maxntid 128
{ ret; }
.visible .entry paro_two(
)
{ ret; }
"""


def cubin(kernels):
    """An ELF file with nothing but the sections that tell kernels and their parameters."""
    sections = {}
    for name, size in kernels.items():
        other = struct.pack("<BBHI", 4, 0x17, 4, 0) + struct.pack("<BBH", 3, 0x1B, 255)
        sections[f".nv.info.{name}"] = other + struct.pack("<BBHIHH", 4, 0x0A, 8, 1, 528, size)
    return elf(sections)


def build(tmp_path, images):
    fatbin = tmp_path / "some.fatbin"
    fatbin.write_bytes(bytes(range(1, 20)))
    files = []
    for name, content in images.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(content)
    output = tmp_path / "some.image.cpp"
    return embed.main([str(one) for one in (output, fatbin, *files)]), output


def test_kernels_and_the_bytes_of_their_parameters():
    assert embed.ptx_kernels(PTX) == {"paro_one": 32, "paro_two": 0}
    wanted = {"paro_one": 32, "paro_two": 0}
    assert embed.cubin_kernels(cubin(wanted)) == wanted


def test_the_source_holds_the_image_and_its_kernels(tmp_path):
    images = {"some.sm_80.cubin": cubin({"paro_one": 32, "paro_two": 0})}
    status, output = build(tmp_path, images | {"some.compute_120.ptx": PTX.encode()})
    text = output.read_text()
    assert status == 0
    assert "0x807060504030201," in text and "0x131211," in text  # little endian, filled up
    assert 'constinit Kernel paro_one(image, "paro_one", 32);' in text
    assert 'image(bytes, "sm_80, compute_120")' in text


@pytest.mark.parametrize("other", ({"paro_one": 32}, {"paro_one": 28, "paro_two": 0}, {}))
def test_images_that_differ_end_the_build(tmp_path, capsys, other):
    first = cubin({"paro_one": 32, "paro_two": 0})
    status, output = build(tmp_path, {"some.sm_80.cubin": first, "some.sm_90a.cubin": cubin(other)})
    assert status == 1 and not output.exists()
    told = capsys.readouterr().err
    assert "some.sm_80.cubin and some.sm_90a.cubin must hold it with the same parameters" in told


def test_code_without_kernels_ends_the_build(tmp_path, capsys):
    assert build(tmp_path, {"some.sm_80.cubin": cubin({})})[0] == 1
    assert "holds no kernel" in capsys.readouterr().err
