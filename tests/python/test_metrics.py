"""PSNR, SSIM and flicker against values by hand."""

import math

import numpy as np
import pytest
import torch
from paroattention import metrics

SHAPE = (4, 8, 9, 3)


def flat(value, shape=SHAPE):
    return np.full(shape, value)


@pytest.mark.parametrize(("difference", "db"), [(0.1, 20), (0.01, 40), (0.5, 6.0206), (1, 0)])
def test_psnr_by_hand(difference, db):
    assert metrics.psnr(flat(0.0), flat(difference)) == pytest.approx(db, abs=1e-3)


def test_psnr_is_of_the_mean_error_over_all_frames():
    """One frame of four is off by 0.2: the mean square is 0.01, not a mean of decibels."""
    other = flat(0.5)
    other[2] += 0.2
    assert metrics.psnr(flat(0.5), other) == pytest.approx(20)


def test_psnr_of_equal_videos_is_infinite():
    assert metrics.psnr(flat(0.3), flat(0.3)) == math.inf


def test_pixels_are_clipped_first():
    assert metrics.psnr(flat(1.0), flat(7.0)) == math.inf
    assert metrics.psnr(flat(0.9), flat(7.0)) == pytest.approx(20)


def test_tensors_and_float32_are_taken():
    a, b = torch.zeros(SHAPE), torch.full(SHAPE, 0.1)
    assert metrics.psnr(a, b) == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_other_shapes_are_refused(metric):
    pytest.importorskip("skimage")
    with pytest.raises(ValueError, match=r"images must have one shape .*got \(4, 8, 9, 3\)"):
        metric(flat(0), flat(0, (4, 8, 8, 3)))
    with pytest.raises(ValueError, match="images must have one shape"):
        metric(flat(0)[0], flat(0)[0])


def test_ssim():
    pytest.importorskip("skimage")
    video = np.random.default_rng(0).random(SHAPE)
    assert metrics.ssim(video, video) == pytest.approx(1)
    noisy = metrics.ssim(video, np.clip(video + 0.2 * (video[::-1] - 0.5), 0, 1))
    assert 0 < noisy < 1
    assert metrics.ssim(video, 1 - video) < 0 < noisy


def test_ssim_of_constant_frames_by_hand():
    """Without variance only the luminance term stays: (2ab + c1) / (a2 + b2 + c1)."""
    pytest.importorskip("skimage")
    a, b, c1 = 0.4, 0.6, 0.01**2
    want = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metrics.ssim(flat(a), flat(b)) == pytest.approx(want)


@pytest.mark.parametrize("side", [3, 4, 5, 6])
def test_ssim_of_pictures_smaller_than_its_window(side):
    pytest.importorskip("skimage")
    video = np.random.default_rng(0).random((2, side, 9, 3))
    assert metrics.ssim(video, video) == pytest.approx(1)


def ramp(values):
    return np.array(values, dtype=float)[:, None, None, None] * np.ones((1, 4, 4, 3))


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0, 0.1, 0.2, 0.3], 0),  # Even motion does not flicker.
        ([0, 0.5, 0, 0.5], 1.0),
        ([0, 0.2, 0.2, 0.6], (0.2 + 0.4) / 2),
        ([0.1, 0.9], 0),
        ([0.4], 0),
    ],
)
def test_roughness_by_hand(values, want):
    assert metrics.roughness(ramp(values)) == pytest.approx(want)


def test_flicker_is_a_ratio_to_dense():
    dense, other = ramp([0, 0.2, 0.2, 0.6]), ramp([0, 0.4, 0.4, 1.0])
    assert metrics.flicker(dense, other) == pytest.approx(0.5 / 0.3)
    assert metrics.flicker(dense, dense) == 1


def test_flicker_against_a_still_video():
    still, moving = ramp([0.5] * 4), ramp([0, 0.5, 0, 0.5])
    assert metrics.flicker(still, still) == 1
    assert metrics.flicker(still, moving) == math.inf
    assert metrics.flicker(moving, still) == 0
