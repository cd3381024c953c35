"""Which profile a run takes, what it saves, and when it observes anew."""

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture(scope="module")
def fingerprint(model):
    return harness.part("identity.fingerprint").fingerprint(model)


def both(name):
    return [f"{name}.capture.safetensors", f"{name}.json"]


def automatic(fingerprint, grid="3x6x8"):
    return f"wan2.1-{fingerprint[:8]}-{grid}"


def near_lora(model, strength=1.0, seed=0):
    """A LoRA file of one layer on the model, through ComfyUI's own loader."""
    import comfy.sd

    draw = torch.Generator().manual_seed(seed)
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {
        f"{name}.lora_up.weight": torch.randn(256, 4, generator=draw) / 16,
        f"{name}.lora_down.weight": torch.randn(4, 256, generator=draw) / 16,
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, strength, 0)
    assert patched.patches
    return patched


# -- auto, none, names -----------------------------------------------------------------------------


def test_auto_observes_saves_and_starts_sparse_the_next_time(model, folders, fingerprint):
    """The same node output, as ComfyUI's cache gives it when only the seed changes."""
    wrapped = harness.paro(model, observe_steps=2)
    harness.sample(wrapped, seed=1)
    name = automatic(fingerprint)
    assert folders.steps() == "oossss" and folders.names() == both(name)
    saved = folders.load(name).dump()
    harness.sample(wrapped, seed=2)
    assert folders.steps() == "ssssss"
    assert folders.last()["profile"] == f"{name}, exact grid"
    assert folders.names() == both(name) and folders.load(name).dump() == saved


def test_saved_profile_says_what_was_observed(model, folders, fingerprint):
    harness.sample(harness.paro(model, observe_steps=2))
    saved = folders.load(automatic(fingerprint))
    assert saved.model.fingerprint == fingerprint and saved.model.family == "wan2.1"
    assert (saved.model.layers, saved.model.heads, saved.model.head_dim) == (2, 2, 128)
    assert saved.layer_ids() == ["double.0.0", "double.1.0"]
    run = saved.calibration
    assert (run.grids, run.steps, run.sampler) == ([(3, 6, 8)], 6, "sample_euler")
    assert (run.prompts, run.queries) == (1, 64)


def test_none_observes_every_run_and_saves_nothing(model, folders):
    wrapped = harness.paro(model, profile="none")
    for seed in (1, 2):
        harness.sample(wrapped, seed=seed)
        assert folders.steps() == "osssss"
    assert folders.names() == []


def test_none_does_not_take_what_auto_would_find(model, folders):
    harness.sample(harness.paro(model))
    harness.sample(harness.paro(model, profile="none"))
    assert folders.steps() == "osssss"


def test_none_saves_under_a_given_name(model, folders):
    harness.sample(harness.paro(model, profile="none", save_as="kept"))
    assert folders.names() == both("kept")


def test_save_as_names_what_auto_observes_and_auto_finds_it(model, folders):
    wrapped = harness.paro(model, save_as="mine")
    harness.sample(wrapped)
    assert folders.names() == both("mine")
    harness.sample(wrapped)
    assert folders.steps() == "ssssss" and folders.last()["profile"] == "mine, exact grid"


def test_a_named_profile(model, folders):
    harness.sample(harness.paro(model, save_as="mine"))
    harness.sample(harness.paro(model, profile="mine", density=0.5))
    assert folders.steps() == "ssssss"
    assert folders.last()["profile"] == "mine"
    assert folders.names() == both("mine")


def test_a_new_profile_is_offered_by_the_node(model, folders):
    nodes = harness.part("nodes")
    assert "mine" not in nodes._profile_options()
    harness.sample(harness.paro(model, save_as="mine"))
    options = nodes._profile_options()
    assert options[:2] == ["auto", "none"] and "mine" in options and "schema" not in options


def test_without_observation_the_run_is_dense_and_says_why(model, folders):
    dense = harness.sample(model)
    out = harness.sample(harness.paro(model, observe_steps=0))
    assert torch.equal(out, dense) and folders.steps() == "dddddd"
    assert folders.last()["reasons"] == {
        "no saved profile fits, and observe_steps 0 watches no step": 12
    }
    assert folders.names() == []


def test_a_run_shorter_than_its_observation(model, folders, fingerprint):
    harness.sample(harness.paro(model, observe_steps=50), steps=3)
    assert folders.steps() == "ooo" and folders.names() == both(automatic(fingerprint))


