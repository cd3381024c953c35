"""Random models of ComfyUI's own classes at tiny sizes, one builder a family, and their inputs.

Every family has two heads, one or two blocks of a kind and the real class's own forward; what it is
given goes through ComfyUI's own conditioning, sampler and model wrappers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import harness

TEXT = 7


@dataclass(frozen=True)
class Case:
    """One way to run a family. config: class in comfy.supported_models and its unet_config.

    latent: (channels, [frames,] height, width). text: (tokens, width). grid, prefix, suffix: where
    the tokens must lie. layers: ids in the order of their calls. extras(): more conditioning.
    needs: a conditioning that older versions of ComfyUI do not know.
    """

    config: tuple[str, dict]
    latent: tuple[int, ...]
    text: tuple[int, int]
    grid: tuple[int, int, int]
    layers: tuple[str, ...]
    prefix: int = 0
    suffix: int = 0
    audio: tuple[int, ...] = ()
    extras: Callable[[], dict] = dict
    noise_mask: Callable | None = None
    batch: bool = True
    needs: str = ""


def random(*shape, seed=0):
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def initialise(module, seed: int) -> None:
    """Random weights of the size that keeps activations near 1; norms near 1, biases 0."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        with torch.no_grad():
            if weight.dim() > 1:
                fan = weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=draw) / fan**0.5)
            elif name.endswith("bias"):
                weight.zero_()
            else:
                weight.copy_(1 + 0.1 * torch.randn(weight.shape, generator=draw))
    for name, buffer in module.named_buffers():
        # Left empty by the constructor, as a checkpoint fills it.
        if "inv_freq" in name:
            buffer.copy_(1.0 / 10 ** torch.linspace(0, 4, buffer.numel()).view(buffer.shape))


