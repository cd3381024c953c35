"""Our log's lines as the console can take them.

ComfyUI's streams raise where a console's encoding lacks a character (ASCII, or a code page of
Windows that is written to a file), and logging then raises too: a profile's name in another
alphabet would end ComfyUI's worker, and with it the server's work. So such characters are escaped.
"""

from __future__ import annotations

import logging
import sys


class Encodable(logging.Filter):
    """Changes a record so that every console of this process can show it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            # The formatter takes this text in place of its own. It names files.
            record.exc_text = shown(logging.Formatter().formatException(record.exc_info))
        return True


def shown(text: str) -> str:
    """The text with escapes for what a console lacks."""
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def begin() -> None:
    """From now on, for all that is logged as ours. Once."""
    log = logging.getLogger("paroattention")
    if not any(isinstance(one, Encodable) for one in log.filters):
        log.addFilter(Encodable())
