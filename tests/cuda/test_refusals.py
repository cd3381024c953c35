"""Every operator of torch.ops.paro refuses every bad argument by name, and goes on working.

The process may hold another C++ runtime than the library's: a refusal must not end it.
"""

from __future__ import annotations

import gpu_problems as problems
import pytest
import torch
from paroattention.kernels import cuda

GRID, HEADS, DIM = (2, 5, 7), 3, 64
TOKENS = GRID[0] * GRID[1] * GRID[2]
GRID_NUMBERS, LAYOUT = (0, *GRID, 0), (0, *GRID, 0, 64, 64)
BINS = 2 * 2 * 2
ORDERS = ("prefix", "grid_f", "grid_h", "grid_w", "suffix")


def _zeros(*shape, dtype=torch.int32):
    return torch.zeros(shape, dtype=dtype, device="cuda")


def _good() -> dict[str, list]:
    """Arguments that each operator takes, by its name with its overload."""
    q, k, v = problems.tensors(HEADS, TOKENS, DIM)
    words = cuda.upload(problems.plan(GRID, HEADS, 0.5), q.device)
    places = _zeros(HEADS, 8)
    attention = [q, k, v, words, *LAYOUT, DIM**-0.5, 0, True, 0]
    queries = torch.ops.paro.pack_queries(q, words, *LAYOUT, DIM**-0.5)
    keys = torch.ops.paro.pack_keys(k, v, words, *LAYOUT, True)
    packed = [queries, keys, words, 1, HEADS, DIM, *LAYOUT, 2, True, 0]
    long = torch.int64
    sums = [_zeros(2, HEADS, BINS, dtype=long), _zeros(HEADS, 2, dtype=long)]
    kept = [_zeros(HEADS) - 1, _zeros(1, 8, TOKENS, dtype=torch.float16)]
    tables = _zeros(2 * sum(GRID) - 3)
    return {
        "attention": attention,
        "attention.broken": [*attention, _zeros(1)],
        "pack_queries": [q, words, *LAYOUT, DIM**-0.5],
        "pack_keys": [k, v, words, *LAYOUT, True],
        "attention_packed": packed,
        "attention_packed.broken": [*packed, _zeros(1)],
        "observe": [q, k, places, tables, *sums, *kept, *GRID_NUMBERS, 2, 2, 2, DIM**-0.5],
        "meter": [q, k, v, words, places, *LAYOUT, DIM**-0.5, True],
        "dynamic_plan": [
            *(q, k, _zeros(HEADS), torch.ones(HEADS, device="cuda"), *LAYOUT, DIM**-0.5)
        ],
        "block_importance": [q, k, _zeros(HEADS), *GRID_NUMBERS, DIM**-0.5, 0],
    }


def _strided(x):
    return x.mT.contiguous().mT


def _misplaced(x):
    """x two bytes past a place for 16-byte loads."""
    return torch.empty(x.numel() + 1, dtype=x.dtype, device="cuda")[1:].view(x.shape)


def _odd_rows(x):
    """x in rows of 130 bytes."""
    return torch.empty(*x.shape[:3], x.shape[3] + 1, dtype=x.dtype, device="cuda")[..., :-1]


def _wide(x):
    return torch.empty(*x.shape[:3], 96, dtype=x.dtype, device="cuda")


