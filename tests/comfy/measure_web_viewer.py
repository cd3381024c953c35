"""measure_web_viewer.py GENERATOR: the viewer in the page, on a profile of Wan 14B's size.

As measure.py of tests/viewer, in a real ComfyUI and a real Chromium that draws in software.
`python3 run.py web-viewer --measure` builds both and calls this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import comfy_server
from browser import Browser, find_chromium
from web_viewer import Viewer

SIZE = (1280, 800)
FRAME = "document.querySelector('.paro-web-viewer iframe')?.contentWindow"
OPEN = """(async () => {
  const { showViewer } = await import('/extensions/comfyui-paroattention/comfy_nodes/web/viewer.js')
    .catch(() => import('/extensions/comfyui-paroattention/viewer.js'))
  window.clicked = performance.timeOrigin + performance.now()
  await showViewer(NAME, console.error)
})()"""


def told(name: str, value: float, unit: str, most: float, at_least: bool = False) -> bool:
    good = value >= most if at_least else value <= most
    wanted = f"at {'least' if at_least else 'most'} {most:g}"
    print(f"{'ok  ' if good else 'MISS'} {name}: {value:.2f} {unit} (target: {wanted})", flush=True)
    return good


def peak_memory(folder: Path) -> float:
    """The greatest resident memory so far of the page's own process, in MB."""
    most = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in command and "--type=renderer" in command:
                lines = (process / "status").read_text().splitlines()
                most = max(most, *(float(x.split()[1]) / 1024 for x in lines if "VmHWM" in x))
        except (OSError, ValueError):
            continue
    return most


def since_click(page, viewer: Viewer, what: str) -> float:
    w = viewer.window
    script = f"({w}.performance.timeOrigin + {w}.paro.marks[{what!r}] - window.clicked) / 1000"
    return page.js(script)


def drag_rate(viewer: Viewer, seconds: float = 6) -> float:
    """Frames a second while the mouse drags the density."""
    page, begin = viewer.page, viewer.place("density.slider", 0.2)
    end = viewer.place("density.slider", 0.9)
    viewer.mouse("mouseMoved", begin)
    viewer.mouse("mousePressed", begin, button="left", clickCount=1)
    spent = page.js(f"{viewer.window}.paro.spent()")
    started, drawn, step = time.monotonic(), page.js(f"{viewer.window}.paro.frames()"), 0
    while time.monotonic() - started < seconds:
        share = abs((step := step + 1) % 80 - 40) / 40
        x = begin[0] + (end[0] - begin[0]) * share
        viewer.mouse("mouseMoved", (x, begin[1]), button="left", buttons=1)
        time.sleep(0.015)  # a mouse tells of itself no more often
    drawn = page.js(f"{viewer.window}.paro.frames()") - drawn
    rate = drawn / (time.monotonic() - started)
    spent = page.js(f"{viewer.window}.paro.spent()") - spent
    print(f"     of a frame {spent / max(1, drawn):.1f} ms are the program's")
    viewer.mouse("mouseReleased", end, button="left", clickCount=1)
    return rate


def measure(page, server, name: str) -> list[bool]:
    page.open(server.url)
    page.wait("window.app?.graph && window.app.extensionManager && window.paro", 120)
    time.sleep(3)  # the page settles
    before = peak_memory(page.folder)
    page.js(OPEN.replace("NAME", repr(name)))
    viewer = Viewer(page, FRAME)
    viewer.wait_ready(None)
    first = since_click(page, viewer, "first frame")
    viewer.until("open", "true", 60)
    page.js(f"{FRAME}.paro.mark('open')")
    page.wait(f"{FRAME}.paro.query('mask.count').match(/^[0-9]+$/)", 60)
    page.js(f"{FRAME}.paro.mark('maps')")
    sent = page.js(f"""{FRAME}.performance.getEntries().filter((e) => e.transferSize !== undefined
      && e.name.includes('/paro/viewer/')).reduce((sum, e) => sum + e.transferSize, 0)""")
    found = [
        told("first frame after the click", first, "s", 2),
        told("over the wire", sent / 1e6, "MB", 1.5),
        told("profile open", since_click(page, viewer, "open"), "s", 5),
        told("first map of the first head", since_click(page, viewer, "maps"), "s", 5),
    ]
    end = time.monotonic() + 120
    while viewer.query("head.rows") != "true" and time.monotonic() < end:
        time.sleep(0.25)
    page.js(f"{FRAME}.paro.mark('capture')")
    print(f"     capture attached after {since_click(page, viewer, 'capture'):.2f} s")
    found.append(told("dragging one head", drag_rate(viewer), "frames/s", 20, True))
    print(
        f"     {viewer.query('all.exact')} heads exact after {time.monotonic() - end + 120:.0f} s"
    )
    # The dialog shares the process of ComfyUI's own page.
    most = peak_memory(page.folder)
    found.append(told("memory that it adds to the page's process", most - before, "MB", 1000))
    own = page.js(f"{FRAME}.paro.memory()") / 1e6
    print(f"     {most:.0f} MB at most with ComfyUI's page; WebAssembly's own memory {own:.0f} MB")
    return found


def main(generator: str) -> int:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    comfyui, program = comfy_server.find_comfyui(), find_chromium()
    with tempfile.TemporaryDirectory() as work:
        base = comfy_server.make_base(Path(work) / "base")
        folder = base / "models" / "paro"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([generator, str(folder)], check=True, stdout=subprocess.DEVNULL)
        for path in sorted(folder.iterdir()):
            print(f"{path.stat().st_size / 1e6:.1f} MB {path.name}")
        (profile,) = folder.glob("*.json")
        with comfy_server.ComfyServer(comfyui, base, Path(work) / "log") as server:
            with Browser(program, SIZE) as page:
                return 0 if all(measure(page, server, profile.stem)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
