"""Where the grid lies, by family: the variants that the tests of real models leave out, and calls
that are none of ours. The modules are stand-ins with the attributes that the layouts read."""

from types import SimpleNamespace

import harness
import pytest
import torch


@pytest.fixture(scope="module")
def layouts():
    return harness.part("layouts")


def module(kind, **attributes):
    """A stand-in for a model class of that name."""
    return type(kind, (), attributes)()


def empty(*shape):
    return torch.empty(shape, device="meta")


def find(layouts, family, model, call=None, **arguments):
    """(grid, prefix, suffix) of a call of `call` tokens, or the reason."""
    arguments = {"x": empty(1, 16, 3, 12, 16), "context": empty(1, 7, 64)} | arguments
    geometry = layouts.geometry_for(family, layouts.Inputs(model, arguments))
    if isinstance(geometry, str):
        return geometry
    tokens = call or geometry.known
    found = layouts.layout_of(layouts.Call(tokens, tokens, 128), geometry)
    return found if isinstance(found, str) else (found.grid, found.prefix, found.suffix)


GRID = (3, 6, 8)
WAN = {"patch_size": (1, 2, 2), "ref_conv": None}
REF = empty(1, 16, 1, 12, 16)
WAN_CASES = {
    "two subjects in time": (
        module("WanModel", **WAN), {"time_dim_concat": empty(1, 16, 2, 12, 16)}, (GRID, 0, 96)
    ),
    "context latents": (
        module("WanModel", **WAN),
        {"context_latents": [REF, empty(1, 16, 1, 7, 9)]}, (GRID, 0, 48 + 20),
    ),
    "a reference that the model has no weights for": (
        module("WanModel", **WAN), {"reference_latent": REF}, (GRID, 0, 0)
    ),
    "HuMo": (module("HumoWanModel", **WAN), {"reference_latent": REF}, (GRID, 0, 48)),
    "S2V": (module("WanModel_S2V", **WAN), {"reference_latent": REF}, (GRID, 0, 48)),
    "SCAIL": (
        module("SCAILWanModel", **WAN),
        {"reference_latent": REF, "pose_latents": empty(1, 16, 3, 6, 8)}, (GRID, 48, 36),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WAN_CASES)
def test_wan_variants(layouts, case):
    model, arguments, want = WAN_CASES[case]
    assert find(layouts, "wan2.1", model, **arguments) == want


def test_motion_frames_of_s2v_are_whatever_comes_after(layouts):
    arguments = {"reference_latent": REF, "reference_motion": empty(1, 16, 19, 12, 16)}
    model = module("WanModel_S2V", **WAN)
    assert find(layouts, "wan2.1", model, call=144 + 48 + 31, **arguments) == (GRID, 0, 79)
    assert "144" in find(layouts, "wan2.1", model, call=144 + 20, **arguments)


LTX = module("LTXVModel", attention_head_dim=64)


def guides(tokens, filtered=None):
    mask = torch.ones(1, 1, 5, 6, 8)
    if filtered is not None:
        mask[:, :, filtered] = -1
    return {
        "x": empty(1, 128, 5, 6, 8), "denoise_mask": mask,
        "keyframe_idxs": empty(1, 3, tokens, 2),
    }  # fmt: skip


def test_ltx_guides(layouts):
    """Two of five frames are guides; what is left of their tokens follows the video's."""
    for left in (0, 48, 96):
        found = find(layouts, "ltxv", LTX, call=144 + left, **guides(96, 4))
        assert found == (GRID, 0, left)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (guides(50), "not whole frames of 48"),
        (guides(240), "guides have no frames"),
        (guides(96, 1), "tokens of the video are left out"),
    ],
    ids=["parts of frames", "nothing but guides", "a filtered video"],
)
def test_ltx_without_a_full_grid(layouts, arguments, words):
    assert words in find(layouts, "ltxv", LTX, **arguments)


