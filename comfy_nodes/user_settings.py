"""What a user sets for every run, in a small JSON file of ComfyUI's user folder.

The file is the user's own, so anything may lie there. A run never ends by it: what cannot be used
is named on the node, and the default is used in its place.
"""

from __future__ import annotations

import difflib
import json
import stat
from dataclasses import dataclass, fields
from pathlib import Path

from .folders import private_folder
from .native import paro

NAME = "settings.json"
# As messages and the docs name it; a whole path would tell a page where ComfyUI lies.
SHOWN = "user/__paro/settings.json"
MAX_BYTES = 64 << 10
_MOST_TOLD = 5


@dataclass(frozen=True)
class UserSettings:
    """tile: tokens in a square tile's side, None for what is fastest on the device. few_steps: runs
    of up to so many steps watch only the first one. least_gain: a run whose predicted gain is a
    smaller share of its time stays dense."""

    tile: int | None = None
    few_steps: int = 8
    least_gain: float = 0.05


KEYS = tuple(field.name for field in fields(UserSettings))


class _Unusable(Exception):
    """The file as a whole; the text is the broken rule."""


def file() -> Path:
    """Where the settings are read from."""
    return private_folder() / NAME


def read() -> tuple[UserSettings, list[str]]:
    """The settings as the file has them now, and what the user is told of it. Never raises."""
    try:
        content = _content(file())
        given = {} if content is None else _parsed(content)
    except _Unusable as broken:
        return UserSettings(), [f"{SHOWN} {broken}; the defaults are used"]
    taken, told = {}, []
    for key, value in given.items():
        rule = _rule(key, value) if key in KEYS else _unknown(key)
        if not rule:
            taken[key] = value
        else:
            told.append(f"{SHOWN}: {rule}")
    if len(told) > _MOST_TOLD:
        told[_MOST_TOLD:] = [f"{SHOWN}: {len(told) - _MOST_TOLD} more keys are not used"]
    return UserSettings(**taken), told


def _content(path: Path) -> bytes | None:
    """The file's bytes; None where there is none."""
    try:
        # Before it is opened: a pipe would let the run wait without end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Unusable("must be a regular file")
        with open(path, "rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _Unusable(f"cannot be read ({type(error).__name__})") from None
    if len(content) > MAX_BYTES:
        raise _Unusable(f"must not be larger than {MAX_BYTES >> 10} KiB")
    return content


def _parsed(content: bytes) -> dict:
    try:
        # Editors of Windows begin a file with a mark.
        given = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _Unusable("must be saved as UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise _Unusable(f"must be JSON (got: {where})") from None
    except (ValueError, RecursionError):
        raise _Unusable("must be JSON without numbers of thousands of digits or levels") from None
    if not isinstance(given, dict):
        shown = paro.settings.shown(given, 40)
        raise _Unusable(f'must hold one object, such as {{"few_steps": 8}} (got {shown})')
    return given


def _rule(key: str, value) -> str:
    """What is wrong with a known key's value, or ""."""
    known, limits = paro.settings, paro.limits
    if key == "tile":
        right = value is None or (known.whole(value, 64, 128) and value in limits.TILES)
        rule = f"must be null, {limits.one_of(limits.TILES)}"
    elif key == "few_steps":
        right, rule = known.whole(value, 0, 1000), "must be a whole number from 0 to 1000"
    else:
        right, rule = known.in_range(value, 0, 1), "must be from 0 to 1"
    default = "the device's tile" if key == "tile" else getattr(UserSettings, key)
    return "" if right else f"{key} {rule} (got {_shown(value)}); {default} is used"


def _shown(value) -> str:
    """A value as JSON has it."""
    words = {None: "null", True: "true", False: "false"}
    named = value is None or isinstance(value, bool)
    return words[value] if named else paro.settings.shown(value)


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key.casefold(), KEYS, 1, 0.5)
    known = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(KEYS)}"
    return f"{paro.settings.shown(key, 40)} is no setting; {known}"
