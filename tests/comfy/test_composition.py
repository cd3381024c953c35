"""Together with what else stands in a graph: ComfyUI's own nodes around ours, before and after."""

import asyncio

import families
import harness
import pytest
import torch
from family_cases import CASES
from harness import close, exact

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("folders"),
]


@pytest.fixture(scope="module")
def extras():
    """ComfyUI's nodes beyond nodes.py: run(id, **inputs) -> outputs."""
    harness.start()
    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())

    def run(node, **inputs):
        kind = nodes.NODE_CLASS_MAPPINGS[node]
        if hasattr(kind, "define_schema"):
            return tuple(kind.EXECUTE_NORMALIZED(**inputs).result)
        return tuple(getattr(kind(), kind.FUNCTION)(**inputs))

    return run


# -- nodes that wrap the model ---------------------------------------------------------------------

MODEL_NODES = {
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.2, "end_percent": 0.9},
    "LazyCache": {"reuse_threshold": 3.0, "start_percent": 0.2, "end_percent": 0.9},
    "ModelSamplingSD3": {"shift": 5.0},
    "CFGZeroStar": {},
    "RescaleCFG": {"multiplier": 0.7},
    "UNetTemporalAttentionMultiply": {
        "self_structural": 1.0, "self_temporal": 1.0, "cross_structural": 1.0,
        "cross_temporal": 1.0,
    },
    "DifferentialDiffusion": {},
    "ScaleROPE": {
        "scale_x": 1.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 0.0, "scale_t": 1.2,
        "shift_t": 0.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("order", ["before ours", "after ours"])
@pytest.mark.parametrize("node", MODEL_NODES)
def test_model_nodes(extras, model, folders, node, order):
    inputs = MODEL_NODES[node] | ({"verbose": False} if "Cache" in node else {})

    def other(patcher):
        return extras(node, model=patcher, **inputs)[0]

    options = {"cfg": 3.0, "steps": 8}
    want = harness.sample(other(model), **options)
    both = exact(other(model)) if order == "before ours" else other(exact(model))
    assert close(harness.sample(both, **options), want)
    end = folders.last()
    assert end["paths"]["sparse"] > 0 and not end["reasons"]
    if "Cache" in node:
        # The cache has skipped some of the 8 evaluations, each of two layers.
        assert sum(end["paths"].values()) < 16


@pytest.mark.parametrize("order", ["before ours", "after ours"])
@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_what_a_cache_skips_is_told(extras, model, folders, monkeypatch, node, order):
    """Wherever the cache stands, and whichever of its steps are sampled or watched."""
    panel, states = harness.part("panel"), []
    kept = panel.Panel.close
    monkeypatch.setattr(
        panel.Panel,
        "close",
        lambda self, summary: (
            states.append(self.state("finished", 8, 8, summary)),
            kept(self, summary),
        ),
    )
    inputs = MODEL_NODES[node] | {"verbose": False}

    def other(patcher):
        return extras(node, model=patcher, **inputs)[0]

    def ours(patcher):
        return harness.paro(patcher, observe_steps=2)

    both = ours(other(model)) if order == "before ours" else other(ours(model))
    harness.sample(both, cfg=3.0, steps=8)
    (told,) = states
    computed = {line["step"] for line in folders.runs()[-1][:-1]}
    assert told["skipped_steps"] == 8 - len(computed) > 0 and told["cache"] == node
    assert told["skipped_seconds"] == pytest.approx(
        told["skipped_steps"] * told["sparse_step_seconds"]
    )
    # Two steps were watched though some of the first were skipped or might have been.
    paths = {line["step"]: line["path"] for line in folders.runs()[-1][:-1]}
    assert list(paths.values()).count("observe") == 2 and "sparse" in paths.values()


def test_without_a_cache_nothing_counts_as_skipped(model, folders, monkeypatch):
    panel, states = harness.part("panel"), []
    monkeypatch.setattr(
        panel.Panel,
        "close",
        lambda self, summary: states.append(self.state("finished", 6, 6, summary)),
    )
    harness.sample(harness.paro(model))
    (told,) = states
    assert (told["skipped_steps"], told["skipped_seconds"], told["cache"]) == (0, None, "")


def test_context_windows(extras, model, folders):
    """Each window is a call of its own; the grid is the window's."""
    windows = {
        "context_length": 9, "context_overlap": 5, "context_schedule": "standard_static",
        "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "freenoise": False,
    }  # fmt: skip
    grid = (7, 6, 8)
    other = extras("WanContextWindowsManual", model=model, **windows)[0]
    want = harness.sample(other, grid=grid)
    plain = harness.sample(model, grid=grid)
    assert not close(want, plain)
    assert close(harness.sample(exact(other), grid=grid), want)
    end = folders.last()
    assert end["grid"] == [3, 6, 8] and not end["reasons"]
    assert end["paths"]["observe"] > 2 and end["paths"]["sparse"] > 10


def test_skipped_layers_do_not_shift_the_numbering(extras, folders, monkeypatch):
    """LTX names no blocks: with block 0 skipped in one evaluation, block 1 stays block 1."""
    import paroattention

    case = CASES["ltx video"]
    seen = []
    plain = paroattention.Session.attention_of

    def attention(self, forward, layer, *args, **kwargs):
        seen.append(layer)
        return plain(self, forward, layer, *args, **kwargs)

    monkeypatch.setattr(paroattention.Session, "attention_of", attention)
    skipping = extras(
        "SkipLayerGuidanceDiT", model=families.build(case), double_layers="0", single_layers="",
        scale=3.0, start_percent=0.0, end_percent=1.0, rescaling_scale=0.0,
    )[0]  # fmt: skip
    want = families.sample(case, skipping, cfg=3.0)
    seen.clear()
    out = families.sample(case, exact(skipping), cfg=3.0)
    assert close(out, want) and not folders.last()["reasons"]
    assert set(seen) == {"block.0.0", "block.1.0"}
    # Every step: conditional and unconditional, and once more without block 0.
    assert seen.count("block.1.0") == 2 * seen.count("block.0.0")


def test_tokens_that_another_node_adds_to_the_text(folders):
    """As style nodes do at the model's input: what is joined counts, not what came in."""
    case = CASES["flux"]
    added = families.build(case).clone()

    def patch(arguments):
        text, ids = arguments["txt"], arguments["txt_ids"]
        arguments["txt"] = torch.cat([text[:, :3], text], dim=1)
        arguments["txt_ids"] = torch.cat([ids[:, :3], ids], dim=1)
        return arguments

    added.set_model_post_input_patch(patch)
    want = families.sample(case, added)
    assert close(families.sample(case, exact(added)), want)
    end = folders.last()
    assert end["paths"] == {"observe": 3, "sparse": 6} and not end["reasons"]


def test_controlnet(folders):
    """Flux with a real ControlNet: its own attention is none of ours, what it adds is there."""
    import comfy.controlnet
    import comfy.latent_formats
    import comfy.ldm.flux.controlnet
    import comfy.ops
    import nodes

    case = CASES["flux"]
    model = families.build(case)
    unet = {k: v for k, v in case.config[1].items() if k != "image_model"}
    control = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=False, operations=comfy.ops.disable_weight_init, device="cpu",
        dtype=torch.float32, **unet,
    )  # fmt: skip
    families.initialise(control, 3)
    net = comfy.controlnet.ControlNet(
        control, compression_ratio=8, load_device=torch.device("cpu"), extra_conds=["y", "guidance"]
    )
    texts = [families.conditioning(case), families.conditioning(case, seed=5)]
    image = torch.rand(1, 24 * 8, 26 * 8, 3, generator=torch.Generator().manual_seed(0))
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        *texts, net, image, 1.0, 0.0, 1.0
    )
    without = families.sample(case, model, cfg=2.0)
    options = {"cfg": 2.0, "positive": positive, "negative": negative}
    want = families.sample(case, model, **options)
    assert not close(want, without)
    assert close(families.sample(case, exact(model), **options), want)
    assert folders.last()["paths"]["sparse"] > 0 and not folders.last()["reasons"]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before ours", "after ours"])
