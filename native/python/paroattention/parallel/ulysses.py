"""Ulysses over torch.distributed: each rank has some tokens of all heads, and computes attention of
some heads over all tokens.

The all-to-all sends heads in the order of a Dealing, as many to each rank as that gives it. It is
the engine of our tests and benches, and serves whoever has none.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from .. import _core
from ..kernels.observe_inputs import numbers_on, to_device
from ..layout import TokenLayout, permutation
from ..steps import Forward
from .dealing import Dealing, Part
from .parts import SENT_KEYS
from .ranks import Ranks


@functools.lru_cache(maxsize=4096)
def _tokens_of(part: Part, layout: TokenLayout, first: int, count: int, device) -> torch.Tensor:
    """Of `count` tokens from `first` on, those whose query tiles are the part's."""
    rows = permutation(layout.grid, part.order)[1] // part.block_q
    inside = torch.zeros(layout.length, dtype=torch.bool)
    grid = inside[layout.prefix : layout.prefix + layout.grid_size]
    grid[(rows >= part.first) & (rows < part.end)] = True
    mine = torch.nonzero(inside[first : first + count]).squeeze(1)
    return to_device(mine, device)


def token_counts(length: int, ranks: int) -> tuple[int, ...]:
    """Tokens by rank of a sequence that is cut without padding: the first ranks have one more."""
    least, more = divmod(length, ranks)
    return tuple(least + (rank < more) for rank in range(ranks))


