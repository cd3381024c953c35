"""Kinds of the nodes' inputs, checked when a graph is queued and again when a node runs.

A validate_inputs that takes ** replaces ComfyUI's own checks, and with `input_types` that of links
too. Null and objects stay what they are in a combo or a model, and a link of any type (`*`) brings
whatever its node returns.
"""

from __future__ import annotations

import torch
from comfy_execution.validation import validate_node_input

from .api import io
from .native import paro

# Words of the profile input; a profile of such a name could not be chosen.
AUTO, NONE = PROFILE_WORDS = "auto", "none"
# Inputs of these kinds hold what only a link can bring.
_LINKED_KINDS = (io.Model.io_type, io.Image.io_type)


def check_queued(node, given: dict, links: dict | None) -> tuple[dict, str]:
    """(the values among a queued node's inputs, what is wrong with its links or "").

    given: as ComfyUI hands it over, None for a link. links: the type of each link's output.
    """
    links = links or {}
    values = {name: value for name, value in given.items() if name not in links}
    for one in node.define_schema().inputs:
        kind = one.get_io_type()
        if one.id in links and not validate_node_input(links[one.id], kind):
            return values, f"{one.id} must be linked to a {kind} (got {links[one.id]})"
        if kind in _LINKED_KINDS and one.id in values:
            value = paro.settings.shown(values.pop(one.id))
            return values, f"{one.id} must be linked to a {kind} (got {value})"
    return values, ""


def require_text(name: str, value) -> None:
    """Raises Error unless the value is a text."""
    if not isinstance(value, str):
        raise paro.Error(f"{name} must be a text (got {paro.settings.shown(value)})")


def require_one_of(name: str, value, options: tuple[str, ...]) -> None:
    """Raises Error unless the value is one of the texts."""
    if not isinstance(value, str) or value not in options:
        known = ", ".join(options)
        raise paro.Error(f"{name} must be one of {known} (got {paro.settings.shown(value)})")


def require_model(name: str, value) -> None:
    """Raises Error unless the value is a model that can be patched: ComfyUI's or one like it."""
    options = getattr(value, "model_options", None)
    if not isinstance(options, dict) or not callable(getattr(value, "clone", None)):
        raise paro.Error(f"{name} must be a MODEL (got {paro.settings.shown(value)})")


def require_images(name: str, value) -> None:
    """Raises Error unless the value is one image or more, [count, height, width, channels]."""
    if not isinstance(value, torch.Tensor):
        raise paro.Error(f"{name} must be an IMAGE (got {paro.settings.shown(value)})")
    if value.dim() != 4 or value.numel() == 0 or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}"
        raise paro.Error(f"{name} must be floating-point images, count x H x W x C (got {got})")
