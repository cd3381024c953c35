"""Run by Windows' Python with torch: the operators of the installed wheel. One line of JSON."""

import json

import paroattention
import torch
from paroattention import _core
from paroattention.kernels import cuda, operators


def refusal() -> str:
    """What a call with tensors of the processor ends with: the kernels are a GPU's."""
    x = torch.zeros(1, 3, 10, 64)
    try:
        torch.ops.paro.block_importance(
            x, x, torch.zeros(3, dtype=torch.int32), 0, 1, 2, 5, 0, 0.1, 0
        )
    except NotImplementedError as error:
        return str(error).splitlines()[0]
    return ""


missing = cuda.load()
found = {}
if missing is None:
    for name in operators.FAKES:
        both = (getattr(torch.ops.paro, name), getattr(torch.ops.paro_native, name))
        found[name] = [sorted(packet.overloads()) for packet in both]
print(
    json.dumps(
        {
            "missing": missing,
            "torch": torch.__version__,
            "package": paroattention.__version__,
            "kernels": _core.active_isa(),
            "wanted": sorted(operators.FAKES),
            "operators": {name: defined for name, (defined, _) in found.items()},
            "alike": all(defined == native for defined, native in found.values()),
            "refused": refusal() if missing is None else "",
        }
    )
)
