"""Which model a profile belongs to: fingerprint of the base model, hash of what patches it."""

from __future__ import annotations

import hashlib
import json
import re

import torch

# One-dimensional norm weights of numbered blocks: stable under quantisation of the matrices.
_NORM = re.compile(r"^(.*?blocks)\.(\d+)\.(.*norm.*)\.(weight|scale)$")


def family(patcher) -> str:
    """ComfyUI's name of the model family, e.g. wan2.1; "unknown" without a config."""
    config = getattr(getattr(patcher.model, "model_config", None), "unet_config", None) or {}
    name = str(config.get("image_model") or "unknown")
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:40]


def _canonical_config(patcher) -> str:
    config = getattr(getattr(patcher.model, "model_config", None), "unet_config", None) or {}
    # How weights are stored or cast says nothing of which model it is.
    kept = {k: v for k, v in config.items() if "dtype" not in k and "device" not in k}
    return json.dumps(kept, sort_keys=True, default=str)


def _norms(patcher) -> list[tuple[str, torch.Tensor]]:
    """Norm weights of the first, middle and last block of each block list, unpatched."""
    backup = getattr(patcher, "backup", {})
    blocks: dict[str, dict[int, list]] = {}
    for name, weight in patcher.model.diffusion_model.named_parameters():
        match = _NORM.match(name)
        if match and weight.dim() == 1:
            kept = backup.get(f"diffusion_model.{name}")
            weight = getattr(kept, "weight", weight) if kept is not None else weight
            blocks.setdefault(match[1], {}).setdefault(int(match[2]), []).append((name, weight))
    chosen = []
    for numbered in blocks.values():
        order = sorted(numbered)
        for index in sorted({order[0], order[len(order) // 2], order[-1]}):
            chosen += numbered[index]
    return sorted(chosen, key=lambda pair: pair[0])


def fingerprint(patcher) -> str:
    """sha256 (hex) of the canonical config and the norm weights rounded to bf16 (DESIGN.md)."""
    digest = hashlib.sha256(_canonical_config(patcher).encode())
    for name, weight in _norms(patcher):
        digest.update(name.encode())
        values = weight.detach().to("cpu", torch.float32).to(torch.bfloat16)
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _sample(value, depth: int = 0) -> str:
    """Up to eight values of the first tensors found in a patch, whatever holds them."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1)[:8].to("cpu", torch.float32)
        return str([round(x, 5) for x in flat.tolist()])
    if depth > 4:
        return ""
    if isinstance(value, (list, tuple)):
        return "".join(_sample(item, depth + 1) for item in value)
    if hasattr(value, "weights"):
        return _sample(value.weights, depth + 1)
    return str(value) if isinstance(value, (str, int, float)) else ""


def patches_hash(patcher) -> str:
    """Hash of sorted patched keys with strengths and sampled values; empty without patches."""
    patches = getattr(patcher, "patches", {})
    if not patches:
        return ""
    digest = hashlib.sha256()
    for key in sorted(patches, key=str):
        digest.update(str(key).encode())
        for patch in patches[key]:
            digest.update(_sample(list(patch)).encode())
    return digest.hexdigest()[:16]
