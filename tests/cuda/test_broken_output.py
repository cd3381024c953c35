"""Output that is not finite, on a GPU: as it is, or zeros and a word that a session reads."""

from __future__ import annotations

import gpu_problems as problems
import pytest
import torch
from paroattention import Error, attention
from paroattention.kernels import cuda
from paroattention.run.faults import NOT_FINITE, Faults

KERNELS = {
    "portable": ("int8", "portable"),
    "hopper": ("int8", "hopper"),
    "bf16": ("bf16", "auto"),
}
# grid, prefix, suffix, head_dim, block_q, block_kv: lengths that are multiples of nothing.
SHAPES = {
    "64": ((5, 13, 17), 0, 0, 64, 64, 64),
    "128": ((5, 13, 17), 3, 0, 128, 64, 64),
    "tile-128": ((7, 18, 19), 0, 77, 128, 128, 128),
    "tile-128-64": ((7, 18, 19), 65, 5, 64, 128, 128),
    "wide-keys": ((5, 13, 17), 10, 0, 128, 64, 128),
    "wide-queries": ((5, 13, 17), 0, 10, 64, 128, 64),
    "tiny": ((1, 3, 5), 0, 0, 64, 64, 64),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BAD = [float("nan"), float("inf"), -float("inf")]


def _word(value=0):
    return torch.full((1,), value, dtype=torch.int32, device="cuda")


def _problem(shape, dtype):
    grid, prefix, suffix, head_dim, block_q, block_kv = SHAPES[shape]
    plan = problems.plan(
        grid, 2, 0.4, prefix=prefix, suffix=suffix, block_q=block_q, block_kv=block_kv
    )
    return plan, problems.tensors(2, plan.length, head_dim, dtype=dtype, view="bnhd")


def _runner(kernel, plan):
    precision, path = KERNELS[kernel]

    def run(q, k, v, broken=None):
        try:
            return attention(q, k, v, plan, precision=precision, path=path, broken=broken)
        except Error as reason:
            if path == "hopper" and torch.cuda.get_device_capability() != (9, 0):
                pytest.skip(str(reason))
            raise

    return run


def _same(a, b):
    """Bit for bit, NaN as NaN."""
    return torch.equal(torch.isnan(a), torch.isnan(b)) and torch.equal(
        torch.nan_to_num(a, nan=0.0), torch.nan_to_num(b, nan=0.0)
    )


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_finite_becomes_zeros_and_is_told(shape, kernel, dtype, bad):
    plan, (q, k, v) = _problem(shape, dtype)
    run = _runner(kernel, plan)
    v[0, 1, 7, 3] = bad
    raw = run(q, k, v)
    assert not torch.isfinite(raw[:, 1]).all() and torch.isfinite(raw[:, 0]).all()
    broken = _word()
    out = run(q, k, v, broken)
    assert broken.item() == 1
    assert torch.equal(out, torch.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0))
    # Without a word nothing changes.
    assert _same(run(q, k, v), raw)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_finite_output_leaves_the_word_as_it_is(shape, kernel, dtype):
    plan, (q, k, v) = _problem(shape, dtype)
    run = _runner(kernel, plan)
    raw = run(q, k, v)
    assert torch.isfinite(raw).all()
    for before in (0, 1):
        broken = _word(before)
        assert torch.equal(run(q, k, v, broken), raw)
        assert broken.item() == before


@pytest.mark.parametrize("path", ["portable", "hopper"])
@pytest.mark.parametrize("size", [3e4, 3e5])
def test_sums_that_fp16_does_not_hold_are_told(size, path):
    """Packed in float32, written in float16."""
    plan, (q, k, v) = _problem("128", torch.float32)
    if path == "hopper" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("not a Hopper GPU")
    v = torch.full_like(v, size)
    v[..., 3] = -size
    words, sizes, ops = cuda.upload(plan, q.device), cuda.layout(plan), torch.ops.paro
    queries = ops.pack_queries(q, words, *sizes, q.shape[-1] ** -0.5)
    keys = ops.pack_keys(k, v, words, *sizes, True)
    call = (queries, keys, words, 1, 2, q.shape[-1], *sizes, 1, True, cuda.PATHS[path])
    raw, broken = ops.attention_packed(*call), _word()
    out = ops.attention_packed(*call, broken)
    assert raw.dtype == out.dtype == torch.float16
    over = size > torch.finfo(torch.float16).max
    assert broken.item() == over
    if over:
        assert torch.isinf(raw).all() and not out.any()
    else:
        assert torch.isfinite(raw).all() and torch.equal(out, raw)


def test_a_call_that_releases_its_tensors_tells_too():
    plan, (q, k, v) = _problem("tile-128", torch.bfloat16)
    v[0, 1, 7, 3] = float("nan")
    broken, expected = _word(), _word()
    out = cuda.attention_releasing([q, k, v], plan, broken=broken)
    assert torch.equal(out, attention(q, k, v, plan, broken=expected))
    assert broken.item() == expected.item() == 1


def test_compiles_with_a_word_and_without_graph_breaks():
    plan, (q, k, v) = _problem("128", torch.bfloat16)
    v[0, 1, 7, 3] = float("nan")
    rest = (cuda.upload(plan, q.device), *cuda.layout(plan), 0.1, 0, True, 0)

    def layer(q, k, v, broken):
        return torch.ops.paro.attention(2 * q, k, v, *rest, broken) + 1, broken + 1

    expected, compiled = _word(), _word()
    wanted, _ = layer(q, k, v, expected)
    o, told = torch.compile(layer, fullgraph=True)(q, k, v, compiled)
    assert torch.allclose(o, wanted, atol=1e-2)
    assert expected.item() == compiled.item() == 1 and told.item() == 2


def test_a_graph_tells_in_every_replay():
    plan, (q, k, v) = _problem("tile-128", torch.bfloat16)
    rest = (cuda.upload(plan, q.device), *cuda.layout(plan), 0.1, 0, True, 0)
    broken = _word()
    torch.ops.paro.attention(q, k, v, *rest, broken)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.ops.paro.attention(q, k, v, *rest, broken)
    for bad in (False, True, False):
        v[0, 1, 7, 3] = float("nan") if bad else 1.0
        broken.zero_()
        graph.replay()
        assert broken.item() == bad


def test_words_of_a_session_are_read_without_a_wait_for_later_work():
    plan, (q, k, v) = _problem("128", torch.bfloat16)
    bad = v.clone()
    bad[0, 1, 7, 3] = float("nan")
    told = []
    found = Faults(lambda reason, count, dense: told.append(reason))
    with torch.inference_mode():
        for layer, values in (("a", v), ("b", bad), ("c", v)):
            attention(q, k, values, plan, broken=found.flag(layer, q.device))
        found.send()
        torch.cuda.synchronize()
        # About a second of work that read() must not wait for.
        torch.cuda._sleep(2_000_000_000)
        later = torch.cuda.Event()
        later.record()
        attention(q, k, bad, plan, broken=found.flag("c", q.device))
        found.read()
        assert not later.query()
    assert told == [NOT_FINITE] and found.refusal("b")
    assert not found.refusal("a") and not found.refusal("c")
    found.send()
    found.read()
    assert found.refusal("c") and len(told) == 2
