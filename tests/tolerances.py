"""How far attention may be from the float64 reference: one place for every test.

Measured on random inputs with logits of standard deviation 1, over all cases of test_attention.py
and all instruction sets; about twice the worst value seen. `total` is the error's norm over that of
the reference. `token` is the worst token's error over the mean norm of a token, or over its own
where that is greater: one wrong token among thousands shows there, and nowhere else. Where one key
has most of a token's weight, the token is larger than the others, and int8 drops weights below
1/510 of that key's: such a token was off by 0.24 of the mean norm, which is 0.05 of its own (one of
5,500 calls that stress.py drew). test_tolerances.py keeps both honest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    total: float
    token: float


# By the dtype of the inputs, unquantised ("bf16"; fp32 on a CPU) and int8. Rounding of the output
# rules float16 and bfloat16; int8's own error hides it.
_UNQUANTISED = {
    torch.float32: Tolerance(2e-6, 1e-5),
    torch.float16: Tolerance(4e-4, 2e-3),
    torch.bfloat16: Tolerance(3e-3, 1.5e-2),
}
_INT8 = Tolerance(2.5e-2, 0.12)
# Unquantised float32 rows that sum over all of 235,945 keys; 8.6e-6 was measured.
LONG_ROWS = Tolerance(2e-5, 2e-5)


def tolerance(dtype: torch.dtype, precision: str) -> Tolerance:
    return _INT8 if precision == "int8" else _UNQUANTISED[dtype]


def errors(out: torch.Tensor, ref: torch.Tensor) -> Tolerance:
    """What `out` measures against `ref`, both (..., tokens, head_dim)."""
    out, ref = out.double(), ref.double()
    difference = (out - ref).norm(dim=-1)
    norms = ref.norm(dim=-1)
    total = difference.norm() / norms.norm().clamp_min(1e-300)
    token = (difference / norms.clamp_min(norms.mean()).clamp_min(1e-300)).max()
    return Tolerance(float(total), float(token))


def assert_close(out: torch.Tensor, ref: torch.Tensor, dtype: torch.dtype, precision: str) -> None:
    assert out.shape == ref.shape, f"shape {tuple(out.shape)}, not {tuple(ref.shape)}"
    assert torch.isfinite(out).all(), f"{int((~torch.isfinite(out)).sum())} values are not finite"
    measured, allowed = errors(out, ref), tolerance(dtype, precision)
    assert measured.total <= allowed.total, f"{measured} over {allowed}"
    assert measured.token <= allowed.token, f"{measured} over {allowed}"
