"""The attention override: hands grid self-attention to the session, all else to the host."""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import recording
from .host_attention import HostAttention, under_way
from .layouts import CROSS_ATTENTION, OTHER_KEYS, PART, QUIET, Call, layout_of
from .native import paro
from .operands import Operands

RUN, EVALUATION = "paro_run", "paro_evaluation"
OVERRIDE = "optimized_attention_override"
MASK = "the call has an attention mask"


class Override:
    """`optimized_attention_override`. previous: an override that was set before; it stays the
    fallback, so that nothing of the user's graph is dropped.

    ComfyUI hands tensors and its own function to `__call__`. Newer versions hand q, k and v in
    containers to `container_function`, without a function.
    """

    def __init__(self, previous: Callable | None = None):
        self.previous = previous

    # torch.compile sees an opaque call: what happens here depends on the run, not on shapes.
    @torch.compiler.disable
    def __call__(self, func: Callable, *args, **kwargs):
        return self._compute(func, Operands(args, kwargs))

    @torch.compiler.disable
    def container_function(self, *args, **kwargs):
        return self._compute(None, Operands(args, kwargs))

    def _compute(self, func: Callable | None, operands: Operands):
        options = operands.kwargs.get("transformer_options") or {}
        run, evaluation = options.get(RUN), options.get(EVALUATION)
        host = HostAttention(self.previous, func, _layer_function(run), operands)
        # The fallback may hold another override of ours, or call back: a call is counted once.
        if run is None or evaluation is None or evaluation.busy or under_way(self.previous):
            return host()
        taken = run.guard.safely(_taken, operands, run, evaluation, options)
        if not taken:
            return host()
        evaluation.busy = True
        try:
            return _by_session(run, evaluation, *taken, host)
        finally:
            evaluation.busy = False


def _taken(operands: Operands, run, evaluation, options) -> tuple:
    """(the call, its token layout, its layer's id, what is held of it) where the session is to
    compute it; () where the host is, and the run has been told why."""
    evaluation.seen.call(evaluation.forward.step)
    call, layout, layer = _understand(operands, run, evaluation, options)
    if not isinstance(layout, str):
        take = operands.take if operands.contained else None
        return call, layout, layer, paro.Held(*call.heads_first(), take=take)
    if layout in QUIET:
        evaluation.seen.add(call.qo_len, call.kv_len)
    else:
        run.session.note(layout, dense=True)
    return ()


def _by_session(run, evaluation, call: _Arguments, layout, layer, held, host: HostAttention):
    """The output of a call over the grid, as the host's function would return it."""
    operands = call.operands
    # What the host's function has raised.
    raised = []

    def dense():
        try:
            return by_host()
        except Exception as error:
            raised.append(error)
            raise

    def by_host():
        if not operands.contained:
            return host()
        if held.last and not held.owned:
            # They go as they came, so that the host can let go of them early.
            held.parts.clear()
            return host()
        tensors = [call.host_shape(part) for part in held.tensors]
        if held.last:
            held.parts.clear()
        return host(operands.wrapped(tensors))

    try:
        with recording.paused():
            out, ours = run.session.attention_of(
                evaluation.forward, layer, held, layout, dense, sm_scale=call.scale
            )
            return call.output(out) if ours else out
    except Exception as error:
        if any(error is one for one in raised) or not held.whole:
            raise
        run.guard.give_up(error)
        return dense()
    finally:
        # Their frames hold q, k and v.
        raised.clear()


def _layer_function(run) -> Callable | None:
    """The function that the checkpoint chose for the layer that a call of the run comes from."""
    try:
        return run.layers.current() if run is not None else None
    except Exception as error:
        run.guard.give_up(error)
        return None


def _understand(operands: Operands, run, evaluation, options):
    """(the call, its token layout or why it stays dense, its layer's id or None).

    A call over the grid counts as one of its block's, whatever keeps it dense: the layers after it
    keep their numbers. Never raises: the graph must go on.
    """
    try:
        call, layer = _Arguments(operands, *operands.rest, **operands.kwargs), None
        layout = _layout(call, evaluation, options)
        if layout == PART:
            evaluation.count_part(options, call.qo_len, call.kv_len)
            layout = call.masked() or layout
        elif not isinstance(layout, str):
            layer = evaluation.layer_id(options)
            reason = call.refusal(run.session.settings.precision) or run.refusal(
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
    """Arguments of ComfyUI's attention functions, in either of their layouts. It looks at q, k and
    v and keeps none of them."""

    def __init__(
        self,
        operands: Operands,
        heads,
        mask=None,
        attn_precision=None,
        skip_reshape=False,
        skip_output_reshape=False,
        **kwargs,
    ):
        self.operands, self.heads, self.mask = operands, heads, mask
        self.skip_reshape, self.skip_output_reshape = skip_reshape, skip_output_reshape
        self.scale = kwargs.get("scale")
        self.gqa = kwargs.get("enable_gqa", False)
        self.low_precision = kwargs.get("low_precision_attention", True)
        q, k, v = operands.look()
        self.plain = all(isinstance(x, torch.Tensor) for x in (q, k, v))
        if not self.plain:
            return
        self.qo_len, self.kv_len = q.shape[-2], k.shape[-2]
        self.head_dim = q.shape[-1] // (1 if skip_reshape else heads)
        self._one_shape = q.shape == k.shape == v.shape
        self._trained = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))

    def masked(self) -> str | None:
        return MASK if self.mask is not None else None

    def refusal(self, precision: str) -> str | None:
        """Why the call cannot be ours whatever the model, or None."""
        if self.mask is not None:
            return MASK
        if self.gqa or not self._one_shape:
            return "q, k and v must have one shape, without grouped-query attention"
        if self._trained:
            return "gradients are asked for: the sparse kernels have none"
        if self.low_precision is False and precision == "int8":
            return "the model asks for full precision here (low_precision_attention): choose bf16"
        return None

    def heads_first(self) -> list[torch.Tensor]:
        """q, k, v as (B, H, N, D) views."""
        tensors = self.operands.look()
        if self.skip_reshape:
            return tensors
        batch, length, width = tensors[0].shape
        shape = (batch, length, self.heads, width // self.heads)
        return [x.view(shape).permute(0, 2, 1, 3) for x in tensors]

    def host_shape(self, x: torch.Tensor) -> torch.Tensor:
        """One of heads_first as it was handed over."""
        return x if self.skip_reshape else _joined(x)

    def output(self, out: torch.Tensor) -> torch.Tensor:
        """Our (B, H, N, D) output as the host's function would return it."""
        return out if self.skip_output_reshape else _joined(out)


def _joined(x: torch.Tensor) -> torch.Tensor:
    """(B, H, N, D) -> (B, N, H D)."""
    batch, heads, length, head_dim = x.shape
    return x.permute(0, 2, 1, 3).reshape(batch, length, heads * head_dim)
