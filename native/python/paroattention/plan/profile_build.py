"""From what an observer saw to a Profile, and merging it into one that a name already holds."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection

import numpy as np
import torch

from .. import _core
from ..learn.observer import Observer
from ..settings import DENSE_BELOW, ModelInfo, Settings
from .head_densities import HEAD_SHARE, kept_mass


def keep_spread_heads_dense(heads: list[_core.ProfileHead], floor: float) -> None:
    """Gives density 1 to heads that no order gathers: mass at density .3 below `floor`.

    A head that looks everywhere at once loses what it is for under any static mask; on the bundled
    model the two of its first layer, which tell every token where in the picture it lies, cost
    more fidelity than all others together. At most HEAD_SHARE of the heads, the most spread first.
    A run lets as many of them be dense as its density affords (head_densities.py). Heads that are
    locked or have a density of their own keep it.
    """
    masses = [kept_mass(head) for head in heads]
    most = int(HEAD_SHARE * len(heads))
    for index in sorted(range(len(heads)), key=masses.__getitem__)[:most]:
        head = heads[index]
        if masses[index] < floor and head.density is None and not head.locked:
            head.density = 1.0


def build_profile(
    observer: Observer,
    model: ModelInfo,
    settings: Settings,
    groups: list[tuple[float, float]],
    *,
    steps: int,
    sampler: str = "",
    order_of: Callable[[list[np.ndarray]], str] | None = None,
    only: Collection[str] | None = None,
) -> _core.Profile:
    """A profile of every watched layer, orders by retained mass at the run's density.

    only: ids of the layers to take, of those watched; None: all.
    order_of(kernels of a head, one per group): another choice of the order. Heads spread over
    everything (settings.dense_below) get density 1.
    A timestep group that saw nothing borrows the kernels of the nearest one that did; a layer
    whose rows never were finite is left out. Raises Error when nothing was watched.
    """
    known = {
        layer: watched
        for layer, watched in observer.in_order().items()
        if only is None or layer in only
    }
    seen = {layer: watched.seen_groups() for layer, watched in known.items()}
    watched_layers = {layer: known[layer] for layer, own in seen.items() if own}
    if not watched_layers:
        raise _core.Error("observer must have watched at least one layer (got none)")
    profile = _core.Profile()
    first = next(iter(watched_layers.values()))
    profile.bins = first.bins
    profile.timestep_groups = groups
    profile.model = _model(model, first, len(watched_layers))
    profile.calibration = _calibration(observer, first, steps, sampler)
    defaults = _core.ProfileDefaults()
    defaults.density, defaults.precision = settings.start_density, settings.precision
    defaults.tail = settings.tail
    profile.defaults = defaults
    # All heads at once: their orders are chosen in parallel.
    kernels, orders = [], []
    for layer, watched in watched_layers.items():
        nearest = [min(seen[layer], key=lambda g: abs(g - group)) for group in range(len(groups))]
        by_group = [observer.kernels(layer, group) for group in nearest]
        for head in range(watched.heads):
            kernels.append([group[head] for group in by_group])
            orders.append(order_of(kernels[-1]) if order_of else None)
    grid, density = first.layout.grid, settings.start_density
    threads = torch.get_num_threads()
    built = iter(_core.build_heads(first.bins, kernels, grid, density, orders, threads))
    layers = [
        (layer, [next(built) for _ in range(watched.heads)])
        for layer, watched in watched_layers.items()
    ]
    every = [head for _, heads in layers for head in heads]
    keep_spread_heads_dense(every, settings.dense_below)
    profile.layers = [_core.ProfileLayer(layer, heads) for layer, heads in layers]
    profile.validate()
    return profile


def _model(info: ModelInfo, first, layers: int) -> _core.ProfileModel:
    model = _core.ProfileModel()
    model.family, model.fingerprint, model.patches = info.family, info.fingerprint, info.patches
    model.layers, model.heads = layers, first.heads
    model.head_dim = first.head_dim
    return model


def _calibration(observer: Observer, first, steps: int, sampler: str):
    calibration = _core.ProfileCalibration()
    calibration.grids = [first.layout.grid]
    calibration.steps, calibration.sampler = steps, sampler
    calibration.prompts, calibration.queries = 1, observer.queries
    calibration.date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    calibration.version = _core.__version__
    return calibration


def merge_profiles(
    old: _core.Profile, new: _core.Profile, *, density: float, dense_below: float = DENSE_BELOW
) -> _core.Profile:
    """Both by the merge rule (paro/profile_merge.h), with spread heads kept dense as in a new one.

    Raises Error if they are of different models or patches, or of far grids.
    """
    merged = _core.merge_profiles(old, new, density, threads=torch.get_num_threads())
    layers = [(layer.id, layer.heads) for layer in merged.layers]
    keep_spread_heads_dense([head for _, heads in layers for head in heads], dense_below)
    merged.layers = [_core.ProfileLayer(layer, heads) for layer, heads in layers]
    return merged
