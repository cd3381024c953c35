"""The CUDA kernels against fp64 and against the CPU's kernels."""

from __future__ import annotations

import gpu_problems as problems
import pytest
import torch
from paroattention import attention, reference
from paroattention.kernels import cuda

INT8, HARD, TRIPLED = 0.02, 0.03, 0.04
# Rounding of o to its dtype.
ROUNDING = {torch.float32: 0.0, torch.float16: 2**-12, torch.bfloat16: 2**-9}
PATHS = ("portable", "hopper", "narrow")

# grid, prefix, suffix, heads, head_dim, block_q, block_kv
SHAPES = {
    "even": ((4, 16, 16), 0, 0, 2, 128, 64, 64),
    "ragged": ((5, 13, 17), 0, 0, 3, 128, 64, 64),
    "ragged-64": ((5, 13, 17), 0, 0, 3, 64, 64, 64),
    "text-before": ((5, 13, 17), 226, 0, 2, 64, 64, 64),
    "text-after": ((1, 33, 31), 0, 77, 2, 128, 64, 64),
    "both-ends": ((3, 20, 23), 3, 130, 2, 128, 64, 64),
    "tile-128": ((7, 18, 19), 0, 0, 2, 128, 128, 128),
    "tile-128-text": ((7, 18, 19), 65, 5, 2, 64, 128, 128),
    "wide-keys": ((5, 13, 17), 10, 0, 2, 128, 64, 128),
    "wide-queries": ((5, 13, 17), 0, 10, 2, 64, 128, 64),
    "many-panels": ((9, 40, 41), 0, 0, 1, 128, 64, 64),
    "tiny": ((1, 3, 5), 0, 0, 1, 64, 64, 64),
}


def _need(path, q, plan):
    """Skips a path that the GPU or the shape does not have, unless it should."""
    if path == "portable":
        return
    try:
        attention(q, q, q, plan, path=path)
    except ValueError as reason:
        pytest.skip(str(reason))


def _problem(shape, density, *, batch=1, **options):
    grid, prefix, suffix, heads, head_dim, block_q, block_kv = SHAPES[shape]
    plan = problems.plan(
        grid, heads, density, prefix=prefix, suffix=suffix, block_q=block_q, block_kv=block_kv
    )
    return plan, problems.tensors(heads, plan.length, head_dim, batch=batch, **options)


