"""Pictures for the report as PNG data: frames and amplified differences."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image


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
