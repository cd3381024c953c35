"""Where a run's profile comes from: found, made of the run's first steps, completed; and saved."""

from __future__ import annotations

from collections.abc import Callable

from .. import _core
from ..layout import TokenLayout
from ..learn.observer import Snapshot
from ..plan.head_densities import least_total
from ..plan.planning import Planner
from ..plan.renewal import OTHER_HALF, renewed
from ..settings import Settings
from . import faults
from .across_ranks import AcrossRanks
from .beside import Ahead
from .completion import COMPLETED, Missing, named
from .observation import Observation
from .report import BETWEEN, DENSE, OBSERVE, Report, first_line
from .saving import Saver
from .watched_steps import WatchedSteps

# The name under which steps are counted that are watched for want of a profile.
_ALL_LAYERS = ""
RANKS_WATCH_NONE = "on several ranks layers that are not in the profile stay dense"
# Rows that a profile which was found counts as, against those of the steps that a run watches. On
# the bundled model 0 to 1024 differ by 0.2 dB.
KNOWN_ROWS = 64


class Learning:
    """Of one session, which holds its lock around each of these methods.

    find(grid) -> (Profile or None, its name or why there is none). find_maps(profile, grid) ->
    ExactMaps or None. save(profile, tensors) or None. across: what the
    ranks of the run tell each other.
    """

    def __init__(
        self,
        settings: Settings,
        planner: Planner,
        watch,
        observation: Observation,
        report: Report,
        find: Callable | None,
        find_maps: Callable | None,
        save: Callable | None,
        across: AcrossRanks,
    ):
        self._across = across
        self._settings, self._planner, self._watch = settings, planner, watch
        self._report = report
        self.observation = observation
        self.profile: _core.Profile | None = None
        self._find, self._find_maps = find, find_maps
        # Why no profile was found, if there is more to say than that there is none.
        self._why = ""
        self.saver = Saver(save, report.reasons.note)
        # Ranks would have to tell each other of single layers in the middle of a run.
        why = RANKS_WATCH_NONE if across.several else ""
        self.missing = Missing(
            settings.observe_steps, observation.profile, watch, report.reasons.note, why
        )
        self._watched = WatchedSteps(settings.observe_steps)
        # Of the run's first call.
        self._layout: TokenLayout | None = None
        # A profile that was found, until this run's first steps have been watched too.
        self._known: _core.Profile | None = None
        # Why nothing can be made of what was observed, if so: the rest of the run is dense.
        self._no_plan = ""
        # The plan that is made beside the last watched step.
        self._ahead: Ahead | None = None

    # -- a profile that is there already -------------------------------------------------------

    def look_up(self, layout: TokenLayout) -> bool:
        """Finds the run's profile by the grid of its first call. Returns whether this call found
        one."""
        if self._layout is not None:
            return False
        self._layout, report = layout, self._report
        report.grid = layout.grid
        if self._find is None or self._settings.calibrate:
            return False
        self.profile, note = self._across.found(lambda: self._find(layout.grid))
        if self.profile is None:
            self._why = note
            return False
        report.profile_note = note
        if self.watches_known:
            self._known = self.profile
            return False
        self._go_by(self.profile)
        return True

    @property
    def watches_known(self) -> bool:
        """Whether a run with a profile watches its first steps too. Masks that every call finds
        take no more than an order from either."""
        settings = self._settings
        return settings.watch == "always" and settings.observe_steps > 0 and not settings.dynamic

    @property
    def watched_steps(self) -> int:
        """How many steps this run watches, if they all come to pass."""
        found = self.profile is not None and not self.watches_known
        return 0 if found else self._settings.observe_steps

    def _go_by(self, profile: _core.Profile) -> None:
        """Plans come from a profile that was found, or from that with what this run has seen."""
        self.profile = profile
        self._watch.begin_with(profile, self._report.grid, own=False)
        self._tell_density()
        self._use_exact(self._report.grid)

    def _use_exact(self, grid) -> None:
        """Plans from the exact maps that lie beside a found profile, if there are any."""
        if self._find_maps is None or self._settings.dynamic:
            return
        try:
            self._planner.exact = self._find_maps(self.profile, grid)
        except Exception as error:
            self._report.reasons.note(
                f"the exact maps beside the profile are not used: {first_line(error)}"
            )
        if self._planner.exact is not None:
            self._report.profile_note += ", exact maps"

    # -- what a call is ------------------------------------------------------------------------

    def decide(self, step: int) -> tuple[str, str] | None:
        """(path, reason) of a call while there is no profile to go by, or while one is calibrated;
        None where the planner decides."""
        settings = self._settings
        if settings.calibrate:
            if step % settings.every_n_steps:
                return DENSE, BETWEEN
            self._watched.add(_ALL_LAYERS, step)
            return OBSERVE, "calibrating"
        if self._planner.ready:
            return None
        if self._no_plan:
            return DENSE, self._no_plan
        if settings.observe_steps == 0:
            return DENSE, "no saved profile fits, and observe_steps 0 watches no step"
        self._watched.add(_ALL_LAYERS, step)
        return OBSERVE, "observing"

    @property
    def state(self) -> str:
        """What the run does while it has no profile."""
        if self._settings.calibrate:
            return "calibrating"
        if self._layout is None:
            return "starting"
        return "observing" if self._settings.observe_steps and not self._no_plan else "dense"

    # -- between two evaluations ---------------------------------------------------------------

    def enter(self, step: int, sigma: float) -> None:
        """A model call begins. Plans are made between two of them: no layer is then half
        observed."""
        if self._observed_enough(step):
            with self._report.timed("plan"):
                self._try_to_adopt(sigma)
        self.complete(self.missing.due(step))

    def _observed_enough(self, step: int) -> bool:
        if self._planner.ready or self._settings.calibrate or self._no_plan:
            return False
        # Whether this rank could watch anything must not decide for it alone.
        watched = self._across.several or bool(self.observation.observer.layers)
        return watched and bool(self._watched.due(step))

    def is_last_watched(self, step: int) -> bool:
        """Whether this is the last step to be watched, if nothing keeps calls from it."""
        if self._planner.ready or self._settings.calibrate:
            return False
        return self._watched.is_last(_ALL_LAYERS, step)

    def start_ahead(self) -> None:
        """Builds the plan beside the last dense step, where a GPU computes that: from the samples
        before it. What this step adds comes with the first renewal."""
        if self._ahead or self._planner.ready or self._known:
            return
        self._across.observed(self.observation.observer, sent=True)
        snapshot, layout = Snapshot(self.observation.observer), self._layout
        if not any(watched.seen_groups() for watched in snapshot.layers.values()):
            return

        def work():
            profile = self.observation.profile(self.observation.groups, snapshot)
            planned = self._planner.affordable(profile)
            return profile, self._planner.builder(planned, 0, layout), layout

        self._ahead = Ahead(work, lambda result: result[1].cancel())

    def _try_to_adopt(self, sigma: float) -> None:
        """A plan that cannot be made must not end the user's run."""
        self._across.observed(self.observation.observer)
        try:
            self._adopt(sigma)
        except Exception as error:
            faults.free(error)
            self._no_plan = f"no masks could be made from the watched steps: {first_line(error)}"
        self._no_plan = self._across.adopted(self._no_plan, self._planner.seen)
        if self._no_plan and self._across.several:
            self._planner.give_up()

    def _adopt(self, sigma: float) -> None:
        """The run goes by what it has observed."""
        if self._known is not None:
            self._adopt_known(sigma)
            return
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self.profile, builder, layout = ahead.result()
        else:
            self.profile = self.observation.profile(self.observation.groups)
        self._watch.begin_with(self.profile, self._report.grid, own=True)
        if ahead is not None:
            self._planner.adopt(builder, 0, layout)
        self._planner.hold(sigma)
        self._report.profile_note = self._observed_note()
        self._store(self.profile)

    def _adopt_known(self, sigma: float) -> None:
        """The run goes by the profile that was found and by what its first steps showed."""
        known, self._known = self._known, None
        observer, here = self.observation.observer, known.timestep_group(sigma)
        try:
            observer.send()
            profile = known
            for group in range(len(known.timestep_groups)):
                # This run's samples are of its first steps: those of other groups may differ.
                weight = 1.0 if group == here else OTHER_HALF
                profile = renewed(profile, observer, group, {0: weight}, KNOWN_ROWS)
            count = self._watched.count(_ALL_LAYERS)
            self._report.profile_note += f", and {count} step{'s'[: count != 1]} of this run"
        except Exception as error:
            faults.free(error)
            profile = known
            why = f"what this run has watched is not used: {first_line(error)}"
            self._report.reasons.note(why)
        self._go_by(profile)
        self._planner.hold(sigma)
        left = [layer for layer in observer.layers if layer not in profile.layer_ids()]
        self.complete([] if self._across.several else left)

    def _tell_density(self) -> None:
        """Says so where heads with densities of their own need more than was asked for."""
        asked, least = self._settings.start_density, least_total(self._planner.profile)
        if not self._settings.automatic and least > asked * 1.01:
            self._report.reasons.note(
                f"density {least:.2f} runs, and {asked:.2f} was asked for: heads with a density of"
                " their own need so much"
            )

    def _observed_note(self) -> str:
        count = self._watched.count(_ALL_LAYERS)
        why = f"; {self._why}" if self._why else ""
        return f"observed in this run ({count} step{'s'[: count != 1]}){why}"

    def complete(self, layers: list[str]) -> None:
        """Adds layers that the profile lacks to it, from what was watched of them."""
        if not layers:
            return
        known, report = len(self.missing.added), self._report
        with report.timed("plan"):
            self.profile = self.missing.add(layers, self.profile, report.grid)
        if len(self.missing.added) > known:
            note = report.profile_note.split(COMPLETED)[0]
            report.profile_note = note + COMPLETED + named(self.missing.added)
            if self._saves_completed:
                self._store(self.profile)
            else:
                report.profile_note += ", in this run only"

    @property
    def _saves_completed(self) -> bool:
        # A profile of other patches, chosen by name, stays what it is.
        return self.saver.wanted and self.profile.model.patches == self.observation.model.patches

    def _store(self, profile: _core.Profile) -> None:
        if self.saver.wanted:
            background = self._planner.background
            self.saver.store(profile, lambda: self.observation.tensors(profile), background)

    # -- the end -------------------------------------------------------------------------------

    def finish(self, ok: bool, sigma: float) -> None:
        """Saves what was learned. ok False saves nothing that is half done."""
        if self._ahead is not None and not ok:
            self._ahead.cancel()
        if ok and (self.profile is None or self._watch.proposals.own):
            self._across.to_save(self.observation.observer)
        if ok and self.saver.wanted and self.observation.observer.layers:
            try:
                self._save_learned(sigma)
            except Exception as error:
                self._report.reasons.note(
                    f"the profile of this run could not be made: {first_line(error)}"
                )
        self.saver.settle()

    def _save_learned(self, sigma: float) -> None:
        """Saves a calibration, a run that ended while it watched, or what was learned since."""
        if self.profile is None and not self._no_plan:
            self._adopt(sigma)
        self.complete(self.missing.pending())
        if not self._watch.learned:
            return
        if self._watch.proposals.own:
            self._store(self.observation.profile(self.observation.halves))
        elif self.missing.added and self._saves_completed:
            self._store(self.missing.learned(self.profile))
