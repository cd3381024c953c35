"""Run by Windows' Python, with numpy and without torch: `_core` of the installed wheel.

Loads it as the package would, makes a plan, and has bad input refused. Prints one line of JSON.
"""

import importlib.util
import json
import platform
import sys
import types

import numpy as np

# The package itself needs torch, which only one of the Pythons has.
spec = importlib.util.find_spec("paroattention")
package = types.ModuleType("paroattention")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["paroattention"] = package

from paroattention import _core  # noqa: E402

GRID = (3, 6, 8)


def plan():
    """Half of the blocks for a head in every order."""
    bins = _core.Bins.even(GRID)
    values = np.random.default_rng(7).random(len(bins)).astype(np.float32)
    heads = []
    for order in _core.ORDERS:
        blocks = _core.importance(bins, values, GRID, order, 16, 16)
        heads.append(_core.plan_head(blocks, 0.5))
    return _core.Plan(GRID, prefix=5, suffix=7, block_q=16, block_kv=16, heads=heads)


def refusal(call):
    """What a call is refused with; "" where it is not, or by something else than Error."""
    try:
        call()
    except _core.Error as error:
        return str(error)
    return ""


made = plan()
shares = [float(head.mask.numpy().mean()) for head in made.heads]
sizes = {"prefix": 0, "suffix": 0, "block_q": 64, "block_kv": 64}
print(
    json.dumps(
        {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "core": _core.__version__,
            "kernels": _core.active_isa(),
            "heads": made.head_count,
            "tokens": made.length,
            "words": len(_core.plan_words(made)),
            "shares": [round(share, 3) for share in shares],
            "refused": refusal(lambda: _core.Plan((0, 2, 3), heads=[], **sizes)),
            "refused_text": refusal(lambda: _core.Profile.parse("{")),
        }
    )
)
