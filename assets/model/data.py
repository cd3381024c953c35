"""Procedural training video from photographs: crops that move, with objects moving over them.

`python data.py PHOTO_DIR OUT.npz` gathers the photographs (scikit-image's data folder), cuts out
the objects and fits the linear latent codec. Rendering then needs torch only and runs on a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES, HEIGHT, WIDTH = 10, 128, 176
BLOCK = 4  # Side of the pixel block that one latent pixel stands for.
PHOTO_SIZE = (192, 264)  # Half as large again as a frame, so that a usual crop keeps its detail.
SPRITE = 64

# subject: (file, box as left, top, right, bottom), all boxes 11:8 like a frame.
SUBJECTS = {
    "cat": ("chelsea.png", (20, 0, 432, 300)),
    "astronaut": ("astronaut.png", (0, 0, 512, 372)),
    "coffee": ("coffee.png", (25, 0, 575, 400)),
    "rocket": ("rocket.jpg", (26, 0, 613, 427)),
    "galaxy": ("hubble_deep_field.jpg", (120, 250, 670, 650)),
    "photographer": ("camera.png", (0, 30, 512, 402)),
    "retina": ("retina.jpg", (0, 192, 1411, 1218)),
    "bricks": ("brick.png", (0, 100, 512, 472)),
}
# motion: (centre dx, centre dy, log zoom, angle), the change from first frame to last.
# Slow, as most video is at a model's token size: about two tokens over a whole clip. All clips of a
# subject start at one view, so the direction of time shows in every frame.
MOTIONS = {
    "left": (-0.16, 0.0, 0.0, 0.0),
    "right": (0.16, 0.0, 0.0, 0.0),
    "up": (0.0, -0.16, 0.0, 0.0),
    "down": (0.0, 0.16, 0.0, 0.0),
    "closer": (0.0, 0.0, -0.2, 0.0),
    "away": (0.0, 0.0, 0.2, 0.0),
    "clockwise": (0.0, 0.0, 0.0, -0.2),
    "anticlockwise": (0.0, 0.0, 0.0, 0.2),
}
# object: where its centre is in the first and in the last frame, and its tilt there.
PATHS = {
    "nothing": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    "ball": ((-0.55, 0.30, 0.0), (0.05, 0.45, 0.0)),
    "star": ((0.45, -0.45, -0.3), (0.30, 0.10, 0.4)),
    "cup": ((0.50, 0.40, 0.2), (-0.10, 0.30, -0.2)),
    "face": ((-0.50, -0.35, -0.2), (-0.35, 0.25, 0.2)),
    "horse": ((0.55, 0.25, 0.0), (-0.05, 0.45, 0.1)),
}
OBJECTS = tuple(PATHS)
ANY = "any"  # Stands for an unknown word: three of them are the empty prompt.
WORDS = (*SUBJECTS, *MOTIONS, *OBJECTS, ANY)
SUBJECT_LIST, MOTION_LIST = tuple(SUBJECTS), tuple(MOTIONS)


def is_held_out(subject: int, motion: int, obj: int) -> bool:
    """One combination in twelve is never trained on, so that prompts can be unseen."""
    return (subject + 3 * motion + 5 * obj) % 12 == 7


def held_out_prompts() -> list[str]:
    return [
        f"{s} {m} {o}"
        for i, s in enumerate(SUBJECT_LIST)
        for j, m in enumerate(MOTION_LIST)
        for k, o in enumerate(OBJECTS)
        if is_held_out(i, j, k)
    ]


def word_vectors(width: int = 4096) -> np.ndarray:
    """One fixed random vector a word; RandomState is stable across numpy's versions."""
    draw = np.random.RandomState(20250625).standard_normal((len(WORDS), width))
    return draw.astype(np.float16)


# ---- preparation: photographs, cut-outs ----------------------------------------------------


def _load_photo(folder: Path, name: str) -> np.ndarray:
    from PIL import Image

    file, box = SUBJECTS[name]
    photo = Image.open(folder / file).convert("RGB").crop(box)
    photo = photo.resize((PHOTO_SIZE[1], PHOTO_SIZE[0]), Image.Resampling.LANCZOS)
    return np.asarray(photo)


def _square(folder: Path, file: str, box: tuple[int, int, int, int]) -> np.ndarray:
    from PIL import Image

    image = Image.open(folder / file).convert("RGB").crop(box)
    image = image.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def _soft(distance: np.ndarray) -> np.ndarray:
    """Coverage from a signed distance in sprite pixels, positive inside."""
    return np.clip(distance * 0.7 + 0.5, 0, 1)


