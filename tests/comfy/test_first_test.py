"""The self-test of a new GPU: in the background, once, and its verdict on the node of every run.

The GPU is a stand-in, and so is the test itself (tests/python/kernels/test_trust.py has the real
one).
"""

import threading
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import harness
import pytest
import torch

GPU = torch.device("cuda", 0)


@pytest.fixture
def first_test(monkeypatch):
    module = harness.part("first_test")
    monkeypatch.setattr(module, "_tests", {})
    return module


@pytest.fixture
def check(monkeypatch, first_test):
    """The test's place. go: lets it end; asked: with what it was called."""
    place = SimpleNamespace(go=threading.Event(), asked=[], told=[])

    def run(device, file):
        place.asked.append((device, file))
        assert place.go.wait(30)
        return place.told

    monkeypatch.setattr(harness.part("native").paro.tested_once, "check", run)
    yield place
    place.go.set()


def test_it_runs_once_in_the_background_and_every_run_is_told(first_test, check, caplog):
    check.told = ["the kernel of this test is not used on this GPU: is off"]
    first_test.begin(GPU)
    first_test.begin(GPU)
    assert len(check.asked) == 1 and not caplog.records
    check.go.set()
    assert first_test.told(GPU) == check.told == first_test.told(GPU)
    assert [record.getMessage() for record in caplog.records] == [f"PARO: {check.told[0]}"]
    assert check.asked == [(GPU, first_test.results_file())]


def test_a_run_does_not_wait_for_ever(first_test, check, monkeypatch):
    monkeypatch.setattr(first_test, "PATIENCE", 0.01)
    assert first_test.told(GPU) == ["the self-test on cuda:0 has not ended yet"]
    check.go.set()
    monkeypatch.setattr(first_test, "PATIENCE", 30)
    assert first_test.told(GPU) == []


def test_every_gpu_has_its_own(first_test, check):
    check.go.set()
    for index in (0, 1, 0):
        first_test.told(torch.device("cuda", index))
    assert [device.index for device, _ in check.asked] == [0, 1]


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("meta"), None])
def test_what_is_no_gpu_needs_none(first_test, check, device):
    first_test.begin(device)
    assert first_test.told(device) == [] and not check.asked


def test_the_results_lie_where_no_route_serves_them(first_test, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    file = first_test.results_file()
    assert file == tmp_path / "__paro" / "self_test.json"
    # As on a ComfyUI that has no such folders.
    monkeypatch.delattr(folder_paths, "get_system_user_directory")
    assert first_test.results_file() == Path(file)


@pytest.mark.usefixtures("folders")
def test_a_run_tells_it_on_the_node(first_test, model, folders, monkeypatch):
    line = "the kernel of this test is not used on this GPU: is off"
    monkeypatch.setattr(first_test, "told", lambda device: [line])
    harness.sample(harness.paro(model))
    assert line in folders.last()["reasons"]


def test_it_begins_as_comfyui_loads_the_plugin(first_test, monkeypatch):
    begun = []
    monkeypatch.setattr(first_test, "begin", begun.append)
    import asyncio

    asyncio.run(harness.plugin().comfy_entrypoint())
    assert begun == [torch.device("cpu")]
