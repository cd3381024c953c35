"""ComfyUI's interface for nodes: the version that stays as it is, where ComfyUI has it.

`latest` may change under a plugin with any release of ComfyUI.
"""

from __future__ import annotations

try:
    from comfy_api.v0_0_2 import ComfyExtension, io, ui
except ImportError:
    from comfy_api.latest import ComfyExtension, io, ui

# Where ComfyUI's menu lists our nodes.
CATEGORY = "PARO"

__all__ = ["CATEGORY", "ComfyExtension", "io", "ui"]
