"""The self-test of a GPU's kernels, once for each GPU, driver and build, remembered in a file.

A kernel that ends the process, or after which the GPU takes no more calls, is known at the next
start by the mark that is written before its test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

import torch

from .. import _core
from . import cuda, driver, self_test, trust

SCHEMA = "paro.self-test/1"
# Tests of a kernel that may begin and not end: a program can be closed during one.
_TRIES = 2
# Devices with their drivers and builds that are remembered, the newest last.
_KEPT = 16
LOST = "the GPU takes no more calls after the self-test: restart ComfyUI"
_lock = threading.Lock()


def check(device: torch.device, file: Path) -> list[str]:
    """Tests what `file` has no result of, writes the results there and retires what is wrong.

    device: a GPU, by its index. Returns a line for each kernel that is not to be trusted, for the
    user; never raises. A file
    that cannot be read or written is as none: then every process tests anew.
    """
    with _lock:
        try:
            return _check(device, file)
        except Exception as error:
            return [f"the self-test of {device} could not run: {self_test.first_line(error)}"]


def build(device: torch.device) -> str:
    """What a result holds for: GPU, driver, torch, and the library to the byte."""
    major, minor = torch.cuda.get_device_capability(device)
    library = hashlib.sha256(cuda.LIBRARY.read_bytes()).hexdigest()[:16]
    return (
        f"{torch.cuda.get_device_name(device)} (sm_{major}{minor}), driver {driver.version()},"
        f" torch {torch.__version__}, paroattention {_core.__version__} {library}"
    )


def _check(device: torch.device, file: Path) -> list[str]:
    kernels = self_test.kernels(device)
    if device.type != "cuda" or not kernels:
        return []
    book, told = _Book(file, build(device)), []
    for kernel in kernels:
        fault, lost = book.fault(kernel), False
        if fault is None:
            book.begin(kernel)
            fault = self_test.check(device, kernel).fault
            if fault == self_test.NO_MEMORY:
                # Says nothing of the kernel.
                book.leave(kernel)
                return told
            lost = bool(fault) and not _alive(device)
            book.end(kernel, fault)
        if fault:
            trust.retire(device, kernel, fault)
            told.append(f"the kernel {kernel.name} is not used on this GPU: {fault}")
        if lost:
            return [*told, LOST]
    return told


def _alive(device: torch.device) -> bool:
    """Whether the device still takes calls: some errors end that until the process does."""
    try:
        torch.zeros(1, device=device).item()
        return True
    except Exception:
        return False


class _Book:
    """The file's part on one build: a record by each kernel's name, {"fault": text, "" where it is
    right} or {"begun": tests that have not ended}."""

    def __init__(self, file: Path, build: str):
        self._file, self._build = file, build
        self._records: dict[str, dict] = dict(self._read().get(build, {}))

    def fault(self, kernel: trust.Kernel) -> str | None:
        """Of an earlier test; None where this kernel is still to be tested."""
        record = self._records.get(kernel.name, {})
        if isinstance(record.get("fault"), str):
            return record["fault"]
        if self._begun(kernel) >= _TRIES:
            return f"its self-test was begun {_TRIES} times and never ended"
        return None

    def begin(self, kernel: trust.Kernel) -> None:
        self._set(kernel, {"begun": self._begun(kernel) + 1})

    def end(self, kernel: trust.Kernel, fault: str) -> None:
        self._set(kernel, {"fault": fault})

    def leave(self, kernel: trust.Kernel) -> None:
        self._set(kernel, {})

    def _begun(self, kernel: trust.Kernel) -> int:
        count = self._records.get(kernel.name, {}).get("begun", 0)
        return count if isinstance(count, int) else 0

    def _set(self, kernel: trust.Kernel, record: dict) -> None:
        self._records[kernel.name] = record
        # Read anew: another process may have written about another GPU.
        builds = self._read()
        builds.pop(self._build, None)
        builds[self._build] = self._records
        newest = dict(list(builds.items())[-_KEPT:])
        text = json.dumps({"schema": SCHEMA, "builds": newest}, indent=1)
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, self._file)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict]:
        try:
            held = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        builds = held.get("builds") if isinstance(held, dict) else None
        if not isinstance(builds, dict) or held.get("schema") != SCHEMA:
            return {}
        return {name: _records(found) for name, found in builds.items()}


def _records(found) -> dict[str, dict]:
    """What a file says of one build, without what is no record."""
    if not isinstance(found, dict):
        return {}
    return {name: record for name, record in found.items() if isinstance(record, dict)}