def _sprites(folder: Path) -> np.ndarray:
    """RGBA, colour premultiplied by alpha, in the order of OBJECTS without 'nothing'."""
    y, x = np.mgrid[0:SPRITE, 0:SPRITE] - (SPRITE - 1) / 2
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    disc = _soft(29.0 - radius)
    light = np.clip(1.05 - np.hypot(x + 10, y + 10) / 48, 0.15, 1)[..., None]
    ball = light * np.array([0.15, 0.85, 0.75]) + 0.6 * np.clip(light - 0.85, 0, 1)
    fold = np.abs((angle / (2 * np.pi) * 5 + 0.5) % 1 - 0.5) * 2  # 0 at a tip, 1 between tips
    star_alpha = _soft((30 - 17 * fold - radius) * 0.8)
    star = np.broadcast_to(np.array([1.0, 0.85, 0.1]), (SPRITE, SPRITE, 3))
    cup = _square(folder, "coffee.png", (165, 8, 425, 268))
    face = _square(folder, "chelsea.png", (118, 30, 378, 290))
    ring = np.clip(_soft(radius - 26.5), 0, 1)[..., None]  # A white rim sets the cut-outs off.
    horse_alpha = 1 - _square(folder, "horse.png", (0, -36, 400, 364))[..., 0]
    y0 = int(36 * SPRITE / 400) + 2
    horse_alpha[:y0] = 0  # Rows outside the picture come out black, which would read as horse.
    horse_alpha[-y0:] = 0
    horse = np.broadcast_to(np.array([0.95, 0.95, 1.0]), (SPRITE, SPRITE, 3))
    layers = [
        (ball, disc), (star, star_alpha), (cup * (1 - ring) + ring, disc),
        (face * (1 - ring) + ring, disc), (horse, horse_alpha),
    ]  # fmt: skip
    out = [np.concatenate([c * a[..., None], a[..., None]], -1) for c, a in layers]
    return np.clip(np.stack(out), 0, 1)


# ---- rendering ------------------------------------------------------------------------------


