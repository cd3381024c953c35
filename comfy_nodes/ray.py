"""PARO Attention for Raylight's workers: its settings reach them in a file, as nodes do not.

Raylight runs a model in a process for each GPU. Its own decorator sends a function to all of them;
that function must lie in a package that they can import, which is the library and not this plugin.
"""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

from . import store
from .api import CATEGORY, io
from .folders import private_folder, user_folders
from .inputs import NONE, require_text
from .native import paro

MISSING = "Raylight is not loaded: install it beside this plugin, and restart ComfyUI"


def nodes() -> list[type[io.ComfyNode]]:
    """The node, where Raylight lies among ComfyUI's plugins. It may be loaded after this one."""
    folders = map(Path, folder_paths.get_folder_paths("custom_nodes"))
    there = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    found = any((path / "src" / "raylight" / "__init__.py").is_file() for path in there)
    return [PAROAttentionRaylight] if found else []


def file_of(node_id: str | None) -> Path:
    """Where a node's settings lie for the workers."""
    name = re.sub(r"\W+", "-", str(node_id or "node"))[:40]
    return private_folder() / f"raylight-{name}.json"


class PAROAttentionRaylight(io.ComfyNode):
    """As PARO Attention, for a model in Raylight's workers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PAROAttentionRaylight",
            display_name="PARO Attention (Raylight)",
            category=CATEGORY,
            description=(
                "PARO Attention on several GPUs. Put it between Raylight's model loader and its "
                "sampler. Each GPU computes some heads. Raylight's ring degree must be 1."
            ),
            inputs=[
                io.Custom("RAY_ACTORS").Input("ray_actors"),
                io.Combo.Input(
                    "profile",
                    options=[NONE, *store.names()],
                    default=NONE,
                    tooltip="none: every run watches its first steps. Or choose a saved profile.",
                ),
                io.Float.Input("density", default=0.3, min=0.05, max=1.0, step=0.05),
                io.Combo.Input("precision", options=["int8", "bf16"], default="int8"),
                io.Combo.Input("mask", options=["static", "dynamic"], default="static"),
                io.Boolean.Input("tail", default=True),
                io.Int.Input("observe_steps", default=4, min=0, max=1000),
                io.String.Input("save_as", default=""),
                io.Boolean.Input(
                    "move_heads",
                    default=False,
                    tooltip="Send heads from one GPU to another after Raylight's own exchange, "
                    "where that evens out their work. It pays where the GPUs are linked by NVLink "
                    "and some heads are dense.",
                ),
            ],
            outputs=[io.Custom("RAY_ACTORS").Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, ray_actors, profile, density, precision, mask, tail, observe_steps, save_as, move_heads
    ) -> io.NodeOutput:
        try:
            from raylight.comfy_extra_dist.ray_patch_decorator import ray_patch
        except ImportError as error:
            raise paro.Error(MISSING) from error
        require_text("profile", profile)
        require_text("save_as", save_as)
        if profile != NONE:
            store.load(profile)
        settings = paro.Settings(
            density=density, precision=precision, mask=mask, tail=tail, observe_steps=observe_steps
        )
        folders = tuple(map(str, (*user_folders(), store.SHIPPED)))
        given = paro.raylight.Given(settings, profile, folders, save_as, move_heads)
        file = file_of(cls.hidden.unique_id if cls.hidden else None)
        paro.raylight.write(file, given)
        (patched,) = ray_patch(paro.raylight.patch_worker)(None, ray_actors, str(file))
        return io.NodeOutput(patched)
