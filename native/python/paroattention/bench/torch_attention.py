"""Block-sparse attention in plain torch fp32 on any device, for benches on a GPU.

The same definition as `reference` (float64, CPU), batched and with masks kept on the device; the
tests hold the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .. import _core
from ..kernels.cuda_masks import host_plan
from ..kernels.reference import _token_blocks


@dataclass
class HeadMasks:
    """One head of a plan on a device: skipped (N, N) bool, and what the tail needs."""

    skipped: torch.Tensor
    key_block: torch.Tensor  # (grid tokens,) block of each grid token
    key_token: torch.Tensor  # (grid tokens,)
    tail_skipped: torch.Tensor  # (N, blocks) bool: the pooled term is added where True


def head_masks(plan, head: int, device) -> HeadMasks:
    entry = plan.heads[head]
    mask = torch.from_numpy(entry.mask.numpy()).to(device)
    q_block, q_grid = (x.to(device) for x in _token_blocks(plan, entry.order, plan.block_q))
    k_block, k_grid = (x.to(device) for x in _token_blocks(plan, entry.order, plan.block_kv))
    rows = (q_block - math.ceil(plan.prefix / plan.block_q)).clamp(0, mask.shape[0] - 1)
    cols = k_block - math.ceil(plan.prefix / plan.block_kv)
    missing = ~mask[rows] & q_grid[:, None]
    skipped = missing[:, cols.clamp(0, mask.shape[1] - 1)] & k_grid[None, :]
    token = torch.nonzero(k_grid).squeeze(1)
    return HeadMasks(skipped, cols[token], token, missing)


def sparse_head(q, k, v, masks: HeadMasks, scale: float, tail: bool) -> torch.Tensor:
    """q, k, v (B, N, D) float32 of one head -> (B, N, D)."""
    scores = (q @ k.mT).mul_(scale).masked_fill_(masks.skipped, -torch.inf)
    if tail:
        batch, _, dim = k.shape
        blocks = masks.tail_skipped.shape[1]
        count = torch.bincount(masks.key_block, minlength=blocks).to(k.dtype)
        pooled = k.new_zeros(2, batch, blocks, dim)
        pooled[0].index_add_(1, masks.key_block, k[:, masks.key_token])
        pooled[1].index_add_(1, masks.key_block, v[:, masks.key_token])
        mean_k, mean_v = pooled / count[:, None]
        extra = (q @ mean_k.mT).mul_(scale) + count.log()
        extra.masked_fill_(~masks.tail_skipped, -torch.inf)
        scores, v = torch.cat([scores, extra], -1), torch.cat([v, mean_v], 1)
    return torch.softmax(scores, -1) @ v


class TorchAttention:
    """As paroattention.attention without quantisation, in fp32. keep: hold the masks of the plans
    that it has run on their device; for plans that come again."""

    def __init__(self, keep: bool = True):
        self._keeps = keep
        self._masks: dict[tuple[int, str], list[HeadMasks]] = {}
        self._held: list = []  # Plans whose id is a key above must live as long.

    def __call__(
        self, q, k, v, plan, *, sm_scale=None, precision="bf16", tail=True, broken=None
    ) -> torch.Tensor:
        """q, k, v (B, H, N, D) -> the same shape and dtype. broken: as paroattention.attention."""
        if precision == "int8":
            raise _core.Error(f"precision must be bf16 in plain torch (got {precision!r})")
        scale = sm_scale or q.shape[-1] ** -0.5
        heads = [
            sparse_head(*(x[:, h].float() for x in (q, k, v)), masks, scale, tail)
            for h, masks in enumerate(self._masks_of(plan, q))
        ]
        out = torch.stack(heads, 1)
        if broken is not None and not torch.isfinite(out).all():
            broken.fill_(1)
            torch.nan_to_num_(out, nan=0.0, posinf=0.0, neginf=0.0)
        return out.to(q.dtype)

    def _masks_of(self, plan, q) -> list[HeadMasks]:
        key = (id(plan), str(q.device))
        if key in self._masks:
            return self._masks[key]
        own = host_plan(plan)
        found = [head_masks(own, h, q.device) for h in range(q.shape[1])]
        if self._keeps:
            self._held.append(plan)
            self._masks[key] = found
        return found
