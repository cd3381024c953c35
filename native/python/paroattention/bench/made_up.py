"""Made-up heads of the kinds that the paper shows: softmax rows over a grid, without a model."""

from __future__ import annotations

import numpy as np

KINDS = ("diagonal", "multi-diagonal", "stripes", "sinks", "global")

Grid = tuple[int, int, int]


def coordinates(grid: Grid) -> np.ndarray:
    """[tokens, 3] places of all tokens, F H W, in original order."""
    return np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), -1).astype(np.float32)


def scores(kind: str, grid: Grid, queries: np.ndarray) -> np.ndarray:
    """Noiseless scores [queries, tokens] of grid queries.

    diagonal: near in all axes. multi-diagonal: the same place in every frame. stripes: a few rows
    of the picture, whoever asks. sinks: the first frame and its first token, beside what is near.
    global: everything alike.
    """
    keys = coordinates(grid)
    offset = keys[None] - keys[queries][:, None]

    def near(f, h, w):
        return -0.5 * ((offset / np.array([f, h, w], dtype=np.float32)) ** 2).sum(-1)

    if kind == "diagonal":
        return near(1.5, 2, 2)
    if kind == "multi-diagonal":
        return near(1e6, 1.5, 1.5)
    if kind == "stripes":
        rows = [grid[1] // 5, grid[1] // 2, grid[1] // 2 + 1]
        return 3.5 * np.isin(keys[:, 1], rows)[None] + near(4, 1e6, 6)
    if kind == "sinks":
        first_frame, first_token = keys[:, 0] == 0, keys.sum(1) == 0
        return 3.0 * first_frame[None] + 6.0 * first_token[None] + 2 * np.exp(near(2, 3, 3))
    if kind == "global":
        return np.zeros(offset.shape[:2], dtype=np.float32)
    raise ValueError(f"kind must be one of {KINDS} (got {kind!r})")


def rows(kind: str, grid: Grid, queries: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Softmax rows float32 [queries, tokens]; the noise on the scores is new with every call."""
    found = scores(kind, grid, queries)
    found = found + 0.5 * random.standard_normal(found.shape, dtype=np.float32)
    found = np.exp(found - found.max(1, keepdims=True))
    return (found / found.sum(1, keepdims=True)).astype(np.float32)
