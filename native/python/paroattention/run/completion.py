"""Layers that are not in the profile: they are watched, then planned and added to it.

A profile holds the layers that its run could watch. A mask, another node or a cache may have kept
some of them from it; a later run then meets layers that the profile does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from .. import _core
from ..plan.profile_copy import with_layers
from .report import DENSE, OBSERVE, first_line
from .watched_steps import WatchedSteps

WATCHED = "layers that are not in the profile are watched in this run and added to it"
OBSERVING = "observing: this layer is not in the profile"
# Stands in the profile's note before the layers that a run has added.
COMPLETED = ", completed by "
# So many added layers are named to the user.
_NAMED = 4


def without(profile: _core.Profile, layers: Collection[str]) -> _core.Profile:
    """The profile without these layers; itself where it holds none of them."""
    kept = [layer for layer in profile.layers if layer.id not in layers]
    if len(kept) == len(profile.layers):
        return profile
    part = with_layers(profile, kept)
    model = part.model
    model.layers = len(kept)
    part.model = model
    return part


def filled(profile: _core.Profile, other: _core.Profile) -> _core.Profile:
    """The profile, with the layers that it lacks from `other`. Its own stay as they are, and so do
    its calibration and defaults; kernels may come into bins that both fit.

    Raises Error if both are of different models or patches, or of far grids.
    """
    if not profile.layers:
        return other
    if set(other.layer_ids()) <= set(profile.layer_ids()):
        return profile
    return _core.complete_profile(profile, other)


def named(layers: Collection[str]) -> str:
    """'2 layers (double.0.0, double.1.0)', long lists cut short."""
    shown, rest = sorted(layers)[:_NAMED], len(layers) - _NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return f"{len(layers)} layer{'s'[: len(layers) > 1]} ({', '.join(shown)}{more})"


class Missing:
    """The layers of a session's model that are not in the profile in use.

    Each is watched in the first `steps` steps in which it is called, whatever the others do.
    build(timestep groups, only=layers) -> Profile of what was watched of these layers. note(text):
    tells the user, counted by layer. why: why none of them is watched in this run, or "".
    """

    def __init__(
        self, steps: int, build: Callable, watch, note: Callable[[str], None], why: str = ""
    ):
        self._why = why
        self._build, self._watch, self._note = build, watch, note
        # Of layers that are not planned yet.
        self._watched = WatchedSteps(steps)
        self._failed: dict[str, str] = {}
        # The layers that this run has added.
        self.added: list[str] = []

    def decide(self, layer: str, step: int) -> tuple[str, str]:
        """(path, reason) of a call of a layer that is not in the profile."""
        if layer in self._failed:
            return DENSE, self._failed[layer]
        if self._why:
            return DENSE, self._why
        if not self._watched.enough:
            return (
                DENSE,
                f"layer {layer} is not in the profile, and observe_steps 0 watches no step",
            )
        if layer not in self._watched:
            self._note(WATCHED)
        self._watched.add(layer, step)
        return OBSERVE, OBSERVING

    def due(self, step: int) -> list[str]:
        """Layers that were watched enough when this step begins."""
        return self._watched.due(step)

    def pending(self) -> list[str]:
        """Layers that were watched and are not planned yet."""
        return self._watched.names()

    def add(self, layers: list[str], profile: _core.Profile, grid) -> _core.Profile:
        """Makes plans of these layers from what was watched of them. Returns `profile` with them.

        The planner's own profile may have changed since `profile` was found. Never raises: a layer
        that cannot be added stays dense, with its reason.
        """
        for layer in layers:
            self._watched.forget(layer)
        try:
            fresh = self._fresh(profile, layers)
            completed = filled(profile, fresh)
            self._watch.add(fresh, grid)
        except Exception as error:
            reason = f"a layer that is not in the profile was not added: {first_line(error)}"
            self._failed |= dict.fromkeys(layers, reason)
            return profile
        found = set(fresh.layer_ids())
        lost = [layer for layer in layers if layer not in found]
        self._failed |= dict.fromkeys(
            lost, "a layer that is not in the profile was not added: it had no finite values"
        )
        self.added += [layer for layer in layers if layer in found - set(self.added)]
        return completed

    def learned(self, profile: _core.Profile) -> _core.Profile:
        """The profile with the added layers made anew of all that was watched and sampled."""
        return filled(without(profile, self.added), self._fresh(profile, self.added))

    def _fresh(self, profile: _core.Profile, layers: list[str]) -> _core.Profile:
        """A profile of these layers that belongs to the given one, which may have been chosen by
        name for a model with other patches."""
        fresh = self._build(profile.timestep_groups, only=layers)
        model = fresh.model
        model.patches = profile.model.patches
        fresh.model = model
        return fresh
