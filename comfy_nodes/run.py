"""One sampling run of a wrapped model: what it looks up, decides, saves and tells."""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

import folder_paths

from . import first_test, policy, routes, store, user_settings
from .guard import Guard
from .host_attention import foreign_attention, name_of
from .identity import fingerprint
from .identity.changes import Changes
from .inputs import AUTO, NONE, PROFILE_WORDS
from .layer_functions import LayerFunctions
from .native import paro
from .override import OVERRIDE, Override
from .panel import Panel
from .seen import Seen

log = logging.getLogger("paroattention")
# Saves that are tried while others save the same profile.
_SAVES = 5


@dataclass(frozen=True)
class _Call:
    """The model call under way: its sigma as a tensor and a number, and the conditionings' numbers
    by their ids, which are other ones in every run."""

    sigmas: object = None
    sigma: float = 0.0
    numbers: dict = field(default_factory=dict)


class Run:
    """One OUTER_SAMPLE call. request: what the node captured; changes: what is on the weights."""

    def __init__(self, request, patcher, sigmas, sampler, seed: int, changes: Changes):
        self.request = request
        self.family = fingerprint.family(patcher)
        self.identity = fingerprint.Identity.of(patcher)
        model = paro.session.ModelInfo(self.family, self.identity.fingerprint, changes.hash)
        # A named profile that is gone or broken must be told before the sampling costs time.
        self.named = None
        if request.profile not in PROFILE_WORDS:
            self.named = store.load_for(request.profile, self.identity)
        self._limits, faults = user_settings.read()
        steps, few = len(sigmas) - 1, self._limits.few_steps
        settings, changed = policy.for_steps(request.settings, steps, few)
        # Before the tile is chosen: it may be one that this GPU computes wrongly.
        untrusted = first_test.told(patcher.load_device)
        settings = policy.for_device(settings, patcher.load_device, self._limits.tile)
        saves = settings.calibrate or request.save_as or request.profile == AUTO
        self.panel = Panel(request.node_id)
        self.session = paro.Session(
            settings,
            [float(sigma) for sigma in sigmas],
            model=model,
            find_profile=self.find,
            find_maps=self.find_maps,
            save_profile=self.save if saves else None,
            progress=self.panel,
            runlog=paro.session.RunLog(runlog_path()),
            sampler=getattr(getattr(sampler, "sampler_function", None), "__name__", ""),
            seed=seed,
        )
        self.seen = Seen()
        self.panel.open(self.session, self.seen)
        for line in (*faults, *untrusted):
            self.session.note(line)
        runlog = self.session.report.calls.runlog
        runlog.add(run=True, family=self.family, fingerprint=model.fingerprint)
        self._patcher, self._few_steps, self._refusal = patcher, changed, None
        self._overridden, self._found, self._changes = False, "", changes
        self.layers = LayerFunctions()
        self._lock = threading.Lock()
        self.session.entered = self._enter
        self._call = _Call()
        self.guard = Guard(self.session.note)
        self._replaces: str | None = None  # the version of the profile that is saved over

    # -- during the run ------------------------------------------------------------------------

    def begin_call(self, sigmas, conds: dict) -> None:
        """The sampler calls the model at sigmas (B); conds: the guider's conditionings by name."""
        every = itertools.chain.from_iterable(own for own in conds.values() if own)
        numbers = {cond.get("uuid"): number for number, cond in enumerate(every)}
        self._call = _Call(sigmas, float(sigmas.max()), numbers)
        self.session.begin_call(self._call.sigma)

    def end_call(self) -> None:
        self._call = _Call()
        self.session.end_call()

    def begin_forward(self, sigmas, options: dict):
        """Opens a model evaluation at sigmas (B); returns the session's Forward."""
        # A number that is known already is not asked of the device: that would wait for it.
        self.seen.cache = str(getattr(options.get("easycache"), "name", ""))
        call = self._call
        known = call.sigmas is not None and options.get("sigmas") is call.sigmas
        sigma = call.sigma if known else float(sigmas.max())
        return self.session.begin_forward(sigma, conds=self._conds(options))

    def _conds(self, options: dict) -> tuple[int, ...] | None:
        """What an evaluation is of: numbers of conditionings in the order of the guider's lists,
        else -1 for positive, -2 for negative and so on."""
        kinds = options.get("cond_or_uncond")
        ids = options.get("uuids") or [None] * len(kinds or ())
        if not kinds:
            return None
        pairs = zip(ids, kinds, strict=False)
        return tuple(self._call.numbers.get(one, -1 - kind) for one, kind in pairs)

    def _enter(self, step: int) -> None:
        """A model call begins in this step."""
        self.seen.begin(step)
        self.panel.begin(step)

    def came_to(self, step: int) -> None:
        """The sampler says which step it is in: it calls back after each one's first model call."""
        self.seen.pass_step(step)
        self.session.steps.came_to(step)

    def stay_in(self, options: dict) -> None:
        """Puts our override back where another node's has taken its place; that one stays behind
        ours as the fallback."""
        current = options.get(OVERRIDE)
        if not isinstance(current, Override):
            options[OVERRIDE] = Override(current)
            if current is not None and not self._overridden:
                self._overridden = True
                self.session.note(
                    f"another node replaced the attention function later ({name_of(current)}):"
                    " it serves the dense calls"
                )

    def refusal(self, forward, layout, width: int) -> str | None:
        """Why the whole run stays dense, decided at its first call that could be ours; or None.

        width: heads x head_dim of the call.
        """
        with self._lock:
            if self._refusal is None:
                self._refusal = self._decide(forward, layout, width)
        return self._refusal or None

    def _decide(self, forward, layout, width: int) -> str:
        session = self.session
        settings, steps = session.settings, session.steps.count
        if settings.calibrate or settings.start_density >= 1:
            return ""
        # Asked to stay dense throughout: nothing is predicted, and the log says what dense costs.
        if not any(session.steps.allowed(step) for step in range(steps)):
            return ""
        session.look_up(forward, layout)
        watched = session.learning.watched_steps
        if watched >= steps or not (watched or session.profile is not None):
            if self._few_steps and watched:
                session.note(self._few_steps)
            return ""
        weights = policy.block_weights(self._patcher.model.diffusion_model)
        share = policy.attention_share(layout, width, weights)
        density = settings.start_density
        if session.profile is not None:
            planned = session.planner.affordable(session.profile)
            density = max(density, paro.head_densities.least_total(planned))
        gain = policy.predicted_gain(settings, layout, share, steps, watched, density)
        if gain < (least := self._limits.least_gain):
            return (
                f"the predicted gain of {gain:.1%} is below {100 * least:.3g}%:"
                f" attention is only {share:.0%} of the work at {layout.length} tokens"
            )
        if self._few_steps and watched:
            session.note(self._few_steps)
        return ""

    # -- profiles ------------------------------------------------------------------------------

    def find(self, grid):
        """(profile or None, what the user is told of it) for the run's grid."""
        profile, told = self._find(grid)
        if profile is not None and self._changes.opaque:
            self.session.note(self._changes.untold())
        return profile, told

    def _find(self, grid):
        session, model = self.session, self.session.model
        if self.named is not None:
            if self.named.model.fingerprint != model.fingerprint:
                apart = self.identity.similar(self.named.model.fingerprint)
                whose = "another model" if apart is None else fingerprint.similar(apart)
                session.note(f"profile {self.request.profile} is for {whose} and is not used")
                # An empty observation budget would hide the cause; the run observes as `none` does.
                return None, ""
            if self.named.model.patches != model.patches:
                session.note(
                    f"profile {self.request.profile} was made with other LoRAs or patches,"
                    " and is used all the same"
                )
            if self.named.match_grid(grid) == "far":
                what = f"profile {self.request.profile} is not used: it is"
                grids = self.named.calibration.grids
                session.note(paro.layout.other_sizes(what, grids, grid))
                return None, ""
            self._found = self.panel.profile = self.request.profile
            return self.named, self.request.profile
        if self.request.profile == NONE:
            return None, ""
        found = store.match(self.identity, model.patches, grid)
        for skipped in found.skipped:
            session.note(skipped)
        self._found = self.panel.profile = found.name
        if found.profile is None:
            for name, apart in found.similar:
                session.note(f"profile {name} is for {fingerprint.similar(apart)} and is not used")
            what = "saved profiles of this model are"
            return None, paro.layout.other_sizes(what, found.far, grid) if found.far else ""
        return found.profile, f"{found.name}, {found.grid} grid"

    def find_maps(self, profile, grid):
        """The exact maps beside the profile that `find` gave, if they go with it."""
        path = store.capture(self._found) if self._found else None
        if path is None:
            return None
        captured, tensors = paro.load_capture(path)
        captured.model.fingerprint = (
            profile.model.fingerprint
            if self.identity.owns(captured.model.fingerprint)
            else captured.model.fingerprint
        )
        return paro.exact_maps.ExactMaps.of(profile, captured, tensors, grid)

    def save(self, profile, tensors):
        """Saves an observed profile; a calibration merges with what its name already holds, and
        layers that this run did not watch stay as they are there.

        A name that holds something else (another model, a far grid, a broken file) keeps it: the
        new profile is saved beside it, and the user is told.
        """
        watched = set(self.session.learning.missing.added or profile.layer_ids())
        for _ in range(_SAVES):
            if self.panel.saved:
                # The same run, which has learned more since.
                name, merged = self.panel.saved, self._over_own(self.panel.saved, profile, watched)
            else:
                name, merged = self._under_a_name(profile, watched)
            beside = store.with_held_capture(name, merged, self.identity, tensors, watched)
            try:
                store.save(name, merged, beside, self._replaces)
                break
            except store.Replaced as error:
                replaced = error
            except store.WithoutCapture as error:
                self.session.note(str(error))
                break
        else:
            raise replaced
        self.panel.saved = name
        routes.tell_changed(name)
        log.info("PARO: saved profile %s", name)

    def _under_a_name(self, profile, watched: set[str]):
        """(name, what to write under it) of a run that saves for the first time."""
        wanted = (
            self.request.save_as
            or self._completed_name()
            or self.held_name(profile)
            or self.automatic_name(profile)
        )
        grid = paro.layout.size(profile.calibration.grids[0])
        beside = (store.longer_name(wanted, f"-{grid}"), self.automatic_name(profile))
        for name in (wanted, *beside):
            try:
                merged = self._over(name, profile, watched)
                break
            except (paro.Error, OSError) as error:
                why = error
        else:
            raise why
        if name != wanted:
            self.session.note(
                f"profile {wanted} does not fit this run and was kept; the new one is {name}"
            )
        return name, merged

    def _completed_name(self) -> str:
        """The name under which a profile that was found is completed: its own, if `auto` took it
        from the user's folder. What was chosen by name, or shipped, stays as it is."""
        found = self._found if self.request.profile == AUTO else ""
        return found if found and store.is_users(found) else ""

    def _over_own(self, name: str, profile, watched: set[str]):
        """What to write over what this run has saved before."""
        try:
            return self._over(name, profile, watched)
        except (paro.Error, OSError):
            return profile

    def _over(self, name: str, profile, watched: set[str]):
        """What to write under a name in view of what it holds. Error if that must stay.

        watched: the layers of `profile` that are of this run.
        """
        path = store.find(name)
        # Another save in between, by the viewer or another server, must not be lost.
        self._replaces = store.version(path)
        if path is None:
            return profile
        # Merging refuses what does not fit; a plain observation replaces what would fit.
        density = self.request.settings.start_density
        held = store.load_for(name, self.identity)
        if self.request.settings.calibrate:
            return paro.profile_build.merge_profiles(held, profile, density=density)
        paro.require_mergeable(held, profile)
        if name == self._found:
            # As the file is now: its user may have changed it while this run went on.
            return paro.completion.filled(paro.completion.without(held, watched), profile)
        return paro.completion.filled(profile, held)

    def held_name(self, profile) -> str:
        """The automatic name under which this model's profile is held already: that of a copy in
        another number format begins with other digits. Empty without one."""
        held = store.match(self.identity, profile.model.patches, profile.calibration.grids[0])
        if held.grid != "exact":
            return ""
        return held.name if held.name == self.automatic_name(store.load(held.name)) else ""

    @staticmethod
    def automatic_name(profile) -> str:
        model, grid = profile.model, profile.calibration.grids[0]
        name = f"{model.family}-{model.fingerprint[:8]}-{paro.layout.size(grid)}"
        # With a LoRA the plain model's profile keeps its name and content.
        return f"{name}-{model.patches[:6]}" if model.patches else name

    # -- the end -------------------------------------------------------------------------------

    def _foreign(self) -> str:
        """What computes the model's attention in ComfyUI's place, as far as that can be told."""
        try:
            return foreign_attention(self._patcher.model.diffusion_model)
        except Exception:
            return ""  # a model that is built in another way

    def finish(self, ok: bool) -> None:
        """Ends the session, whatever happened, and tells what was done."""
        session = self.session
        self.layers.close()
        # Of a run that was left in the middle nothing is saved.
        ok = ok and not self.guard.given_up
        try:
            self._note_last(ok)
        except Exception as error:
            why = paro.session.first_line(error)
            session.note(f"what this run did could not be summed up: {why}")
        summary = None
        try:
            summary = session.finish(ok)
        finally:
            # Whatever failed, the node must not look as if it went on.
            self.panel.close(summary or session.report.summary(ok))
        self._log(summary)

    def _note_last(self, ok: bool) -> None:
        """What the user is told of the run as a whole."""
        session = self.session
        if ok and not session.report.paths and not session.report.reasons.told_dense:
            self.seen.foreign = self._foreign()
            session.note(self.seen.told(), dense=True)
        times = self.panel.times
        self.panel.begin(None)
        told = policy.slower(times.dense_seconds, times.sparse, self._limits.least_gain)
        if told:
            session.note(told)

    def _log(self, summary: dict) -> None:
        skipped = self.seen.skipped()
        if skipped:
            cache = self.seen.cache or "another node"
            log.info("PARO: %s skipped %d of %d steps", cache, skipped, summary["steps"])
        # Of masks that are found on the fly nothing is estimated.
        kept = summary["measured_retained" if summary["retained"] is None else "retained"]
        log.info(
            "PARO: %.1f s, attention %.1f s, density %.2f, retained mass %s, calls %s",
            summary["seconds"],
            summary["attention_seconds"],
            summary["density"],
            "not measured" if kept is None else f"{kept:.0%}",
            summary["paths"],
        )
        for reason, count in summary["reasons"].items():
            log.warning("PARO: %s (%d calls)", reason, count)


def runlog_path() -> Path:
    return Path(folder_paths.get_output_directory()) / "paro" / "runlog.jsonl"
