"""What ranks tell each other: a small JSON part and arrays, as bytes."""

from __future__ import annotations

import io
import json

import numpy as np

_TEXT = "told"


def packed(told: dict, arrays: dict[str, np.ndarray] | None = None) -> bytes:
    """told: what JSON can hold. arrays: by name; none may be called "told"."""
    text = json.dumps(told, allow_nan=False).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **{_TEXT: np.frombuffer(text, np.uint8)}, **(arrays or {}))
    return buffer.getvalue()


def unpacked(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """(told, arrays) of what `packed` made."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    return json.loads(arrays.pop(_TEXT).tobytes()), arrays
