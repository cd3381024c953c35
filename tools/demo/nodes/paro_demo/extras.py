"""What goes with the bundled model: prompts from word vectors and the linear latent decoder.

Needs torch and safetensors only: the demo's nodes and the benchmarks read prompts and pixels
through this one file.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

FILE_NAME = "paro-wan-tiny.extras.safetensors"
PATH = Path(__file__).resolve().parent / FILE_NAME
BLOCK = 4  # Side of the pixel block that one latent pixel stands for.
SUBJECTS, MOTIONS = 8, 8  # The word list holds the subjects, the motions, the objects, 'any'.
ANY = "any"


class Extras:
    """The words, their vectors and the decoder, read from one safetensors file."""

    def __init__(self, path: str | Path = PATH):
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if "words" not in metadata:
                raise ValueError(f"{path}: no word list in its metadata")
            self.words: list[str] = json.loads(metadata["words"])
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}
        self.vectors = tensors["words"]
        self.weight, self.bias = tensors["decoder.weight"], tensors["decoder.bias"]
        self.subjects = self.words[:SUBJECTS]
        self.motions = self.words[SUBJECTS : SUBJECTS + MOTIONS]
        self.objects = self.words[SUBJECTS + MOTIONS : -1]

    def problem(self, prompt: str) -> str | None:
        """Why this is no prompt, or None."""
        given = prompt.split()
        if not given:
            return None
        kinds = {"subject": self.subjects, "motion": self.motions, "object": self.objects}
        if len(given) != len(kinds):
            return (
                f"a prompt is three words (subject, motion, object), got {len(given)}: {prompt!r}"
            )
        for word, (kind, known) in zip(given, kinds.items(), strict=True):
            if word not in (*known, ANY):
                return f"unknown {kind} {word!r}: one of {', '.join(known)}, {ANY}"
        return None

    def context(self, prompt: str) -> Tensor:
        """'subject motion object' -> (1, 3, 4096). An empty prompt is 'any any any'."""
        if problem := self.problem(prompt):
            raise ValueError(problem)
        given = prompt.split() or [ANY] * 3
        return self.vectors[[self.words.index(word) for word in given]][None]

    def decode(self, latent: Tensor) -> Tensor:
        """Model-space latent (B, 16, F, h, w) -> pixels (B, F, 4h, 4w, 3), about -1 to 1.

        Not clipped: the caller decides how to treat what leaves the range.
        """
        if latent.ndim != 5 or latent.shape[1] != self.weight.shape[1]:
            shape = tuple(latent.shape)
            raise ValueError(f"latent must be (batch, 16, frames, height, width), got {shape}")
        x = latent.float().transpose(1, 2).flatten(0, 1)
        weight, bias = self.weight.to(x.device), self.bias.to(x.device)
        pixels = F.pixel_shuffle(F.conv2d(x, weight[..., None, None], bias), BLOCK)
        return 2.0 * pixels.unflatten(0, (latent.shape[0], -1)).permute(0, 1, 3, 4, 2) - 1.0
