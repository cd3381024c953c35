"""What changes a model beside its own weights: a hash of it, and what no hash can tell.

A model with other patches counts as another model.

In the hash by their values: patches, hooks of conditionings with their keyframes, adapters that are
injected into forwards (LoRA bypass), weight wrappers, replaced modules, scaled positions.

In the hash by their names alone: functions that other nodes put into or around the model. Their
values could be anywhere, so a run that uses a saved profile with them says so.

Not in the hash: sampling objects, dtypes, compilation and the caches of ComfyUI, which change
nothing that a profile holds; guidance, which works on the model's output; ControlNets, which are
conditionings as prompts are.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import torch

_ROOT = "diffusion_model"
# Wrappers around the model that leave its weights and what attention sees of them as they are.
_HARMLESS = {"paro", "paro_bench", "torch.compile", "easycache", "lazycache"}
_AROUND = ("apply_model", "diffusion_model")
_DRAWN = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F][0-9a-fA-F-]{11,}")
_MAX_TOLD = 4
_VALUES = (str, int, float, bool, type(None), torch.dtype)


@dataclass(frozen=True)
class Changes:
    """hash: 16 hex digits, empty for a plain model. opaque: names of what is told by no value."""

    hash: str = ""
    opaque: tuple[str, ...] = ()

    @classmethod
    def of(cls, patcher, conds: dict | None = None, model_options: dict | None = None) -> Changes:
        """conds: the run's conditionings by name, after their hooks were registered;
        model_options: the run's, with what hooks have added."""
        conds, options = conds or {}, model_options or patcher.model_options
        told = {*_hooks(patcher, conds), *_bypasses(patcher), *_replaced(patcher)}
        told |= _weighed_wrappers(patcher) | _positions(options)
        opaque = {*_opaque_injections(patcher), *_opaque_objects(patcher)}
        opaque |= _opaque_wrappers(patcher) | _around(patcher, conds, options)
        patches = getattr(patcher, "patches", {})
        digest = hashlib.sha256()
        for key in sorted(patches, key=str):
            digest.update(str(key).encode())
            for patch in patches[key]:
                digest.update(_sample(list(patch)).encode())
        # Of patches alone it is the hash that profiles of earlier versions hold.
        for line in (*sorted(told), *sorted(opaque)):
            digest.update(f"\n{line}".encode())
        changed = patches or told or opaque
        return cls(digest.hexdigest()[:16] if changed else "", tuple(sorted(opaque)))

    def untold(self) -> str:
        """What the user is told when a saved profile is used all the same; empty without a need."""
        # Blocks are many, and all of them are patched alike.
        names = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in self.opaque})
        more = len(names) - _MAX_TOLD
        rest = f" and {more} more" if more > 0 else ""
        told = (
            f"other nodes changed {', '.join(names[:_MAX_TOLD])}{rest} of the model;"
            " a profile cannot tell whether its own run had the same settings there"
        )
        return told if names else ""


def patches_hash(patcher) -> str:
    """Hash of what a patcher changes by itself, without the hooks of a run's conditionings."""
    return Changes.of(patcher).hash


# -- values ----------------------------------------------------------------------------------------


def _sample(value, depth: int = 0) -> str:
    """Up to eight values of the first tensors found in a patch, whatever holds them."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1)[:8].to("cpu", torch.float32)
        return str([round(x, 5) for x in flat.tolist()])
    if depth > 4:
        return ""
    if isinstance(value, (list, tuple)):
        return "".join(_sample(item, depth + 1) for item in value)
    if hasattr(value, "weights"):
        return _sample(value.weights, depth + 1)
    return str(value) if isinstance(value, (str, int, float)) else ""


def _signs(value) -> str:
    """Shapes and signs of an adapter's or a module's weights; empty for what has none.

    Signs alone, since ComfyUI casts such weights to the model's type when it first loads them.
    """
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            return str(tuple(value.shape))
        flat = value.detach().reshape(-1)
        drawn = flat[:: max(1, len(flat) // 64)][:64].to("cpu", torch.float32)
        return f"{tuple(value.shape)}{''.join(str(int(x)) for x in torch.signbit(drawn))}"
    if isinstance(value, torch.nn.Module):
        return " ".join(f"{name}{_signs(weight)}" for name, weight in value.named_parameters())
    if isinstance(value, (list, tuple)):
        return " ".join(_signs(item) for item in value if item is not None)
    if isinstance(value, (int, float)):
        return f"{float(value):.6g}"
    weights = getattr(value, "weights", None)
    return "" if weights is None else f"{type(value).__name__} {_signs(weights)}"


def _stable(key) -> str:
    """A key of another node as it is in every run: without addresses and drawn identifiers."""
    return _DRAWN.sub("*", key) if isinstance(key, str) else ""


def _name(function) -> str:
    """A function's name without the address that its text would hold."""
    return getattr(function, "__qualname__", type(function).__qualname__)


