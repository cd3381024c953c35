"""fp64 references on a GPU, for sequences whose whole score matrix would not fit."""

from __future__ import annotations

import math

import torch

from ..kernels import reference


def exact_rows(q, k, v, plan, rows, *, batch=0, head=0, scale=None, tail=False):
    """fp64 attention of some query rows of one head on the GPU: [len(rows), D]."""
    entry = plan.heads[head]
    mask = torch.from_numpy(entry.mask.numpy())
    q_block, q_grid = reference._token_blocks(plan, entry.order, plan.block_q)
    k_block, k_grid = reference._token_blocks(plan, entry.order, plan.block_kv)
    first_q, first_k = (math.ceil(plan.prefix / b) for b in (plan.block_q, plan.block_kv))
    mask_rows = mask[(q_block[rows] - first_q).clamp(0, mask.shape[0] - 1)]
    k_col = (k_block - first_k).clamp(0, mask.shape[1] - 1)
    inside = mask_rows[:, k_col] | ~(q_grid[rows][:, None] & k_grid[None, :])
    qh, kh, vh = (x[batch, head].double() for x in (q, k, v))
    qh = qh[rows.to(qh.device)] * (scale or q.shape[-1] ** -0.5)
    scores = (qh @ kh.T).masked_fill(~inside.to(qh.device), -torch.inf)
    if tail:
        grid_tokens = torch.nonzero(k_grid).squeeze(1)
        col = k_col[grid_tokens].to(qh.device)
        count = torch.bincount(col, minlength=mask.shape[1]).double()
        pool = lambda x: (  # noqa: E731
            torch.zeros(mask.shape[1], x.shape[1], dtype=x.dtype, device=x.device).index_add_(
                0, col, x[grid_tokens.to(x.device)]
            )
            / count[:, None]
        )
        skipped = (~mask_rows & q_grid[rows][:, None]).to(qh.device)
        extra = (qh @ pool(kh).T + count.log()).masked_fill(~skipped, -torch.inf)
        scores, vh = torch.cat([scores, extra], 1), torch.cat([vh, pool(vh)], 0)
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
