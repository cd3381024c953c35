"""What the ranks of one run tell each other, so that all of them decide the same.

Each rank computes and samples some heads. What is decided over all heads, densities above all, is
decided by every rank from the same numbers: those that all ranks have measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from .. import _core
from ..heads import Heads
from ..layout import TokenLayout
from ..learn.budget import Curves
from ..learn.observer import Observer
from ..learn.sampling import Tally
from ..learn.seen_blocks import SeenBlocks
from ..parallel.observed import merge_observed, merge_seen, told_observed, told_seen
from ..parallel.ranks import Ranks
from ..parallel.shares import Shares, require_shareable
from ..plan.dynamic import curves_for
from ..plan.planning import Key
from ..settings import ModelInfo, Settings
from .readings import Measured

# Of a profile: enough digits that two different ones never have the same.
_DIGITS = 16


def _key_text(key: Key) -> list:
    layout = key.layout
    sides = [*layout.grid, layout.prefix, layout.suffix]
    return [key.layer, key.group, sides, key.heads, key.head_dim]


def _key(text: list) -> Key:
    layer, group, (f, h, w, prefix, suffix), heads, head_dim = text
    return Key(layer, group, TokenLayout((f, h, w), prefix, suffix), heads, head_dim)


class AcrossRanks:
    """Of one session. ranks: None for one process, which has nobody to tell. faults, dense_calls:
    the session's; what one rank finds wrong holds for all.

    Its methods are collective, but for those of heads: every rank calls them, in the same order.
    They raise RanksError where the run cannot go on, see Ranks.
    """

    def __init__(self, ranks: Ranks | None, settings: Settings, planner, faults, dense_calls):
        if ranks is not None:
            require_shareable(settings)
        self.ranks, self._settings = ranks, settings
        self._faults, self._dense_calls = faults, dense_calls
        self.shares = Shares(ranks, settings, planner)
        # Whether rank 0 saves what the run learns.
        self._saves = False

    @property
    def several(self) -> bool:
        return self.ranks is not None

    @property
    def first(self) -> bool:
        """Whether this process saves, logs and shows progress."""
        return self.ranks is None or self.ranks.rank == 0

    def agree(
        self,
        sigmas: list[float],
        model: ModelInfo,
        sampler: str,
        seed: int,
        finds: bool,
        saves: bool,
    ) -> None:
        """At the run's beginning: all ranks were given the same. finds: whether a profile is looked
        for; saves: whether this rank saves one."""
        if self.ranks is None:
            return
        what: dict[str, object] = {f"settings.{k}": v for k, v in asdict(self._settings).items()}
        what |= {f"model.{name}": value for name, value in asdict(model).items()}
        what |= {"sigmas": sigmas, "sampler": sampler, "seed": seed, "find_profile given": finds}
        what |= {"the paroattention version": _core.__version__, "ranks": self.ranks.size}
        self.ranks.agree(what)
        every = self.ranks.exchange({"saves": saves})
        self._saves = bool(every[0][0]["saves"])

    def found(self, find: Callable[[], tuple]) -> tuple:
        """find() -> (profile or None, note), on every rank: all must find the same profile."""
        if self.ranks is None:
            return find()
        try:
            profile, note = find()
        except Exception as error:
            self.ranks.fail(f"the profile could not be read: {type(error).__name__}: {error}")
            self.ranks.check()
            raise
        digest = "none"
        if profile is not None:
            digest = hashlib.sha256(profile.dump().encode()).hexdigest()[:_DIGITS]
        self.ranks.agree({"profile": f"{note or 'none'} ({digest})"})
        return profile, note

    # -- what was observed ---------------------------------------------------------------------

    def observed(self, observer: Observer, *, sent: bool = False) -> None:
        """Every rank's observer knows what all of them have seen. sent: of devices what was sent
        until now, while they go on."""
        if self.ranks is None:
            return
        if not sent:
            observer.send()
        told, arrays = told_observed(observer, again=sent)
        for rank, (text, values) in enumerate(self.ranks.exchange(told, arrays)):
            if rank != self.ranks.rank:
                merge_observed(observer, text, values)

    def to_save(self, observer: Observer) -> None:
        """At the end: rank 0 is to save what all ranks have seen, if it saves at all."""
        if self._saves:
            self.observed(observer)

    def adopted(self, why: str, seen: dict[str, SeenBlocks]) -> str:
        """After plans were made, or not (why). Returns why one of the ranks has none, or "". Every
        rank's `seen` has what all of them have summed."""
        if self.ranks is None:
            return why
        told, arrays = told_seen(seen)
        every = self.ranks.exchange({"why": why, "seen": told}, arrays)
        for rank, (text, values) in enumerate(every):
            if rank != self.ranks.rank and not why:
                merge_seen(seen, text["seen"], values)
        return next((text["why"] for text, _ in every if text["why"]), "")

    def told_calls(self, calls) -> None:
        """At the end: the report's calls are those of all heads."""
        if self.ranks is None:
            return
        every = [told for told, _ in self.ranks.exchange(calls.told())]
        calls.merge(every[: self.ranks.rank] + every[self.ranks.rank + 1 :])

    # -- what a step measured ------------------------------------------------------------------

    def measured(self, own: Measured, stopped: str) -> tuple[Measured, str]:
        """(what all ranks measured, of all heads; why one of them samples no more, or "")."""
        told, arrays = self._measured(own)
        told |= {"stopped": stopped, "wrong": self._dense_calls.wrong}
        told["given_up"] = self._faults.given_up
        every = self.ranks.exchange(told, arrays)
        whole = Measured()
        for text, values in every:
            self._faults.give_up(text["given_up"])
            self._dense_calls.wrong = self._dense_calls.wrong or text["wrong"]
            self._merge(whole, text, values)
        return whole, next((text["stopped"] for text, _ in every if text["stopped"]), "")

    def _measured(self, own: Measured) -> tuple[dict, dict[str, np.ndarray]]:
        told: dict[str, list] = {"tallies": [], "gains": [], "curves": []}
        arrays: dict[str, np.ndarray] = {}
        for number, (key, tally) in enumerate(own.tallies.items()):
            numbers = list(self._heads(own, key, tally.heads).numbers)
            told["tallies"].append([_key_text(key), numbers, tally.queries])
            arrays[f"tally/{number}"] = tally.read()
        for number, (key, gains) in enumerate(own.gains.items()):
            numbers = list(self._heads(own, key, len(gains)).numbers)
            told["gains"].append([_key_text(key), numbers])
            arrays[f"gain/{number}"] = gains
        for number, (layer, curves) in enumerate(own.curves.items()):
            heads = self._heads(own, layer, curves.heads)
            scale = [curves.sm_scale, heads.total]
            told["curves"].append([layer, list(heads.numbers), *scale])
            arrays[f"lost/{number}"], arrays[f"whole/{number}"] = curves.lost, curves.whole
        return told, arrays

    @staticmethod
    def _heads(own: Measured, name, count: int) -> Heads:
        return own.heads.get(name) or Heads.all_of(count)

    def _merge(self, whole: Measured, told: dict, arrays: dict) -> None:
        """Puts one rank's heads in their places. Of heads that nobody measured all is 0."""
        for number, (text, numbers, queries) in enumerate(told["tallies"]):
            key = _key(text)
            tally = whole.tallies.setdefault(key, Tally(key.heads))
            tally.put(numbers, arrays[f"tally/{number}"], queries)
        for number, (text, numbers) in enumerate(told["gains"]):
            key = _key(text)
            gains = whole.gains.setdefault(key, np.zeros((key.heads, 3)))
            gains[numbers] = arrays[f"gain/{number}"]
        for number, (layer, numbers, scale, total) in enumerate(told["curves"]):
            if layer not in whole.curves:
                whole.curves[layer] = curves_for(self._settings, total, scale)
            curves: Curves = whole.curves[layer]
            curves.lost[numbers] = arrays[f"lost/{number}"]
            curves.whole[numbers] = arrays[f"whole/{number}"]