@pytest.mark.parametrize("tail", [False, True], ids=["plain", "tail"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_int8(shape, path, density, tail, measured):
    plan, (q, k, v) = _problem(shape, density)
    _need(path, q, plan)
    o = attention(q, k, v, plan, tail=tail, path=path)
    exact = problems.error(o, q, k, v, plan, tail=tail)
    oracle = attention(q.cpu(), k.cpu(), v.cpu(), plan, tail=tail)
    between = reference.relative_error(o.cpu(), oracle)
    measured({"fp64": exact, "cpu": between})
    assert exact <= INT8 + ROUNDING[q.dtype]
    # Weights are rounded by other blocks where tiles differ, the tail in 8 bits instead of fp32.
    assert between <= 0.012 + ROUNDING[q.dtype]


@pytest.mark.parametrize("tail", [False, True], ids=["plain", "tail"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_unquantised(shape, dtype, tail, measured):
    plan, (q, k, v) = _problem(shape, 0.3, dtype=dtype)
    o = attention(q, k, v, plan, precision="bf16", tail=tail)
    exact = problems.error(o, q, k, v, plan, tail=tail)
    measured(exact)
    assert exact <= 1.5 * ROUNDING[dtype] + 1e-4


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize("view", ["bhnd", "bnhd"])
def test_dtypes_and_strides(view, dtype, path, measured):
    plan, (q, k, v) = _problem("both-ends", 0.4, dtype=dtype, view=view, batch=2)
    _need(path, q, plan)
    o = attention(q, k, v, plan, path=path)
    assert o.dtype == dtype and o.transpose(1, 2).is_contiguous()
    exact = problems.error(o, q, k, v, plan, tail=True)
    measured(exact)
    assert exact <= INT8 + ROUNDING[dtype]
    if dtype == torch.float32:
        assert (
            problems.error(attention(q, k, v, plan, precision="bf16"), q, k, v, plan, tail=True)
            <= 1e-2
        )


def test_unaligned_rows_are_copied():
    plan, (q, k, v) = _problem("ragged", 0.5)
    padded = torch.empty((*q.shape[:-1], q.shape[-1] + 1), dtype=q.dtype, device="cuda")
    padded[..., 1:] = q
    assert torch.equal(
        attention(padded[..., 1:], k, v, plan, path="portable"),
        attention(q, k, v, plan, path="portable"),
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("kind", problems.HARD)
def test_hard_data(kind, head_dim, path, measured):
    # Eight heads: where softmax has a key or two, heads whose best two nearly tie decide.
    plan = problems.plan((5, 13, 21), 8, 1.0)
    q, k, v = problems.tensors(8, plan.length, head_dim, dtype=torch.float32)
    _need(path, q, plan)
    problems.HARD[kind](q, k, v)
    exact = problems.error(attention(q, k, v, plan, tail=False, path=path), q, k, v, plan)
    measured(exact)
    assert exact <= HARD


@pytest.mark.parametrize("path", PATHS)
def test_tripled(path, measured):
    plan, (q, k, v) = _problem("even", 1.0)
    _need(path, q, plan)
    q, k = 3 * q, 3 * k
    exact = problems.error(attention(q, k, v, plan, tail=False, path=path), q, k, v, plan)
    measured(exact)
    assert exact <= TRIPLED


@pytest.mark.parametrize("path", PATHS)
def test_scores_of_ten_thousand_are_finite(path):
    plan, (q, k, v) = _problem("ragged", 0.5)
    _need(path, q, plan)
    scale = (1e4 / (q.float() @ k.float().transpose(-1, -2)).abs().max()).item()
    o = attention(q, k, v, plan, sm_scale=scale, path=path)
    assert torch.isfinite(o).all()


@pytest.mark.parametrize("path", PATHS)
def test_constant_values_come_out(path):
    plan, (q, k, v) = _problem("both-ends", 0.3, dtype=torch.float32)
    _need(path, q, plan)
    v = torch.full_like(v, 0.75)
    o = attention(q, k, v, plan, path=path)
    assert (o - 0.75).abs().max() <= 0.75 * 1e-3


@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(what, precision):
    plan, (q, k, v) = _problem("even", 1.0)
    for name in range(3):
        bad = [x.clone() for x in (q, k, v)]
        bad[name][0, 0, 17, 5] = what
        o = attention(*bad, plan, precision=precision)
        assert not torch.isfinite(o).all()
        assert torch.isfinite(o[0, 1]).all()


@pytest.mark.parametrize("path", PATHS)
def test_the_same_bits_every_time(path):
    plan, (q, k, v) = _problem("both-ends", 0.4, batch=2)
    _need(path, q, plan)
    first = attention(q, k, v, plan, path=path)
    for _ in range(5):
        assert torch.equal(attention(q, k, v, plan, path=path), first)


def test_every_row_is_written():
    """Plans keep a block in every row; every query gets an answer, whatever memory held before."""
    plan, (q, k, v) = _problem("ragged", 0.02)
    for head in plan.heads:
        assert head.mask.numpy().any(1).all()
    poison = torch.full((64 << 20,), float("nan"), device="cuda")
    del poison
    o = attention(q, k, v, plan, tail=False)
    assert torch.isfinite(o).all()
    assert problems.error(o, q, k, v, plan) <= INT8 + ROUNDING[q.dtype]


@pytest.mark.parametrize("path", PATHS)
def test_packing_in_parts_gives_the_same_bits(path):
    plan, (q, k, v) = _problem("both-ends", 0.4, batch=2)
    _need(path, q, plan)
    whole = attention(q, k, v, plan, path=path)
    assert torch.equal(cuda.attention_releasing([q, k, v], plan, path=path), whole)


@pytest.mark.parametrize("path", PATHS)
def test_more_than_two_to_the_31_elements(path, measured):
    heads, grid = 520, (32, 32, 32)
    plan = problems.plan(grid, heads, 0.03)
    shape = (1, plan.length, heads, 128)
    assert torch.Size(shape).numel() > 2**31
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(shape, dtype=torch.bfloat16, device="cuda", generator=generator).transpose(1, 2)
        for _ in range(3)
    )
    _need(path, q, plan)
    o = attention(q, k, v, plan, path=path)
    exact = problems.error(o, q, k, v, plan, tail=True, rows=64, heads=(0, 1, 259, 518, 519))
    measured(exact)
    assert exact <= INT8 + ROUNDING[q.dtype]
