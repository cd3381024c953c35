"""Dense calls by our own kernel: every block of the plan, in 8 bits, about twice as fast.

A run's watched steps, and those outside of start_percent and end_percent, need no masks. The first
such call of a run is compared with the model's own attention: a model or card with which 8 bits go
wrong shows there, before its output is used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from .. import _core
from ..kernels.capability import fast_at_density_1, unsupported
from ..layout import TokenLayout
from ..settings import Settings
from .held import AttentionCall
from .report import first_line

# Relative error to the model's own attention beyond which 8 bits are not used in a run. Real models
# are at .01 to .05; of noise it is 1.4.
LIMIT = 0.2
# Tokens that are compared, spread over all.
_COMPARED = 4096
# The call of a run that is timed against the model's own: kernels are loaded by then.
_TIMED = 2


class DenseCalls:
    """Of one session, from any of its threads. run(call, plan, device): our output, or None where
    it is known not to be finite. note(reason): tells the user."""

    def __init__(self, settings: Settings, run: Callable, note: Callable):
        self._settings, self._run, self._note = settings, run, note
        self._lock = threading.Lock()
        self._plans: dict[tuple, _core.Plan] = {}
        self.count = 0
        # Why no kernel of ours is to run in this run, or "".
        self.wrong = ""
        # Relative error of the first call to the model's own attention.
        self.error: float | None = None
        self._marks: tuple = ()

    def attention(self, call: AttentionCall) -> torch.Tensor | None:
        """Our output (B, H, N, D) of a call of which every block is wanted; None where its dense()
        is to compute it. Raises what the kernel raises."""
        settings, device = self._settings, call.held.q.device
        wanted = settings.dense_steps == settings.precision == "int8" and not self.wrong
        if not wanted or not _better(call.held.q, settings):
            return None
        with self._lock:
            number, self.count = self.count, self.count + 1
            plan = self._plan(call.layout, call.held.q.shape[1])
        if number == 0:
            # Theirs first: ours may let go of q, k and v.
            theirs = call.dense()
            return self._checked(self._run(call, plan, device), theirs)
        if number != _TIMED:
            return self._run(call, plan, device)
        begin = _now(device)
        call.dense()
        middle = _now(device)
        out = self._run(call, plan, device)
        self._marks = (begin, middle, _now(device))
        return out

    def contained(self, call: AttentionCall, faults) -> torch.Tensor | None:
        """As `attention`; None where it fails too: an error of ours must not cost the run what it
        would watch. faults: the session's."""
        if faults.refusal(call.layer):
            return None
        try:
            return self.attention(call)
        except Exception as error:
            faults.failed(call.layer, error)
            if not call.held.whole:
                raise
            self._note(f"a dense call was computed by the model's own: {first_line(error)}")
            return None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Of one call: by the model's own attention, and by ours; None while that is not known."""
        if not self._marks or not _reached(self._marks[-1]):
            return None
        begin, middle, end = self._marks
        return _between(begin, middle), _between(middle, end)

    def clear(self) -> None:
        self._plans.clear()

    def _plan(self, layout: TokenLayout, heads: int) -> _core.Plan:
        name = layout, heads
        if name not in self._plans:
            tile = self._settings.block_q, self._settings.block_kv
            blocks = tuple(-(-layout.grid_size // side) for side in tile)
            every = _core.HeadPlan("FHW", _core.BlockMask(np.ones(blocks, bool)))
            self._plans[name] = layout.plan([every] * heads, *tile)
        return self._plans[name]

    def _checked(self, out: torch.Tensor | None, theirs: torch.Tensor) -> torch.Tensor | None:
        """Our output, if it is near the model's own."""
        ours = None if out is None else _as_host(out, theirs)
        if ours is None:
            return out
        self.error = _error(ours, theirs)
        if self.error <= LIMIT:
            return out
        # NaN is below no limit.
        self.wrong = (
            f"attention in 8 bits is off by {self.error:.2f} on this model"
            f" (at most {LIMIT} is expected): choose precision bf16"
        )
        self._note(self.wrong)
        return None


def _as_host(out: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor | None:
    """(B, H, N, D) in the shape of the host's output; None where that is another one."""
    batch, heads, length, head_dim = out.shape
    if theirs.shape == out.shape:
        return out
    if theirs.shape == (batch, length, heads * head_dim):
        # N comes second in our memory, so that this copies nothing.
        return out.permute(0, 2, 1, 3).reshape(theirs.shape)
    return None


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative error over some of the tokens. Waits for both."""
    step = max(1, ours.shape[-2] // _COMPARED)
    a, b = (x[..., ::step, :].float() for x in (ours, theirs))
    return float((a - b).norm() / b.norm().clamp_min(1e-20))


def _better(q: torch.Tensor, settings: Settings) -> bool:
    return fast_at_density_1(q) and not unsupported(q, settings, "int8")


def _now(device: torch.device):
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _reached(mark) -> bool:
    return isinstance(mark, float) or mark.query()


def _between(begin, end) -> float:
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) * 1e-3
