"""What the node shows while it runs: a bar and a few lines of text."""

from __future__ import annotations

import comfy.utils
from server import PromptServer


class NodeProgress:
    """Callable (text, step, steps) for a session. Silent without a server or node id."""

    def __init__(self, node_id: str | None):
        self.node_id = node_id
        self._bar = None
        self._last = ""

    def __call__(self, text: str, step: int, steps: int) -> None:
        # Without a server (tests, scripts) PromptServer has no instance.
        server = getattr(PromptServer, "instance", None)
        if server is None or not self.node_id:
            return
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(steps, node_id=self.node_id)
        # A bar stays "running" until it stands at its maximum: the last call of a run sets it.
        self._bar.update_absolute(step, steps)
        if text != self._last:
            self._last = text
            server.send_progress_text(text, self.node_id)
