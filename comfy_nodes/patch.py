"""Puts our override and run wrappers on a clone of the user's model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy.patcher_extension import WrappersMP

from . import fingerprint, store
from .native import paro
from .override import FORWARD, RUN, Override
from .progress import NodeProgress

KEY = "paro"
log = logging.getLogger("paroattention")


@dataclass(frozen=True)
class Request:
    """What a node captured. profile: auto, none or a name; name: where to save, "" for automatic.

    Nodes are cached between queues, so nothing that changes from run to run may live here.
    """

    settings: object
    profile: str = "auto"
    save_as: str = ""
    node_id: str | None = None


class Run:
    """One OUTER_SAMPLE call: its session, and what it looks up and saves on the user's behalf."""

    def __init__(self, request: Request, patcher, sigmas, sampler, seed: int):
        self.request = request
        family = fingerprint.family(patcher)
        model = paro.session.ModelInfo(
            family, fingerprint.fingerprint(patcher), fingerprint.patches_hash(patcher)
        )
        # A named profile that is gone or broken must be told before the sampling costs time.
        self.named = None if request.profile in ("auto", "none") else store.load(request.profile)
        saves = request.settings.calibrate or request.save_as or request.profile == "auto"
        self.session = paro.Session(
            request.settings,
            [float(sigma) for sigma in sigmas],
            model=model,
            find_profile=self.find,
            save_profile=self.save if saves else None,
            progress=NodeProgress(request.node_id),
            runlog=paro.session.RunLog(runlog_path()),
            sampler=getattr(getattr(sampler, "sampler_function", None), "__name__", ""),
            seed=seed,
        )
        self.session.runlog.add(run=True, family=family, fingerprint=model.fingerprint)

    def find(self, grid):
        """(profile or None, what the user is told of it) for the run's grid."""
        session, model = self.session, self.session.model
        if self.named is not None:
            if self.named.model.fingerprint != model.fingerprint:
                session.note(f"profile {self.request.profile} is for another model")
                # An empty observation budget would hide the cause; the run observes as `none` does.
                return None, ""
            if self.named.model.patches != model.patches:
                session.note(f"profile {self.request.profile} was made with other LoRAs or patches")
            return self.named, self.request.profile
        if self.request.profile == "none":
            return None, ""
        found = store.match(model.fingerprint, model.patches, grid)
        for skipped in found.skipped:
            session.note(skipped)
        return found.profile, f"{found.name}, {found.grid} grid" if found.profile else ""

    def save(self, profile, tensors):
        """Saves an observed profile; a calibration merges with what its name already holds.

        A name that holds something else (another model, a far grid, a broken file) keeps it: the
        new profile is saved beside it, and the user is told.
        """
        wanted = self.request.save_as or self.automatic_name(profile)
        grid = "x".join(map(str, profile.calibration.grids[0]))
        beside = (f"{wanted[:60]}-{grid}", self.automatic_name(profile))
        for name in (wanted, *beside):
            try:
                merged = self._over(name, profile)
                break
            except (paro.Error, OSError) as error:
                why = error
        else:
            raise why
        if name != wanted:
            self.session.note(f"profile {wanted} kept as it was, saved as {name} instead")
        store.save(name, merged, tensors)
        log.info("PARO: saved profile %s", name)

    def _over(self, name: str, profile):
        """What to write under a name in view of what it holds. Error if that must stay."""
        if store.find(name) is None:
            return profile
        # Merging refuses what does not fit; a plain observation replaces what would fit.
        density = self.request.settings.density
        held = store.load(name)
        if self.request.settings.calibrate:
            return paro.profile_build.merge_profiles(held, profile, density=density)
        paro.profile_build.require_mergeable(held, profile, same_layers=False)
        return profile

    @staticmethod
    def automatic_name(profile) -> str:
        model, grid = profile.model, profile.calibration.grids[0]
        name = f"{model.family}-{model.fingerprint[:8]}-{'x'.join(map(str, grid))}"
        # With a LoRA the plain model's profile keeps its name and content.
        return f"{name}-{model.patches[:6]}" if model.patches else name


def runlog_path() -> Path:
    return Path(folder_paths.get_output_directory()) / KEY / "runlog.jsonl"


def _outer_sample(request: Request):
    def wrapper(executor, *args, **kwargs):
        guider = executor.class_obj
        sampler = kwargs.get("sampler", args[2] if len(args) > 2 else None)
        sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
        seed = kwargs.get("seed", args[7] if len(args) > 7 else None)
        run = Run(request, guider.model_patcher, sigmas, sampler, seed or 0)
        # The guider's model_options are a copy made for this run: two runs never share a session.
        options = guider.model_options.setdefault("transformer_options", {})
        options[RUN] = run
        ok = False
        try:
            result = executor(*args, **kwargs)
            ok = True
            return result
        finally:
            # Interrupts are BaseExceptions: only finally sees them all.
            options.pop(RUN, None)
            _report(run.session.finish(ok))

    return wrapper


def _apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, *args, **kwargs):
    """Opens a model evaluation for the session, with the sigma that ComfyUI hands over as t."""
    args = list(args)
    options = args[0] if args else kwargs.get("transformer_options") or {}
    run = options.get(RUN)
    if run is not None:
        context = (
            c_crossattn.shape[1] if c_crossattn is not None and c_crossattn.dim() > 1 else None
        )
        forward = run.session.begin_forward(float(t.max()), context)
        options = {**options, FORWARD: forward}
        if args:
            args[0] = options
        else:
            kwargs["transformer_options"] = options
    return executor(x, t, c_concat, c_crossattn, control, *args, **kwargs)


def _report(summary: dict) -> None:
    log.info(
        "PARO: %.1f s, attention %.1f s, density %.2f, retained mass %.0f %%, calls %s",
        summary["seconds"],
        summary["attention_seconds"],
        summary["density"],
        100 * summary["retained"],
        summary["paths"],
    )
    for reason, count in summary["reasons"].items():
        log.warning("PARO: %s (%d calls)", reason, count)


def apply(model, request: Request):
    """A clone of model with our override; model itself stays as it was.

    A PARO node before this one is replaced, not stacked; any other override stays the fallback.
    """
    clone = model.clone()
    options = clone.model_options.setdefault("transformer_options", {})
    previous = options.get("optimized_attention_override")
    if isinstance(previous, Override):
        previous = previous.previous
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL):
        clone.remove_wrappers_with_key(kind, KEY)
    options["optimized_attention_override"] = Override(previous)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _outer_sample(request))
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _apply_model)
    return clone
