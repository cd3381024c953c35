"""Refuses a Python without torch, or with one that is too old, before anything else is imported.

The package does not ask pip for torch: pip would exchange the one that ComfyUI came with.
"""

import re

NEEDED = (2, 9)


def problem(installed: str | None) -> str:
    """What is wrong with an installed version of torch, None where there is none; or ""."""
    needed = ".".join(map(str, NEEDED))
    if installed is None:
        return f"paroattention needs torch {needed} or newer, and this Python has none"
    found = re.match(r"(\d+)\.(\d+)", installed)
    if found and tuple(map(int, found.groups())) < NEEDED:
        return (
            f"paroattention needs torch {needed} or newer, and this Python has {installed}:"
            " update ComfyUI with its torch"
        )
    return ""


try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(problem(None), name="torch") from None
if told := problem(torch.__version__):
    raise ImportError(told, name="torch")
