"""tests/ itself on the path: tolerances.py serves other test folders too. So does tests/faults."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))


@pytest.fixture
def one_thread():
    """Of torch's, for many tiny calls: a second thread would only wait for the first one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
