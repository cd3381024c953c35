"""A real ComfyUI in this process for benchmarks: the tree, our plugin, Wan models of full size.

ComfyUI reads the command line at its import, so `start` comes before anything of comfy.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _core

PLUGIN = "comfyui_paroattention"
_REPOSITORY = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class WanSize:
    """A Wan 2.1 text-to-video architecture and the video it is run at, in latent patches."""

    dim: int
    layers: int
    ffn: int
    grid: tuple[int, int, int]

    @property
    def heads(self) -> int:
        return self.dim // 128  # ComfyUI's loader takes 128 to a head.


# Grids: 81 frames of 832x480 and 1280x720. tiny is for trying the bench itself.
MODELS = {
    "wan1.3b-480p": WanSize(1536, 30, 8960, (21, 30, 52)),
    "wan14b-720p": WanSize(5120, 40, 13824, (21, 45, 80)),
    "tiny": WanSize(256, 2, 64, (3, 12, 16)),
}


def start(tree: str | None) -> None:
    """Makes `comfy`, `nodes` and `folder_paths` importable. tree: a ComfyUI folder, or None for
    $COMFYUI_DIR. Error if there is none."""
    tree = tree or os.environ.get("COMFYUI_DIR", "")
    if not (Path(tree) / "comfy" / "sd.py").is_file():
        raise _core.Error(f"COMFYUI_DIR or --comfyui must name a ComfyUI folder (got {tree!r})")
    sys.path.insert(0, tree)
    sys.argv, kept = [sys.argv[0]], sys.argv
    from comfy.cli_args import args

    sys.argv = kept
    args.base_directory = tempfile.mkdtemp(prefix="paro-bench-")
    # A bench's few steps stand for a whole run: what keeps short runs dense is not asked here.
    file = Path(args.base_directory, "user", "__paro", "settings.json")
    file.parent.mkdir(parents=True)
    file.write_text('{"few_steps": 0, "least_gain": 0}', encoding="utf-8")
    args.disable_api_nodes = True
    if not torch.cuda.is_available():
        args.cpu = args.use_pytorch_cross_attention = True
    # As main.py does: nodes.py puts comfy/ first on the path, and its utils.py would hide this.
    import utils.extra_config  # noqa: F401


def plugin(folder: str | None = None):
    """Our plugin's module `comfy_nodes.nodes`, imported as ComfyUI would.

    folder: the plugin's (default: the current one, else the repository that this package lies in).
    """
    # An installed package does not lie in the plugin's folder.
    places = [Path(folder)] if folder else [Path.cwd(), _REPOSITORY]
    held = [place for place in places if (place / "comfy_nodes" / "nodes.py").is_file()]
    if not held:
        raise _core.Error(f"--plugin must name the plugin's folder (got {folder!r})")
    folder = held[0].resolve()
    spec = importlib.util.spec_from_file_location(
        PLUGIN, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PLUGIN] = module
    spec.loader.exec_module(module)
    return importlib.import_module(f"{PLUGIN}.comfy_nodes.nodes")


def wan_shapes(size: WanSize) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Wan 2.1 text-to-video checkpoint, as ComfyUI detects it by its keys."""
    dim, shapes = size.dim, {}

    def linear(name: str, out: int, inp: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, inp), (out,)

    shapes["patch_embedding.weight"] = (dim, 16, 1, 2, 2)
    shapes["patch_embedding.bias"] = (dim,)
    linear("text_embedding.0", dim, 4096)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", dim, 256)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", 6 * dim, dim)
    linear("head.head", 64, dim)
    shapes["head.modulation"] = (1, 2, dim)
    for layer in range(size.layers):
        block = f"blocks.{layer}"
        shapes[f"{block}.modulation"] = (1, 6, dim)
        shapes[f"{block}.norm3.weight"] = shapes[f"{block}.norm3.bias"] = (dim,)
        for kind in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{block}.{kind}.{part}", dim, dim)
            for norm in ("norm_q", "norm_k"):
                shapes[f"{block}.{kind}.{norm}.weight"] = (dim,)
        linear(f"{block}.ffn.0", size.ffn, dim)
        linear(f"{block}.ffn.2", dim, size.ffn)
    return shapes


def random_wan(size: WanSize, seed: int = 0):
    """A ComfyUI model patcher of that architecture with random weights (bf16 on a GPU).

    Weights are drawn on the GPU where there is one, and kept in host memory, as if read from a
    file: ComfyUI decides where they live.
    """
    import comfy.sd

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    draw = torch.Generator(device).manual_seed(seed)
    state = {}
    for name, shape in wan_shapes(size).items():
        if name.endswith(".bias"):
            value = torch.zeros(shape)
        elif "norm" in name:
            value = torch.ones(shape)
        else:
            inputs = torch.Size(shape[1:]).numel() or 1
            value = torch.randn(shape, generator=draw, device=device) / inputs**0.5
        state[name] = value.to(dtype).cpu()
    return comfy.sd.load_diffusion_model_state_dict(state)