def build(case: Case, seed: int = 0):
    """A patcher of the family's real model."""
    harness.start()
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    name, unet = case.config
    config = getattr(comfy.supported_models, name)(dict(unet))
    config.set_inference_dtype(torch.float32, None)
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, "", device=torch.device("cpu"))
    initialise(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def latent(case: Case, batch: int = 1):
    import torch

    samples = torch.zeros(batch, *case.latent)
    if not case.audio:
        return samples
    import comfy.nested_tensor

    return comfy.nested_tensor.NestedTensor((samples, torch.zeros(batch, *case.audio)))


def conditioning(case: Case, seed: int = 0, tokens: int | None = None):
    count, width = case.text
    extras, tokens = case.extras(), tokens or count
    if "attention_mask" in extras:
        extras["attention_mask"] = extras["attention_mask"][:, :tokens]
    return [[random(1, tokens, width, seed=seed), extras]]


def sample(case: Case, model, *, steps=3, seed=1, cfg=1.0, batch=1, **options):
    """Latents of ComfyUI's KSampler: the video's, where audio comes along."""
    import nodes

    start = {"samples": latent(case, batch)}
    if case.noise_mask is not None:
        start["noise_mask"] = case.noise_mask()
    positive = options.pop("positive", None) or conditioning(case)
    negative = options.pop("negative", None) or conditioning(case, seed=5)
    out = nodes.common_ksampler(
        model, seed, steps, cfg, "euler", "simple", positive, negative, start, **options
    )[0]["samples"]
    return out.tensors[0] if hasattr(out, "tensors") else out


def _pooled(width=768):
    return {"pooled_output": random(1, width, seed=3)}


HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
    "vec_in_dim": 768, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64,
    "hidden_size": 256, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
    "theta": 256, "qkv_bias": True, "byt5": False, "guidance_embed": True,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_15 = HUNYUAN | {
    "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32, "vec_in_dim": None,
    "byt5": True, "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 32,
}  # fmt: skip
HUNYUAN_IMAGE = HUNYUAN | {
    "patch_size": [1, 1], "in_channels": 64, "out_channels": 64, "axes_dim": [64, 64],
    "vec_in_dim": None, "byt5": True, "guidance_embed": False,
}  # fmt: skip
FLUX = {
    "image_model": "flux", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 10000, "out_channels": 16, "qkv_bias": True, "txt_ids_dims": [], "in_channels": 16,
    "hidden_size": 256, "context_in_dim": 64, "patch_size": 2, "vec_in_dim": 768, "depth": 1,
    "depth_single_blocks": 2, "guidance_embed": True,
}  # fmt: skip
FLUX_2 = {
    "image_model": "flux2", "axes_dim": [32, 32, 32, 32], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 2000, "out_channels": 128, "global_modulation": True, "mlp_silu_act": True,
    "qkv_bias": False, "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0,
    "txt_ids_dims": [3], "patch_size": 1, "in_channels": 128, "hidden_size": 256,
    "context_in_dim": 64, "vec_in_dim": None, "depth": 1, "depth_single_blocks": 2,
    "guidance_embed": False,
}  # fmt: skip
CHROMA = {
    "image_model": "chroma", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 10000, "qkv_bias": True, "in_channels": 64, "out_channels": 64, "in_dim": 64,
    "out_dim": 256, "hidden_dim": 64, "n_layers": 1, "hidden_size": 256, "context_in_dim": 64,
    "patch_size": 2, "depth": 1, "depth_single_blocks": 2, "vec_in_dim": None, "txt_ids_dims": [],
}  # fmt: skip
LTX = {
    "image_model": "ltxv", "num_layers": 2, "attention_head_dim": 64, "num_attention_heads": 2,
    "cross_attention_dim": 128, "caption_channels": 64, "in_channels": 128,
}  # fmt: skip
LTX_2 = LTX | {
    "image_model": "ltxav", "attention_head_dim": 128, "cross_attention_dim": 256,
    "audio_attention_head_dim": 64, "audio_num_attention_heads": 2,
    "audio_cross_attention_dim": 128, "audio_in_channels": 128,
    "connector_attention_head_dim": 64, "connector_num_attention_heads": 1,
    "connector_num_layers": 1,
}  # fmt: skip
COG = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 64,
    "time_embed_dim": 32, "num_layers": 2, "in_channels": 16, "patch_size": 2,
    "text_embed_dim": 64, "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "num_attention_heads": 2,
    "joint_attention_dim": 64,
}  # fmt: skip
Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 64,
    "n_layers": 2, "qk_norm": True, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 1.0,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 64,
    "n_layers": 2, "qk_norm": True, "n_heads": 4, "n_kv_heads": 2, "axes_dims": [16, 24, 24],
    "axes_lens": [300, 512, 512], "rope_theta": 10000.0, "ffn_dim_multiplier": 1.0,
}  # fmt: skip
MINIMAX = {
    "image_model": "minimax_h3", "num_layers": 2, "token_refiner_num_layers": 1,
    "hidden_size": 256, "latents_dim": 24, "audio_latents_dim": 32, "attention_head_dim": 128,
    "num_attention_heads": 2, "ffn_hidden_size": 128, "text_dim": 64, "timestep_input_dim": 32,
    "time_embed_hidden_size": 64, "time_embed_dim": 64, "rope_inv_freq_len": 16,
}  # fmt: skip
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 128, "axes_dims": (16, 24, 24), "time_dim": 64,
    "ff_dim": 128, "visual_embed_dim": 132, "num_text_blocks": 1, "num_visual_blocks": 2,
    "in_text_dim": 64, "in_text_dim2": 32,
}  # fmt: skip
MOCHI = {
    "image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 2,
    "hidden_size_x": 256, "hidden_size_y": 128, "mlp_ratio_x": 48.0, "mlp_ratio_y": 1.0,
    "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
    "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True,
    "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 32, "rope_theta": 10000.0,
}  # fmt: skip
PREDICT_2 = {
    "image_model": "cosmos_predict2", "max_img_h": 64, "max_img_w": 64, "max_frames": 32,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 256, "concat_padding_mask": True, "crossattn_emb_channels": 64,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop",
    "min_fps": 1, "max_fps": 30, "use_adaln_lora": True, "adaln_lora_dim": 32, "num_blocks": 2,
    "num_heads": 2, "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False,
}  # fmt: skip
COSMOS = {
    "image_model": "cosmos", "max_img_h": 64, "max_img_w": 64, "max_frames": 32,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 256, "block_config": "FA-CA-MLP", "concat_padding_mask": True,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True,
    "adaln_lora_dim": 32, "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": 64,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "max_resolution": [64, 64], "in_channels": 16,
    "llama_layers": [0, 1], "num_attention_heads": 2, "num_routed_experts": 2,
    "num_activated_experts": 1, "num_layers": 1, "num_single_layers": 1, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 32, "caption_channels": [64, 48],
    "axes_dims_rope": (64, 32, 32),
}  # fmt: skip
MAGE_FLOW = {
    "image_model": "mage_flow", "in_channels": 128, "num_layers": 2, "num_attention_heads": 2,
    "joint_attention_dim": 64,
}  # fmt: skip
JOYIMAGE = {
    "image_model": "joyimage", "in_channels": 16, "hidden_size": 256, "patch_size": [1, 2, 2],
    "num_layers": 2, "num_attention_heads": 2, "text_dim": 64,
}  # fmt: skip
KREA = {
    "image_model": "krea2", "features": 256, "channels": 16, "patch": 2, "layers": 2, "heads": 2,
    "kvheads": 1, "txtlayers": 1, "txtdim": 128, "txtheads": 1, "txtkvheads": 1,
}  # fmt: skip


