"""The native library, or why it is missing. Nodes register in any case and then run dense."""

from __future__ import annotations

try:
    import paroattention as paro

    MISSING = ""
except Exception as error:
    # Anything may go wrong while a binary loads (missing wheel, other Python, broken libraries).
    paro = None
    MISSING = (
        f"PAROAttention's native library is missing ({type(error).__name__}: {error}). "
        "Install it into ComfyUI's Python: `pip install .` in the folder of this plugin. "
        "Until then everything runs dense."
    )
