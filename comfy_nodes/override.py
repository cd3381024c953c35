"""The attention override: hands grid self-attention to the session, all else to the host."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .layouts import CROSS_ATTENTION, OTHER_KEYS, PART, QUIET, Call, layout_of

RUN, EVALUATION = "paro_run", "paro_evaluation"
OVERRIDE = "optimized_attention_override"
MASK = "the call has an attention mask"


class Override:
    """`optimized_attention_override`. previous: an override that was set before; it stays the
    fallback, so that nothing of the user's graph is dropped.

    It has no `container_function`, which newer versions of ComfyUI look for: that would be called
    without ComfyUI's own function, and so could not fall back to it. Without it ComfyUI hands over
    plain tensors.
    """

    def __init__(self, previous: Callable | None = None):
        self.previous = previous

    # torch.compile sees an opaque call: what happens here depends on the run, not on shapes.
    @torch.compiler.disable
    def __call__(self, func: Callable, *args, **kwargs):
        def host():
            if self.previous is not None:
                return self.previous(func, *args, **kwargs)
            return func(*args, **kwargs)

        options = kwargs.get("transformer_options") or {}
        run, evaluation = options.get(RUN), options.get(EVALUATION)
        # The fallback may hold another override of ours: a call is counted once.
        if run is None or evaluation is None or evaluation.busy:
            return host()
        evaluation.seen.call(evaluation.forward.step)
        call, layout, layer = _understand(args, kwargs, run, evaluation, options)
        if isinstance(layout, str):
            if layout in QUIET:
                evaluation.seen.add(call.qo_len, call.kv_len)
            else:
                run.session.note(layout, dense=True)
            return host()
        q, k, v = call.heads_first()
        evaluation.busy = True
        try:
            out, ours = run.session.attention(
                evaluation.forward, layer, q, k, v, layout, host, sm_scale=call.scale
            )
        finally:
            evaluation.busy = False
        return call.host_shape(out) if ours else out


def _understand(args, kwargs, run, evaluation, options):
    """(the call, its token layout or why it stays dense, its layer's id or None).

    A call over the grid counts as one of its block's, whatever keeps it dense: the layers after it
    keep their numbers. Never raises: the graph must go on.
    """
    try:
        call, layer = _Arguments(*args, **kwargs), None
        layout = _layout(call, evaluation, options)
        if layout == PART:
            evaluation.count_part(options, call.qo_len, call.kv_len)
            layout = call.masked() or layout
        elif not isinstance(layout, str):
            layer = evaluation.layer_id(options)
            reason = call.refusal() or run.refusal(
                evaluation.forward, layout, call.heads * call.head_dim
            )
            layout = reason or layout
        elif layout == OTHER_KEYS:
            layout = call.masked() or layout
        return call, layout, layer
    except Exception as error:
        reason = f"the attention call could not be read: {type(error).__name__}: {error}"[:200]
        return None, reason, None


def _layout(call, evaluation, options):
    """The token layout of a call, or why it has none."""
    if not call.plain:
        return "q, k and v are not plain tensors"
    geometry = evaluation.geometry
    if isinstance(geometry, str):
        return CROSS_ATTENTION if call.kv_len != call.qo_len else geometry
    return layout_of(Call(call.qo_len, call.kv_len, call.head_dim, options), geometry)


class _Arguments:
    """Arguments of ComfyUI's attention functions, in either of their layouts."""

    def __init__(
        self,
        q,
        k,
        v,
        heads,
        mask=None,
        attn_precision=None,
        skip_reshape=False,
        skip_output_reshape=False,
        **kwargs,
    ):
        self.q, self.k, self.v, self.heads, self.mask = q, k, v, heads, mask
        self.skip_reshape, self.skip_output_reshape = skip_reshape, skip_output_reshape
        self.scale = kwargs.get("scale")
        self.gqa = kwargs.get("enable_gqa", False)

    @property
    def plain(self) -> bool:
        return all(isinstance(x, torch.Tensor) for x in (self.q, self.k, self.v))

    def masked(self) -> str | None:
        return MASK if self.mask is not None else None

    def refusal(self) -> str | None:
        """Why the call cannot be ours whatever the model, or None."""
        if self.mask is not None:
            return MASK
        if self.gqa or self.q.shape != self.k.shape or self.k.shape != self.v.shape:
            return "q, k and v must have one shape, without grouped-query attention"
        if torch.is_grad_enabled() and any(x.requires_grad for x in (self.q, self.k, self.v)):
            return "gradients are asked for: the sparse kernels have none"
        return None

    @property
    def qo_len(self) -> int:
        return self.q.shape[-2]

    @property
    def kv_len(self) -> int:
        return self.k.shape[-2]

    @property
    def head_dim(self) -> int:
        return self.q.shape[-1] // (1 if self.skip_reshape else self.heads)

    def heads_first(self) -> list[torch.Tensor]:
        """q, k, v as (B, H, N, D) views."""
        if self.skip_reshape:
            return [self.q, self.k, self.v]
        batch, length, width = self.q.shape
        shape = (batch, length, self.heads, width // self.heads)
        return [x.view(shape).permute(0, 2, 1, 3) for x in (self.q, self.k, self.v)]

    def host_shape(self, out: torch.Tensor) -> torch.Tensor:
        """Our (B, H, N, D) output as the host's function would return it."""
        if self.skip_output_reshape:
            return out
        batch, heads, length, head_dim = out.shape
        return out.permute(0, 2, 1, 3).reshape(batch, length, heads * head_dim)
