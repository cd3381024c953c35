"""Pictures for the report as PNG data: frames, amplified differences, block maps with masks."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

# Anchors of a dark-to-light scale that also reads in grey.
HEAT = np.array(
    [
        [9, 7, 27],
        [44, 17, 92],
        [104, 31, 114],
        [165, 48, 100],
        [219, 80, 70],
        [247, 137, 38],
        [250, 201, 74],
        [252, 253, 203],
    ],
    np.float64,
)
SKIPPED = np.array([70, 76, 90], np.float64)
EDGE = np.array([94, 234, 212], np.uint8)
OCTAVES = 12  # of a block map that the colours span


def png(pixels: np.ndarray) -> str:
    """An RGB uint8 array as a data URI."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def to_bytes(video: np.ndarray) -> np.ndarray:
    """[-1, 1] to 0..255."""
    return np.round((np.clip(video, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def film(video: np.ndarray) -> np.ndarray:
    """All frames below one another: (frames, height, width, 3) to one picture."""
    frames = to_bytes(video)
    return frames.reshape(-1, *frames.shape[2:])


def difference(video: np.ndarray, reference: np.ndarray, factor: float) -> np.ndarray:
    """|video - reference| times the factor, black where equal."""
    gap = np.abs(np.clip(video, -1, 1) - np.clip(reference, -1, 1)) / 2.0
    return np.round(np.clip(gap * factor, 0.0, 1.0) * 255.0).astype(np.uint8)


def amplification(gaps: list[np.ndarray]) -> int:
    """One power of two for all runs: the middle run's strongest pixels come out near white."""
    peaks = sorted(float(np.quantile(np.abs(gap), 0.995)) / 2.0 for gap in gaps)
    if not peaks or peaks[len(peaks) // 2] <= 0.0:
        return 1
    return 2 ** int(np.clip(math.floor(math.log2(1.0 / peaks[len(peaks) // 2])), 0, 8))


def heat(share: np.ndarray) -> np.ndarray:
    """Values in 0..1 to colours."""
    place = np.clip(share, 0.0, 1.0) * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    part = (place - low)[..., None]
    return HEAT[low] * (1.0 - part) + HEAT[low + 1] * part


def block_map(values: np.ndarray, mask: np.ndarray, scale: int = 5) -> np.ndarray:
    """A head's block map on a logarithmic scale; blocks that the mask skips are greyed, and a line
    runs around those that it keeps. Rows are query tiles, columns key blocks."""
    values = np.asarray(values, np.float64)
    peak = values.max() if values.size else 0.0
    share = np.zeros_like(values)
    if peak > 0.0:
        share = 1.0 + np.log2(np.maximum(values / peak, 2.0**-OCTAVES)) / OCTAVES
    colours = heat(share)
    kept = np.asarray(mask, bool)
    colours = np.where(kept[..., None], colours, 0.35 * colours + 0.65 * SKIPPED)
    picture = np.repeat(np.repeat(colours, scale, 0), scale, 1).round().astype(np.uint8)
    large = np.repeat(np.repeat(kept, scale, 0), scale, 1)
    ring = np.pad(large, 1)
    inner = ring[:-2, 1:-1] & ring[2:, 1:-1] & ring[1:-1, :-2] & ring[1:-1, 2:]
    picture[large & ~inner] = EDGE
    return picture


def heat_bar(width: int = 160, height: int = 10) -> np.ndarray:
    row = heat(np.linspace(0.0, 1.0, width)).round().astype(np.uint8)
    return np.repeat(row[None], height, 0)
