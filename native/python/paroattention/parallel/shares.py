"""Which heads each rank computes, layer by layer, in one run."""

from __future__ import annotations

from .. import _core
from ..layout import TokenLayout
from ..plan.planning import Planner
from ..settings import Settings
from .dealing import Dealing, deal, even
from .loads import fixed_load, layer_loads
from .parts import with_parts
from .ranks import Ranks
from .slices import Slices


def require_shareable(settings: Settings) -> None:
    """Raises Error for settings that need all heads in one process."""
    if settings.exact:
        raise _core.Error(
            "exact must be false on several ranks, since exact maps are not gathered (got True):"
            " calibrate on one GPU"
        )


class Shares:
    """Of one session. ranks: None for one process, which computes everything.

    A layer's heads are dealt out evenly while every block is computed, and by their loads once it
    is sparse. Its dealing then stays: what a rank has learned of a head stays where it is.
    """

    def __init__(self, ranks: Ranks | None, settings: Settings, planner: Planner):
        self.count = 1 if ranks is None else ranks.size
        self._settings, self._planner = settings, planner
        self.slices = Slices()
        self._dealt: dict[tuple, Dealing] = {}
        # The profile whose densities are dealt by: the one that the sparse steps began with.
        self._profile: _core.Profile | None = None
        self._density = 0.0

    def dealing(
        self,
        layer: str,
        layout: TokenLayout,
        heads: int,
        sparse: bool,
        *,
        whole: bool = False,
        parts: int | None = None,
        **how: bool,
    ) -> Dealing:
        """Of the layer's next call. sparse: the planner decides what it is. parts: heads may be
        cut where that gains as much as attention of a head's queries to so many keys; None: they
        stay whole. how: as of `deal`."""
        planner = self._planner
        if sparse and self._profile is None:
            self._profile, self._density = planner.profile, planner.density(planner.profile)
        place = planner.index(layer) if sparse else None
        if place is None or self._profile.model.heads != heads:
            return even(heads, self.count)
        # What looks at the output of a head must have all of it.
        parts = None if whole or self._settings.dynamic else parts
        name = layer, layout.prefix, layout.grid, layout.suffix, parts, *sorted(how.items())
        if name not in self._dealt:
            self._dealt[name] = self._deal(self._profile.layers[place], layout, parts, how)
        return self._dealt[name]

    def _deal(
        self, layer: _core.ProfileLayer, layout: TokenLayout, parts: int | None, how
    ) -> Dealing:
        settings = self._settings
        loads = layer_loads(layer, self._density, layout, settings)
        dealt = deal(loads, self.count, **how)
        if parts is None:
            return dealt
        fixed = fixed_load(layout, settings.block_q, settings.block_kv)
        orders = [head.order for head in layer.heads]
        rows = -(-layout.grid_size // settings.block_q)
        gain = parts * rows / settings.block_kv
        return with_parts(dealt, loads, fixed, orders, rows, settings.block_q, gain)
