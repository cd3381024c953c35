"""Small shapes of every kernel, for compute-sanitizer (run.py --sanitize)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "native" / "python"), str(HERE)]

import gpu_problems as problems  # noqa: E402
import torch  # noqa: E402
from paroattention import Error, attention, cuda  # noqa: E402

ran = 0
for head_dim in (64, 128):
    for block_q, block_kv in ((64, 64), (128, 128), (64, 128), (128, 64)):
        plan = problems.plan(
            (3, 9, 11), 2, 0.4, prefix=5, suffix=66, block_q=block_q, block_kv=block_kv
        )
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            q, k, v = problems.tensors(2, plan.length, head_dim, dtype=dtype, view="bnhd")
            for tail in (False, True):
                for path in ("portable", "hopper"):
                    try:
                        attention(q, k, v, plan, tail=tail, path=path)
                        ran += 1
                    except Error as reason:
                        if path == "portable":
                            raise
                        print("hopper:", reason)
                attention(q, k, v, plan, tail=tail, precision="bf16")
            cuda.attention_releasing([q, k, v], plan)
torch.cuda.synchronize()
print("kernels ran:", ran)
