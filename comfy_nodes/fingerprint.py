"""Which model a profile belongs to: fingerprint of the base model, hash of what patches it.

A fingerprint is 64 hex digits. The first 32 are a sketch of the norm weights of the first, middle
and last block of every block list: 128 signs of fixed random projections. Copies of one model whose
norms were rounded to float16, bfloat16 or not at all differ in a few of them at most, other models
in half. The last 32 are the start of a sha256 over what defines the architecture: the family, the
sizes below, the names and lengths of those norms. Nothing of it depends on how weights are stored,
or on what else a version of ComfyUI keeps in its model config.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import numpy as np
import torch

# One-dimensional norm weights of numbered blocks: stable under quantisation of the matrices.
_NORM = re.compile(r"^(.*?(?:blocks|layers))\.(\d+)\.(.*norm.*)\.(weight|scale)$")
# Sizes that ComfyUI reads off the checkpoint, in the words of its families.
_SIZES = (
    *("image_model", "model_type", "patch_size", "patch_size_t"),
    *("dim", "hidden_size", "model_dim", "ffn_dim", "ff_dim", "ffn_hidden_size"),
    *("num_heads", "num_attention_heads", "n_heads", "attention_head_dim"),
    *("num_layers", "n_layers", "depth", "depth_single_blocks", "vace_layers"),
    *("in_channels", "in_dim", "out_channels", "out_dim"),
)
# As it was when only lists called blocks were looked at.
_FIRST_NORM = re.compile(_NORM.pattern.replace("(?:blocks|layers)", "blocks"))
_BITS = 128
# Of 128: rounding flips less than one on average; a norm vector turned by 6 degrees flips four.
MAX_FLIPS = 4


def _config(patcher) -> dict:
    return getattr(getattr(patcher.model, "model_config", None), "unet_config", None) or {}


def family(patcher) -> str:
    """ComfyUI's name of the model family, e.g. wan2.1; "unknown" without a config."""
    name = str(_config(patcher).get("image_model") or "unknown")
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:40]


def _norms(patcher, pattern: re.Pattern = _NORM) -> list[tuple[str, torch.Tensor]]:
    """Norm weights of the first, middle and last block of each block list, unpatched."""
    backup = getattr(patcher, "backup", {})
    blocks: dict[str, dict[int, list]] = {}
    for name, weight in patcher.model.diffusion_model.named_parameters():
        match = pattern.match(name)
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


def _vectors(patcher) -> list[tuple[str, torch.Tensor]]:
    """For models that name their norms otherwise: up to 64 one-dimensional weights."""
    named = patcher.model.diffusion_model.named_parameters()
    vectors = [(name, w) for name, w in named if name.endswith(".weight") and w.dim() == 1]
    return sorted(vectors, key=lambda pair: pair[0])[:: -(-len(vectors) // 64) or 1]


def _architecture(patcher, norms) -> str:
    config = _config(patcher)
    sizes = {key: config[key] for key in _SIZES if config.get(key) is not None}
    shapes = [(name, len(weight)) for name, weight in norms]
    text = json.dumps([sizes, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _signs(name: str, count: int) -> np.ndarray:
    """[_BITS, count] of -1 and 1, the same for a name on every machine and version of numpy."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    words = np.random.PCG64(seed).random_raw(-(-_BITS * count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: _BITS * count]
    return bits.reshape(_BITS, count).astype(np.float32) * 2 - 1


def _sketch(norms) -> str:
    sums = np.zeros(_BITS)
    for name, weight in norms:
        values = weight.detach().to("cpu", torch.float64).numpy()
        # What a norm shares with all others, its mean, says nothing of which model it is.
        values = values - values.mean()
        size = np.linalg.norm(values)
        if np.isfinite(size) and size > 0:
            sums += _signs(name, len(values)) @ (values / size)
    return np.packbits(sums > 0, bitorder="little").tobytes().hex()


def fingerprint(patcher) -> str:
    """64 hex digits: sketch of the norms, then hash of the architecture (see above)."""
    norms = _norms(patcher) or _vectors(patcher)
    return _sketch(norms) + _architecture(patcher, norms)[:32]


def same_model(a: str, b: str) -> bool:
    """Whether two fingerprints are of one model, rounding apart."""
    if a == b:
        return True
    if len(a) != 64 or len(b) != 64 or a[32:] != b[32:]:
        return False
    return (int(a[:32], 16) ^ int(b[:32], 16)).bit_count() <= MAX_FLIPS


@dataclass(frozen=True)
class Identity:
    """A model's fingerprint, and the one that profiles of version 0.1.0 hold for it."""

    fingerprint: str
    first: str = ""

    @classmethod
    def of(cls, patcher) -> Identity:
        return cls(fingerprint(patcher), first_fingerprint(patcher))

    def owns(self, other: str) -> bool:
        """Whether a profile with the fingerprint `other` is of this model."""
        return other == self.first or same_model(self.fingerprint, other)


def first_fingerprint(patcher) -> str:
    """The fingerprint that profiles of version 0.1.0 hold: sha256 of the whole config and norms."""
    config = {k: v for k, v in _config(patcher).items() if "dtype" not in k and "device" not in k}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in _norms(patcher, _FIRST_NORM):
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