def test_torch_compile(extras, folders, order):
    """The node that compiles the model: our call is opaque to it, the result the same."""
    model = harness.tiny_wan(dim=128, ffn=32)

    def compiled(patcher):
        return extras("TorchCompileModel", model=patcher, backend="inductor")[0]

    want = harness.sample(model)
    both = exact(compiled(model)) if order == "before ours" else compiled(exact(model))
    assert close(harness.sample(both), want, 5e-3)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]
    torch._dynamo.reset()


def test_weights_that_are_offloaded(model, folders, monkeypatch):
    """Low VRAM: weights come to the device call by call, and are read where they lie."""
    import comfy.model_management

    want = harness.sample(model)
    wrapped = exact(model)

    def load(models, **kwargs):
        for patcher in models:
            patcher.load(torch.device("cpu"), lowvram_model_memory=1 << 14)

    wrapped.detach()
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    monkeypatch.setattr("comfy.sampler_helpers.comfy.model_management.load_models_gpu", load)
    out = harness.sample(wrapped)
    assert wrapped.model.model_lowvram
    assert close(out, want) and folders.steps() == "osssss"
    monkeypatch.undo()
    wrapped.detach()


# -- conditioning ----------------------------------------------------------------------------------


def flux_run(wrap, positive, **options):
    case = CASES["flux"]
    return families.sample(case, wrap(FLUX["model"]), positive=positive, cfg=2.0, **options)


FLUX: dict = {}


@pytest.fixture(scope="module")
def flux():
    FLUX["model"] = families.build(CASES["flux"])
    yield CASES["flux"]
    FLUX.clear()


