"""Profiles of runs in which some layers were masked: later runs complete them."""

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

NAMES = ["double.0.0", "double.1.0"]


@pytest.fixture
def masks(monkeypatch):
    """masked: blocks whose self-attention gets a mask, as regional attention does it."""
    import comfy.ldm.wan.model as wan

    plain, masked = wan.optimized_attention, set()

    def attention(q, k, v, heads, **kwargs):
        block = kwargs.get("transformer_options", {}).get("block_index")
        if q.shape == k.shape and block in masked:
            kwargs["mask"] = torch.zeros(q.shape[1], k.shape[1])
        return plain(q, k, v, heads, **kwargs)

    monkeypatch.setattr(wan, "optimized_attention", attention)
    return masked


def steps(folders, layer) -> str:
    """The newest run's paths of a layer, one letter a step."""
    lines = (line for line in folders.runs()[-1][:-1] if line["layer"] == layer)
    return "".join(line["path"][0] for line in lines)


def code(profile, layer=NAMES[0]) -> bytes:
    """The kernel of a layer's first head."""
    (found,) = (one for one in profile.layers if one.id == layer)
    return found.heads[0].groups[0].code


def masked_run(model, masks, block=0, **inputs):
    """Leaves a profile that lacks the block."""
    masks.add(block)
    harness.sample(harness.paro(model, **inputs))
    masks.clear()


def json_name(folders) -> str:
    (name,) = (name[:-5] for name in folders.names() if name.endswith(".json"))
    return name


@pytest.mark.parametrize("block", [0, 1])
def test_one_masked_run_does_not_spoil_the_later_ones(model, folders, masks, block):
    masked_run(model, masks, block)
    masked, other = NAMES[block], NAMES[1 - block]
    assert folders.last()["reasons"] == {"the call has an attention mask": 6}
    name = json_name(folders)
    assert folders.load(name).layer_ids() == [other]

    harness.sample(harness.paro(model), seed=2)
    assert steps(folders, other) == "ssssss" and steps(folders, masked) == "osssss"
    told = "layers that are not in the profile are watched in this run and added to it"
    assert folders.last()["reasons"] == {told: 1}
    assert folders.last()["profile"] == f"{name}, exact grid, completed by 1 layer ({masked})"
    assert sorted(folders.load(name).layer_ids()) == NAMES and json_name(folders) == name

    harness.sample(harness.paro(model), seed=3)
    assert folders.steps() == "ssssss" and not folders.last()["reasons"]


def test_a_mask_in_the_first_steps_only(model, folders, masks, monkeypatch):
    """The run itself goes on to watch what comes free, and saves a whole profile."""
    plain = harness.part("run").Run.begin_forward

    def begin(self, sigma, options):
        masks.clear()
        masks.update({1} if self.session.steps.index(float(sigma.max())) < 3 else ())
        return plain(self, sigma, options)

    monkeypatch.setattr(harness.part("run").Run, "begin_forward", begin)
    harness.sample(harness.paro(model))
    assert steps(folders, NAMES[0]) == "osssss" and steps(folders, NAMES[1]) == "oss"
    assert folders.load(json_name(folders)).layer_ids() == NAMES


def test_calibrating_under_its_name_completes_it(model, folders, masks):
    masked_run(model, masks, save_as="mine")
    assert folders.load("mine").layer_ids() == [NAMES[1]]
    harness.sample(harness.calibrate(model))
    whole = folders.load("mine")
    assert sorted(whole.layer_ids()) == NAMES and len(whole.timestep_groups) == 2
    assert whole.calibration.prompts == 2 and not folders.last()["reasons"]
    assert json_name(folders) == "mine"
    harness.sample(harness.paro(model, profile="mine"))
    assert folders.steps() == "ssssss" and not folders.last()["reasons"]


def test_a_masked_calibration_keeps_what_the_name_holds(model, folders, masks):
    harness.sample(harness.calibrate(model, exact=True))
    before = folders.load("mine")
    masks.add(0)
    harness.sample(harness.calibrate(model, exact=True), seed=2)
    masks.clear()
    after = folders.load("mine")
    assert sorted(after.layer_ids()) == NAMES
    assert code(after) == code(before)
    assert maps(folders, "mine") == set(NAMES)


def maps(folders, name) -> set[str]:
    """The layers whose exact maps lie beside a profile."""
    core = harness.part("native").paro._core
    _, tensors = core.load_capture(folders.profiles / f"{name}.capture.safetensors")
    return {key.split("/")[1] for key in tensors if key.startswith("maps/")}


def test_exact_maps_stay_when_their_profile_is_completed(model, folders, masks):
    masks.add(0)
    harness.sample(harness.calibrate(model, exact=True))
    masks.clear()
    assert maps(folders, "mine") == {NAMES[1]}
    for seed in (2, 3):
        harness.sample(harness.paro(model), seed=seed)
        assert "exact maps" in folders.last()["profile"]
        assert sorted(folders.load("mine").layer_ids()) == NAMES and maps(folders, "mine") == {
            NAMES[1]
        }
    assert folders.steps() == "ssssss"


