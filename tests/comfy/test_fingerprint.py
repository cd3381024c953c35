"""The same model is known again however it is stored; patches leave it and are told apart."""

import harness
import pytest
import torch

NORM = "blocks.0.self_attn.norm_q.weight"
SKETCH = "c7bc4ca18785e76c0441d3116809ddff"


@pytest.fixture(scope="module")
def module():
    return harness.part("identity.fingerprint")


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


def test_is_64_hex_digits(known, module, model):
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
@pytest.mark.parametrize("trained", ["bfloat16", "float32"])
def test_copies_in_half_precision_are_the_same_model(module, dtype, matrices_only, trained):
    """The norms too: a file in float16 and one in bfloat16 hold neither's rounding exactly."""

    def change(state):
        if trained == "bfloat16":
            bf16_norms(state)
        as_type(dtype, matrices_only)(state)

    plain = harness.tiny_wan(change=bf16_norms if trained == "bfloat16" else None)
    copy = harness.tiny_wan(change=change)
    other = harness.tiny_wan(change=as_type(torch.float16, False))
    assert module.same_model(module.fingerprint(copy), module.fingerprint(plain))
    assert trained == "bfloat16" or module.same_model(
        module.fingerprint(copy), module.fingerprint(other)
    )


@pytest.mark.parametrize("seed", range(1, 6))
def test_another_model_of_the_same_sizes(module, known, seed):
    other = module.fingerprint(harness.tiny_wan(seed=seed))
    assert other[32:46] == known[32:46] and not module.same_model(known, other)
    flips = (int(known[:32], 16) ^ int(other[:32], 16)).bit_count()
    assert flips > 30


def test_a_sketch_is_the_same_everywhere():
    """Saved profiles hold it: the draws must not change with numpy or torch."""
    norms = [("blocks.0.norm.weight", torch.arange(100) / 100)]
    assert harness.part("identity.sketch").Norms.of(norms).sketch == SKETCH


def test_matrices_in_bfloat16_of_any_checkpoint(known, module):
    """Rounding float32 norms to bfloat16 is what the fingerprint does itself."""
    copy = harness.tiny_wan(change=as_type(torch.bfloat16, True))
    assert module.fingerprint(copy) == known


def test_other_matrices_alone_are_not_seen(known, module):
    """What it is made of: norm weights. Finetunes that move no norm count as patches would."""

    def change(state):
        state["blocks.0.ffn.0.weight"] *= 2

    assert module.fingerprint(harness.tiny_wan(change=change)) == known


def another(weight):
    """A norm of a model that was trained otherwise: the same size, other values."""
    return 1 + 0.1 * torch.randn(len(weight), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("kind", ["self_attn", "cross_attn"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_norms_of_first_middle_and_last_block_are_what_it_is_made_of(module, layer, kind):
    def change(state):
        for norm in ("norm_q", "norm_k"):
            name = f"blocks.{layer}.{kind}.{norm}.weight"
            state[name] = another(state[name])

    plain, changed = harness.tiny_wan(layers=3), harness.tiny_wan(layers=3, change=change)
    assert not module.same_model(module.fingerprint(plain), module.fingerprint(changed))


def test_a_finetune_that_hardly_moves_the_norms_is_the_same_model(known, module):
    def change(state):
        for name in state:
            if ".norm_" in name:
                state[name] = state[name] + 0.001 * another(state[name])

    assert module.same_model(module.fingerprint(harness.tiny_wan(change=change)), known)


@pytest.mark.parametrize("sizes", [{"layers": 3}, {"dim": 384}, {"ffn": 128}], ids=str)
def test_other_sizes_are_other_models(known, module, sizes):
    other = module.fingerprint(harness.tiny_wan(**sizes))
    assert other[32:46] != known[32:46] and not module.same_model(other, known)


def test_the_config_counts(known, module, model, monkeypatch):
    config = dict(model.model.model_config.unet_config)
    monkeypatch.setattr(model.model.model_config, "unet_config", config | {"model_type": "i2v"})
    assert not module.same_model(module.fingerprint(model), known)


def test_what_another_version_of_comfyui_adds_does_not_count(known, module, model, monkeypatch):
    """Its model config grows with the models it learns."""
    config = dict(model.model.model_config.unet_config)
    added = {"eps": 1e-5, "in_dim_ref_conv": None, "some_new_switch": True, "vace_layers": None}
    monkeypatch.setattr(model.model.model_config, "unet_config", config | added)
    assert module.fingerprint(model) == known
    del config["qk_norm"], config["window_size"]
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    assert module.fingerprint(model) == known


def test_a_model_without_such_norms_has_one_too(module, model, monkeypatch):
    monkeypatch.setattr(module, "_norms", lambda *a: [])
    other = module.fingerprint(model)
    assert len(other) == 64
    assert not module.same_model(other, module.fingerprint(harness.tiny_wan(seed=3)))


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


def test_what_has_no_value_of_its_own_is_left_out():
    """Functions and other objects, whose text would hold an address."""
    assert (
        harness.part("identity.changes")._sample([object(), print, 0.5, ("diff", [None])])
        == "0.5diff"
    )


@pytest.mark.parametrize("config", [None, {}, {"image_model": "a/b c"}], ids=str)
def test_family_is_safe_for_file_names(module, model, config, monkeypatch):
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    assert module.family(model) in ("unknown", "a_b_c")
    assert len(module.fingerprint(model)) == 64
