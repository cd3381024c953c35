"""Qwen-Image with its edit and layered models, and kin: joint attention over text and images.

text | image | references in Qwen-Image and Mage-Flow, image | references | text in JoyImage.
"""

from __future__ import annotations

import math

from . import Geometry, Inputs, patches, register


@register("qwen_image")
def geometry(inputs: Inputs) -> Geometry:
    patch = (1, inputs.model.patch_size, inputs.model.patch_size)
    references = sum(math.prod(patches(r, patch)) for r in inputs.get("ref_latents", ()))
    return Geometry(patches(inputs.x, patch), inputs.text_length, references, joint=True)


@register("mage_flow")
def mage_flow(inputs: Inputs) -> Geometry:
    references = sum(math.prod(patches(r, (1, 1))) for r in inputs.get("ref_latents", ()))
    return Geometry(patches(inputs.x, (1, 1)), inputs.text_length, references, joint=True)


@register("joyimage")
def joyimage(inputs: Inputs) -> Geometry:
    patch = inputs.model.patch_size
    references = sum(math.prod(patches(r, patch)) for r in inputs.get("ref_latents") or ())
    return Geometry(patches(inputs.x, patch), 0, references + inputs.text_length, joint=True)
