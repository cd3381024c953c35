"""Small shapes of every kernel, for compute-sanitizer (run.py --sanitize)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = os.environ.get("PARO_PACKAGE") or str(HERE.parent.parent / "native" / "python")
sys.path[:0] = [PACKAGE, str(HERE)]

import gpu_problems as problems  # noqa: E402
import torch  # noqa: E402
from paroattention import ORDERS, Error, TokenLayout, _core, attention  # noqa: E402
from paroattention.kernels import cuda, cuda_masks, cuda_observe  # noqa: E402
from paroattention.kernels.head_orders import HeadOrders, OrderedHead  # noqa: E402

ran = 0
for head_dim in (64, 128):
    for block_q, block_kv in ((64, 64), (128, 128), (64, 128), (128, 64)):
        plan = problems.plan(
            (3, 9, 11), 2, 0.4, prefix=5, suffix=66, block_q=block_q, block_kv=block_kv
        )
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            q, k, v = problems.tensors(2, plan.length, head_dim, dtype=dtype, view="bnhd")
            for tail in (False, True):
                for path in ("portable", "hopper", "narrow"):
                    try:
                        attention(q, k, v, plan, tail=tail, path=path)
                        ran += 1
                    except Error as reason:
                        if path == "portable":
                            raise
                        print(f"{path}: {reason}")
                attention(q, k, v, plan, tail=tail, precision="bf16")
            # Output that is not finite is mended on its way, and told.
            broken = torch.zeros(1, dtype=torch.int32, device="cuda")
            values = v.clone()
            values[0, 1, 7, 3] = float("nan")
            attention(q, k, values, plan, broken=broken)
            attention(q, k, values, plan, path="portable", broken=broken)
            attention(q, k, values, plan, precision="bf16", broken=broken)
            ran += 3
            cuda.attention_releasing([q, k, v], plan)
        # What looks at attention, with queries of two batch entries in more than one tile.
        layout, scale = TokenLayout((3, 9, 11), 5, 66), head_dim**-0.5
        asked = HeadOrders(
            layout, tuple(OrderedHead(order, 0.4) for order in plan.orders), block_q, block_kv
        )
        places = torch.arange(140, dtype=torch.int32).repeat(2, 1).cuda()
        for dtype in (torch.bfloat16, torch.float16):
            q, k, v = problems.tensors(2, plan.length, head_dim, batch=2, dtype=dtype, view="bnhd")
            for bins in (_core.Bins.even(layout.grid), _core.Bins.signed(layout.grid)):
                state = cuda_observe.ObserveState(bins, layout.grid, 2, "cuda")
                state.observe(q, k, layout, places, scale, keep=(1,))
            for tail in (False, True):
                cuda_observe.meter(q, k, v, plan, layout, places, scale, tail)
            attention(q, k, v, cuda_masks.find_masks(q, k, asked))
            cuda_observe.block_importance(q, k, layout, ORDERS[2:4], block_q, block_kv, scale)
            ran += 7
torch.cuda.synchronize()
print("kernels ran:", ran)
