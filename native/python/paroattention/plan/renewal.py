"""Profiles made anew from what a run has seen: other kernels, the same orders."""

from __future__ import annotations

import torch

from .. import _core
from ..learn.observer import Observer
from .profile_build import keep_spread_heads_dense
from .profile_copy import copy_head

# Rows that a profile which was found counts as, against those of this run.
PRIOR_ROWS = 256
# Samples of the other half of the steps count so much.
OTHER_HALF = 0.25


def unlock(profile: _core.Profile, dense_below: float) -> None:
    """Frees heads whose orders were given, not chosen by a user, and keeps spread ones dense."""
    layers = []
    for layer in profile.layers:
        heads = [copy_head(head) for head in layer.heads]
        for head in heads:
            head.locked = False
        layers.append((layer.id, heads))
    keep_spread_heads_dense([head for _, heads in layers for head in heads], dense_below)
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
