"""One call of attention for stress.py: made, and held against fp64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import stress_cases
import torch
from paroattention import Plan, attention
from paroattention.bench.gpu_reference import exact_rows
from paroattention.kernels import cuda_masks
from paroattention.kernels.attention import attention_letting_go
from paroattention.kernels.cuda import attention_releasing
from paroattention.kernels.head_orders import FoundMasks
from stress_cases import Case
from tolerances import Tolerance, errors, tolerance

# Of sequences longer than this, some rows of each head are compared, drawn by the case's seed.
WHOLE, ROWS = 4096, 512


@dataclass
class Problem:
    """A case with its data, and with what its call is given as plan."""

    case: Case
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    plan: FoundMasks | Plan

    @property
    def inputs(self) -> list[torch.Tensor]:
        return [self.q, self.k, self.v]

    @functools.cached_property
    def masks(self) -> Plan:
        """The plan with its masks on the host."""
        return cuda_masks.host_plan(self.plan)


Attend = Callable[..., torch.Tensor]


def problem(case: Case, device: str) -> Problem:
    q, k, v = stress_cases.tensors(case, device)
    return Problem(case, q, k, v, stress_cases.plan_of(case, q, k))


def attend(case: Case, q, k, v, plan, broken: torch.Tensor | None = None) -> torch.Tensor:
    """The call of a case. broken: the word that the call says by whether its output is finite."""
    options = {"sm_scale": None if case.scale == 1 else case.sm_scale, "tail": case.tail}
    if case.path != "releasing":
        options |= {"precision": case.precision, "broken": broken}
        return attention(q, k, v, plan, path=case.path, **options)
    if q.device.type == "cpu":
        options["sm_scale"] = case.sm_scale
        return attention_letting_go([q, k, v], plan, broken=broken, **options)
    return attention_releasing([q, k, v], plan, broken=broken, **options)


def _as_read(case: Case, x: torch.Tensor) -> torch.Tensor:
    """x as the kernels read it: unquantised float32 goes through them in bfloat16 on a GPU."""
    in_bf16 = x.device.type == "cuda" and case.precision == "bf16" and x.dtype == torch.float32
    return x.to(torch.bfloat16) if in_bf16 else x


def allowed(case: Case, device: str) -> Tolerance:
    """The tolerance of tests/tolerances.py for the case."""
    dtype = stress_cases.DTYPES[case.dtype]
    if device == "cuda" and case.precision == "bf16" and dtype == torch.float32:
        dtype = torch.bfloat16
    return tolerance(dtype, case.precision)


def rows_of(case: Case) -> torch.Tensor:
    """The query rows that are compared: all, or some of a long sequence."""
    length = case.layout.length
    if length <= WHOLE:
        return torch.arange(length)
    generator = torch.Generator().manual_seed(case.seed)
    return torch.randperm(length, generator=generator)[:ROWS]


def exact(one: Problem, rows: torch.Tensor, heads=None) -> torch.Tensor:
    """fp64 attention of these rows: (B, H, rows, D), of all heads or of some."""
    case = one.case
    q, k, v = (_as_read(case, x) for x in one.inputs)
    options = {"batch": slice(None), "scale": case.sm_scale, "tail": case.tail}
    heads = range(case.heads) if heads is None else heads
    made = [exact_rows(q, k, v, one.masks, rows, head=head, **options) for head in heads]
    return torch.stack(made, 1)


def wrong(one: Problem, o: torch.Tensor, broken=None, heads=None) -> tuple[list[str], Tolerance]:
    """What is wrong with an output, in sentences, and how far it is from fp64."""
    case, q = one.case, one.q
    nothing = Tolerance(math.inf, math.inf)
    if o.shape != q.shape or o.dtype != q.dtype or o.device != q.device:
        got = f"{tuple(o.shape)} {o.dtype} {o.device}"
        return [f"o must be as q, {tuple(q.shape)} {q.dtype} {q.device} (got {got})"], nothing
    if not torch.isfinite(o).all():
        count = int((~torch.isfinite(o)).sum())
        return [f"{count} of {o.numel()} values of o are not finite"], nothing
    found = []
    if not o.transpose(1, 2).is_contiguous():
        found.append(f"o must be a view of (B, N, H, D) memory (got strides {o.stride()})")
    if broken is not None and int(broken) != 0:
        found.append(f"broken must be 0 where o is finite (got {int(broken)})")
    rows = rows_of(case)
    out = o[:, :, rows.to(o.device)]
    if heads is not None:
        out = out[:, list(heads)]
    measured, limit = errors(out, exact(one, rows, heads)), allowed(case, q.device.type)
    for name in ("total", "token"):
        got, most = getattr(measured, name), getattr(limit, name)
        if not got <= most:
            found.append(f"error {name} must be at most {most:g} (got {got:.4g})")
    return found, measured
