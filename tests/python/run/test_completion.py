"""Profiles that lack layers of the model: what is missing is watched, planned and added."""

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder, sparse_host
from paroattention import Error, ModelInfo, Profile, Settings
from paroattention.run import completion
from problems import profile

FIRST, SECOND = "double.0.0", "double.1.0"


def part(**options):
    """A profile of the first layer alone: the run that made it had masked the other."""
    return profile(layers=(FIRST,), **options)


def paths(host, layer) -> str:
    """What each step did with a layer, a letter each."""
    return "".join(line["path"][0] for line in host.lines if line["layer"] == layer)


@pytest.mark.parametrize("mask", ["static", "dynamic"])
@pytest.mark.parametrize("observe", [1, 2, 4])
def test_missing_layers_are_watched_while_the_others_run_sparse(observe, mask):
    host = sparse_host(part(), settings=Settings(observe_steps=observe, mask=mask))
    summary = host.run()
    assert paths(host, FIRST) == "ssssss"
    assert paths(host, SECOND) == "o" * observe + "s" * (6 - observe)
    assert host.reasons() == {completion.WATCHED: 1}
    assert summary["profile"] == f"found, completed by 1 layer ({SECOND})"
    told = {line["reason"] for line in host.lines if line["path"] == "observe"}
    assert told == {"observing: this layer is not in the profile"}


def test_the_completed_profile_is_saved_and_serves_the_next_run_whole():
    found = part(seed=3)
    before = found.dump()
    host = sparse_host(found, settings=Settings(observe_steps=2, refresh=False))
    host.run()
    (saved,) = host.saved
    assert saved.layer_ids() == [FIRST, SECOND] and saved.model.layers == 2
    # What was there is not touched, neither in the file's profile nor in the new one.
    assert found.dump() == before and saved.calibration.prompts == found.calibration.prompts
    assert kernels(saved)[FIRST] == kernels(found)[FIRST]
    again = sparse_host(Profile.parse(saved.dump()))
    again.run()
    assert set(again.paths().values()) == {"sparse"} and not again.reasons() and not again.saved


def kernels(built) -> dict:
    return {
        layer.id: [(h.order, group.code, group.peak) for h in layer.heads for group in h.groups]
        for layer in built.layers
    }


def test_what_was_sampled_later_is_saved_at_the_end():
    host = sparse_host(part(), settings=Settings(observe_steps=1, refresh_every=1))
    host.run()
    first, last = host.saved[0], host.saved[-1]
    assert len(host.saved) == 2 and first.layer_ids() == last.layer_ids() == [FIRST, SECOND]
    assert kernels(first)[FIRST] == kernels(last)[FIRST]
    assert kernels(first)[SECOND] != kernels(last)[SECOND]


@pytest.mark.parametrize("groups", [((1.0, 0.0),), ((1.0, 0.5), (0.5, 0.0))], ids=["one", "two"])
def test_added_layers_have_the_profiles_timestep_groups(groups):
    host = sparse_host(part(groups=groups), settings=Settings(observe_steps=1))
    host.run()
    for saved in host.saved:
        assert saved.timestep_groups == list(groups)
        assert all(len(h.groups) == len(groups) for layer in saved.layers for h in layer.heads)
    assert paths(host, SECOND) == "osssss"


@pytest.mark.parametrize("grid", [(4, 6, 8), (3, 7, 9)], ids=str)
def test_a_profile_of_a_near_grid_is_completed_too(grid):
    host = sparse_host(part(grid=grid), settings=Settings(observe_steps=1))
    host.run()
    assert paths(host, FIRST) == "ssssss" and paths(host, SECOND) == "osssss"
    # What the profile says it was calibrated on stays true of most of it.
    assert host.saved[-1].calibration.grids == [grid]
    assert Profile.parse(host.saved[-1].dump()).layer_ids() == [FIRST, SECOND]


