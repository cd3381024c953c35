"""fp64 references on a GPU, for sequences whose whole score matrix would not fit."""

from __future__ import annotations

import math

import torch

from ..kernels import reference


def _pooled(x: torch.Tensor, block: torch.Tensor, blocks: int) -> torch.Tensor:
    """Means of x (..., tokens, D) over blocks: block[i] is that of token i."""
    sums = x.new_zeros((*x.shape[:-2], blocks, x.shape[-1])).index_add_(-2, block, x)
    return sums / torch.bincount(block, minlength=blocks).to(x.dtype)[:, None]


def exact_rows(q, k, v, plan, rows, *, batch=0, head=0, scale=None, tail=False):
    """fp64 attention of some query rows of one head, on the device of q: [len(rows), D].

    q, k, v: (B, H, N, D). rows: their original places. batch: the entry, or slice(None) for all of
    them, which gives [B, len(rows), D]. scale: 1/sqrt(D) where it is None.
    """
    entry, device = plan.heads[head], q.device
    mask = torch.from_numpy(entry.mask.numpy()).to(device)
    sides = (plan.block_q, plan.block_kv)
    (q_block, q_grid), (k_block, k_grid) = (
        (x.to(device) for x in reference._token_blocks(plan, entry.order, side)) for side in sides
    )
    rows = rows.to(device)
    first_q, first_k = (math.ceil(plan.prefix / side) for side in sides)
    mask_rows = mask[(q_block[rows] - first_q).clamp(0, mask.shape[0] - 1)]
    k_col = (k_block - first_k).clamp(0, mask.shape[1] - 1)
    inside = mask_rows[:, k_col] | ~(q_grid[rows][:, None] & k_grid[None, :])
    qh, kh, vh = (x[batch, head].double() for x in (q, k, v))
    qh = qh[..., rows, :] * (scale or q.shape[-1] ** -0.5)
    scores = (qh @ kh.mT).masked_fill(~inside, -torch.inf)
    if tail:
        col, blocks = k_col[k_grid], mask.shape[1]
        mean_k, mean_v = (_pooled(x[..., k_grid, :], col, blocks) for x in (kh, vh))
        count = torch.bincount(col, minlength=blocks).double()
        skipped = ~mask_rows & q_grid[rows][:, None]
        extra = (qh @ mean_k.mT + count.log()).masked_fill(~skipped, -torch.inf)
        scores, vh = torch.cat([scores, extra], -1), torch.cat([vh, mean_v], -2)
    return torch.softmax(scores, -1) @ vh


def error(o, q, k, v, plan, *, tail=False, scale=None, rows=512, heads=None):
    """Relative error of o to fp64 over sampled rows of some heads; inf if not all is finite."""
    if not torch.isfinite(o).all():
        return math.inf
    difference = norm = 0.0
    batch, all_heads, length, _ = q.shape
    for b in range(batch):
        for head in heads if heads is not None else range(all_heads):
            chosen = torch.arange(length) if length <= rows else torch.randperm(length)[:rows]
            want = exact_rows(q, k, v, plan, chosen, batch=b, head=head, scale=scale, tail=tail)
            got = o[b, head][chosen.to(o.device)].double()
            difference += float((got - want).square().sum())
            norm += float(want.square().sum())
    return math.sqrt(difference / max(norm, 1e-300))
