"""PAROAttention: reordered block-sparse attention for video and image diffusion (arXiv 2506.16054).

Needs torch and numpy only. `attention` runs a `Plan`; `Session` is one sampling run: it observes,
plans and goes sparse; `Profile` is what is saved and shared; `reference` is the plain oracle.
"""

from . import metrics, settings
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
from .kernels import reference
from .kernels.attention import attention, unsupported
from .layout import TokenLayout
from .learn import exact_maps
from .learn.observer import ExactObserver, Observer
from .plan import profile_build
from .run import completion, session
from .run.session import Session
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
