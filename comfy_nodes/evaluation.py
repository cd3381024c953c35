"""One model evaluation as the override sees it: where the grid lies, and which layer a call is.

ComfyUI hands the attention function no latent, and some models no block index. Two wrappers fill
that in: APPLY_MODEL opens an evaluation, DIFFUSION_MODEL adds the model's own arguments.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import replace

from .layouts import Geometry, Inputs, geometry_for
from .seen import Seen


class Evaluation:
    """Lives in transformer_options for one call of the model.

    forward: the session's. busy: one of its attention calls is under way, so calls from within
    belong to that one. seen: counts the run's calls that stay dense without a message.
    """

    def __init__(self, forward, family: str, inputs: Inputs, seen: Seen | None = None):
        self.forward, self.family, self.busy = forward, family, False
        self.seen = seen or Seen()
        self._inputs = inputs
        self._geometry: Geometry | str | None = None
        self._joined: tuple[int, int] | None = None
        self._next_block = self._asked = 0

    def close(self) -> None:
        """The model's call is over. Its options hold this, and this its arguments: without the cut
        latent, text and references would stay on the device until Python looks for cycles."""
        self._inputs = Inputs(None, {})

    @property
    def geometry(self) -> Geometry | str:
        """Found at the first attention call that asks; a string says why there is none."""
        if self._geometry is None:
            self._geometry = self.seen.geometry = self._with_joined(self._find())
        return self._geometry

    def _find(self) -> Geometry | str:
        # Models that no family covers may bring their own: see docs/comfyui.md.
        own = self._inputs.options.get("paro_geometry")
        if not callable(own):
            return geometry_for(self.family, self._inputs)
        try:
            found = own(self._inputs)
            return Geometry(**found) if isinstance(found, dict) else found
        except Exception as error:
            return f"the model's paro_geometry function failed: {type(error).__name__}: {error}"[
                :200
            ]

    def _with_joined(self, geometry: Geometry | str) -> Geometry | str:
        """Corrected by what the last `post_input` patch of a joint model left: (text, image)."""
        if self._joined is None or isinstance(geometry, str) or geometry.prefix is None:
            return geometry
        text, image = self._joined
        suffix = image - geometry.grid_size
        if suffix < 0:
            return (
                f"another node leaves {image} image tokens, but the grid has {geometry.grid_size}"
            )
        return replace(geometry, prefix=text, suffix=suffix, image_at=None)

    def layer_id(self, options: dict) -> str:
        """`block_type.block_index.occurrence` of a call of this layout, counting it."""
        if self._geometry.counted:
            block = "block", self._next_block
            self._next_block += 1
        else:
            block = str(options.get("block_type", "block")), int(options.get("block_index", 0))
        return self.forward.layer_id(*block)

    def count_part(self, options: dict, queries: int, keys: int) -> None:
        """Counts a layer that asks for its sequence's queries in several calls."""
        if self._asked == 0:
            self.layer_id(options)
        self._asked = (self._asked + queries) if self._asked + queries < keys else 0

    # -- what the DIFFUSION_MODEL wrapper adds -------------------------------------------------

    def enter_model(self, executor, args, kwargs) -> None:
        """Takes over the model's own arguments; transformer_options must be this evaluation's."""
        arguments = _by_name(executor.original, args, kwargs)
        options = arguments.get("transformer_options") or {}
        self._inputs = Inputs(executor.class_obj, arguments, options)
        self._geometry, self._next_block, self._asked = None, 0, 0
        patches = options.get("patches", {})
        if patches.get("post_input"):
            # Ours comes last: it sees what the others made of text and image.
            added = [*patches["post_input"], self._see_joined]
            options["patches"] = {**patches, "post_input": added}
        replaced = options.get("patches_replace", {})
        if replaced.get("dit"):
            dit = {key: self._numbered(key, block) for key, block in replaced["dit"].items()}
            options["patches_replace"] = {**replaced, "dit": dit}

    def _see_joined(self, arguments: dict) -> dict:
        with contextlib.suppress(Exception):
            # Where others have left something else, the layout stays the model's own.
            self._joined = arguments["txt"].shape[1], arguments["img"].shape[1]
        return arguments

    def _numbered(self, key, block):
        """A block replacement that may skip its block: counting goes on behind it all the same."""
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int)):
            return block

        def numbered(*args, **kwargs):
            self._next_block = key[1]
            try:
                return block(*args, **kwargs)
            finally:
                self._next_block = key[1] + 1

        return numbered


def _by_name(function, args, kwargs) -> dict:
    """Arguments by their names; what the function takes as ** is among them."""
    signature = inspect.signature(function)
    arguments = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments
