"""What the kernels can take: for each operator one function that says why not, in a sentence.

The functions never raise, touch no data and are asked once a call.
"""

from __future__ import annotations

import torch

from .. import _core
from ..limits import DTYPES, HEAD_DIMS, TILES, one_of
from . import cuda, trust


def unsupported(q: torch.Tensor, plan=None, precision: str = "") -> str | None:
    """Why `attention` cannot take q (B, H, N, D); None where it can.

    plan: what has block_q and block_kv, a Plan or Settings, if the tile is to be looked at too.
    precision: if kernels are to be left out that the self-test of this GPU found wrong.
    """
    if q.device.type not in ("cpu", "cuda"):
        return f"no kernel for device {q.device.type} in this build"
    on_gpu = q.device.type == "cuda"
    if on_gpu and (missing := cuda.load()):
        return missing
    if q.dtype not in DTYPES:
        return f"dtype {q.dtype} is not {one_of(DTYPES.values())}"
    if q.shape[-1] not in HEAD_DIMS:
        return f"head_dim {q.shape[-1]} is not {one_of(HEAD_DIMS)}"
    if not on_gpu:
        return None
    major, minor = torch.cuda.get_device_capability(q.device)
    if major < 8:
        return f"the GPU has compute capability {major}.{minor}, the kernels need 8.0"
    if plan is None:
        return None
    tile = (plan.block_q, plan.block_kv)
    if refused := _tile_refused(*tile):
        return refused
    if precision and trust.path(q.device, precision, q.shape[-1], tile) is None:
        return (
            f"the self-test found the {precision} kernel for head_dim {q.shape[-1]} wrong on this"
            " GPU: update NVIDIA's driver, or send the output of `python -m paroattention doctor`"
        )
    return None


def _tile_refused(block_q: int, block_kv: int) -> str | None:
    for name, block in (("block_q", block_q), ("block_kv", block_kv)):
        if block not in TILES:
            return f"{name} {block} is not {one_of(TILES)}"
    return None


def fast_at_density_1(q: torch.Tensor) -> bool:
    """Whether the int8 kernel that q would get computes all blocks faster than torch's dense
    attention: on GPUs, and on processors with AVX-512 VNNI."""
    return q.device.type == "cuda" or "vnni" in _core.active_isa()


def observed_in_torch(q: torch.Tensor, tile: tuple[int, int] = TILES[:1] * 2) -> str | None:
    """Why `ObserveState.observe`, `meter` (of masks in this tile) and `find_masks` compute q in
    plain torch; None where a kernel does."""
    if q.device.type != "cuda":
        return f"no kernel for device {q.device.type}"
    return unsupported(q) or _tile_refused(*tile)


def summed_in_torch(q: torch.Tensor, block_q: int, block_kv: int) -> str | None:
    """Why `block_importance` computes q in plain torch; None where a kernel does."""
    for name, block in (("block_q", block_q), ("block_kv", block_kv)):
        if block % TILES[0]:
            return f"{name} {block} is no multiple of {TILES[0]}"
    return observed_in_torch(q)
