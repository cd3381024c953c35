"""Heads whose attention is shifted by so many frames, and runs of them."""

import numpy as np
import torch
from fake_host import Host
from paroattention import Settings, TokenLayout, _core

GRID = (6, 8, 8)
LAYOUT = TokenLayout(GRID, prefix=5, suffix=3)
SCALE = 64**-0.5


def exact_maps(qkv, orders, block_q, block_kv, layout=LAYOUT):
    """A BlockMap a head from full attention."""
    found = []
    grid = slice(layout.prefix, layout.prefix + layout.grid_size)
    rows = torch.softmax((qkv[0][0] @ qkv[1][0].mT).float() * SCALE, -1)[:, grid, grid]
    for head, order in enumerate(orders):
        blocks = _core.empty_map(layout.grid, order, block_q, block_kv)
        places = np.arange(layout.grid_size, dtype=np.int32)
        _core.accumulate_rows(blocks, layout.grid, places, rows[head].numpy())
        found.append(blocks)
    return found


def shifted(frames, heads=2, seed=0):
    """q, k, v of a grid whose tokens look at those of the frame `frames` later, around the end."""
    place = torch.arange(GRID[0]).repeat_interleave(GRID[1] * GRID[2])
    looked = torch.nn.functional.one_hot((place + frames) % GRID[0], 64).float()
    own = torch.nn.functional.one_hot(place, 64).float()
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn((1, heads, len(place), 64), generator=generator)
    q, k = (9 * x.expand(1, heads, -1, -1) for x in (looked, own))
    return q, k, v


def run_shifted(frames, settings=None, *, on_device=None, **options):
    """A run whose heads look frames[step] on; density .2 holds little more than one such shift.

    on_device: the observer's, where samples are to be watched as on a GPU.
    """
    settings = settings or Settings(observe_steps=2, density=0.2, dense_below=0.0)
    host = Host(settings, grid=GRID, **options)
    if on_device is not None:
        host.session.observer.on_device = on_device
    for sigma, shift in zip(host.session.steps.sigmas[:-1], frames, strict=True):
        qkv = shifted(shift)
        forward = host.session.begin_forward(sigma)
        for layer in host.layers:
            host.call(forward, layer, qkv)
    return host, host.session.finish()


def retained_at(host, step):
    return np.mean([line["retained"] for line in host.lines if line["step"] == step])
