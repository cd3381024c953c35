"""What a user asks of a run, and the model a run belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from .limits import AUTO, MAX_QUERIES, TILES, one_of

PRECISIONS = ("int8", "bf16")
MASKS = ("static", "dynamic")
# Which runs watch their first steps.
WATCH = ("always", "if needed")
# What computes steps of which every block is wanted.
DENSE_STEPS = ("int8", "model")
# Public values that later versions bring: refused by name, never silently replaced.
NOT_BUILT = {"int4": "precision int4"}
# Measured on the bundled model: its two spread heads keep .52 and .64, the next one .71.
DENSE_BELOW = 0.67
# Where density `auto` starts, until the first samples tell what each head needs.
START_DENSITY = 0.3
TARGET_ERROR = 0.1
# On the bundled model at density .2 the worst head is at .26.
METER_LIMIT = 0.5


def shown(value, limit: int = 80) -> str:
    """A value of any kind for a message: one line, cut to `limit` characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        # For one, an integer beyond what Python writes out.
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _require(ok: bool, name: str, rule: str, value) -> None:
    if not ok:
        raise _core.Error(f"{name} {rule} (got {shown(value)})")


def in_range(value, low: float, high: float) -> bool:
    """Whether the value is a number in low..high; NaN is in no range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and low <= value <= high


def whole(value, low: int, high: int) -> bool:
    """Whether the value is a whole number in low..high."""
    return isinstance(value, int) and in_range(value, low, high)


def _is_text(value, *options: str) -> bool:
    # A tensor or a list that came over a link cannot be compared, or not be hashed.
    return isinstance(value, str) and value in options


@dataclass(frozen=True)
class Settings:
    """density: share of grid blocks computed, 0.05 to 1, or "auto": what target_error needs, the
    relative error of a layer's attention output. percents: share of the run's steps.

    mask: static masks are made of a profile; dynamic ones are found in every call from its own
    pooled q and k, in the heads' orders of the profile, one for all entries of a batch.

    calibrate: a dense run that only watches every `every_n_steps`-th step; exact: full attention
    maps as well, kept beside the profile. observe_steps: how many of the first steps are
    watched. watch: in every run, so that what is known of the model and this prompt come together;
    or only where there is no profile to go by. dense_steps: whether steps of which every block is
    wanted are computed in 8 bits too, or by the model's own attention, as they always are with
    precision bf16. refresh: sample on while
    sparse, every `refresh_every`-th step, and renew masks that have become worse than they need to
    be. meter_limit: a head whose output is measured to be further off than this (relative error)
    goes denser, then dense (0: none does). dense_below: a head that keeps less than this share of
    its mass at density .3 stays dense (0: none does).
    """

    density: float | str = 0.3
    precision: str = "int8"
    mask: str = "static"
    tail: bool = True
    start_percent: float = 0.0
    end_percent: float = 1.0
    observe_steps: int = 4
    queries: int = 64
    target_error: float = TARGET_ERROR
    refresh: bool = True
    refresh_every: int = 2
    meter_limit: float = METER_LIMIT
    dense_below: float = DENSE_BELOW
    calibrate: bool = False
    every_n_steps: int = 1
    exact: bool = False
    block_q: int = 64
    block_kv: int = 64
    dense_steps: str = "int8"
    watch: str = "always"

    @property
    def automatic(self) -> bool:
        """Whether each head's density follows from target_error."""
        return self.density == AUTO

    @property
    def dynamic(self) -> bool:
        """Whether every call finds its own masks."""
        return self.mask == "dynamic"

    @property
    def start_density(self) -> float:
        """A number in any case: the density before anything was measured."""
        return START_DENSITY if self.automatic else self.density

    def validate(self) -> None:
        """Raises Error naming the first setting that breaks its rule."""
        if _is_text(self.precision, *NOT_BUILT):
            raise _core.Error(f"{NOT_BUILT[self.precision]} is not built yet; choose int8 or bf16")
        known = _is_text(self.density, AUTO) or in_range(self.density, 0.05, 1)
        _require(known, "density", "must be from 0.05 to 1, or auto", self.density)
        precision, mask = self.precision, self.mask
        _require(_is_text(precision, *PRECISIONS), "precision", "must be int8 or bf16", precision)
        _require(_is_text(mask, *MASKS), "mask", "must be static or dynamic", mask)
        known = _is_text(self.dense_steps, *DENSE_STEPS)
        _require(known, "dense_steps", f"must be {one_of(DENSE_STEPS)}", self.dense_steps)
        _require(_is_text(self.watch, *WATCH), "watch", f"must be {one_of(WATCH)}", self.watch)
        for name in ("tail", "refresh", "calibrate", "exact"):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, "must be true or false", value)
        target = self.target_error
        _require(in_range(target, 0.005, 1), "target_error", "must be from 0.005 to 1", target)
        for name in ("start_percent", "end_percent", "dense_below", "meter_limit"):
            value = getattr(self, name)
            _require(in_range(value, 0, 1), name, "must be from 0 to 1", value)
        _require(
            self.start_percent <= self.end_percent,
            "start_percent",
            f"must be at most end_percent ({self.end_percent})",
            self.start_percent,
        )
        limits = {"observe_steps": 1000, "every_n_steps": 1000, "refresh_every": 1000}
        for name, high in (limits | {"queries": MAX_QUERIES}).items():
            value = getattr(self, name)
            low = 0 if name == "observe_steps" else 1
            _require(
                whole(value, low, high), name, f"must be a whole number from {low} to {high}", value
            )
        for name in ("block_q", "block_kv"):
            value = getattr(self, name)
            _require(
                whole(value, 1, max(TILES)) and value in TILES,
                name,
                f"must be {one_of(TILES)}",
                value,
            )


@dataclass(frozen=True)
class ModelInfo:
    """Which model a profile belongs to. patches: hash of LoRA and the like, "" without."""

    family: str = "unknown"
    fingerprint: str = "0" * 64
    patches: str = ""
