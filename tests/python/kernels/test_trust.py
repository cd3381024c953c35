"""Kernels that a self-test found wrong are not used, and no kernel is tested twice.

The GPU is a stand-in: what is asked of torch about it is answered here.
"""

import json

import pytest
import torch
from paroattention.kernels import capability, cuda, self_test, tested_once, trust
from paroattention.kernels.self_test import NO_MEMORY, Result
from paroattention.kernels.trust import Kernel

GPU = torch.device("cuda", 0)
KERNELS = [
    Kernel(path, precision, head_dim, tile)
    for path, precision in (("hopper", "int8"), ("portable", "int8"), ("portable", "bf16"))
    for head_dim in (64, 128)
    for tile in (64, 128)
]


@pytest.fixture(autouse=True)
def hopper(monkeypatch):
    """Two GPUs of compute capability 9.0 whose kernels are all there."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda, "load", lambda: None)
    monkeypatch.setattr(self_test, "kernels", lambda device: KERNELS)
    monkeypatch.setattr(tested_once, "build", lambda device: "a GPU and its driver")
    monkeypatch.setattr(tested_once, "_alive", lambda device: True)
    yield
    trust.forget()


class Query:
    """What `unsupported` asks of a tensor."""

    device, dtype = GPU, torch.bfloat16

    def __init__(self, head_dim):
        self.shape = (1, 1, 1, head_dim)


class Tile:
    def __init__(self, block_q, block_kv):
        self.block_q, self.block_kv = block_q, block_kv


def test_everything_is_trusted_until_a_test_says_otherwise():
    assert trust.path(GPU, "int8", 128, (128, 128)) == "auto"
    assert cuda.preferred_tile(GPU) == 128 and cuda.preferred_tile(GPU, "bf16") == 64
    assert trust.retired(GPU) == {} and trust.retired(torch.device("cpu")) == {}


def test_a_wrong_hopper_kernel_leaves_the_portable_one():
    trust.retire(GPU, Kernel("hopper", "int8", 128, 128), "is off")
    assert trust.path(GPU, "int8", 128, (128, 128)) == "portable"
    assert trust.path(torch.device("cuda"), "int8", 128, (128, 128)) == "portable"
    for other in (("int8", 64, (128, 128)), ("int8", 128, (64, 64)), ("bf16", 128, (128, 128))):
        assert trust.path(GPU, *other) == "auto"
    # Blocks that are not square were not tested.
    assert trust.path(GPU, "int8", 128, (64, 128)) == "auto"
    assert trust.path(torch.device("cuda", 1), "int8", 128, (128, 128)) == "auto"
    assert cuda.preferred_tile(GPU) == 128


def test_a_tile_without_a_right_kernel_is_not_chosen():
    trust.retire(GPU, Kernel("hopper", "int8", 128, 128), "is off")
    trust.retire(GPU, Kernel("portable", "int8", 128, 128), "is off")
    assert trust.path(GPU, "int8", 128, (128, 128)) is None
    assert cuda.preferred_tile(GPU) == 64 and cuda.preferred_tile(GPU, "bf16") == 64
    assert not capability.unsupported(Query(128), Tile(64, 64), "int8")
    told = capability.unsupported(Query(128), Tile(128, 128), "int8")
    assert "found the int8 kernel for head_dim 128 wrong on this GPU" in told
    assert not capability.unsupported(Query(128), Tile(128, 128), "bf16")
    # The self-test itself asks by path, and gets it.
    assert not capability.unsupported(Query(128), Tile(128, 128), "")


def test_without_any_right_kernel_the_usual_tile_stays():
    for kernel in KERNELS:
        trust.retire(GPU, kernel, "is off")
    assert cuda.preferred_tile(GPU) == 128
    assert trust.path(GPU, "fp32", 64, (64, 64)) is None


class Checks:
    """The self-test's place. faults: by kernel, text or an error that is raised."""

    def __init__(self, monkeypatch, faults=None):
        self.asked, self.faults = [], faults or {}
        monkeypatch.setattr(self_test, "check", self)

    def __call__(self, device, kernel):
        self.asked.append(kernel)
        fault = self.faults.get(kernel, "")
        if isinstance(fault, BaseException):
            raise fault
        return Result(*(getattr(kernel, name) for name in Kernel.__annotations__), 0.01, fault)


WRONG = KERNELS[2]


