"""The cases of every model family: a tiny model, its inputs, and where its tokens must lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from family_configs import (
    ANIMA,
    CHROMA,
    CHROMA_RADIANCE,
    COG,
    COSMOS,
    FLUX,
    FLUX_2,
    HIDREAM,
    HUNYUAN,
    HUNYUAN_15,
    HUNYUAN_IMAGE,
    JOYIMAGE,
    KANDINSKY,
    KREA,
    LTX,
    LTX_2,
    LUMINA,
    MAGE_FLOW,
    MINIMAX,
    MOCHI,
    PID,
    PIXELDIT,
    PREDICT_2,
    QWEN,
    Z_IMAGE,
    Z_IMAGE_PIXEL,
    wan,
)

TEXT = 7


@dataclass(frozen=True)
class Case:
    """One way to run a family. config: class in comfy.supported_models and its unet_config.

    latent: (channels, [frames,] height, width). text: (tokens, width). grid, prefix, suffix: where
    the tokens must lie. layers: ids in the order of their calls. extras(): more conditioning.
    needs: a conditioning that older versions of ComfyUI do not know. prepare(diffusion model):
    changes it before it gets its weights.
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
    prepare: Callable | None = None


def random(*shape, seed=0):
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pooled(width=768):
    return {"pooled_output": random(1, width, seed=3)}


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


class _AnyVae:
    """Latents of a video's size, of what it shows nothing."""

    def encode(self, pixels):
        frames, height, width, _ = pixels.shape
        return random(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8, seed=6)


def _coarse_faces(model) -> None:
    """What reads the pixels of a face is convolutions alone, seconds a frame on a CPU: here it is a
    mean by region. All that follows, up to the attention to faces, is ComfyUI's own."""
    import torch

    model.motion_encoder.enc.net_app = torch.nn.Sequential(
        torch.nn.AvgPool2d(128), torch.nn.Flatten(1), torch.nn.Linear(3 * 4 * 4, 512)
    )


