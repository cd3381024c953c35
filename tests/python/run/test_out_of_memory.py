"""Memory that runs out at each allocation of ours in turn, and at each call of the core.

Of a small run every allocation is counted: each new tensor that torch makes while the session is at
work, and each call of a function of the core. Then the run is made once for each of them, and that
one fails. On a CPU the allocator never refuses, so the failure is injected: what a GPU raises for
tensors, what the host raises for the core.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from allocations import Allocations
from fake_host import Host, finder
from paroattention import Settings, _core, reference
from paroattention.run import dense_calls
from problems import profile, tensors

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMAS = [1.0, 0.7, 0.5, 0.2, 0.0]
KNOWN = profile(layers=("double.0.0",))
# By what the run does. Each is a function of Host's arguments that differ from a plain first run.
RUNS = {
    "watched, then sparse": {"settings": Settings(observe_steps=1, queries=8)},
    "sparse by a profile": {"settings": Settings(queries=8), "find_profile": finder(KNOWN)[0]},
    "watched with a profile": {
        "settings": Settings(observe_steps=1, queries=8),
        "find_profile": finder(KNOWN)[0],
        "watch": "always",
    },
    "dynamic": {"settings": Settings(observe_steps=1, queries=8, mask="dynamic")},
    "target_error": {"settings": Settings(observe_steps=1, queries=8, density="auto")},
    "dense by ours": {
        "settings": Settings(observe_steps=2, queries=8, end_percent=0.7),
        "dense_steps": "int8",
    },
    "calibration": {"settings": Settings(calibrate=True, queries=8)},
    "exact calibration": {"settings": Settings(calibrate=True, exact=True, queries=8)},
    "heads made denser": {"settings": Settings(observe_steps=1, queries=8), "limit": 0.1},
}


class SmallHost(Host):
    """One layer; what its own attention allocates is the host's."""

    def __init__(self, allocations, **options):
        self.allocations, self.held = allocations, []
        super().__init__(sigmas=SIGMAS, **options)
        self.layers = ["double.0.0"]

    def dense(self, q, k, v):
        self.allocations.of_host = True
        try:
            return reference.dense(q, k, v).float()
        finally:
            self.allocations.of_host = False

    def run(self) -> dict:
        for sigma in SIGMAS[:-1]:
            with self.allocations:
                forward = self.session.begin_forward(sigma)
            qkv = tensors(self.heads, self.layout.length, self.head_dim)
            self.held.extend(weakref.ref(x) for x in qkv)
            with self.allocations:
                out, _ = self.call(forward, "double.0.0", qkv)
            assert out.shape == qkv[0].shape and torch.isfinite(out).all()
        with self.allocations:
            return self.session.finish()


@pytest.fixture
def start(monkeypatch):
    """start(case, at): runs a case whose allocation number `at` fails. (its host, its summary)"""
    # Whether 8 bits are faster than the host's attention depends on the processor.
    monkeypatch.setattr(dense_calls, "fast_at_density_1", lambda q: True)

    def run(case: str, at: int = 0):
        with monkeypatch.context() as patch:
            host = SmallHost(Allocations(patch, at), **RUNS[case])
            return host, host.run()

    return run


def outcome(host, summary) -> tuple:
    """What two equal runs have in common."""
    saved = [one.dump() for one in host.saved]
    return summary["paths"], summary["density"], summary["reasons"], saved


@pytest.mark.parametrize("case", RUNS)
def test_a_run_survives_each_allocation_that_fails(case, start):
    plain = outcome(*start(case))
    host, _ = start(case)
    count = host.allocations.count
    assert count > 30 and outcome(*start(case)) == plain
    for at in range(1, count + 1):
        host, summary = start(case, at)
        assert host.allocations.count >= at
        # Every call was answered and counted, and what failed is told, in a few words.
        assert sum(summary["paths"].values()) == len(SIGMAS) - 1, at
        assert len(summary["reasons"]) <= 3, (at, summary["reasons"])
        assert summary["reasons"], at
        for one in host.saved:
            assert _core.Profile.parse(one.dump()).layer_ids() == ["double.0.0"]
    print(f"{case}: {count} allocations")
    # Nothing of it stays behind: neither tensors nor a state of the process.
    del host
    gc.collect()
    assert outcome(*start(case)) == plain


@pytest.mark.parametrize("case", RUNS)
def test_memory_that_is_gone_for_good_ends_no_run(case, start, monkeypatch):
    """From some allocation on every one fails."""
    host, _ = start(case)
    count, held = host.allocations.count, []
    monkeypatch.setattr(Allocations, "for_good", True)
    for at in range(1, count + 1, max(1, count // 12)):
        host, summary = start(case, at)
        assert sum(summary["paths"].values()) == len(SIGMAS) - 1
        assert (summary["reasons"] and not host.saved) or at > 1
        held += host.held
    del host
    gc.collect()
    assert not any(ref() is not None for ref in held)
