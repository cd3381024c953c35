"""Profiles made anew from what a run has seen: other kernels and densities, the same orders."""

from __future__ import annotations

import torch

from .. import _core
from ..learn.observer import Observer
from .profile_build import keep_spread_heads_dense

# Rows that a profile which was found counts as, against those of this run.
PRIOR_ROWS = 256
# Samples of the other half of the steps count so much.
OTHER_HALF = 0.25


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
    layers = list(profile.layers)
    for place, layer in enumerate(layers):
        if layer.id in densities:
            heads = [_copy(head) for head in layer.heads]
            for head, density in densities[layer.id].items():
                heads[head].density = density
            layers[place] = _core.ProfileLayer(layer.id, heads)
    return with_layers(profile, layers)


def unlock(profile: _core.Profile, dense_below: float, density: float) -> None:
    """Frees heads whose orders were given, not chosen by a user, and keeps spread ones dense."""
    layers = []
    for layer in profile.layers:
        heads = [_copy(head) for head in layer.heads]
        for head in heads:
            head.locked = False
        layers.append((layer.id, heads))
    every = [head for _, heads in layers for head in heads]
    keep_spread_heads_dense(every, dense_below, density)
    profile.layers = [_core.ProfileLayer(name, heads) for name, heads in layers]


def renewed(
    profile: _core.Profile, observer: Observer, group: int, weights: dict[int, float], prior: float
) -> _core.Profile:
    """The profile with this timestep group's kernels from the observer's samples.

    Of devices' samples those count that were sent (Observer.send).

    weights: of a row, by the observer's groups. prior: rows that the profile's own kernels count
    as, 0 where they come from the same samples. Layers that were not watched stay as they are.
    """
    samples = {}
    for layer in profile.layer_ids():
        watched = observer.layers.get(layer)
        if watched is not None:
            seen = watched.arrived()
            samples[layer] = [(seen[one], weights[one]) for one in weights if one in seen]
    return _core.renew_profile(profile, group, samples, prior, torch.get_num_threads())