def wan(model_type="t2v", **changes) -> dict:
    return {
        "image_model": "wan2.1", "model_type": model_type, "dim": 256, "out_dim": 16,
        "num_heads": 2, "ffn_dim": 64, "num_layers": 2, "patch_size": (1, 2, 2), "freq_dim": 256,
        "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6,
        "in_dim": 16, "text_dim": 64,
    } | changes  # fmt: skip


def _references(count=1, channels=16, frames=False, size=(6, 8)):
    shape = (1, channels, 1, *size) if frames else (1, channels, *size)
    return {"reference_latents": [random(*shape, seed=8 + i) for i in range(count)]}


def _clip_vision(tokens=5, width=1280):
    from types import SimpleNamespace

    hidden = random(1, tokens, width, seed=4)
    return SimpleNamespace(last_hidden_state=hidden, penultimate_hidden_states=hidden)


def _all_text():
    import torch

    return {"attention_mask": torch.ones(1, TEXT, dtype=torch.long)}


def _filtered():
    """Two guide frames after three of video; half a frame of the guides' tokens is taken out."""
    import torch

    mask = torch.ones(1, 1, 5, 6, 8)
    mask[:, :, 4, :3] = -1
    return mask


def double(*blocks, single=0) -> tuple[str, ...]:
    names = [f"double.{i}.0" for i in range(blocks[0])]
    return (*names, *(f"single.{i}.0" for i in range(single)))


def numbered(count) -> tuple[str, ...]:
    return tuple(f"block.{i}.0" for i in range(count))


# What the packer of S2V makes of 19 motion frames of 12 x 16: the newest in patches of 1 x 2 x 2,
# two in one of 2 x 4 x 4, sixteen in four of 4 x 8 x 8.
MOTION = 6 * 8 + 3 * 4 + 4 * 1 * 2
VIDEO, GRID = (16, 3, 12, 16), (3, 6, 8)
ODD, ODD_GRID = (16, 5, 11, 15), (5, 6, 8)

