"""CogVideoX: joint attention, text | video; it names neither blocks nor grid."""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("cogvideox")
def geometry(inputs: Inputs) -> Geometry:
    model = inputs.model
    patch = (model.patch_size_t or 1, model.patch_size, model.patch_size)
    return Geometry(patches(inputs.x, patch), inputs.text_length, counted=True, joint=True)
