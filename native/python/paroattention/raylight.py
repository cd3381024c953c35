"""Sessions in Raylight: ComfyUI over several GPUs, one worker process each, heads dealt by Ulysses.

Raylight calls a registered processor in place of its dense attention, after the all-to-all, with q,
k and v as (B, full sequence, heads / ranks, D). Nodes do not reach its workers; a file does: the
settings of a run and its profile's name. Written from Raylight's source as stored in 2026; nothing
of it is needed here but what `apply` is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F

from . import _core
from .heads import Heads
from .layout import TokenLayout
from .parallel.dealing import even
from .parallel.ranks import Ranks, RanksError, size_of
from .parallel.ulysses import Ulysses
from .run.session import Session
from .settings import ModelInfo, Settings, shown

NAME, SCHEMA = "paroattention:session", "paroattention-raylight/1"
# Of ComfyUI's wrappers, by the names that ComfyUI gives their kinds.
OUTER_SAMPLE, DIFFUSION_MODEL, KEY = "outer_sample", "diffusion_model", "paro-raylight"
MAX_BYTES = 64 << 10
RING = (
    "ring attention must be off (ring degree 1): a ring needs the log-sum-exp of every part, which"
    " the sparse kernels do not give yet; set Raylight's ulysses_degree to the number of GPUs"
)
# Arguments of xFuser's attention that the kernels have no part for, with the value that asks for
# nothing.
_PLAIN = {
    "causal": False,
    "dropout_p": 0.0,
    "alibi_slopes": None,
    "return_attn_probs": False,
    "attn_processor": None,
    "joint_tensor_key": None,
    "joint_tensor_value": None,
}


@dataclass(frozen=True)
class Given:
    """What the workers are told. profile: a profile's name in one of the folders, or "none": the
    run watches its first steps. save_as: a name under which rank 0 saves what the run learns, in
    the first folder; "" saves nothing. move_heads: heads are sent on after the all-to-all where
    that evens out the ranks' work."""

    settings: Settings
    profile: str = "none"
    folders: tuple[str, ...] = ()
    save_as: str = ""
    move_heads: bool = False


def write(file: str | Path, given: Given) -> None:
    """Writes the file that `read` reads. Raises Error for settings that break their rules."""
    _check(given, "the settings")
    content = {"schema": SCHEMA, "settings": asdict(given.settings)}
    content |= {"profile": given.profile, "folders": list(given.folders)}
    content |= {"save_as": given.save_as, "move_heads": given.move_heads}
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file)


