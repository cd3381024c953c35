"""GPU tests. `python tests/cuda/run.py` runs them and keeps what they measured in results/."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "python"), str(HERE)]

from paroattention.kernels import cuda  # noqa: E402

NEED_GPU = (
    "test_numerics.py",
    "test_operators.py",
    "test_refusals.py",
    "test_observe.py",
    "test_found_masks.py",
    "test_comfy_placement.py",
    "test_broken_output.py",
)


def pytest_collection_modifyitems(items):
    reason = None if torch.cuda.is_available() else "no GPU that torch can use"
    reason = reason or cuda.load()
    if reason:
        for item in (item for item in items if item.path.name in NEED_GPU):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _clean():
    """A test that leaves the device broken must not pass."""
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


_measured: dict[str, object] = {}


@pytest.fixture
def measured(request):
    """measured(value): kept under the test's name, at once: a run that is cut short keeps it."""

    def keep(value):
        _measured[request.node.name] = value
        target = os.environ.get("PARO_MEASURED")
        if target:
            # pytest-xdist: a file for each worker.
            path = Path(target, os.environ.get("PYTEST_XDIST_WORKER", "all") + ".json")
            path.write_text(json.dumps(_measured, indent=1) + "\n")

    return keep
