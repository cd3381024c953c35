"""The Wan 2.1 text-to-video architecture in plain torch, small enough to train in minutes.

Written from the published description of the architecture. The parameters carry the names under
which ComfyUI detects a Wan 2.1 checkpoint, so the file trained here loads there unchanged; here
self-attention goes through a replaceable function, so that sparse attention can be measured
without a host application.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# attention(q, k, v, layer) -> o, all of shape (batch, heads, tokens, head_dim), after RoPE.
Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]

MODEL = Path(__file__).resolve().parent / "paro-wan-tiny.safetensors"
SHIFT = 3.0  # The sampling shift this model was trained for (ModelSamplingSD3 in ComfyUI).
LATENT_SHAPE = (16, 10, 32, 44)  # channels, frames, height, width; 10 x 16 x 22 tokens
PATCH = 2  # Side of a token in latent pixels; a token covers one frame.


@dataclass(frozen=True)
class Config:
    dim: int = 256
    ffn_dim: int = 512
    layers: int = 8
    channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    head_dim: int = 128  # ComfyUI derives the number of heads as dim / 128.
    eps: float = 1e-6

    @property
    def heads(self) -> int:
        return self.dim // self.head_dim


def sdpa(q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def rope_angles(head_dim: int, grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Angles of shape (tokens, head_dim / 2); the channels are split over frame, row, column."""
    side = 2 * (head_dim // 6)
    widths = (head_dim - 2 * side, side, side)
    angles = []
    for axis, (length, width) in enumerate(zip(grid, widths, strict=True)):
        exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
        position = torch.arange(length, dtype=torch.float64, device=device)
        table = position[:, None] * 10000.0**-exponent
        shape = [1, 1, 1, width // 2]
        shape[axis] = length
        angles.append(table.view(shape).expand(*grid, width // 2))
    return torch.cat(angles, dim=-1).reshape(math.prod(grid), head_dim // 2)


def rope_table(head_dim: int, grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Cosines and sines stacked: (2, tokens, head_dim / 2), float32."""
    angles = rope_angles(head_dim, grid, device)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs of x (batch, tokens, heads, head_dim)."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table[0, None, :, None], table[1, None, :, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def timestep_features(t: Tensor, width: int) -> Tensor:
    exponent = torch.arange(width // 2, dtype=torch.float32, device=t.device) / (width // 2)
    phase = t.float()[:, None] * 10000.0**-exponent
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class AttentionLayer(nn.Module):
    """Projections of one attention; q and k are normalised over all heads together."""

    def __init__(self, config: Config):
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(dim, eps=config.eps)

    def project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as (batch, tokens, heads, head_dim), before RoPE."""
        projected = self.norm_q(self.q(x)), self.norm_k(self.k(source)), self.v(source)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in projected)
        return q.to(v.dtype), k.to(v.dtype), v

    def forward(self, x: Tensor, source: Tensor, table: Tensor | None, attention) -> Tensor:
        q, k, v = self.project(x, source)
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        o = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.o(o.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        dim, eps = config.dim, config.eps
        self.norm1 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.self_attn = AttentionLayer(config)
        self.norm3 = nn.LayerNorm(dim, eps=eps)
        self.cross_attn = AttentionLayer(config)
        self.norm2 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(self, x, e, text, table, attention, layer):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e).chunk(6, dim=1)
        y = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attn(y, y, table, lambda q, k, v: attention(q, k, v, layer))
        x = x + self.cross_attn(self.norm3(x), text, None, F.scaled_dot_product_attention)
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.ffn(y)


class Head(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, config.channels * PATCH * PATCH)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift, scale = (self.modulation + e[:, None]).chunk(2, dim=1)
        return self.head(self.norm(x) * (1 + scale) + shift)


class WanTiny(nn.Module):
    """Predicts the velocity noise - clip of a latent video at noise level sigma in [0, 1]."""

    def __init__(self, config: Config = Config()):
        super().__init__()
        self.config, dim = config, config.dim
        kernel = (1, PATCH, PATCH)
        self.patch_embedding = nn.Conv3d(config.channels, dim, kernel, stride=kernel)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)
        self.attention: Attention = sdpa
        self._tables: dict = {}

    def _table(self, grid: tuple[int, int, int], device: torch.device) -> Tensor:
        key = (grid, str(device))
        if key not in self._tables:
            self._tables[key] = rope_table(self.config.head_dim, grid, device)
        return self._tables[key]

    def _embed(self, latent: Tensor) -> Tensor:
        # The patches do not overlap: a matrix product does the convolution's work, only faster.
        b, c, f, h, w = latent.shape
        x = latent.view(b, c, f, h // PATCH, PATCH, w // PATCH, PATCH)
        x = x.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, -1, c * PATCH * PATCH)
        return F.linear(x, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)

    def forward(self, latent: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """latent (B, 16, F, 2H, 2W), sigma (B,), context (B, words, 4096) -> like latent."""
        b, c, f, h, w = latent.shape
        grid = (f, h // PATCH, w // PATCH)
        table = self._table(grid, latent.device)
        x = self._embed(latent).float()
        e = self.time_embedding(timestep_features(sigma * 1000.0, self.config.freq_dim)).float()
        e6 = self.time_projection(e).float().unflatten(1, (6, self.config.dim))
        text = self.text_embedding(context)
        for layer, block in enumerate(self.blocks):
            x = block(x, e6, text, table, self.attention, layer)
        x = self.head(x, e).view(b, *grid, PATCH, PATCH, c)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, c, f, h, w).float()


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def config_of(state: dict[str, Tensor]) -> Config:
    """Read the sizes back from a checkpoint, as a host would."""
    layers = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    return Config(
        dim=state["head.modulation"].shape[-1],
        ffn_dim=state["blocks.0.ffn.0.weight"].shape[0],
        layers=layers,
        channels=state["patch_embedding.weight"].shape[1],
        text_dim=state["text_embedding.0.weight"].shape[1],
    )


def load(path: str | Path = MODEL, attention: Attention | None = None, device="cpu") -> WanTiny:
    """Load a checkpoint for inference, in float32."""
    from safetensors.torch import load_file

    state = load_file(str(path))
    model = WanTiny(config_of(state))
    model.load_state_dict({k: v.float() for k, v in state.items()})
    model.attention = attention or sdpa
    return model.to(device).eval().requires_grad_(False)


def save(state: dict[str, Tensor], path: str | Path, config: Config) -> None:
    """Write float16. The sizes go beside the weights for people; loaders infer them."""
    from safetensors.torch import save_file

    half = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in state.items()}
    save_file(half, str(path), metadata={k: str(v) for k, v in asdict(config).items()})


def simple_sigmas(steps: int, shift: float = SHIFT, timesteps: int = 1000) -> Tensor:
    """The 'simple' schedule over shifted flow-matching noise levels: steps + 1 values, last 0."""
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must be in 1..{timesteps}, got {steps}")
    t = torch.arange(1, timesteps + 1) / timesteps
    levels = shift * t / (1 + (shift - 1) * t)
    picked = [float(levels[-(1 + int(i * timesteps / steps))]) for i in range(steps)]
    return torch.tensor([*picked, 0.0])


def make_noise(seed: int, batch: int = 1, shape: tuple[int, ...] = LATENT_SHAPE) -> Tensor:
    """The noise that ComfyUI's KSampler draws for this seed and latent shape."""
    return torch.randn((batch, *shape), generator=torch.manual_seed(seed), device="cpu")


@torch.no_grad()
def sample(
    model: WanTiny,
    noise: Tensor,
    context: Tensor,
    steps: int = 20,
    shift: float = SHIFT,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """Euler from noise to a latent clip: ComfyUI's KSampler with euler, simple, cfg 1.

    on_step(i, sigma, x) is called before each evaluation.
    """
    sigmas = simple_sigmas(steps, shift).to(noise.device)
    x = noise * sigmas[0]
    for i in range(steps):
        if on_step is not None:
            on_step(i, float(sigmas[i]), x)
        velocity = model(x, sigmas[i].expand(x.shape[0]), context)
        x = x + velocity * (sigmas[i + 1] - sigmas[i])
    return x