def test_without_observation_missing_layers_stay_dense_and_say_so():
    host = sparse_host(part(), settings=Settings(observe_steps=0))
    host.run()
    assert paths(host, FIRST) == "ssssss" and paths(host, SECOND) == "dddddd"
    reason = f"layer {SECOND} is not in the profile, and observe_steps 0 watches no step"
    assert host.reasons() == {reason: 6} and not host.saved


def test_layers_that_the_profile_has_and_the_run_does_not_call_are_no_matter():
    find, _ = finder(profile(layers=(FIRST, SECOND, "double.0.1", "single.7.0")))
    host = Host(find_profile=find)
    host.run()
    assert set(host.paths().values()) == {"sparse"} and not host.reasons() and not host.saved


def test_a_layer_that_first_comes_in_a_late_step():
    """A mask that held in the first half only, or a block that another node has skipped."""
    host = Host(Settings(observe_steps=1))
    for step, sigma in enumerate(SIGMAS[:-1]):
        host.layers = [FIRST] if step < 3 else [FIRST, SECOND]
        host.evaluate(sigma)
    host.session.finish()
    assert paths(host, FIRST) == "osssss" and paths(host, SECOND) == "oss"
    assert host.saved[0].layer_ids() == [FIRST]
    assert host.saved[-1].layer_ids() == [FIRST, SECOND]


def test_a_layer_that_comes_in_every_other_step():
    host = sparse_host(part(), settings=Settings(observe_steps=2))
    for step, sigma in enumerate(SIGMAS[:-1]):
        host.layers = [FIRST, SECOND] if step % 2 else [FIRST]
        host.evaluate(sigma)
    host.session.finish()
    assert paths(host, SECOND) == "oos" and paths(host, FIRST) == "ssssss"


def test_a_run_that_ends_while_it_watches_saves_what_it_saw():
    host = sparse_host(part(), settings=Settings(observe_steps=4))
    host.run(SIGMAS[:2])
    assert paths(host, SECOND) == "oo"
    assert [saved.layer_ids() for saved in host.saved] == [[FIRST, SECOND]]


def test_an_interrupted_run_saves_no_half_watched_layer():
    host = sparse_host(part(), settings=Settings(observe_steps=4))
    for sigma in SIGMAS[:2]:
        host.evaluate(sigma)
    host.session.finish(ok=False)
    assert not host.saved


def test_a_run_that_saves_nothing_completes_for_itself():
    host = sparse_host(part(), settings=Settings(observe_steps=1), save_profile=None)
    summary = host.run()
    assert paths(host, SECOND) == "osssss"
    assert summary["profile"].endswith(f"completed by 1 layer ({SECOND}), in this run only")


def test_no_layer_in_the_first_steps_at_all():
    """Everything masked in the first half: the run watches when there is something to watch."""
    host = Host(Settings(observe_steps=2))
    for step, sigma in enumerate(SIGMAS[:-1]):
        host.layers = [] if step < 3 else [FIRST, SECOND]
        host.evaluate(sigma)
    host.session.finish()
    assert host.paths() == {3: "observe", 4: "observe", 5: "sparse"} and not host.reasons()


def test_missing_layers_are_watched_outside_of_the_percents():
    host = sparse_host(part(), settings=Settings(observe_steps=1, start_percent=0.5))
    host.run()
    assert paths(host, FIRST) == "dddsss" and paths(host, SECOND) == "oddsss"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"heads": 3}, "the profile has 3 heads of size 64"),
        ({"grid": (9, 6, 8)}, "is for other sizes"),
    ],
    ids=["other heads", "a far grid"],
)
def test_a_profile_that_does_not_fit_is_not_completed(options, reason):
    host = sparse_host(part(**options))
    host.run()
    (told,) = host.reasons()
    assert reason in told and host.session.report.paths == {"dense": 12} and not host.saved


