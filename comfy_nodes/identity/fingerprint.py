"""Which model a profile belongs to: its fingerprint, and a hash of what changes its weights.

A fingerprint is 64 hex digits:
- 32: a sketch of the norm weights of the first, middle and last block of every block list.
- 14: the start of a sha256 over what defines the architecture: the family, the sizes below, the
  names and lengths of those norms.
- 2: how those norms are stored (two bits), and how many of the sketch's 128 signs that rounding
  flips on average (six bits).
- 16: a sketch of a few rows of one matrix of each of those blocks.

Copies of one model in other number formats differ in as many signs of the norms as their rounding
explains, other models in half. Where rounding leaves too little of the norms to tell, the matrices
must agree too. Nothing depends on what else a version of ComfyUI keeps in its model config.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field

import torch

from . import sketch
from .changes import patches_hash

__all__ = ["Identity", "family", "fingerprint", "first_fingerprint", "patches_hash", "same_model"]

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
_MATRIX = re.compile(r"^(.*?(?:blocks|layers))\.(\d+)\.(.*)\.weight$")
# Narrower ones, of a few heads or gates, are often kept apart from the others.
_LEAST_SIDE = 32
# In the names of compiled modules.
_COMPILED = "_orig_mod."
# Where the parts of a fingerprint end.
_NORMS, _ARCHITECTURE, _STORAGE = 32, 46, 48
# Up to so many of 128 signs of norms apart a model counts as similar: a finetune, most likely.
_SIMILAR = 40


def _config(patcher) -> dict:
    return getattr(getattr(patcher.model, "model_config", None), "unet_config", None) or {}


def family(patcher) -> str:
    """ComfyUI's name of the model family, e.g. wan2.1; "unknown" without a config."""
    name = str(_config(patcher).get("image_model") or "unknown")
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:40]


def _weights(patcher) -> dict[str, torch.Tensor]:
    """The diffusion model's own weights by name: without patches, hooks or replaced modules."""
    root = "diffusion_model."
    found = dict(patcher.model.diffusion_model.named_parameters())
    for key, original in getattr(patcher, "object_patches_backup", {}).items():
        name = key.removeprefix(root)
        if name == key or not isinstance(original, torch.nn.Module | torch.Tensor):
            continue
        found = {k: v for k, v in found.items() if k != name and not k.startswith(f"{name}.")}
        if isinstance(original, torch.Tensor):
            found[name] = original
        else:
            found |= {f"{name}.{k}": v for k, v in original.named_parameters()}
    found = {name.replace(_COMPILED, ""): weight for name, weight in found.items()}
    # Hooks go onto patched weights, so what patches kept comes last.
    kept = {key: pair[0] for key, pair in getattr(patcher, "hook_backup", {}).items()}
    kept |= {key: one.weight for key, one in getattr(patcher, "backup", {}).items()}
    for key, weight in kept.items():
        name = key.replace(_COMPILED, "").removeprefix(root)
        if name in found:
            found[name] = weight
    return found


