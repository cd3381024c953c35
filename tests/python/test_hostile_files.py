"""Files that somebody made to break us: each refused, the place named, at little cost.

The bounds are 100 ms of processor time and 50 MB. A machine under load gets ten times that time;
memory is the same everywhere. `pytest -s` prints the dearest case of both.
"""

import sys
import tempfile
from pathlib import Path

import hostile_files
import pytest
from paroattention import Profile, _core
from paroattention.__main__ import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
SECONDS, BYTES = 1.0, 50_000_000
LOADERS = {"profile": Profile.load, "capture": _core.load_capture}
COSTS: dict[str, hostile_files.Cost] = {}


@pytest.fixture(scope="module", autouse=True)
def dearest():
    yield
    if not COSTS:
        return
    slow = max(COSTS, key=lambda name: COSTS[name].seconds)
    large = max(COSTS, key=lambda name: COSTS[name].bytes)
    print(
        f"\n{len(COSTS)} refusals: at most {1e3 * COSTS[slow].seconds:.1f} ms ({slow}),"
        f" {COSTS[large].bytes / 1e6:.1f} MB ({large})"
    )


def refused(case: dict, how: str, load) -> str:
    """What was said. The costs are kept."""
    with tempfile.TemporaryDirectory() as folder:
        path = hostile_files.make(case, Path(folder))
        with hostile_files.measured() as cost:
            told = load(path)
    COSTS[f"{case['id']}, {how}"] = cost
    assert cost.seconds < SECONDS, f"{1e3 * cost.seconds:.0f} ms"
    assert cost.bytes < BYTES, f"{cost.bytes / 1e6:.0f} MB"
    assert case["place"] in told
    assert len(told) < 2000
    return told


def by_bindings(case: dict):
    def load(path: Path) -> str:
        with pytest.raises(_core.Error) as error:
            LOADERS[case["file"]](path)
        return str(error.value)

    return load


@pytest.mark.parametrize(
    "case", hostile_files.cases("profile") + hostile_files.cases("capture"), ids=lambda c: c["id"]
)
def test_hostile_files_are_refused(case):
    refused(case, "bindings", by_bindings(case))


@pytest.mark.parametrize("case", hostile_files.cases("profile"), ids=lambda c: c["id"])
def test_the_command_line_says_so_too(case, capsys):
    def load(path: Path) -> str:
        assert main(["profile", "show", str(path)]) == 1
        return capsys.readouterr().err

    told = refused(case, "command line", load)
    assert told.startswith("error: ") and "Traceback" not in told


def test_the_samples_themselves_are_read(tmp_path):
    # Else every case would be refused for the sample's own fault.
    for file, load in LOADERS.items():
        load(hostile_files.make({"id": "sample", "file": file}, tmp_path))


def test_the_table_has_each_case_once():
    names = [case["id"] for case in hostile_files.TABLE["cases"]]
    assert len(set(names)) == len(names) >= 60
    assert all(case["place"] for case in hostile_files.TABLE["cases"])


def test_the_measure_sees_time_and_memory():
    with hostile_files.measured() as cost:
        block = bytearray(60_000_000)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert cost.bytes > BYTES and cost.seconds > 0
