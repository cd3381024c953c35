"""Wan 2.1 and 2.2 and their kin: self-attention over video tokens, cross-attention to the text.

References stand before the video (Fun control, SCAIL) or after it (context latents, S2V, HuMo,
Phantom); they are not part of the grid and are always computed. VACE blocks run after the main ones
with the same block index: layers of their own, by occurrence.

Wan-Animate 2 has its reference image as the first frame. With a pose every frame attends to a frame
of the pose too, in a call of its own. Its node may leave the pose out of some steps.
"""

from __future__ import annotations

import math

from . import Geometry, Inputs, length, patches, register


def _floor(x, patch) -> int:
    """Tokens of a latent that is not padded: a strided convolution drops what is left over."""
    sides = list(x.shape[2:])
    return math.prod(side // step for side, step in zip(sides, patch[-len(sides) :], strict=True))


@register("wan2.1")
def geometry(inputs: Inputs) -> Geometry | str:
    model, patch, kind = inputs.model, inputs.model.patch_size, type(inputs.model).__name__
    grid = patches(inputs.x, patch)
    frame = grid[1] * grid[2]
    prefix, suffix = 0, 0
    if kind == "WanAnimate2Model":
        if inputs.get("pose_latents") is not None:
            return "every frame attends to a frame of the pose too, in a call of its own"
        if grid[0] < 2:
            return "the video has no frame beside its reference"
        grid, prefix = (grid[0] - 1, *grid[1:]), frame
    after = inputs.get("time_dim_concat")
    if after is not None:
        suffix += patches(after, patch)[0] * frame
    reference = inputs.get("reference_latent")
    if reference is not None:
        if kind.startswith("SCAIL"):
            prefix = patches(reference, patch)[0] * frame
        elif getattr(model, "ref_conv", None) is not None:
            prefix = _floor(reference, patch)
        elif kind in ("WanModel_S2V", "HumoWanModel"):
            suffix += _floor(reference, patch)
    if kind.startswith("SCAIL") and inputs.get("pose_latents") is not None:
        suffix += math.prod(patches(inputs.get("pose_latents"), patch))
    for latent in inputs.get("context_latents", ()):
        suffix += math.prod(patches(latent, patch))
    texts = {inputs.text_length, length(inputs.get("clip_fea"))}
    # The packer of motion frames decides by itself how many tokens it makes.
    packed = kind == "WanModel_S2V" and inputs.get("reference_motion") is not None
    if packed:
        return Geometry(grid, prefix, None, least=suffix, texts=tuple(texts))
    return Geometry(grid, prefix, suffix, texts=tuple(texts))
