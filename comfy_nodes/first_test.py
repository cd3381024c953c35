"""The self-test of a GPU's kernels, in the background, the first time that ComfyUI uses the GPU."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import torch

from .folders import private_folder
from .native import paro

# A run that begins during the test waits so long for it, in seconds: most GPUs take under 1.
PATIENCE = 10
log = logging.getLogger("paroattention")
_lock = threading.Lock()
_tests: dict[int, _Test] = {}


class _Test(threading.Thread):
    """Of one GPU. told: what is wrong, a line for each kernel, once it has ended."""

    def __init__(self, device: torch.device):
        super().__init__(name=f"paro self-test {device}", daemon=True)
        self._device, self.told = device, []

    def run(self) -> None:
        self.told = paro.tested_once.check(self._device, results_file())
        for line in self.told:
            log.warning("PARO: %s", line)


def results_file() -> Path:
    """Where results are kept."""
    return private_folder() / "self_test.json"


def begin(device) -> None:
    """Tests a device's kernels in the background, or reads what is known of them; once a process.
    Nothing to do for what is no GPU."""
    if paro is not None and getattr(device, "type", "") == "cuda":
        _of(device)


def told(device) -> list[str]:
    """What the user of a run on a device is told; waits for a test that has not ended."""
    if paro is None or getattr(device, "type", "") != "cuda":
        return []
    test = _of(device)
    test.join(PATIENCE)
    return [f"the self-test on {device} has not ended yet"] if test.is_alive() else list(test.told)


def _of(device) -> _Test:
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:
        if index not in _tests:
            _tests[index] = _Test(torch.device("cuda", index))
            _tests[index].start()
        return _tests[index]