# -- calibration -----------------------------------------------------------------------------------


def test_calibration_is_dense_and_has_two_timestep_groups(model, folders):
    dense = harness.sample(model)
    out = harness.sample(harness.calibrate(model, queries=32))
    assert torch.equal(out, dense) and folders.steps() == "oooooo"
    saved = folders.load("mine")
    assert len(saved.timestep_groups) == 2 and saved.calibration.queries == 32
    assert saved.timestep_groups[0][1] == saved.timestep_groups[1][0]


def test_every_n_steps(model, folders):
    harness.sample(harness.calibrate(model, every_n_steps=3))
    assert folders.steps() == "oddodd" and folders.names() == both("mine")


def test_calibrating_twice_merges(model, folders):
    wrapped = harness.calibrate(model)
    harness.sample(wrapped, seed=1)
    once = folders.load("mine").dump()
    harness.sample(wrapped, seed=2, positive=harness.conditioning(seed=5))
    merged = folders.load("mine")
    assert merged.calibration.prompts == 2 and merged.calibration.grids == [(3, 6, 8)]
    assert merged.dump() != once and folders.names() == both("mine")


def test_calibrations_of_near_grids_are_one_profile(model, folders):
    for grid in ((3, 6, 8), (3, 7, 8), (3, 6, 8)):
        harness.sample(harness.calibrate(model), grid=grid)
    saved = folders.load("mine").calibration
    assert saved.prompts == 3 and saved.grids == [(3, 6, 8), (3, 7, 8)]


def test_a_calibrated_profile_is_used(model, folders):
    harness.sample(harness.calibrate(model))
    for profile in ("mine", "auto"):
        harness.sample(harness.paro(model, profile=profile))
        assert folders.steps() == "ssssss"
        assert folders.last()["profile"].startswith("mine")


# What a name may hold that a new profile must not be merged with or written over.
HELD = {
    "far grid": lambda model: harness.sample(harness.calibrate(model), grid=(9, 6, 8)),
    "another model": lambda model: harness.sample(harness.calibrate(harness.tiny_wan(seed=1))),
    "a LoRA": lambda model: harness.sample(harness.calibrate(near_lora(model))),
}


@pytest.mark.parametrize("node", ["calibrate", "attention"])
@pytest.mark.parametrize("held", HELD)
def test_a_name_that_holds_something_else_keeps_it(model, folders, held, node):
    """Nothing is lost: neither what was there nor the minutes of this run."""
    HELD[held](model)
    before = folders.load("mine").dump()
    if node == "calibrate":
        harness.sample(harness.calibrate(model))
    else:
        harness.sample(harness.paro(model, save_as="mine"))
    assert folders.load("mine").dump() == before
    assert set(folders.names()) == {*both("mine"), *both("mine-3x6x8")}
    saved = folders.load("mine-3x6x8")
    assert saved.calibration.grids == [(3, 6, 8)] and saved.model.patches == ""
    reason = "profile mine does not fit this run and was kept; the new one is mine-3x6x8"
    assert folders.last()["reasons"] == {reason: 1}


def test_what_was_saved_beside_is_extended_by_the_next_prompt(model, folders):
    HELD["far grid"](model)
    for _ in range(2):
        harness.sample(harness.calibrate(model))
    assert folders.load("mine-3x6x8").calibration.prompts == 2
    assert folders.load("mine").calibration.prompts == 1


def test_a_broken_file_is_not_written_over_by_a_name(model, folders):
    folders.profiles.mkdir(parents=True)
    (folders.profiles / "mine.json").write_text('{"schema": "paro')
    harness.sample(harness.calibrate(model))
    assert (folders.profiles / "mine.json").read_text() == '{"schema": "paro'
    assert folders.load("mine-3x6x8").calibration.prompts == 1


def test_observing_again_under_a_name_replaces_what_fits(model, folders):
    for seed in (1, 2):
        harness.sample(harness.paro(model, profile="none", save_as="mine"), seed=seed)
        assert folders.names() == both("mine") and not folders.last()["reasons"]
    assert folders.load("mine").calibration.prompts == 1


# -- what changes between runs ---------------------------------------------------------------------


def test_a_near_grid_starts_sparse(model, folders, fingerprint):
    wrapped = harness.paro(model)
    harness.sample(wrapped, grid=(3, 6, 8))
    harness.sample(wrapped, grid=(4, 7, 8))
    assert folders.steps() == "ssssss" and folders.last()["grid"] == [4, 7, 8]
    assert folders.last()["profile"] == f"{automatic(fingerprint)}, near grid"


