"""Sampled queries: their dense softmax rows, and what those say of a plan that is running.

Plain torch, on whatever device q lies; the rows of a few queries cost a few thousandths of dense
attention.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..layout import TokenLayout, permutation

# Scores of one observation are held in pieces of at most this many values: VRAM stays bounded.
_MAX_SCORES = 1 << 24
# Columns of a tally.
KEPT, MASS, LOST, WHOLE = range(4)


@dataclass
class Sampled:
    """Dense rows of sampled grid queries, of some heads of one batch entry.

    heads: which ones of the call's. places (h, n): grid indices, on the CPU. queries (h, n, D),
    rows (h, n, N): probabilities over all keys, and lse (h, n) of their logits: float32, on the
    device of q. first: how many of these heads' queries came in pieces before this one. numbers:
    the model's numbers of these heads; those of the call where it holds all heads.
    """

    layout: TokenLayout
    entry: int
    heads: slice
    places: torch.Tensor
    queries: torch.Tensor
    rows: torch.Tensor
    lse: torch.Tensor
    first: int = 0
    numbers: Sequence[int] = ()

    _sums: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.numbers:
            self.numbers = range(self.heads.start or 0, (self.heads.start or 0) + len(self.rows))

    def block_sums(self, place: int, order: str, block: int) -> torch.Tensor:
        """(n, blocks) of heads[place]; summed once for all who ask."""
        name = place, order, block
        if name not in self._sums:
            self._sums[name] = block_sums(self.grid_rows[place], self.layout.grid, order, block)
        return self._sums[name]

    @property
    def grid_rows(self) -> torch.Tensor:
        first = self.layout.prefix
        return self.rows[..., first : first + self.layout.grid_size]

    @property
    def tokens(self) -> torch.Tensor:
        """places as indices into the sequence, on the device of the rows."""
        return (self.places + self.layout.prefix).to(self.rows.device)


def _softmax(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(probabilities, lse); scores are overwritten."""
    if scores.device.type != "cpu":
        lse = torch.logsumexp(scores, -1)
        return scores.sub_(lse[..., None]).exp_(), lse
    # So little work that waking torch's threads would cost more than it saves.
    values = scores.numpy()
    most = values.max(-1, keepdims=True)
    np.exp(np.subtract(values, most, out=values), out=values)
    total = values.sum(-1, keepdims=True)
    values /= total
    return scores, torch.from_numpy((most + np.log(total))[..., 0])


