"""A custom node for tests that tells what the server's process holds: GET /probe/memory.

Resident memory alone cannot tell growth from what malloc keeps for later: `in_use` is what was
asked of it and not given back, `resident` is taken after free pages went back to the system.
"""

import ctypes
import gc

from aiohttp import web
from server import PromptServer

_libc = ctypes.CDLL("libc.so.6")


class _MallInfo2(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_libc.mallinfo2.restype = _MallInfo2


@PromptServer.instance.routes.get("/probe/memory")
async def memory(_request):
    """{in_use, resident} in MB, garbage collected first."""
    gc.collect()
    _libc.malloc_trim(0)
    info = _libc.mallinfo2()
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return web.json_response(
        {
            "in_use": (info.uordblks + info.hblkhd) / 2**20,
            "resident": int(line.split()[1]) / 2**10,
        }
    )


NODE_CLASS_MAPPINGS = {}