class Renderer:
    """Renders batches of clips for (subject, motion, object) indices."""

    def __init__(self, archive: dict[str, np.ndarray], device: str = "cpu"):
        photos = torch.from_numpy(np.ascontiguousarray(archive["photos"])).to(device)
        self.photos = photos.permute(0, 3, 1, 2).float() / 255
        sprites = torch.from_numpy(np.ascontiguousarray(archive["sprites"])).to(device)
        sprites = sprites.permute(0, 3, 1, 2).float() / 255
        # A transparent border: what is sampled outside a sprite must be empty.
        empty = torch.zeros_like(sprites[:1])
        self.sprites = torch.cat([empty, sprites])
        self.device = torch.device(device)
        self.motions = torch.tensor(list(MOTIONS.values()), device=device)
        self.paths = torch.tensor(list(PATHS.values()), device=device)
        allowed = [
            (i, j, k)
            for i in range(len(SUBJECTS))
            for j in range(len(MOTIONS))
            for k in range(len(OBJECTS))
            if not is_held_out(i, j, k)
        ]
        self.allowed = torch.tensor(allowed, device=device)
        y = torch.linspace(-1 + 1 / HEIGHT, 1 - 1 / HEIGHT, HEIGHT, device=device)
        x = torch.linspace(-1 + 1 / WIDTH, 1 - 1 / WIDTH, WIDTH, device=device)
        aspect = WIDTH / HEIGHT
        self.base = torch.stack(torch.meshgrid(x * aspect, y, indexing="xy"), -1)
        self.aspect = torch.tensor([aspect, 1.0], device=device)
        self.time = torch.linspace(0, 1, FRAMES, device=device)

    def prompts(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        index = torch.randint(len(self.allowed), (batch,), device=self.device, generator=generator)
        return self.allowed[index]

    def _warp(self, scale: Tensor, angle: Tensor, centre: Tensor) -> Tensor:
        """Sampling positions (B * F, H, W, 2) in units where the height spans -1 to 1."""
        cos, sin = (angle.cos() * scale)[..., None, None], (angle.sin() * scale)[..., None, None]
        x, y = self.base[..., 0], self.base[..., 1]
        moved = torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
        return moved + centre[:, :, None, None]

    def render(self, prompts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """prompts (B, 3) -> clips (B, F, 3, H, W) in [0, 1]."""
        b = prompts.shape[0]

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            u = torch.rand(b, *shape, device=self.device, generator=generator)
            return low + (high - low) * u

        t = self.time[None, :]
        motion = self.motions[prompts[:, 1]] * uniform(0.95, 1.05, 1)
        dx, dy, zoom, turn = (m[:, None] * t for m in motion.unbind(1))
        scale = uniform(0.655, 0.665, 1) * zoom.exp()
        centre = torch.stack([dx, dy], -1) + uniform(-0.015, 0.015, 1, 2)
        warp = self._warp(scale, turn + uniform(-0.01, 0.01, 1), centre * self.aspect)
        photo = self.photos[prompts[:, 0]].repeat_interleave(FRAMES, 0)
        clip = F.grid_sample(
            photo, (warp / self.aspect).flatten(0, 1), padding_mode="reflection",
            align_corners=False,
        )  # fmt: skip
        first, last = self.paths[prompts[:, 2]].unbind(1)
        place = first[:, None] + (last - first)[:, None] * t[..., None]
        place = place + uniform(-0.03, 0.03, 1, 3)
        position, tilt = place[..., :2], place[..., 2]
        size = uniform(0.38, 0.40, 1)
        # The inverse warp: from the frame into the sprite, whose half side is `size`.
        local = self._warp(torch.ones_like(tilt), torch.zeros_like(tilt), -position * self.aspect)
        cos, sin = (tilt.cos() / size)[..., None, None], (tilt.sin() / size)[..., None, None]
        lx, ly = local.unbind(-1)
        grid = torch.stack([lx * cos - ly * sin, lx * sin + ly * cos], -1)
        sprite = self.sprites[prompts[:, 2]].repeat_interleave(FRAMES, 0)
        over = F.grid_sample(sprite, grid.flatten(0, 1), align_corners=False)
        clip = (clip * (1 - over[:, 3:]) + over[:, :3]).unflatten(0, (b, FRAMES))
        return (clip * self._light(b, generator)[:, None]).clamp(0, 1)

    def _light(self, batch: int, generator: torch.Generator | None) -> Tensor:
        """Uneven light that stands still over a clip: factors (B, 1, H, W) around 1.

        What no word names is local and smooth, so that a small error in sampling shifts it
        a little; a random place of an object would send the object elsewhere. Standing still, it
        can be told from the noise by looking along time.
        """
        draw = torch.randn(batch, 1, 6, 8, device=self.device, generator=generator)
        light = F.interpolate(
            draw.clamp(-2, 2), (HEIGHT, WIDTH), mode="bicubic", align_corners=True
        )
        return (0.12 * light - 0.03).exp()


# ---- latent codec ---------------------------------------------------------------------------


def fit_codec(renderer: Renderer, clips: int = 192) -> dict[str, np.ndarray]:
    """PCA of 4x4 RGB blocks to 16 channels, the weak ones amplified but not to full variance.

    Full whitening would make the model spend most of its loss on fine grain.
    """
    generator = torch.Generator(renderer.device).manual_seed(1)
    blocks = []
    for _ in range(clips // 16):
        clip = renderer.render(renderer.prompts(16, generator), generator)
        packed = F.pixel_unshuffle(clip[:, ::3].flatten(0, 1), BLOCK)
        blocks.append(packed.permute(0, 2, 3, 1).reshape(-1, 3 * BLOCK**2).double().cpu())
    x = torch.cat(blocks)
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    basis = vectors[:, -16:].flip(1)
    std = values[-16:].flip(0).sqrt()
    target = (std / std[0]).sqrt().clamp(min=0.3)
    gain = target / std
    codec = {
        "encoder.weight": (basis * gain).T,
        "encoder.bias": -(basis * gain).T @ mean,
        "decoder.weight": basis / gain,
        "decoder.bias": mean,
    }
    kept = (values[-16:].sum() / values.sum()).item()
    error = 10 * np.log10(1 / (values[:-16].sum().item() / (3 * BLOCK**2)))
    print(f"codec keeps {kept:.4f} of the variance, {error:.1f} dB (peak 1)")
    print("latent std:", " ".join(f"{v:.2f}" for v in target))
    return {k: v.float().contiguous().numpy() for k, v in codec.items()}


class Codec:
    def __init__(self, arrays: dict[str, np.ndarray], device: str = "cpu"):
        self.arrays = {
            k: torch.from_numpy(np.asarray(arrays[k])).to(device).float()
            for k in ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        }

    def encode(self, clip: Tensor) -> Tensor:
        """(B, F, 3, H, W) in [0, 1] -> (B, 16, F, H / 4, W / 4)."""
        b = clip.shape[0]
        x = F.pixel_unshuffle(clip.flatten(0, 1), BLOCK)
        weight, bias = self.arrays["encoder.weight"], self.arrays["encoder.bias"]
        x = F.conv2d(x, weight[..., None, None], bias)
        return x.unflatten(0, (b, -1)).transpose(1, 2).contiguous()

    def decode(self, latent: Tensor) -> Tensor:
        """The inverse, not clipped."""
        b = latent.shape[0]
        weight, bias = self.arrays["decoder.weight"], self.arrays["decoder.bias"]
        x = F.conv2d(latent.transpose(1, 2).flatten(0, 1), weight[..., None, None], bias)
        return F.pixel_shuffle(x, BLOCK).unflatten(0, (b, -1))


def prepare(folder: Path) -> dict[str, np.ndarray]:
    archive = {
        "photos": np.stack([_load_photo(folder, name) for name in SUBJECTS]),
        "sprites": np.round(_sprites(folder) * 255).astype(np.uint8),
    }
    return archive | fit_codec(Renderer(archive))


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], **prepare(Path(sys.argv[1])))