def sample(
    q, k, layout: TokenLayout, places: list, sm_scale: float, numbers: Sequence[int] = ()
) -> Iterator[Sampled]:
    """Rows of the queries places[entry] (H, n) of every batch entry; q, k (B, H, N, D). numbers:
    the model's numbers of these heads.

    In pieces of as many heads as _MAX_SCORES holds, or of some queries of one head.
    """
    heads, head_dim = q.shape[1], q.shape[-1]
    for entry, chosen in enumerate(places):
        count = chosen.shape[1]
        step = max(1, _MAX_SCORES // (count * layout.length))
        width = max(1, min(count, _MAX_SCORES // layout.length))
        for first, at in itertools.product(range(0, heads, step), range(0, count, width)):
            part = slice(first, min(first + step, heads))
            own = chosen[part, at : at + width]
            index = (own + layout.prefix).to(q.device)[..., None]
            queries = torch.gather(q[entry, part], 1, index.expand(-1, -1, head_dim))
            scores = torch.matmul(queries, k[entry, part].transpose(-1, -2)).float() * sm_scale
            rows, lse = _softmax(scores)
            whose = (numbers or range(heads))[part]
            yield Sampled(layout, entry, part, own, queries.float(), rows, lse, at, whose)


def _computed(mask, rows: np.ndarray) -> np.ndarray:
    """uint8 (n, cols): 1 where these rows of a BlockMask compute the block."""
    bits = mask.words[rows].view(np.uint8)
    return np.unpackbits(bits, axis=1, bitorder="little", count=mask.cols)


def block_sums(rows: torch.Tensor, grid, order: str, block: int) -> torch.Tensor:
    """(n, grid tokens) in original order -> (n, blocks): sums by key block of this order."""
    tokens = permutation(grid, order)[0]
    if rows.device.type == "cpu":
        ordered = rows.numpy()[:, tokens.numpy()]
        return torch.from_numpy(np.add.reduceat(ordered, range(0, len(tokens), block), axis=1))
    ordered = rows[:, tokens.to(rows.device)]
    blocks = -(-ordered.shape[1] // block)
    padded = torch.nn.functional.pad(ordered, (0, blocks * block - ordered.shape[1]))
    return padded.view(-1, blocks, block).sum(-1)


def kept_mass(sampled: Sampled, plan) -> torch.Tensor:
    """(h, n, 2): of each query the mass on grid keys inside the plan's mask, and on all of them."""
    grid, found = sampled.layout.grid, []
    device = sampled.rows.device
    for place, head in enumerate(plan.heads[sampled.heads]):
        sums = sampled.block_sums(place, head.order, plan.block_kv)
        tiles = permutation(grid, head.order)[1][sampled.places[place]] // plan.block_q
        computed = _computed(head.mask, tiles.numpy())
        if device.type == "cpu":
            sums = sums.numpy()
            inside = np.einsum("nj,nj->n", sums, computed)
            found.append(torch.from_numpy(np.stack([inside, sums.sum(-1)], -1)))
        else:
            inside = (sums * torch.from_numpy(computed).to(device)).sum(-1)
            found.append(torch.stack([inside, sums.sum(-1)], -1))
    return torch.stack(found)


def output_error(sampled: Sampled, v: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """(h, 2): squared distance of `out` to the dense output over the queries, and its square.

    v, out (B, H, N, D): what our kernel was given and what it gave, its quantisation included.
    """
    part = sampled.entry, sampled.heads
    dense = torch.matmul(sampled.rows, v[part].float())
    index = sampled.tokens[..., None].expand(-1, -1, out.shape[-1])
    ours = torch.gather(out[part], 1, index).float()
    if out.device.type == "cpu":
        pairs = ((x.numpy() for x in pair) for pair in ((ours - dense,) * 2, (dense,) * 2))
        return torch.from_numpy(np.stack([np.einsum("hnd,hnd->h", *x) for x in pairs], -1))
    return torch.stack([(ours - dense).square().sum((1, 2)), dense.square().sum((1, 2))], -1)


class Tally:
    """Sums over sampled queries, a row a head: mass inside the mask, all mass, squared error of
    the output, squared output. They stay on the device until they are asked for."""

    def __init__(self, heads: int):
        self.heads, self._sums, self.queries = heads, None, 0

    def add(self, sampled: Sampled, plan, v, out) -> None:
        """v, out as of output_error."""
        sums = torch.cat([kept_mass(sampled, plan).sum(1), output_error(sampled, v, out)], -1)
        if self._sums is None:
            self._sums = torch.zeros(self.heads, 4, dtype=torch.float64, device=sums.device)
        self._sums[sampled.heads] += sums
        self.queries += sampled.places.shape[1] if sampled.heads.start == 0 else 0

    def add_means(self, kept: np.ndarray, lost: np.ndarray, queries: int) -> None:
        """Adds what was measured elsewhere: by head the retained mass and the squared relative
        error of so many queries. Heads that are not finite had no row that was."""
        whole = np.isfinite(kept) & np.isfinite(lost)
        sums = np.stack([np.where(whole, x, 0.0) for x in (kept, whole, lost, whole)], -1)
        if self._sums is None:
            self._sums = torch.zeros(self.heads, 4, dtype=torch.float64)
        self._sums += torch.from_numpy(queries * sums.astype(np.float64)).to(self._sums.device)
        self.queries += queries

    def put(self, heads: list[int], sums: np.ndarray, queries: int) -> None:
        """Sums [len(heads), 4] of these heads from elsewhere take the place of those here."""
        own = self.read().copy()
        own[heads] = sums
        self._sums, self.queries = torch.from_numpy(own), max(self.queries, queries)

    def add_tally(self, other: Tally) -> None:
        """Adds another one's sums; waits for its device."""
        own, more = self.read(), other.read()
        self._sums = torch.from_numpy(own + more)
        self.queries += other.queries

    def read(self) -> np.ndarray:
        """float64 [heads, 4]; waits for the device."""
        if self._sums is None:
            return np.zeros((self.heads, 4))
        return self._sums.cpu().numpy()


def retained(sums: np.ndarray) -> np.ndarray:
    """Retained mass by head, of a tally's sums; 1 where nothing was sampled."""
    return np.divide(sums[:, KEPT], sums[:, MASS], out=np.ones(len(sums)), where=sums[:, MASS] > 0)


def relative_error(sums: np.ndarray) -> np.ndarray:
    """||ours - dense|| / ||dense|| of the sampled outputs by head; 0 where nothing was sampled."""
    whole = sums[:, WHOLE]
    return np.sqrt(np.divide(sums[:, LOST], whole, out=np.zeros(len(sums)), where=whole > 0))
