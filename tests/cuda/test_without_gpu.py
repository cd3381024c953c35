"""What can be shown without a GPU: plans as words, refusals, fake operators.

PARO_TORCH_OPS names a built _torch_ops library for the tests that need one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from paroattention import ORDERS, Error, Plan, TokenLayout, _core, attention
from paroattention.kernels import cuda, cuda_masks, cuda_observe, observe_inputs, plan_store
from paroattention.kernels.capability import observed_in_torch, summed_in_torch, unsupported
from paroattention.kernels.head_orders import HeadOrders, OrderedHead

GRID = (4, 9, 11)


def _plan(heads=3, prefix=5, suffix=70, block=64, seed=0):
    rows = -(-GRID[0] * GRID[1] * GRID[2] // block)
    random = np.random.default_rng(seed)
    entries = []
    for head in range(heads):
        mask = random.random((rows, rows)) < 0.5
        mask[np.arange(rows), random.integers(rows, size=rows)] = True
        entries.append(_core.HeadPlan(ORDERS[head + 1], _core.BlockMask(mask)))
    return Plan(GRID, prefix=prefix, suffix=suffix, block_q=block, block_kv=block, heads=entries)


@pytest.mark.parametrize("block", [64, 128])
def test_plan_words(block):
    plan = _plan(block=block)
    words = _core.plan_words(plan)
    parts = _core.PlanWords(plan)
    heads, rows = parts.heads, parts.rows
    assert (heads, rows, parts.cols) == (3, *plan.heads[0].mask.numpy().shape)
    assert parts.orders == 0 and parts.count == len(words)
    orders, schedule, masks = np.split(words, [parts.schedule, parts.masks])
    assert [ORDERS[i] for i in orders] == [head.order for head in plan.heads]
    schedule = schedule.reshape(heads, rows)
    masks = masks.view(np.uint32).reshape(heads, rows, -1)
    for head in range(heads):
        mask = plan.heads[head].mask.numpy()
        bits = np.unpackbits(masks[head].view(np.uint8), axis=1, bitorder="little")
        assert np.array_equal(bits[:, :rows].astype(bool), mask)
        assert not bits[:, rows:].any()
        assert sorted(schedule[head]) == list(range(rows))
        work = mask.sum(1)[schedule[head]]
        assert (np.diff(work) <= 0).all(), "longest first"


def test_tiles_that_the_kernels_lack_are_refused_by_name(monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(cuda, "load", lambda: None)
    plan = _plan(block=32)
    with FakeTensorMode():
        q = torch.empty(1, 3, plan.length, 64, device="cuda")
        assert unsupported(q) is None and unsupported(q, _plan()) is None
        assert unsupported(q, plan) == "block_q 32 is not 64 or 128"
        assert observed_in_torch(q, (64, 32)) == "block_kv 32 is not 64 or 128"
        assert summed_in_torch(q, 96, 64) == "block_q 96 is no multiple of 64"
        assert observed_in_torch(q) is None and summed_in_torch(q, 128, 192) is None
        with pytest.raises(Error, match=r"can take \(got: block_q 32 is not 64 or 128\)"):
            attention(q, q, q, plan)


def test_gpu_paths_are_refused_on_a_cpu():
    plan = _plan()
    x = torch.zeros(1, 3, plan.length, 64)
    with pytest.raises(Error, match="path must be auto on a CPU"):
        attention(x, x, x, plan, path="hopper")
    with pytest.raises(Error, match="path must be one of auto, portable, hopper"):
        attention(x, x, x, plan, path="")


def test_a_build_without_kernels_says_so(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARY", Path("/nowhere/_torch_ops.so"))
    monkeypatch.setattr(cuda, "_loaded", False)
    monkeypatch.setattr(cuda, "_missing", None)
    assert "no CUDA kernels" in cuda.load()


def test_a_library_that_does_not_load_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "_torch_ops.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(cuda, "LIBRARY", broken)
    monkeypatch.setattr(cuda, "_loaded", False)
    monkeypatch.setattr(cuda, "_missing", None)
    assert "do not load" in cuda.load()


@pytest.fixture
def operators(monkeypatch):
    library = os.environ.get("PARO_TORCH_OPS")
    if not library:
        pytest.skip("PARO_TORCH_OPS names no library")
    monkeypatch.setattr(cuda, "LIBRARY", Path(library))
    monkeypatch.setattr(cuda, "_loaded", hasattr(torch.ops.paro, "attention"))
    monkeypatch.setattr(cuda, "_missing", None)
    assert cuda.load() is None
    return torch.ops.paro


def test_fake_operators_have_the_real_ones_shapes(operators):
    from torch._subclasses.fake_tensor import FakeTensorMode

    plan = _plan()
    with FakeTensorMode():
        q = torch.empty(2, 3, plan.length, 64, device="cuda", dtype=torch.float16)
        words = torch.empty(10, dtype=torch.int32, device="cuda")
        o = operators.attention(q, q, q, words, *cuda.layout(plan), 0.1, 0, True, 0)
    assert o.shape == q.shape and o.dtype == q.dtype
    assert o.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("name", ["attention", "attention_packed"])
def test_the_attention_operators_write_only_where_they_are_given_a_word(operators, name):
    """Overloads: torch.compile cannot lower an optional argument that is written to."""
    op = getattr(operators, name)
    assert sorted(op.overloads()) == ["broken", "default"]
    plain, schema = op.default._schema, op.broken._schema
    assert not any(one.is_write for one in plain.arguments)
    assert [one.name for one in schema.arguments if one.is_write] == ["broken"]
    assert [one.name for one in schema.arguments[:-1]] == [one.name for one in plain.arguments]
    assert schema.returns[0].alias_info is None


@pytest.mark.parametrize("given", ["not given", "by place", "by name"])
def test_fake_attention_takes_a_word(operators, given):
    from torch._subclasses.fake_tensor import FakeTensorMode

    plan = _plan()
    with FakeTensorMode():
        q = torch.empty(2, 3, plan.length, 64, device="cuda", dtype=torch.float16)
        words = torch.empty(10, dtype=torch.int32, device="cuda")
        broken = torch.zeros(1, dtype=torch.int32, device="cuda")
        arguments = (q, q, q, words, *cuda.layout(plan), 0.1, 0, True, 0)
        more = (broken,) if given == "by place" else ()
        named = {"broken": broken} if given == "by name" else {}
        o = operators.attention(*arguments, *more, **named)
    assert o.shape == q.shape and o.dtype == q.dtype


def test_a_compiler_sees_what_attention_writes(operators):
    """A graph without mutation, as torch.compile makes it: the word is an output that is copied
    back."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch._subclasses.functional_tensor import dispatch_functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    plan = _plan()

    def call(q, words, broken):
        o = operators.attention(q, q, q, words, *cuda.layout(plan), 0.1, 0, True, 0, broken)
        return o, broken + 1

    with FakeTensorMode():
        q = torch.empty(2, 3, plan.length, 64, device="cuda", dtype=torch.float16)
        words = torch.empty(10, dtype=torch.int32, device="cuda")
        broken = torch.zeros(1, dtype=torch.int32, device="cuda")
        graph = make_fx(dispatch_functionalize(call))(q, words, broken).graph
    functional = [node for node in graph.nodes if "auto_functionalized" in str(node.target)]
    assert [node.args[0] for node in functional] == [operators.attention.broken]
    (added,) = (node for node in graph.nodes if "add" in str(node.target))
    # The sum is of what the operator wrote, not of the word as it was before.
    assert functional[0] in added.args[0].all_input_nodes