FIRST = "of the first tensor"
RANK = "{} must have the shape (B, H, N, D) (got (3, 70, 64))"
# What may be wrong with an argument: (what, change, what the message must hold). {} is its name.
FIRST_TENSOR = (
    ("on the CPU", lambda x: x.cpu(), "{} must be on a CUDA device (got a tensor on the CPU)"),
    ("float64", lambda x: x.double(), "{} must be float32, float16 or bfloat16 (got float64)"),
    (
        "of three dimensions",
        lambda x: x[0],
        RANK,
    ),
    ("a token short", lambda x: x[:, :, 1:], "{} must hold the layout's 70 tokens (got 69)"),
    ("96 wide", _wide, "head_dim must be 64 or 128 (got 96)"),
    ("without a batch", lambda x: x[:0], "batch must be at least 1 (got 0)"),
    ("without heads", lambda x: x[:, :0], "heads must be at least 1 (got 0)"),
    ("columns apart", _strided, "{}.stride(3) must be 1 (got 70)"),
    ("misplaced", _misplaced, "{}.data_ptr() must be a multiple of 16"),
    ("in odd rows", _odd_rows, "{}.stride(1) must be a multiple of 16 bytes"),
)
NEXT_TENSOR = (
    ("on the CPU", lambda x: x.cpu(), "{} must be on a CUDA device (got a tensor on the CPU)"),
    (
        "float64",
        lambda x: x.double(),
        "{} must have the dtype " + FIRST + ", bfloat16 (got float64)",
    ),
    (
        "of three dimensions",
        lambda x: x[0],
        RANK,
    ),
    ("a token short", lambda x: x[:, :, 1:], "{} must have the shape " + FIRST),
    ("columns apart", _strided, "{}.stride(3) must be 1 (got 70)"),
    ("misplaced", _misplaced, "{}.data_ptr() must be a multiple of 16"),
)
PLAN = (
    ("on the CPU", lambda x: x.cpu(), "plan must be on a CUDA device (got a tensor on the CPU)"),
    ("int64", lambda x: x.long(), "for these sizes (got int64 ("),
    ("a word short", lambda x: x[1:], "plan must be a contiguous int32 tensor of"),
    ("of two dimensions", lambda x: x[None], "plan must be a contiguous int32 tensor of"),
)
COUNT = (
    ("negative", lambda x: -1, "{} must be 0 to 2^31 - 1 (got -1)"),
    ("beyond 31 bits", lambda x: 2**32 + x, "{} must be 0 to 2^31 - 1 (got 42949"),
)
SIDE = (*COUNT, ("zero", lambda x: 0, "must be at least 1 (got 0)"))
TILE = (*COUNT, ("of 32", lambda x: 32, "{} must be 64 or 128 (got 32)"))
SCALE = tuple(
    (str(value), lambda x, value=value: value, "sm_scale must be finite and above 0")
    for value in (float("nan"), float("inf"), 0.0, -1.0)
)
PACKED = (
    ("on the CPU", lambda x: x.cpu(), "{} must be on a CUDA device (got a tensor on the CPU)"),
    ("a byte short", lambda x: x[1:], "{} must be what packing returned for these sizes"),
    ("int32", lambda x: x.int(), "{} must be what packing returned for these sizes, uint8 ("),
)
WORD = (
    ("on the CPU", lambda x: x.cpu(), "broken must be on a CUDA device"),
    (
        "float32",
        lambda x: x.float(),
        "broken must be an int32 tensor of one element (got float32 (1))",
    ),
    ("of two elements", lambda x: x.repeat(2), "broken must be an int32 tensor of one element"),
)
PLACES = (
    ("on the CPU", lambda x: x.cpu(), "queries must be on a CUDA device"),
    ("int64", lambda x: x.long(), "queries must be int32 (got int64)"),
    ("of one dimension", lambda x: x[0], "queries must have the shape (H, n) with H = 3"),
    ("a head short", lambda x: x[1:], "queries must have the shape (H, n) with H = 3"),
    ("none", lambda x: x[:, :0], "queries must be 1 to 4096 a head (got 0)"),
    ("columns apart", lambda x: x.T.contiguous().T, "queries must be contiguous with 24 elements"),
)


def _flat(count, dtype, other):
    names = [str(one).removeprefix("torch.") for one in (dtype, other)]
    return (
        ("on the CPU", lambda x: x.cpu(), "{} must be on a CUDA device"),
        (
            "another dtype",
            lambda x: x.to(other),
            f"{{}} must be {names[0]} (got {names[1]})",
        ),
        ("short", lambda x: x[1:], f"{{}} must be contiguous with {count} elements"),
    )


