"""Wan and CogVideoX of diffusers with a Session: see docs/parallel.md for ten lines that use it.

A patched transformer keeps its own projections, norms, positions, LoRAs and hooks. Only the call of
torch's scaled_dot_product_attention inside its self-attention is taken over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from . import _core
from .layout import TokenLayout
from .run.session import Session
from .settings import ModelInfo, Settings, shown

NEEDED = (
    "paroattention.diffusers needs the package diffusers: install it with pip install diffusers"
)
ELSEWHERE = (
    "diffusers computes this attention by another backend: call"
    ' transformer.set_attention_backend("native")'
)
MASKED = "the call has an attention mask"


def _wan_layout(config, hidden: torch.Tensor, text: torch.Tensor) -> TokenLayout:
    sides = zip(hidden.shape[2:], config.patch_size, strict=True)
    return TokenLayout(tuple(side // patch for side, patch in sides))


def _cogvideox_layout(config, hidden: torch.Tensor, text: torch.Tensor) -> TokenLayout:
    frames, height, width = hidden.shape[1], *hidden.shape[3:]
    patch, depth = config.patch_size, config.patch_size_t or 1
    grid = -(-frames // depth), height // patch, width // patch
    return TokenLayout(grid, text.shape[1])


# class: (family, its blocks, the name of a block in layer ids, the token layout of a call)
_FAMILIES = {
    "WanTransformer3DModel": ("diffusers-wan", "blocks", "double", _wan_layout),
    "CogVideoXTransformer3DModel": (
        "diffusers-cogvideox",
        "transformer_blocks",
        "block",
        _cogvideox_layout,
    ),
}


def _require() -> None:
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise _core.Error(NEEDED) from error


class _Attention(TorchFunctionMode):
    """While active, scaled_dot_product_attention goes to compute(function, args, kwargs)."""

    def __init__(self, compute: Callable):
        super().__init__()
        self._compute, self.seen = compute, False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.seen = True
        return self._compute(func, args, kwargs or {})


class _Processor:
    """In the place of a self-attention's processor, which it calls."""

    def __init__(self, inner, patched: Patched, number: int):
        self.inner, self._patched, self._number = inner, patched, number

    def __getattr__(self, name: str):
        # diffusers asks processors for their backend and the like.
        return getattr(self.__dict__["inner"], name)

    @torch.compiler.disable
    def __call__(self, attn, *args, **kwargs):
        patched = self._patched
        if patched.call is None:
            return self.inner(attn, *args, **kwargs)
        patched.layer = self._number
        with _Attention(patched.attention) as mode:
            found = self.inner(attn, *args, **kwargs)
        if not mode.seen:
            patched.session.note(ELSEWHERE, dense=True)
        return found


def patch(
    transformer,
    scheduler,
    settings: Settings | None = None,
    *,
    profile: _core.Profile | str | Path | None = None,
    save: str | Path | None = None,
    seed: int = 0,
) -> Patched:
    """Makes the transformer of a diffusers pipeline sparse, in place.

    transformer: a WanTransformer3DModel or CogVideoXTransformer3DModel. scheduler: the pipeline's;
    its timesteps are the run's steps. settings: as of paroattention. profile: what the run goes by,
    a Profile or its file; without one the run watches its first steps. save: a file for what a run
    learns. seed: of the observer's draws.
    Each call of the pipeline is a run. It ends with Patched.finish, or when the next one begins.
    Raises Error: diffusers is missing, another model, context parallelism of diffusers' own, bad
    settings or a bad profile.
    """
    _require()
    kind = type(transformer).__name__
    if kind not in _FAMILIES:
        raise _core.Error(f"transformer must be one of {', '.join(_FAMILIES)} (got {kind})")
    settings = settings or Settings()
    settings.validate()
    if isinstance(profile, (str, Path)):
        profile = _core.Profile.load(profile)
    if profile is not None and not isinstance(profile, _core.Profile):
        rule = "must be a Profile or the path of one"
        raise _core.Error(f"profile {rule} (got {type(profile).__name__})")
    if not hasattr(scheduler, "timesteps"):
        raise _core.Error(f"scheduler must have timesteps (got {shown(type(scheduler).__name__)})")
    return Patched(transformer, scheduler, _Asked(settings, profile, save, seed))


@dataclass(frozen=True)
class _Asked:
    """What `patch` was given for every run."""

    settings: Settings
    profile: _core.Profile | None
    save: str | Path | None
    seed: int


