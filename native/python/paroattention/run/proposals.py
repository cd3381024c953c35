"""When new masks are made from a run's samples, and which heads take them.

A new mask is made from older samples and judged by newer ones, head by head, against the present
one. The first proposal waits for PROPOSE_AFTER sampled steps, each further one twice as long as the
last: what a sample adds to those before it grows less and less.
"""

from __future__ import annotations

from ..learn.observer import Observer
from ..plan.planning import Planner
from ..plan.proposal import Proposal
from ..plan.renewal import OTHER_HALF, PRIOR_ROWS, renewed
from ..settings import Settings

# Sampled steps before the first proposal of new masks, and the most between two.
PROPOSE_AFTER = 2
MOST_BETWEEN = 8


class Proposals:
    """Of one run: one proposal at a time is made, then judged, then over."""

    def __init__(self, settings: Settings, observer: Observer, planner: Planner):
        self._settings, self._observer, self._planner = settings, observer, planner
        # (step, heads that took their new mask, heads judged)
        self.renewals: list[tuple[int, int, int]] = []
        # Whether the profile is made of this run's own samples.
        self.own = False
        # The one that the present step's samples judge, and the next one.
        self.proposal: Proposal | None = None
        self._coming: Proposal | None = None
        # What `make` is to make: (step, timestep group, weights, whether the second half begins).
        self._ordered: tuple | None = None
        self._sampled_since, self._patience = 0, PROPOSE_AFTER
        self._half: int | None = None
        self._border = False

    def enter(self, half: int) -> bool:
        """A sparse step in this half of the run begins. Returns whether it is the first of the
        other half: its masks are due anew at once."""
        crossed = self._half not in (None, half)
        self._border, self._half = self._border or crossed, half
        return crossed

    def begin_step(self, step: int, sigma: float, judging: bool) -> None:
        """Takes the proposal that has been made, or orders one if its time has come. judging: one
        is still being judged by the last step's samples."""
        if self.proposal is None:
            self.proposal, self._coming = self._coming, None
        due = self._sampled_since >= (1 if self._border else self._patience)
        if self.proposal is not None or judging or not due or self._settings.dynamic:
            return
        border, self._border, self._sampled_since = self._border, False, 0
        self._patience = PROPOSE_AFTER if border else min(2 * self._patience, MOST_BETWEEN)
        group = self._planner.profile.timestep_group(sigma)
        half = self._half
        self._ordered = step, group, {half: 1.0, 1 - half: OTHER_HALF}, border
        self._observer.send()
        if not self._planner.background:
            self.make()
            self.proposal, self._coming = self._coming, None

    def sampled(self) -> None:
        """A step is sampled."""
        self._sampled_since += 1

    @property
    def ordered(self) -> bool:
        """Whether `make` has something to make."""
        return self._ordered is not None

    def make(self) -> None:
        """Makes the ordered proposal of all that was seen so far."""
        ordered, self._ordered = self._ordered, None
        if ordered is not None:
            self._coming = self._propose(*ordered)

    def _propose(self, step: int, group: int, weights: dict[int, float], border: bool) -> Proposal:
        if border:
            for seen in self._planner.seen.values():
                seen.fade(OTHER_HALF)
        prior = 0 if self.own else PRIOR_ROWS
        fresh = renewed(self._planner.profile, self._observer, group, weights, prior)
        proposal = Proposal(fresh, step, self._planner)
        proposal.begin()
        return proposal

    def take_judged(self) -> Proposal | None:
        """The proposal that the step now over has sampled, if it has."""
        if self.proposal is None or not self.proposal.asked:
            return None
        judged, self.proposal = self.proposal, None
        return judged

    def adopt(self, proposal: Proposal, denser) -> None:
        """Every head takes its new mask if newer samples say that it keeps more."""
        taken = judged = 0
        for key, plan, better in proposal.verdicts():
            judged += len(better)
            if not better.any():
                continue
            taken += int(better.sum())
            choice = zip(plan.heads, self._planner.get(key).heads, better, strict=True)
            heads = [new if use else old for new, old, use in choice]
            self._planner.replace(key, self._planner.mixed(key, heads))
            denser.forget(key)
        proposal.end()
        self._planner.use(proposal.profile)
        self.renewals.append((proposal.step, taken, judged))

    def give_up(self) -> None:
        """Drops what is not judged yet."""
        for proposal in (self.proposal, self._coming):
            if proposal is not None:
                proposal.end()
        self.proposal = self._coming = self._ordered = None
