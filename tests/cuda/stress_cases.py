"""Random calls of attention for stress.py: each is drawn from its seed, and can be written down."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from paroattention import ORDERS, Plan, _core
from paroattention.kernels import cuda_masks
from paroattention.kernels.head_orders import FoundMasks, HeadOrders, OrderedHead
from paroattention.layout import TokenLayout

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# How q, k and v lie in memory. See `laid_out`.
VIEWS = (
    "bhnd", "bnhd", "fused", "some heads", "some tokens", "every second token", "one batch entry",
    "off by one", "channels apart",
)  # fmt: skip
# Which blocks a mask has. See `_mask`. "found": from q and k, as in a run with mask dynamic.
MASKS = ("scattered", "band", "rows", "one block", "all", "found")
DATA = ("normal", "shifted keys")
# What a sequence has, by whether there is a prefix and a suffix.
LAYOUTS = {
    (False, False): "grid", (False, True): "grid, suffix", (True, False): "prefix, grid",
    (True, True): "prefix, grid, suffix",
}  # fmt: skip
TILES = (64, 128)
# What an int8 call takes on a GPU; "releasing" lets go of q, k and v as they are packed.
PATHS = ("auto", "portable", "hopper", "narrow", "releasing")


@dataclass(frozen=True)
class Sizes:
    """How large cases are: tokens of a grid, of a prefix and a suffix, heads, batch entries."""

    tokens: int
    text: int
    heads: int
    batch: int


@dataclass(frozen=True)
class Case:
    """One call of attention. All that is random in its data comes from `seed`."""

    seed: int
    grid: tuple[int, int, int]
    prefix: int
    suffix: int
    batch: int
    orders: tuple[str, ...]  # of each head
    head_dim: int
    tile: tuple[int, int]  # block_q, block_kv
    mask: str
    density: float
    dtype: str
    views: tuple[str, str, str]  # of q, k and v
    data: str
    scale: float  # sm_scale times the square root of head_dim
    tail: bool
    precision: str
    path: str
    broken: bool  # whether the call is given a word that says if its output is finite

    @property
    def heads(self) -> int:
        return len(self.orders)

    @property
    def layout(self) -> TokenLayout:
        return TokenLayout(self.grid, self.prefix, self.suffix)

    @property
    def sm_scale(self) -> float:
        return self.scale / math.sqrt(self.head_dim)

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> Case:
        """A case as `dump` writes it. Raises ValueError where it is not one."""
        try:
            fields = json.loads(text)
            lists = ("grid", "orders", "tile", "views")
            return Case(**{**fields, **{name: tuple(fields[name]) for name in lists}})
        except (TypeError, KeyError) as error:
            raise ValueError(f"--case must be what stress.py printed (got {error})") from None

    def kinds(self) -> dict[str, list[str]]:
        """The kinds that the case counts for: a value or several of each."""
        ragged = [
            side for side, n in zip("qk", self.tile, strict=True) if self.layout.grid_size % n
        ]
        return {
            "dtype": [self.dtype],
            "precision": [self.precision],
            "path": [self.path],
            "head_dim": [str(self.head_dim)],
            "tile": [f"{self.tile[0]}x{self.tile[1]}"],
            "tail": ["on" if self.tail else "off"],
            "order": sorted(set(self.orders)),
            "strides": sorted(set(self.views)),
            "mask": [self.mask],
            "density": [_band(self.density, (0.1, 0.3, 0.6, 0.999))],
            "layout": [LAYOUTS[self.prefix > 0, self.suffix > 0]],
            "last block": ["ragged" if ragged else "full"],
            "tokens": [_band(self.layout.length, (64, 256, 1024, 4096))],
            "batch": [str(self.batch)],
            "heads": [str(self.heads)],
            "data": [self.data],
            "sm_scale": ["default" if self.scale == 1 else "given"],
            "broken": ["given" if self.broken else "not given"],
        }


def _band(value: float, edges: tuple[float, ...]) -> str:
    for edge in edges:
        if value <= edge:
            return f"up to {edge:g}"
    return f"above {edges[-1]:g}"


def _grid(draws: random.Random, most: int) -> tuple[int, int, int]:
    """Any three sides: of few tokens, of many, or beside a multiple of a tile, where blocks end."""
    which = draws.random()
    if which < 0.2:
        length = 64 * draws.randint(1, max(1, most // 64)) + draws.choice((-1, 0, 1, 2, 9))
        sides = [1, 1, max(1, min(length, most))]
    else:
        few = which < 0.4
        tokens = math.exp(draws.uniform(0, math.log(most))) if few else draws.uniform(64, most)
        first = math.exp(draws.uniform(0, math.log(tokens)))
        second = math.exp(draws.uniform(0, math.log(max(1.0, tokens / first))))
        sides = [max(1, int(side)) for side in (first, second, tokens / first / second)]
    draws.shuffle(sides)
    return tuple(sides)


def draw(seed: int, sizes: Sizes) -> Case:
    """The case of a seed: the same on each machine, for the same sizes."""
    draws = random.Random(seed)
    head_dim, tile = draws.choice((64, 128)), (draws.choice(TILES), draws.choice(TILES))
    precision = draws.choice(("int8", "int8", "bf16"))
    paths = [path for path in PATHS if path != "narrow" or (head_dim, tile[0]) == (128, 64)]
    mask = draws.choice(MASKS)
    density = {"all": 1.0, "one block": 0.0}.get(mask, draws.uniform(0.02, 1.0) ** 1.5)
    text = [draws.randint(1, sizes.text) if draws.random() < 0.4 else 0 for _ in range(2)]
    same = draws.random() < 0.4
    view = draws.choice(VIEWS)
    return Case(
        seed=seed,
        grid=_grid(draws, sizes.tokens),
        prefix=text[0],
        suffix=text[1],
        batch=draws.randint(1, sizes.batch),
        orders=tuple(draws.choice(ORDERS) for _ in range(draws.randint(1, sizes.heads))),
        head_dim=head_dim,
        tile=tile,
        mask=mask,
        density=max(density, 0.01),
        dtype=draws.choice(tuple(DTYPES)),
        views=tuple(view if same else draws.choice(VIEWS) for _ in range(3)),
        data=draws.choice(DATA),
        scale=1.0 if draws.random() < 0.5 else round(draws.uniform(0.5, 2.0), 3),
        tail=draws.random() < 0.6,
        precision=precision,
        path=draws.choice(paths) if precision == "int8" else "auto",
        broken=draws.random() < 0.3,
    )


def laid_out(x: torch.Tensor, view: str) -> torch.Tensor:
    """x (B, H, N, D) with other strides. What lies between its values is NaN: it must not be read.

    "one batch entry": all are the first, with stride 0.
    """
    b, h, n, d = x.shape

    def within(*shape: int) -> torch.Tensor:
        return torch.full(shape, math.nan, dtype=x.dtype, device=x.device)

    if view == "one batch entry":
        return x[:1].clone().expand(b, h, n, d)
    out = {
        "bhnd": lambda: within(b, h, n, d),
        "bnhd": lambda: within(b, n, h, d).transpose(1, 2),
        "fused": lambda: within(b, n, 3, h, d)[:, :, 1].transpose(1, 2),
        "some heads": lambda: within(b, h + 2, n, d)[:, 1 : 1 + h],
        "some tokens": lambda: within(b, h, n + 5, d)[:, :, 3 : 3 + n],
        "every second token": lambda: within(b, h, 2 * n, d)[:, :, ::2],
        "off by one": lambda: within(b, h, n, d + 1)[..., 1:],
        "channels apart": lambda: within(b, h, d, n).transpose(2, 3),
    }[view]()
    return out.copy_(x)


def tensors(case: Case, device: str) -> list[torch.Tensor]:
    """q, k, v with logits of standard deviation 1, as tests/tolerances.py asks."""
    generator = torch.Generator(device).manual_seed(case.seed)
    shape = (case.batch, case.heads, case.layout.length, case.head_dim)
    q, k, v = (torch.randn(shape, generator=generator, device=device) for _ in range(3))
    q /= case.scale
    if case.data == "shifted keys":
        channels = (case.batch, case.heads, 1, case.head_dim)
        k += 2 * torch.randn(channels, generator=generator, device=device)
    dtype = DTYPES[case.dtype]
    return [laid_out(x.to(dtype), view) for x, view in zip((q, k, v), case.views, strict=True)]


def _mask(case: Case, draws: np.random.Generator) -> np.ndarray:
    """bool [rows, cols] with a block in each row at least."""
    rows, cols = (-(-case.layout.grid_size // side) for side in case.tile)
    mask = np.zeros((rows, cols), dtype=bool)
    if case.mask == "all":
        mask[:] = True
    elif case.mask == "scattered":
        mask = draws.random((rows, cols)) < case.density
    elif case.mask == "band":
        middle = np.arange(rows)[:, None] * cols / rows
        mask = np.abs(np.arange(cols)[None, :] - middle) <= case.density * cols / 2
    elif case.mask == "rows":
        mask = np.repeat(draws.random((rows, 1)) < case.density, cols, axis=1)
    mask[np.arange(rows), draws.integers(cols, size=rows)] = True
    return mask


def plan_of(case: Case, q: torch.Tensor, k: torch.Tensor) -> FoundMasks | Plan:
    """What the call is given as its plan: on a GPU nothing waits for masks that are found."""
    if case.mask == "found":
        heads = tuple(OrderedHead(order, case.density) for order in case.orders)
        asked = HeadOrders(case.layout, heads, *case.tile)
        return cuda_masks.find_masks(q, k, asked, case.sm_scale)
    entries = []
    for head, order in enumerate(case.orders):
        mask = _mask(case, np.random.default_rng([case.seed, head]))
        entries.append(_core.HeadPlan(order, _core.BlockMask(mask)))
    return case.layout.plan(entries, *case.tile)


def smaller(case: Case) -> Iterator[Case]:
    """Cases that are simpler in one thing each, the greatest steps first."""

    def with_(**changes) -> Case:
        return dataclasses.replace(case, **changes)

    if case.batch > 1:
        yield with_(batch=1)
    if case.heads > 1:
        yield with_(orders=case.orders[:1])
        yield with_(orders=case.orders[: case.heads // 2])
    for name in ("prefix", "suffix"):
        if getattr(case, name):
            yield with_(**{name: 0})
    for axis, side in enumerate(case.grid):
        for less in (1, side // 2, side - 1):
            if 0 < less < side:
                sides = list(case.grid)
                sides[axis] = less
                yield with_(grid=tuple(sides))
    plain = {"views": ("bhnd",) * 3, "data": "normal", "scale": 1.0, "broken": False}
    plain |= {"tail": False, "orders": ("FHW",) * case.heads, "tile": (64, 64), "mask": "all"}
    plain |= {"dtype": "float32", "head_dim": 64}
    for name, value in plain.items():
        narrow = case.path == "narrow" and name in ("tile", "head_dim")
        if getattr(case, name) != value and not narrow:
            yield with_(**{name: value, **({"density": 1.0} if name == "mask" else {})})
