"""PAROInspect: a picture of chosen heads, before and after reordering, with their masks."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from .api import CATEGORY, io, ui
from .inputs import check_queued, require_one_of, require_text
from .native import MISSING, paro

if paro is not None:
    from . import store

CELL, GAP, TEXT = 240, 16, 18
MAX_HEADS = 64
STEPS = ("early", "late")
_BACKGROUND, _INK, _MUTED = (27, 29, 33), (230, 232, 235), (154, 161, 172)


def _draw_head(draw: ImageDraw.ImageDraw, picture: Image.Image, at, name: str, views) -> None:
    """One head's maps: in the original order, and in its own with the mask."""
    x, y = at
    draw.text((x, y), f"{name}, density {views[1].density:.0%}", fill=_INK)
    titles = "original FHW", f"{views[1].order}, computed blocks"
    for i, (view, title) in enumerate(zip(views, titles, strict=True)):
        left = x + i * (CELL + GAP // 2)
        draw.text((left, y + TEXT), title, fill=_MUTED)
        draw.text((left + CELL, y + TEXT), f"keeps {view.retained:.1%}", fill=_INK, anchor="ra")
        square = Image.fromarray(view.picture(CELL, mask=i == 1))
        picture.paste(square, (left, y + 2 * TEXT))


def _chosen(profile, layer: int, head: int) -> list[tuple[int, int]]:
    """(layer, head) pairs; -1 stands for all. Error for what the profile does not hold."""
    model = profile.model
    for name, value, count in (("layer", layer, model.layers), ("head", head, model.heads)):
        if not -1 <= value < count:
            raise paro.Error(
                f"{name} must be from -1 (all) to {count - 1} in this profile (got {value})"
            )
    layers = range(model.layers) if layer < 0 else [layer]
    heads = range(model.heads) if head < 0 else [head]
    pairs = [(one, other) for one in layers for other in heads]
    if len(pairs) <= MAX_HEADS:
        return pairs
    # Evenly spread: a picture of all heads of a large model would be of no use.
    return [pairs[i * len(pairs) // MAX_HEADS] for i in range(MAX_HEADS)]


def mosaic(profile, layer: int = -1, head: int = -1, density: float = 0.3, group: int = 0):
    """A PIL picture of the chosen heads (at most 64, evenly spread): before, after with mask.

    density: for heads without one of their own. Raises Error for what the profile does not hold.
    """
    groups = len(profile.timestep_groups)
    if not 0 <= group < groups:
        raise paro.Error(f"group must be a timestep group from 0 to {groups - 1} (got {group})")
    pairs = _chosen(profile, layer, head)
    ids = profile.layer_ids()
    columns = min(len(pairs), 3 if len(pairs) <= 12 else 6)
    rows = -(-len(pairs) // columns)
    width, height = 2 * CELL + GAP // 2 + GAP, CELL + 2 * TEXT + GAP
    size = (GAP + columns * width, GAP + TEXT + rows * height)
    picture = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    shown = f"{len(pairs)} of {profile.model.layers * profile.model.heads} heads"
    when = "" if groups == 1 else (", early steps" if group == 0 else ", late steps")
    # Side by side they would not fit into a single head's width.
    draw.text(
        (GAP, GAP // 2),
        f"{shown}{when}. Grey: skipped blocks. Bright: much attention.",
        fill=_MUTED,
    )
    for i, (one, other) in enumerate(pairs):
        at = (GAP + i % columns * width, GAP + TEXT + i // columns * height)
        views = paro.head_views(profile, one, other, group, density=density)
        _draw_head(draw, picture, at, f"{ids[one]} head {other}", views)
    return picture


_WIDGETS = ("layer", "head", "density", "steps")


def _check_values(layer=-1, head=-1, density=0.3, steps="early") -> None:
    """Raises Error naming the first value that breaks its rule, whatever the profile."""
    settings = paro.settings
    for name, value in (("layer", layer), ("head", head)):
        if not settings.whole(value, -1, 9999):
            rule = "must be a whole number from -1 (all) to 9999"
            raise paro.Error(f"{name} {rule} (got {settings.shown(value)})")
    if not settings.in_range(density, 0.05, 1):
        raise paro.Error(f"density must be from 0.05 to 1 (got {settings.shown(density)})")
    require_one_of("steps", steps, STEPS)


class PAROInspect(io.ComfyNode):
    """What heads look at, in the original order and in their own, and what is skipped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = store.names() if paro is not None else []
        return io.Schema(
            node_id="PAROInspect",
            display_name="PARO Inspect",
            category=CATEGORY,
            description=(
                "Draws chosen heads of a profile: the attention map in the original order, and "
                "in the head's own order with the skipped blocks in grey."
            ),
            inputs=[
                io.Combo.Input("profile", options=names, tooltip="A saved profile."),
                io.Int.Input(
                    "layer",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Number of the layer. -1: all layers.",
                ),
                io.Int.Input(
                    "head",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Number of the head. -1: all heads.",
                ),
                io.Float.Input(
                    "density",
                    default=0.3,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the blocks that are computed, for heads without a density "
                    "of their own.",
                ),
                io.Combo.Input(
                    "steps",
                    options=list(STEPS),
                    default="early",
                    tooltip="early: maps of the first half of the steps. late: maps of the "
                    "second half. Some profiles have only one set of maps.",
                ),
            ],
            outputs=[io.Image.Output()],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, input_types=None, **given):
        if paro is None:
            return True
        values, wrong = check_queued(cls, given, input_types)
        if wrong:
            return wrong
        try:
            _check_values(**{name: values[name] for name in _WIDGETS if name in values})
        except paro.Error as error:
            return str(error)
        # A link's is looked up when the node runs.
        if "profile" not in values:
            return True
        profile = values["profile"]
        try:
            require_text("profile", profile)
            store.check_name(profile)
            found = store.find(profile)
        except paro.Error as error:
            return f"profile: {error}"
        return found is not None or f"profile: no saved profile is named {profile!r}"

    @classmethod
    def fingerprint_inputs(cls, profile="", **widgets):
        # The same name may hold another profile by now.
        try:
            path = store.find(profile) if paro is not None else None
            stamp = path.stat().st_mtime_ns if path else 0
        except (paro.Error, OSError):
            stamp = 0
        return (stamp, *widgets.values())

    @classmethod
    def execute(cls, profile, layer, head, density, steps) -> io.NodeOutput:
        if paro is None:
            return io.NodeOutput(torch.zeros(1, 64, 64, 3), ui=ui.PreviewText(MISSING))
        require_text("profile", profile)
        _check_values(layer, head, density, steps)
        held = store.load(profile)
        group = min(1 if steps == "late" else 0, len(held.timestep_groups) - 1)
        picture = np.asarray(mosaic(held, layer, head, density, group), dtype=np.float32)
        image = torch.from_numpy(picture / 255.0)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
