"""Calls over the grid that are not taken: whatever a model does, what the node says is true."""

import asyncio

import families
import harness
import pytest
import torch
from family_cases import CASES

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("folders"),
]


def told(folders) -> dict:
    return folders.last()["reasons"]


# -- guides of LTX ---------------------------------------------------------------------------------


def guided(name, strength, **entry):
    """The case with two guides of one frame each, the second half filtered, of that strength."""
    import dataclasses

    case = CASES[name]
    entries = [
        {"pre_filter_count": 48, "strength": own, "pixel_mask": None, "latent_shape": [1, 6, 8]}
        for own in (1.0, strength)
    ]
    entries[1] |= entry
    extras = case.extras() | {"guide_attention_entries": entries}
    return dataclasses.replace(case, extras=lambda: extras)


@pytest.mark.parametrize("name", ["ltx guides", "ltx 2 guides"])
def test_guides_of_less_strength_are_dense_for_their_mask(folders, name):
    """ComfyUI asks for the video's and the guides' queries apart, each with a mask."""
    case = guided(name, 0.7)
    model = families.build(case)
    want = families.sample(case, model)
    out = families.sample(case, harness.paro(model))
    assert torch.equal(out, want)
    # Two calls a layer and step, of two layers and three steps.
    assert told(folders) == {"the call has an attention mask": 12} and folders.last()["paths"] == {}


def test_guides_of_full_strength_are_taken(folders):
    case = guided("ltx guides", 1.0)
    families.sample(case, harness.paro(families.build(case)))
    assert set(folders.last()["paths"]) == {"observe", "sparse"}
    assert not [reason for reason in told(folders) if "denser" not in reason]


def test_a_mask_over_a_guide_s_picture_is_told_too(folders):
    case = guided("ltx guides", 1.0, pixel_mask=torch.linspace(0, 1, 48).view(1, 1, 1, 6, 8))
    families.sample(case, harness.paro(families.build(case)))
    assert told(folders) == {"the call has an attention mask": 12}


def test_a_masked_block_does_not_shift_the_numbering(folders, monkeypatch):
    """LTX names no blocks: with block 0 masked, block 1 is still block 1."""
    import comfy.ldm.modules.attention as attention

    case, plain, calls = CASES["ltx video"], attention.optimized_attention, []

    def masked(q, k, v, heads, **kwargs):
        if q.shape == k.shape:
            calls.append(1)
            if len(calls) % 2:
                kwargs["mask"] = torch.zeros(q.shape[1], k.shape[1])
        return plain(q, k, v, heads, **kwargs)

    monkeypatch.setattr(attention, "optimized_attention", masked)
    families.sample(case, harness.paro(families.build(case)))
    assert {line["layer"] for line in folders.runs()[-1][:-1]} == {"block.1.0"}
    assert told(folders)["the call has an attention mask"] == 3


def test_a_block_that_asks_in_parts_does_not_shift_the_numbering(folders, monkeypatch):
    import comfy.ldm.modules.attention as attention

    case, plain, calls = CASES["ltx video"], attention.optimized_attention, []

    def split(q, k, v, heads, **kwargs):
        if q.shape == k.shape:
            calls.append(1)
            if len(calls) % 2:
                pieces = [plain(part, k, v, heads, **kwargs) for part in q.split(60, dim=1)]
                return torch.cat(pieces, 1)
        return plain(q, k, v, heads, **kwargs)

    monkeypatch.setattr(attention, "optimized_attention", split)
    families.sample(case, harness.paro(families.build(case)))
    assert {line["layer"] for line in folders.runs()[-1][:-1]} == {"block.1.0"}
    part = "a call has the queries of only a part of the sequence"
    assert told(folders)[part] == 3 * 3


# -- calls in pieces -------------------------------------------------------------------------------


@pytest.fixture
def wan_attention(monkeypatch):
    """change(f): Wan computes its self-attention as f(plain, q, k, v, heads, ...)."""
    import comfy.ldm.wan.model as wan

    plain = wan.optimized_attention

    def change(function):
        def attention(q, k, v, heads, **kwargs):
            own = function if q.shape == k.shape else lambda do, *args, **kw: do(*args, **kw)
            return own(plain, q, k, v, heads, **kwargs)

        monkeypatch.setattr(wan, "optimized_attention", attention)

    return change


def chunks(plain, q, k, v, heads, **kwargs):
    return torch.cat([plain(part, k, v, heads, **kwargs) for part in q.chunk(3, dim=1)], 1)