# -- hooks of conditionings ------------------------------------------------------------------------


def _all_hooks(conds: dict) -> list:
    held = [cond.get("hooks") for conditionings in conds.values() for cond in conditionings]
    return [hook for one in held for hook in getattr(one, "hooks", ())]


def _hooks(patcher, conds: dict) -> list[str]:
    """One line for each set of hooked weights: for which conditionings, when, what."""
    lines = set()
    for name, conditionings in conds.items():
        for cond in conditionings:
            hooks = getattr(cond.get("hooks"), "hooks", ())
            told = sorted(filter(None, (_hook(patcher, hook) for hook in hooks)))
            if told:
                when = cond.get("start_percent") or 0.0, cond.get("end_percent", 1.0)
                lines.add(f"hooks {name} {when} {bool(cond.get('default'))} {told}")
    forced = getattr(getattr(patcher, "forced_hooks", None), "hooks", ())
    lines |= {f"forced {told}" for hook in forced if (told := _hook(patcher, hook))}
    return list(lines)


def _hook(patcher, hook) -> str:
    """A hook's patches of this model and its strength over time; empty when it changes nothing."""
    patches = getattr(patcher, "hook_patches", {}).get(hook.hook_ref) or {}
    frames = getattr(getattr(hook, "hook_keyframe", None), "keyframes", ())
    schedule = [
        (round(float(f.start_percent), 6), round(float(f.strength), 6), f.guarantee_steps)
        for f in frames
    ]
    # The first one holds from the start, wherever it lies, and the only one throughout.
    first = schedule[0][1] if schedule else 1.0
    schedule = [(0.0, first), *schedule[1:], *(schedule[:1] if len(schedule) > 1 else ())]
    active = [
        f"{key}{_sample(list(patch))}"
        for key in sorted(patches, key=str)
        for patch in patches[key]
        if patch[0] != 0
    ]
    if not active or not any(frame[1] for frame in schedule):
        return ""
    return hashlib.sha256(f"{schedule}{active}".encode()).hexdigest()[:16]


# -- adapters and wrappers -------------------------------------------------------------------------


def _bypassed(injection) -> list:
    """The adapters that an injection of ComfyUI's LoRA bypass puts into forwards: objects with
    `module`, `adapter` and `multiplier`. It keeps them in a closure."""
    function = injection.inject
    held = [getattr(function, "__self__", None)]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # An empty cell.
            continue
    held += [hook for one in held for hook in getattr(one, "hooks", None) or ()]
    wanted = ("module", "adapter", "multiplier")
    return [one for one in held if all(hasattr(one, name) for name in wanted)]


def _injections(patcher) -> list[tuple[str, object]]:
    held = getattr(patcher, "injections", {})
    return [(key, one) for key, several in held.items() for one in several]


def _bypasses(patcher) -> set[str]:
    """One line for each adapter that is added to a module's result."""
    bypassed = [hook for _, one in _injections(patcher) for hook in _bypassed(one)]
    if not bypassed:
        return set()
    names = {id(module): name for name, module in patcher.model.named_modules()}
    return {
        f"bypass {names.get(id(hook.module), '')} {hook.multiplier:.6g} {_signs(hook.adapter)}"
        for hook in bypassed
        if hook.multiplier != 0
    }


