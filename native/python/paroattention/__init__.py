"""PAROAttention: reordered block-sparse attention for video and image diffusion (arXiv 2506.16054).

Needs torch and numpy only. `attention` runs a `Plan`; `Session` is one sampling run: it observes,
plans and goes sparse; `Profile` is what is saved and shared; `reference` is the plain oracle.
"""

from . import torch_version  # noqa: F401, I001  (first: it says so where torch is missing or too old)
from . import diffusers, layout, limits, metrics, raylight, settings, web_viewer
from ._core import (
    MAX_PROFILE_NAME,
    ORDERS,
    Error,
    Plan,
    Profile,
    ProfileLayer,
    __version__,
    active_isa,
    head_views,
    load_capture,
    profile_name_rule,
    require_mergeable,
    save_capture,
    suggest_profile_name,
    validate_profile_name,
)
from .kernels import reference, tested_once
from .kernels.attention import attention, unsupported
from .kernels.cuda import preferred_tile
from .heads import Heads
from .layout import TokenLayout
from .learn import exact_maps
from .learn.observer import Observer
from .plan import head_densities, profile_build
from .run import completion, session
from .run.held import Held
from .run.session import Session
from .settings import ModelInfo, Settings

__all__ = [
    "MAX_PROFILE_NAME",
    "ORDERS",
    "Error",
    "Heads",
    "Held",
    "ModelInfo",
    "Observer",
    "Plan",
    "Profile",
    "ProfileLayer",
    "Session",
    "Settings",
    "TokenLayout",
    "__version__",
    "active_isa",
    "attention",
    "completion",
    "diffusers",
    "exact_maps",
    "head_densities",
    "head_views",
    "layout",
    "limits",
    "load_capture",
    "metrics",
    "preferred_tile",
    "profile_build",
    "profile_name_rule",
    "raylight",
    "reference",
    "require_mergeable",
    "save_capture",
    "session",
    "settings",
    "suggest_profile_name",
    "tested_once",
    "unsupported",
    "validate_profile_name",
    "web_viewer",
]
