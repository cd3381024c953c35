"""attention() against the float64 reference, and its refusals."""

import numpy as np
import pytest
import torch
from paroattention import Error, Plan, TokenLayout, _core, attention, reference
from problems import random_plan, tensors
from tolerances import assert_close

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PRECISIONS = ["bf16", "int8"]
by_name = {"ids": lambda dtype: str(dtype).removeprefix("torch.")}

LAYOUTS = {
    "even": TokenLayout((4, 8, 8)),
    "odd sides": TokenLayout((5, 7, 9)),
    "prefix 226": TokenLayout((4, 5, 6), prefix=226),
    "suffix": TokenLayout((4, 16, 17), suffix=5),
    "prefix and suffix": TokenLayout((3, 7, 11), prefix=17, suffix=9),
    "one frame": TokenLayout((1, 9, 13)),
    "one block": TokenLayout((2, 3, 4)),
    "one token": TokenLayout((1, 1, 1)),
    "one token more than a block": TokenLayout((5, 13, 1)),
}


@pytest.fixture
def scalar_or_default(request):
    before = _core.active_isa()
    yield
    _core.set_isa(before)


@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES, **by_name)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_equals_the_reference(layout, dtype, precision, tail):
    plan = random_plan(layout, 3, 0.4)
    q, k, v = tensors(3, layout.length, 64, dtype=dtype)
    out = attention(q, k, v, plan, precision=precision, tail=tail)
    assert out.dtype == dtype
    ref = reference.sparse(q, k, v, plan, tail=tail)
    assert_close(out, ref, dtype, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128), (128, 128)], ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_tiles_and_head_dims(head_dim, tile, precision):
    layout = TokenLayout((5, 9, 11), prefix=30, suffix=3)
    plan = random_plan(layout, 2, 0.3, block_q=tile[0], block_kv=tile[1])
    q, k, v = tensors(2, layout.length, head_dim)
    out = attention(q, k, v, plan, precision=precision)
    assert_close(out, reference.sparse(q, k, v, plan, tail=True), q.dtype, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_instruction_set(isa, precision, scalar_or_default):
    _core.set_isa(isa)
    assert _core.active_isa() == isa
    layout = TokenLayout((3, 7, 11), prefix=17, suffix=9)
    plan = random_plan(layout, 2, 0.4)
    q, k, v = tensors(2, layout.length, 128)
    out = attention(q, k, v, plan, precision=precision)
    assert_close(out, reference.sparse(q, k, v, plan, tail=True), q.dtype, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batch_entries_are_independent(precision):
    layout = TokenLayout((3, 6, 8), prefix=5)
    plan = random_plan(layout, 2, 0.4)
    q, k, v = tensors(2, layout.length, 64, batch=2)
    out = attention(q, k, v, plan, precision=precision)
    for entry in range(2):
        alone = attention(*(x[entry : entry + 1] for x in (q, k, v)), plan, precision=precision)
        assert torch.equal(out[entry : entry + 1], alone)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES, **by_name)
def test_density_1_equals_sdpa(dtype, precision):
    layout = TokenLayout((3, 7, 11), prefix=17)
    plan = random_plan(layout, 2, 1.0)
    q, k, v = tensors(2, layout.length, 64, dtype=dtype)
    wide = (x.double() for x in (q, k, v))
    ref = torch.nn.functional.scaled_dot_product_attention(*wide)
    for tail in (True, False):
        out = attention(q, k, v, plan, precision=precision, tail=tail)
        assert_close(out, ref, dtype, precision)


def _fused(x):
    """The same values as a (B, N, H*D) view, heads cut from one wider projection of q, k and v."""
    batch, heads, length, head_dim = x.shape
    wide = torch.full((batch, length, 3 * heads * head_dim), torch.nan)
    part = wide[..., heads * head_dim : 2 * heads * head_dim]
    part.copy_(x.permute(0, 2, 1, 3).reshape(batch, length, heads * head_dim))
    return part.view(batch, length, heads, head_dim).permute(0, 2, 1, 3)


def _transposed(x):
    """head_dim is not the contiguous side."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def _every_second_token(x):
    wide = torch.full((*x.shape[:2], 2 * x.shape[2], x.shape[3]), torch.nan)
    wide[:, :, ::2] = x
    return wide[:, :, ::2]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("view", [_fused, _transposed, _every_second_token],
                         ids=["fused", "transposed", "every second token"])  # fmt: skip
def test_strided_views_give_the_same(view, precision):
    layout = TokenLayout((3, 6, 8), prefix=5)
    plan = random_plan(layout, 2, 0.4)
    qkv = tensors(2, layout.length, 64, batch=2)
    views = [view(x) for x in qkv]
    assert not any(x.is_contiguous() for x in views)
    out = attention(*qkv, plan, precision=precision)
    assert torch.equal(attention(*views, plan, precision=precision), out)


def test_expanded_batch():
    layout = TokenLayout((3, 6, 8))
    plan = random_plan(layout, 2, 0.4)
    q, k, v = tensors(2, layout.length, 64)
    out = attention(*(x.expand(3, -1, -1, -1) for x in (q, k, v)), plan)
    assert torch.equal(out, attention(q, k, v, plan).expand(3, -1, -1, -1))


def test_output_is_a_view_of_token_major_memory():
    layout = TokenLayout((3, 6, 8))
    q, k, v = tensors(2, layout.length, 64, batch=2)
    out = attention(q, k, v, random_plan(layout, 2, 0.4))
    assert out.permute(0, 2, 1, 3).is_contiguous()


def test_inputs_stay_as_they_were():
    layout = TokenLayout((3, 6, 8))
    qkv = tensors(2, layout.length, 64)
    before = [x.clone() for x in qkv]
    attention(*qkv, random_plan(layout, 2, 0.4))
    assert all(torch.equal(x, y) for x, y in zip(qkv, before, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_change_a_bit(precision):
    layout = TokenLayout((5, 7, 9), prefix=12)
    plan = random_plan(layout, 3, 0.4)
    qkv = tensors(3, layout.length, 64)
    one, three = (attention(*qkv, plan, precision=precision, threads=n) for n in (1, 3))
    assert torch.equal(one, three)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sm_scale(precision):
    layout = TokenLayout((3, 6, 8))
    plan = random_plan(layout, 2, 0.4)
    q, k, v = tensors(2, layout.length, 64)
    out = attention(q, k, v, plan, precision=precision, sm_scale=0.05)
    ref = reference.sparse(q, k, v, plan, tail=True, sm_scale=0.05)
    assert_close(out, ref, q.dtype, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
def test_constant_values_come_out_as_they_are(tail, precision):
    """Weights sum to 1 whatever is computed, pooled or skipped."""
    layout = TokenLayout((5, 7, 9), prefix=12)
    q, k, _ = tensors(2, layout.length, 64)
    v = torch.full_like(q, 3.0)
    out = attention(q, k, v, random_plan(layout, 2, 0.3), precision=precision, tail=tail)
    assert_close(out, v, q.dtype, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_shift_of_all_keys_changes_nothing(precision):
    layout = TokenLayout((3, 6, 8), prefix=5)
    plan = random_plan(layout, 2, 0.4)
    q, k, v = tensors(2, layout.length, 64)
    shifted = k + 20 * torch.randn(1, 2, 1, 64, generator=torch.Generator().manual_seed(3))
    ref = reference.sparse(q, k, v, plan, tail=True)
    out = attention(q, shifted, v, plan, precision=precision)
    # The logits themselves grow to hundreds: float32 loses digits that int8 never had.
    assert_close(out, ref, torch.float16, precision)


def _extreme(name, q, k, v):
    if name == "logits of thousands":
        return 200 * q, 200 * k, v
    if name == "zero queries":
        return torch.zeros_like(q), k, v
    if name == "equal keys":
        return q, k[:, :, :1].expand_as(k), v
    if name == "zero values":
        return q, k, torch.zeros_like(v)
    v = v.clone()
    v[:, :, 7] = 6e4
    return q, k, v


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "name",
    ["logits of thousands", "zero queries", "equal keys", "zero values", "values near fp16's end"],
)
def test_extremes_stay_finite(name, precision):
    layout = TokenLayout((3, 6, 8), prefix=5)
    qkv = _extreme(name, *tensors(2, layout.length, 64))
    qkv = [x.half() for x in qkv]
    plan = random_plan(layout, 2, 0.4)
    out = attention(*qkv, plan, precision=precision)
    assert torch.isfinite(out).all()
    if name in ("zero queries", "equal keys", "zero values"):
        ref = reference.sparse(*qkv, plan, tail=True)
        assert_close(out, ref, torch.float16, precision)


def test_masks_matter():
    """What is skipped without a tail leaves no trace: its keys and values may be anything."""
    layout = TokenLayout((4, 8, 8))
    mask = _core.BlockMask(np.tril(np.ones((4, 4), dtype=bool)))
    plan = Plan(layout.grid, heads=[_core.HeadPlan("FHW", mask)])
    q, k, v = tensors(1, layout.length, 64)
    out = attention(q, k, v, plan, precision="bf16", tail=False)
    k, v = k.clone(), v.clone()
    k[:, :, 192:] = 1e3
    v[:, :, 192:] = 1e9
    changed = attention(q, k, v, plan, precision="bf16", tail=False)
    assert torch.equal(out[:, :, :192], changed[:, :, :192])
    assert not torch.equal(out[:, :, 192:], changed[:, :, 192:])


# -- bad input -------------------------------------------------------------------------------------

BAD_LAYOUT = TokenLayout((3, 6, 8))


def _qkv(**changes):
    q, k, v = tensors(2, BAD_LAYOUT.length, 64)
    given = {"q": q, "k": k, "v": v}
    return given | {name: change(given[name]) for name, change in changes.items()}


def _all(change):
    return _qkv(q=change, k=change, v=change)


META = torch.device("meta")
# Arguments, and what the message must hold: the argument, the rule or its bound, what was received.
BAD = {
    "float64": (_all(lambda x: x.double()), ["q", "float32, float16 or bfloat16", "float64"]),
    "int8 tensors": (_all(lambda x: x.to(torch.int8)), ["q", "float32, float16", "torch.int8"]),
    "head_dim 96": (_all(lambda x: x.new_zeros(1, 2, 144, 96)), ["q", "64 or 128", "96"]),
    "meta device": (_all(lambda x: x.to(META)), ["q", "device", "meta"]),
    "k on another device": (_qkv(k=lambda x: x.to(META)), ["k", "device of q", "cpu", "meta"]),
    "three dimensions": (_all(lambda x: x[0]), ["q", "(B, H, N, D)", "(2, 144, 64)"]),
    "five dimensions": (_all(lambda x: x[None]), ["q", "(B, H, N, D)", "(1, 1, 2, 144, 64)"]),
    "v shorter": (_qkv(v=lambda x: x[:, :, :100]), ["v", "shape of q", "(1, 2, 100, 64)"]),
    "k of another dtype": (_qkv(k=lambda x: x.half()), ["k", "dtype of q", "float16"]),
    "q no tensor": (_qkv(q=lambda x: x.numpy()), ["q", "tensor", "ndarray"]),
    "v no tensor": (_qkv(v=lambda x: None), ["v", "tensor", "NoneType"]),
    "other length": (_all(lambda x: x[:, :, :143]), ["q", "plan.length = 144", "143"]),
    "other heads": (_all(lambda x: x[:, :1]), ["q", "plan's 2 heads", "1"]),
    "empty batch": (_all(lambda x: x[:0]), ["batch", "0"]),
    "int4": (_qkv() | {"precision": "int4"}, ["precision", "int8 or bf16", "'int4'"]),
    "unknown precision": (_qkv() | {"precision": "fp8"}, ["precision", "int8 or bf16", "'fp8'"]),
    "precision no text": (_qkv() | {"precision": None}, ["precision", "int8 or bf16", "None"]),
    "scale below zero": (_qkv() | {"sm_scale": -1.0}, ["sm_scale", "-1"]),
    "scale not a number": (_qkv() | {"sm_scale": float("nan")}, ["sm_scale", "nan"]),
    "no plan": (_qkv() | {"plan": None}, ["plan", "Plan", "NoneType"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case):
    given, words = BAD[case]
    given = {"plan": random_plan(BAD_LAYOUT, 2, 0.4)} | given
    with pytest.raises(Error) as caught:
        attention(**given)
    assert isinstance(caught.value, ValueError)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{caught.value} does not tell {missing}"


def test_plans_for_a_cpu_have_small_tiles_whatever_the_environment_says(monkeypatch):
    from paroattention.kernels import cuda

    monkeypatch.setenv("PARO_TILE", "128")
    assert cuda.preferred_tile("cpu") == 64
