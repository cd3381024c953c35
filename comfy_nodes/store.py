"""Profiles by name: the plugin's `profiles/` (shipped, read-only) and the user's folders.

Names come from workflows, so from anyone who reaches the HTTP port: they are checked as names,
never used as paths, and what they resolve to must lie inside the folder. What lies in the folders
is offered under its name if that is safe as a file's on every system, else said with another name.
Names are compared as macOS and Windows do: Unicode's two spellings of a letter are one, and upper
and lower case differ only where both are there.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import leftovers
from .alone import alone
from .folders import user_folders
from .identity.fingerprint import Identity
from .inputs import PROFILE_WORDS
from .native import paro

SHIPPED = Path(__file__).resolve().parent.parent / "profiles"
SUFFIX, CAPTURE = ".json", ".capture.safetensors"
# Not profiles: the JSON Schema lies beside the shipped ones.
_OTHER_FILES = {"schema"}
# So many similar models' profiles are told of.
_MAX_SIMILAR = 3
_LINK = "it is a link to a place outside the folder"
_cache: dict[Path, tuple[tuple[int, ...], object]] = {}
# A save that any version may be replaced by.
ANY = "*"
log = logging.getLogger("paroattention")


class Replaced(Exception):
    """Another version than the wanted one is there."""


class WithoutCapture(Exception):
    """The profile is saved, and its capture is not."""


@dataclass(frozen=True)
class Entry:
    """A profile's file. name: as it is offered, in NFC; the file's own spelling may be NFD."""

    name: str
    path: Path

    @property
    def shipped(self) -> bool:
        return self.path.parent == SHIPPED


@dataclass(frozen=True)
class Refused:
    """A file that is not offered. rename: the file's name under which it would be, else ""."""

    file: str
    rule: str
    rename: str

    def __str__(self) -> str:
        todo = (
            f"rename it to {self.rename}" if self.rename else "put the file itself into the folder"
        )
        return f"file {self.file} is not offered: {self.rule}; {todo}"


def user_folder() -> Path:
    """Where new profiles go; made when first saved to."""
    return user_folders()[0]


def spelt(name: str) -> str:
    """The spelling under which a name is offered: letters and their accents as one character."""
    return unicodedata.normalize("NFC", name)


def _loosely(name: str) -> str:
    """What is equal for names of one file on macOS and Windows."""
    return spelt(spelt(name).casefold())


def _rule(name: str) -> str:
    """The rule that a name breaks, or ""."""
    if name.casefold() in (*PROFILE_WORDS, *_OTHER_FILES):
        return "must not be auto, none or schema"
    return paro.profile_name_rule(name)


def _suggestion(name: str, taken: set[str]) -> str:
    """A free name like this one."""
    plain = paro.suggest_profile_name(spelt(name))
    if _rule(plain):
        plain = f"{plain}-profile"
    number, found = 1, plain
    while _loosely(found) in taken:
        number += 1
        found = longer_name(plain, f"-{number}")
    return found


def longer_name(name: str, end: str) -> str:
    """A name that starts as this one and ends so, short enough for a file."""
    return name[:60].encode()[: paro.MAX_PROFILE_NAME - len(end)].decode(errors="ignore") + end


def check_name(name: str) -> None:
    """Raises Error unless a profile can be saved under this name and chosen by it."""
    paro.validate_profile_name(name)
    rule = _rule(name)
    if rule:
        raise paro.Error(f'profile name {rule} (got {name!r}): "{name}-profile" would do')


def _contained(path: Path) -> Path:
    """The path, refused when it resolves to a place outside of its folder."""
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        root = path.parent.resolve().name
        raise paro.Error(
            f"profile must lie in {root}/ (got a link to a place outside, {_shown(path.name)})"
        )
    return path


def _shown(text: str) -> str:
    """A file's name for messages: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _files(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """(name without its suffix, path) of a folder's regular files, sorted; links are followed."""
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        return
    for file in found:
        # macOS keeps a file's attributes beside it under this prefix, on disks of other systems.
        if file.lower().endswith(suffix) and not file.startswith("._"):
            path = folder / file
            # Unlike Path's own it takes what cannot be looked at for no file.
            if os.path.isfile(path):
                yield file[: -len(suffix)], path


def _scan() -> tuple[list[Entry], list[tuple[str, Path, str]]]:
    """The profiles in the order of the search, and (name, path, broken rule) of other files."""
    entries, others = [], []
    for folder in (*user_folders(), SHIPPED):
        here: set[str] = set()
        for stem, path in _files(folder, SUFFIX):
            name = spelt(stem)
            if folder == SHIPPED and name in _OTHER_FILES:
                continue
            rule = _rule(name)
            if rule:
                others.append((stem, path, f"its name {rule}"))
            elif os.path.islink(path) and path.resolve().parent != folder.resolve():
                others.append((stem, path, _LINK))
            elif name in here:
                others.append(
                    (stem, path, "another file has this name in other Unicode characters")
                )
            else:
                here.add(name)
                entries.append(Entry(name, path))
    return entries, others


