"""What tests/cuda/stress.py asks of a GPU, on a torch.cuda that does nothing or only counts."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from stress_modules import stress_devices, stress_sections, stress_tally


@pytest.mark.parametrize("other_total", [1.0, 0.995, 1.02])
def test_a_gpus_memory_is_limited_to_what_is_asked_for(monkeypatch, other_total):
    """torch may take the fraction of another total than the one that it tells."""
    told, reserved = 100 << 30, 7 << 30
    state = SimpleNamespace(fraction=1.0)

    class OutOfMemory(RuntimeError):
        pass

    def empty(count, **options):
        if reserved + count > state.fraction * told * other_total:
            raise OutOfMemory

    def set_fraction(fraction):
        assert isinstance(fraction, float) and 0 <= fraction <= 1
        state.fraction = fraction

    fake = SimpleNamespace(
        synchronize=lambda: None,
        empty_cache=lambda: None,
        set_per_process_memory_fraction=set_fraction,
        get_device_properties=lambda device: SimpleNamespace(total_memory=told),
    )
    names = {"cuda": fake, "empty": empty, "OutOfMemoryError": OutOfMemory, "uint8": torch.uint8}
    monkeypatch.setattr(stress_devices, "torch", SimpleNamespace(**names))
    gpu = stress_devices.Gpu.__new__(stress_devices.Gpu)
    for spare in (0, 5 << 20, 300 << 20):
        with gpu.limited(spare):
            room = state.fraction * told * other_total - reserved
            # As near as the two totals are, and as the allocator's own steps of 2 MiB.
            assert abs(room - spare) <= (2 << 20) + 0.03 * spare
        assert state.fraction == 1.0


class FakeCuda(SimpleNamespace):
    """torch.cuda of a GPU on which nothing happens: what is called on it is kept."""

    def __init__(self):
        super().__init__(called=[])
        told = SimpleNamespace(total_memory=1 << 30)
        for name, value in {
            "is_available": True, "get_device_capability": (9, 0), "current_device": 0,
            "get_device_name": "fake", "synchronize": None, "empty_cache": None,
            "memory_reserved": 1000, "max_memory_reserved": 5000, "reset_peak_memory_stats": None,
            "get_device_properties": told, "Stream": object(),
            "CUDAGraph": SimpleNamespace(replay=lambda: self.called.append("replay")),
        }.items():  # fmt: skip
            setattr(self, name, self._telling(name, value))
        self.stream = lambda stream: contextlib.nullcontext(self.called.append("stream"))
        self.graph = lambda graph: contextlib.nullcontext(self.called.append("graph"))

    def _telling(self, name, value):
        return lambda *arguments: (self.called.append(name), value)[1]


@pytest.fixture
def fake_gpu(monkeypatch):
    fake, uploads = FakeCuda(), []
    names = {name: getattr(torch, name) for name in ("device", "Tensor", "OutOfMemoryError")}
    monkeypatch.setattr(stress_devices, "torch", SimpleNamespace(cuda=fake, **names))
    upload = SimpleNamespace(load=lambda: None, upload=lambda plan, device: uploads.append(device))
    monkeypatch.setattr(stress_devices, "cuda", upload)
    gpu = stress_devices.Gpu()
    assert gpu.paths == {"auto", "portable", "narrow", "releasing", "hopper"}
    assert gpu.describe() == "fake"
    stores = {torch.device("cuda", 0): "usual"}
    given = SimpleNamespace(
        store=stores.get, _stores=stores, CudaCopies=lambda device: device,
        PlanStore=lambda copies, resident_bytes: (copies, resident_bytes),
    )  # fmt: skip
    monkeypatch.setattr(stress_devices, "plan_store", given)
    gpu.name, gpu.sizes, gpu.paths = "cpu", stress_devices.Cpu.sizes, stress_devices.Cpu.paths
    gpu.large, gpu.uploads = False, uploads
    return gpu, fake


def test_what_a_gpu_is_asked_for(fake_gpu):
    """The lines that only a GPU runs, on a torch.cuda that does nothing."""
    gpu, fake = fake_gpu
    tally = stress_tally.Tally()
    context = stress_sections.Context(gpu, tally)
    for section in ("random", "streams", "threads", "allocator", "large"):
        assert stress_sections.SECTIONS[section][0](context, 4) == [], section
    assert fake.called.count("Stream") == 8 and fake.called.count("stream") >= 4 * 7 + 4
    assert "synchronize" in fake.called and torch.device("cuda", 0) in gpu.uploads
    # A graph whose replay does nothing is stale.
    found = stress_sections.graphs_round(context, 4)
    assert fake.called.count("graph") == 1 and fake.called.count("replay") == 3
    assert "replay 1 must give the call's bits (got others)" in found
    assert stress_sections.plans_round(context, 4) == []
    assert gpu.peak(lambda: fake.called.append("call")) == 4000
    assert fake.called[-3:] == ["call", "synchronize", "max_memory_reserved"]


def test_plans_come_and_go_only_for_a_while(fake_gpu):
    gpu, _ = fake_gpu
    device, stores = torch.device("cuda", 0), stress_devices.plan_store._stores
    with pytest.raises(ValueError), gpu.few_plans():
        assert stores[device] == (device, 0)
        raise ValueError
    assert stores[device] == "usual"


def test_a_gpu_without_kernels_or_none_is_told(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(stress_devices, "torch", SimpleNamespace(cuda=fake))
    no_kernels = SimpleNamespace(load=lambda: "this build has no CUDA kernels")
    monkeypatch.setattr(stress_devices, "cuda", no_kernels)
    with pytest.raises(SystemExit, match="needs the CUDA kernels"):
        stress_devices.Gpu()
    fake.is_available = lambda: False
    with pytest.raises(SystemExit, match="needs a GPU that torch can use"):
        stress_devices.Gpu()
