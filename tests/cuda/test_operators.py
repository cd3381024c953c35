"""torch.ops.paro: compile, graphs, streams, memory; failures leave all usable."""

from __future__ import annotations

import gc
import weakref

import gpu_problems as problems
import pytest
import torch
from paroattention import Error, attention
from paroattention.kernels import cuda

GRID, HEADS, DIM = (4, 12, 16), 2, 64


@pytest.fixture
def problem():
    plan = problems.plan(GRID, HEADS, 0.4)
    return plan, problems.tensors(HEADS, plan.length, DIM)


def _arguments(plan, q, *, precision=0, tail=True, path=0):
    words = cuda.upload(plan, q.device)
    return (words, *cuda.layout(plan), q.shape[-1] ** -0.5, precision, tail, path)


def _op(q, k, v, *rest):
    return torch.ops.paro.attention.default(q, k, v, *rest)


def test_refusals_of_attention(problem):
    plan, (q, k, v) = problem
    with pytest.raises(Error, match="path must be one of"):
        attention(q, k, v, plan, path="fast")
    with pytest.raises(Error, match="head_dim 96"):
        x = torch.empty(1, 2, plan.length, 96, dtype=q.dtype, device="cuda")
        attention(x, x, x, plan)
    with pytest.raises(Error, match="k must have the device"):
        attention(q, k.cpu(), v, plan)
    with pytest.raises(Error, match="tokens"):
        attention(q[:, :, 1:], k[:, :, 1:], v[:, :, 1:], plan)
    small = problems.plan(GRID, HEADS, 0.4, block_q=64, block_kv=64)
    assert torch.equal(attention(q, k, v, small), attention(q, k, v, plan))


@pytest.mark.parametrize("precision", [0, 1], ids=["int8", "bf16"])
def test_compiles_without_graph_breaks(problem, precision):
    plan, (q, k, v) = problem
    rest = _arguments(plan, q, precision=precision)

    def layer(q, k, v):
        return torch.ops.paro.attention(2 * q, k, v, *rest) + 1

    expected = layer(q, k, v)
    compiled = torch.compile(layer, fullgraph=True)
    assert torch.allclose(compiled(q, k, v), expected, atol=1e-2)


@pytest.mark.parametrize("precision", [0, 1], ids=["int8", "bf16"])
def test_graph_replay_follows_changed_data(problem, precision):
    plan, (q, k, v) = problem
    rest = _arguments(plan, q, precision=precision)
    _op(q, k, v, *rest)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        o = _op(q, k, v, *rest)
    for seed in (3, 4):
        for x, new in zip(
            (q, k, v), problems.tensors(HEADS, plan.length, DIM, seed=seed), strict=True
        ):
            x.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(o, _op(q, k, v, *rest))


def test_runs_on_the_current_stream(problem):
    plan, (q, k, v) = problem
    rest = _arguments(plan, q)
    expected = _op(q, k, v, *rest)
    stream = torch.cuda.Stream()
    slow = torch.randn(4096, 4096, device="cuda")
    with torch.cuda.stream(stream):
        late = torch.zeros_like(q)
        for _ in range(20):
            slow = slow @ slow
            slow /= slow.norm()
        late.copy_(q)  # reading q too early would give zeros
        o = _op(late, k, v, *rest)
    stream.synchronize()
    assert torch.equal(o, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_runs_on_the_tensors_device(problem):
    plan, tensors = problem
    expected = attention(*tensors, plan)
    with torch.cuda.device(0):
        moved = attention(*(x.to("cuda:1") for x in tensors), plan)
        assert torch.cuda.current_device() == 0
    assert torch.equal(moved.cpu(), expected.cpu())


def test_a_plan_is_uploaded_once_and_let_go():
    plan = problems.plan(GRID, HEADS, 0.4)
    q, k, v = problems.tensors(HEADS, plan.length, DIM)
    attention(q, k, v, plan)
    words = cuda.upload(plan, q.device)
    assert cuda.upload(plan, q.device).data_ptr() == words.data_ptr()
    before = torch.cuda.memory_allocated()
    freed, gone = 4 * words.numel(), weakref.ref(plan)
    del plan, words
    gc.collect()
    assert gone() is None and torch.cuda.memory_allocated() <= before - freed


def test_out_of_memory_leaves_the_process_usable(problem):
    plan, (q, k, v) = problem
    expected = attention(q, k, v, plan)
    grid, heads = (8, 64, 64), 64
    large = problems.plan(grid, heads, 0.05)
    tensors = problems.tensors(heads, large.length, 128)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(used + 0.001)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            attention(*tensors, large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(attention(q, k, v, plan), expected)
    assert torch.isfinite(attention(*tensors, large)).all()


def _peak(run):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def test_scratch_and_peak_memory(measured):
    grid, heads, dim = (21, 30, 52), 12, 128
    plan = problems.plan(grid, heads, 0.3)
    make = lambda: list(problems.tensors(heads, plan.length, dim))  # noqa: E731
    inputs = 3 * heads * plan.length * dim * 2
    tensors = make()
    cuda.upload(plan, tensors[0].device)
    base = torch.cuda.memory_allocated() - inputs
    dense = _peak(lambda: torch.nn.functional.scaled_dot_product_attention(*tensors)) - base
    whole = _peak(lambda: attention(*tensors, plan)) - base
    queries = torch.ops.paro.pack_queries(
        tensors[0], cuda.upload(plan, tensors[0].device), *cuda.layout(plan), 0.1
    )
    keys = torch.ops.paro.pack_keys(
        *tensors[1:], cuda.upload(plan, tensors[0].device), *cuda.layout(plan), True
    )
    packed = queries.numel() + keys.numel()
    del queries, keys
    released = _peak(lambda: cuda.attention_releasing(tensors, plan)) - base
    ratios = {
        "packed to q, k, v": packed / inputs,
        "releasing peak to dense": released / dense,
        "whole call to dense": whole / dense,
    }
    measured(ratios)
    assert ratios["packed to q, k, v"] <= 0.6
    assert ratios["releasing peak to dense"] <= 1.05
