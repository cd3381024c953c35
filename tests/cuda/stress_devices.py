"""What stress.py needs of a device: a GPU, or a CPU that stands in for one where there is none."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable

import torch
from paroattention import Plan
from paroattention.kernels import cuda, plan_store
from stress_cases import Case, Sizes
from torch.utils._python_dispatch import TorchDispatchMode


class Gpu:
    """The current CUDA device."""

    name = "cuda"
    sizes = Sizes(tokens=3000, text=300, heads=5, batch=3)
    # A tensor of more than 2^31 elements, with its like, fits.
    large = True

    def __init__(self):
        if not torch.cuda.is_available():
            raise SystemExit("stress.py: --device cuda needs a GPU that torch can use (got none)")
        if reason := cuda.load():
            raise SystemExit(f"stress.py: --device cuda needs the CUDA kernels (got: {reason})")
        self.paths = {"auto", "portable", "narrow", "releasing"}
        if torch.cuda.get_device_capability() == (9, 0):
            self.paths.add("hopper")

    def describe(self) -> str:
        return torch.cuda.get_device_name()

    def adapt(self, case: Case) -> Case:
        return case if case.path in self.paths else dataclasses.replace(case, path="auto")

    def keep(self, plan) -> None:
        """Has a plan's words on the device for as long as the plan lives, for every stream."""
        if isinstance(plan, Plan):
            cuda.upload(plan, torch.device("cuda", torch.cuda.current_device()))
        torch.cuda.synchronize()

    def stream(self):
        return torch.cuda.Stream()

    def on(self, stream):
        return torch.cuda.stream(stream)

    def wait(self) -> None:
        torch.cuda.synchronize()

    def capture(self, call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable]:
        """A graph of the call: its output, and what fills that anew from the call's inputs."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = call()
        return out, graph.replay

    def peak(self, call: Callable[[], object]) -> int:
        """Bytes that the allocator takes from the driver for the call."""
        self._release()
        before = torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_reserved() - before

    @contextlib.contextmanager
    def limited(self, spare: int):
        """Within it the allocator gets that many bytes more from the driver, and then no more."""
        # The bytes that a fraction is of are found by trying: which total torch takes is its own.
        probe, total = 64 << 20, torch.cuda.get_device_properties(0).total_memory
        self._release()
        low, high = 0.0, 1.0
        while (high - low) * total > 1 << 20:
            middle = (low + high) / 2
            torch.cuda.set_per_process_memory_fraction(middle)
            try:
                torch.empty(probe, dtype=torch.uint8, device="cuda")
                high = middle
            except torch.OutOfMemoryError:
                low = middle
            torch.cuda.empty_cache()
        fraction = high + (spare - probe) / total
        torch.cuda.set_per_process_memory_fraction(min(max(fraction, 0.0), 1.0))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    @contextlib.contextmanager
    def few_plans(self):
        """Within it a plan's words come to the device for each call, the next one's beside it."""
        device = torch.device("cuda", torch.cuda.current_device())
        before = plan_store.store(device)
        copies = plan_store.CudaCopies(device)
        plan_store._stores[device] = plan_store.PlanStore(copies, resident_bytes=0)
        try:
            yield
        finally:
            torch.cuda.synchronize()
            plan_store._stores[device] = before

    def _release(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


class _Allocations(TorchDispatchMode):
    """Counts the bytes of new tensors, and refuses what is more than `limit`."""

    NEW = ("empty", "clone", "_to_copy", "zeros", "full")

    def __init__(self, limit: float):
        super().__init__()
        self.limit, self.taken = limit, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.NEW and isinstance(out, torch.Tensor):
            self.taken += out.numel() * out.element_size()
            if self.taken > self.limit:
                raise torch.OutOfMemoryError("stress.py gives no more memory")
        return out


class Cpu:
    """Streams that are one, graphs that are their calls again, memory that only calls count."""

    name = "cpu"
    sizes = Sizes(tokens=400, text=90, heads=3, batch=2)
    large = False
    paths = frozenset({"auto", "releasing"})

    def describe(self) -> str:
        return f"CPU, {torch.get_num_threads()} threads"

    def adapt(self, case: Case) -> Case:
        return case if case.path in self.paths else dataclasses.replace(case, path="auto")

    def keep(self, plan) -> None:
        pass

    def stream(self):
        return threading.Lock()

    def on(self, stream):
        return stream

    def wait(self) -> None:
        pass

    def capture(self, call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable]:
        out = call()
        return out, lambda: out.copy_(call())

    def peak(self, call: Callable[[], object]) -> int:
        with _Allocations(float("inf")) as mode:
            call()
        return mode.taken

    def limited(self, spare: int):
        return _Allocations(spare)

    def few_plans(self):
        return contextlib.nullcontext()


DEVICES = {"cuda": Gpu, "cpu": Cpu}
