"""Where the grid lies, by family: the variants that the tests of real models leave out, and calls
that are none of ours. The modules are stand-ins with the attributes that the layouts read."""

import itertools
import math
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


def find(layouts, family, model, call=None, options=None, **arguments):
    """(grid, prefix, suffix) of a call of `call` tokens, or the reason."""
    arguments = {"x": empty(1, 16, 3, 12, 16), "context": empty(1, 7, 64)} | arguments
    geometry = layouts.geometry_for(family, layouts.Inputs(model, arguments, options or {}))
    if isinstance(geometry, str):
        return geometry
    tokens = call or geometry.known
    found = layouts.layout_of(layouts.Call(tokens, tokens, 128), geometry)
    return found if isinstance(found, str) else (found.grid, found.prefix, found.suffix)


GRID = (3, 6, 8)
H3 = module("MiniMaxH3Model", patch_size=(1, 2, 2))
H3_X = [empty(1, 24, 3, 12, 16), empty(1, 32, 2, 10)]


def packed(*segments, signature=(7, 3, 12, 16, 10)):
    """A PackedLayout: (kind, tokens) in the order of the sequence."""
    ends = list(itertools.accumulate(tokens for _, tokens in segments))
    found = [(end - tokens, end, kind) for end, (kind, tokens) in zip(ends, segments, strict=True)]
    return SimpleNamespace(segments=found, seq_len=ends[-1], signature=signature)


T2VA = packed(("text", 7), ("audio", 20), ("video", 144))
# Every kind that newer versions have.
REF2VA = packed(
    ("text", 7), ("cond", 48), ("cond_audio", 4), ("ref_img", 12), ("ref_audio", 6),
    ("audio", 20), ("video", 144),
)  # fmt: skip
H3_CASES = {"without references": (T2VA, 27), "with all kinds of them": (REF2VA, 97)}


@pytest.mark.parametrize("where", ["payload", "options"])
@pytest.mark.parametrize("case", H3_CASES)
def test_minimax_by_its_own_packing(layouts, case, where):
    """Text, conditions, references and audio are a prefix of exactly the tokens that the model
    packs: one token more or less is dense."""
    layout, prefix = H3_CASES[case]
    given = {"x": H3_X, "options": {"minimax_h3_layout": layout}}
    if where == "payload":
        given = {"x": H3_X, "minimax_payload": {"layout": layout}}
    assert find(layouts, "minimax_h3", H3, call=144 + prefix, **given) == (GRID, prefix, 0)
    for off in (-1, 1, 48):
        found = find(layouts, "minimax_h3", H3, call=144 + prefix + off, **given)
        assert f"{144 + prefix + off} tokens, but the grid (3, 6, 8) has 144" in found
    # The token refiner, and a text that attends to itself.
    assert find(layouts, "minimax_h3", H3, call=7, **given) == layouts.NO_GRID


def test_minimax_without_its_packing(layouts):
    """An older version, or a latent that the layout was not made for (context windows): what
    comes before the video is whatever a call has, at least text and audio."""
    stale = packed(("text", 7), ("audio", 20), ("video", 288), signature=(7, 6, 12, 16, 10))
    for payload in ({}, {"minimax_payload": {}}, {"minimax_payload": {"layout": stale}}):
        given = {"x": H3_X, **payload}
        assert find(layouts, "minimax_h3", H3, call=144 + 100, **given) == (GRID, 100, 0)
        assert "144" in find(layouts, "minimax_h3", H3, call=144 + 20, **given)


def test_minimax_packed_otherwise(layouts):
    """A layout that is not of this latent, whatever its signature says, is dense."""
    short = packed(("text", 7), ("audio", 20), ("video", 96))
    assert "packs 96 video tokens behind 27" in find(
        layouts, "minimax_h3", H3, call=123, x=H3_X, minimax_payload={"layout": short}
    )
    mute = packed(("text", 7), ("video", 144))
    assert "text and audio have 27" in find(
        layouts, "minimax_h3", H3, call=151, x=H3_X, minimax_payload={"layout": mute}
    )
    after = packed(("text", 7), ("audio", 20), ("video", 144), ("more", 5))
    given = {"x": H3_X, "minimax_payload": {"layout": after}}
    assert find(layouts, "minimax_h3", H3, call=176, **given) == (GRID, 27, 5)


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


