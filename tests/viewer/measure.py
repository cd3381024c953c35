"""measure.py VIEWER GENERATOR: how the viewer copes with Wan 14B's size, without a display.

40 x 40 heads, two timestep groups, 32 heads with exact rows on 21 x 30 x 52 tokens; generated, not
a real model's. `python3 run.py view --measure` builds both and calls this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
open {profile}
wait 600
click tile.41
wait
measure frames 120
measure slider 240
click density.scope_all
measure slider 240
"""


def target(name: str, value: float, unit: str, ok: bool, wanted: str) -> bool:
    print(f"{'ok  ' if ok else 'MISS'} {name}: {value:.2f} {unit} (target {wanted})")
    return ok


def main(viewer: str, generator: str) -> int:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f} before")
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([generator, folder], check=True, capture_output=True, text=True)
        profile = made.stdout.strip()
        script = Path(folder) / "measure.txt"
        script.write_text(SCRIPT.format(profile=profile), encoding="utf-8")
        command = [viewer, "--headless", "--size", "1280x720", "--stats", "--script", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    print(done.stdout, done.stderr, sep="")
    if done.returncode:
        return done.returncode
    times = {
        what: (float(seconds), float(memory))
        for what, seconds, memory in re.findall(
            r"^(.*) after ([\d.]+) s, (\d+) MB$", done.stdout, re.M
        )
    }
    sliders = [
        (float(fps), float(worst))
        for fps, worst in re.findall(
            r"^measure slider: ([\d.]+) frames/s.*?worst ([\d.]+) ms", done.stdout, re.M
        )
    ]
    first = times["first frame with the heads"][0]
    memory = max(megabytes for _, megabytes in times.values())
    checks = [
        target("first frame with the heads", first, "s", first <= 2, "2"),
        target("memory", memory, "MB", memory < 1500, "1500"),
        target("slider, one head", sliders[0][0], "frames/s", sliders[0][0] >= 30, "30"),
        target(
            "slider, all heads: worst update", sliders[1][1] / 1e3, "s", sliders[1][1] <= 1e3, "1"
        ),
    ]
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
