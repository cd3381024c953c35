"""HiDream-I1 and E1: joint attention, image | T5 text | Llama text twice; it names no blocks.

The image to edit stands beside the one in work: one grid of twice the width.
"""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("hidream")
def geometry(inputs: Inputs) -> Geometry:
    llama = inputs.get("encoder_hidden_states_llama3")
    text = inputs.text_length + (0 if llama is None else 2 * int(llama.shape[2]))
    beside = inputs.get("image_cond")
    frames, height, width = patches(inputs.x, (inputs.model.patch_size,) * 2)
    if beside is not None:
        both = int(inputs.x.shape[-1]) + int(beside.shape[-1])
        width = -(-both // inputs.model.patch_size)
    return Geometry((frames, height, width), 0, text, counted=True, joint=True)
