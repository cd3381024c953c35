"""Profiles by name: the plugin's `profiles/` (shipped, read-only) and ComfyUI's `models/paro/`.

Names come from workflows, so from anyone who reaches the HTTP port: they are checked as names,
never used as paths, and what they resolve to must lie inside the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import folder_paths

from .fingerprint import Identity
from .native import paro

SHIPPED = Path(__file__).resolve().parent.parent / "profiles"
FOLDER = "paro"
# Not profiles: the JSON Schema lies beside the shipped ones.
_OTHER_FILES = {"schema"}
# Words of the node's profile widget: a profile of such a name could not be chosen.
WORDS = ("auto", "none")
# So many similar models' profiles are told of.
_MAX_SIMILAR = 3
_cache: dict[Path, tuple[tuple[int, int], object]] = {}


def user_folder() -> Path:
    """ComfyUI's models/paro (or where extra_model_paths puts it); made when first saved to."""
    if FOLDER not in folder_paths.folder_names_and_paths:
        default = str(Path(folder_paths.models_dir) / FOLDER)
        folder_paths.add_model_folder_path(FOLDER, default, is_default=True)
    return Path(folder_paths.get_folder_paths(FOLDER)[0])


def check_name(name: str) -> None:
    """Raises Error unless a profile can be saved under this name and chosen by it."""
    paro.validate_profile_name(name)
    if name.lower() in (*WORDS, *_OTHER_FILES):
        raise paro.Error(f"profile name must not be a reserved word (got {name!r})")


def _contained(folder: Path, name: str, suffix: str = ".json") -> Path:
    """folder/name.json, refused when it resolves to a place outside of the folder."""
    paro.validate_profile_name(name)
    path = folder / (name + suffix)
    root = folder.resolve()
    if path.resolve().parent != root:
        raise paro.Error(f"profile must lie in {root.name}/ (got the name {name!r})")
    return path


def names() -> list[str]:
    """All profile names, the user's first; unreadable folders count as empty."""
    found: dict[str, None] = {}
    for folder in (user_folder(), SHIPPED):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if path.stem not in _OTHER_FILES and path.is_file():
                found.setdefault(path.stem)
    return list(found)


def find(name: str) -> Path | None:
    """Where a name's profile lies: the user's comes before a shipped one. Error on a bad name."""
    for folder in (user_folder(), SHIPPED):
        path = _contained(folder, name)
        if name not in _OTHER_FILES and path.is_file():
            return path
    return None


def load(name: str):
    """A profile by name. Error when there is none, or it breaks a rule of the schema."""
    path = find(name)
    if path is None:
        raise paro.Error(f"profile must name a saved profile, one of {names()[:20]} (got {name!r})")
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    if _cache.get(path, (None,))[0] != stamp:
        _cache[path] = (stamp, paro.Profile.load(path))
    return _cache[path][1]


def load_for(name: str, identity: Identity):
    """A profile by name; one of this very model gets the fingerprint of today's kind."""
    profile = load(name)
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
    # Names of this model's profiles that hold for other grids only.
    far: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    # (name, signs of 128 that differ) of profiles that would fit, but for a model like this one.
    similar: tuple[tuple[str, int], ...] = ()


def match(identity: Identity, patches: str, grid: tuple[int, int, int]) -> Match:
    """The saved profile of this model, these patches and an equal, else a near grid."""
    found, skipped, far, similar = Match(), [], [], []
    for name in names():
        try:
            profile = load_for(name, identity)
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
            far.append(name)
        if fits == "exact" or (fits == "near" and found.profile is None):
            if found.grid != "exact":
                found = Match(profile, name, fits)
    found.skipped, found.far = tuple(skipped), tuple(far)
    found.similar = tuple(sorted(similar, key=lambda pair: pair[1])[:_MAX_SIMILAR])
    return found


def save(name: str, profile, tensors: dict | None = None) -> Path:
    """Writes models/paro/name.json atomically, and name.capture.safetensors if rows are given."""
    check_name(name)
    folder = user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = _contained(folder, name)
    profile.save(path)
    if tensors:
        paro._core.save_capture(_contained(folder, name, ".capture.safetensors"), profile, tensors)
    return path


def capture(name: str) -> Path | None:
    """The capture that was saved along with a profile of the user's, if there is one."""
    path = _contained(user_folder(), name, ".capture.safetensors")
    return path if path.is_file() else None


def delete(name: str) -> bool:
    """Deletes a profile of the user's and its capture; False for one that is not the user's."""
    path = _contained(user_folder(), name)
    if not path.is_file():
        return False
    path.unlink()
    _cache.pop(path, None)
    kept = capture(name)
    if kept is not None:
        kept.unlink()
    return True


def describe_all() -> list[dict]:
    """What the page shows of every profile; one that cannot be read has `error` instead."""
    return [_describe(name) for name in names()]


def _describe(name: str) -> dict:
    try:
        path = find(name)
        if path is None:
            raise paro.Error("its name is no profile name")
        profile = load(name)
    except (paro.Error, OSError) as error:
        return {"name": name, "error": str(error)[:300]}
    model, calibration = profile.model, profile.calibration
    return {
        "name": name,
        "shipped": path.parent == SHIPPED,
        "bytes": path.stat().st_size,
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