def test_a_profile_chosen_by_name_is_completed_for_the_run_alone(model, folders, masks):
    masked_run(model, masks, save_as="mine")
    before = folders.load("mine").dump()
    for _ in range(2):
        harness.sample(harness.paro(model, profile="mine"))
        assert steps(folders, NAMES[0]) == "osssss" and steps(folders, NAMES[1]) == "ssssss"
        assert folders.last()["profile"] == (
            f"mine, completed by 1 layer ({NAMES[0]}), in this run only"
        )
        assert folders.load("mine").dump() == before
    harness.sample(harness.paro(model, profile="mine", save_as="whole"))
    assert folders.load("mine").dump() == before
    assert sorted(folders.load("whole").layer_ids()) == NAMES


def test_a_shipped_profile_is_completed_under_a_name_of_the_users(
    model, folders, masks, monkeypatch, tmp_path
):
    masked_run(model, masks, save_as="ours")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (folders.profiles / "ours.json").rename(shipped / "ours.json")
    (folders.profiles / "ours.capture.safetensors").unlink()
    before = (shipped / "ours.json").read_bytes()
    monkeypatch.setattr(harness.part("store"), "SHIPPED", shipped)
    harness.sample(harness.paro(model))
    assert folders.last()["profile"].startswith("ours, exact grid, completed by")
    assert (shipped / "ours.json").read_bytes() == before
    name = json_name(folders)
    assert name != "ours" and sorted(folders.load(name).layer_ids()) == NAMES
    harness.sample(harness.paro(model))
    assert folders.steps() == "ssssss" and folders.last()["profile"].startswith(name)


def test_a_masked_run_under_a_name_keeps_the_layers_that_it_holds(model, folders, masks):
    harness.sample(harness.paro(model, profile="none", save_as="mine"))
    before = code(folders.load("mine"))
    masked_run(model, masks, profile="none", save_as="mine")
    after = folders.load("mine")
    assert sorted(after.layer_ids()) == NAMES and code(after) == before
    assert after.calibration.prompts == 1


def test_a_masked_run_takes_a_whole_profile_for_the_rest(model, folders, masks):
    harness.sample(harness.paro(model, save_as="mine"))
    before = folders.load("mine").dump()
    masked_run(model, masks)
    assert steps(folders, NAMES[1]) == "ssssss" and not steps(folders, NAMES[0])
    assert folders.last()["reasons"] == {"the call has an attention mask": 6}
    assert folders.load("mine").dump() == before


def test_without_observation_the_layers_that_lack_are_named(model, folders, masks):
    masked_run(model, masks)
    harness.sample(harness.paro(model, observe_steps=0))
    reason = "layer double.0.0 is not in the profile, and observe_steps 0 watches no step"
    assert folders.last()["reasons"] == {reason: 6}
    assert steps(folders, NAMES[1]) == "ssssss" and steps(folders, NAMES[0]) == "dddddd"


def test_what_the_user_changes_meanwhile_stays(model, folders, masks, monkeypatch):
    """A head locked in the viewer while the run that completes the profile goes on."""
    masked_run(model, masks, save_as="mine")
    plain = harness.part("run").Run.begin_forward

    def begin(self, sigma, options):
        if self.session.steps.index(float(sigma.max())) == 0:
            profile = folders.load("mine")
            layer = profile.layers[0]
            head = layer.heads[0]
            head.locked, head.density = True, 0.8
            core = harness.part("native").paro._core
            profile.layers = [core.ProfileLayer(layer.id, [head, *layer.heads[1:]])]
            profile.save(folders.profiles / "mine.json")
        return plain(self, sigma, options)

    monkeypatch.setattr(harness.part("run").Run, "begin_forward", begin)
    harness.sample(harness.paro(model))
    saved = folders.load("mine")
    assert sorted(saved.layer_ids()) == NAMES
    locked = [head.locked for layer in saved.layers if layer.id == NAMES[1] for head in layer.heads]
    assert locked == [True, False]


def test_a_named_profile_under_a_lora_is_completed_and_not_saved(model, folders, masks):
    import comfy.sd

    masked_run(model, masks, save_as="mine")
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{name}.lora_up.weight": torch.ones(256, 4) / 64,
            f"{name}.lora_down.weight": torch.ones(4, 256) / 64}  # fmt: skip
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)
    before = folders.names(), folders.load("mine").dump()
    harness.sample(harness.paro(patched, profile="mine", save_as="whole"))
    assert steps(folders, NAMES[0]) == "osssss"
    assert folders.last()["profile"].endswith("in this run only")
    assert (folders.names(), folders.load("mine").dump()) == before


def test_density_1_is_the_dense_result_with_a_profile_that_lacks_layers(model, folders, masks):
    want = harness.sample(model)
    masked_run(model, masks)
    assert harness.close(harness.sample(harness.exact(model)), want)
    assert steps(folders, NAMES[0]) == "osssss"
