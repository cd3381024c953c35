"""One model in the number formats that ComfyUI loads is one model; other models stay others."""

from types import SimpleNamespace

import harness
import pytest
import torch

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
# What a file held, and what it was loaded as.
STORED = {
    "float32": (torch.float32,),
    "float16": (torch.float16,),
    "bfloat16": (torch.bfloat16,),
    "e4m3": (E4M3,),
    "e5m2": (E5M2,),
    "bfloat16 as e4m3": (torch.bfloat16, E4M3),
    "float16 as e5m2": (torch.float16, E5M2),
    "e4m3 as bfloat16": (E4M3, torch.bfloat16),
}


@pytest.fixture(scope="module")
def module():
    return harness.part("identity.fingerprint")


def blocks(seed: int, width: int, spread: float, types=(torch.float32,), change=None):
    """A patcher of three blocks with the weights that a fingerprint is made of."""
    draw = torch.Generator().manual_seed(seed)
    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList()
    for _ in range(3):
        block = torch.nn.ModuleDict()
        for kind in ("norm_q", "norm_k", "cross_norm_q", "cross_norm_k"):
            block[kind] = torch.nn.Module()
            block[kind].weight = 1 + spread * torch.randn(width, generator=draw)
        block["q"] = torch.nn.Module()
        block["q"].weight = torch.randn(width, 256, generator=draw) / 40
        model.blocks.append(block)
    for number, block in enumerate(model.blocks):
        for kind, part in block.items():
            weight = part.weight if change is None else change(number, kind, part.weight)
            for dtype in types:
                weight = weight.to(dtype)
            del part.weight
            part.weight = torch.nn.Parameter(weight, requires_grad=False)
    return SimpleNamespace(model=SimpleNamespace(diffusion_model=model), backup={})


def same(module, a, b) -> bool:
    """As the fingerprints alone tell, and as a run tells of a profile."""
    told = {module.same_model(a.fingerprint, b.fingerprint), a.owns(b.fingerprint)}
    assert len(told) == 1
    return told.pop()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spread", [0.02, 0.05, 0.1, 0.2, 1.0])
@pytest.mark.parametrize("width", [256, 5120])
def test_rounding_is_told_from_another_model(module, width, spread, seed):
    """-s shows the table: signs of norms and of matrices that differ from those of float32."""

    def known(seed, types):
        return module.Identity.of(blocks(seed, width, spread, types))

    copies = {name: known(seed, types) for name, types in STORED.items()}
    others = [known(seed + 50, types) for types in STORED.values()]
    flips = harness.part("identity.sketch").flips
    wide = copies["float32"].fingerprint
    for name, copy in copies.items():
        norms, rows = (flips(wide[s], copy.fingerprint[s]) for s in (slice(32), slice(48, 64)))
        print(f"{width:5} {spread:5} {seed:2} {name:17} {norms:3} of 128 {rows:2} of 64")
    for a in copies.values():
        assert all(same(module, a, b) for b in copies.values())
        assert not any(same(module, a, b) for b in others)


# -- finetunes -------------------------------------------------------------------------------------


def moved(share: float, kinds=("norm_q", "norm_k", "cross_norm_q", "cross_norm_k")):
    """Norms that training has moved by a share of their spread of 0.1."""

    def change(number, kind, weight):
        if kind not in kinds:
            return weight
        draw = torch.Generator().manual_seed(1000 + number)
        return weight + share * 0.1 * torch.randn(len(weight), generator=draw)

    return change


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("width", [256, 5120])
def test_a_finetune_that_moves_the_norms_is_another_model_in_every_format(module, width, name):
    plain = module.Identity.of(blocks(0, width, 0.1, STORED[name]))
    tuned = module.Identity.of(blocks(0, width, 0.1, STORED[name], moved(1.0)))
    assert not same(module, plain, tuned)


def test_a_run_in_float32_tells_a_finetunes_profile_in_float8(module):
    """It rounds its own norms likewise, so rounding is no excuse for what differs."""
    plain = module.Identity.of(blocks(0, 5120, 0.1))
    profile = module.Identity.of(blocks(0, 5120, 0.1, (E4M3,), moved(0.6)))
    assert not plain.owns(profile.fingerprint)
    assert plain.owns(module.Identity.of(blocks(0, 5120, 0.1, (E4M3,))).fingerprint)


