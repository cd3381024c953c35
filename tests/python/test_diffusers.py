"""paroattention.diffusers with diffusers' own models, tiny and random, made from a config."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest
import torch
from paroattention import Error, Profile, Settings
from paroattention.diffusers import patch
from problems import profile

# Left out on systems that the package is not tried with; never where everything is set up.
if not os.environ.get("PARO_REQUIRE_COMFY"):
    pytest.importorskip("diffusers")
import diffusers

STEPS = 5
# 4 x 6 x 10 tokens; CogVideoX has text before them.
SIZES = {"wan": (1, 16, 4, 12, 20), "cogvideox": (1, 4, 16, 12, 20)}


def wan():
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
    )


def cogvideox():
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        time_embed_dim=16,
        text_embed_dim=32,
        num_layers=2,
        sample_width=20,
        sample_height=12,
        sample_frames=13,
        patch_size=2,
        max_text_seq_length=7,
    )


class Pipe:
    """What a pipeline does with its transformer: Euler steps, text and no text in turn."""

    def __init__(self, family: str):
        torch.manual_seed(3)
        self.family, self.transformer = (
            family,
            {"wan": wan, "cogvideox": cogvideox}[family]().eval(),
        )
        if family == "wan":
            self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        else:
            self.scheduler = diffusers.CogVideoXDDIMScheduler()

    @torch.no_grad()
    def __call__(self, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(SIZES[self.family], generator=draw)
        texts = [torch.randn(1, 7, 32, generator=draw) for _ in range(2)]
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            found = [
                self.transformer(
                    hidden_states=x,
                    timestep=t.expand(1),
                    encoder_hidden_states=text,
                    return_dict=False,
                )[0]
                for text in texts
            ]
            guided = found[1] + 2 * (found[0] - found[1])
            x = self.scheduler.step(guided, t, x, return_dict=False)[0]
        return x


def settings(**changes) -> Settings:
    given = {"observe_steps": 1, "dense_steps": "model", "meter_limit": 0.0, "queries": 16}
    return replace(Settings(), **(given | changes))


@pytest.fixture(params=SIZES)
def pipe(request):
    return Pipe(request.param)


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_density_1_is_the_models_own_result(pipe):
    dense = pipe()
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=1.0, precision="bf16"))
    found = pipe()
    summary = patched.finish()
    # Two evaluations of two layers a step; the first step is watched.
    assert summary["paths"] == {"observe": 4, "sparse": 4 * (STEPS - 1)}
    assert summary["density_total"] == 1.0 and not summary["reasons"]
    assert off(found, dense) < 1e-4
    patched.remove()
    assert torch.equal(pipe(), dense)


def test_a_sparse_run_learns_saves_and_its_profile_serves_the_next(pipe, tmp_path):
    dense, file = pipe(), tmp_path / "profile.json"
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3), save=file)
    first = pipe()
    grid = (4, 6, 10)
    assert patched.finish()["grid"] == list(grid)
    assert 0 < off(first, dense) < 2
    saved = Profile.load(file)
    block = {"wan": "double", "cogvideox": "block"}[pipe.family]
    assert saved.layer_ids() == [f"{block}.0.0", f"{block}.1.0"]
    assert tuple(saved.calibration.grids[0]) == grid
    patched.remove()
    given = settings(density=0.3, watch="if needed")
    patched = patch(pipe.transformer, pipe.scheduler, given, profile=file)
    pipe()
    assert set(patched.finish()["paths"]) == {"sparse"}


def test_each_call_of_the_pipeline_is_a_run(pipe):
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3))
    one = pipe()
    assert patched.summary is None and patched.session is not None
    two = pipe()
    # The first run was ended by the second one, which watches its own first step.
    assert patched.summary["paths"] == patched.finish()["paths"]
    assert torch.equal(one, two)


def test_a_profile_of_other_sizes_is_not_used(pipe):
    other = profile(grid=(40, 6, 10), layers=("double.0.0", "double.1.0"))
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3), profile=other)
    pipe()
    assert "other sizes" in patched.finish()["profile"]


def test_masks_and_gradients_go_to_torch(pipe):
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3))
    pipe.scheduler.set_timesteps(STEPS)
    x = torch.randn(SIZES[pipe.family])
    text = torch.randn(1, 7, 32)
    t = pipe.scheduler.timesteps[0].expand(1)
    out = pipe.transformer(hidden_states=x, timestep=t, encoder_hidden_states=text)[0]
    out.sum().backward()
    assert any("gradients are asked for" in reason for reason in patched.finish()["reasons"])


def test_what_fails_in_the_model_leaves_the_patch_usable(pipe):
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3))
    pipe.scheduler.set_timesteps(STEPS)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        pipe.transformer(
            hidden_states=torch.randn(SIZES[pipe.family]),
            timestep=torch.tensor([999.0]),
            encoder_hidden_states=torch.randn(1, 7, 5),
        )
    assert patched.call is None
    patched.finish(ok=False)
    pipe()
    assert patched.finish()["paths"]["sparse"] > 0


def test_another_backend_is_told(monkeypatch):
    pipe = Pipe("wan")
    patched = patch(pipe.transformer, pipe.scheduler, settings(density=0.3))
    from diffusers.models.transformers import transformer_wan

    def other(query, key, value, **_):
        weights = torch.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
        return torch.einsum("bhqk,bkhd->bqhd", weights.softmax(-1), value)

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", other)
    pipe()
    assert any("by another backend" in reason for reason in patched.finish()["reasons"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"transformer": torch.nn.Linear(2, 2)}, r"transformer must be one of Wan.*got Linear"),
        ({"scheduler": object()}, r"scheduler must have timesteps \(got 'object'\)"),
        ({"settings": Settings(density=3)}, "density must be from 0.05 to 1"),
        ({"profile": 7}, r"profile must be a Profile or the path of one \(got int\)"),
    ],
)
def test_bad_input_is_named(change, told):
    pipe = Pipe("wan")
    given = {"transformer": pipe.transformer, "scheduler": pipe.scheduler} | change
    with pytest.raises(Error, match=told):
        patch(**given)


def test_context_parallelism_of_diffusers_is_refused():
    pipe = Pipe("wan")
    pipe.transformer.blocks[1].attn1.processor._parallel_config = object()
    with pytest.raises(Error, match="must not use context parallelism of diffusers"):
        patch(pipe.transformer, pipe.scheduler)
    assert type(pipe.transformer.blocks[0].attn1.processor).__name__ == "WanAttnProcessor"


def test_a_missing_diffusers_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(Error, match="pip install diffusers"):
        patch(None, None)
