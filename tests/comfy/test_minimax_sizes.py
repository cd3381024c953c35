"""MiniMax-H3 at the sizes that people run, by ComfyUI's own packing: what is never masked."""

import inspect
from itertools import pairwise

import harness
import pytest
import torch

# Latent frames of 768 x 1344 pixels for 5, 10 and about 30 seconds, and their audio at 40 a second.
SIZES = {"37,296": (37, 200), "79,632": (79, 400), "235,872": (234, 1240)}
TEXT = 300


@pytest.fixture(scope="module")
def minimax():
    harness.start()
    return pytest.importorskip("comfy.ldm.minimax.model", reason="this ComfyUI has no MiniMax-H3")


def references():
    return [
        {"kind": "image", "latent_h": 48, "latent_w": 84},
        {"kind": "audio", "ref_audio_t": 120},
        {"kind": "video_audio", "latent_h": 24, "latent_w": 42, "latent_t": 7, "ref_audio_t": 40},
    ]


def geometry(layouts, layout, frames, audio, **options):
    x = [torch.empty(1, 24, frames, 48, 84, device="meta"), torch.empty(1, 32, 2, audio)]
    context = torch.empty(1, TEXT, 5376, device="meta")
    model = type("MiniMaxH3Model", (), {"patch_size": (1, 2, 2)})()
    given = {"x": x, "context": context, "minimax_payload": {"layout": layout}}
    return layouts.geometry_for("minimax_h3", layouts.Inputs(model, given, options))


def test_heads_and_layers(minimax):
    """The sizes that plans of this model have."""
    sides = inspect.signature(minimax.MiniMaxH3Model).parameters
    names = ("num_attention_heads", "attention_head_dim", "num_layers", "patch_size")
    assert [sides[name].default for name in names] == [56, 128, 50, (1, 2, 2)]


@pytest.mark.parametrize("given", ["text alone", "keyframe", "references"])
@pytest.mark.parametrize("size", SIZES)
def test_all_but_the_video_is_outside_the_grid(minimax, size, given):
    """Masks are over the grid; rows of text, conditions, references and audio lie outside it."""
    frames, audio = SIZES[size]
    more = {
        "keyframe": {"keyframes": [{"resolved_frame_index": 0}]},
        "references": {"refs": references()},
    }.get(given, {})
    packed = minimax.PackedLayout(TEXT, frames, 48, 84, audio, **more)
    layouts = harness.part("layouts")
    found = geometry(layouts, packed, frames, audio)
    assert f"{found.grid_size:,}" == size and found.grid == (frames, 24, 42)
    call = layouts.Call(packed.seq_len, packed.seq_len, 128)
    layout = layouts.layout_of(call, found)
    assert (layout.prefix, layout.suffix) == (packed.seq_len - found.grid_size, 0)
    # Segments follow one another, the video is the last of them and the grid.
    assert all(before[1] == after[0] for before, after in pairwise(packed.segments))
    *others, video = packed.segments
    assert video == (layout.prefix, layout.prefix + layout.grid_size, "video")
    assert others[0] == (0, TEXT, "text") and others[-1][2] == "audio"
    wanted = {"text alone": set(), "keyframe": {"cond"}, "references": {"ref_img", "ref_audio"}}
    assert {kind for *_, kind in others} == {"text", "audio"} | wanted[given]
    # The video's rows are those that the model denoises, in the order of its frames.
    rows = packed.img_pos[packed.img_update]
    assert torch.equal(rows, torch.arange(layout.prefix, layout.length))
    times = packed.position_ids[rows, 0].view(layout.grid).diff(dim=0)
    assert (times > 0).all()
    for off in (-1, 1, -1008, 1008):
        call = layouts.Call(packed.seq_len + off, packed.seq_len + off, 128)
        assert isinstance(layouts.layout_of(call, found), str)