CASES: dict[str, Case] = {
    "wan t2v": Case(("WAN21_T2V", wan()), VIDEO, (TEXT, 64), GRID, double(2)),
    "wan t2v odd": Case(("WAN21_T2V", wan()), ODD, (TEXT, 64), ODD_GRID, double(2)),
    "wan 2.2 5b": Case(
        ("WAN22_T2V", wan(out_dim=48, in_dim=48)), (48, 3, 12, 16), (TEXT, 64), GRID, double(2)
    ),
    "wan i2v": Case(
        ("WAN21_I2V", wan("i2v", in_dim=36)), VIDEO, (TEXT, 64), GRID, double(2),
        extras=lambda: {"clip_vision_output": _clip_vision()},
    ),
    "wan vace": Case(
        ("WAN21_Vace", wan("vace", vace_layers=2, vace_in_dim=96)), VIDEO, (TEXT, 64), GRID,
        ("double.0.0", "double.0.1", "double.1.0", "double.1.1"),
        extras=lambda: {
            "vace_frames": [random(1, 32, 3, 12, 16)], "vace_mask": [random(1, 64, 3, 12, 16)],
            "vace_strength": [1.0],
        },
    ),
    "wan fun reference": Case(
        ("WAN21_FunControl2V", wan("i2v", in_dim=48, in_dim_ref_conv=16)), VIDEO, (TEXT, 64),
        GRID, double(2), prefix=48, extras=lambda: _references(frames=True, size=(12, 16)),
    ),
    "wan phantom": Case(
        ("WAN21_T2V", wan()), VIDEO, (TEXT, 64), GRID, double(2), suffix=96,
        extras=lambda: {"time_dim_concat": random(1, 16, 2, 12, 16)},
    ),
    "wan camera": Case(
        ("WAN21_Camera", wan("camera", in_dim=32)), VIDEO, (TEXT, 64), GRID, double(2)
    ),
    "wan humo": Case(
        ("WAN21_HuMo", wan("humo")), VIDEO, (TEXT, 64), GRID, double(2), suffix=48,
        extras=lambda: _references(frames=True, size=(12, 16)),
    ),
    "wan scail": Case(
        ("WAN21_SCAIL", wan("scail", in_dim=20)), VIDEO, (TEXT, 64), GRID, double(2),
        prefix=48, suffix=36,
        extras=lambda: _references(frames=True, size=(12, 16)) | {
            "pose_video_latent": random(1, 16, 3, 6, 8)
        },
    ),
    "wan s2v": Case(
        ("WAN22_S2V", wan("s2v", audio_dim=32, audio_inject_layers=[0])), VIDEO, (TEXT, 64), GRID,
        double(2), suffix=48, extras=lambda: _references(frames=True, size=(12, 16)),
    ),
    "wan s2v motion": Case(
        ("WAN22_S2V", wan("s2v", audio_dim=32, audio_inject_layers=[0])), VIDEO, (TEXT, 64), GRID,
        double(2), suffix=48 + MOTION,
        extras=lambda: _references(frames=True, size=(12, 16)) | {
            "reference_motion": random(1, 16, 19, 12, 16)
        },
    ),
    "wan context latents": Case(
        ("WAN21_T2V", wan()), VIDEO, (TEXT, 64), GRID, double(2), suffix=48 + 24,
        extras=lambda: {
            "context_latents": [random(1, 16, 1, 12, 16), random(1, 16, 2, 6, 8)]
        },
        needs="context_latents",
    ),
    "hunyuan video": Case(
        ("HunyuanVideo", HUNYUAN), VIDEO, (TEXT, 64), GRID, double(1, single=1), prefix=TEXT,
        extras=_pooled,
    ),
    "hunyuan video reference": Case(
        ("HunyuanVideo", HUNYUAN), VIDEO, (TEXT, 64), GRID, double(1, single=1), prefix=TEXT + 48,
        extras=lambda: _pooled() | {"ref_latent": random(1, 16, 1, 12, 16)},
        batch=False,  # ComfyUI itself fails: it writes into expanded position ids.
    ),
    "hunyuan video 1.5": Case(
        ("HunyuanVideo15", HUNYUAN_15), (32, 3, 6, 8), (TEXT, 64), GRID, double(1, single=1),
        prefix=TEXT, extras=_pooled,
    ),
    "hunyuan video 1.5 odd, byt5, image": Case(
        ("HunyuanVideo15", HUNYUAN_15), (32, 3, 7, 9), (TEXT, 64), (3, 7, 9),
        double(1, single=1), prefix=TEXT + 4 + 5,
        extras=lambda: _pooled() | {
            "conditioning_byt5small": random(1, 4, 1472),
            "clip_vision_output": _clip_vision(5, 32),
        },
    ),
    "hunyuan image": Case(
        ("HunyuanImage21", HUNYUAN_IMAGE), (64, 13, 11), (TEXT, 64), (1, 13, 11),
        double(1, single=1), prefix=TEXT, extras=_pooled,
    ),
    "flux": Case(
        ("Flux", FLUX), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(1, single=2), prefix=TEXT,
        extras=_pooled,
    ),
    "flux odd": Case(
        ("Flux", FLUX), (16, 23, 25), (TEXT, 64), (1, 12, 13), double(1, single=2), prefix=TEXT,
        extras=_pooled,
    ),
    "flux kontext": Case(
        ("Flux", FLUX), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(1, single=2), prefix=TEXT,
        suffix=12 + 12, extras=lambda: _pooled() | _references(2),
    ),
    "flux 2": Case(
        ("Flux2", FLUX_2), (128, 12, 13), (TEXT, 64), (1, 12, 13), double(1, single=2), prefix=512,
        extras=_pooled,
    ),
    "flux 2 references": Case(
        ("Flux2", FLUX_2), (128, 12, 13), (TEXT, 64), (1, 12, 13), double(1, single=2),
        prefix=512, suffix=96, extras=lambda: _pooled() | _references(2, 128),
    ),
    "chroma": Case(
        ("Chroma", CHROMA), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(1, single=2), prefix=TEXT,
        extras=_pooled,
    ),
    "ltx video": Case(
        ("LTXV", LTX), (128, 3, 6, 8), (TEXT, 64), GRID, numbered(2), extras=_all_text
    ),
    "ltx video odd": Case(
        ("LTXV", LTX), (128, 5, 7, 9), (TEXT, 64), (5, 7, 9), numbered(2), extras=_all_text
    ),
    "ltx guides": Case(
        ("LTXV", LTX), (128, 5, 6, 8), (TEXT, 64), GRID, numbered(2), suffix=96 - 24,
        extras=lambda: _all_text() | {"keyframe_idxs": random(1, 3, 96, 2).abs() * 8},
        noise_mask=_filtered,
    ),
    "ltx 2": Case(
        ("LTXAV", LTX_2), (128, 3, 6, 8), (TEXT, 128), GRID, numbered(2), audio=(8, 20, 16)
    ),
    "cogvideox": Case(("CogVideoX_T2V", COG), VIDEO, (TEXT, 64), GRID, numbered(2), prefix=TEXT),
    "cogvideox 1.5 odd": Case(
        ("CogVideoX_T2V", COG | {"patch_size_t": 2}), (16, 5, 11, 15), (TEXT, 64), (3, 6, 8),
        numbered(2), prefix=TEXT,
    ),
    "qwen image": Case(
        ("QwenImage", QWEN), (16, 1, 24, 26), (TEXT, 64), (1, 12, 13), double(2), prefix=TEXT
    ),
    "qwen image edit odd": Case(
        ("QwenImage", QWEN), (16, 1, 23, 25), (TEXT, 64), (1, 12, 13), double(2), prefix=TEXT,
        suffix=24, extras=lambda: _references(2, frames=True),
    ),
    "z-image": Case(
        ("Lumina2", Z_IMAGE), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(2), prefix=32, suffix=4,
        extras=lambda: {"num_tokens": TEXT},
    ),
    "z-image reference": Case(
        ("Lumina2", Z_IMAGE), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(2),
        prefix=32 + 32 + 32, suffix=4,
        extras=lambda: {"num_tokens": TEXT} | _references(1),
    ),
    "lumina 2 odd": Case(
        ("Lumina2", LUMINA), (16, 23, 25), (TEXT, 64), (1, 12, 13), double(2), prefix=TEXT
    ),
    "minimax h3": Case(
        ("MiniMaxH3", MINIMAX), (24, 3, 12, 16), (TEXT, 64), GRID, numbered(2), prefix=TEXT + 20,
        audio=(32, 2, 10), batch=False,
    ),
    "minimax h3 reference": Case(
        ("MiniMaxH3", MINIMAX), (24, 3, 12, 16), (TEXT, 64), GRID, numbered(2),
        prefix=TEXT + 12 + 20, audio=(32, 2, 10), batch=False,
        extras=lambda: {"minimax_refs": [
            {"kind": "image", "latent_h": 6, "latent_w": 8, "latent": random(1, 24, 1, 6, 8)}
        ]},
    ),
    "kandinsky 5": Case(
        ("Kandinsky5", KANDINSKY), VIDEO, (TEXT, 64), GRID, double(2), extras=lambda: _pooled(32)
    ),
    "mochi": Case(
        ("GenmoMochi", MOCHI), (12, 3, 12, 16), (TEXT, 64), GRID, numbered(2), suffix=TEXT,
        extras=_all_text,
    ),
    "cosmos predict 2": Case(
        ("CosmosT2IPredict2", PREDICT_2), VIDEO, (TEXT, 64), GRID, numbered(2)
    ),
    "cosmos": Case(("CosmosT2V", COSMOS), VIDEO, (TEXT, 64), GRID, numbered(2)),
    "hidream": Case(
        ("HiDream", HIDREAM), (16, 24, 26), (TEXT, 64), (1, 12, 13), numbered(2),
        suffix=TEXT + 2 * 5,
        extras=lambda: _pooled(32) | {"conditioning_llama3": random(1, 2, 5, 48)},
    ),
    "hidream edit": Case(
        ("HiDream", HIDREAM), (16, 24, 16), (TEXT, 64), (1, 12, 16), numbered(2),
        suffix=TEXT + 2 * 5,
        extras=lambda: _pooled(32) | {
            "conditioning_llama3": random(1, 2, 5, 48),
            "concat_latent_image": random(1, 16, 24, 16),
        },
    ),
    "mage flow odd": Case(
        ("MageFlow", MAGE_FLOW), (128, 13, 11), (TEXT, 64), (1, 13, 11), double(2), prefix=TEXT,
        suffix=48, extras=lambda: _references(1, 128),
    ),
    "joyimage": Case(
        ("JoyImage", JOYIMAGE), (16, 1, 24, 26), (TEXT, 64), (1, 12, 13), double(2),
        suffix=TEXT + 12, extras=lambda: _references(1, frames=True),
    ),
    "krea 2": Case(
        ("Krea2", KREA), (16, 1, 24, 26), (TEXT, 128), (1, 12, 13),
        ("single.0.0", "single.1.0"), prefix=TEXT,
    ),
}  # fmt: skip
