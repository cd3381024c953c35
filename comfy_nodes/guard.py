"""Errors of ours during a run: they end our part in it, never the user's run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .native import paro

log = logging.getLogger("paroattention")


class Guard:
    """Of one run. note(reason, dense=True): tells the user.

    given_up: whether an error has left the rest of the run to the host. What we know of the run may
    be half done then, so nothing of ours is called any more until its end.
    """

    def __init__(self, note: Callable):
        self._note = note
        self.given_up = False

    def safely(self, work: Callable, *args):
        """What work(*args) returns; None where it fails, or anything has failed before."""
        try:
            return None if self.given_up else work(*args)
        except Exception as error:
            self.give_up(error)
            return None

    def give_up(self, error: Exception) -> None:
        """Leaves the rest of the run to the host. Told once, and not in each of its calls."""
        if not self.given_up:
            self.given_up = True
            log.error("PARO: an error of ours; the rest of this run is dense", exc_info=error)
            why = paro.session.first_line(error)
            self._note(f"the rest of this run is dense: {why}", dense=True)