def test_models_whose_norms_are_all_one_are_told_by_their_matrices(module):
    """As norms are in e5m2 when they hardly differ from 1."""
    a, copy, b = (
        module.Identity.of(blocks(seed, 256, 0.0, types))
        for seed, types in ((0, (torch.float32,)), (0, (E5M2,)), (1, (E5M2,)))
    )
    assert same(module, a, copy) and not same(module, copy, b) and not same(module, a, b)


# -- profiles of earlier versions ------------------------------------------------------------------


@pytest.mark.parametrize("then", ["float32", "bfloat16", "e4m3", "e5m2"])
@pytest.mark.parametrize("now", ["float32", "bfloat16", "e4m3", "e5m2"])
def test_profiles_with_the_earlier_sketch_are_found(module, then, now):
    """They say nothing of how norms were stored. Two float8 formats apart is too far for them."""
    profile = module.Identity.of(blocks(0, 5120, 0.2, STORED[then])).second
    other = module.Identity.of(blocks(1, 5120, 0.2, STORED[then])).second
    run = module.Identity.of(blocks(0, 5120, 0.2, STORED[now]))
    assert run.owns(profile) or {then, now} == {"e4m3", "e5m2"}
    assert not run.owns(other) and len(profile) == 64


def test_an_earlier_profile_in_the_same_format_is_found_whatever_is_left_of_it(module):
    known = module.Identity.of(blocks(0, 256, 0.02, (E5M2,)))
    assert known.owns(known.second) and known.owns(known.first)


# -- how ComfyUI and its plugins hold weights ------------------------------------------------------


def load(state: dict, **options):
    harness.start()
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(state), model_options=options)


LOADED = {
    "loaded as e4m3": lambda state: load(state, dtype=E4M3),
    "loaded as e5m2": lambda state: load(state, dtype=E5M2),
    "a float8 file": lambda state: load({k: v.to(E4M3) for k, v in state.items()}),
    "a float8 file loaded as bfloat16": lambda state: load(
        {k: v.to(E4M3) for k, v in state.items()}, dtype=torch.bfloat16
    ),
    "a scaled float8 file": lambda state: load(scaled(state)),
}


def scaled(state: dict) -> dict:
    """The matrices in float8 with a scale each, as scaled files have them; norms in bfloat16."""
    out = {}
    for name, weight in state.items():
        if ".attn" in name or "_attn." in name or ".ffn." in name:
            if weight.dim() == 2:
                scale = weight.abs().max() / 448
                out[name] = (weight / scale).to(E4M3)
                out[name.replace(".weight", ".scale_weight")] = scale
                continue
        out[name] = weight.to(torch.bfloat16)
    out["scaled_fp8"] = torch.zeros(1, dtype=E4M3)
    return out


@pytest.mark.parametrize("how", LOADED)
def test_a_profile_serves_the_model_in_every_format(folders, how):
    """By its name and by auto, from the wide copy to the narrow one and back."""
    state = harness.wan_state(0)
    wide, narrow = load(state), LOADED[how](state)
    for first, second, name in ((wide, narrow, "wide"), (narrow, wide, "narrow")):
        harness.sample(harness.paro(first, profile="none", save_as=name), steps=3)
        for profile in (name, "auto"):
            harness.sample(harness.paro(second, profile=profile), steps=3)
            assert folders.steps() == "sss" and not folders.last()["reasons"]
        (folders.profiles / f"{name}.json").unlink()


def test_calibrations_of_two_copies_are_one_profile(folders):
    """Under the automatic name, whose digits rounding changes."""
    state = harness.wan_state(0)
    harness.sample(harness.calibrate(load(state), name=""), steps=3)
    names = folders.names()
    harness.sample(harness.calibrate(load(state, dtype=E5M2), name=""), steps=3)
    assert folders.names() == names
    (name,) = (n.removesuffix(".json") for n in names if n.endswith(".json"))
    assert folders.load(name).calibration.prompts == 2


