"""ELF files for tests of what reads cubins."""

from __future__ import annotations

import struct


def elf(sections: dict[str, bytes]) -> bytes:
    """A file of 64 bits with nothing but these sections, the first at 64 bytes."""
    contents = [("", b""), *sections.items()]
    names = b"".join(name.encode() + b"\0" for name, _ in contents) + b".names\0"
    contents.append((".names", names))
    body, headers = b"", b""
    for name, content in contents:
        at = names.index(name.encode() + b"\0")
        headers += struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(content), 0, 0, 1, 0)
        body += content
    head = bytearray(64)
    struct.pack_into("<Q", head, 40, 64 + len(body))
    struct.pack_into("<HHH", head, 58, 64, len(contents), len(contents) - 1)
    return bytes(head) + body + headers
