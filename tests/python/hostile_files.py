"""Hostile files made of tests/hostile/table.json, and what refusing one of them costs.

A case starts from a sample and changes its bytes step by step; tests/hostile/README.md lists the
steps. The viewer's tests read the same table (tests/viewer/hostile_files.h).
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path

TABLE = json.loads(
    (Path(__file__).resolve().parents[1] / "hostile" / "table.json").read_text(encoding="utf-8")
)
ENDS = {"profile": ".json", "capture": ".safetensors", "run_log": ".jsonl"}


def cases(file: str) -> list[dict]:
    return [case for case in TABLE["cases"] if case["file"] == file]


def _text_steps(text: bytes, steps: list[list]) -> bytes:
    """The steps that change text: of a profile or a run log itself, of a capture its header."""
    for name, *values in steps:
        if name in ("replace", "repeat", "piece", "hex_in"):
            old = values[0].encode()
            assert old in text, f"the sample does not hold {values[0]}"
            if name == "repeat":
                new = values[1].encode() * values[2]
            elif name == "piece":
                new = TABLE["pieces"][values[1]].encode()
            else:
                new = bytes.fromhex(values[1]) if name == "hex_in" else values[1].encode()
            text = text.replace(old, new, 1)
        elif name in ("whole", "header"):
            text = values[0].encode()
        elif name == "pad":
            text += values[0].encode() * values[1]
    return text


def _byte_steps(whole: bytes, steps: list[list]) -> bytes:
    """The steps that change the file's bytes."""
    for name, *values in steps:
        if name == "keep":
            whole = whole[: values[0]]
        elif name == "drop":
            whole = whole[: -values[0]]
        elif name == "append":
            whole += values[0].encode()
        elif name == "hex":
            whole = bytes.fromhex(values[0])
        elif name == "wide":
            whole = bytes.fromhex(values[1]) + whole.decode().encode(values[0])
        elif name == "size":
            whole = bytes.fromhex(values[0]) + whole[8:]
    return whole


def contents(case: dict) -> bytes:
    """The bytes of a case's file, without the zeros that `grow` adds."""
    samples, steps = TABLE["samples"], case.get("steps", [])
    if case["file"] != "capture":
        text = samples["profile" if case["file"] == "profile" else "run_log"].encode()
        return _byte_steps(_text_steps(text, steps), steps)
    header = _text_steps(samples["header"].encode(), steps)
    inner = json.dumps(samples["profile"])[1:-1].encode()
    header = header.replace(b"@profile", inner, 1)
    data = next((values[0] for name, *values in steps if name == "data"), samples["data"])
    whole = len(header).to_bytes(8, "little") + header + bytes.fromhex(data)
    return _byte_steps(whole, steps)


def make(case: dict, folder: Path) -> Path:
    """The case's file in `folder`, or the path that stands for it."""
    kind = case.get("kind", "file")
    path = folder / ("hostile" + ENDS[case["file"]])
    if kind == "file":
        path.write_bytes(contents(case))
        for name, *values in case.get("steps", []):
            if name == "grow":
                os.truncate(path, values[0])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(folder / "nothing")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind.startswith("path:"):
        path = Path(kind.removeprefix("path:"))
    elif kind.startswith("name:"):
        path = folder / kind.removeprefix("name:")
    elif kind == "long name":
        path = folder / ("x" * 5000)
    else:
        assert kind == "missing", kind
    return path


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {name}")


class Cost:
    seconds = 0.0  # of the processor, in all threads
    bytes = 0  # the highest memory above that at the beginning


@contextmanager
def measured():
    """Processor time and peak memory, which neither another process nor an earlier peak changes."""
    cost = Cost()
    # Freed memory that was not given back would be used again unseen.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun = _resident("VmRSS"), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds = time.process_time() - begun
        cost.bytes = max(0, _resident("VmHWM") - before)
