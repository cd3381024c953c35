"""python tests/cuda/check_sass.py LIBRARY [ARCH ...]: the machine code holds what was meant.

Needs cuobjdump and nvdisasm on the path. mma.sync on integers is IMMA, on bf16 and fp16 HMMA;
integer wgmma is IGMMA, which code for sm_90a alone can hold: plain sm_90 compiles without a word
and has none. The ARCHs named must be in the library.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

# Start of a kernel's name: (instruction, architectures that must hold it)
WANTED = {
    "paro_attention_int8": ("IMMA", ("sm_80", "sm_90")),
    "paro_attention_f16": ("HMMA", ("sm_80", "sm_90")),
    "paro_attention_bf16": ("HMMA", ("sm_80", "sm_90")),
    "paro_attention_hopper": ("IGMMA", ("sm_90",)),
    "paro_observe_rows": ("HMMA", ("sm_80", "sm_90")),
    "paro_observe_bins": ("HMMA", ("sm_80", "sm_90")),
    "paro_meter_bf16": ("HMMA", ("sm_80", "sm_90")),
    "paro_select_blocks": ("HMMA", ("sm_80", "sm_90")),
    "paro_importance_bf16": ("HMMA", ("sm_80", "sm_90")),
    "paro_importance_hopper": ("HGMMA", ("sm_90",)),
}


def kernels(library: str) -> dict[tuple[str, str], Counter]:
    """(architecture, kernel): how often each instruction stands in it."""
    command = ["cuobjdump", "-sass", library]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[tuple[str, str], Counter] = {}
    arch = kernel = ""
    for line in text.splitlines():
        if match := re.match(r"\s*(?:arch = |code for )(sm_\d+)", line):
            arch = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            kernel = match[1]
            found[arch, kernel] = Counter()
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?(\w+)", line):
            found[arch, kernel][match[1]] += 1
    return found


def main(library: str, required: list[str]) -> int:
    found = kernels(library)
    built = {arch for arch, _ in found}
    failed = not built or not built.issuperset(required)
    print(f"architectures: {', '.join(sorted(built))}")
    for part, (instruction, archs) in WANTED.items():
        if not any(kernel.startswith(part) for _, kernel in found):
            print(f"{part}: not in this build")
            failed = True
            continue
        for arch in built.intersection(archs):
            counts = [
                c[instruction] for (a, k), c in found.items() if a == arch and k.startswith(part)
            ]
            low = min(counts, default=0)
            failed = failed or low == 0
            verdict = "ok" if low else "MISSING"
            print(f"{part} {arch}: {len(counts)} kernels, {low} {instruction} at least: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