def read(file: str | Path) -> Given:
    """The file's content. Raises Error, naming the file and the rule that it breaks; OSError."""
    with open(file, "rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _core.Error(f"{file} must not be larger than {MAX_BYTES >> 10} KiB")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _core.Error(f"{file} must be JSON (got: {str(error)[:80]})") from None
    if not isinstance(found, dict) or found.pop("schema", None) != SCHEMA:
        raise _core.Error(f'{file} must be an object with "schema": "{SCHEMA}"')
    known, settings = {field.name for field in fields(Given)}, found.get("settings")
    own = {field.name for field in fields(Settings)}
    if not isinstance(settings, dict):
        raise _core.Error(f"{file} must hold an object settings (got {shown(settings, 40)})")
    unknown = [*(found.keys() - known), *(f"settings.{one}" for one in settings.keys() - own)]
    if unknown:
        raise _core.Error(f"{file} must hold known keys only (got {shown(sorted(unknown)[0], 40)})")
    folders = found.get("folders", [])
    folders = tuple(folders) if isinstance(folders, list) else folders
    given = Given(**found | {"settings": Settings(**settings), "folders": folders})
    _check(given, str(file))
    return given


def _check(given: Given, where: str) -> None:
    try:
        given.settings.validate()
        for name in ("profile", "save_as"):
            value = getattr(given, name)
            if not isinstance(value, str):
                raise _core.Error(f"{name} must be a name (got {shown(value, 40)})")
            if value not in ("", "none"):
                _core.validate_profile_name(value)
        texts = isinstance(given.folders, tuple) and all(isinstance(x, str) for x in given.folders)
        if not texts or (given.save_as and not given.folders):
            rule = "must be a list of paths, with one at least where save_as is given"
            raise _core.Error(f"folders {rule} (got {shown(given.folders, 40)})")
        if not isinstance(given.move_heads, bool):
            raise _core.Error(f"move_heads must be true or false (got {shown(given.move_heads)})")
    except _core.Error as error:
        raise _core.Error(f"{where}: {error}") from None


def find(name: str, folders: tuple[str, ...]) -> _core.Profile:
    """The profile of this name in the first folder that holds it. Raises Error."""
    _core.validate_profile_name(name)
    for folder in map(Path, folders):
        file = folder / f"{name}.json"
        inside = file.resolve().parent == folder.resolve()
        if inside and file.is_file():
            return _core.Profile.load(file)
    raise _core.Error(
        f"profile must name a file of {', '.join(folders) or 'no folder'} (got {name})"
    )


def register(registry) -> None:
    """Registers the processor under NAME. registry: Raylight's module of inner attention. Once a
    process; does nothing where it is registered already."""
    try:
        registry.register_inner_attention(NAME)(Processor)
    except ValueError as error:
        if "already registered" not in str(error):
            raise


def apply(model, file: str | Path, *, registry=None, group=None):
    """In a worker: a clone of its ComfyUI model that samples with a session of all workers.

    file: as `write` wrote it. registry: Raylight's module of inner attention, imported by default.
    group: of the Ulysses all-to-all, yunchang's by default. Raises Error where the file is not
    right, or a ring is on.
    """
    if registry is None:
        from raylight.distributed_modules import inner_attention as registry
    if group is None:
        from yunchang.globals import PROCESS_GROUP

        group = PROCESS_GROUP.ULYSSES_PG
        _refuse_ring(PROCESS_GROUP.RING_PG)
    register(registry)
    processor = registry.create_inner_attention(NAME, file=str(file), group=group)
    clone = registry.set_inner_attention(model, processor)
    for kind in (OUTER_SAMPLE, DIFFUSION_MODEL):
        clone.remove_wrappers_with_key(kind, KEY)
    clone.add_wrapper_with_key(OUTER_SAMPLE, KEY, processor.outer_sample)
    clone.add_wrapper_with_key(DIFFUSION_MODEL, KEY, processor.diffusion_model)
    return clone


def patch_worker(_, model, file: str):
    """`apply` as Raylight's ray_patch sends it to every worker: of a package that they can import,
    which a node's own module is not."""
    return apply(model, file)


def _refuse_ring(group) -> None:
    if size_of(group) > 1:
        raise _core.Error(RING)


@dataclass
class _Run:
    """One sampling run. forward: of the evaluation under way. video: (first, grid, last) token of
    the video in the sequence, where the model's arguments say so."""

    session: Session
    ranks: Ranks
    engine: Ulysses
    forward: object = None
    video: tuple | None = None
    blocks: int = 0


class Processor:
    """Raylight's inner attention. One a model; it lives in a worker."""

    supports_ring = False

    def __init__(self, file: str, group=None):
        self.given, self._group = read(file), group
        self.run: _Run | None = None
        # What the last run did, as Session.finish returns it.
        self.summary: dict | None = None

    # -- a run ---------------------------------------------------------------------------------

    def outer_sample(self, executor, *args, **kwargs):
        """ComfyUI's wrapper around a whole run."""
        sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
        seed = kwargs.get("seed", args[7] if len(args) > 7 else None)
        if sigmas is None or len(sigmas) < 2:
            return executor(*args, **kwargs)
        ranks, given = Ranks(self._group), self.given
        ok = False
        with ranks.guarded():
            profile = find(given.profile, given.folders) if given.profile != "none" else None
            info = ModelInfo("raylight")
            if profile is not None:
                info = ModelInfo(profile.model.family, profile.model.fingerprint)
            session = Session(
                given.settings,
                [float(sigma) for sigma in sigmas],
                model=info,
                find_profile=lambda grid: _fitting(profile, given.profile, grid),
                save_profile=self._save if given.save_as else None,
                seed=seed or 0,
                ranks=ranks,
            )
            self.run = _Run(session, ranks, Ulysses(ranks, self._group))
            try:
                with ranks.guarded():
                    found = executor(*args, **kwargs)
                ok = True
                return found
            finally:
                self.run = None
                self.summary = session.finish(ok)

    def _save(self, profile, tensors) -> None:
        profile.save(Path(self.given.folders[0]) / f"{self.given.save_as}.json")

    def diffusion_model(self, executor, *args, **kwargs):
        """ComfyUI's wrapper around one evaluation of the model."""
        run = self.run
        options = kwargs.get("transformer_options")
        if options is None:
            options = next((one for one in args if isinstance(one, dict) and "sigmas" in one), {})
        if run is not None and "sigmas" in options:
            sigma = float(options["sigmas"].max())
            conds = tuple(options.get("cond_or_uncond") or ()) or None
            run.forward, run.blocks = run.session.begin_forward(sigma, conds=conds), 0
            payload = kwargs.get("minimax_payload") or (args[4] if len(args) > 4 else None)
            run.video = _packed_video(args[0] if args else kwargs.get("x"), payload)
        try:
            return executor(*args, **kwargs)
        finally:
            if run is not None:
                run.forward = run.video = None

    # -- a call --------------------------------------------------------------------------------

    def __call__(self, dense: Callable, q, k, v, *, transformer_options, **kwargs):
        """q, k, v (B, N, H / ranks, D) of the whole sequence, its padding to the number of ranks
        included; returns the same shape, zeros where it is padding. dense: as Raylight hands it
        over. Raises RanksError where a rank has failed, Error for a ring."""
        _refuse_ring(kwargs.get("group"))
        run = self.run
        if run is None or run.forward is None:
            return dense(q, k, v, **kwargs)
        layout = self._layout(run, transformer_options or {}, q)
        asked = [name for name, plain in _PLAIN.items() if kwargs.get(name, plain) != plain]
        if tuple(kwargs.get("window_size", (-1, -1))) != (-1, -1):
            asked.append("window_size")
        if asked or q.shape != k.shape or q.shape != v.shape:
            layout = f"the kernels have no part for {asked[0]}" if asked else "q and k differ"
        if isinstance(layout, str):
            run.session.note(layout, dense=True)
            return dense(q, k, v, **kwargs)
        with run.ranks.guarded():
            return self._ours(run, dense, (q, k, v), transformer_options or {}, layout, kwargs)

    def _layout(self, run: _Run, options: dict, q) -> TokenLayout | str:
        """Where the video lies in a call's sequence, or why that is not known."""
        if run.video is not None:
            first, grid, last = run.video
            layout = TokenLayout(grid, first, last - first - math.prod(grid))
        elif options.get("grid_sizes") is not None:
            layout = TokenLayout(tuple(int(side) for side in options["grid_sizes"]))
        else:
            return "the model does not say where the video lies in its sequence"
        if not 0 <= q.shape[1] - layout.length < run.ranks.size:
            return f"the sequence has {q.shape[1]} tokens, {layout.length} of which are known"
        return layout

    def _ours(self, run: _Run, dense, tensors, options, layout: TokenLayout, kwargs):
        padded, own = tensors[0].shape[1:3]
        ranks, total = run.ranks, own * run.ranks.size
        block = options.get("block_index")
        layer = run.forward.layer_id("block", run.blocks if block is None else int(block))
        run.blocks += 1
        plain = dealt = even(total, ranks.size)
        if self.given.move_heads:
            dealt = run.session.dealing(run.forward, layer, layout, total, few_moves=True)
        if dealt.heads != plain.heads:
            both = run.engine.moved(torch.cat(tensors).transpose(1, 2), plain, dealt)
            tensors = both.transpose(1, 2).split(tensors[0].shape[0])
        parts = [x[:, : layout.length].transpose(1, 2) for x in tensors]

        def host():
            """Raylight's own attention, of what this rank computes."""
            found = dense(*tensors, **kwargs)
            found = found[0] if isinstance(found, tuple) else found
            return found[:, : layout.length].transpose(1, 2)

        heads = Heads(dealt.heads[ranks.rank], total)
        out, _ = run.session.attention(
            run.forward,
            layer,
            *parts,
            layout,
            host,
            sm_scale=kwargs.get("softmax_scale"),
            heads=heads,
        )
        out = run.engine.moved(out, dealt, plain)
        return F.pad(out.transpose(1, 2), (0, 0, 0, 0, 0, padded - layout.length))


def _fitting(profile, name: str, grid):
    if profile is None or profile.match_grid(grid) == "far":
        return None, "" if profile is None else f"profile {name} is for other sizes"
    return profile, name


def _packed_video(x, payload) -> tuple | None:
    """(first token, grid, tokens in all) of MiniMax-H3's packed sequence; None for other models."""
    layout = payload.get("layout") if isinstance(payload, dict) else None
    video = x[0] if isinstance(x, (list, tuple)) else x
    if layout is None or not isinstance(video, torch.Tensor) or video.dim() != 5:
        return None
    spans = [(start, end) for start, end, kind in layout.segments if kind == "video"]
    frames, height, width = video.shape[2:]
    grid = frames, -(-height // 2), -(-width // 2)
    if len(spans) != 1 or spans[0][1] - spans[0][0] != math.prod(grid):
        return None
    return spans[0][0], grid, int(layout.seq_len)


__all__ = [
    "NAME",
    "Given",
    "Processor",
    "RanksError",
    "apply",
    "find",
    "patch_worker",
    "read",
    "register",
    "write",
]
