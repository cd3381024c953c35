"""The bundled model in the real ComfyUI gives what assets/model/wan_tiny.py gives."""

from __future__ import annotations

import sys

import comfy_server
import numpy as np
import pytest

ASSETS = comfy_server.REPO / "assets"
PROMPT, SEED, STEPS, SHIFT = "astronaut right cup", 11, 3, 3.0
GRID = (16, 4, 16, 22)  # A quarter of the trained grid's sides: this checks numbers, not looks.


@pytest.fixture(scope="module")
def wan_tiny():
    sys.path.insert(0, str(ASSETS / "model"))
    import wan_tiny

    return wan_tiny


@pytest.fixture(scope="module")
def sampled(comfy):
    """The latent that the real KSampler makes of the model, a demo prompt and a seed."""
    (model,) = comfy.call("UNETLoader", unet_name="paro-wan-tiny.safetensors",
                          weight_dtype="default")  # fmt: skip
    (model,) = comfy.call("ModelSamplingSD3", model=model, shift=SHIFT)
    (text,) = comfy.call("PARODemoPrompt", prompt=PROMPT)
    (empty,) = comfy.call("EmptyHunyuanLatentVideo", width=176, height=128, length=13, batch_size=1)
    assert tuple(empty["samples"].shape) == (1, *GRID)
    (latent,) = comfy.call(
        "KSampler", model=model, seed=SEED, steps=STEPS, cfg=1.0, sampler_name="euler",
        scheduler="simple", positive=text, negative=text, latent_image=empty, denoise=1.0,
    )  # fmt: skip
    return model, text, latent


def test_comfyui_sees_a_wan_text_to_video_model(sampled):
    config = sampled[0].model.model_config.unet_config
    assert (config["image_model"], config["model_type"]) == ("wan2.1", "t2v")
    assert (config["dim"], config["num_heads"], config["num_layers"]) == (256, 2, 8)


def test_the_full_grid_comes_from_core_nodes(comfy, wan_tiny):
    (empty,) = comfy.call("EmptyHunyuanLatentVideo", width=352, height=256, length=37, batch_size=1)
    assert tuple(empty["samples"].shape) == (1, *wan_tiny.LATENT_SHAPE)


def test_ksampler_equals_the_standalone_sampler(sampled, wan_tiny):
    patcher, text, latent = sampled
    ours = wan_tiny.sample(
        wan_tiny.load(), wan_tiny.make_noise(SEED, 1, GRID), text[0][0], STEPS, SHIFT
    )
    theirs = patcher.model.latent_format.process_in(latent["samples"])
    assert (ours - theirs).abs().max() < 1e-4 * ours.abs().max()


def test_decode_keeps_unrounded_frames(comfy, sampled):
    (images,) = comfy.call("PARODemoDecode", samples=sampled[2], save_as="demo-model-test")
    assert tuple(images.shape) == (4, 64, 88, 3)
    assert 0 <= images.min() and images.max() <= 1
    kept = np.load(comfy.base / "output" / "paro" / "demo-model-test.npy")
    assert kept.dtype == np.float32
    assert np.allclose(np.clip((kept + 1) / 2, 0, 1), images.numpy(), atol=1e-6)


def test_decode_writes_to_no_other_folder(comfy, sampled):
    with pytest.raises(ValueError, match="save_as"):
        comfy.call("PARODemoDecode", samples=sampled[2], save_as="../elsewhere")
