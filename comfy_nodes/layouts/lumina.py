"""Lumina 2 and Z-Image: refiners apart, then joint attention, caption | image, each padded.

The noise refiner attends over the image alone: a call without text, which stays as it is.
"""

from __future__ import annotations

import math

from . import Geometry, Inputs, patches, register


def _padded(count: int, multiple: int | None) -> int:
    return -(-count // multiple) * multiple if multiple else count


@register("lumina2", "zimage_pixel")
def geometry(inputs: Inputs) -> Geometry:
    model, patch = inputs.model, (inputs.model.patch_size,) * 2
    multiple = getattr(model, "pad_tokens_multiple", None)
    grid = patches(inputs.x, patch)
    image = _padded(math.prod(grid), multiple)
    suffix = image - math.prod(grid)
    references = inputs.get("ref_latents", ())
    # Reference images stand before the image, with captions and vision tokens of their own.
    images = image + sum(_padded(math.prod(patches(r, patch)), multiple) for r in references)
    if len(references):
        return Geometry(grid, None, suffix, least=images - image + 1, others=(images,), joint=True)
    caption = _padded(inputs.text_length, multiple) if inputs.text_length else multiple or 0
    return Geometry(grid, caption, suffix, others=(image,), joint=True)
