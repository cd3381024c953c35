"""HunyuanVideo 1 and 1.5, HunyuanImage: joint attention, text | reference | video.

The text is what the refiner makes of the prompt, with ByT5 and vision tokens where the model has
them. Older versions of ComfyUI put the video first: `_image_first` looks at the model's own code.
"""

from __future__ import annotations

import functools
import inspect
import math

from . import Geometry, Inputs, length, patches, register


@functools.lru_cache(maxsize=8)
def _image_first(kind: type) -> bool:
    """Whether this version of the model joins video and text in that order.

    transformer_options says it (img_slice) only from the single blocks on, after all double ones.
    """
    try:
        source = inspect.getsource(kind.forward_orig)
    except (OSError, TypeError):
        return False
    return "torch.cat((img, txt), 1)" in source


@register("hunyuan_video")
def geometry(inputs: Inputs) -> Geometry | str:
    model = inputs.model
    patch = model.patch_size
    text = inputs.text_length
    if getattr(model, "byt5_in", None) is not None:
        text += length(inputs.get("txt_byt5"))
    if getattr(model, "vision_in", None) is not None:
        text += length(inputs.get("clip_fea"))
    reference = inputs.get("ref_latent")
    before = 0 if reference is None else math.prod(patches(reference, patch))
    grid = patches(inputs.x, patch)
    if _image_first(type(model)):
        return Geometry(grid, before, text, image_at=0, joint=True)
    return Geometry(grid, text + before, 0, image_at=text, joint=True)
