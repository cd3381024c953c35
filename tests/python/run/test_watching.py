"""Sampling while sparse: what the samples measure, what is renewed by them, and what is not."""

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, _core, attention, reference
from paroattention.learn import sampling
from paroattention.learn.seen_blocks import PRIOR, SeenBlocks
from paroattention.run import block_memory
from paroattention.run.proposals import MOST_BETWEEN
from plan_reference import make_mask, seen_importance
from problems import profile, random_plan, tensors
from shifting import GRID, LAYOUT, SCALE, exact_maps, retained_at, run_shifted, shifted


def every_query(qkv, layout=LAYOUT):
    """Sampled rows of each grid query once."""
    q, k, _ = qkv
    places = torch.arange(layout.grid_size).expand(q.shape[1], -1)
    return list(sampling.sample(q, k, layout, [places] * q.shape[0], SCALE))


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128)], ids=str)
def test_retained_mass_of_every_query_is_that_of_the_exact_map(tile):
    qkv = tensors(3, LAYOUT.length, 64)
    plan = random_plan(LAYOUT, 3, 0.4, block_q=tile[0], block_kv=tile[1])
    (sampled,) = every_query(qkv)
    kept = sampling.kept_mass(sampled, plan).double().sum(1)
    for head, blocks in enumerate(exact_maps(qkv, [h.order for h in plan.heads], *tile)):
        want = _core.retained_mass(blocks, plan.heads[head].mask)
        assert float(kept[head, 0] / kept[head, 1]) == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_error_is_that_of_our_output(precision):
    qkv = tensors(2, LAYOUT.length, 64, batch=2)
    plan = random_plan(LAYOUT, 2, 0.5)
    out = attention(*qkv, plan, precision=precision)
    tally = sampling.Tally(2)
    for sampled in every_query(qkv):
        tally.add(sampled, plan, qkv[2], out)
    dense = reference.dense(*qkv)
    grid = slice(LAYOUT.prefix, LAYOUT.prefix + LAYOUT.grid_size)
    errors = sampling.relative_error(tally.read())
    for head in range(2):
        want = reference.relative_error(out[:, head, grid], dense[:, head, grid])
        assert errors[head] == pytest.approx(want, rel=1e-3)


def test_nothing_sampled_is_no_error():
    sums = sampling.Tally(3).read()
    assert list(sampling.retained(sums)) == [1, 1, 1]
    assert list(sampling.relative_error(sums)) == [0, 0, 0]


