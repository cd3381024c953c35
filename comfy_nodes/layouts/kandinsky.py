"""Kandinsky 5: text blocks apart, then self-attention over video and cross-attention to text."""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("kandinsky5")
def geometry(inputs: Inputs) -> Geometry:
    text = inputs.text_length
    return Geometry(patches(inputs.x, inputs.model.patch_size), texts=(text,))
