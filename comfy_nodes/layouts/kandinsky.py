"""Kandinsky 5 and 6: text blocks apart, then self-attention over video and cross-attention to text.

Kandinsky 6 has an audio stream beside the video, with heads of the same size. A reference image is
the last frame of its latent.
"""

from __future__ import annotations

from . import Geometry, Inputs, length, patches, register


@register("kandinsky5")
def geometry(inputs: Inputs) -> Geometry:
    text = inputs.text_length
    return Geometry(patches(inputs.x, inputs.model.patch_size), texts=(text,))


@register("kandinsky6")
def kandinsky6(inputs: Inputs) -> Geometry | str:
    # Kandinsky6NativeAVDiT: x is (video, audio [B, T, C]); k6_reference_tail says that the last
    # frame is the reference. Newer versions of it give the audio a text of its own.
    grid, suffix = patches(inputs.x, inputs.model.patch_size), 0
    if inputs.get("k6_reference_tail", False):
        grid, suffix = (grid[0] - 1, *grid[1:]), grid[1] * grid[2]
        if grid[0] < 1:
            return "the video has no frame beside its reference"
    audio = length(inputs.arguments["x"][1])
    texts = inputs.text_length, length(inputs.get("k6_audio_context"))
    found = Geometry(grid, 0, suffix, texts=texts, others=(audio,))
    if audio == found.known:
        return f"audio and video have equally many tokens ({audio}): they cannot be told apart"
    return found