def _lookup(name: str) -> Entry | None:
    """The entry that a name means: in its own case first. Error on a bad name, or for a link."""
    paro.validate_profile_name(name)
    entries, others = _scan()
    for same in (spelt, _loosely):
        for entry in entries:
            if same(entry.name) == same(name):
                return entry
    for stem, path, _ in others:
        if spelt(stem) == spelt(name):
            _contained(path)
    return None


def names() -> list[str]:
    """All profile names, the user's first; unreadable folders count as empty."""
    return list(_offered(_scan()[0]))


def _offered(entries: list[Entry]) -> dict[str, Entry]:
    """By name, the entry that it means."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry.name, entry)
    return found


def not_offered() -> list[Refused]:
    """Files of the folders that cannot be chosen, each with a name under which it could."""
    return _refused(*_scan())


def _refused(entries: list[Entry], others: list[tuple[str, Path, str]]) -> list[Refused]:
    taken = {_loosely(entry.name) for entry in entries}
    found = []
    for stem, path, rule in others:
        rename = "" if rule == _LINK else _suggestion(stem, taken) + SUFFIX
        found.append(Refused(_shown(path.name), rule, rename))
    return found


def find(name: str) -> Path | None:
    """Where a name's profile lies: the user's comes before a shipped one. Error on a bad name."""
    entry = _lookup(name)
    return entry.path if entry is not None else None


def load(name: str):
    """A profile by name. Error when there is none, or it breaks a rule of the schema."""
    path = find(name)
    if path is None:
        known = paro.settings.shown(names(), 300)
        raise paro.Error(f"profile must name a saved profile, one of {known} (got {name!r})")
    return _read(path)


def _read(path: Path):
    stat = path.stat()
    # Times alone do not tell two versions apart where the clock was set back, or is coarse.
    stamp = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)
    if _cache.get(path, (None,))[0] != stamp:
        _cache[path] = (stamp, paro.Profile.load(path))
    return _cache[path][1]


def load_for(name: str, identity: Identity):
    """A profile by name; one of this very model gets the fingerprint of today's kind."""
    return _as_of_today(load(name), identity)


def _as_of_today(profile, identity: Identity):
    if profile.model.fingerprint == identity.fingerprint:
        return profile
    if not identity.owns(profile.model.fingerprint):
        return profile
    # A copy: the cache holds what the file says.
    same = paro.Profile.parse(profile.dump())
    same.model.fingerprint = identity.fingerprint
    return same


@dataclass
class Match:
    """What `auto` found: a profile with its name, or why not."""

    profile: object = None
    name: str = ""
    grid: str = ""
    # Grids of this model's profiles that are too far from the run's.
    far: tuple[tuple[int, int, int], ...] = ()
    skipped: tuple[str, ...] = ()
    # (name, signs of 128 that differ) of profiles that would fit, but for a model like this one.
    similar: tuple[tuple[str, int], ...] = ()


def match(identity: Identity, patches: str, grid: tuple[int, int, int]) -> Match:
    """The saved profile of this model, these patches and an equal, else a near grid."""
    found, skipped, far, similar = Match(), [], [], []
    entries, others = _scan()
    for name, entry in _offered(entries).items():
        try:
            profile = _as_of_today(_read(entry.path), identity)
        except (paro.Error, OSError) as error:
            skipped.append(f"profile {name} skipped: {error}")
            continue
        model, fits = profile.model, profile.match_grid(grid)
        if model.patches != patches:
            continue
        if model.fingerprint != identity.fingerprint:
            apart = identity.similar(model.fingerprint)
            if apart is not None and fits != "far":
                similar.append((name, apart))
            continue
        if fits == "far":
            far += profile.calibration.grids
        if fits == "exact" or (fits == "near" and found.profile is None):
            if found.grid != "exact":
                found = Match(profile, name, fits)
    skipped += map(str, _refused(entries, others))
    found.skipped, found.far = tuple(skipped), tuple(far)
    found.similar = tuple(sorted(similar, key=lambda pair: pair[1])[:_MAX_SIMILAR])
    return found


