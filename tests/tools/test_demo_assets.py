"""The bundled model and what goes with it: sizes, names, prompts, decoder. Needs no ComfyUI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

ASSETS = Path(__file__).resolve().parents[2] / "assets"
for _folder in (ASSETS / "model", ASSETS.parent / "tools" / "demo" / "nodes" / "paro_demo"):
    sys.path.insert(0, str(_folder))

import data  # noqa: E402
import wan_tiny  # noqa: E402
from extras import PATH, Extras  # noqa: E402


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras()


@pytest.fixture(scope="module")
def model() -> wan_tiny.WanTiny:
    return wan_tiny.load()


def test_files_stay_small():
    assert wan_tiny.MODEL.stat().st_size < 16 * 1024 * 1024
    assert PATH.stat().st_size < 512 * 1024


def test_checkpoint_is_a_small_float16_wan(model):
    from safetensors.torch import load_file

    state = load_file(str(wan_tiny.MODEL))
    assert {v.dtype for v in state.values()} == {torch.float16}
    assert all(torch.isfinite(v).all() for v in state.values())
    assert sum(v.numel() for v in state.values()) == wan_tiny.parameter_count(model) == 8_013_120
    # The keys by which a host tells Wan 2.1 text-to-video from its relatives.
    for key in ("head.modulation", "head.head.weight", "blocks.7.ffn.2.weight"):
        assert key in state
    assert state["patch_embedding.weight"].shape == (256, 16, 1, 2, 2)
    assert not any(k.startswith(("img_emb", "vace", "ref_conv")) for k in state)


def test_words_are_those_of_the_training_data(extras):
    assert tuple(extras.words) == data.WORDS
    assert tuple(extras.objects) == data.OBJECTS
    assert torch.equal(extras.vectors, torch.from_numpy(data.word_vectors()).float())


def test_every_held_out_prompt_composes(extras):
    prompts = data.held_out_prompts()
    assert len(prompts) == 32 and "astronaut right cup" in prompts
    assert all(extras.context(p).shape == (1, 3, 4096) for p in prompts)
    assert torch.equal(extras.context(""), extras.context("any any any"))


@pytest.mark.parametrize("prompt", ["cat", "cat left", "cat ball left", "dog left ball"])
def test_a_wrong_prompt_names_the_word_or_the_rule(extras, prompt):
    with pytest.raises(ValueError, match=r"three words|unknown"):
        extras.context(prompt)


def test_decoder_gives_frames_and_refuses_other_shapes(extras):
    frames = extras.decode(torch.zeros(1, *wan_tiny.LATENT_SHAPE))
    assert frames.shape == (1, 10, 128, 176, 3)
    assert frames.abs().max() <= 1
    with pytest.raises(ValueError, match="latent must be"):
        extras.decode(torch.zeros(16, 10, 32, 44))


def test_schedule_is_the_shifted_simple_one():
    sigmas = wan_tiny.simple_sigmas(20, 3.0)
    assert len(sigmas) == 21 and sigmas[0] == 1 and sigmas[-1] == 0
    assert sigmas[10] == pytest.approx(3 * 0.5 / 2)
    with pytest.raises(ValueError, match="steps"):
        wan_tiny.simple_sigmas(0)


def test_attention_can_be_replaced(model, extras):
    seen = []

    def watching(q, k, v, layer):
        seen.append((layer, tuple(q.shape)))
        return wan_tiny.sdpa(q, k, v, layer)

    noise, context = wan_tiny.make_noise(1, shape=(16, 3, 8, 12)), extras.context("cat left ball")
    plain = wan_tiny.sample(model, noise, context, steps=1)
    model.attention = watching
    try:
        watched = wan_tiny.sample(model, noise, context, steps=1)
    finally:
        model.attention = wan_tiny.sdpa
    assert torch.equal(plain, watched)
    assert seen == [(layer, (1, 2, 3 * 4 * 6, 128)) for layer in range(8)]


def test_the_contact_sheet_ends_with_held_out_prompts():
    from train import SHEET_PROMPTS

    assert set(SHEET_PROMPTS[-4:]) <= set(data.held_out_prompts())
    assert not set(SHEET_PROMPTS[:-4]) & set(data.held_out_prompts())
