"""What plans are made of, in numpy: an oracle that shares nothing with the library."""

from __future__ import annotations

import numpy as np
from paroattention import _core


def make_mask(importance: np.ndarray, density: float) -> np.ndarray:
    """bool [rows, cols]: round(density * blocks) blocks of greatest importance, ties to the lower
    index; a row left without a block gets its best one."""
    wanted = min(importance.size, int(np.floor(density * importance.size + 0.5)))
    best = np.argsort(-importance, axis=None, kind="stable")[:wanted]
    mask = np.zeros(importance.size, dtype=bool)
    mask[best] = True
    mask = mask.reshape(importance.shape)
    empty = ~mask.any(1)
    mask[empty, importance[empty].argmax(1)] = True
    return mask


def plan_head(importance: np.ndarray, order: str, density: float):
    mask = make_mask(importance, density)
    kept = importance[mask].sum(dtype=np.float64) / importance.sum(dtype=np.float64)
    return _core.HeadPlan(order, _core.BlockMask(mask), float(kept))


def kernel_map(bins, head, group: int, grid, block_q: int, block_kv: int) -> np.ndarray:
    """Importance [rows, cols] of a profile's head by its kernel alone."""
    code = head.groups[group]
    kernel = _core.dequantise(bins, code.code, code.peak)
    return _core.importance(bins, kernel, grid, head.order, block_q, block_kv).numpy()


def decode(codes: np.ndarray) -> np.ndarray:
    """Masses of an exact map's codes, relative to the greatest."""
    return np.where(codes == 0, 0.0, np.exp2((codes.astype(np.float64) - 255) * 24 / 254))


def joined(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Sums of rows x cols neighbours."""
    values = np.add.reduceat(values, np.arange(0, values.shape[0], rows), axis=0)
    return np.add.reduceat(values, np.arange(0, values.shape[1], cols), axis=1)


def refine(by_kernel: np.ndarray, cells: np.ndarray, side: int, tile: tuple[int, int]):
    """by_kernel [rows, cols], at this tile, with the exact masses of `cells` of `side` tokens."""
    total = by_kernel.sum(dtype=np.float64)
    cells = joined(cells, *(max(1, block // side) for block in tile))
    rows, cols = (max(1, side // block) for block in tile)
    down = joined(by_kernel.astype(np.float64), rows, cols)
    ratio = np.divide(cells, down, out=np.zeros_like(cells), where=down > 0)
    ratio = ratio.repeat(rows, 0).repeat(cols, 1)[: by_kernel.shape[0], : by_kernel.shape[1]]
    found = cells if rows == cols == 1 else by_kernel * ratio
    return found * (total / found.sum())


def seen_importance(sums, counts, known, prior: float, grid_size: int, block_q: int) -> np.ndarray:
    """Mean mass a query [rows, cols] of one head's samples (sums [rows, cols], counts [rows]),
    blended with the map `known`, which counts as `prior` queries a tile."""
    tokens = np.full((len(counts), 1), float(block_q))
    tokens[-1] = grid_size - (len(counts) - 1) * block_q
    return (sums + known * (prior / tokens)) / (counts[:, None] + prior)


def blend(old: np.ndarray, new: np.ndarray, weight: float) -> np.ndarray:
    """Weighted mean of two kernels; where one never observed an offset the other one counts."""
    both = old * weight + new * (1 - weight)
    return np.where(old <= 0, new, np.where(new <= 0, old, both)).astype(np.float32)