def version(path: Path | None) -> str | None:
    """A file's ETag, the one that aiohttp sends with it; None where there is no file."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"' if stat is not None else None


def save(name: str, profile, tensors: dict | None = None, only_over: str | None = ANY) -> Path:
    """Writes name.json atomically, and name.capture.safetensors beside it if rows are given.

    only_over: the version that may be replaced, None for none at all; else Replaced is raised.

    A profile of the user's is renewed where it lies; a new one, and one over a shipped one, goes to
    the default folder. So does one whose own folder cannot be written to: there it comes first.
    WithoutCapture where the rows alone could not be written.
    """
    check_name(name)
    # A version is compared and replaced without another save in between.
    with alone(user_folder()):
        if only_over != ANY and version(find(name)) != only_over:
            raise Replaced(f"profile {name} is another one on the server now")
        return _save(name, profile, tensors)


def _save(name: str, profile, tensors: dict | None) -> Path:
    default = user_folder() / (spelt(name) + SUFFIX)
    entry = _lookup(name)
    path = entry.path if entry is not None and not entry.shipped else default
    try:
        path = _write(path, profile)
    except (paro.Error, OSError) as error:
        if path.parent == default.parent:
            raise
        log.warning("PARO: %s; saved in the default folder instead", error)
        path = _write(default, profile)
    if tensors:
        beside = _capture_beside(path) or path.with_name(path.name[: -len(SUFFIX)] + CAPTURE)
        try:
            paro.save_capture(_contained(beside), profile, tensors)
        except (paro.Error, OSError) as error:
            told = f"profile {name} is saved, but not the rows that the viewer shows: {error}"
            raise WithoutCapture(told) from error
    return path


def _write(path: Path, profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    leftovers.remove(path.parent)
    profile.save(_contained(path))
    return path


def _capture_beside(path: Path) -> Path | None:
    """The capture of the profile at this path: in the same folder, in either spelling."""
    wanted = spelt(path.name[: -len(SUFFIX)])
    found = [one for stem, one in _files(path.parent, CAPTURE) if spelt(stem) == wanted]
    return _contained(found[0]) if found else None


def capture(name: str) -> Path | None:
    """The capture that was saved along with a profile, if there is one; the user's alone may lie
    without its profile."""
    entry = _lookup(name)
    if entry is not None:
        return _capture_beside(entry.path)
    paths = (_capture_beside(folder / (spelt(name) + SUFFIX)) for folder in user_folders())
    return next((path for path in paths if path is not None), None)


def is_users(name: str) -> bool:
    """Whether a name's profile is the user's, not a shipped one."""
    entry = _lookup(name)
    return entry is not None and not entry.shipped


def with_held_capture(name: str, profile, identity: Identity, tensors: dict, watched) -> dict:
    """`tensors`, and what the capture under this name has of layers that were not `watched`, where
    its maps and rows still hold for the profile that is to be saved with them."""
    path = capture(name)
    rest = set(profile.layer_ids()) - set(watched)
    if path is None or not rest or not tensors:
        return tensors
    try:
        held, entries = paro.load_capture(path)
    except (paro.Error, OSError):
        return tensors
    same = (
        held.calibration.grids[:1] == profile.calibration.grids[:1]
        and held.timestep_groups == profile.timestep_groups
        and (held.model.heads, held.model.patches) == (profile.model.heads, profile.model.patches)
        and identity.owns(held.model.fingerprint)
    )
    kept = {key: value for key, value in entries.items() if same and key.split("/")[1] in rest}
    return kept | tensors


def delete(name: str) -> bool:
    """Deletes a profile of the user's where it lies, and its capture; False for a shipped one."""
    entry = _lookup(name)
    if entry is None or entry.shipped:
        return False
    kept = _capture_beside(entry.path)
    entry.path.unlink()
    _cache.pop(entry.path, None)
    if kept is not None:
        kept.unlink()
    return True


def describe_all() -> list[dict]:
    """What the page shows of every profile; one that cannot be read has `error` instead."""
    return [_describe(name, entry) for name, entry in _offered(_scan()[0]).items()]


def _describe(name: str, entry: Entry) -> dict:
    try:
        profile = _read(entry.path)
        size = entry.path.stat().st_size
    except (paro.Error, OSError) as error:
        return {"name": name, "error": str(error)[:300]}
    model, calibration = profile.model, profile.calibration
    return {
        "name": name,
        "shipped": entry.shipped,
        "bytes": size,
        "version": version(entry.path),
        "family": model.family,
        "fingerprint": model.fingerprint,
        "patches": model.patches,
        "layers": model.layers,
        "heads": model.heads,
        "head_dim": model.head_dim,
        "grids": [list(grid) for grid in calibration.grids],
        "steps": calibration.steps,
        "prompts": calibration.prompts,
        "date": calibration.date,
    }
