"""PAROAttention: reordered block-sparse attention for video and image diffusion (arXiv 2506.16054).

Needs torch and numpy only. `attention` runs a `Plan`; `Session` is one sampling run: it observes,
plans and goes sparse; `Profile` is what is saved and shared; `reference` is the plain oracle.
"""

from . import completion, exact_maps, metrics, profile_build, reference, session, settings
from ._core import (
    ORDERS,
    Error,
    Plan,
    Profile,
    __version__,
    active_isa,
    profile_name_rule,
    suggest_profile_name,
    validate_profile_name,
)
from .attention import attention, unsupported
from .layout import TokenLayout
from .observer import ExactObserver, Observer
from .session import Session
from .settings import ModelInfo, Settings

__all__ = [
    "ORDERS",
    "Error",
    "ExactObserver",
    "ModelInfo",
    "Observer",
    "Plan",
    "Profile",
    "Session",
    "Settings",
    "TokenLayout",
    "__version__",
    "active_isa",
    "attention",
    "completion",
    "exact_maps",
    "metrics",
    "profile_build",
    "profile_name_rule",
    "reference",
    "session",
    "settings",
    "suggest_profile_name",
    "unsupported",
    "validate_profile_name",
]
