"""Nothing thrown leaves the operators' library: refusals come as a status and a text.

Needs no GPU: the library's own operators refuse a CPU's tensors by name. PARO_TORCH_OPS names a
built library; .ci/cuda runs this on one that shares its C++ runtime and on one that holds its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from paroattention.kernels import operators

LIBRARY = os.environ.get("PARO_TORCH_OPS")
pytestmark = pytest.mark.skipif(not LIBRARY, reason="PARO_TORCH_OPS names no library")

NAMES = (*operators.FAKES, "attention.broken", "attention_packed.broken")


@pytest.fixture(scope="module")
def library():
    if not hasattr(torch.ops.paro_native, "attention"):
        operators.load(Path(LIBRARY))
    return operators._Library(Path(LIBRARY))


def _overload(name):
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.paro_native, packet), overload or "default")


def _value(argument):
    kind = str(argument.type)
    if kind == "Tensor":
        return torch.zeros(1, 2, 70, 64)
    if argument.name in ("head_dim", "block_q", "block_kv"):
        return 64
    return {"int": 1, "float": 0.1, "bool": True}.get(kind)  # None for what is optional


def _call(name, operator=None):
    native = _overload(name)
    return (operator or native)(*map(_value, native._schema.arguments))


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_is_a_status_and_a_text(library, name):
    result = _call(name)
    assert result is None
    assert library.status() == 1
    text = str(library.error(library.status()))
    first = _overload(name)._schema.arguments[0].name
    assert text == f"{first} must be on a CUDA device (got a tensor on the CPU)"


@pytest.mark.parametrize("name", NAMES)
def test_python_raises_what_the_library_says(library, name):
    raising = operators._raising(_overload(name), library)
    with pytest.raises(RuntimeError, match="must be on a CUDA device"):
        _call(name, raising)


def test_memory_that_is_missing_is_told_apart(library):
    assert isinstance(library.error(2), torch.OutOfMemoryError)
    assert not isinstance(library.error(1), torch.OutOfMemoryError)


def test_each_thread_has_its_own_text(library):
    """A thread that refuses k does not hear of another's q."""
    found, names = {}, {"pack_keys": "k", "pack_queries": "q", "attention_packed": "queries"}
    start = threading.Barrier(len(names))

    def refuse(name):
        start.wait()
        for _ in range(500):
            _call(name)
            text = str(library.error(library.status()))
            found.setdefault(name, set()).add(text.split()[0])

    threads = [threading.Thread(target=refuse, args=(name,)) for name in names]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == {name: {argument} for name, argument in names.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_lets_go_of_its_tensors(library, name):
    native = _overload(name)
    values = [_value(argument) for argument in native._schema.arguments]
    tensors = [x for x in values if isinstance(x, torch.Tensor)]
    held = lambda: [torch._C._storage_Use_Count(x.untyped_storage()._cdata) for x in tensors]  # noqa: E731
    before = held()
    for _ in range(3):
        native(*values)
    assert held() == before


def test_registering_twice_is_refused_and_told(library):
    assert library.register() == 1
    assert "torch must take the operators" in str(library.error(1))
    assert _call("pack_queries") is None


def test_a_library_of_something_else_says_so(tmp_path):
    """Loaded in a process of its own: what it did to this one could not be told."""
    script = f"""
import torch
from pathlib import Path
from paroattention.kernels import cuda
cuda.LIBRARY = Path({str(Path(torch.__file__).parent / "lib" / "libc10.so")!r})
print(cuda.load())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "the CUDA kernels do not load" in done.stdout
        and "not the operators' library" in done.stdout
    )