@pytest.mark.parametrize("grid", [(1, 6, 8), (3, 12, 8), (3, 6, 16)], ids=str)
def test_a_far_grid_is_observed_anew_under_a_name_of_its_own(model, folders, fingerprint, grid):
    wrapped = harness.paro(model)
    harness.sample(wrapped)
    first = folders.load(automatic(fingerprint)).dump()
    harness.sample(wrapped, grid=grid)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]
    other = "x".join(map(str, grid))
    told = f"saved profiles of this model are for other sizes: 3x6x8 tokens (this run: {other})"
    assert folders.last()["profile"].endswith(f"; {told}")
    name = automatic(fingerprint, "x".join(map(str, grid)))
    assert set(folders.names()) == {*both(automatic(fingerprint)), *both(name)}
    assert folders.load(automatic(fingerprint)).dump() == first
    harness.sample(wrapped)
    assert folders.steps() == "ssssss"


def test_an_exact_grid_comes_before_a_near_one(model, folders):
    harness.sample(harness.calibrate(model, name="a-near"), grid=(4, 6, 8))
    harness.sample(harness.calibrate(model, name="b-exact"), grid=(3, 6, 8))
    harness.sample(harness.calibrate(model, name="c-near"), grid=(3, 7, 8))
    harness.sample(harness.paro(model))
    assert folders.last()["profile"] == "b-exact, exact grid"


def test_of_two_that_fit_the_first_by_name_is_taken(model, folders):
    for name in ("b", "a", "c"):
        harness.sample(harness.calibrate(model, name=name), steps=2)
    harness.sample(harness.paro(model))
    assert folders.last()["profile"] == "a, exact grid"


def test_a_named_profile_of_a_far_grid_is_observed_anew_and_said(model, folders):
    harness.sample(harness.paro(model, save_as="small"))
    before = folders.load("small").dump()
    harness.sample(harness.paro(model, profile="small"), grid=(3, 12, 8))
    assert folders.steps() == "osssss"
    told = "profile small is not used: it is for other sizes: 3x6x8 tokens (this run: 3x12x8)"
    assert folders.last()["reasons"] == {told: 1}
    assert folders.last()["profile"] == "observed in this run (1 step)"
    assert folders.names() == both("small") and folders.load("small").dump() == before


@pytest.mark.parametrize("change", [{"batch": 2}, {"steps": 9}, {"sampler": "heun"}, {"cfg": 4.0}],
                         ids=["batch", "steps", "sampler", "cfg"])  # fmt: skip
def test_what_does_not_change_the_grid_starts_sparse(model, folders, change):
    wrapped = harness.paro(model)
    harness.sample(wrapped)
    out = harness.sample(wrapped, **change)
    assert set(folders.steps()) == {"s"} and torch.isfinite(out).all()


def test_batch_2_observed(model, folders):
    out = harness.sample(harness.paro(model, density=1.0, precision="bf16"), batch=2)
    assert folders.steps() == "osssss"
    want = harness.sample(model, batch=2)
    assert (out - want).abs().max() < 1e-4 * want.abs().max()


def test_a_lora_is_observed_anew_under_another_name(model, folders, fingerprint):
    harness.sample(harness.paro(model))
    plain = folders.load(automatic(fingerprint)).dump()
    wrapped = harness.paro(near_lora(model))
    for steps in ("osssss", "ssssss"):
        harness.sample(wrapped)
        assert folders.steps() == steps and not folders.last()["reasons"]
    patches = harness.part("identity.fingerprint").patches_hash(wrapped)
    name = f"{automatic(fingerprint)}-{patches[:6]}"
    assert set(folders.names()) == {*both(automatic(fingerprint)), *both(name)}
    assert folders.load(name).model.patches == patches
    assert folders.load(automatic(fingerprint)).dump() == plain
    harness.sample(harness.paro(near_lora(model, strength=0.5)))
    assert folders.steps() == "osssss"
    harness.sample(harness.paro(model))
    assert folders.steps() == "ssssss"
    assert folders.last()["profile"].startswith(f"{automatic(fingerprint)},")


def test_a_lora_behind_our_node_counts_too(model, folders):
    """The order of nodes does not matter: what is sampled decides."""
    harness.sample(near_lora(harness.paro(model)))
    harness.sample(harness.paro(near_lora(model)))
    assert folders.steps() == "ssssss"


