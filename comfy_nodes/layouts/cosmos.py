"""Cosmos 1, Predict2 and Anima: self-attention over video tokens, cross-attention to text."""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("cosmos", "cosmos_predict2", "anima")
def geometry(inputs: Inputs) -> Geometry:
    model = inputs.model
    patch = (model.patch_temporal, model.patch_spatial, model.patch_spatial)
    # Cosmos 1 does not number its blocks, Predict2 does in newer versions of ComfyUI.
    return Geometry(patches(inputs.x, patch), texts=(inputs.text_length,), counted=True)
