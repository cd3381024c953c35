"""Makes a case that is wrong as simple as it stays wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

from stress_cases import Case, smaller


def smallest(case: Case, wrong: Callable[[Case], object], seconds: float = 20.0) -> Case:
    """The simplest case found, one change after another, for which `wrong` is still true.

    The case itself where it is not wrong again, as faults of timing may be.
    """
    until = time.monotonic() + seconds
    if not wrong(case):
        return case
    found = True
    while found and time.monotonic() < until:
        found = False
        for less in smaller(case):
            if time.monotonic() >= until:
                break
            if wrong(less):
                case, found = less, True
                break
    return case
