"""Demo-only ComfyUI nodes: words to CONDITIONING, and the bundled model's latent to frames.

Installed by run.py into the demo's own ComfyUI folder; no part of the plugin. The extras file is
taken from models/paro_demo if it is there, else from beside this file.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

import comfy.latent_formats
import folder_paths
import numpy as np
from comfy_api.latest import ComfyExtension, io

from .extras import FILE_NAME, PATH, Extras

FOLDER = "paro_demo"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


@lru_cache(maxsize=1)
def extras() -> Extras:
    return Extras(folder_paths.get_full_path(FOLDER, FILE_NAME) or PATH)


class PARODemoPrompt(io.ComfyNode):
    """Three words, 'subject motion object', become the model's text conditioning."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PARODemoPrompt",
            display_name="PARO Demo Prompt",
            category="PARO/demo",
            inputs=[
                io.String.Input(
                    "prompt",
                    default="astronaut right cup",
                    tooltip="Three words: subject, motion, object. Empty: no prompt.",
                )
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def validate_inputs(cls, prompt: str):
        return extras().problem(prompt) or True

    @classmethod
    def execute(cls, prompt: str) -> io.NodeOutput:
        return io.NodeOutput([[extras().context(prompt), {}]])


class PARODemoDecode(io.ComfyNode):
    """The fixed linear decoder. Frames are also kept as numbers, which no PNG has rounded."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PARODemoDecode",
            display_name="PARO Demo Decode",
            category="PARO/demo",
            inputs=[
                io.Latent.Input("samples"),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Keep the frames (F, H, W, 3; -1 to 1, unclipped) as "
                    "output/paro/<name>.npy. Empty: keep nothing.",
                ),
            ],
            outputs=[io.Image.Output()],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str):
        if save_as and not NAME.fullmatch(save_as):
            return f"save_as: letters, digits, '.', '_' and '-' only, at most 80: {save_as!r}"
        return True

    @classmethod
    def execute(cls, samples: dict, save_as: str = "") -> io.NodeOutput:
        # KSampler hands over latents in Wan's own scale; the model's are normalised.
        latent = comfy.latent_formats.Wan21().process_in(samples["samples"].float())
        frames = extras().decode(latent).flatten(0, 1)
        if save_as:
            checked = cls.validate_inputs(save_as)
            if checked is not True:
                raise ValueError(checked)
            folder = os.path.join(folder_paths.get_output_directory(), "paro")
            os.makedirs(folder, exist_ok=True)
            np.save(os.path.join(folder, f"{save_as}.npy"), frames.cpu().numpy())
        return io.NodeOutput(((frames + 1.0) / 2.0).clamp(0.0, 1.0))


class DemoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [PARODemoPrompt, PARODemoDecode]


async def comfy_entrypoint() -> DemoExtension:
    return DemoExtension()
