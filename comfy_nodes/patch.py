"""Puts our override and run wrappers on a clone of the user's model."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from comfy.patcher_extension import WrappersMP

from .evaluation import Evaluation
from .identity.changes import Changes
from .inputs import AUTO
from .layouts import Inputs
from .native import paro
from .override import EVALUATION, OVERRIDE, RUN, Override
from .panel import tell_not_begun
from .run import Run

KEY = "paro"
_WRAPPERS = (
    WrappersMP.OUTER_SAMPLE,
    # ComfyUI of 2024 does not know it: steps are then counted from the evaluations alone.
    getattr(WrappersMP, "PREDICT_NOISE", "predict_noise"),
    WrappersMP.APPLY_MODEL,
    WrappersMP.DIFFUSION_MODEL,
)
log = logging.getLogger("paroattention")


@dataclass(frozen=True)
class Request:
    """What a node captured. profile: auto, none or a name; name: where to save, "" for automatic.

    Nodes are cached between queues, so nothing that changes from run to run may live here.
    """

    settings: object
    profile: str = AUTO
    save_as: str = ""
    node_id: str | None = None


def _outer_sample(request: Request):
    def wrapper(executor, *args, **kwargs):
        guider = executor.class_obj
        sampler = kwargs.get("sampler", args[2] if len(args) > 2 else None)
        sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
        seed = kwargs.get("seed", args[7] if len(args) > 7 else None)
        # Nothing to sample: KSamplerAdvanced with a start at or after its end, for one.
        if sigmas is None or len(sigmas) < 2:
            return executor(*args, **kwargs)
        try:
            # Their hooks are registered by now: they are part of what is sampled.
            conds = getattr(guider, "conds", None) or {}
            changes = Changes.of(guider.model_patcher, conds, guider.model_options)
            run = Run(request, guider.model_patcher, sigmas, sampler, seed or 0, changes)
        except paro.Error:
            # A profile or setting that the user named: told before the sampling costs time.
            raise
        except Exception as error:
            log.exception("PARO: this run stays dense: reading the model failed")
            why = f"the model could not be read: {paro.session.first_line(error)}"
            tell_not_begun(request.node_id, why)
            return executor(*args, **kwargs)
        # The guider's model_options are a copy made for this run: two runs never share a session.
        options = guider.model_options.setdefault("transformer_options", {})
        options[RUN] = run
        args, kwargs = _with_callback(run, args, kwargs)
        ok = False
        try:
            result = executor(*args, **kwargs)
            ok = True
            return result
        finally:
            # Interrupts are BaseExceptions: only finally sees them all.
            options.pop(RUN, None)
            try:
                run.finish(ok)
            except Exception:
                # The user's result is there: telling of it must not lose it.
                log.exception("PARO: the report of this run failed")

    return wrapper


def _with_callback(run, args, kwargs):
    """OUTER_SAMPLE's arguments with a step callback that tells the run first."""
    given = kwargs.get("callback", args[5] if len(args) > 5 else None)

    def callback(step, *rest, **named):
        run.guard.safely(run.came_to, step)
        return given(step, *rest, **named) if given is not None else None

    if len(args) > 5:
        return [*args[:5], callback, *args[6:]], kwargs
    return args, kwargs | {"callback": callback}


def _predict_noise(executor, x, timestep, *args, **kwargs):
    """One model call of the sampler: all evaluations of its conditionings are one step's."""
    model_options = kwargs.get("model_options", args[0] if args else None) or {}
    run = model_options.get("transformer_options", {}).get(RUN)
    if run is None:
        return executor(x, timestep, *args, **kwargs)
    run.guard.safely(run.begin_call, timestep, getattr(executor.class_obj, "conds", None) or {})
    try:
        return executor(x, timestep, *args, **kwargs)
    finally:
        run.guard.safely(run.end_call)


def _apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, *args, **kwargs):
    """Opens a model evaluation for the session, with the sigma that ComfyUI hands over as t."""
    args = list(args)
    options = args[0] if args else kwargs.get("transformer_options") or {}
    run = options.get(RUN)
    if run is None:
        return executor(x, t, c_concat, c_crossattn, control, *args, **kwargs)
    # For the models that do not call DIFFUSION_MODEL wrappers.
    rest = {k: v for k, v in kwargs.items() if k != "transformer_options"}
    given = {"x": x, "context": c_crossattn, **rest}
    model = getattr(executor.class_obj, "diffusion_model", None)
    opened = run.guard.safely(_opened, run, t, Inputs(model, given, options))
    if opened is None:
        return executor(x, t, c_concat, c_crossattn, control, *args, **kwargs)
    if args:
        args[0] = opened
    else:
        kwargs["transformer_options"] = opened
    try:
        return executor(x, t, c_concat, c_crossattn, control, *args, **kwargs)
    finally:
        run.guard.safely(opened[EVALUATION].close)


def _opened(run, t, inputs: Inputs) -> dict:
    """The transformer_options of an evaluation at sigmas t (B) that is the run's."""
    forward = run.begin_forward(t, inputs.options)
    evaluation = Evaluation(forward, run.family, inputs, run.seen)
    options = {**inputs.options, EVALUATION: evaluation}
    run.stay_in(options)
    run.layers.watch(inputs.model)
    return options


def _diffusion_model(executor, *args, **kwargs):
    """Adds the model's own arguments to the evaluation: the latent's shape, text, references."""
    options = next((v for v in (kwargs.get("transformer_options"), *args) if _ours(v)), None)
    if options is not None:
        options[RUN].guard.safely(_enter_model, options, executor, args, kwargs)
    return executor(*args, **kwargs)


def _enter_model(options: dict, executor, args, kwargs) -> None:
    run = options[RUN]
    run.stay_in(options)
    try:
        options[EVALUATION].enter_model(executor, args, kwargs)
    except Exception as error:
        run.session.note(f"the model's arguments could not be read: {error}"[:200])


def _ours(value) -> bool:
    return isinstance(value, dict) and RUN in value and EVALUATION in value


def apply(model, request: Request):
    """A clone of model with our override; model itself stays as it was.

    A PARO node before this one is replaced, not stacked; any other override stays the fallback.
    """
    clone = model.clone()
    options = clone.model_options.setdefault("transformer_options", {})
    previous = options.get(OVERRIDE)
    if isinstance(previous, Override):
        previous = previous.previous
    for kind in _WRAPPERS:
        clone.remove_wrappers_with_key(kind, KEY)
    options[OVERRIDE] = Override(previous)
    wrappers = (_outer_sample(request), _predict_noise, _apply_model, _diffusion_model)
    for kind, wrapper in zip(_WRAPPERS, wrappers, strict=True):
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone
