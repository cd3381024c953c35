"""Lumina 2, Z-Image, Ming-Image: refiners apart, then joint attention, caption | image, padded.

Ming-Image may have several frames (a composite and its layers), and references behind them, padded
together. Its caption has embeddings that skip the embedder, `direct_context`. The noise refiner
attends over the image alone: a call without text, which stays as it is.
"""

from __future__ import annotations

import math

from . import Geometry, Inputs, length, patches, register


def _padded(count: int, multiple: int | None) -> int:
    return -(-count // multiple) * multiple if multiple else count


@register("lumina2", "zimage_pixel", "ming_image")
def geometry(inputs: Inputs) -> Geometry:
    model, patch = inputs.model, (inputs.model.patch_size,) * 2
    multiple = getattr(model, "pad_tokens_multiple", None)
    grid = patches(inputs.x, patch)
    frames = sum(math.prod(patches(r, patch)) for r in inputs.get("ref_frames", ()))
    image = _padded(math.prod(grid) + frames, multiple)
    suffix = image - math.prod(grid)
    references = inputs.get("ref_latents", ())
    # Reference images stand before the image, with captions and vision tokens of their own.
    images = image + sum(_padded(math.prod(patches(r, patch)), multiple) for r in references)
    if len(references):
        return Geometry(grid, None, suffix, least=images - image + 1, others=(images,), joint=True)
    text = inputs.text_length and inputs.text_length + length(inputs.get("direct_context"))
    caption = _padded(text, multiple) if text else multiple or 0
    return Geometry(grid, caption, suffix, others=(image,), joint=True)