# Frames of 48 tokens; of Kandinsky 6's the last one may be the reference.
K6 = module("Kandinsky6NativeAVDiT", patch_size=(1, 2, 2))
K6_X = [empty(1, 16, 3, 12, 16), empty(1, 31, 40)]
ANIMATE_2 = module("WanAnimate2Model", **WAN)
MING = module("NextDiT", patch_size=2, pad_tokens_multiple=32)
PIXELS = module(
    "PixDiT_T2I", patch_size=16, hidden_size=1536, num_groups=24, txt_max_length=300,
    pixel_attn_hidden_size=1152, pixel_num_groups=16,
)  # fmt: skip
# Families of newer versions of ComfyUI, by what their classes say there: family, model, arguments,
# layout.
NEWER = {
    "LTX 2.5": (
        "ltxav", module("LTXAVModel", attention_head_dim=128, audio_attention_head_dim=64),
        {"x": [empty(1, 128, 3, 6, 8), empty(1, 8, 20, 16)]}, (GRID, 0, 0),
    ),
    "Kandinsky 6": ("kandinsky6", K6, {"x": K6_X}, (GRID, 0, 0)),
    "Kandinsky 6 odd": (
        "kandinsky6", K6, {"x": [empty(1, 16, 3, 11, 15), K6_X[1]]}, (GRID, 0, 0)
    ),
    "Kandinsky 6 with an image": (
        "kandinsky6", K6, {"x": K6_X, "k6_reference_tail": True}, ((2, 6, 8), 0, 48)
    ),
    "Kandinsky 6, the image apart": (
        "kandinsky6", K6, {"x": K6_X, "k6_reference": empty(1, 16, 1, 12, 16)}, (GRID, 0, 48)
    ),
    "Wan-Animate 2 in steps without the pose": ("wan2.1", ANIMATE_2, {}, ((2, 6, 8), 48, 0)),
    "Ming-Image": (
        "ming_image", MING, {"x": empty(1, 16, 1, 24, 26)}, ((1, 12, 13), 32, 4)
    ),
    # 40 + 7 caption tokens; two layers of 48; 36 + 42 of references; 174 padded to 192.
    "Ming-Image with layers, references and more caption": (
        "ming_image", MING,
        {"x": empty(1, 16, 2, 12, 16), "direct_context": empty(1, 40, 256),
         "ref_frames": [empty(1, 16, 12, 12), empty(1, 16, 11, 14)]},
        ((2, 6, 8), 64, 96),
    ),
    "PixelDiT": ("pixeldit_t2i", PIXELS, {"x": empty(1, 3, 180, 256)}, ((1, 12, 16), 7, 0)),
    "PiD with a long text": (
        "pid", PIXELS, {"x": empty(1, 3, 192, 256), "context": empty(1, 400, 64)},
        ((1, 12, 16), 300, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEWER)
def test_newer_families(layouts, case):
    """Where the grid lies; and that one token more or less, or a whole frame, is dense."""
    family, model, arguments, want = NEWER[case]
    arguments = {"x": empty(1, 16, 3, 12, 16), "context": empty(1, 7, 64)} | arguments
    geometry = layouts.geometry_for(family, layouts.Inputs(model, arguments))
    tokens, dim = math.prod(want[0]) + want[1] + want[2], geometry.head_dim or 128
    found = layouts.layout_of(layouts.Call(tokens, tokens, dim), geometry)
    assert (found.grid, found.prefix, found.suffix) == want
    for off in (-48, -32, -1, 1, 32, 48):
        found = layouts.layout_of(layouts.Call(tokens + off, tokens + off, dim), geometry)
        assert found == layouts.NO_GRID or f"{tokens + off} tokens" in found


def test_the_other_streams_of_newer_families(layouts):
    """Audio, text, pose and pixels attend on their own: none is taken for the video."""
    audio = find(layouts, "kandinsky6", K6, call=31, x=K6_X)
    assert audio == layouts.NO_GRID
    # An audio longer than the video, and one of its very length.
    long = [K6_X[0], empty(1, 200, 40)]
    assert find(layouts, "kandinsky6", K6, call=200, x=long) == layouts.NO_GRID
    assert find(layouts, "kandinsky6", K6, call=144, x=long) == (GRID, 0, 0)
    same = [K6_X[0], empty(1, 144, 40)]
    assert "audio and video have equally many tokens (144)" in find(
        layouts, "kandinsky6", K6, x=same
    )
    for text in ("context", "k6_audio_context"):
        given = {"x": K6_X, text: empty(1, 144, 64)}
        assert "told apart" in find(layouts, "kandinsky6", K6, call=144, **given)
    # The pixel blocks of PixelDiT have as many tokens as the image, and heads of 72.
    x = {"x": empty(1, 3, 192, 256), "context": empty(1, 7, 64)}
    geometry = layouts.geometry_for("pixeldit_t2i", layouts.Inputs(PIXELS, x))
    assert layouts.layout_of(layouts.Call(192, 192, 72), geometry) == layouts.NO_GRID


ONE = empty(1, 16, 1, 12, 16)
DENSE = {
    "Qwen-Image 2.1": ("qwen_image21", SimpleNamespace(), {}, "in a call of their own"),
    "HiDream-O1": ("hidream_o1", SimpleNamespace(), {}, "in a call of their own"),
    "SenseNova-U1.5": ("sensenova_u15", SimpleNamespace(), {}, "in a call of their own"),
    "Wan-Animate 2": ("wan2.1", ANIMATE_2, {"pose_latents": ONE}, "a frame of the pose too"),
    "Wan-Animate 2, nothing but the reference": (
        "wan2.1", ANIMATE_2, {"x": ONE}, "no frame beside its reference"
    ),
    "Kandinsky 6, nothing but the reference": (
        "kandinsky6", K6, {"x": [ONE, K6_X[1]], "k6_reference_tail": True},
        "no frame beside its reference",
    ),
    "Kandinsky 6 without audio": ("kandinsky6", K6, {}, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", DENSE)
def test_newer_families_that_stay_dense(layouts, case):
    family, model, arguments, words = DENSE[case]
    for tokens in (96, 144, 192):
        assert words in find(layouts, family, model, call=tokens, **arguments)


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
        "kandinsky6", "ming_image", "pixeldit_t2i", "pid", "qwen_image21",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "patch", "want"),
    [((1, 4, 5, 7), (2, 2), (1, 3, 4)), ((1, 4, 5, 6, 7), (2, 2), (5, 3, 4)),
     ((1, 4, 5, 6, 7), (2, 2, 2), (3, 3, 4)), ((1, 4, 6, 8), (1, 2, 2), (1, 3, 4))],
)  # fmt: skip
def test_patches(layouts, shape, patch, want):
    assert layouts.patches(empty(*shape), patch) == want
