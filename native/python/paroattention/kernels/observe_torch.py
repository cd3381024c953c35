"""What cuda_observe computes, in plain torch on any device: fallback and oracle of the tests.

Scores and softmax in float32, sums over rows and bins in float64 where the device has it. Nothing
here reads a value back to the host.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from .. import _core
from ..layout import permutation

# Scores held at once: memory stays bounded.
_MAX_SCORES = 1 << 22


def sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


@functools.lru_cache(maxsize=64)
def axis_tables(bins_key: tuple, sides: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    """Per axis of side S the bin of every offset -(S - 1) .. S - 1, int64 on the CPU."""
    bins = _core.Bins(*(list(edges) for edges in bins_key))
    h, w = len(bins.H), len(bins.W)
    f_side, h_side, w_side = sides
    axis_f = [bins.index(d, 0, 0) // (h * w) for d in range(1 - f_side, f_side)]
    axis_h = [bins.index(0, d, 0) // w % h for d in range(1 - h_side, h_side)]
    axis_w = [bins.index(0, 0, d) % w for d in range(1 - w_side, w_side)]
    return tuple(torch.tensor(axis) for axis in (axis_f, axis_h, axis_w))


def entry_of(count: int, batch: int) -> torch.Tensor:
    """The batch entry that each of `count` queries of a head is looked at in: even, in order."""
    return torch.arange(count) * batch // count


def columns_of(entry: int, count: int, batch: int) -> slice:
    return slice(-(-entry * count // batch), -(-(entry + 1) * count // batch))


def head_slices(heads: int, scores_per_head: int) -> list[slice]:
    step = max(1, _MAX_SCORES // max(1, scores_per_head))
    return [slice(first, min(first + step, heads)) for first in range(0, heads, step)]


def scores_of(q, k, places, prefix, scale) -> torch.Tensor:
    """Scores [H, m, N] of the grid queries `places` [H, m] of one batch entry, float32."""
    index = (places.long() + prefix)[..., None].expand(-1, -1, q.shape[-1])
    rows = torch.gather(q, 1, index).float()
    return torch.matmul(rows, k.float().transpose(-1, -2)) * scale


def softmax_rows(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(probabilities, which rows are finite [..., 1]); rows that are not become zeros."""
    p = torch.softmax(scores, -1)
    fine = torch.isfinite(p.sum(-1, keepdim=True))
    return torch.where(fine, p, torch.zeros_like(p)), fine


def observe(q, k, layout, places, scale, tables, counts, total, pairs, rows, kept) -> None:
    """Adds to total and pairs [H, bins] and rows [H, 2] (counted, left out); fills kept's rows.

    counts: bins per axis. kept: (heads, float16 [len(heads), n, grid tokens]) or None.
    """
    batch, heads = q.shape[:2]
    count = places.shape[1]
    for entry in range(batch):
        columns = columns_of(entry, count, batch)
        width = columns.stop - columns.start
        for part in head_slices(heads, width * layout.length):
            own = places[part, columns]
            p, fine = softmax_rows(
                scores_of(q[entry, part], k[entry, part], own, layout.prefix, scale)
            )
            p = p[..., layout.prefix : layout.prefix + layout.grid_size]
            if kept is not None:
                for slot, head in enumerate(kept[0]):
                    if part.start <= head < part.stop:
                        kept[1][slot, columns] = p[head - part.start].half()
            added, seen = bin_rows(p, fine, own, layout.grid, tables, counts, total.dtype)
            total[part] += added
            pairs[part] += seen
            good = fine.sum((1, 2))
            rows[part, 0] += good
            rows[part, 1] += width - good


