"""The real ComfyUI in this process, on the CPU, with a temporary base folder.

COMFYUI_DIR names the tree. Import this module before anything of comfy.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = "comfyui_paroattention"


def start() -> None:
    """Makes `comfy`, `nodes` and `folder_paths` importable; idempotent."""
    if "comfy.cli_args" in sys.modules:
        return
    tree = os.environ.get("COMFYUI_DIR", "")
    if not (Path(tree) / "comfy" / "sd.py").is_file():
        raise RuntimeError(f"COMFYUI_DIR must name a ComfyUI tree (got {tree!r})")
    sys.path.insert(0, tree)
    # ComfyUI reads the command line at import: pytest's own arguments must not reach it.
    sys.argv, kept = [sys.argv[0]], sys.argv
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    args.base_directory = tempfile.mkdtemp(prefix="paro-comfy-")
    sys.argv = kept
    # As main.py does: nodes.py puts comfy/ first on the path, and its utils.py would hide this.
    import folder_paths
    import utils.extra_config  # noqa: F401

    base = Path(args.base_directory)
    folder_paths.base_path = str(base)
    folder_paths.models_dir = str(base / "models")
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.set_user_directory(str(base / "user"))


def plugin():
    """The repository as ComfyUI imports a custom node: a package under a name of its own."""
    start()
    if PLUGIN not in sys.modules:
        path = REPOSITORY / "__init__.py"
        spec = importlib.util.spec_from_file_location(
            PLUGIN, path, submodule_search_locations=[str(REPOSITORY)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PLUGIN] = module
        spec.loader.exec_module(module)
    return sys.modules[PLUGIN]


def part(name: str):
    """A module of the plugin, e.g. part("store")."""
    plugin()
    return importlib.import_module(f"{PLUGIN}.comfy_nodes.{name}")


def tiny_wan(seed: int = 0, *, change=None, **sizes):
    """A random Wan 2.1 text-to-video model of ComfyUI's own class, through its own loader.

    change(state): edits the checkpoint before it is loaded.
    """
    start()
    import comfy.sd

    state = wan_state(seed, **sizes)
    if change is not None:
        change(state)
    return comfy.sd.load_diffusion_model_state_dict(state)


def wan_state(seed: int, *, dim: int = 256, layers: int = 2, ffn: int = 64) -> dict:
    import torch

    torch.manual_seed(seed)
    state = {}

    def linear(name, out, inp):
        state[f"{name}.weight"] = torch.randn(out, inp) / inp**0.5
        state[f"{name}.bias"] = torch.zeros(out)

    state["patch_embedding.weight"] = torch.randn(dim, 16, 1, 2, 2) / 8
    state["patch_embedding.bias"] = torch.zeros(dim)
    for name, out, inp in (
        ("text_embedding.0", dim, 4096),
        ("text_embedding.2", dim, dim),
        ("time_embedding.0", dim, 256),
        ("time_embedding.2", dim, dim),
        ("time_projection.1", 6 * dim, dim),
        ("head.head", 64, dim),
    ):
        linear(name, out, inp)
    state["head.modulation"] = torch.randn(1, 2, dim) / dim**0.5
    for layer in range(layers):
        prefix = f"blocks.{layer}"
        state[f"{prefix}.modulation"] = torch.randn(1, 6, dim) / dim**0.5
        state[f"{prefix}.norm3.weight"], state[f"{prefix}.norm3.bias"] = (
            torch.ones(dim),
            torch.zeros(dim),
        )
        for kind in ("self_attn", "cross_attn"):
            for part_name in "qkvo":
                linear(f"{prefix}.{kind}.{part_name}", dim, dim)
            for norm in ("norm_q", "norm_k"):
                state[f"{prefix}.{kind}.{norm}.weight"] = torch.ones(dim) + 0.1 * torch.randn(dim)
        linear(f"{prefix}.ffn.0", ffn, dim)
        linear(f"{prefix}.ffn.2", dim, ffn)
    return state


def conditioning(words: int = 4, seed: int = 0, batch: int = 1):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(batch, words, 4096, generator=generator), {}]]


def sample(
    model,
    *,
    grid=(3, 6, 8),
    steps=6,
    seed=1,
    cfg=1.0,
    sampler="euler",
    batch=1,
    positive=None,
    negative=None,
    start=None,
    end=None,
):
    """Latent samples of ComfyUI's KSampler for a grid in patches."""
    import nodes
    import torch

    f, h, w = grid
    latent = {"samples": torch.zeros(batch, 16, f, 2 * h, 2 * w)}
    positive = positive or conditioning()
    negative = negative or conditioning(seed=9)
    return nodes.common_ksampler(
        model,
        seed,
        steps,
        cfg,
        sampler,
        "simple",
        positive,
        negative,
        latent,
        start_step=start,
        last_step=end,
    )[0]["samples"]


def run_node(node, **inputs):
    """Executes a V3 node class as the server would, without its cache; returns its outputs."""
    return node.execute(**inputs).result


def paro(model, **changes):
    """The model behind PAROAttention with its defaults, but for one observed step."""
    inputs = {
        "profile": "auto",
        "density": 0.3,
        "precision": "int8",
        "mask": "static",
        "tail": True,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "observe_steps": 1,
        "save_as": "",
        # Whether 8 bits are faster, and so chosen, depends on the processor: test_dense_steps.py.
        "dense_steps": "model",
        # Of most tests a run with a profile is sparse from its first step: test_dense_steps.py.
        "watch": "if needed",
    }
    return run_node(part("nodes").PAROAttention, model=model, **(inputs | changes))[0]


def exact(model, **changes):
    """Ours with every block computed unquantised: its result must be the dense one."""
    return paro(model, density=1.0, precision="bf16", **changes)


def close(a, b, tolerance=2e-3):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def calibrate(model, **changes):
    """The model behind PAROCalibrate."""
    inputs = {"name": "mine", "queries": 16, "every_n_steps": 1, "exact": False}
    return run_node(part("nodes").PAROCalibrate, model=model, **(inputs | changes))[0]


class Folders:
    """models/paro and output of one test alone."""

    def __init__(self, monkeypatch, base: Path):
        import folder_paths

        self.profiles, self.output = base / "models" / "paro", base / "output"
        registered = ([str(self.profiles)], {".json"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "paro", registered)
        monkeypatch.setattr(folder_paths, "output_directory", str(self.output))

    def names(self) -> list[str]:
        """Every file in models/paro, captures and whatever was left behind too."""
        return sorted(p.name for p in self.profiles.iterdir()) if self.profiles.is_dir() else []

    def load(self, name: str):
        import paroattention

        return paroattention.Profile.load(self.profiles / f"{name}.json")

    def runs(self) -> list[list[dict]]:
        """The run log by runs, without the line that opens each."""
        path = self.output / "paro" / "runlog.jsonl"
        if not path.is_file():
            return []
        runs: list[list[dict]] = []
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if line.get("run"):
                runs.append([])
            else:
                runs[-1].append(line)
        return runs

    def last(self) -> dict:
        """The summary of the newest run."""
        return self.runs()[-1][-1]

    def steps(self) -> str:
        """The newest run's paths by step, one letter each: d(ense) o(bserve) s(parse) f(allback).

        A step whose layers went different ways is an x.
        """
        found: dict[int, set] = {}
        for line in self.runs()[-1][:-1]:
            found.setdefault(line["step"], set()).add(line["path"][0])
        return "".join(v.pop() if len(v) == 1 else "x" for _, v in sorted(found.items()))
