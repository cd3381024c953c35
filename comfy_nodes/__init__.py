"""ComfyUI side of PAROAttention: nodes, the attention override, token layouts, profile store."""

from .nodes import ParoExtension

WEB_DIRECTORY = None


async def comfy_entrypoint() -> ParoExtension:
    return ParoExtension()
