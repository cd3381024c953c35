"""Which torch the package runs with, asked before it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paroattention import torch_version


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        (None, "needs torch 2.9 or newer, and this Python has none"),
        ("2.8.0+cu128", "this Python has 2.8.0+cu128: update ComfyUI with its torch"),
        ("1.13.1", "this Python has 1.13.1"),
        ("2.9.0", ""),
        ("2.15.0a0+git123", ""),
        ("3.0.0", ""),
        ("unknown", ""),
    ],
)
def test_an_old_torch_is_told(installed, told):
    assert told in torch_version.problem(installed)
    assert bool(told) == bool(torch_version.problem(installed))


def test_this_one_is_new_enough():
    assert not torch_version.problem(torch.__version__)


@pytest.mark.parametrize(
    ("module", "told"),
    [("raise ModuleNotFoundError(name='torch')", "has none"), ("__version__ = '2.8.0'", "2.8.0")],
    ids=["none", "old"],
)
def test_the_import_ends_with_that_sentence(tmp_path, module, told):
    (tmp_path / "torch.py").write_text(module)
    package = str(Path(torch_version.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", "import paroattention"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), package))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: paroattention needs torch 2.9") and told in last
