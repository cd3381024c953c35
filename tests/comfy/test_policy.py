"""Short runs and small gains: what is watched, and what stays dense, each said."""

from types import SimpleNamespace

import families
import family_cases
import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def policy(set_by_user):
    """The limits that users have; the other tests set them aside."""
    return harness.part("policy")


@pytest.mark.parametrize("steps", [4, 8])
def test_a_short_run_watches_one_step_and_says_so(model, folders, policy, set_by_user, steps):
    set_by_user(least_gain=0)
    harness.sample(harness.paro(model, observe_steps=3), steps=steps)
    assert folders.steps() == "o" + "s" * (steps - 1)
    assert list(folders.last()["reasons"]) == [
        f"only 1 step is watched (observe_steps 3): the run has only {steps} steps"
    ]
    harness.sample(harness.paro(model, observe_steps=3), steps=steps, seed=2)
    assert folders.steps() == "s" * steps and not folders.last()["reasons"]


@pytest.mark.parametrize("steps", [4, 3, 2])
@pytest.mark.parametrize("observe", [4, 2])
def test_as_many_watched_steps_as_the_run_has_are_one(
    model, folders, policy, set_by_user, steps, observe
):
    """Four by default: a run of four steps would be watched to its end."""
    set_by_user(least_gain=0)
    harness.sample(harness.paro(model, observe_steps=observe), steps=steps)
    assert folders.steps() == "o" + "s" * (steps - 1)
    assert list(folders.last()["reasons"]) == [
        f"only 1 step is watched (observe_steps {observe}): the run has only {steps} steps"
    ]


def test_the_limits_that_users_have(policy):
    limits, told = harness.part("user_settings").read()
    assert (limits.few_steps, limits.least_gain, limits.tile, told) == (8, 0.05, None, [])
    settings = policy.paro.Settings()
    runs = [policy.for_steps(settings, steps, limits.few_steps)[0] for steps in range(1, 11)]
    assert [run.observe_steps for run in runs] == [4, 1, 1, 1, 1, 1, 1, 1, 4, 4]


def test_a_run_of_one_step_is_dense_and_says_why(model, folders, policy, set_by_user):
    """What it watched serves the next one."""
    set_by_user(least_gain=0)
    want = harness.sample(model, steps=1)
    assert torch.equal(harness.sample(harness.paro(model, observe_steps=4), steps=1), want)
    assert list(folders.last()["reasons"]) == [
        "a run of 1 step is dense and watched: no step is left to be sparse"
    ]
    harness.sample(harness.paro(model, observe_steps=4), steps=1)
    assert folders.steps() == "s" and not folders.last()["reasons"]


def test_what_a_user_sets_holds_in_longer_runs(model, folders, policy, set_by_user):
    set_by_user(least_gain=0)
    harness.sample(harness.paro(model, observe_steps=3, profile="none"), steps=9)
    assert folders.steps() == "ooossssss" and not folders.last()["reasons"]
    harness.sample(harness.paro(model, observe_steps=9, profile="none"), steps=9)
    assert folders.steps() == "o" * 9
    assert list(folders.last()["reasons"]) == [
        "all 9 steps are watched, so none is sparse: lower observe_steps (9)"
    ]


def test_a_calibration_watches_all_of_a_short_run(model, folders, policy):
    harness.sample(harness.calibrate(model), steps=4)
    assert folders.steps() == "oooo" and not folders.last()["reasons"]


def test_a_gain_below_5_percent_is_refused(model, folders, policy):
    """144 tokens: attention is 12 % of a block's work; half of it in 5 of 6 steps is 4.9 %."""
    want = harness.sample(model)
    assert torch.equal(harness.sample(harness.paro(model, density=0.5)), want)
    assert folders.names() == [] and folders.last()["paths"] == {}
    (reason,) = folders.last()["reasons"]
    assert reason == (
        "the predicted gain of 4.9% is below 5%: attention is only 12% of the work at 144 tokens"
    )


def with_heads(folders, name, *densities):
    """Gives every layer's heads of a saved profile these densities of their own."""
    profile = folders.load(name)
    layers = profile.layers
    for layer in layers:
        heads = list(layer.heads)
        for head, density in zip(heads, densities, strict=True):
            head.density = density
        layer.heads = heads
    profile.layers = layers
    profile.save(folders.profiles / f"{name}.json")


def test_with_a_profile_the_gain_is_that_of_all_steps(model, folders, policy):
    harness.sample(harness.paro(model, save_as="p"))  # 6.8 % at .3
    assert folders.steps() == "osssss"
    with_heads(folders, "p", None, None)
    harness.sample(harness.paro(model, density=0.5))  # 5.8 %: no step is watched any more
    assert folders.steps() == "ssssss"
    harness.sample(harness.paro(model, density=0.5, start_percent=0.4))
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("the predicted gain of 2.9%")


def test_density_1_is_asked_for_and_never_refused(model, folders, policy):
    harness.sample(harness.paro(model, density=1.0))
    assert folders.steps() == "osssss"


