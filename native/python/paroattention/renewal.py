"""Profiles made anew from what a run has seen: other kernels and densities, the same orders."""

from __future__ import annotations

import numpy as np

from . import _core
from .observer import Observer
from .profile_build import keep_spread_heads_dense

# Rows that a profile which was found counts as, against those of this run.
PRIOR_ROWS = 256
# Samples of the other half of the steps count so much.
OTHER_HALF = 0.25


def _axis_weights(source: list[int], target: list[int]) -> np.ndarray:
    """[target, source] shares of one axis; rows beyond the source's own reach are 0.

    Edges that start at 0 hold |offset|, others signed offsets: from signed to even is the mean of
    both sides, and back every side gets the value of |offset|.
    """
    edges, wanted = np.array(source), np.array(target)
    even, to_even = source[0] == 0, target[0] == 0
    weights = np.zeros((len(wanted), len(edges)), dtype=np.float32)
    for row, offset in enumerate(wanted):
        if abs(offset) > np.abs(edges).max():
            continue
        sides = [abs(offset)] if even else [offset, -offset] if to_even else [offset]
        for side in sides:
            weights[row, np.abs(edges - side).argmin()] += 1 / len(sides)
    return weights


def comparable(a, b) -> bool:
    """Whether kernels of these bins can be blended: gains of keys belong to a grid's own cells."""
    return a == b or not any((*a.keys, *b.keys))


def rebin(values: np.ndarray, source, target) -> np.ndarray:
    """A kernel's values at other bins' edges; offsets beyond its own reach stay unobserved (0)."""
    if source == target:
        return values
    cube = values.reshape(len(source.F), len(source.H), len(source.W))
    weights = [_axis_weights(getattr(source, axis), getattr(target, axis)) for axis in "FHW"]
    out = np.einsum("fhw,af,bh,cw->abc", cube, *weights, optimize=True)
    return np.ascontiguousarray(out.reshape(-1), dtype=np.float32)


def blend(old: np.ndarray, new: np.ndarray, weight: float) -> np.ndarray:
    """Weighted mean of two kernels; where one never observed an offset the other one counts."""
    both = old * weight + new * (1 - weight)
    return np.where(old <= 0, new, np.where(new <= 0, old, both)).astype(np.float32)


def with_layers(profile: _core.Profile, layers: list) -> _core.Profile:
    """A profile like this one with other layers; this one stays as it is."""
    copy = _core.Profile()
    for name in ("model", "calibration", "defaults", "bins", "timestep_groups"):
        setattr(copy, name, getattr(profile, name))
    copy.layers = layers
    return copy


def _copy(head: _core.ProfileHead) -> _core.ProfileHead:
    """A head of its own: those of a profile are parts of it, and change with it."""
    copy = _core.ProfileHead()
    for name in ("order", "density", "locked", "groups"):
        setattr(copy, name, getattr(head, name))
    return copy


def with_densities(profile: _core.Profile, densities: dict[str, dict[int, float]]):
    """The profile with these densities, by layer id and head."""
    layers = []
    for layer in profile.layers:
        heads = [_copy(head) for head in layer.heads]
        for head, density in densities.get(layer.id, {}).items():
            heads[head].density = density
        layers.append(_core.ProfileLayer(layer.id, heads))
    return with_layers(profile, layers)


def unlock(profile: _core.Profile, dense_below: float) -> None:
    """Frees heads whose orders were given, not chosen by a user, and keeps spread ones dense."""
    layers = []
    for layer in profile.layers:
        heads = [_copy(head) for head in layer.heads]
        for head in heads:
            head.locked = False
        layers.append((layer.id, heads))
    keep_spread_heads_dense([head for _, heads in layers for head in heads], dense_below)
    profile.layers = [_core.ProfileLayer(name, heads) for name, heads in layers]


def observed_kernels(watched, weights: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """(mean kernels [heads, bins] of the observer's groups, weighted rows [heads] behind them)."""
    kernels, rows = None, np.zeros(watched.heads)
    for group, weight in weights.items():
        heads = watched.groups.get(group)
        if heads is None or not any(head.rows for head in heads):
            continue
        more = weight * np.array([head.rows for head in heads], dtype=np.float64)
        own = np.stack([head.kernel() for head in heads])
        own[more == 0] = 0.0
        share = np.divide(rows, rows + more, out=np.zeros_like(rows), where=rows + more > 0)
        kernels = own if kernels is None else blend(kernels, own, share[:, None])
        rows = rows + more
    return kernels, rows


def renewed(
    profile: _core.Profile, observer: Observer, group: int, weights: dict[int, float], prior: float
) -> _core.Profile:
    """The profile with this timestep group's kernels from the observer's samples.

    weights: by the observer's groups. prior: rows that the profile's own kernels count as, 0 where
    they come from the same samples. Layers that were not watched, or in other bins with gains of
    keys, stay as they are.
    """
    layers = []
    for layer in profile.layers:
        heads, watched = list(map(_copy, layer.heads)), observer.layers.get(layer.id)
        known = watched is not None and comparable(watched.bins, profile.bins)
        kernels, rows = observed_kernels(watched, weights) if known else (None, None)
        if kernels is not None:
            kernels = np.stack([rebin(one, watched.bins, profile.bins) for one in kernels])
            fresh = _core.renew_groups(profile.bins, heads, group, kernels, rows, prior)
            for head, one in zip(heads, fresh, strict=True):
                head.groups = [*head.groups[:group], one, *head.groups[group + 1 :]]
        layers.append(_core.ProfileLayer(layer.id, heads))
    return with_layers(profile, layers)
