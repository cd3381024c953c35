"""Fidelity between two videos: PSNR (PAPER.md's definition), SSIM and flicker.

Frames are float arrays or tensors [frames, height, width, channels] in [0, 1].
"""

from __future__ import annotations

import math

import numpy as np


def _pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.clip(np.asarray(x, dtype=np.float64), 0, 1) for x in (a, b))
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"images must have one shape [frames, height, width, channels]"
            f" (got {a.shape}, {b.shape})"
        )
    return a, b


def psnr(a, b) -> float:
    """dB over all frames and channels; pixels clipped first. Infinite for equal input."""
    a, b = _pair(a, b)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a, b) -> float:
    """Mean over frames of scikit-image's structural similarity; ImportError without it."""
    from skimage.metrics import structural_similarity

    a, b = _pair(a, b)
    # The window must fit the picture, and be odd.
    window = min(7, *a.shape[1:3])
    window -= 1 - window % 2
    frames = zip(a, b, strict=True)
    scores = [
        structural_similarity(x, y, channel_axis=-1, data_range=1.0, win_size=window)
        for x, y in frames
    ]
    return float(np.mean(scores))


def roughness(a) -> float:
    """mean |x[t+1] - 2 x[t] + x[t-1]| over a video; 0 for fewer than three frames."""
    a = np.clip(np.asarray(a, dtype=np.float64), 0, 1)
    return float(np.mean(np.abs(a[2:] - 2 * a[1:-1] + a[:-2]))) if len(a) > 2 else 0.0


def flicker(dense, other) -> float:
    """Roughness of other divided by that of dense; 1 where dense has none and neither has other."""
    base, value = roughness(dense), roughness(other)
    if base == 0:
        return 1.0 if value == 0 else math.inf
    return value / base
