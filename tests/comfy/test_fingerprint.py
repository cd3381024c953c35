"""The same model is known again however it is stored; patches leave it and are told apart."""

import harness
import pytest
import torch

NORM = "blocks.0.self_attn.norm_q.weight"


@pytest.fixture(scope="module")
def module():
    return harness.part("fingerprint")


@pytest.fixture(scope="module")
def model():
    return harness.tiny_wan()


@pytest.fixture(scope="module")
def known(module, model):
    return module.fingerprint(model)


def lora(model, strength=1.0, seed=0, layer=0):
    import comfy.sd

    draw = torch.Generator().manual_seed(seed)
    name = f"diffusion_model.blocks.{layer}.self_attn.q"
    weights = {
        f"{name}.lora_up.weight": torch.randn(256, 4, generator=draw) / 16,
        f"{name}.lora_down.weight": torch.randn(4, 256, generator=draw) / 16,
    }
    return comfy.sd.load_lora_for_models(model, None, weights, strength, 0)[0]


def norm_patch(model):
    """A patch of a weight that the fingerprint is made of."""
    clone = model.clone()
    clone.add_patches({f"diffusion_model.{NORM}": ("diff", (torch.full((256,), 0.5),))}, 1.0)
    return clone


def test_is_a_sha256(known, module, model):
    assert len(known) == 64 and set(known) <= set("0123456789abcdef")
    assert module.fingerprint(model.clone()) == known
    assert module.family(model) == "wan2.1" and module.patches_hash(model) == ""


def test_the_same_checkpoint_loaded_again(known, module):
    assert module.fingerprint(harness.tiny_wan()) == known


def as_type(dtype, matrices_only):
    def change(state):
        for name, weight in state.items():
            if weight.dim() > 1 or not matrices_only:
                state[name] = weight.to(dtype)

    return change


def bf16_norms(state):
    """Norm weights as trained in bfloat16, which is how the families' checkpoints come."""
    for name, weight in state.items():
        if weight.dim() == 1:
            state[name] = weight.to(torch.bfloat16).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("matrices_only", [True, False], ids=["matrices", "all weights"])
def test_copies_in_half_precision_are_the_same_model(module, dtype, matrices_only):
    def change(state):
        bf16_norms(state)
        as_type(dtype, matrices_only)(state)

    plain = harness.tiny_wan(change=bf16_norms)
    copy = harness.tiny_wan(change=change)
    assert module.fingerprint(copy) == module.fingerprint(plain)


def test_matrices_in_bfloat16_of_any_checkpoint(known, module):
    """Rounding float32 norms to bfloat16 is what the fingerprint does itself."""
    copy = harness.tiny_wan(change=as_type(torch.bfloat16, True))
    assert module.fingerprint(copy) == known


def test_other_matrices_alone_are_not_seen(known, module):
    """What it is made of: norm weights. Finetunes that move no norm count as patches would."""

    def change(state):
        state["blocks.0.ffn.0.weight"] *= 2

    assert module.fingerprint(harness.tiny_wan(change=change)) == known


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_norm_weight_of_first_middle_or_last_block_changes_it(module, layer):
    def change(state):
        state[f"blocks.{layer}.self_attn.norm_q.weight"][17] += 0.25

    plain, changed = harness.tiny_wan(layers=3), harness.tiny_wan(layers=3, change=change)
    assert module.fingerprint(plain) != module.fingerprint(changed)


def test_a_norm_of_cross_attention_changes_it(known, module):
    def change(state):
        state["blocks.1.cross_attn.norm_k.weight"][0] += 0.25

    assert module.fingerprint(harness.tiny_wan(change=change)) != known


@pytest.mark.parametrize("sizes", [{"layers": 3}, {"dim": 384}, {"ffn": 128}], ids=str)
def test_other_sizes_are_other_models(known, module, sizes):
    assert module.fingerprint(harness.tiny_wan(**sizes)) != known


def test_the_config_counts(known, module, model, monkeypatch):
    config = dict(model.model.model_config.unet_config)
    monkeypatch.setattr(model.model.model_config, "unet_config", config | {"model_type": "i2v"})
    assert module.fingerprint(model) != known


def test_how_weights_are_cast_does_not_count(known, module, model, monkeypatch):
    config = dict(model.model.model_config.unet_config) | {"dtype": torch.float16, "device": "x"}
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    assert module.fingerprint(model) == known


@pytest.mark.parametrize("patch", [lora, norm_patch], ids=["LoRA", "norm patch"])
@pytest.mark.parametrize("loaded", [False, True], ids=["waiting", "in the weights"])
def test_patches_leave_the_fingerprint_and_have_a_hash(module, model, known, patch, loaded):
    patched = patch(model)
    if loaded:
        harness.sample(patched, steps=1)
    assert module.fingerprint(patched) == known
    assert len(module.patches_hash(patched)) == 16
    assert module.patches_hash(model) == ""
    harness.sample(model, steps=1)
    assert module.fingerprint(model) == known


def test_equal_patches_have_equal_hashes(module, model):
    assert module.patches_hash(lora(model)) == module.patches_hash(lora(model))


OTHERS = {
    "strength": {"strength": 0.5},
    "values": {"seed": 1},
    "layer": {"layer": 1},
}


@pytest.mark.parametrize("change", OTHERS)
def test_other_patches_have_other_hashes(module, model, change):
    assert module.patches_hash(lora(model)) != module.patches_hash(lora(model, **OTHERS[change]))


def test_two_loras_are_not_one(module, model):
    one, other = lora(model), lora(model, seed=1, layer=1)
    both = lora(lora(model), seed=1, layer=1)
    hashes = {module.patches_hash(patched) for patched in (one, other, both)}
    assert len(hashes) == 3


def test_no_memory_address_enters_a_hash(module, model):
    """Profiles are shared: equal patches of other objects have the same hash."""
    patches = [norm_patch(model) for _ in range(3)]  # All alive at once, so all elsewhere.
    assert len({module.patches_hash(patched) for patched in patches}) == 1


def test_what_has_no_value_of_its_own_is_left_out(module):
    """Functions and other objects, whose text would hold an address."""
    assert module._sample([object(), print, 0.5, ("diff", [None])]) == "0.5diff"


@pytest.mark.parametrize("config", [None, {}, {"image_model": "a/b c"}], ids=str)
def test_family_is_safe_for_file_names(module, model, config, monkeypatch):
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    assert module.family(model) in ("unknown", "a_b_c")
    assert len(module.fingerprint(model)) == 64
