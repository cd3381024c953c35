"""Plans, data and fp64 references on a GPU."""

from __future__ import annotations

import math

import torch
from paroattention import ORDERS, Plan, _core, reference


# Kinds of data that INT8 attention finds hard, made in place of normal q, k, v (B, H, N, D): as in
# tests/native/test_attention_int8.cpp.
def _channel(q, k, v):
    k[..., 3] += 10


def _value_channels(q, k, v):
    v[..., 5] *= 20
    v[..., 40] *= 8


def _value_tokens(q, k, v):
    v[..., [77, 1234], :] *= 20


def _value_run(q, k, v):
    v[..., 400:430, :] *= 20


def _one_value(q, k, v):
    v[..., 333, 4] *= 100


def _one_channel(q, k, v):
    q[..., 7] *= 40
    k[..., 7] *= 40


def _dominant_key(q, k, v):
    k[..., 100, :] *= 30


def _equal_keys(q, k, v):
    k[:] = 0.1 * torch.arange(k.shape[-1], device=k.device) - 2


HARD = {
    "key channel offset by ten": _channel,
    "value channels with outliers": _value_channels,
    "value tokens twenty times the rest": _value_tokens,
    "a run of value tokens twenty times the rest": _value_run,
    "one value a hundred times the rest": _one_value,
    "one channel of q and k forty times the rest": _one_channel,
    "one dominant key": _dominant_key,
    "all keys equal": _equal_keys,
}


def tensors(heads, length, head_dim, *, batch=1, dtype=torch.bfloat16, seed=0, view="bhnd"):
    """q, k, v on the GPU, normal. view "bnhd": slices of a fused (B, N, 3, H, D), as of models."""
    generator = torch.Generator("cuda").manual_seed(seed)
    make = lambda *shape: torch.randn(shape, device="cuda", generator=generator).to(dtype)  # noqa: E731
    if view == "bhnd":
        return tuple(make(batch, heads, length, head_dim) for _ in range(3))
    fused = make(batch, length, 3, heads, head_dim)
    return tuple(fused[:, :, i].transpose(1, 2) for i in range(3))


def plan(grid, heads, density, *, prefix=0, suffix=0, block_q=64, block_kv=64, seed=0):
    """Random masks, another order in each head; every row keeps a block."""
    rows, cols = (math.ceil(math.prod(grid) / block) for block in (block_q, block_kv))
    generator = torch.Generator().manual_seed(seed)
    entries = []
    for head in range(heads):
        mask = torch.rand(rows, cols, generator=generator) < density
        mask[torch.arange(rows), torch.randint(cols, (rows,), generator=generator)] = True
        order = ORDERS[(head + 1) % len(ORDERS)]
        entries.append(_core.HeadPlan(order, _core.BlockMask(mask.numpy())))
    return Plan(
        grid, prefix=prefix, suffix=suffix, block_q=block_q, block_kv=block_kv, heads=entries
    )


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