def _animate(length: int, height: int, width: int, **inputs):
    """What ComfyUI's node for Wan Animate makes of a reference image, a pose and a face video."""
    from comfy_extras.nodes_wan import WanAnimateToVideo

    def video(frames):
        return random(frames, height, width, 3).sigmoid()

    given = {"reference_image": video(1), "pose_video": video(length), "face_video": video(length)}
    given |= {"clip_vision_output": _clip_vision()}
    positive = WanAnimateToVideo.execute(
        positive=[[random(1, 1, 1), {}]], negative=[[random(1, 1, 1), {}]], vae=_AnyVae(),
        width=width, height=height, length=length, batch_size=1, continue_motion_max_frames=5,
        video_frame_offset=0, **(given | inputs),
    ).result[0]  # fmt: skip
    return positive[0][1]


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
    "minimax h3": Case(
        ("MiniMaxH3", MINIMAX), (24, 3, 12, 16), (TEXT, 64), GRID, numbered(2), prefix=TEXT + 20,
        audio=(32, 2, 10), batch=False,
    ),
    "minimax h3 odd, first frame": Case(
        ("MiniMaxH3", MINIMAX), (24, 5, 11, 15), (TEXT, 64), ODD_GRID, numbered(2),
        prefix=TEXT + 48 + 20, audio=(32, 2, 10), batch=False,
        extras=lambda: {
            "minimax_keyframes": [
                {"resolved_frame_index": 0, "latent": random(1, 24, 1, 12, 16)}
            ],
            "minimax_frame_count": 17,
        },
    ),
    # Audio, then a video behind its own audio.
    "minimax h3 audio and video references": Case(
        ("MiniMaxH3", MINIMAX), (24, 3, 12, 16), (TEXT, 64), GRID, numbered(2),
        prefix=TEXT + 6 + 4 + 24 + 20, audio=(32, 2, 10), batch=False,
        extras=lambda: {"minimax_refs": [
            {"kind": "audio", "ref_audio_t": 3, "audio_latent": random(1, 32, 2, 3)},
            {"kind": "video_audio", "latent_t": 2, "latent_h": 6, "latent_w": 8, "ref_audio_t": 2,
             "latent": random(1, 24, 2, 6, 8), "audio_latent": random(1, 32, 2, 2)},
        ]},
    ),
    "minimax h3 reference": Case(
        ("MiniMaxH3", MINIMAX), (24, 3, 12, 16), (TEXT, 64), GRID, numbered(2),
        prefix=TEXT + 12 + 20, audio=(32, 2, 10), batch=False,
        extras=lambda: {"minimax_refs": [
            {"kind": "image", "latent_h": 6, "latent_w": 8, "latent": random(1, 24, 1, 6, 8)}
        ]},
    ),
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
    # Two references, the one beside the video last. Masks for each, for the video and for the pose.
    "wan scail 2 odd": Case(
        ("WAN21_SCAIL2", wan("scail2", in_dim=20)), ODD, (TEXT, 64), ODD_GRID, double(2),
        prefix=96, suffix=60,
        extras=lambda: _references(2, frames=True, size=(12, 16)) | {
            "pose_video_latent": random(1, 16, 5, 6, 8),
            "driving_mask_28ch": random(1, 5, 28, 6, 8), "ref_mask_flag": True,
            "ref_mask_28ch": random(1, 7, 28, 12, 16),
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
    "wan animate": Case(
        ("WAN22_Animate", wan("animate", in_dim=36, num_layers=5)), (16, 3, 12, 16), (TEXT, 64),
        GRID, double(5), extras=lambda: _animate(5, 96, 128), prepare=_coarse_faces,
    ),
    "wan animate odd, motion and background": Case(
        ("WAN22_Animate", wan("animate", in_dim=36, num_layers=5)), (16, 4, 14, 18), (TEXT, 64),
        (4, 7, 9), double(5), batch=False, prepare=_coarse_faces,
        extras=lambda: _animate(
            9, 112, 144, face_video=None, continue_motion=random(5, 112, 144, 3).sigmoid(),
            background_video=random(9, 112, 144, 3).sigmoid(),
        ),
    ),
    "wan animate one frame": Case(
        ("WAN22_Animate", wan("animate", in_dim=36, num_layers=5)), (16, 1, 24, 26), (TEXT, 64),
        (1, 12, 13), double(5), batch=False, prepare=_coarse_faces,
        extras=lambda: {
            "pose_video_latent": random(1, 16, 1, 24, 26),
            "face_video_pixels": random(1, 3, 1, 512, 512).tanh(),
        },
    ),
    "wan dancer": Case(
        ("WAN22_WanDancer", wan("wandancer", in_dim=36, audio_inject_layers=[0])), VIDEO,
        (TEXT, 64), GRID, double(2), extras=lambda: {"audio_embed": random(1, 12, 35)},
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
    "chroma radiance odd": Case(
        ("ChromaRadiance", CHROMA_RADIANCE), (3, 46, 50), (TEXT, 64), (1, 12, 13),
        double(1, single=2), prefix=TEXT, extras=_pooled,
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
    "ltx 2 guides": Case(
        ("LTXAV", LTX_2), (128, 5, 6, 8), (TEXT, 128), GRID, numbered(2), suffix=96 - 24,
        audio=(8, 20, 16), batch=False, noise_mask=_filtered,
        extras=lambda: {"keyframe_idxs": random(1, 3, 96, 2).abs() * 8},
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
    "z-image pixel": Case(
        ("ZImagePixelSpace", Z_IMAGE_PIXEL), (3, 48, 52), (TEXT, 64), (1, 12, 13), double(2),
        prefix=32, suffix=4, extras=lambda: {"num_tokens": TEXT},
    ),
    "z-image reference": Case(
        ("Lumina2", Z_IMAGE), (16, 24, 26), (TEXT, 64), (1, 12, 13), double(2),
        prefix=32 + 32 + 32, suffix=4,
        extras=lambda: {"num_tokens": TEXT} | _references(1),
    ),
    "lumina 2 odd": Case(
        ("Lumina2", LUMINA), (16, 23, 25), (TEXT, 64), (1, 12, 13), double(2), prefix=TEXT
    ),
    # A text of seven tokens, of which the model takes six.
    "pixeldit odd": Case(
        ("PixelDiTT2I", PIXELDIT), (3, 46, 50), (TEXT, 64), (1, 12, 13), numbered(2), prefix=6
    ),
    "pid": Case(
        ("PiD", PID), (3, 48, 52), (5, 64), (1, 12, 13), numbered(2), prefix=5,
        extras=lambda: {
            "lq_latent": random(1, 16, 6, 7), "degrade_sigma": random(1, seed=2).abs()
        },
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
    "anima odd": Case(
        ("Anima", ANIMA), (16, 1, 23, 25), (TEXT, 1024), (1, 12, 13), numbered(2)
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
