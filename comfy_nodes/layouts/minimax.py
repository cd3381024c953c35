"""MiniMax-H3: one packed sequence, text | conditions and references | audio | video.

The video is always last. The token refiner attends over the text alone. Some versions of ComfyUI do
not number the blocks.
"""

from __future__ import annotations

from dataclasses import replace

from . import Geometry, Inputs, patches, register


@register("minimax_h3")
def geometry(inputs: Inputs) -> Geometry | str:
    x = inputs.arguments["x"]
    text = inputs.text_length
    audio = int(x[1].shape[-1]) * 2 if isinstance(x, (list, tuple)) and len(x) > 1 else 0
    grid = patches(inputs.x, inputs.model.patch_size)
    found = Geometry(grid, None, 0, least=text + audio, others=(text,), counted=True, joint=True)
    packed = _packed(inputs, text, grid, audio // 2)
    if packed is None:
        # Conditions and references are whatever a call has beyond text, audio and video.
        return found
    start, end, tokens = packed
    if end - start != found.grid_size or start < found.least:
        return (
            f"the model packs {end - start} video tokens behind {start} others, but the grid {grid}"
            f" has {found.grid_size}, and text and audio have {found.least}"
        )
    return replace(found, prefix=start, suffix=tokens - end, least=0)


def _packed(inputs: Inputs, text: int, grid, audio: int) -> tuple[int, int, int] | None:
    """(begin, end, all tokens) of the video as the model itself packs it, where that can be read.

    Newer versions of ComfyUI put their PackedLayout into transformer_options before the first call.
    All of them make one beside the conditioning, which the model makes anew if its signature (text,
    frames, rows, columns, audio) is not that of the latent.
    """
    own = inputs.options.get("minimax_h3_layout")
    layout = own or inputs.get("minimax_payload", {}).get("layout")
    sides = (side * step for side, step in zip(grid, inputs.model.patch_size, strict=True))
    if layout is None or tuple(layout.signature) != (text, *sides, audio):
        return None
    video = [(start, end) for start, end, kind in layout.segments if kind == "video"]
    return (*video[0], int(layout.seq_len)) if len(video) == 1 else None
