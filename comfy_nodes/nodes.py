"""PAROAttention, PAROCalibrate and PAROCompare (V3 API)."""

from __future__ import annotations

import dataclasses
import logging

import torch

from .api import CATEGORY, ComfyExtension, io, ui
from .inputs import (
    AUTO,
    NONE,
    PROFILE_WORDS,
    check_queued,
    require_images,
    require_model,
    require_text,
)
from .inspect_heads import PAROInspect
from .native import MISSING, paro

if paro is not None:
    from . import patch, ray, store

log = logging.getLogger("paroattention")


def _profile_options() -> list[str]:
    return [*PROFILE_WORDS, *(store.names() if paro is not None else [])]


def _check_profile(profile) -> str | None:
    """What is wrong with the profile that a queued node names, or None."""
    try:
        require_text("profile", profile)
        if profile in PROFILE_WORDS:
            return None
        store.check_name(profile)
        found = store.find(profile)
    except paro.Error as error:
        return f"profile: {error}"
    return None if found is not None else f"profile: no saved profile is named {profile!r}"


def _check_new_name(argument: str, name) -> str | None:
    """What is wrong with a name to save under, or None; an empty one means the automatic one."""
    try:
        require_text(argument, name)
        if name:
            store.check_name(name)
    except paro.Error as error:
        return f"{argument}: {error}"
    return None


def _check_settings(values: dict) -> str | None:
    """What is wrong with a node's settings, or None. values: of its inputs that are not linked."""
    names = {field.name for field in dataclasses.fields(paro.Settings)}
    given = {name: value for name, value in values.items() if name in names}
    try:
        # What comes over a link is checked when the node runs; 0.3 and 0 stand for it until then.
        quality = _quality(given.pop("density", 0.3), given.pop("target_error", 0.0))
        paro.Settings(**quality, **given).validate()
    except paro.Error as error:
        return str(error)
    return None


def _quality(density, target_error) -> dict:
    """Settings of the two widgets: a target error above 0 takes the density's place. Error for a
    density that is none in any case."""
    if isinstance(density, str):
        # "auto" is a value of the settings and not of this input.
        raise paro.Error(f"density must be a number (got {paro.settings.shown(density)})")
    paro.Settings(density=density).validate()
    if isinstance(target_error, (int, float)) and target_error == 0 and target_error is not False:
        return {"density": density}
    return {"density": paro.settings.AUTO, "target_error": target_error}


def _dense(model, node_id):
    log.warning("PARO: %s", MISSING)
    return io.NodeOutput(model, ui=ui.PreviewText(MISSING))


