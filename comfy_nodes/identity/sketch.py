"""Signs that stand for a model's weights, and how far the storage of weights may have turned them.

A sketch is the signs of fixed random projections. Two copies of a vector that lie at an angle a
to each other differ in a / 180 degrees of their signs. Rounding turns a vector by an angle that
follows from the number format, so the flips that rounding explains can be foretold.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

BITS, MATRIX_BITS = 128, 64
# Of 128: rounding to half precision flips one at most on average, a norm vector turned by 6 degrees
# flips four.
MAX_FLIPS = 4
# Two models' signs agree in half by chance: 64 +- 6. Beyond this limit norms alone prove nothing.
PROVES = 42
# Flips by rounding in six bits of the fingerprint; from _LOST on nothing is left of the norms.
_MOST, _LOST = 63, 52
# Of 64 signs of matrices, 32 +- 4 by chance: three bits a weight turn them by 20 degrees.
MATRIX_FLIPS = 16
NO_MATRICES = "0" * (MATRIX_BITS // 4)
_ROWS, _COLUMNS = 8, 512
_FULL_LAYOUTS = ("TensorCoreFP8Layout", "TensorCoreFP8E4M3Layout", "TensorCoreFP8E5M2Layout")
log = logging.getLogger("paroattention")


@dataclass(frozen=True)
class Format:
    """A number format. mantissa: bits behind the point; least: exponent of the least normal number;
    twice: share of a sketch's flips that comes back when the values were rounded to bfloat16 first.
    """

    code: int
    dtype: torch.dtype
    mantissa: int
    least: int
    twice: float = 1.0


# Wide formats count as bfloat16, the coarsest of them: a float32 file may have been one before.
MIXED = 0
WIDE = Format(1, torch.bfloat16, 7, -126)
E4M3 = Format(2, torch.float8_e4m3fn, 3, -6, (12 / 32) ** 0.5)
E5M2 = Format(3, torch.float8_e5m2, 2, -14, (12 / 64) ** 0.5)
FORMATS = {form.code: form for form in (WIDE, E4M3, E5M2)}


def signs(name: str, count: int, bits: int = BITS) -> np.ndarray:
    """[bits, count] of -1 and 1, the same for a name on every machine and version of numpy."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    words = np.random.PCG64(seed).random_raw(-(-bits * count // 64)).astype("<u8")
    drawn = np.unpackbits(words.view(np.uint8), bitorder="little")[: bits * count]
    return drawn.reshape(bits, count).astype(np.float32) * 2 - 1


def _hex(sums: np.ndarray) -> str:
    return np.packbits(sums > 0, bitorder="little").tobytes().hex()


def flips(a: str, b: str) -> int:
    """In how many bits two sketches of equal length differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


# -- norms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Norms:
    """What is read of the norm weights.

    sketches: by the code of a format, the signs as they would be had the weights been stored in
    it; `sketch` is the one of the weights as they are. code: how they are stored. turned: flips
    that their rounding explains, on average.
    """

    sketch: str
    code: int
    turned: int
    sketches: dict[int, tuple[str, int]]

    @classmethod
    def of(cls, named: list[tuple[str, torch.Tensor]]) -> Norms:
        """named: one-dimensional weights with their names, in the order of the names."""
        vectors = [(name, values) for name, w in named if (values := _values(w)) is not None]
        stored = _stored([values for _, values in vectors])
        code = stored[0].code if len(set(stored)) == 1 else MIXED
        coarser = [form for form in (E4M3, E5M2) if code == WIDE.code]
        sums = np.zeros((BITS, 1 + len(coarser)))
        turns = [_Turn() for _ in range(1 + len(coarser))]
        for (name, values), form in zip(vectors, stored, strict=True):
            columns = [values, *(_rounded(values, other) for other in coarser)]
            units = []
            for turn, column, kind in zip(turns, columns, (form, *coarser), strict=True):
                units.append(turn.add(column, kind))
            if any(unit.any() for unit in units):
                sums += signs(name, len(values)) @ np.stack(units, 1)
        found = [(_hex(column), turn.flips) for column, turn in zip(sums.T, turns, strict=True)]
        others = {form.code: one for form, one in zip(coarser, found[1:], strict=True)}
        return cls(*found[0][:1], code, found[0][1], others)


class _Turn:
    """How far the rounding of several vectors turns the sum of their projections."""

    def __init__(self):
        self._noise, self._count = 0.0, 0

    def add(self, values: np.ndarray, form: Format) -> np.ndarray:
        """The vector of length 1 that `values`, on the grid of `form`, stand for in the sketch."""
        # What a norm shares with all others, its mean, says nothing of which model it is.
        centred = values - values.mean()
        size = np.linalg.norm(centred)
        if not np.isfinite(size) or size <= 0:
            return np.zeros_like(values)
        self._noise += _rounding(values, form) / size**2
        self._count += 1
        return centred / size

    @property
    def flips(self) -> int:
        if not self._count:
            return _MOST
        share = (self._noise / self._count) ** 0.5
        # Fine rounding is a part of the rounded vector at right angles to the exact one, rounding
        # coarser than the vector is at right angles to the rounded one.
        angle = max(math.asin(min(share, 0.7)), math.atan(share))
        return min(_MOST, math.ceil(BITS * angle / math.pi))


def _values(weight: torch.Tensor) -> np.ndarray | None:
    """A vector as float64; None for one that holds no numbers yet."""
    if weight.is_meta:
        return None
    return weight.detach().to("cpu").to(torch.float64).numpy()


def _rounded(values: np.ndarray, form: Format) -> np.ndarray:
    return torch.from_numpy(values).to(form.dtype).to(torch.float64).numpy()


def _stored(vectors: list[np.ndarray]) -> list[Format]:
    """The format of each vector, told from its values: a file's rounding stays in wider types."""
    told = [values for values in vectors if np.ptp(values) > 0]
    for form in (E5M2, E4M3):
        if told and all(np.array_equal(_rounded(values, form), values) for values in told):
            return [form] * len(vectors)
    formats = []
    for values in vectors:
        fits = (f for f in (E5M2, E4M3) if np.array_equal(_rounded(values, f), values))
        formats.append(next(fits, WIDE) if np.ptp(values) > 0 else None)
    return [form or next((f for f in formats if f), WIDE) for form in formats]


