"""LTX-Video and LTX-2: self-attention over video tokens; it names neither blocks nor grid.

Guides are appended as further latent frames, some of their tokens filtered out; the frames of the
video itself form the grid, the surviving guide tokens a suffix. LTX-2's audio stream has heads of
another size and passes through.
"""

from __future__ import annotations

from . import Geometry, Inputs, patches, register


@register("ltxv", "ltxav")
def geometry(inputs: Inputs) -> Geometry | str:
    grid = patches(inputs.x, (1, 1, 1))
    suffix: int | None = 0
    guides = inputs.get("keyframe_idxs")
    if guides is not None and guides.shape[2]:
        frame = grid[1] * grid[2]
        if guides.shape[2] % frame:
            return f"{guides.shape[2]} guide tokens are not whole frames of {frame} tokens"
        frames = grid[0] - guides.shape[2] // frame
        mask = inputs.get("denoise_mask")
        if frames < 1 or mask is None:
            return "the guides have no frames of their own"
        if bool((mask[:, :, :frames] < 0).any()):
            # What is left of the video is no full grid.
            return "tokens of the video are left out: the rest is not a whole grid"
        grid, suffix = (frames, *grid[1:]), None
    model = inputs.model
    dims = model.attention_head_dim if hasattr(model, "audio_attention_head_dim") else None
    return Geometry(grid, 0, suffix, texts=(inputs.text_length,), head_dim=dims, counted=True)
