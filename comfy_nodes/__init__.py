"""ComfyUI side of PAROAttention: nodes, attention override, token layouts, profiles, page."""

from . import routes  # noqa: F401  (adds the page's routes to ComfyUI's server)
from .nodes import ParoExtension

# From the plugin's root, as ComfyUI reads it.
WEB_DIRECTORY = "./comfy_nodes/web"


async def comfy_entrypoint() -> ParoExtension:
    return ParoExtension()
