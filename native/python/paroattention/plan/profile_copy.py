"""Profiles that are like another one but for a part; that one stays as it is."""

from __future__ import annotations

from .. import _core


def with_layers(profile: _core.Profile, layers: list) -> _core.Profile:
    """A profile like this one with other layers; this one stays as it is."""
    copy = _core.Profile()
    for name in ("model", "calibration", "defaults", "bins", "timestep_groups"):
        setattr(copy, name, getattr(profile, name))
    copy.layers = layers
    return copy


def copy_head(head: _core.ProfileHead) -> _core.ProfileHead:
    """A head of its own: those of a profile are parts of it, and change with it."""
    copy = _core.ProfileHead()
    for name in ("order", "density", "locked", "groups"):
        setattr(copy, name, getattr(head, name))
    return copy


def with_densities(profile: _core.Profile, densities: dict[str, dict[int, float | None]]):
    """The profile with these densities, by layer id and head; itself where there are none."""
    if not densities:
        return profile
    layers = list(profile.layers)
    for place, layer in enumerate(layers):
        if layer.id in densities:
            heads = [copy_head(head) for head in layer.heads]
            for head, density in densities[layer.id].items():
                heads[head].density = density
            layers[place] = _core.ProfileLayer(layer.id, heads)
    return with_layers(profile, layers)