def bin_rows(p, fine, places, grid, tables, counts, dtype):
    """(sum, pairs) [H, bins] of rows p [H, m, grid tokens], one axis after the other."""
    heads, width = places.shape
    f, h, w = grid
    place = places.long().reshape(-1)
    coordinates = (place // (h * w), place // w % h, place % w)
    hot = []
    for table, side, bins, at in zip(tables, grid, counts, coordinates, strict=True):
        offset = torch.arange(side, device=p.device)[None] - at[:, None] + side - 1
        hot.append(torch.nn.functional.one_hot(table[offset], bins).to(dtype))
    x = p.reshape(-1, f * h, w).to(dtype) @ hot[2]
    x = hot[1].transpose(1, 2)[:, None] @ x.view(-1, f, h, counts[2])
    x = hot[0].transpose(1, 2) @ x.flatten(2)
    added = x.reshape(heads, width, -1).sum(1)
    keys = [axis.sum(1) * 1.0 for axis in hot]
    seen = (keys[0][:, :, None] * keys[1][:, None])[..., None] * keys[2][:, None, None]
    seen = seen.view(heads, width, -1) * fine.to(dtype)
    return added, seen.sum(1)


# -- the meter ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _block_of_token(grid, order: str, block: int, device: torch.device) -> torch.Tensor:
    """Grid block of each grid token (original order)."""
    return (permutation(tuple(grid), order)[1] // block).to(device)


def meter(q, k, v, orders, masks, layout, tile, places, scale, tail) -> torch.Tensor:
    """[H, 2] float32: retained grid mass, and sum |o_sparse - o|^2 / sum |o|^2.

    masks: [H, rows, cols] bool on the device of q. tile: (block_q, block_kv).
    """
    batch, heads = q.shape[:2]
    count = places.shape[1]
    sums = torch.zeros(heads, 4, dtype=sum_dtype(q.device), device=q.device)
    for entry in range(batch):
        columns = columns_of(entry, count, batch)
        if columns.stop == columns.start:
            continue
        for head in range(heads):
            own = slice(head, head + 1)
            scores = scores_of(
                q[entry, own], k[entry, own], places[own, columns], layout.prefix, scale
            )[0]
            row = places[head, columns].long()
            sums[head] += _meter_head(
                scores,
                None if v is None else v[entry, head].float(),
                orders[head],
                masks[head],
                layout,
                tile,
                row,
                tail,
            )
    return torch.stack([sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]], 1).float()


def _meter_head(scores, v, order, mask, layout, tile, row, tail):
    """Mass inside, mass, squared error and squared norm of the rows of one head."""
    device, cols = scores.device, mask.shape[1]
    begin, end = layout.prefix, layout.prefix + layout.grid_size
    q_block = _block_of_token(layout.grid, order, tile[0], device)[row]
    k_block = _block_of_token(layout.grid, order, tile[1], device)
    p, fine = softmax_rows(scores)
    computed = mask[q_block]  # [m, cols]
    inside = computed[:, k_block]
    weights = p.clone()
    grid = p[:, begin:end]
    if tail:
        tokens = torch.bincount(k_block, minlength=cols)
        mean = torch.zeros(len(row), cols, device=device)
        mean = mean.index_add(1, k_block, scores[:, begin:end]) / tokens
        pooled = torch.exp(mean - torch.logsumexp(scores, 1, keepdim=True))[:, k_block]
    else:
        pooled = torch.zeros_like(grid)
    weights[:, begin:end] = torch.where(inside, grid, pooled)
    # Without values: the mass alone.
    exact = p @ v if v is not None else torch.zeros(len(row), 1, device=device)
    sparse = weights @ v / weights.sum(1, keepdim=True) if v is not None else exact
    keep = fine & torch.isfinite(exact.sum(1, keepdim=True) + sparse.sum(1, keepdim=True))
    zero = torch.zeros((), device=device)
    both = torch.where(keep, (sparse - exact).square(), zero).sum()
    norm = torch.where(keep, exact.square(), zero).sum()
    mass = torch.where(keep & inside, grid, zero).sum()
    return torch.stack([mass, torch.where(keep, grid, zero).sum(), both, norm]).to(
        sum_dtype(device)
    )


# -- masks found on the fly --------------------------------------------------------------------


def pooled(x, order: str, layout, block: int) -> torch.Tensor:
    """Mean row of each grid block of x (N, D) in an order, float32 [blocks, D]."""
    places = permutation(tuple(layout.grid), order)[0].to(x.device) + layout.prefix
    first = torch.arange(0, len(places), block, device=x.device)
    # Gathers and averages in one pass: a third of the time of doing one after the other.
    return torch.nn.functional.embedding_bag(places, x.float(), first, mode="mean")


def block_tokens(grid_size: int, block: int, device) -> torch.Tensor:
    blocks = -(-grid_size // block)
    tokens = torch.full((blocks,), float(block), device=device)
    tokens[-1] = grid_size - (blocks - 1) * block
    return tokens


def block_scores(q, k, orders, layout, tile, scale) -> torch.Tensor:
    """Softmax over grid key blocks of pooled q and k, mean over the batch: [H, rows, cols]."""
    batch, heads = q.shape[:2]
    bias = block_tokens(layout.grid_size, tile[1], q.device).log()
    out = []
    for head in range(heads):
        scores = torch.stack(
            [
                pooled(q[b, head], orders[head], layout, tile[0])
                @ pooled(k[b, head], orders[head], layout, tile[1]).T
                for b in range(batch)
            ]
        )
        out.append(torch.softmax(scores * scale + bias, -1).nan_to_num(0.0).mean(0))
    return torch.stack(out)


def select(p: torch.Tensor, densities: torch.Tensor) -> torch.Tensor:
    """Which blocks of each row are kept, bool like p [H, rows, cols]: of head h the share
    densities[h] of a row's blocks, at least one. Ties go to the lower index."""
    asked = densities.to(torch.float64)[:, None, None] * p.shape[-1]
    return _greatest(p, torch.clamp(torch.floor(asked + 0.5), 1, p.shape[-1]))


def _greatest(p: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` (H, 1, 1) greatest of each row."""
    # Values alone: numpy sorts them some thirty times as fast as torch sorts pairs.
    rising = torch.from_numpy(np.sort(p.numpy())) if p.device.type == "cpu" else p.sort().values
    place = (p.shape[-1] - count).long().expand(*p.shape[:-1], 1)
    least = torch.gather(rising, -1, place)
    more, equal = p > least, p == least
    return more | (equal & (equal.cumsum(-1) <= count - more.sum(-1, keepdim=True)))


def unpack_bits(words: torch.Tensor, cols: int) -> torch.Tensor:
    """The bool mask [..., cols] of int32 words: bit c % 32 of word c / 32 is block c."""
    shifts = torch.arange(32, device=words.device)
    bits = (words.long()[..., None] >> shifts) & 1
    return bits.flatten(-2)[..., :cols].bool()


# -- exact importance --------------------------------------------------------------------------


def block_importance(q, k, layout, orders, tile, scale) -> torch.Tensor:
    """Sum over the batch of post-softmax probabilities by grid block: [H, rows, cols] float32."""
    batch, heads, _, _ = q.shape
    size, (block_q, block_kv) = layout.grid_size, tile
    rows, cols = -(-size // block_q), -(-size // block_kv)
    out = torch.zeros(heads, rows, cols, device=q.device)
    step = max(1, _MAX_SCORES // layout.length // block_q) * block_q
    for head in range(heads):
        places = permutation(tuple(layout.grid), orders[head])[0].to(q.device)
        token = places + layout.prefix
        for entry in range(batch):
            keys = k[entry, head].float()
            for first in range(0, size, step):
                own = q[entry, head][token[first : first + step]].float()
                p, _ = softmax_rows(own @ keys.T * scale)
                p = torch.nn.functional.pad(
                    p[:, token], (0, cols * block_kv - size, 0, -len(own) % block_q)
                )
                blocks = p.view(-1, block_q, cols, block_kv).sum((1, 3))
                out[head, first // block_q : first // block_q + len(blocks)] += blocks
    return out
