"""PAROInspect: a picture of chosen heads, before and after reordering, with their masks."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw

from .inputs import check_queued, require_one_of, require_text
from .native import MISSING, paro

if paro is not None:
    from . import store

CELL, GAP, TEXT, TILE = 240, 16, 18, 64
MAX_HEADS = 64
STEPS = ("early", "late")
_BACKGROUND, _INK, _MUTED, _SKIPPED = (27, 29, 33), (230, 232, 235), (154, 161, 172), (44, 46, 51)
# Dark to bright with rising lightness, so that it reads the same for colour-blind eyes.
_STOPS = (
    (8, 6, 24),
    (72, 12, 104),
    (176, 24, 100),
    (246, 104, 28),
    (252, 190, 72),
    (255, 248, 200),
)


def _palette() -> np.ndarray:
    """256 colours between the stops."""
    places = np.linspace(0, len(_STOPS) - 1, 256)
    stops = np.array(_STOPS, dtype=np.float64)
    return np.stack([np.interp(places, range(len(_STOPS)), stops[:, c]) for c in range(3)], -1)


def colours(mass: np.ndarray, mask: np.ndarray | None, low: float, high: float) -> np.ndarray:
    """A block map [rows, cols] as uint8 RGB on a logarithmic scale; skipped blocks are greyed."""
    place = np.log(np.maximum(mass, low) / low) / np.log(high / low)
    rgb = _palette()[np.clip(255 * place, 0, 255).round().astype(int)]
    if mask is not None:
        rgb = np.where(mask[..., None], rgb, 0.2 * rgb + 0.8 * np.array(_SKIPPED))
    return rgb.round().astype(np.uint8)


def _square(rgb: np.ndarray) -> Image.Image:
    """CELL pixels a side: sharp squares for few blocks, means for many."""
    picture = Image.fromarray(rgb)
    small = max(rgb.shape[:2]) <= CELL
    return picture.resize((CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.BOX)


class _Head:
    """One head's maps: in the original order, and in its own with the mask."""

    def __init__(self, profile, head, group: int, density: float):
        grid = profile.calibration.grids[0]
        code = head.groups[group]
        kernel = paro.dequantise(profile.bins, code.code, code.peak)
        self.order, self.density = head.order, head.density or density
        self.maps = [
            paro.importance(profile.bins, kernel, grid, order, TILE, TILE)
            for order in ("FHW", head.order)
        ]
        self.masks = [paro.make_mask(one, self.density) for one in self.maps]
        self.kept = [
            paro.retained_mass(one, mask) for one, mask in zip(self.maps, self.masks, strict=True)
        ]

    def draw(self, draw: ImageDraw.ImageDraw, picture: Image.Image, at: tuple[int, int], name: str):
        values = [one.numpy() for one in self.maps]
        high = max(value.max() for value in values) or 1.0
        x, y = at
        draw.text((x, y), f"{name}, density {self.density:.0%}", fill=_INK)
        for i, (title, mask) in enumerate(
            (("original FHW", None), (f"{self.order}, computed blocks", self.masks[1].numpy()))
        ):
            left = x + i * (CELL + GAP // 2)
            kept = f"keeps {self.kept[i]:.1%}"
            draw.text((left, y + TEXT), title, fill=_MUTED)
            draw.text((left + CELL, y + TEXT), kept, fill=_INK, anchor="ra")
            square = _square(colours(values[i], mask, high * 1e-4, high))
            picture.paste(square, (left, y + 2 * TEXT))


def _chosen(profile, layer: int, head: int) -> list[tuple[int, int]]:
    """(layer, head) pairs; -1 stands for all. Error for what the profile does not hold."""
    model = profile.model
    for name, value, count in (("layer", layer, model.layers), ("head", head, model.heads)):
        if not -1 <= value < count:
            raise paro.Error(f"{name} must be -1 (all) to {count - 1} (got {value})")
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
        raise paro.Error(f"group must be 0 to {groups - 1} (got {group})")
    pairs = _chosen(profile, layer, head)
    layers, ids = profile.layers, profile.layer_ids()
    columns = min(len(pairs), 3 if len(pairs) <= 12 else 6)
    rows = -(-len(pairs) // columns)
    width, height = 2 * CELL + GAP // 2 + GAP, CELL + 2 * TEXT + GAP
    size = (GAP + columns * width, GAP + TEXT + rows * height)
    picture = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    shown = f"{len(pairs)} of {profile.model.layers * profile.model.heads} heads"
    when = "" if groups == 1 else (", early steps" if group == 0 else ", late steps")
    # Side by side they would not fit into a single head's width.
    draw.text((GAP, GAP // 2), f"{shown}{when}. Grey: skipped. Bright: attention.", fill=_MUTED)
    for i, (one, other) in enumerate(pairs):
        at = (GAP + i % columns * width, GAP + TEXT + i // columns * height)
        name = f"{ids[one]} head {other}"
        _Head(profile, layers[one].heads[other], group, density).draw(draw, picture, at, name)
    return picture


_WIDGETS = ("layer", "head", "density", "steps")


def _check_values(layer=-1, head=-1, density=0.3, steps="early") -> None:
    """Raises Error naming the first value that breaks its rule, whatever the profile."""
    settings = paro.settings
    for name, value in (("layer", layer), ("head", head)):
        if not settings.whole(value, -1, 9999):
            raise paro.Error(
                f"{name} must be -1 (all) to 9999, whole (got {settings.shown(value)})"
            )
    if not settings.in_range(density, 0.05, 1):
        raise paro.Error(f"density must lie in 0.05..1 (got {settings.shown(density)})")
    require_one_of("steps", steps, STEPS)


class PAROInspect(io.ComfyNode):
    """What heads look at, in the original order and in their own, and what is skipped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = store.names() if paro is not None else []
        return io.Schema(
            node_id="PAROInspect",
            display_name="PARO Inspect",
            category="PARO",
            description=(
                "A picture of chosen heads of a profile: the attention map in the original order, "
                "and in the head's own order with the blocks that are skipped greyed out."
            ),
            inputs=[
                io.Combo.Input("profile", options=names, tooltip="A saved profile."),
                io.Int.Input(
                    "layer", default=-1, min=-1, max=9999, tooltip="Its number; -1: all layers."
                ),
                io.Int.Input(
                    "head", default=-1, min=-1, max=9999, tooltip="Its number; -1: all heads."
                ),
                io.Float.Input(
                    "density",
                    default=0.3,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of computed blocks of heads that have no density of their own.",
                ),
                io.Combo.Input(
                    "steps",
                    options=list(STEPS),
                    default="early",
                    tooltip="Which steps' maps, for profiles that tell them apart.",
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