def _opaque_injections(patcher) -> set[str]:
    opaque = {key for key, one in _injections(patcher) if not _bypassed(one)}
    return {f"injection {_stable(key)}" for key in opaque}


def _wrappers(patcher) -> list[tuple[str, object]]:
    held = getattr(patcher, "weight_wrapper_patches", {})
    return [(key, one) for key, several in held.items() for one in several]


def _weighed_wrappers(patcher) -> set[str]:
    told = ((key, one, _signs(one)) for key, one in _wrappers(patcher))
    return {f"wrapper {key} {_name(one)} {weighs}" for key, one, weighs in told if weighs}


def _opaque_wrappers(patcher) -> set[str]:
    return {f"{key} ({_name(one)})" for key, one in _wrappers(patcher) if not _signs(one)}


# -- replaced objects ------------------------------------------------------------------------------


def _objects(patcher) -> list[tuple[str, object, object]]:
    """(key, replacement, original) of replaced parts of the diffusion model, uncompiled; without
    those that are the original, compiled."""
    found = []
    for key, given in getattr(patcher, "object_patches", {}).items():
        if key.split(".")[0] != _ROOT:
            continue
        original = getattr(patcher, "object_patches_backup", {}).get(key)
        if original is None:
            original = _attribute(patcher.model, key)
        mine, theirs = _uncompiled(original), _uncompiled(given)
        # Methods are equal, never the same object.
        if theirs is not mine and not (callable(theirs) and theirs == mine):
            found.append((key, theirs, mine))
    return found


def _attribute(model, key: str):
    for part in key.split("."):
        model = getattr(model, part, None)
    return model


def _uncompiled(value):
    for name in ("_orig_mod", "_torchdynamo_orig_callable"):
        value = getattr(value, name, value)
    return value


def _replaced(patcher) -> set[str]:
    """One line for each part of the model that was replaced by other weights or another value."""
    lines = set()
    for key, given, original in _objects(patcher):
        weighs = _weighs(given)
        if weighs and weighs != _weighs(original):
            lines.add(f"object {key} {type(given).__qualname__} {weighs}")
        elif isinstance(given, _VALUES):
            lines.add(f"object {key} {given!r}")
    return lines


def _opaque_objects(patcher) -> set[str]:
    """Parts of the model that were replaced by what has neither weights nor a value, or by another
    class of the same weights."""
    opaque = set()
    for key, given, original in _objects(patcher):
        weighs = _weighs(given)
        same = weighs == _weighs(original) and type(given) is not type(original)
        if same if weighs else not isinstance(given, _VALUES):
            opaque.add(key)
    return opaque


def _weighs(value) -> str:
    return _signs(value) if isinstance(value, torch.nn.Module | torch.Tensor) else ""


# -- transformer_options ---------------------------------------------------------------------------


def _positions(options: dict) -> set[str]:
    """Scaled or shifted positions, which attention sees."""
    given = (options.get("transformer_options") or {}).get("rope_options") or {}
    plain = {"scale": 1.0, "shift": 0.0}
    moved = {k: v for k, v in given.items() if v != plain.get(str(k).split("_")[0])}
    return {f"positions {sorted(moved.items())}"} if moved else set()


def _around(patcher, conds: dict, model_options: dict) -> set[str]:
    """Names of the functions in and around the model's blocks."""
    sources = [model_options.get("transformer_options"), {"wrappers": patcher.wrappers}]
    sources += [getattr(hook, "transformers_dict", None) for hook in _all_hooks(conds)]
    names = set()
    for options in filter(None, sources):
        for kind, several in (options.get("patches") or {}).items():
            names |= {f"{kind} patch {_name(one)}" for one in several}
        for kind, several in (options.get("patches_replace") or {}).items():
            names |= {f"{kind} replacement {_name(one)}" for one in several.values()}
        for kind in _AROUND:
            for key, several in ((options.get("wrappers") or {}).get(kind) or {}).items():
                if key not in _HARMLESS:
                    names |= {f"wrapper {_stable(key) or _name(one)}" for one in several}
    wrapper = model_options.get("model_function_wrapper")
    return names if wrapper is None else names | {f"model function wrapper {_name(wrapper)}"}