def test_conditioning_areas_with_crops(extras, flux, folders):
    """An area is evaluated on a grid of its own: the plan of a far grid is never used for it."""
    import nodes

    whole = families.conditioning(flux)
    part = nodes.ConditioningSetArea().append(families.conditioning(flux, 2), 64, 96, 0, 0, 1.0)[0]
    positive = nodes.ConditioningCombine().combine(whole, part)[0]
    want = flux_run(lambda m: m, positive)
    assert close(flux_run(exact, positive), want)
    out = flux_run(harness.paro, positive)
    assert torch.isfinite(out).all()
    told = " ".join(folders.last()["reasons"])
    assert "for other sizes" in told or "must have the grid" in told


def test_conditioning_masks(flux, folders):
    import nodes

    mask = torch.zeros(1, 24, 26)
    mask[:, :, :13] = 1
    masked = nodes.ConditioningSetMask().append(families.conditioning(flux), mask, "default", 1.0)
    want = flux_run(lambda m: m, masked[0])
    assert close(flux_run(exact, masked[0]), want) and not folders.last()["reasons"]


def test_a_latent_mask(model, folders, monkeypatch):
    """Inpainting: SetLatentNoiseMask before the sampler."""
    import nodes

    latent = {"samples": families.random(1, 16, 3, 12, 16)}
    mask = torch.zeros(1, 96, 128)
    mask[:, :, :64] = 1
    latent = nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]
    texts = [harness.conditioning(), harness.conditioning(seed=9)]

    def run(patcher):
        args = (1, 6, 3.0, "euler", "simple", *texts, latent)
        return nodes.common_ksampler(patcher, *args)[0]["samples"]

    want = run(model)
    assert close(run(exact(model)), want) and not folders.last()["reasons"]


def test_an_attention_mask_over_text_keeps_its_calls_dense(flux, folders):
    """Joint attention with a masked text: not ours, said once per cause, the result the same."""
    masked = families.conditioning(flux)
    masked[0][1]["attention_mask"] = torch.ones(1, 1, 168 - 5, 168 - 5)
    masked[0][1]["attention_mask_img_shape"] = (12, 13)
    want = flux_run(lambda m: m, masked)
    out = flux_run(exact, masked)
    assert close(out, want)
    assert "the call has an attention mask" in folders.last()["reasons"]


# -- guiders and custom samplers -------------------------------------------------------------------


def custom(extras, guider, steps=6, sampler="euler", first=0, last=None, start=None):
    model = guider.model_patcher
    sigmas = extras("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)[0]
    sigmas = sigmas[first:] if last is None else sigmas[first : last + 1]
    latent = start or {"samples": torch.zeros(1, 16, 3, 12, 16)}
    noise = extras("RandomNoise" if first == 0 else "DisableNoise", **NOISE[first == 0])[0]
    kind = extras("KSamplerSelect", sampler_name=sampler)[0]
    return extras(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=kind, sigmas=sigmas,
        latent_image=latent,
    )[0]  # fmt: skip


NOISE = {True: {"noise_seed": 4}, False: {}}
TEXTS = {"positive": 0, "negative": 1, "cond1": 0, "cond2": 1, "empty_conditioning": 2,
         "conditioning": 0}  # fmt: skip
GUIDERS = {
    "BasicGuider": ({}, ["conditioning"]),
    "CFGGuider": ({"cfg": 3.0}, ["positive", "negative"]),
    "DualCFGGuider": (
        {"cfg_conds": 3.0, "cfg_cond2_negative": 2.0, "style": "regular"},
        ["cond1", "cond2", "negative"],
    ),
    "PerpNegGuider": (
        {"cfg": 3.0, "neg_scale": 0.7}, ["positive", "negative", "empty_conditioning"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDERS)
def test_guiders(extras, model, folders, name):
    values, texts = GUIDERS[name]
    texts = {text: harness.conditioning(4 + TEXTS[text], TEXTS[text]) for text in texts}

    def run(patcher):
        return custom(extras, extras(name, model=patcher, **values, **texts)[0])["samples"]

    want = run(model)
    assert close(run(exact(model)), want)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]


def test_two_samplers_with_two_models(extras, folders):
    """High and low noise experts: each finds its own profile, whatever the other one saved."""
    experts = [harness.tiny_wan(seed=seed) for seed in (0, 1)]
    texts = {"positive": harness.conditioning(), "negative": harness.conditioning(seed=9)}

    def run(wrap):
        guiders = [
            extras("CFGGuider", model=wrap(expert), cfg=2.0, **texts)[0] for expert in experts
        ]
        half = custom(extras, guiders[0], last=3)
        return custom(extras, guiders[1], first=3, start=half)["samples"]

    want = run(lambda m: m)
    assert close(run(exact), want)
    assert [run[-1]["paths"]["sparse"] for run in folders.runs()] == [4, 4]
    names = [name for name in folders.names() if name.endswith(".json")]
    assert len(names) == 2
    run(exact)
    assert [run[-1]["paths"] for run in folders.runs()[2:]] == [{"sparse": 6}] * 2