# -- masks from samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.05, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("levels", [4, 10**6], ids=["ties", "no ties"])
def test_masks_follow_the_same_rule_as_the_library(density, levels):
    draws = np.random.default_rng(3)
    blocks = _core.empty_map(GRID, "HFW", 64, 64)
    size = GRID[0] * GRID[1] * GRID[2]
    rows = draws.integers(0, levels, (size, 1)) * np.ones((1, size))
    rows = (rows + draws.integers(0, levels, (size, size)) // levels).astype(np.float32)
    _core.accumulate_rows(blocks, GRID, np.arange(size, dtype=np.int32), rows)
    want = _core.make_mask(blocks, density).numpy()
    assert np.array_equal(make_mask(blocks.numpy(), density), want)


def test_many_samples_make_the_exact_importance():
    qkv = tensors(2, LAYOUT.length, 64)
    seen = SeenBlocks(GRID, ["WHF", "HFW"], 64, 64)
    (sampled,) = every_query(qkv)
    for _ in range(50):
        seen.add(sampled)
    for head, blocks in enumerate(exact_maps(qkv, seen.orders, 64, 64)):
        noise = np.random.default_rng(0).random((seen.rows, seen.cols)).astype(np.float32)
        of_head = seen.sums[head], seen.counts[head]
        found = seen_importance(*of_head, noise, 4.0, LAYOUT.grid_size, 64)
        want = blocks.numpy() / 64
        assert np.abs(found - want).sum() < 0.01 * want.sum()


def importance(built, seen=None, prior=4.0, **size):
    """[rows, cols] by head of a profile's first layer, with what was seen."""
    known = None
    if seen is not None:
        known = _core.KnownBlocks(sums=seen.sums, counts=seen.counts, prior=prior)
    grid = built.calibration.grids[0]
    return [one.numpy() for one in _core.layer_importance(built, 0, 0, grid, known=known, **size)]


def test_without_samples_the_kernel_alone_counts():
    built = profile(grid=GRID)
    seen = SeenBlocks(GRID, [head.order for head in built.layers[0].heads], 64, 64)
    for found, by_kernel in zip(importance(built, seen), importance(built), strict=True):
        assert np.allclose(found * 64, by_kernel)


def test_a_ragged_last_tile_counts_by_its_own_queries():
    """Samples of its few queries and its kernel's smaller sum stand for the same mass a query."""
    grid = (1, 10, 7)
    built = profile(grid=grid)
    seen = SeenBlocks(grid, [head.order for head in built.layers[0].heads], 64, 64)
    alone = importance(built, seen)
    # Of every query of the kernel's own map once.
    for head, by_kernel in enumerate(importance(built)):
        seen.sums[head], seen.counts[head] = by_kernel, [64, 6]
    for found, want in zip(importance(built, seen), alone, strict=True):
        assert np.allclose(found, want, rtol=1e-4)
        assert np.allclose(found.sum(1), found.sum(1)[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("limit", "pools", "told"),
    [
        (4 * 4 * 17 * 17, (1, 1), []),
        (4 * 4 * 6 * 17, (3, 1), []),
        (4 * 4 * 6 * 17 - 1, (3, 2), ["samples are summed over 128 keys at a time"]),
        (4 * 4 * 6 - 1, None, ["masks do not learn where in the picture a query lies"]),
    ],
    ids=["tiles", "parts of the queries", "fewer keys", "nothing"],
)
def test_what_samples_saw_is_kept_as_fine_as_it_fits(monkeypatch, limit, pools, told):
    """Of two layers with two heads, 17 tiles each. What is lost is told once."""
    monkeypatch.setattr(block_memory, "MOST_BYTES", limit)
    built = profile(grid=(8, 9, 15))
    find, _ = finder(built)
    host = Host(Settings(density=0.3), grid=(8, 9, 15), find_profile=find)
    for sigma in SIGMAS[:-1]:
        host.evaluate(sigma)
    planner = host.session.planner
    assert [text.split(":")[0] for text in host.reasons()] == told
    assert {seen.pools for seen in planner.seen.values()} == ({pools} if pools else set())
    assert sum(seen.sums.nbytes for seen in planner.seen.values()) <= limit
    planner.forget()
    for layer, seen in planner.seen.items():
        assert seen.counts.any()
        key = planner.key(layer, SIGMAS[-2], host.layout, tensors(2, host.layout.length, 64)[0])
        known = _core.KnownBlocks(
            sums=seen.sums, counts=seen.counts, prior=PRIOR, pool_q=pools[0], pool_kv=pools[1]
        )
        where = planner.profile, planner.index(layer), key.group, (8, 9, 15)
        want = _core.plan_layer(*where, density=planner.density(planner.profile), known=known)
        bare = _core.plan_layer(*where, density=planner.density(planner.profile))
        found = _core.plan_words(planner.get(key))
        assert np.array_equal(found, _core.plan_words(want))
        assert not np.array_equal(found, _core.plan_words(bare))


def test_samples_that_come_while_others_read_go_to_copies():
    seen = SeenBlocks(GRID, ["WHF"], 64, 64)
    reading = [True]
    read = seen.sums
    seen.lend(lambda: reading[0])
    places, sums = torch.tensor([[0]]), torch.ones(1, 1, seen.cols)
    seen.add_many([0], places, sums)
    assert not read.any() and seen.sums.sum() == seen.cols
    # Once is enough; and where nobody reads nothing is copied.
    read = seen.sums
    seen.add_many([0], places, sums)
    seen.lend(lambda: reading[0])
    reading[0] = False
    seen.fade(0.5)
    assert seen.sums is read and seen.sums.sum() == seen.cols


# -- renewal ---------------------------------------------------------------------------------------


def test_masks_follow_heads_that_change_what_they_look_at():
    kept, _ = run_shifted([0] * 6)
    changed, summary = run_shifted([0, 0, 3, 3, 3, 3])
    assert retained_at(kept, 5) > 0.95
    assert retained_at(changed, 2) < 0.5
    assert retained_at(changed, 5) > retained_at(changed, 2) + 0.1
    taken = [heads for _, heads, _ in summary["renewals"]]
    assert max(taken) == 4


def test_proposals_wait_longer_each_time_and_begin_anew_in_the_second_half():
    sigmas = [1.0 - 0.01 * step for step in range(80)] + [0.0]
    host = Host(
        Settings(observe_steps=2, density=0.2, dense_below=0.0), sigmas=sigmas, grid=(3, 8, 8)
    )
    renewals = host.run(sigmas[:-1])["renewals"]
    steps = [step for step, _, _ in renewals]
    half = next(place for place, step in enumerate(steps) if step >= 40)
    first, second = np.diff(steps[:half]).tolist(), np.diff(steps[half:]).tolist()
    # Every second step is sampled, and each one between a proposal and its verdict.
    assert first == sorted(first) and first[0] < first[-1] <= 2 * MOST_BETWEEN
    assert second[0] < second[1] <= 2 * MOST_BETWEEN
    assert second[0] < first[-1]


def test_nothing_is_renewed_where_nothing_is_gained():
    host, summary = run_shifted([0] * 6)
    assert summary["renewals"] and all(taken == 0 for _, taken, _ in summary["renewals"])
    assert host.session.report.paths["sparse"] == 8


def test_without_refresh_nothing_is_sampled():
    settings = Settings(observe_steps=2, density=0.2, refresh=False)
    host, summary = run_shifted([0, 0, 3, 3, 3, 3], settings)
    assert summary["renewals"] == [] and summary["measured_error"] is None
    assert summary["meter_seconds"] == 0 and all(line["error"] is None for line in host.lines)


def test_a_profile_that_was_found_is_renewed_too():
    find, _ = finder(profile(grid=GRID))
    settings = Settings(density=0.2)
    host, _ = run_shifted([0] * 6, settings, find_profile=find)
    first = min(line["step"] for line in host.lines if line["error"] is not None)
    assert retained_at(host, 5) > retained_at(host, first) + 0.1
    assert not host.saved


def test_what_was_learned_is_saved_at_the_end_in_two_halves():
    host, _ = run_shifted([0, 0, 0, 3, 3, 3])
    first, last = host.saved
    assert first.timestep_groups == [(1.0, 0.0)] and last.timestep_groups == [(1.0, 0.5), (0.5, 0)]
    groups = last.layers[0].heads[0].groups
    assert groups[0].code != groups[1].code


def test_sampling_leaves_the_output_alone():
    """The same plan, sampled or not: the same bits."""
    find, _ = finder(profile(grid=GRID))
    outputs = []
    for refresh in (True, False):
        host = Host(Settings(density=0.2, refresh=refresh), grid=GRID, find_profile=find)
        forward = host.session.begin_forward(1.0)
        outputs.append(host.call(forward, "double.0.0", shifted(1))[0])
    assert torch.equal(*outputs)


def test_step_by_step_sampling_is_sparse():
    host, _ = run_shifted([0] * 6, Settings(observe_steps=1, density=0.2, refresh_every=3))
    steps = {entry["step"] for entry in host.session.watch.meter.history}
    # The first sparse step and every third, and the one that judges a proposal.
    assert steps < {1, 2, 3, 4, 5} and 1 in steps


# -- the meter -------------------------------------------------------------------------------------


@pytest.mark.parametrize("skipped", [(), (2,), (1, 3)], ids=str)
def test_a_step_that_a_cache_skips_takes_no_sample_s_turn(skipped):
    """The calls of every second sparse step that is computed are sampled."""
    host = Host(Settings(observe_steps=1, refresh_every=2))
    session = host.session
    for step, sigma in enumerate(SIGMAS[:-1]):
        if step in skipped:
            session.begin_forward(sigma)
        else:
            host.evaluate(sigma)
    session.finish()
    sampled = sorted({reading["step"] for reading in session.watch.meter.history})
    computed = [step for step in range(1, 6) if step not in skipped]
    # A proposal that waits for a verdict is sampled too, so there may be more of them.
    assert set(computed[::2]) <= set(sampled) <= set(computed)
    if not skipped:
        assert sampled == [1, 3, 4, 5] or sampled == [1, 3, 5]


def test_heads_that_are_far_off_go_denser_and_the_others_pay():
    """Random attention is off by more than this limit everywhere: its cap stops the rule."""
    grid = (4, 8, 16)
    find, _ = finder(profile(density=0.3, heads=8, grid=grid))
    host = Host(Settings(density=0.3), find_profile=find, limit=0.05, heads=8, grid=grid)
    host.run()
    last = host.session.planner.profile
    own = [head.density for layer in last.layers for head in layer.heads]
    raised = [density for density in own if density is not None]
    # Twice what they had, while that is at most half of what was asked for.
    assert raised and min(raised) > 0.5 and sum(raised) <= 0.15 * 16
    told = [reason for reason in host.reasons() if reason.startswith("heads with a measured")]
    assert len(told) == 1 and host.reasons()[told[0]] >= 1
    assert any("half of the density is spent" in reason for reason in host.reasons())
    steps = {}
    for line in host.lines:
        steps.setdefault(line["step"], []).append(line["density"])
    for densities in steps.values():
        assert np.mean(densities) == pytest.approx(0.3, abs=0.01)


def test_a_head_that_stays_far_off_goes_dense():
    """One head alone is judged too far off: twice the density does not help it."""
    grid = (4, 8, 16)
    find, _ = finder(profile(density=0.3, heads=8, grid=grid))
    host = Host(Settings(density=0.3), find_profile=find, limit=0.5, heads=8, grid=grid)
    denser = host.session.watch.meter.denser
    plain = denser.add

    def add(key, sums, queries):
        sums = np.array(sums)
        wrong = np.arange(8) == (3 if key.layer == "double.0.0" else -1)
        sums[:, sampling.LOST] = np.where(wrong, 4.0, 0.0) * sums[:, sampling.WHOLE]
        plain(key, sums, queries)

    denser.add = add
    seen = []
    for sigma in SIGMAS[:-1]:
        host.evaluate(sigma)
        seen.append(host.session.planner.profile.layers[0].heads[3].density)
    host.session.finish()
    given = [density for density in seen if density is not None]
    assert given[0] == pytest.approx(0.6, abs=0.02) and given[-1] == 1.0
    last = host.session.planner.profile
    assert sum(head.density is not None for layer in last.layers for head in layer.heads) == 1
    final = [line["density"] for line in host.lines if line["step"] == 5]
    assert np.mean(final) == pytest.approx(0.3, abs=0.01)


def test_a_limit_that_nothing_exceeds_changes_nothing():
    find, _ = finder(profile(density=0.2))
    host = Host(Settings(density=0.2), find_profile=find, limit=1.0)
    host.run()
    assert not host.session.watch.meter.denser.raised.get("double.0.0") and not host.reasons()


def test_the_run_log_has_every_heads_reading():
    host, summary = run_shifted([0] * 6)
    for line in host.lines:
        if line["error"] is None:
            continue
        assert len(line["head_retained"]) == len(line["head_error"]) == 2
        assert line["retained"] == pytest.approx(np.mean(line["head_retained"]), abs=1e-3)
        assert 0 <= min(line["head_error"]) <= line["error"] <= max(line["head_error"]) + 1e-4
    assert summary["measured_retained"] == pytest.approx(retained_at(host, 5), abs=1e-3)
    assert any("measured: retained mass" in text for _, text in host.texts)
