"""The tolerances let rounding through, and nothing that a broken kernel would do."""

import pytest
import torch
from paroattention import TokenLayout, reference
from problems import random_plan, tensors
from tolerances import assert_close, errors

LAYOUT = TokenLayout((3, 6, 8), 10, 6)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ids = {"ids": str}


@pytest.fixture(scope="module")
def problem():
    plan = random_plan(LAYOUT, 2, 0.5)
    q, k, v = tensors(2, LAYOUT.length, 64)
    return plan, (q, k, v), reference.sparse(q, k, v, plan, tail=True)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("dtype", DTYPES, **ids)
def test_rounding_of_the_output_passes(problem, dtype, precision):
    assert_close(problem[2].to(dtype), problem[2], dtype, precision)


def _lost_block(plan, qkv, ref):
    q, k, v = qkv
    v = v.clone()
    v[:, 0, 64:128] = 0
    return reference.sparse(q, k, v, plan, tail=True)


def _one_wrong_token(plan, qkv, ref):
    out = ref.clone()
    out[0, 1, 100] = ref[0, 1, 101]
    return out


def _no_tail(plan, qkv, ref):
    return reference.sparse(*qkv, plan)


def _wrong_scale(plan, qkv, ref):
    return reference.sparse(*qkv, plan, sm_scale=1.1 * 64**-0.5, tail=True)


def _heads_swapped(plan, qkv, ref):
    return ref.flip(1)


def _nothing_written(plan, qkv, ref):
    return torch.zeros_like(ref)


def _not_finite(plan, qkv, ref):
    out = ref.clone()
    out[0, 0, 0, 0] = float("nan")
    return out


BROKEN = [
    _lost_block,
    _one_wrong_token,
    _no_tail,
    _wrong_scale,
    _heads_swapped,
    _nothing_written,
    _not_finite,
]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__.strip("_"))
def test_what_a_broken_kernel_does_fails(problem, broken, precision):
    out = broken(*problem)
    with pytest.raises(AssertionError):
        assert_close(out, problem[2], torch.bfloat16, precision)


def test_a_large_tokens_error_is_held_against_its_own_norm():
    ref = torch.randn(1, 2, 50, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ref[0, 1, 7] *= 5
    near, off = ref.clone(), ref.clone()
    near[0, 1, 7] *= 1.05
    off[0, 1, 7] = ref[0, 1, 8]
    assert errors(near, ref).token == pytest.approx(0.05)
    assert errors(off, ref).token > 0.9
    # A small one's against the mean: it does not count by itself.
    small = ref.clone()
    small[0, 0, 3] = 0
    ref[0, 0, 3] *= 1e-3
    assert errors(small, ref).token < 2e-3


def test_another_shape_fails(problem):
    with pytest.raises(AssertionError, match="shape"):
        assert_close(problem[2][:, :1], problem[2], torch.float32, "bf16")
