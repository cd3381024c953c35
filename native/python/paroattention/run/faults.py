"""What may go wrong in a call of ours: memory that runs out, output that is not finite."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..kernels.cuda_observe import Readback

NOT_FINITE = "the sparse output had NaN or infinite values"
# Calls that may run out of memory before the rest of a run stays dense: each try costs time.
_TRIES = 2
# Layers whose flags lie in one tensor.
_CHUNK = 64


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def free(error: BaseException) -> None:
    """Gives cached device memory back if that is what ran out. Never raises."""
    if out_of_memory(error) and torch.cuda.is_available() and torch.cuda.is_initialized():
        # The traceback holds the frames whose tensors are in the way.
        error.__traceback__ = None
        torch.cuda.empty_cache()


class _Flags:
    """Of one device: an int32 word a layer, which a call's kernels set to 1."""

    def __init__(self, device: torch.device):
        self._device = device
        self._chunks: list[torch.Tensor] = []
        # By layer, in the order of the words.
        self._words: dict[str, torch.Tensor] = {}
        # Whether a call was given a word since the last time that they were sent.
        self._used = False

    def flag(self, layer: str) -> torch.Tensor:
        self._used = True
        word = self._words.get(layer)
        if word is None:
            place = len(self._words) % _CHUNK
            # What is made in inference mode could not be cleared outside of it.
            with torch.inference_mode(False):
                if place == 0:
                    zeros = torch.zeros(_CHUNK, dtype=torch.int32, device=self._device)
                    self._chunks.append(zeros)
                word = self._words[layer] = self._chunks[-1][place : place + 1]
        return word

    def send(self) -> tuple[list[str], list[Readback]] | None:
        """The layers, and their words on the way to the host; the words are cleared behind that."""
        if not self._used:
            return None
        self._used = False
        sent = [Readback(chunk) for chunk in self._chunks]
        for chunk in self._chunks:
            chunk.zero_()
        return list(self._words), sent


class Faults:
    """Of one session. note(reason, count, dense): tells the user, once a cause."""

    def __init__(self, note: Callable):
        self._note = note
        self._no_memory = 0
        self._given_up: dict[str, str] = {}
        self._flags: dict[torch.device, _Flags] = {}
        # What was sent and not read yet.
        self._sent: list[tuple[list[str], list[Readback]]] = []

    def failed(self, layer: str, error: BaseException) -> None:
        """A call of ours raised; it ends in dense attention."""
        if out_of_memory(error):
            self._no_memory += 1
            free(error)

    def refusal(self, layer: str) -> str:
        """Why a layer must not be tried again, or ""."""
        if self._no_memory >= _TRIES:
            return "the sparse kernel ran out of memory"
        return self._given_up.get(layer, "")

    @property
    def given_up(self) -> dict[str, str]:
        """Layers that are not tried again, with the reason."""
        return dict(self._given_up)

    def give_up(self, layers: dict[str, str]) -> None:
        """These layers are not tried again: another rank found them wrong."""
        for layer, why in layers.items():
            if layer not in self._given_up:
                self._given_up[layer] = why
                self._note(why, 1, dense=True)

    @staticmethod
    def waits(device: torch.device) -> bool:
        """Whether an output's values have to be waited for: then it is not looked at at once."""
        return device.type != "cpu"

    def flag(self, layer: str, device: torch.device) -> torch.Tensor | None:
        """What a call on this device is to be given as `broken`, int32 (1); does not wait.

        What is not finite then becomes 0, and read() gives the layer up. None on a CPU: the output
        is looked at at once, see finite.
        """
        if not self.waits(device):
            return None
        if device not in self._flags:
            self._flags[device] = _Flags(device)
        return self._flags[device].flag(layer)

    @staticmethod
    def finite(out: torch.Tensor) -> bool:
        """Whether an output can be handed on. Waits for it."""
        # One reduction instead of a bool tensor as large as the output.
        return bool(torch.isfinite(out.sum(dtype=torch.float32)))

    def send(self) -> None:
        """Starts the flags of the calls so far on their way to the host, for read(), and clears
        them. Queued behind those calls on the current stream of each device; does not wait."""
        for flags in self._flags.values():
            sent = flags.send()
            if sent is not None:
                self._sent.append(sent)

    def read(self) -> None:
        """Gives up layers whose flags were sent and are set; sends first where nothing was.

        Waits for what was sent, not for what the devices were given after it.
        """
        if not self._sent:
            self.send()
        sent, self._sent = self._sent, []
        for layers, words in sent:
            set_ = [word for chunk in words for word in chunk.get().tolist()]
            for layer, broken in zip(layers, set_, strict=False):  # the last words are no layer's
                if broken and layer not in self._given_up:
                    self._given_up[layer] = NOT_FINITE
                    self._note(NOT_FINITE, 1, dense=True)

    def clear(self) -> None:
        """Lets go of every device's words; what was not read is lost."""
        self._flags.clear()
        self._sent.clear()
