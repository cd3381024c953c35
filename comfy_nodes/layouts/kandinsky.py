"""Kandinsky 5 and 6: text blocks apart, then self-attention over video and cross-attention to text.

Kandinsky 6 has an audio stream beside the video, with heads of the same size. A reference image
comes as the last frame: of the latent, or in other versions appended by the model.
"""

from __future__ import annotations

from . import Geometry, Inputs, length, patches, register


@register("kandinsky5")
def geometry(inputs: Inputs) -> Geometry:
    text = inputs.text_length
    return Geometry(patches(inputs.x, inputs.model.patch_size), texts=(text,))


@register("kandinsky6")
def kandinsky6(inputs: Inputs) -> Geometry | str:
    # Kandinsky6NativeAVDiT: x is (video, audio [B, T, C]). With k6_reference_tail its last frame is
    # the reference; k6_reference is one beside it. The audio may have a text of its own.
    patch, reference = inputs.model.patch_size, inputs.get("k6_reference")
    grid = patches(inputs.x, patch)
    frames = patches(reference, patch)[0] if reference is not None else 0
    if inputs.get("k6_reference_tail", False):
        grid, frames = (grid[0] - 1, *grid[1:]), frames + 1
        if grid[0] < 1:
            return "the video has no frame beside its reference"
    suffix = frames * grid[1] * grid[2]
    audio = length(inputs.arguments["x"][1])
    texts = inputs.text_length, length(inputs.get("k6_audio_context"))
    found = Geometry(grid, 0, suffix, texts=texts, others=(audio,))
    if audio == found.known:
        return f"audio and video have equally many tokens ({audio}): they cannot be told apart"
    return found