# What may be wrong with each argument, by operator and argument; else by argument.
WRONG = {
    "q": FIRST_TENSOR,
    "k": NEXT_TENSOR,
    "v": NEXT_TENSOR,
    ("pack_keys", "k"): FIRST_TENSOR,
    "plan": PLAN,
    "prefix": COUNT,
    "suffix": COUNT,
    "grid_f": SIDE,
    "grid_h": SIDE,
    "grid_w": SIDE,
    "block_q": TILE,
    "block_kv": TILE,
    "sm_scale": SCALE,
    "precision": tuple(
        (str(value), lambda x, value=value: value, "precision must be 0 (int8) or 1 (bf16)")
        for value in (-1, 2, 2**32)
    ),
    "path": tuple(
        (str(value), lambda x, value=value: value, "path must be 0 (automatic), 1 (portable) or 2")
        for value in (-1, 3, 2**32)
    ),
    "broken": WORD,
    ("attention_packed", "queries"): PACKED,
    "keys": PACKED,
    "batch": (*COUNT, ("zero", lambda x: 0, "batch must be at least 1 (got 0)")),
    "heads": (*COUNT, ("zero", lambda x: 0, "heads must be at least 1 (got 0)")),
    "head_dim": (*COUNT, ("96", lambda x: 96, "head_dim must be 64 or 128 (got 96)")),
    "dtype": tuple(
        (str(value), lambda x, value=value: value, "dtype must be 0 (float32), 1 (float16)")
        for value in (-1, 3, 2**32)
    ),
    "queries": PLACES,
    "tables": _flat(2 * sum(GRID) - 3, torch.int32, torch.int64),
    "units": _flat(2 * HEADS * BINS, torch.int64, torch.int32),
    "rows": _flat(2 * HEADS, torch.int64, torch.int32),
    "kept": (
        *_flat(HEADS, torch.int32, torch.int64),
        ("not given", lambda x: None, "kept_rows must come with kept (got kept_rows alone)"),
    ),
    "kept_rows": (
        ("on the CPU", lambda x: x.cpu(), "kept_rows must be on a CUDA device"),
        ("float32", lambda x: x.float(), "kept_rows must be float16 (got float32)"),
        ("of two dimensions", lambda x: x[0], "kept_rows must have the shape (heads, n, grid"),
        ("short", lambda x: x[:, 1:], "kept_rows must be contiguous with 560 elements"),
        ("not given", lambda x: None, "kept_rows must come with kept (got kept alone)"),
    ),
    "bins_f": (("zero", lambda x: 0, "{} must be 1 to 512"), *COUNT),
    "bins_h": (("zero", lambda x: 0, "{} must be 1 to 512"), *COUNT),
    "bins_w": (("of 513", lambda x: 513, "{} must be 1 to 512"), *COUNT),
    "densities": _flat(HEADS, torch.float32, torch.float64),
    "orders": _flat(HEADS, torch.int32, torch.int64),
    "tail": (),
}
# As the schemas name them; a test holds them against those.
_PLAN_TAIL = (*ORDERS, "block_q", "block_kv")
_ATTENTION = (*("q", "k", "v", "plan"), *_PLAN_TAIL, "sm_scale", "precision", "tail", "path")
_ATTENTION_PACKED = (
    *("queries", "keys", "plan", "batch", "heads", "head_dim"),
    *(*_PLAN_TAIL, "dtype", "tail", "path"),
)
ARGUMENTS = {
    "attention": _ATTENTION,
    "attention.broken": (*_ATTENTION, "broken"),
    "pack_queries": ("q", "plan", *_PLAN_TAIL, "sm_scale"),
    "pack_keys": ("k", "v", "plan", *_PLAN_TAIL, "tail"),
    "attention_packed": _ATTENTION_PACKED,
    "attention_packed.broken": (*_ATTENTION_PACKED, "broken"),
    "observe": (
        *("q", "k", "queries", "tables", "units", "rows", "kept", "kept_rows", *ORDERS),
        *("bins_f", "bins_h", "bins_w", "sm_scale"),
    ),
    "meter": ("q", "k", "v", "plan", "queries", *_PLAN_TAIL, "sm_scale", "tail"),
    "dynamic_plan": ("q", "k", "orders", "densities", *_PLAN_TAIL, "sm_scale"),
    "block_importance": ("q", "k", "orders", *ORDERS, "sm_scale", "path"),
}


def _cases():
    for operator, names in ARGUMENTS.items():
        for place, name in enumerate(names):
            base = operator.partition(".")[0]
            for what, change, message in WRONG.get((base, name), WRONG.get(name, ())):
                yield pytest.param(
                    operator,
                    place,
                    change,
                    message.format(name),
                    id=f"{operator}-{name}-{what}".replace(" ", "_"),
                )


def _overload(name):
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.paro, packet), overload or "default")


def _as_tuple(result):
    return result if isinstance(result, tuple) else () if result is None else (result,)


@pytest.fixture(scope="module")
def good():
    return _good()


@pytest.mark.parametrize("operator", ARGUMENTS)
def test_the_table_holds_every_argument(operator):
    assert ARGUMENTS[operator] == tuple(one.name for one in _overload(operator)._schema.arguments)
    assert all(name in WRONG for name in ARGUMENTS[operator])


def test_the_table_holds_every_operator():
    found = {
        one.name.removeprefix("paro::") + (f".{one.overload_name}" if one.overload_name else "")
        for one in torch._C._jit_get_all_schemas()
        if one.name.startswith("paro::")
    }
    assert found == set(ARGUMENTS)


@pytest.mark.parametrize("operator, place, change, message", _cases())
def test_a_bad_argument_is_refused_by_name(good, operator, place, change, message):
    op, arguments = _overload(operator), good[operator]
    before = [x.clone() for x in _as_tuple(op(*arguments))]
    bad = [*arguments[:place], change(arguments[place]), *arguments[place + 1 :]]
    with pytest.raises(RuntimeError) as caught:
        op(*bad)
    assert message in str(caught.value), str(caught.value).splitlines()[0]
    after = _as_tuple(op(*arguments))
    assert [x.shape for x in before] == [x.shape for x in after]
    if not operator.startswith("pack_"):  # what packing returns has gaps that nobody writes
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_needs_16_bits_refuses_32(good):
    for operator in ("observe", "meter", "dynamic_plan", "block_importance"):
        arguments = list(good[operator])
        for place, name in enumerate(ARGUMENTS[operator]):
            if name in ("q", "k", "v"):
                arguments[place] = arguments[place].float()
        if operator == "dynamic_plan":
            _overload(operator)(*arguments)
            continue
        with pytest.raises(RuntimeError, match="dtype must be float16 or bfloat16"):
            _overload(operator)(*arguments)


def test_int8_takes_what_bf16_refuses(good):
    q, k, v, *rest = good["attention"]
    wide = [x.float() for x in (q, k, v)]
    _overload("attention")(*wide, *rest)
    rest[-3] = 1
    with pytest.raises(
        RuntimeError, match="dtype must be float16 or bfloat16 where precision is bf16"
    ):
        _overload("attention")(*wide, *rest)
