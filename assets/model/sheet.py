"""Contact sheets: a row a prompt, frames of a sample on the left, of a training clip right."""

from __future__ import annotations

import numpy as np
import torch
from data import FRAMES, HEIGHT, MOTION_LIST, OBJECTS, SUBJECT_LIST, WIDTH, Codec, Renderer
from torch import Tensor

SHOWN = (0, 3, 6, 9)
GAP, LABEL = 4, 14


def prompt_index(prompt: str) -> Tensor:
    subject, motion, obj = prompt.split()
    index = SUBJECT_LIST.index(subject), MOTION_LIST.index(motion), OBJECTS.index(obj)
    return torch.tensor(index)


def contact_sheet(path, samples: Tensor, prompts: list[str], renderer: Renderer, codec: Codec):
    """samples (B, 16, F, H / 4, W / 4). The training clips pass through the codec as well."""
    from PIL import Image, ImageDraw

    index = torch.stack([prompt_index(p) for p in prompts]).to(renderer.device)
    generator = torch.Generator(renderer.device).manual_seed(7)
    real = codec.decode(codec.encode(renderer.render(index, generator)))
    made = codec.decode(samples.float())
    assert made.shape[1] == FRAMES
    columns = 2 * len(SHOWN)
    width = columns * (WIDTH + GAP) + 4 * GAP
    sheet = Image.new("RGB", (width, len(prompts) * (HEIGHT + GAP + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        top = row * (HEIGHT + GAP + LABEL)
        draw.text((2, top + 1), f"{prompt}: sample", fill="black")
        right = len(SHOWN) * (WIDTH + GAP) + 4 * GAP
        draw.text((right, top + 1), f"{prompt}: training clip", fill="black")
        for column in range(columns):
            source = made if column < len(SHOWN) else real
            frame = source[row, SHOWN[column % len(SHOWN)]].clamp(0, 1).permute(1, 2, 0)
            pixels = np.round(frame.cpu().numpy() * 255).astype(np.uint8)
            left = column * (WIDTH + GAP) + (4 * GAP if column >= len(SHOWN) else 0)
            sheet.paste(Image.fromarray(pixels), (left, top + LABEL))
    sheet.save(path, optimize=True)