def test_each_kernel_is_tested_once(monkeypatch, tmp_path):
    file = tmp_path / "deep" / "self_test.json"
    checks = Checks(monkeypatch, {WRONG: "dense attention is off by 0.500"})
    told = tested_once.check(GPU, file)
    assert told == [f"the kernel {WRONG.name} is not used on this GPU: {checks.faults[WRONG]}"]
    assert checks.asked == KERNELS and trust.retired(GPU) == checks.faults
    # The next process.
    trust.forget()
    again = Checks(monkeypatch)
    assert tested_once.check(GPU, file) == told
    assert again.asked == [] and list(trust.retired(GPU)) == [WRONG]
    # Another driver: what was wrong may be right.
    trust.forget()
    monkeypatch.setattr(tested_once, "build", lambda device: "a GPU and another driver")
    assert tested_once.check(GPU, file) == [] and again.asked == KERNELS
    assert set(json.loads(file.read_text())["builds"]) == {
        "a GPU and its driver", "a GPU and another driver"
    }  # fmt: skip


def test_a_kernel_that_ends_the_process_twice_is_not_tried_a_third_time(monkeypatch, tmp_path):
    file = tmp_path / "self_test.json"
    for count in (1, 2):
        ends = Checks(monkeypatch, {WRONG: KeyboardInterrupt()})
        with pytest.raises(KeyboardInterrupt):
            tested_once.check(GPU, file)
        assert ends.asked == KERNELS[:3] if count == 1 else ends.asked == [WRONG]
    rest = Checks(monkeypatch)
    told = tested_once.check(GPU, file)
    assert "was begun 2 times and never ended" in told[0] and WRONG.name in told[0]
    assert rest.asked == KERNELS[3:] and list(trust.retired(GPU)) == [WRONG]


def test_a_gpu_that_is_lost_is_told_and_the_rest_is_tested_after_a_restart(monkeypatch, tmp_path):
    file = tmp_path / "self_test.json"
    Checks(monkeypatch, {WRONG: "it failed: CUDA error: an illegal memory access"})
    monkeypatch.setattr(tested_once, "_alive", lambda device: False)
    told = tested_once.check(GPU, file)
    assert len(told) == 2 and told[1] == tested_once.LOST and WRONG in trust.retired(GPU)
    rest = Checks(monkeypatch)
    monkeypatch.setattr(tested_once, "_alive", lambda device: True)
    assert tested_once.check(GPU, file) == told[:1] and rest.asked == KERNELS[3:]


def test_memory_that_runs_out_says_nothing_of_a_kernel(monkeypatch, tmp_path):
    file = tmp_path / "self_test.json"
    Checks(monkeypatch, {WRONG: NO_MEMORY})
    assert tested_once.check(GPU, file) == [] and trust.retired(GPU) == {}
    rest = Checks(monkeypatch)
    assert tested_once.check(GPU, file) == [] and rest.asked == KERNELS[2:]


BROKEN = {
    "no JSON": "{",
    "another schema": '{"schema": "paro.self-test/9", "builds": {"a GPU and its driver": {}}}',
    "no table": '{"schema": "paro.self-test/1", "builds": [1]}',
    "no records": '{"schema": "paro.self-test/1", "builds": {"a GPU and its driver": [1]}}',
    "odd values": json.dumps({
        "schema": "paro.self-test/1",
        "builds": {"a GPU and its driver": {KERNELS[0].name: 1, KERNELS[1].name: {"fault": 1,
                                            "begun": "x"}}},
    }),
    "deep": "[" * 100000,
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_as_none(monkeypatch, tmp_path, content):
    file = tmp_path / "self_test.json"
    file.write_text(BROKEN[content])
    checks = Checks(monkeypatch)
    assert tested_once.check(GPU, file) == [] and checks.asked == KERNELS
    assert Checks(monkeypatch).asked == [] and tested_once.check(GPU, file) == []


def test_a_folder_that_cannot_be_written_loses_the_memory_alone(monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    checks = Checks(monkeypatch, {WRONG: "is off"})
    assert len(tested_once.check(GPU, tmp_path / "taken" / "self_test.json")) == 1
    assert checks.asked == KERNELS and WRONG in trust.retired(GPU)


def test_old_builds_are_dropped(monkeypatch, tmp_path):
    file = tmp_path / "self_test.json"
    for number in range(20):
        Checks(monkeypatch)
        monkeypatch.setattr(tested_once, "build", lambda device, number=number: f"build {number}")
        tested_once.check(GPU, file)
    assert list(json.loads(file.read_text())["builds"]) == [f"build {n}" for n in range(4, 20)]


def test_what_has_no_kernels_has_nothing_to_test(monkeypatch, tmp_path):
    checks = Checks(monkeypatch)
    assert tested_once.check(torch.device("cpu"), tmp_path / "a") == []
    monkeypatch.setattr(self_test, "kernels", lambda device: [])
    assert tested_once.check(GPU, tmp_path / "a") == [] and checks.asked == []


def test_what_goes_wrong_around_the_test_is_told(monkeypatch, tmp_path):
    def fails(device):
        raise RuntimeError("no driver")

    monkeypatch.setattr(tested_once, "build", fails)
    told = tested_once.check(GPU, tmp_path / "a")
    assert told == ["the self-test of cuda:0 could not run: no driver"]
