"""Models that read text and references causally, and ask for the image's attention apart from it.

The image's queries come in a call of their own, whose keys are all tokens, or with the keys of text
and references kept from an earlier step. No plan covers such calls.
"""

from __future__ import annotations

from . import Inputs, register

# QwenImage21Transformer2DModel attends by segments of text and images, HiDream-O1 in two passes,
# SenseNova-U1.5 to the kept keys of a prefix.
WHY = "text and references are causal, so the image's queries come in a call of their own"


@register("qwen_image21", "hidream_o1", "sensenova_u15")
def geometry(inputs: Inputs) -> str:
    return WHY