class Ulysses:
    """The all-to-all of one process group. ranks: of the same group; on a CPU it tells a rank that
    waits when another one has failed. group: as of torch.distributed, None for all processes.
    parts: as of Session.dealing; by default where it is worth what sending a head costs.

    seconds: spent in all-to-alls, on a CPU; on a GPU `events` has pairs of CUDA events instead,
    where `timed` is set.
    """

    def __init__(self, ranks: Ranks, group=None, *, parts: int | None = SENT_KEYS):
        self.ranks, self._group, self._parts = ranks, group, parts
        self.seconds, self.timed = 0.0, False
        self.events: list[tuple] = []

    def heads_here(self, x: torch.Tensor, dealing: Dealing, tokens: tuple[int, ...]):
        """x (B, H, own tokens, D) of all heads -> (B, heads here, all tokens, D): own heads rising,
        then those that this rank computes a part of; tokens in the sequence's order. tokens: by
        rank."""
        batch, heads, length, head_dim = x.shape
        rank, size = self.ranks.rank, self.ranks.size
        self._check(dealing, heads, tokens, length)
        # One copy makes what each rank gets lie in a row: the permutation costs nothing more.
        order = numbers_on(dealing.permutation, x.device)
        sent = x.transpose(0, 1).index_select(0, order)
        of_head, own = batch * head_dim, dealing.counts[rank]
        out = [count * length * of_head for count in dealing.counts]
        came = [own * tokens[other] * of_head for other in range(size)]
        parts = self._exchange(sent.reshape(-1), out, came).split(came)
        shaped = (
            part.view(own, batch, tokens[other], head_dim) for other, part in enumerate(parts)
        )
        return torch.cat(list(shaped), 2).transpose(0, 1)

    def tokens_here(
        self, o: torch.Tensor, dealing: Dealing, tokens: tuple[int, ...], layout=None
    ) -> torch.Tensor:
        """The way back: o (B, heads here, all tokens, D) -> (B, H, own tokens, D). layout: the
        sequence's, needed where heads are in parts."""
        batch, own, length, head_dim = o.shape
        rank, size = self.ranks.rank, self.ranks.size
        if (own, length) != (dealing.counts[rank], sum(tokens)):
            rule = f"must hold {dealing.counts[rank]} heads and {sum(tokens)} tokens"
            raise _core.Error(f"o {rule} (got {tuple(o.shape)})")
        of_head, here = batch * head_dim, tokens[rank]
        pieces = o.transpose(0, 1).split(list(tokens), 2)
        sent = torch.cat([piece.reshape(-1) for piece in pieces])
        out = [own * tokens[other] * of_head for other in range(size)]
        came = [count * here * of_head for count in dealing.counts]
        slots = len(dealing.permutation)
        found = self._exchange(sent, out, came).view(slots, batch, here, head_dim)
        whole = found.index_select(0, numbers_on(dealing.inverse, o.device))
        if dealing.parts:
            self._put_parts(whole, found, dealing, sum(tokens[:rank]), layout)
        return whole.transpose(0, 1)

    def _put_parts(self, whole, found, dealing: Dealing, first: int, layout) -> None:
        """Puts the rows that other ranks have computed over those of the head's own rank. first:
        this rank's first token."""
        ends = list(itertools.accumulate(dealing.counts))
        for rank, end in enumerate(ends):
            guests = [part for part in dealing.parts if part.rank == rank]
            for slot, part in enumerate(guests, end - len(guests)):
                mine = _tokens_of(part, layout, first, whole.shape[2], whole.device)
                whole[part.head].index_copy_(1, mine, found[slot].index_select(1, mine))

    def moved(self, x: torch.Tensor, before: Dealing, after: Dealing) -> torch.Tensor:
        """Sends heads on, after an all-to-all that dealt them out in another way: x (B, heads of
        `before`, N, D) -> (B, heads of `after`, N, D). Most heads stay, and cost a copy."""
        rank = self.ranks.rank
        if before.heads == after.heads:
            return x
        batch, _, length, head_dim = x.shape
        here, wanted, size = before.heads[rank], after.heads[rank], batch * length * head_dim
        goes = [[here.index(head) for head in here if head in own] for own in after.heads]
        comes = [[head for head in own if head in wanted] for own in before.heads]
        order = numbers_on(tuple(place for part in goes for place in part), x.device)
        sent = x.transpose(0, 1).index_select(0, order).reshape(-1)
        counts = [len(part) * size for part in comes]
        found = self._exchange(sent, [len(part) * size for part in goes], counts)
        came = [head for part in comes for head in part]
        back = numbers_on(tuple(came.index(head) for head in wanted), x.device)
        found = found.view(len(wanted), batch, length, head_dim).index_select(0, back)
        return found.transpose(0, 1)

    def whole(self, x: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
        """x (B, own tokens, C) -> (B, all tokens, C) on every rank."""
        # Ranks' numbers of tokens differ by one at most; a collective wants them alike.
        short = max(tokens) - x.shape[1]
        own = torch.nn.functional.pad(x, (0, 0, 0, short)).contiguous()
        every = [torch.empty_like(own) for _ in tokens]
        if own.device.type == "cuda":
            dist.all_gather(every, own, group=self._group)
        else:
            work = dist.all_gather(every, own, group=self._group, async_op=True)
            self.ranks.wait(work, own, *every)
        parts = [part[:, :count] for part, count in zip(every, tokens, strict=True)]
        return torch.cat(parts, 1)

    def _check(self, dealing: Dealing, heads: int, tokens, length: int) -> None:
        if dealing.total != heads or dealing.ranks != self.ranks.size:
            rule = f"must be of {heads} heads and {self.ranks.size} ranks"
            raise _core.Error(f"dealing {rule} (got {dealing.total} and {dealing.ranks})")
        if len(tokens) != self.ranks.size or tokens[self.ranks.rank] != length:
            rule = f"must give this rank the {length} tokens of x"
            raise _core.Error(f"tokens {rule} (got {tokens}, rank {self.ranks.rank})")

    def _exchange(self, sent: torch.Tensor, out: list[int], came: list[int]) -> torch.Tensor:
        found = sent.new_empty(sum(came))
        if sent.device.type == "cuda":
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 if self.timed else 0)]
            for mark in marks[:1]:
                mark.record()
            dist.all_to_all_single(found, sent, came, out, group=self._group)
            for mark in marks[1:]:
                mark.record()
                self.events.append(tuple(marks))
            return found
        started = time.perf_counter()
        work = dist.all_to_all_single(found, sent, came, out, group=self._group, async_op=True)
        self.ranks.wait(work, found, sent)
        self.seconds += time.perf_counter() - started
        return found

    def attention(
        self,
        session,
        forward: Forward,
        layer: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layout: TokenLayout,
        dense: Callable,
        *,
        sm_scale: float | None = None,
    ) -> torch.Tensor:
        """Attention of a sharded sequence: q, k, v (B, H, own tokens, D) -> the same shape.

        session: a Session with these ranks. layout: of the whole sequence. dense(q, k, v): the
        host's function over (B, heads, N, D). Raises RanksError where a rank has failed.
        """
        with self.ranks.guarded():
            heads, parts = q.shape[1], self._parts
            dealing = session.dealing(forward, layer, layout, heads, parts=parts)
            tokens = token_counts(layout.length, self.ranks.size)
            # q, k and v go in one exchange.
            both = torch.cat([q, k, v])
            own = self.heads_here(both, dealing, tokens).split(q.shape[0])
            heads = dealing.of(self.ranks.rank)
            out, _ = session.attention(
                forward,
                layer,
                *own,
                layout,
                lambda: dense(*own),
                sm_scale=sm_scale,
                heads=heads,
            )
            return self.tokens_here(out, dealing, tokens, layout)