def test_a_run_asked_to_be_dense_throughout_is_timed_and_not_refused(model, folders, policy):
    want = harness.sample(model)
    harness.sample(harness.calibrate(model))
    node = harness.paro(model, density=0.5, start_percent=1.0, end_percent=1.0)
    assert torch.equal(harness.sample(node), want)
    end = folders.last()
    assert not end["reasons"] and end["attention_seconds"] > 0


def test_a_longer_sequence_gains_more(model, folders, policy):
    harness.sample(harness.paro(model, density=0.5), grid=(5, 6, 8))
    assert folders.steps() == "osssss"


def layout(prefix=0, suffix=0, grid=(10, 10, 10)):
    import paroattention

    return paroattention.TokenLayout(grid, prefix, suffix)


def test_prefix_and_suffix_are_always_computed(policy):
    assert policy.density_total(layout(), 0.3) == pytest.approx(0.3)
    # 1000 grid tokens of 2000: a quarter of all pairs is the grid's own.
    assert policy.density_total(layout(600, 400), 0.3) == pytest.approx(1 - 0.25 * 0.7)


def test_attention_share(policy):
    # A layer of four 128 x 128 matrices at 1000 tokens: 2 N^2 d against 4 N d^2.
    share = policy.attention_share(layout(), 128, 4 * 128 * 128)
    assert share == pytest.approx(2000 / (2000 + 4 * 128))


def test_block_weights_are_what_a_grid_token_meets(policy):
    def block():
        kinds = ("qkv", "txt_attn", "add_q_proj", "img_mod", "adaLN_modulation", "audio_ff")
        return torch.nn.ModuleDict({kind: torch.nn.Linear(8, 16) for kind in kinds})

    module = torch.nn.Module()
    module.double_blocks = torch.nn.ModuleList([block(), block()])
    module.head = torch.nn.Linear(8, 100)
    assert policy.block_weights(module) == 8 * 16
    assert policy.block_weights(torch.nn.Linear(4, 4)) == 0


def test_block_weights_of_real_models(policy):
    """Flux: both kinds of blocks have 3 + 1 + 2 x 2 matrices of 256 x 256 for a token of the image;
    Wan: four of self-attention, four of cross-attention, two of the feed-forward network."""
    flux = families.build(family_cases.CASES["flux"]).model.diffusion_model
    assert policy.block_weights(flux) == 8 * 256**2
    wan = harness.tiny_wan().model.diffusion_model
    assert policy.block_weights(wan) == pytest.approx(8 * 256**2 + 2 * 256 * 64, rel=0.01)


def test_sparse_steps_that_are_slower_are_told(policy):
    told = policy.slower(0.4, [0.5, 0.7], 0.05)
    assert told == "sparse steps were slower than dense ones: 0.60 s a step, dense 0.40 s"
    assert not policy.slower(0.7, [0.5, 0.7], 0.05) and not policy.slower(None, [0.5], 0.05)
    assert not policy.slower(0.4, [], 0.05) and not policy.slower(0.4, [0.5, 0.7], 0)


def test_a_slower_run_says_so(model, folders, policy, monkeypatch):
    """Of what the steps took, by a clock on which nothing but a sparse call takes time."""
    import paroattention

    plain, clock = paroattention.Session._run_ours, SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now

    def slow(self, *args):
        clock.now += 0.05
        return plain(self, *args)

    monkeypatch.setattr(harness.part("panel"), "time", clock)
    monkeypatch.setattr(paroattention.Session, "_run_ours", slow)
    harness.sample(harness.paro(model, observe_steps=3), steps=10)
    assert folders.steps() == "ooosssssss"
    (reason,) = folders.last()["reasons"]
    # Two calls a step.
    words = "sparse steps were slower than dense ones: 0.10 s a step, dense 0.00 s"
    assert reason == words


def test_steps_outside_of_the_percents_gain_nothing(policy):
    settings = SimpleNamespace(start_percent=0.0, end_percent=0.5)
    assert policy.predicted_gain(settings, layout(), 1.0, 10, 0, 0.5) == pytest.approx(0.25)
    assert policy.predicted_gain(settings, layout(), 1.0, 10, 4, 0.5) == pytest.approx(0.05)


def test_heads_that_stay_dense_save_nothing(model, folders, policy):
    """With a profile they are known: little is left where most heads have more than their share."""
    harness.sample(harness.paro(model, save_as="most"))
    with_heads(folders, "most", 0.97, 0.93)
    harness.sample(harness.paro(model, profile="most"))
    told = list(folders.last()["reasons"])
    assert told[0].startswith("density 0.95 runs, and 0.30 was asked for")
    assert told[1].startswith("the predicted gain of 0.6%")


def test_the_tiles_are_the_devices_unless_the_user_says_so(policy):
    for asked, tile in ((None, 64), (128, 128)):
        settings = policy.for_device(policy.paro.Settings(), "cpu", asked)
        assert (settings.block_q, settings.block_kv) == (tile, tile)
