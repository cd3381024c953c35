"""The self-test: it passes where kernels are right, and says which one is not."""

import pytest
import torch
from paroattention.kernels import self_test


def test_the_kernels_of_this_processor_compute_rightly():
    results = self_test.run("cpu")
    assert len(results) == 8 and not any(one.fault for one in results)
    assert all(0 < one.error < self_test.LIMITS[one.precision] / 1.4 for one in results)
    assert {(one.head_dim, one.tile) for one in results} == {
        (64, 64), (64, 128), (128, 64), (128, 128)
    }  # fmt: skip


def broken(change, **only):
    """attention whose output is changed for some calls."""
    real = self_test.attention

    def call(q, k, v, plan, **options):
        out = real(q, k, v, plan, **options)
        wrong = {"head_dim": q.shape[-1], "tile": plan.block_q} | options
        return change(out) if all(wrong[name] == value for name, value in only.items()) else out

    return call


def nan_in_one(out):
    out = out.clone()
    out[0, 1, 17, 3] = float("nan")
    return out


CHANGES = {
    "a scale": (lambda out: 1.1 * out, "is off by 0.1"),
    "zeros": (torch.zeros_like, "is off by 1.0"),
    "tokens out of place": (lambda out: out.roll(1, 2), "is off by 1."),
    "one value that is not a number": (nan_in_one, "is off by nan"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_kernel_is_named(monkeypatch, change):
    function, told = CHANGES[change]
    only = {"head_dim": 128, "tile": 64, "precision": "int8"}
    monkeypatch.setattr(self_test, "attention", broken(function, **only))
    faults = [one for one in self_test.run("cpu") if one.fault]
    assert [(one.head_dim, one.tile, one.precision) for one in faults] == [(128, 64, "int8")]
    assert told in faults[0].fault and faults[0].name == "CPU int8, head_dim 128, blocks of 64x64"


def test_a_wrong_tail_is_named(monkeypatch):
    monkeypatch.setattr(self_test, "attention", broken(lambda out: 1.2 * out, tail=True))
    faults = [one.fault for one in self_test.run("cpu")]
    assert len(faults) == 8 and all("sparse with the tail attention" in one for one in faults)


def test_a_kernel_that_fails_is_named(monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no code for this GPU\nand more")

    monkeypatch.setattr(self_test, "attention", fails)
    results = self_test.run("cpu")
    assert {one.fault for one in results} == {"it failed: no code for this GPU"}
    assert all(one.error is None for one in results)


def test_a_device_without_kernels_has_nothing_to_test():
    assert self_test.run("meta") == []
