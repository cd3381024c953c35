"""Recorded allocations: newer versions of ComfyUI record what a block of the model allocates.

The record must repeat from step to step, and nothing in it may outlive its block. What we keep, or
allocate as the data want it, would break that, and a breach can end the process. So everything of
ours in a block is done while the recording is paused.
"""

from __future__ import annotations

import contextlib

try:
    from comfy import model_prefetch
except ImportError:
    model_prefetch = None


def paused():
    """A context in which allocations are not recorded; does nothing where ComfyUI records none."""
    pause = getattr(model_prefetch, "pause_malloc_graph", None)
    return contextlib.nullcontext() if pause is None else pause()