class PAROAttention(io.ComfyNode):
    """Sparse, quantised self-attention for the model's sampling runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PAROAttention",
            display_name="PARO Attention",
            category=CATEGORY,
            description=(
                "Makes video and image models faster. It reorders the tokens of each attention "
                "head, so that the head's attention gathers in blocks. Blocks that carry almost "
                "nothing are skipped. Put it between the model loader and the sampler. Every "
                "run watches its first steps. The first run saves a profile, which later runs "
                "use."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input(
                    "profile",
                    options=_profile_options(),
                    default=AUTO,
                    tooltip="auto: use the saved profile that fits this model and size. If "
                    "there is none, watch this run and save one. none: watch this run "
                    "and look for no profile. Or choose a saved profile.",
                ),
                io.Float.Input(
                    "density",
                    default=0.3,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the attention blocks that are computed. Lower is faster, "
                    "and further from the dense result.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["int8", "int4", "bf16"],
                    default="int8",
                    tooltip="int8: products in 8 bits. bf16: not quantised (fp32 on a CPU). "
                    "int4 is not built yet.",
                ),
                io.Combo.Input(
                    "mask",
                    options=["static", "dynamic"],
                    default="static",
                    tooltip="static: masks are made from the profile and renewed during the "
                    "run. dynamic: every attention call makes its own masks from "
                    "averaged q and k. The order of each head still comes from the "
                    "profile.",
                ),
                io.Boolean.Input(
                    "tail",
                    default=True,
                    tooltip="For every skipped block, add the mean of its keys and values. This "
                    "costs a few percent of the time and brings the result nearer to "
                    "dense.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps that stay dense at the start of the run.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Steps after this share of the run are dense again. 1: no step is.",
                ),
                io.Int.Input(
                    "observe_steps",
                    default=4,
                    min=0,
                    max=1000,
                    tooltip="This many steps at the start skip no block and are watched. 0: watch "
                    "no step; then only a run with a fitting profile is sparse.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Name of the profile that this run saves. Empty: with auto an "
                    "automatic name (family-fingerprint-grid), otherwise nothing is "
                    "saved.",
                ),
                # Optional and last: workflows that were saved before it load and run as they did.
                io.Float.Input(
                    "target_error",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="0: use the density above. Above 0: the run chooses the lowest "
                    "density at which the attention output has at most this relative "
                    "error. 0.05 to 0.1 is sensible.",
                ),
                io.Combo.Input(
                    "dense_steps",
                    options=["int8", "model"],
                    default="int8",
                    optional=True,
                    tooltip="int8: steps that skip no block, the watched ones among them, are "
                    "computed in 8 bits too, which is about twice as fast. The first call of a "
                    "run is compared with the model's own attention. model: they are computed "
                    "by the model's own attention, as with precision bf16.",
                ),
                io.Combo.Input(
                    "watch",
                    options=["always", "if needed"],
                    default="always",
                    optional=True,
                    tooltip="always: every run watches its first steps (observe_steps), also one "
                    "that has a profile. What is known of the model and what this prompt shows "
                    "are then used together. if needed: a run with a fitting profile is sparse "
                    "from its first step. That is faster, and further from the dense result.",
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types=None, **given):
        if paro is None:
            return True
        values, wrong = check_queued(cls, given, input_types)
        wrong = wrong or _check_settings(values)
        wrong = wrong or _check_profile(values.get("profile", AUTO))
        return wrong or _check_new_name("save_as", values.get("save_as", "")) or True

    @classmethod
    def execute(
        cls,
        model,
        profile,
        density,
        precision,
        mask,
        tail,
        start_percent,
        end_percent,
        observe_steps,
        save_as,
        target_error=0.0,
        dense_steps="int8",
        watch="always",
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        if paro is None:
            return _dense(model, node_id)
        require_model("model", model)
        settings = paro.Settings(
            **_quality(density, target_error),
            precision=precision,
            mask=mask,
            tail=tail,
            start_percent=start_percent,
            end_percent=end_percent,
            observe_steps=observe_steps,
            dense_steps=dense_steps,
            watch=watch,
        )
        settings.validate()
        require_text("profile", profile)
        if profile not in PROFILE_WORDS:
            store.load(profile)
        require_text("save_as", save_as)
        if save_as:
            store.check_name(save_as)
        request = patch.Request(settings, profile, save_as, node_id)
        return io.NodeOutput(patch.apply(model, request))


class PAROCalibrate(io.ComfyNode):
    """A dense run that only watches, and saves or extends a profile."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PAROCalibrate",
            display_name="PARO Calibrate",
            category=CATEGORY,
            description=(
                "Watches a whole dense run and saves a profile. The first and the second half "
                "of the steps get masks of their own. If the name already holds a profile of "
                "this model, the new prompt is added to it."
            ),
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "name",
                    default="my-profile",
                    tooltip='Name of the profile: any text without <>:"/\\|?*. Empty: an '
                    "automatic name (family-fingerprint-grid), which auto finds.",
                ),
                io.Int.Input(
                    "queries",
                    default=64,
                    min=1,
                    max=4096,
                    tooltip="Number of queries that are sampled for each head and model "
                    "evaluation.",
                ),
                io.Int.Input(
                    "every_n_steps",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Watch every n-th step. 1: watch all steps.",
                ),
                io.Boolean.Input(
                    "exact",
                    default=False,
                    tooltip="Also sum the full attention maps. The run is slower. The maps stay "
                    "on this machine, beside the profile, and give better masks for "
                    "this model and size.",
                ),
                # Optional and last: workflows that were saved before it load and run as they did.
                io.Combo.Input(
                    "dense_steps",
                    options=["model", "int8"],
                    default="model",
                    optional=True,
                    tooltip="model: the run's result is exactly the dense one. int8: steps are "
                    "computed in 8 bits, which is about twice as fast and very near it. The "
                    "first call of a run is compared with the model's own attention.",
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types=None, **given):
        if paro is None:
            return True
        values, wrong = check_queued(cls, given, input_types)
        wrong = wrong or _check_settings(values)
        return wrong or _check_new_name("name", values.get("name", "")) or True

    @classmethod
    def execute(
        cls, model, name, queries, every_n_steps, exact, dense_steps="model"
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        if paro is None:
            return _dense(model, node_id)
        require_model("model", model)
        require_text("name", name)
        if name:
            store.check_name(name)
        settings = paro.Settings(
            calibrate=True,
            queries=queries,
            every_n_steps=every_n_steps,
            exact=exact,
            dense_steps=dense_steps,
        )
        settings.validate()
        return io.NodeOutput(patch.apply(model, patch.Request(settings, NONE, name, node_id)))


class PAROCompare(io.ComfyNode):
    """PSNR, SSIM and flicker of a result against its dense original."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PAROCompare",
            display_name="PARO Compare",
            category=CATEGORY,
            description=(
                "Compares images_b with images_a: PSNR, SSIM, flicker, and a picture of the "
                "difference."
            ),
            inputs=[
                io.Image.Input("images_a", tooltip="The dense result."),
                io.Image.Input("images_b", tooltip="The result that is compared with it."),
            ],
            outputs=[
                io.String.Output(display_name="text"),
                io.Image.Output(display_name="difference"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, input_types=None, **given):
        if paro is None:
            return True
        return check_queued(cls, given, input_types)[1] or True

    @classmethod
    def execute(cls, images_a, images_b) -> io.NodeOutput:
        if paro is None:
            return io.NodeOutput(MISSING, images_a, ui=ui.PreviewText(MISSING))
        metrics = paro.metrics
        require_images("images_a", images_a)
        require_images("images_b", images_b)
        if images_a.shape != images_b.shape:
            raise paro.Error(
                f"images_b must have the shape of images_a, {tuple(images_a.shape)}"
                f" (got {tuple(images_b.shape)})"
            )
        a, b = images_a.cpu().numpy(), images_b.cpu().numpy()
        try:
            ssim = f"{metrics.ssim(a, b):.4f}"
        except ImportError:
            ssim = "not computed (pip install scikit-image)"
        text = (
            f"PSNR {metrics.psnr(a, b):.2f} dB, SSIM {ssim}, "
            f"flicker {metrics.flicker(a, b):.3f} times that of images_a"
        )
        difference = torch.clamp((images_b - images_a).abs() * 4, 0, 1)
        return io.NodeOutput(text, difference, ui=ui.PreviewText(text))


class ParoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        found = [PAROAttention, PAROCalibrate, PAROCompare, PAROInspect]
        return found + ray.nodes() if paro is not None else found
