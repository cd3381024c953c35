"""Mochi: joint attention, video | text; it names neither blocks nor grid."""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("mochi_preview")
def geometry(inputs: Inputs) -> Geometry:
    patch = (inputs.model.patch_size,) * 2
    # ComfyUI crops the text to its longest prompt, not longer than the text itself.
    text = min(int(inputs.get("num_tokens", 256)), inputs.text_length or 256)
    return Geometry(patches(inputs.x, patch), 0, text, counted=True, joint=True)