class Patched:
    """A patched transformer. session: of the run under way, None between two runs. summary: what
    the last finished run did, as Session.finish returns it."""

    def __init__(self, transformer, scheduler, asked: _Asked):
        family, blocks, self._block, self._layout_of = _FAMILIES[type(transformer).__name__]
        self._scheduler, self._asked = scheduler, asked
        self.session: Session | None = None
        self.summary: dict | None = None
        # (Forward, TokenLayout) of the evaluation under way; the number of its present block.
        self.call: tuple | None = None
        self.layer = 0
        self._last = float("inf")
        self._model = ModelInfo(family, _fingerprint(transformer))
        self._attentions = [block.attn1 for block in getattr(transformer, blocks)]
        self._hooks = [
            transformer.register_forward_pre_hook(self._enter, with_kwargs=True),
            transformer.register_forward_hook(self._leave, always_call=True),
        ]
        for number, attention in enumerate(self._attentions):
            if getattr(attention.processor, "_parallel_config", None) is not None:
                self.remove()
                raise _core.Error(
                    "transformer must not use context parallelism of diffusers: use ranks of"
                    " paroattention.parallel, or none"
                )
            attention.processor = _Processor(attention.processor, self, number)

    def finish(self, ok: bool = True) -> dict | None:
        """Ends the run under way: saves what it has learned. ok False: the run failed. Returns its
        summary; that of the last run where none is under way."""
        session, self.session = self.session, None
        if session is not None:
            self.summary = session.finish(ok)
        return self.summary

    def remove(self) -> None:
        """Ends the run under way, and leaves the transformer as it was."""
        self.finish()
        for hook in self._hooks:
            hook.remove()
        for attention in self._attentions:
            if isinstance(attention.processor, _Processor):
                attention.processor = attention.processor.inner

    # -- a run ---------------------------------------------------------------------------------

    def _enter(self, module, args, kwargs) -> None:
        """An evaluation begins."""
        names = {
            "WanTransformer3DModel": ("hidden_states", "timestep", "encoder_hidden_states"),
            "CogVideoXTransformer3DModel": ("hidden_states", "encoder_hidden_states", "timestep"),
        }[type(module).__name__]
        given = dict(zip(names, args, strict=False)) | kwargs
        hidden, text = given["hidden_states"], given["encoder_hidden_states"]
        timestep = torch.as_tensor(given["timestep"]).float().max()
        sigma = float(timestep) / self._scheduler.config.num_train_timesteps
        if self.session is None or sigma > self._last * (1 + 1e-6):
            self._begin()
        self._last = sigma
        layout = self._layout_of(module.config, hidden, text)
        self.call = self.session.begin_forward(sigma, text.shape[1]), layout

    def _leave(self, *_) -> None:
        self.call = None

    def _begin(self) -> None:
        self.finish()
        train = self._scheduler.config.num_train_timesteps
        sigmas = [float(one) / train for one in self._scheduler.timesteps]
        # The last step leads to where nothing is left to be taken away.
        sigmas.append(0.0)
        self.session = Session(
            self._asked.settings,
            sigmas,
            model=self._model,
            find_profile=self._find,
            save_profile=self._saved if self._asked.save is not None else None,
            sampler=type(self._scheduler).__name__,
            seed=self._asked.seed,
        )

    def _find(self, grid):
        profile = self._asked.profile
        if profile is None:
            return None, ""
        if profile.match_grid(grid) == "far":
            return None, "the profile is for other sizes"
        return profile, "the given profile"

    def _saved(self, profile, tensors) -> None:
        profile.save(self._asked.save)

    def attention(self, func, args, kwargs):
        """One call of scaled_dot_product_attention by a self-attention: ours, or torch's."""
        call = _arguments(*args, **kwargs)
        (forward, layout), q = self.call, call["query"]
        plain = q.shape == call["key"].shape == call["value"].shape and q.shape[2] == layout.length
        reason = ""
        if not plain:
            reason = "q, k and v are not the model's self-attention over the grid"
        elif call["attn_mask"] is not None or call["is_causal"]:
            reason = MASKED
        elif torch.is_grad_enabled() and any(call[x].requires_grad for x in ("query", "key")):
            reason = "gradients are asked for: the sparse kernels have none"
        if reason:
            self.session.note(reason, dense=True)
            return func(*args, **kwargs)
        layer = forward.layer_id(self._block, self.layer)
        tensors = q, call["key"], call["value"]
        given = (*tensors, layout, lambda: func(*args, **kwargs))
        return self.session.attention(forward, layer, *given, sm_scale=call["scale"])[0]


def _arguments(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> dict:
    """Arguments of scaled_dot_product_attention by their names."""
    return dict(locals())


def _fingerprint(transformer) -> str:
    """Of the model's config and the one-dimensional weights of some of its blocks: the same for
    every copy of the model, whatever its number format."""
    config = {
        name: value
        for name, value in dict(transformer.config).items()
        if not name.startswith("_") and isinstance(value, (int, float, str, bool, list, tuple))
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    small = [(name, one) for name, one in transformer.named_parameters() if one.dim() == 1]
    for name, weight in small[:: max(1, len(small) // 16)]:
        rounded = weight.detach().to("cpu", torch.bfloat16).float().numpy()
        digest.update(name.encode() + rounded.tobytes())
    return digest.hexdigest()