def test_audio_of_ltx_2_passes_through(layouts):
    model = module("LTXAVModel", attention_head_dim=128, audio_attention_head_dim=64)
    inputs = layouts.Inputs(model, {"x": [empty(1, 128, 3, 6, 8), empty(1, 8, 144, 16)]})
    geometry = layouts.geometry_for("ltxav", inputs)
    assert layouts.layout_of(layouts.Call(144, 144, 64), geometry) == layouts.NO_GRID
    assert layouts.layout_of(layouts.Call(144, 144, 128), geometry).grid == GRID


def test_older_versions_of_hunyuan_put_the_video_first(layouts):
    class HunyuanVideo:
        patch_size = (1, 2, 2)

        def forward_orig(self):
            img = torch.cat((img, txt), 1)  # noqa: F821, F841

    assert find(layouts, "hunyuan_video", HunyuanVideo()) == (GRID, 0, 7)


def test_z_image_with_references(layouts):
    model = module("NextDiT", patch_size=2, pad_tokens_multiple=32)
    arguments = {"x": empty(1, 16, 24, 26), "ref_latents": [empty(1, 16, 12, 12)]}
    # Captions of 32 and 64 tokens, 36 reference tokens padded to 64, 156 padded to 160.
    assert find(layouts, "lumina2", model, call=96 + 64 + 160, **arguments) == (
        (1, 12, 13), 96 + 64, 4,
    )  # fmt: skip
    assert find(layouts, "lumina2", model, call=64 + 160, **arguments) == layouts.NO_GRID


def test_minimax_with_references(layouts):
    model = module("MiniMaxH3Model", patch_size=(1, 2, 2))
    arguments = {"x": [empty(1, 24, 3, 12, 16), empty(1, 32, 2, 10)]}
    assert find(layouts, "minimax_h3", model, call=144 + 100, **arguments) == (GRID, 100, 0)
    # Less than text and audio together cannot be the packed sequence.
    assert "144" in find(layouts, "minimax_h3", model, call=144 + 20, **arguments)


REFUSED = {
    "cross-attention": (144, 77, {}, "cross-attention"),
    "a refiner": (40, 40, {}, "without the grid"),
    "extra latents": (192, 192, {}, "192 tokens, but the grid (3, 6, 8) has 144"),
    "a text of the same length": (144, 144, {"context": empty(1, 144, 64)}, "told apart"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_calls_that_are_none_of_ours(layouts, case):
    qo_len, kv_len, arguments, words = REFUSED[case]
    inputs = layouts.Inputs(
        module("WanModel", **WAN),
        {"x": empty(1, 16, 3, 12, 16), "context": empty(1, 7, 64)} | arguments,
    )
    geometry = layouts.geometry_for("wan2.1", inputs)
    assert words in layouts.layout_of(layouts.Call(qo_len, kv_len, 128), geometry)


def test_a_single_block_that_says_otherwise(layouts):
    geometry = layouts.Geometry(GRID, prefix=7)
    options = {"block_type": "single", "img_slice": [10, 151]}
    call = layouts.Call(151, 151, 128, options)
    assert "starts at token 10, but the token layout says 7" in layouts.layout_of(call, geometry)


def test_unknown_families(layouts):
    assert find(layouts, "mystery", SimpleNamespace()) == (
        "models of family 'mystery' are not supported: their token layout is not known"
    )


def test_the_registered_families(layouts):
    assert set(layouts.families()) >= {
        "wan2.1", "hunyuan_video", "cogvideox", "ltxv", "ltxav", "flux", "flux2", "qwen_image",
        "lumina2", "minimax_h3", "kandinsky5", "mochi_preview", "cosmos", "cosmos_predict2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "patch", "want"),
    [((1, 4, 5, 7), (2, 2), (1, 3, 4)), ((1, 4, 5, 6, 7), (2, 2), (5, 3, 4)),
     ((1, 4, 5, 6, 7), (2, 2, 2), (3, 3, 4)), ((1, 4, 6, 8), (1, 2, 2), (1, 3, 4))],
)  # fmt: skip
def test_patches(layouts, shape, patch, want):
    assert layouts.patches(empty(*shape), patch) == want
