"""MiniMax-H3: one packed sequence, text | conditions and references | audio | video.

The video is always last. The token refiner attends over the text alone. Some versions of ComfyUI do
not number the blocks.
"""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("minimax_h3")
def geometry(inputs: Inputs) -> Geometry:
    x = inputs.arguments["x"]
    text = inputs.text_length
    audio = int(x[1].shape[-1]) * 2 if isinstance(x, (list, tuple)) and len(x) > 1 else 0
    grid = patches(inputs.x, inputs.model.patch_size)
    return Geometry(grid, None, 0, least=text + audio, others=(text,), counted=True, joint=True)
