"""Plain torch references in float64: dense attention, and block-sparse attention with the tail.

Slow and memory-hungry by design; the oracle of the tests and of users who doubt a kernel.
"""

from __future__ import annotations

import math

import torch

from .. import _core


def dense(q, k, v, sm_scale: float | None = None) -> torch.Tensor:
    """softmax(q k^T sm_scale) v in float64; q, k, v (B, H, N, D)."""
    q, k, v = (x.double() for x in (q, k, v))
    scale = sm_scale if sm_scale else q.shape[-1] ** -0.5
    return torch.softmax(q @ k.transpose(-1, -2) * scale, -1) @ v


def _token_blocks(plan, order: str, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For every original token its block index and whether it is a grid token."""
    index = torch.from_numpy(
        _core.pack_index(plan.prefix, plan.grid, plan.suffix, order, block)
    ).long()
    place = torch.nonzero(index >= 0).squeeze(1)
    blocks = torch.empty(plan.length, dtype=torch.long)
    blocks[index[place]] = place // block
    token = torch.arange(plan.length)
    end = plan.length - plan.suffix
    return blocks, (token >= plan.prefix) & (token < end)


def token_mask(plan, head: int) -> torch.Tensor:
    """[N, N] bool: which (query, key) token pairs the plan computes for a head."""
    entry = plan.heads[head]
    q_block, q_grid = _token_blocks(plan, entry.order, plan.block_q)
    k_block, k_grid = _token_blocks(plan, entry.order, plan.block_kv)
    mask = torch.from_numpy(entry.mask.numpy())
    q_first = math.ceil(plan.prefix / plan.block_q)
    k_first = math.ceil(plan.prefix / plan.block_kv)
    rows = (q_block - q_first).clamp(0, mask.shape[0] - 1)
    cols = (k_block - k_first).clamp(0, mask.shape[1] - 1)
    inside = mask[rows][:, cols]
    return inside | ~(q_grid[:, None] & k_grid[None, :])


def _tail_terms(plan, head: int, q, k, v, scale):
    """Scores [N, blocks] (-inf where the block is computed) and mean values [blocks, D]."""
    entry = plan.heads[head]
    mask = torch.from_numpy(entry.mask.numpy())
    k_block, k_grid = _token_blocks(plan, entry.order, plan.block_kv)
    q_block, q_grid = _token_blocks(plan, entry.order, plan.block_q)
    member = torch.zeros(mask.shape[1], plan.length, dtype=torch.float64)
    token = torch.nonzero(k_grid).squeeze(1)
    member[k_block[token] - math.ceil(plan.prefix / plan.block_kv), token] = 1.0
    count = member.sum(1, keepdim=True)
    mean_k, mean_v = member @ k / count, member @ v / count
    rows = (q_block - math.ceil(plan.prefix / plan.block_q)).clamp(0, mask.shape[0] - 1)
    skipped = ~mask[rows] & q_grid[:, None]
    scores = q @ mean_k.T * scale + count.log().T
    return scores.masked_fill(~skipped, -torch.inf), mean_v


def sparse(q, k, v, plan, *, sm_scale: float | None = None, tail: bool = False) -> torch.Tensor:
    """Block-sparse attention of a plan in float64, with the pooled tail if asked; (B, H, N, D)."""
    out = torch.empty(q.shape, dtype=torch.float64)
    scale = sm_scale if sm_scale else q.shape[-1] ** -0.5
    for head in range(q.shape[1]):
        inside = token_mask(plan, head)
        for batch in range(q.shape[0]):
            qh, kh, vh = (x[batch, head].double() for x in (q, k, v))
            scores = (qh @ kh.T * scale).masked_fill(~inside, -torch.inf)
            if tail:
                extra, mean_v = _tail_terms(plan, head, qh, kh, vh, scale)
                scores, vh = torch.cat([scores, extra], 1), torch.cat([vh, mean_v], 0)
            out[batch, head] = torch.softmax(scores, -1) @ vh
    return out


def relative_error(out: torch.Tensor, ref: torch.Tensor) -> float:
    """||out - ref|| / ||ref|| in float64; inf if out is not finite."""
    out, ref = out.double(), ref.double()
    if not torch.isfinite(out).all():
        return math.inf
    return float((out - ref).norm() / ref.norm().clamp_min(1e-300))