def _rounding(values: np.ndarray, form: Format) -> float:
    """Expected squared error of values that were rounded to nearest, summed."""
    size = np.abs(values)
    exponent = np.floor(np.log2(np.maximum(size, 2.0 ** (form.least - 1))))
    exponent = np.maximum(exponent, form.least)
    up = 2.0 ** (exponent - form.mantissa) / 2
    # Below a power of two the numbers lie twice as close.
    down = np.where((size == 2.0**exponent) & (exponent > form.least), up / 2, up)
    return float(((up**3 + down**3) / (3 * (up + down))).sum())


def limit(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Flips of norms up to which two sketches may be of one model; a and b: (code, turned)."""
    if max(a[1], b[1]) >= _LOST:
        mean = BITS / 2
    elif a[0] == b[0] and a[0] != MIXED:
        # The same rounding twice is one. What differs is what the values were rounded to before.
        mean = max(a[1], b[1]) * FORMATS[a[0]].twice
    else:
        mean = min(math.hypot(a[1], b[1]), BITS / 2)
    spread = (mean * (1 - mean / BITS)) ** 0.5
    return max(MAX_FLIPS, math.ceil(mean + 3 * spread))


# -- matrices --------------------------------------------------------------------------------------

_dear = WeakTensorKeyDictionary()


def of_matrices(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Signs of a few rows of each matrix; NO_MATRICES where none of them can be read."""
    sums = np.zeros(MATRIX_BITS)
    for name, weight in named:
        try:
            rows = _rows(weight)
        except (torch.OutOfMemoryError, MemoryError):
            # The model would have another fingerprint in this run alone.
            raise
        except Exception as error:
            # A format of another node: norms alone tell the model then.
            log.debug("PARO: weight %s cannot be read for the fingerprint: %s", name, error)
            continue
        if rows is None:
            continue
        size = np.linalg.norm(rows, axis=1, keepdims=True)
        # Rows of length 1: scales of tensors and of rows do not count.
        rows = np.where(np.isfinite(size) & (size > 0), rows / np.where(size > 0, size, 1), 0)
        sums += signs(name, rows.size, MATRIX_BITS) @ np.nan_to_num(rows).ravel()
    return _hex(sums) if sums.any() else NO_MATRICES


def shape(weight: torch.Tensor) -> tuple[int, ...]:
    """The shape that a weight stands for, however it is packed."""
    return tuple(getattr(weight, "tensor_shape", None) or weight.shape)


def _rows(weight: torch.Tensor) -> np.ndarray | None:
    """[up to _ROWS, up to _COLUMNS] values spread over a matrix, float64; None if it holds none."""
    if weight.is_meta:
        return None
    packed = getattr(weight, "_qdata", None)
    if packed is not None:
        # One scale a tensor does not turn a row, so these rows need no more than their numbers.
        plain = getattr(weight, "_layout_cls", "") in _FULL_LAYOUTS
        return _spread(packed) if plain else _whole(weight)
    kind = getattr(weight, "tensor_type", None)
    raw = weight.detach().as_subclass(torch.Tensor)
    if raw.is_floating_point() and tuple(raw.shape) == shape(weight):
        return _spread(raw)
    if kind is not None:
        rows = _gguf(raw, kind, shape(weight))
        if rows is not None:
            return rows
    if type(weight).dequantize is not torch.Tensor.dequantize:
        return _whole(weight)
    return None


def _spread(matrix: torch.Tensor) -> np.ndarray:
    step = max(1, matrix.shape[0] // _ROWS)
    part = matrix.detach()[::step][:_ROWS, :_COLUMNS]
    # As bfloat16 in any case, the type that most files come in.
    return part.to("cpu").to(torch.float32).to(torch.bfloat16).to(torch.float64).numpy()


def _whole(weight: torch.Tensor) -> np.ndarray:
    """For formats in blocks, which are read as a whole: once for each weight."""
    if weight not in _dear:
        _dear[weight] = _spread(weight.detach().dequantize())
    return _dear[weight]


def _gguf(raw: torch.Tensor, kind, logical: tuple[int, ...]) -> np.ndarray | None:
    """Rows of a GGUF tensor by the package that every loader of such files has."""
    try:
        from gguf import quants
    except ImportError:
        return None
    lines = raw.reshape(logical[0], -1)
    step = max(1, logical[0] // _ROWS)
    part = lines[::step][:_ROWS].to("cpu").contiguous().view(torch.uint8).numpy()
    return np.asarray(quants.dequantize(part, kind), np.float64)[:, :_COLUMNS]
