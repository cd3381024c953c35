"""Limits and words that several parts share. What the native core checks too comes from it."""

from __future__ import annotations

import torch

from . import _core

# Of a head, in every attention kernel.
HEAD_DIMS: tuple[int, ...] = _core.HEAD_DIMS
# Sides of the blocks that GPU kernels know and a run may ask for.
TILES: tuple[int, ...] = _core.TILES
# The largest side of a block anywhere.
MAX_BLOCK: int = _core.MAX_BLOCK
# Sampled queries of a head.
MAX_QUERIES = 4096
# Of q, k, v and the output, by the names that the core knows.
DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
# What stands for a value that is chosen for the user.
AUTO = "auto"
# A head of this density or more computes every block.
ALL_BLOCKS = 0.999


def one_of(values) -> str:
    """ "a, b or c" of a rule."""
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last
