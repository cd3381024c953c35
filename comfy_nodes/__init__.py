"""ComfyUI side of PAROAttention: nodes, attention override, token layouts, profiles, page."""

from comfy.model_management import get_torch_device

# Importing routes adds them to ComfyUI's server.
from . import console_log, first_test, routes, viewer_routes  # noqa: F401
from .nodes import ParoExtension

console_log.begin()
# From the plugin's root, as ComfyUI reads it.
WEB_DIRECTORY = "./comfy_nodes/web"


async def comfy_entrypoint() -> ParoExtension:
    first_test.begin(get_torch_device())
    return ParoExtension()
