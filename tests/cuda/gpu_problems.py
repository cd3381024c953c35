"""Plans and data on a GPU."""

from __future__ import annotations

import math

import torch
from paroattention import ORDERS, Plan, _core
from paroattention.bench.gpu_reference import error, exact_rows  # noqa: F401


# Kinds of data that INT8 attention finds hard, made in place of normal q, k, v (B, H, N, D): as in
# tests/native/cpu/test_attention_int8.cpp.
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
