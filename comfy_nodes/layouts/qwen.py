"""Qwen-Image and its edit and layered models: joint attention, text | image | reference images."""

from __future__ import annotations

import math

from . import Geometry, Inputs, patches, register


@register("qwen_image")
def geometry(inputs: Inputs) -> Geometry:
    patch = (1, inputs.model.patch_size, inputs.model.patch_size)
    references = sum(math.prod(patches(r, patch)) for r in inputs.get("ref_latents", ()))
    return Geometry(patches(inputs.x, patch), inputs.text_length, references)
