"""Flux, Flux2, Chroma and kin: joint attention, text | image | reference images."""

from __future__ import annotations

import math

from . import Geometry, Inputs, patches, register


@register("flux", "flux2", "chroma", "chroma_radiance")
def geometry(inputs: Inputs) -> Geometry:
    patch = (inputs.model.patch_size,) * 2
    references = sum(math.prod(patches(r, patch)) for r in inputs.get("ref_latents", ()))
    return Geometry(patches(inputs.x, patch), inputs.text_length, references, joint=True)


@register("krea2")
def krea(inputs: Inputs) -> Geometry | str:
    """text | image | references in single blocks; the text fusion works on other lengths."""
    x, patch = inputs.x, (inputs.model.patch,) * 2
    if x.ndim == 5 and x.shape[2] > 1:
        return "the model puts the frames of a video into the batch"
    method = inputs.get("ref_latents_method", getattr(inputs.model, "default_ref_method", None))
    latents = inputs.get("ref_latents", ()) if method is not None else ()
    references = sum(math.prod(patches(r, patch)[1:]) for r in latents)
    return Geometry((1, *patches(x, patch)[1:]), inputs.text_length, references, joint=True)