def test_rows_that_are_not_finite_leave_their_layer_dense_and_say_so():
    host = sparse_host(part(), settings=Settings(observe_steps=1))
    for sigma in SIGMAS[:-1]:
        forward = host.session.begin_forward(sigma)
        for layer in host.layers:
            q = k = v = torch.ones(1, 2, 144, 64)
            if layer == SECOND:
                k = torch.full_like(k, float("nan"))
            host.session.attention(forward, layer, q, k, v, host.layout, lambda v=v: v)
    host.session.finish()
    assert host.session.report.paths["sparse"] == 6 and paths(host, SECOND) == "oddddd"
    assert any("not in the profile" in reason and count == 5
               for reason, count in host.reasons().items())  # fmt: skip
    assert not host.saved


def test_masks_under_renewal_survive_the_addition():
    """Samples are taken at every step: a proposal is before the jury when the layer is added."""
    for observe in (1, 2, 3):
        settings = Settings(observe_steps=observe, refresh_every=1, dense_below=0.0)
        host = sparse_host(part(), settings=settings)
        host.run()
        assert not [r for r in host.reasons() if "not renewed" in r or "added:" in r]
        assert paths(host, SECOND) == "o" * observe + "s" * (6 - observe)
        assert host.session.planner.profile.layer_ids() == [FIRST, SECOND]


def test_layers_that_come_at_different_steps_keep_what_was_seen_of_them():
    """Rows of a layer that is still watched are not lost when another one is added."""
    third = "single.0.0"
    host = sparse_host(part(), settings=Settings(observe_steps=2, refresh_every=9))
    for step, sigma in enumerate(SIGMAS[:-1]):
        host.layers = [FIRST, SECOND, third] if step else [FIRST, SECOND]
        host.evaluate(sigma)
    assert paths_so_far(host, SECOND) == "oossss" and paths_so_far(host, third) == "oosss"
    seen = host.session.planner.seen
    assert set(seen) >= {SECOND, third}
    assert all(seen[layer].counts.sum() > 0 for layer in (SECOND, third))
    assert host.session.learning.missing.added == [SECOND, third]


def paths_so_far(host, layer) -> str:
    logged = host.session.report.calls._lines.items()
    return "".join(line["path"][0] for (_, name), line in sorted(logged) if name == layer)


def test_density_by_target_error_covers_added_layers():
    settings = Settings(density="auto", observe_steps=1, target_error=0.2)
    host = sparse_host(part(), settings=settings)
    host.run()
    assert paths(host, SECOND) == "osssss" and host.session.planner.profile.model.layers == 2


# -- sets of layers --------------------------------------------------------------------------------


def test_filled_takes_only_what_is_lacking():
    mine, other = part(seed=1), profile(seed=2)
    both = completion.filled(mine, other)
    assert both.layer_ids() == [FIRST, SECOND]
    assert kernels(both)[FIRST] == kernels(mine)[FIRST]
    assert kernels(both)[SECOND] == kernels(other)[SECOND]
    assert completion.filled(other, mine) is other


@pytest.mark.parametrize(
    "other",
    [profile(model=ModelInfo("wan2.1", "cd" * 32)), profile(heads=3), profile(grid=(9, 12, 8))],
    ids=["another model", "other heads", "a far grid"],
)
def test_filled_refuses_what_does_not_belong(other):
    with pytest.raises(Error, match="profile must be"):
        completion.filled(part(), other)


def test_without_layers():
    whole = profile(layers=(FIRST, SECOND, "single.0.0"))
    rest = completion.without(whole, {SECOND})
    assert rest.layer_ids() == [FIRST, "single.0.0"] and rest.model.layers == 2
    assert whole.model.layers == 3 and completion.without(whole, {"single.9.0"}) is whole


def test_many_added_layers_are_named_briefly():
    names = [f"double.{n}.0" for n in range(7)]
    assert completion.named(names[:1]) == "1 layer (double.0.0)"
    assert completion.named(names).endswith("double.3.0 and 3 more)")
    assert np.all([name in completion.named(names) for name in names[:4]])