def test_the_module_hands_a_word_to_the_operators(operators, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(cuda, "words", lambda plan, device: words)
    given = []
    run = cuda.run

    def record(op, *arguments):
        given.append((str(op), len(arguments), len(op._schema.arguments), arguments[-1]))
        return run(op, *arguments) if op._schema.name == "paro::attention" else arguments[0]

    monkeypatch.setattr(cuda, "run", record)
    plan = _plan()
    with FakeTensorMode():
        words = torch.empty(10, dtype=torch.int32, device="cuda")
        broken = torch.zeros(1, dtype=torch.int32, device="cuda")
        q = torch.empty(2, 3, plan.length, 64, device="cuda")
        for precision in ("int8", "bf16"):
            o = attention(q, q, q, plan, precision=precision, broken=broken)
            assert o.shape == q.shape and o.dtype == q.dtype
        attention(q, q, q, plan)
        cuda.attention_releasing([q, q, q], plan, broken=broken)
        with pytest.raises(Error, match="broken must be on q's device, cuda:0"):
            attention(q, q, q, plan, broken=torch.zeros(1, dtype=torch.int32, device="cpu"))
    calls = [one for one in given if one[0].startswith("paro.attention")]
    names = ["attention.broken", "attention.broken", "attention.default", "attention_packed.broken"]
    assert [one[0] for one in calls] == [f"paro.{name}" for name in names]
    assert all(count == wanted for _, count, wanted, _ in calls)
    assert [one[3] is broken for one in calls] == [True, True, False, True]


def test_the_operators_refuse_other_devices(operators):
    plan = _plan()
    x = torch.zeros(1, 3, plan.length, 64)
    words = torch.from_numpy(_core.plan_words(plan))
    with pytest.raises(NotImplementedError, match="CPU"):
        operators.attention(x, x, x, words, *cuda.layout(plan), 0.1, 0, True, 0)


def test_fake_observing_operators_have_the_real_ones_shapes(operators):
    from torch._subclasses.fake_tensor import FakeTensorMode

    plan = _plan()
    grid, sizes = (plan.prefix, *plan.grid, plan.suffix), cuda.layout(plan)
    blocks = -(-GRID[0] * GRID[1] * GRID[2] // 64)
    with FakeTensorMode():
        q = torch.empty(2, 3, plan.length, 64, device="cuda", dtype=torch.float16)
        ints = torch.empty(3, 24, device="cuda", dtype=torch.int32)
        longs = torch.empty(3, 2, device="cuda", dtype=torch.int64)
        nothing = operators.observe(q, q, ints, ints, longs, longs, None, None, *grid, 1, 1, 1, 0.1)
        reading = operators.meter(q, q, q, ints, ints, *sizes, 0.1, True)
        words = operators.dynamic_plan(q, q, ints, ints, *sizes, 0.1)
        sums = operators.block_importance(q, q, ints, *grid, 0.1, 0)
    assert nothing is None
    assert reading.shape == (3, 2) and reading.dtype == torch.float32
    assert words.shape == _core.plan_words(plan).shape and words.dtype == torch.int32
    assert sums.shape == (2, 3, blocks, blocks) and sums.dtype == torch.float32


def test_the_observing_operators_refuse_other_devices(operators):
    x = torch.zeros(1, 3, 10, 64)
    with pytest.raises(NotImplementedError, match="CPU"):
        operators.block_importance(x, x, torch.zeros(3, dtype=torch.int32), 0, 1, 2, 5, 0, 0.1, 0)


@pytest.fixture
def unkept(monkeypatch):
    """No tensor of a test stays in a cache, and none needs pinned memory."""
    kept = (observe_inputs.numbers_on, observe_inputs.tables_on, cuda_masks._densities_on)
    for one in kept:
        one.cache_clear()
    monkeypatch.setattr(observe_inputs, "to_device", lambda x, device: x.to(device))
    yield
    for one in kept:
        one.cache_clear()


def test_the_module_calls_the_observing_operators_as_they_are_declared(
    operators, monkeypatch, unkept
):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    called = []
    run = cuda.run

    def record(op, *arguments):
        called.append(op._schema.name)
        return run(op, *arguments)

    monkeypatch.setattr(cuda, "run", record)
    plan = _plan()
    layout = TokenLayout(GRID, plan.prefix, plan.suffix)
    with FakeTensorMode(allow_non_fake_inputs=True):
        words = torch.zeros(len(_core.plan_words(plan)), dtype=torch.int32, device="cuda")
        monkeypatch.setattr(cuda, "words", lambda plan, device, aside: words)
        q = torch.empty(2, 3, plan.length, 64, device="cuda")
        queries = torch.zeros(3, 20, device="cuda", dtype=torch.int32)
        state = cuda_observe.ObserveState(_core.Bins.even(GRID), GRID, 3, "cuda")
        kept = state.observe(q, q, layout, queries, 0.1, keep=(1,))
        assert state.observe(q, q, layout, queries, 0.1) is None
        reading = cuda_observe.meter(q, q, q, plan, layout, queries, 0.1, True)
        mass = cuda_observe.meter(q, q, None, plan, layout, queries, 0.1, True)
        sums = cuda_observe.block_importance(q, q, layout, ORDERS[:3], 128, 64, 0.1)
    names = ["observe", "observe", "meter", "meter", "block_importance"]
    assert called == [f"paro::{name}" for name in names]
    rows, cols = plan.heads[0].mask.numpy().shape
    assert kept.shape == (1, 20, layout.grid_size)
    assert state._units.shape == (2, 3, len(state.bins))
    assert reading.shape == mass.shape == (3, 2)
    assert sums.shape == (3, -(-rows // 2), cols)


def test_masks_found_on_a_device_stay_there(operators, monkeypatch, unkept):
    """From orders alone: no plan is uploaded; the words found are what runs and what is read."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def never(*given):
        raise AssertionError("a plan was uploaded")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(plan_store, "store", never)
    called = []
    run = cuda.run

    def record(op, *arguments):
        called.append((op._schema.name.removeprefix("paro::"), arguments))
        return run(op, *arguments)

    monkeypatch.setattr(cuda, "run", record)
    plan = _plan()
    layout = TokenLayout(GRID, plan.prefix, plan.suffix)
    heads = tuple(OrderedHead(order, 0.3) for order in ORDERS[:3])
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(2, 3, plan.length, 64, device="cuda")
        queries = torch.zeros(3, 20, device="cuda", dtype=torch.int32)
        found = cuda_masks.find_masks(q, q, HeadOrders(layout, heads))
        out = attention(q, q, q, found, precision="bf16")
        reading = cuda_observe.meter(q, q, q, found, layout, queries, 0.1, True)
    assert [name for name, _ in called] == ["dynamic_plan", "attention", "meter"]
    for name, place in (("attention", 3), ("meter", 3)):
        (given,) = (arguments[place] for one, arguments in called if one == name)
        assert given is found.words
    assert found.words.shape == _core.plan_words(plan).shape
    assert found.masks.shape == (3, *plan.heads[0].mask.numpy().shape[:1], 1)
    assert out.shape == q.shape and out.dtype == q.dtype and reading.shape == (3, 2)
