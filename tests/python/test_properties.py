"""What must hold for any input, tried on inputs that hypothesis makes up.

Derandomised: the same inputs each time, so that a failure is the change's. `--hypothesis-seed=N`
after `derandomize=False` tries others.
"""

import copy
import json

import numpy as np
import pytest
import torch
from paroattention import ORDERS, Error, Plan, Profile, TokenLayout, _core, attention, reference
from paroattention.layout import permutation
from paroattention.runlog import RunLog
from test_profile_schema import PROFILE
from tolerances import assert_close

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

settings.register_profile("paro", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("paro")

orders = st.sampled_from(ORDERS)
grids = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
layouts = st.builds(TokenLayout, grids, st.integers(0, 150), st.integers(0, 150))
densities = st.floats(0.05, 1.0)
# Any text that JSON can carry; half a surrogate pair is none.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=True, allow_infinity=True), st.booleans(),
    st.none(), texts, st.lists(st.integers(), max_size=3), st.just({}),
)  # fmt: skip


def importance(grid, order, seed, block_q=64, block_kv=64):
    bins = _core.Bins.even(grid)
    # Whole numbers, so that many blocks are equal.
    values = np.random.default_rng(seed).integers(0, 5, len(bins)).astype(np.float32)
    return _core.importance(bins, values, grid, order, block_q, block_kv)


@given(grids, orders)
def test_orders_are_permutations_and_inverses(grid, order):
    tokens, places = permutation(grid, order)
    assert sorted(tokens.tolist()) == list(range(len(tokens)))
    assert torch.equal(tokens[places], torch.arange(len(tokens)))
    assert torch.equal(places[tokens], torch.arange(len(tokens)))


@given(layouts, orders, st.integers(1, 200))
def test_a_layout_places_each_token_once(layout, order, block):
    places = _core.pack_index(layout.prefix, layout.grid, layout.suffix, order, block)
    assert len(places) % block == 0
    assert sorted(places[places >= 0].tolist()) == list(range(layout.length))
    # What does not lie in the grid is never permuted.
    rest = [
        p for p in places.tolist() if 0 <= p < layout.prefix or p >= layout.length - layout.suffix
    ]
    assert rest == sorted(rest)


@given(grids, orders, densities, st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_mask_holds_what_its_density_says(grid, order, density, block_q, block_kv, seed):
    blocks = importance(grid, order, seed, block_q, block_kv)
    mask = _core.make_mask(blocks, density)
    values, taken = blocks.numpy(), mask.numpy()
    wanted = int(np.floor(density * values.size + 0.5))
    greatest = np.argsort(-values.ravel(), kind="stable")[:wanted]
    assert taken.ravel()[greatest].all()
    without = values.shape[0] - len(set((greatest // values.shape[1]).tolist()))
    assert mask.count() == wanted + without
    assert taken.any(axis=1).all()


@given(layouts, st.lists(st.tuples(orders, densities), min_size=1, max_size=3), st.integers(0, 99))
def test_a_plan_holds_the_masks_that_it_was_made_of(layout, heads, seed):
    plans = [_core.plan_head(importance(layout.grid, order, seed), share) for order, share in heads]
    plan = layout.plan(plans, 64, 64)
    side = -(-layout.grid_size // 64)
    counts = [_core.make_mask(importance(layout.grid, o, seed), d).count() for o, d in heads]
    assert plan.length == layout.length and plan.head_count == len(heads)
    assert plan.density == pytest.approx(sum(counts) / (len(heads) * side * side))
    assert plan.density <= plan.density_total + 1e-12


@settings(max_examples=25)
@given(layouts, orders, densities, st.sampled_from(["bf16", "int8"]), st.booleans(), st.data())
def test_attention_is_the_reference(layout, order, density, precision, tail, data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    batch, strided = data.draw(st.integers(1, 2)), data.draw(st.booleans())
    head = _core.plan_head(importance(layout.grid, order, 3), density)
    plan = Plan(
        layout.grid, prefix=layout.prefix, suffix=layout.suffix, block_q=64, block_kv=64,
        heads=[head, head],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    shape = (batch, layout.length, 2, 64) if strided else (batch, 2, layout.length, 64)
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    if strided:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = attention(q, k, v, plan, precision=precision, tail=tail)
    assert_close(out, reference.sparse(q, k, v, plan, tail=tail), dtype, precision)


def places(value, path=()):
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in inner:
        yield (*path, key)
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))


@settings(max_examples=300)
@given(st.sampled_from(list(places(PROFILE))), numbers, st.booleans())
def test_a_profile_with_anything_anywhere_is_refused_or_reads_back_equal(path, value, remove):
    broken = copy.deepcopy(PROFILE)
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    try:
        profile = Profile.parse(json.dumps(broken))
    except Error as error:
        assert 0 < len(str(error)) < 1000
        return
    text = profile.dump()
    assert Profile.parse(text).dump() == text
    profile.validate()


@given(texts)
def test_whatever_the_text_a_suggested_name_is_valid(text):
    name = _core.suggest_profile_name(text)
    assert _core.profile_name_rule(name) == ""
    assert _core.suggest_profile_name(name) == name
    if _core.profile_name_rule(text) == "":
        assert name == text


@given(st.lists(st.dictionaries(texts, st.one_of(texts, st.integers(), st.none()), max_size=4)))
def test_a_run_log_has_a_line_for_each_entry(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("log") / "runlog.jsonl"
    log = RunLog(path)
    for entry in entries:
        log.lines.append(entry)
    log.flush()
    text = path.read_text(encoding="utf-8") if entries else ""
    assert [json.loads(line) for line in text.split("\n") if line] == entries
