"""The folders of the user's profiles, models/paro and those of extra_model_paths.yaml, and the
plugin's own."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import yaml
from comfy.cli_args import args

FOLDER = "paro"
_EXTENSIONS = {".json"}


def user_folders() -> list[Path]:
    """All of them, each once, in the order in which they are searched; new files go to the first.

    As for loras: sections with `is_default`, then models/paro, then the others. Those that other
    plugins add later come at their place, since ComfyUI's own list is asked each time.
    """
    _register()
    found: dict[str, Path] = {}
    for path in folder_paths.get_folder_paths(FOLDER):
        found.setdefault(os.path.normcase(os.path.realpath(path)), Path(path))
    return list(found.values())


def private_folder() -> Path:
    """The plugin's own, in ComfyUI's user folder: no route serves it or writes to it. It may not be
    there."""
    find = getattr(folder_paths, "get_system_user_directory", None)
    # ComfyUI before 0.4 has no function for it.
    folder = find("paro") if find else os.path.join(folder_paths.get_user_directory(), "__paro")
    return Path(folder)


def _register() -> None:
    """Puts models/paro where ComfyUI has its own folders of a kind: after the defaults.

    ComfyUI reads extra_model_paths.yaml before it loads plugins. Of a kind that it does not know it
    keeps only the paths, not which of them were defaults. An entry with our file extensions is one
    that this function has completed.
    """
    known = folder_paths.folder_names_and_paths.get(FOLDER)
    if known is not None and _EXTENSIONS <= set(known[1]):
        return
    paths = known[0] if known is not None else []
    ours = os.path.join(folder_paths.models_dir, FOLDER)
    defaults = _configured_defaults()
    if ours not in defaults:
        while ours in paths:
            paths.remove(ours)
        ahead = 0
        while ahead < len(paths) and paths[ahead] in defaults:
            ahead += 1
        paths.insert(ahead, ours)
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(_EXTENSIONS))


def _configured_defaults() -> set[str]:
    """The `paro` folders of sections that say `is_default`, in the files that ComfyUI has read."""
    files = [Path(folder_paths.__file__).resolve().parent / "extra_model_paths.yaml"]
    files += [Path(one) for given in args.extra_model_paths_config or [] for one in given]
    found: set[str] = set()
    for file in files:
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        for section in config.values() if isinstance(config, dict) else ():
            if isinstance(section, dict) and section.get("is_default"):
                found.update(_paths(section, file))
    return found


def _paths(section: dict, file: Path) -> list[str]:
    """A section's `paro` folders as ComfyUI registers them."""
    beside = os.path.dirname(os.path.abspath(file))
    base = section.get("base_path")
    # join drops the base before an absolute path.
    base = os.path.join(beside, os.path.expandvars(os.path.expanduser(base))) if base else beside
    lines = str(section.get(FOLDER) or "").split("\n")
    return [os.path.normpath(os.path.join(base, line)) for line in lines if line]


_register()
