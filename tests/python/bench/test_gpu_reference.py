"""The fp64 reference of the GPU tests is the plain one, on sampled rows and on all of them."""

import problems
import pytest
import torch
from paroattention import TokenLayout, reference
from paroattention.bench import gpu_reference


@pytest.mark.parametrize("tail", [False, True], ids=["", "tail"])
@pytest.mark.parametrize("tile", [(64, 64), (64, 128), (128, 64)], ids=str)
@pytest.mark.parametrize("sides", [(0, 0), (70, 9)], ids=str)
def test_rows_are_those_of_the_plain_reference(sides, tile, tail):
    layout = TokenLayout((3, 9, 11), *sides)
    plan = problems.random_plan(layout, 3, 0.4, block_q=tile[0], block_kv=tile[1])
    q, k, v = problems.tensors(3, layout.length, 64, batch=2)
    want = reference.sparse(q, k, v, plan, sm_scale=0.2, tail=tail)
    rows = torch.randperm(layout.length)[:50]
    for head in range(3):
        options = {"head": head, "scale": 0.2, "tail": tail}
        one = gpu_reference.exact_rows(q, k, v, plan, rows, batch=1, **options)
        assert torch.allclose(one, want[1, head, rows], rtol=1e-12, atol=1e-14)
        every = gpu_reference.exact_rows(q, k, v, plan, rows, batch=slice(None), **options)
        assert torch.allclose(every, want[:, head, rows], rtol=1e-12, atol=1e-14)
    assert gpu_reference.error(want, q, k, v, plan, tail=tail, scale=0.2) < 1e-12
    off = want.clone()
    off[0, 0, 5] += 1
    assert gpu_reference.error(off, q, k, v, plan, tail=tail, scale=0.2) > 1e-3
