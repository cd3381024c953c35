"""What the C++ core throws comes to Python as the exception that was meant, next to torch.

pybind11 modules of a process share their translators of exceptions; this one's are its own, since
its C++ runtime may be its own (PARO_STATIC_RUNTIME).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from paroattention import Error, _core


def test_a_refusal_is_an_error_and_a_value_error():
    with pytest.raises(Error, match=r"grid.f must be at least 1 \(got 0\)") as caught:
        _core.Plan((0, 2, 3), prefix=0, suffix=0, block_q=64, block_kv=64, heads=[])
    assert isinstance(caught.value, ValueError)


def test_a_wrong_type_is_a_type_error():
    with pytest.raises(TypeError):
        _core.Profile.parse(7)


def test_a_place_outside_is_an_index_error():
    bins = _core.Bins.even((2, 3, 4))
    with pytest.raises(IndexError):
        bins.F[len(bins.F)]


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises((Error, OSError), match="nowhere"):
        _core.Profile.load(tmp_path / "nowhere.json")


def test_errors_of_torch_stay_torchs():
    with pytest.raises(Error):
        _core.Profile.parse("{")
    with pytest.raises(RuntimeError, match="shape"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    with pytest.raises(IndexError):
        torch.zeros(2)[5]


def test_threads_refuse_at_once():
    from concurrent.futures import ThreadPoolExecutor

    def refuse(index):
        try:
            _core.Profile.parse("[" * (index + 1))
        except Error as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(refuse, range(400)))


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("nm") or not shutil.which("readelf"),
    reason="no binutils",
)
def test_the_module_exports_its_entry_point_alone():
    script = Path(__file__).parents[1] / "check_exports.py"
    done = subprocess.run(
        [sys.executable, str(script), _core.__file__], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_masks_of_a_wrong_shape_are_refused():
    with pytest.raises((Error, TypeError, ValueError)):
        _core.BlockMask(np.zeros((2, 2, 2), dtype=bool))