def _of_blocks(weights: dict, pattern: re.Pattern, dimensions: int) -> list[tuple[str, list]]:
    """(block, its (name, weight) pairs that match) for the first, middle and last block of each
    block list that has any."""
    blocks: dict[str, dict[int, list]] = {}
    for name, weight in weights.items():
        match = pattern.match(name)
        if match and len(sketch.shape(weight)) == dimensions:
            numbered = blocks.setdefault(match[1], {})
            numbered.setdefault(int(match[2]), []).append((name, weight))
    chosen = []
    for numbered in blocks.values():
        order = sorted(numbered)
        for index in sorted({order[0], order[len(order) // 2], order[-1]}):
            chosen.append(numbered[index])
    return chosen


def _norms(weights: dict, pattern: re.Pattern = _NORM) -> list[tuple[str, torch.Tensor]]:
    """Norm weights of the first, middle and last block of each block list."""
    chosen = [pair for pairs in _of_blocks(weights, pattern, 1) for pair in pairs]
    return sorted(chosen, key=lambda pair: pair[0])


def _vectors(weights: dict) -> list[tuple[str, torch.Tensor]]:
    """For models that name their norms otherwise: up to 64 one-dimensional weights."""
    vectors = [(k, w) for k, w in weights.items() if k.endswith(".weight") and w.dim() == 1]
    return sorted(vectors, key=lambda pair: pair[0])[:: -(-len(vectors) // 64) or 1]


def _matrices(weights: dict) -> list[tuple[str, torch.Tensor]]:
    """The least matrix of each of the blocks whose norms are read."""

    def order(pair):
        return math.prod(sketch.shape(pair[1])), pair[0]

    chosen = []
    for pairs in _of_blocks(weights, _MATRIX, 2):
        wide = [pair for pair in pairs if min(sketch.shape(pair[1])) >= _LEAST_SIDE]
        chosen += [min(wide, key=order)] if wide else []
    return chosen


def _architecture(patcher, norms) -> str:
    config = _config(patcher)
    sizes = {key: config[key] for key in _SIZES if config.get(key) is not None}
    shapes = [(name, len(weight)) for name, weight in norms]
    text = json.dumps([sizes, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(patcher) -> str:
    """64 hex digits (see above)."""
    return Identity.of(patcher).fingerprint


def _parts(fingerprint: str) -> tuple[str, str, tuple[int, int], str]:
    """(sketch of the norms, architecture, (format, flips by rounding), sketch of the matrices)."""
    storage = int(fingerprint[_ARCHITECTURE:_STORAGE], 16)
    norms, architecture = fingerprint[:_NORMS], fingerprint[_NORMS:_ARCHITECTURE]
    return norms, architecture, (storage >> 6, storage & 63), fingerprint[_STORAGE:]


def _matrices_agree(a: str, b: str) -> bool:
    known = sketch.NO_MATRICES not in (a, b)
    return known and sketch.flips(a, b) <= sketch.MATRIX_FLIPS


def same_model(a: str, b: str) -> bool:
    """Whether two fingerprints are of one model, in whatever number formats."""
    if a == b:
        return True
    if len(a) != 64 or len(b) != 64:
        return False
    (norms, shape, stored, rows), (norms_b, shape_b, stored_b, rows_b) = _parts(a), _parts(b)
    limit = sketch.limit(stored, stored_b)
    if shape != shape_b or sketch.flips(norms, norms_b) > limit:
        return False
    return limit <= sketch.PROVES or _matrices_agree(rows, rows_b)


@dataclass(frozen=True)
class Identity:
    """A model's fingerprint, and those that earlier versions' profiles hold for it.

    first: of version 0.1.0. second: a sketch of the norms, then 32 digits of the architecture.
    stored: by the code of a coarser format, the fingerprint had the norms been stored in it.
    """

    fingerprint: str
    first: str = ""
    second: str = ""
    stored: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, patcher) -> Identity:
        weights = _weights(patcher)
        named = _norms(weights) or _vectors(weights)
        norms = sketch.Norms.of(named)
        architecture = _architecture(patcher, named)
        rows = sketch.of_matrices(_matrices(weights))

        def whole(signs, code, turned):
            shape = architecture[: _ARCHITECTURE - _NORMS]
            return f"{signs}{shape}{code << 6 | turned:02x}{rows}"

        stored = {code: whole(one, code, turned) for code, (one, turned) in norms.sketches.items()}
        return cls(
            whole(norms.sketch, norms.code, norms.turned),
            _first_fingerprint(patcher, weights),
            norms.sketch + architecture[:32],
            stored,
        )

    def owns(self, other: str) -> bool:
        """Whether a profile with the fingerprint `other` is of this model."""
        if other in (self.first, self.second, self.fingerprint):
            return True
        if self._is_second(other):
            return self._second_agrees(other)
        return len(other) == 64 and same_model(self._as_stored_in(other), other)

    def similar(self, other: str) -> int | None:
        """Of how many of 128 signs a profile of a similar model differs; None if it is not one."""
        if len(other) != 64:
            return None
        if self._is_second(other):
            apart = min(sketch.flips(mine[:_NORMS], other[:_NORMS]) for mine in self._all())
            return apart if apart <= _SIMILAR else None
        norms, shape, _, rows = _parts(self._as_stored_in(other))
        norms_b, shape_b, _, rows_b = _parts(other)
        apart = sketch.flips(norms, norms_b)
        near = apart <= _SIMILAR or _matrices_agree(rows, rows_b)
        return apart if shape == shape_b and near else None

    def _all(self) -> tuple[str, ...]:
        return (self.fingerprint, *self.stored.values())

    def _as_stored_in(self, other: str) -> str:
        """This model's fingerprint in the number format of another's: rounding is then no excuse
        for what differs."""
        return self.stored.get(_parts(other)[2][0], self.fingerprint)

    def _is_second(self, other: str) -> bool:
        return len(other) == 64 and bool(self.second) and other[_NORMS:] == self.second[_NORMS:]

    def _second_agrees(self, other: str) -> bool:
        """Profiles of that kind hold no matrices, and not how their norms were stored: wide, most
        likely, or in one of the formats that this model's norms can be rounded to."""
        against = {self.fingerprint: (sketch.WIDE.code, 0)}
        against |= {one: _parts(one)[2] for one in self.stored.values()}
        for mine, stored in against.items():
            limit = sketch.limit(_parts(mine)[2], stored)
            if sketch.flips(mine[:_NORMS], other[:_NORMS]) <= limit <= sketch.PROVES:
                return True
        return False


def first_fingerprint(patcher) -> str:
    """The fingerprint that profiles of version 0.1.0 hold: sha256 of the whole config and norms."""
    return _first_fingerprint(patcher, _weights(patcher))


def _first_fingerprint(patcher, weights: dict) -> str:
    config = {k: v for k, v in _config(patcher).items() if "dtype" not in k and "device" not in k}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in _norms(weights, _FIRST_NORM):
        if weight.is_meta:
            return ""
        digest.update(name.encode())
        values = weight.detach().to("cpu", torch.float32).to(torch.bfloat16)
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def similar(apart: int) -> str:
    """Names a model whose fingerprint is near, but not that of a copy. apart: bits that differ."""
    return f"another, similar model ({apart} of 128 bits of its fingerprint differ)"
