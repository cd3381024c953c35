"""What Raylight, xFuser and ComfyUI do around an inner-attention processor, written from facts.

Facts: names are registered once by a decorator and made by name with keywords; the processor lies
in transformer_options; xFuser calls it after the all-to-all with q, k, v (B, N, H / P, D), N padded
to a multiple of the ranks, and the keywords below; a ring of more than one rank is refused unless
the processor says that it supports one. ComfyUI's wrappers are called as (executor, *args,
**kwargs), executor(*args, **kwargs) goes on.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.distributed as dist
from paroattention import reference
from paroattention.parallel.dealing import even
from paroattention.parallel.ulysses import Ulysses

INNER = "raylight_inner_attention"


class Registry:
    """Raylight's module of inner attention."""

    def __init__(self):
        self._known = {}

    def register_inner_attention(self, name):
        assert ":" in name

        def decorator(processor):
            if name in self._known:
                raise ValueError(f"inner-attention processor already registered: {name}")
            self._known[name] = processor
            return processor

        return decorator

    def create_inner_attention(self, name, **options):
        return self._known[name](**options)

    def set_inner_attention(self, model, processor):
        clone = model.clone()
        clone.options[INNER] = processor
        return clone


class Patcher:
    """A worker's model patcher: options and wrappers."""

    def __init__(self, options=None, wrappers=None):
        self.options, self.wrappers = options or {}, wrappers or {}

    def clone(self):
        wrappers = {kind: list(own) for kind, own in self.wrappers.items()}
        return Patcher(dict(self.options), wrappers)

    def remove_wrappers_with_key(self, kind, key):
        own = self.wrappers.get(kind, [])
        self.wrappers[kind] = [one for one in own if one[0] != key]

    def add_wrapper_with_key(self, kind, key, wrapper):
        self.wrappers.setdefault(kind, []).append((key, wrapper))

    def wrapped(self, kind, function):
        for _, wrapper in self.wrappers.get(kind, []):
            function = _bound(wrapper, function)
        return function


def _bound(wrapper, function):
    return lambda *args, **kwargs: wrapper(function, *args, **kwargs)


def dense(q, k, v, **_):
    """(B, N, h, D), padding and all, as a host's attention."""
    return reference.dense(*(x.transpose(1, 2) for x in (q, k, v))).float().transpose(1, 2)


class Attention:
    """xFuser's long-context attention on one rank. ring: a group of the ring, or None."""

    def __init__(self, ranks, group, ring=None):
        self.engine, self.ring, self.ranks = Ulysses(ranks, group), ring, ranks

    def __call__(self, q, k, v, options: dict, *, more=None):
        """q, k, v (B, H, N, D) of the whole sequence; this rank's part is cut out of it."""
        size, rank = self.ranks.size, self.ranks.rank
        length = -(-q.shape[2] // size) * size
        # What is padded is no zero by the time that it comes to attention.
        padded = [torch.nn.functional.pad(x, (0, 0, 0, length - x.shape[2]), value=0.5)
                  for x in (q, k, v)]  # fmt: skip
        tokens = (length // size,) * size
        part = slice(rank * tokens[0], (rank + 1) * tokens[0])
        dealing = even(q.shape[1], size)
        here = [self.engine.heads_here(x[:, :, part], dealing, tokens) for x in padded]
        processor = options.get(INNER)
        given = dict(dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1),
                     alibi_slopes=None, deterministic=False, return_attn_probs=False,
                     group=self.ring, attn_type="TORCH", attn_processor=None, attn_layer=None,
                     joint_tensor_key=None, joint_tensor_value=None, joint_strategy="none",
                     q_descale=None, k_descale=None, v_descale=None)  # fmt: skip
        given |= more or {}
        here = [x.transpose(1, 2) for x in here]
        if processor is None:
            out = dense(*here, **given)
        else:
            if self.ring is not None and dist.get_world_size(self.ring) != 1:
                assert getattr(processor, "supports_ring", False), "ring refused by Raylight"
            out = processor(dense, *here, transformer_options=options, **given)
        assert out.shape == here[0].shape
        found = self.engine.tokens_here(out.transpose(1, 2), dealing, tokens)
        return self.engine.whole(found.transpose(1, 2).flatten(2), tokens)[:, : q.shape[2]]


class Packed(SimpleNamespace):
    """MiniMax-H3's packed layout: text, then audio, then video."""

    def __init__(self, text: int, audio: int, video: int):
        end = text + audio + video
        segments = [(0, text, "text"), (text, text + audio, "audio"), (text + audio, end, "video")]
        super().__init__(segments=segments, seq_len=end)