def test_a_named_profile_without_the_lora_is_used_and_said(model, folders):
    harness.sample(harness.paro(model, save_as="plain"))
    harness.sample(harness.paro(near_lora(model), profile="plain"))
    assert folders.steps() == "ssssss"
    (reason,) = folders.last()["reasons"]
    assert "plain" in reason and "LoRA" in reason


def test_another_models_profile_is_never_used(model, folders):
    other = harness.tiny_wan(seed=1)
    harness.sample(harness.paro(other, save_as="other"))
    harness.sample(harness.paro(model, profile="none"))
    harness.sample(harness.paro(model))
    assert folders.steps() == "osssss"


def test_a_named_profile_of_another_model_observes_and_says_so(model, folders):
    harness.sample(harness.paro(harness.tiny_wan(seed=1), save_as="other"))
    harness.sample(harness.paro(model, profile="other"))
    assert folders.steps() == "osssss" and folders.names() == both("other")
    assert folders.last()["reasons"] == {"profile other is for another model and is not used": 1}


def saved_as(model, folders, fingerprint, name="old"):
    """A profile of this model and grid under another fingerprint."""
    harness.sample(harness.paro(model, save_as=name))
    profile = folders.load(name)
    profile.model.fingerprint = fingerprint
    profile.save(folders.profiles / f"{name}.json")


def test_profiles_of_version_0_1_0_are_found(model, folders):
    first = harness.part("identity.fingerprint").first_fingerprint(model)
    saved_as(model, folders, first)
    for profile in ("auto", "old"):
        harness.sample(harness.paro(model, profile=profile))
        assert folders.steps() == "ssssss" and not folders.last()["reasons"]
    assert folders.load("old").model.fingerprint == first


def test_a_profile_of_a_rounded_copy_is_found(model, folders, fingerprint):
    """As a float16 file of the same model has it: a bit or two of the sketch apart."""
    near = format(int(fingerprint[:2], 16) ^ 0b101, "02x") + fingerprint[2:]
    saved_as(model, folders, near)
    harness.sample(harness.paro(model))
    assert folders.steps() == "ssssss" and not folders.last()["reasons"]


def test_calibrating_again_brings_the_fingerprint_up_to_date(model, folders, fingerprint):
    harness.sample(harness.calibrate(model))
    profile = folders.load("mine")
    profile.model.fingerprint = harness.part("identity.fingerprint").first_fingerprint(model)
    profile.save(folders.profiles / "mine.json")
    harness.sample(harness.calibrate(model), seed=2)
    merged = folders.load("mine")
    assert merged.model.fingerprint == fingerprint and merged.calibration.prompts == 2
    assert folders.names() == both("mine")


# -- exact maps ------------------------------------------------------------------------------------


def test_an_exact_calibration_is_dense_and_later_runs_plan_from_it(model, folders):
    plain = harness.sample(model)
    assert torch.equal(harness.sample(harness.calibrate(model, exact=True)), plain)
    core = harness.part("native").paro._core
    _, tensors = core.load_capture(folders.profiles / "mine.capture.safetensors")
    kinds = {name.split("/")[0] for name in tensors}
    assert kinds == {"rows", "queries", "maps"}
    harness.sample(harness.paro(model, profile="mine"))
    assert folders.last()["profile"] == "mine, exact maps"
    harness.sample(harness.paro(model))
    assert folders.last()["profile"] == "mine, exact grid, exact maps"
    # Another grid, near enough for the profile, is not that of the maps.
    harness.sample(harness.paro(model, profile="mine"), grid=(4, 6, 8))
    assert folders.last()["profile"] == "mine" and folders.last()["reasons"] == {}


def test_without_its_capture_a_profile_serves_as_before(model, folders):
    harness.sample(harness.calibrate(model, exact=True))
    (folders.profiles / "mine.capture.safetensors").unlink()
    harness.sample(harness.paro(model, profile="mine"))
    assert folders.last()["profile"] == "mine" and folders.last()["reasons"] == {}


def test_a_broken_capture_is_told(model, folders):
    harness.sample(harness.calibrate(model, exact=True))
    (folders.profiles / "mine.capture.safetensors").write_bytes(b"no capture")
    harness.sample(harness.paro(model, profile="mine"))
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("the exact maps beside the profile are not used: ")
    assert folders.steps() == "ssssss"
