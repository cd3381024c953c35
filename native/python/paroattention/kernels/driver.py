"""NVIDIA's driver, asked directly: torch does not pass on what it says of itself."""

from __future__ import annotations

import ctypes
import os

_WINDOWS = os.name == "nt"


def version() -> str:
    """Such as "580.95.05, for CUDA 13.0 and older"; "not found" without a driver."""
    told = ", ".join(part for part in (_release(), _cuda()) if part)
    return told or "not found"


def _release() -> str:
    """The driver's own number, from its management library; "" where that is missing."""
    text = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL("nvml.dll" if _WINDOWS else "libnvidia-ml.so.1")
        if library.nvmlInit_v2():
            return ""
        failed = library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text)))
        library.nvmlShutdown()
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode(errors="replace")


def _cuda() -> str:
    number = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if _WINDOWS else "libcuda.so.1")
        failed = library.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return ""
    if failed:
        return f"does not tell its version (error {failed})"
    return f"for CUDA {number.value // 1000}.{number.value % 1000 // 10} and older"
