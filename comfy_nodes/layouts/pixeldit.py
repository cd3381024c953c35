"""PixelDiT and PiD: joint attention, text | image, in patches of pixels; they name no blocks.

The blocks over single pixels come after those over patches. Their heads have another size.
"""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("pixeldit_t2i", "pid")
def geometry(inputs: Inputs) -> Geometry:
    model = inputs.model
    # A longer text is cut off.
    text = min(inputs.text_length, model.txt_max_length)
    head_dim = model.hidden_size // model.num_groups
    grid = patches(inputs.x, (model.patch_size,) * 2)
    return Geometry(grid, text, head_dim=head_dim, counted=True, joint=True)
