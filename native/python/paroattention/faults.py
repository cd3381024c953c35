"""What may go wrong in a call of ours: memory that runs out, output that is not finite."""

from __future__ import annotations

from collections.abc import Callable

import torch

NOT_FINITE = "output was not finite"
# Calls that may run out of memory before the rest of a run stays dense: each try costs time.
_TRIES = 2


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def free(error: BaseException) -> None:
    """Gives cached device memory back if that is what ran out. Never raises."""
    if out_of_memory(error) and torch.cuda.is_available() and torch.cuda.is_initialized():
        # The traceback holds the frames whose tensors are in the way.
        error.__traceback__ = None
        torch.cuda.empty_cache()


class Faults:
    """Of one session. note(reason, count, dense): tells the user, once a cause."""

    def __init__(self, note: Callable):
        self._note = note
        self._no_memory = 0
        self._given_up: dict[str, str] = {}
        # By layer: a flag on the device, set once an output was not finite.
        self._flags: dict[str, torch.Tensor] = {}

    def failed(self, layer: str, error: BaseException) -> None:
        """A call of ours raised; it ends in dense attention."""
        if out_of_memory(error):
            self._no_memory += 1
            free(error)

    def refusal(self, layer: str) -> str:
        """Why a layer must not be tried again, or ""."""
        if self._no_memory >= _TRIES:
            return "out of memory in the sparse kernel"
        return self._given_up.get(layer, "")

    @staticmethod
    def ask(out: torch.Tensor) -> bool:
        """Whether to look at an output at once: where nothing has to be waited for."""
        return out.device.type == "cpu"

    def finite(self, layer: str, out: torch.Tensor) -> bool:
        """Whether `out` can be handed on.

        On a CPU it is looked at, and the call runs dense if not. A GPU is not waited for: what is
        not finite becomes 0 in place, and read() gives the layer up at the end of the step.
        """
        # One reduction instead of a bool tensor as large as the output.
        fine = torch.isfinite(out.sum(dtype=torch.float32))
        if self.ask(out):
            return bool(fine)
        seen = self._flags.get(layer)
        self._flags[layer] = ~fine if seen is None else seen | ~fine
        torch.nan_to_num_(out, nan=0.0, posinf=0.0, neginf=0.0)
        return True

    def read(self) -> None:
        """Looks at the flags of the step that is over: the one place that waits for the device."""
        flags, self._flags = self._flags, {}
        if not flags:
            return
        bad = torch.stack([flag.to(next(iter(flags.values())).device) for flag in flags.values()])
        for layer, broken in zip(flags, bad.tolist(), strict=True):
            if broken:
                self._given_up[layer] = NOT_FINITE
                self._note(NOT_FINITE, 1, dense=True)
