"""The bundled model for benchmarks: loads assets/model without ComfyUI."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from ..layout import TokenLayout


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their own module up by name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


class Bundle:
    """The trained model, its prompts and its linear decoder. folder: the repository's assets/model.

    Raises FileNotFoundError naming what is missing.
    """

    def __init__(self, folder: Path, device: str):
        self.device = device
        self.wan = _module(folder / "wan_tiny.py")
        self.model = self.wan.load(folder / "paro-wan-tiny.safetensors", device=device)
        self.extras = _module(
            folder.parents[1] / "tools" / "demo" / "nodes" / "paro_demo" / "extras.py"
        ).Extras()
        _, frames, height, width = self.wan.LATENT_SHAPE
        patch = self.wan.PATCH
        self.layout = TokenLayout((frames, height // patch, width // patch))

    def context(self, prompts: list[str]) -> torch.Tensor:
        """(B, words, 4096) of prompts like "cat left ball"."""
        return torch.cat([self.extras.context(prompt) for prompt in prompts]).to(self.device)

    def noise(self, seeds: list[int]) -> torch.Tensor:
        return torch.cat([self.wan.make_noise(seed) for seed in seeds]).to(self.device)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, 16, F, h, w) -> pixels (B, F, H, W, 3) in [0, 1] on the CPU, not clipped."""
        return (self.extras.decode(latent).cpu() + 1) / 2
