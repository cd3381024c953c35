"""Small attention problems, plans, observers and profiles that the tests share."""

from __future__ import annotations

import numpy as np
import torch
from paroattention import ORDERS, ModelInfo, Observer, Plan, Settings, TokenLayout, _core
from paroattention.plan.profile_build import build_profile

MODEL = ModelInfo("wan2.1", "ab" * 32)
GRID = (3, 6, 8)


def tensors(heads, length, head_dim, *, dtype=torch.float32, batch=1, seed=0):
    """q, k, v with logits of standard deviation 1, and keys that have a common shift."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, length, head_dim)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    k += 2 * torch.randn((batch, heads, 1, head_dim), generator=generator)
    return tuple(x.to(dtype) for x in (q, k, v))


def random_plan(layout: TokenLayout, heads: int, density: float, *, block_q=64, block_kv=64):
    """Another order for each head, and masks that follow no pattern."""
    draws = np.random.default_rng(7)
    bins = _core.Bins.even(layout.grid)
    plans = []
    for head in range(heads):
        values = draws.random(len(bins)).astype(np.float32)
        order = ORDERS[(head + 1) % len(ORDERS)]
        blocks = _core.importance(bins, values, layout.grid, order, block_q, block_kv)
        plans.append(_core.plan_head(blocks, density))
    return Plan(
        layout.grid,
        prefix=layout.prefix,
        suffix=layout.suffix,
        block_q=block_q,
        block_kv=block_kv,
        heads=plans,
    )


def observed(
    *, grid=GRID, layers=("double.0.0", "double.1.0"), heads=2, head_dim=64, groups=(0,), seed=0
):
    """An Observer that has watched random q, k of every layer once per group."""
    observer, layout = Observer(queries=32, seed=seed), TokenLayout(grid)
    for number, layer in enumerate(layers):
        for group in groups:
            q, k, _ = tensors(heads, layout.length, head_dim, seed=100 * seed + 10 * number + group)
            observer.observe(layer, q, k, layout, sm_scale=head_dim**-0.5, group=group)
    return observer


def profile(*, groups=((1.0, 0.0),), model=MODEL, density=0.3, **options):
    """A Profile of random attention, no head kept dense; options as of `observed`."""
    observer = observed(groups=range(len(groups)), **options)
    settings = Settings(density=density, dense_below=0.0)
    return build_profile(observer, model, settings, list(groups), steps=8, sampler="euler")
