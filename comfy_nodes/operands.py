"""q, k and v of one attention call as ComfyUI hands them over: tensors, or in containers.

A container, of newer versions of ComfyUI, has one owner: `peek()` looks at the tensor, `take()`
takes it away and leaves the container empty. Whoever takes q, k and v may let go of them before the
call is over.
"""

from __future__ import annotations

_NAMES = ("q", "k", "v")


class Operands:
    """args, kwargs: of a call of ComfyUI's attention functions. `rest` and `kwargs` are what the
    call has beside q, k and v. Nothing leaves a container before `take`."""

    def __init__(self, args: tuple, kwargs: dict):
        named = _NAMES[len(args) :]
        self.given = [*args[:3], *(kwargs[name] for name in named)]
        self.rest = args[3:]
        self.kwargs = {key: value for key, value in kwargs.items() if key not in named}

    @property
    def contained(self) -> bool:
        """Whether any of the three is in a container."""
        return any(is_container(one) for one in self.given)

    def look(self) -> list:
        """q, k, v, which stay where they are. Raises what an empty container raises."""
        return [one.peek() if is_container(one) else one for one in self.given]

    def take(self) -> list:
        """q, k, v out of their containers. Whoever has the list is their only owner."""
        return taken(self.given)

    def wrapped(self, tensors: list) -> list:
        """Tensors in the like of what was handed over."""
        pairs = zip(self.given, tensors, strict=True)
        return [type(one)(tensor) if is_container(one) else tensor for one, tensor in pairs]


def is_container(value) -> bool:
    """Whether a value follows the protocol of ComfyUI's attention containers."""
    return callable(getattr(value, "peek", None)) and callable(getattr(value, "take", None))


def taken(given: list) -> list:
    """Values as they are; those in containers are taken out."""
    return [one.take() if is_container(one) else one for one in given]