LAYOUTS = [
    "TensorCoreFP8E4M3Layout",
    "TensorCoreFP8E5M2Layout",
    "TensorCoreMXFP8Layout",
    "TensorCoreNVFP4Layout",
    "TensorWiseINT8Layout",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantised_matrices_are_read_as_what_they_stand_for(module, layout):
    quant = pytest.importorskip("comfy.quant_ops")

    def change(number, kind, weight):
        return weight

    plain = blocks(0, 256, 0.02, (E5M2,))
    packed = blocks(0, 256, 0.02, change=change)
    for block in packed.model.diffusion_model.blocks:
        whole = block["q"].weight.detach().to(torch.bfloat16)
        tensor = quant.QuantizedTensor.from_float(whole, layout, scale="recalculate")
        block["q"].weight = torch.nn.Parameter(tensor, requires_grad=False)
    a, b = module.Identity.of(plain), module.Identity.of(packed)
    assert same(module, a, b) and b.fingerprint[48:] != "0" * 16
    assert not same(module, b, module.Identity.of(blocks(1, 256, 0.02, (E5M2,))))


class Packed(torch.Tensor):
    """As the GGUF plugin's tensors look: bytes, the shape they stand for beside them."""

    @staticmethod
    def __new__(cls, data, **kept):
        return torch.Tensor._make_subclass(cls, data)

    def __init__(self, data, *, tensor_type, tensor_shape, scale=None):
        self.tensor_type, self.tensor_shape, self.scale = tensor_type, tensor_shape, scale

    @property
    def shape(self):
        return self.tensor_shape

    def detach(self):
        return self

    def dequantize(self):
        raw = self.as_subclass(torch.Tensor)
        return (raw.float() - 8) * self.scale


class Unknown(Packed):
    """Of a kind that nothing here can unpack."""

    def dequantize(self):
        raise NotImplementedError


@pytest.mark.parametrize("kind", [Packed, Unknown])
def test_gguf(module, kind):
    """Matrices in 4 bits, norms in float32: the norms alone tell the model where they can."""

    def gguf(seed, spread):
        patcher = blocks(seed, 256, spread)
        for block in patcher.model.diffusion_model.blocks:
            weight = block["q"].weight.detach()
            scale = weight.abs().amax(1, keepdim=True) / 8
            data = (weight / scale + 8).round().clamp(0, 15).to(torch.uint8)
            packed = kind(data, tensor_type=2, tensor_shape=weight.shape, scale=scale)
            block["q"].weight = torch.nn.Parameter(packed, requires_grad=False)
        return module.Identity.of(patcher)

    for spread in (0.02, 0.1) if kind is Packed else (0.1,):
        known, other = gguf(0, spread), gguf(1, spread)
        for types in STORED.values():
            copy = module.Identity.of(blocks(0, 256, spread, types))
            assert same(module, known, copy) and same(module, copy, known)
            assert not same(module, other, copy) and not same(module, copy, other)


def test_weights_that_hold_nothing_yet_are_left_out(module):
    """On the meta device: a part of the norms still tells the model."""
    patcher = blocks(0, 256, 0.1)
    block = patcher.model.diffusion_model.blocks[1]
    for kind in ("norm_q", "q"):
        block[kind].weight = torch.nn.Parameter(block[kind].weight.to("meta"))
    found = module.Identity.of(patcher)
    assert len(found.fingerprint) == 64 and found.first == ""
    full = module.Identity.of(blocks(0, 256, 0.1))
    assert found.fingerprint[32:46] == full.fingerprint[32:46]


def test_a_compiled_block_has_the_names_of_the_plain_one(module, model):
    known = module.Identity.of(model)
    clone = model.clone()
    block = model.get_model_object("diffusion_model.blocks.1")
    clone.add_object_patch("diffusion_model.blocks.1", torch.compile(block, backend="eager"))
    clone.patch_model(load_weights=False)
    try:
        assert any("_orig_mod" in name for name, _ in clone.model.named_parameters())
        assert module.Identity.of(clone) == known == module.Identity.of(model)
    finally:
        clone.unpatch_model(unpatch_weights=False)


# -- near, but not the same ------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["auto", "base"])
def test_a_finetunes_profile_is_told_and_not_used(folders, profile):
    """Silence would look as if nothing had ever been saved."""
    state = harness.wan_state(0)
    harness.sample(harness.paro(load(state), save_as="base"), steps=3)
    for name in state:
        if ".norm_" in name:
            draw = torch.Generator().manual_seed(len(name))
            state[name] = state[name] + 0.05 * torch.randn(256, generator=draw)
    harness.sample(harness.paro(load(state), profile=profile), steps=3)
    (reason,) = folders.last()["reasons"]
    assert folders.steps() == "oss" and "base" in reason
    assert "another, similar model (" in reason and "of 128 bits" in reason