def windows(plain, q, k, v, heads, **kwargs):
    """Every frame by itself."""
    parts = zip(*(x.chunk(3, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([plain(*part, heads, **kwargs) for part in parts], 1)


def masked_chunks(plain, q, k, v, heads, **kwargs):
    kwargs["mask"] = torch.zeros(48, 144)
    return chunks(plain, q, k, v, heads, **kwargs)


TOLD = {
    "queries in chunks": (chunks, {"a call has the queries of only a part of the sequence": 36}),
    "masked chunks": (masked_chunks, {"the call has an attention mask": 36}),
    "windows of a frame": (
        windows,
        {
            "no attention call covers the grid 3x6x8 (144 tokens); calls seen:"
            " 36 of 48 tokens, 12 of 144 queries to 4 keys": 1
        },
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_attention_in_pieces(model, folders, wan_attention, case):
    function, want = TOLD[case]
    wan_attention(function)
    dense = harness.sample(model)
    assert torch.equal(harness.sample(harness.paro(model)), dense)
    assert told(folders) == want and folders.last()["paths"] == {}


def test_a_warning_does_not_hide_that_nothing_was_taken(model, folders, wan_attention):
    """Another node's override came later: that is told, and why the run was dense as well."""
    wan_attention(windows)
    wrapped = harness.paro(model)
    options = wrapped.model_options["transformer_options"]
    options["optimized_attention_override"] = lambda func, *args, **kwargs: func(*args, **kwargs)
    harness.sample(wrapped)
    assert len(told(folders)) == 2
    assert any("36 of 48 tokens" in reason for reason in told(folders))


def test_attention_that_is_never_called(model, folders, monkeypatch):
    """A node that computes all attention by itself."""
    import comfy.ldm.wan.model as wan

    def own(q, k, v, heads, **kwargs):
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2)

    monkeypatch.setattr(wan, "optimized_attention", own)
    harness.sample(harness.paro(model))
    (reason,) = told(folders)
    # Whoever reads this knows which node to take out.
    assert reason.startswith("no attention call of this model reached PARO: test_calls_told.")
    assert reason.endswith("own computes its attention")


def test_attention_that_is_never_called_by_a_model_of_comfyuis_own(model, folders, monkeypatch):
    import comfy.ldm.wan.model as wan

    def own(self, x, *args, **kwargs):
        return x

    monkeypatch.setattr(wan.WanSelfAttention, "forward", own)
    monkeypatch.setattr(wan.WanT2VCrossAttention, "forward", own)
    harness.sample(harness.paro(model))
    assert told(folders) == {"no attention call of this model reached PARO": 1}


def test_a_family_without_a_layout_whose_calls_are_all_in_pieces(
    model, folders, monkeypatch, wan_attention
):
    """As HiDream-O1 is: the cause is that the family is not known."""
    wan_attention(chunks)
    config = dict(model.model.model_config.unet_config) | {"image_model": "mystery"}
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    harness.sample(harness.paro(model))
    assert told(folders) == {
        "models of family 'mystery' are not supported: their token layout is not known": 1
    }


# -- caches of keys --------------------------------------------------------------------------------


def extra(node, **inputs):
    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())
    return nodes.NODE_CLASS_MAPPINGS[node].EXECUTE_NORMALIZED(**inputs).result[0]


def test_the_key_cache_of_flux(folders):
    """From the second evaluation on references are keys and no tokens of the sequence."""
    case = CASES["flux 2 references"]
    cached = extra("FluxKVCache", model=families.build(case))
    want = families.sample(case, cached)
    out = families.sample(case, harness.paro(cached))
    assert harness.close(out, want, 0.2)
    keys = "a call has more or fewer keys than the sequence has tokens"
    assert told(folders)[keys] == 6 and folders.last()["paths"] == {"observe": 3}


def test_autoregressive_wan(folders):
    """Its blocks of frames attend to a cache, and do not say so to any node."""
    import comfy.sample
    import comfy.samplers

    case = CASES["wan t2v"]
    causal = families.Case(("WAN21_CausalAR_T2V", case.config[1] | {"causal_ar": True}),
                           case.latent, case.text, case.grid, case.layers)  # fmt: skip
    wrapped = harness.paro(families.build(causal))
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1})
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    latent = torch.zeros(1, *case.latent)
    texts = families.conditioning(case), families.conditioning(case, seed=5)
    comfy.sample.sample_custom(wrapped, latent, 1.0, sampler, sigmas, *texts, latent, seed=1)
    assert told(folders) == {"no attention call of this model reached PARO": 1}
