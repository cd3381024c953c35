"""pictures.py VIEWER FOLDER [FILE]: everything the viewer shows, at every size people have.

`python3 run.py view --pictures [FILE]` builds the viewer and calls this: on FILE, then on profiles
with awkward names and numbers. FOLDER gets SAMPLE/SIZE/VIEW.png. Exit code 1: something on them
cannot be read, and is named. tests/viewer/test_readable.py checks the same views.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Pixels and the scale of text: small screens, laptops as Windows and GNOME set them up, large ones.
SIZES = (
    (1280, 720, 1.0),
    (1366, 768, 1.0),
    (1366, 768, 1.25),
    (1920, 1080, 1.0),
    (1920, 1080, 1.25),
    (1920, 1080, 1.5),
    (2560, 1440, 1.0),
    (2560, 1440, 1.5),
    (3840, 2160, 1.5),
    (3840, 2160, 2.0),
)
PANELS = ("overview", "head", "density", "profile", "groups", "curves", "kernel", "ran")
LONG_LAYERS = (
    "single_transformer_blocks_video_and_text.0.0",
    "single_transformer_blocks_video_and_text.100000.12",
)
LONG_NAME = "万相2.1_图生视频_720p_高质量_my-favourite-settings-with-a-rather-long-name_v12_final"
REASON = (
    "the model's own mask for padding of the text encoder covers 123456 of 1234567 keys, and "
    "masked calls stay dense: choose another layer range, or remove the node that adds the mask"
)


def name_of(size: tuple[int, int, float]) -> str:
    width, height, scale = size
    return f"{width}x{height}-{round(100 * scale)}"


def write_run_log(path: Path, fingerprint: str, layers: tuple[str, ...], steps: int = 30) -> None:
    """A dense run and one that takes every path, with large numbers and long reasons."""
    lines = []
    head = {"run": True, "family": "wan2.1", "fingerprint": fingerprint}
    end = {"end": True, "ok": True, "density": 0.3, "density_total": 0.3, "retained": 0.8}
    end |= {"tail": True, "block_q": 64, "block_kv": 64, "steps": steps, "grid": [4, 8, 10]}
    for sparse in (False, True):
        lines.append(head)
        for step in range(steps):
            for number, layer in enumerate(layers):
                path_taken = ("dense", "sparse", "fallback", "observe")[(step + number) % 4]
                path_taken = path_taken if sparse else "dense"
                line = {"step": step, "sigma": 1 - step / steps, "layer": layer, "heads": [0]}
                line |= {"path": path_taken, "reason": REASON if path_taken == "fallback" else ""}
                line |= {"density": 0.3, "retained": 0.8, "error": 0.05}
                lines.append(line)
        paths = {"sparse": 123456, "dense": 654321, "fallback": 100000}
        paths = paths if sparse else {"dense": 777777}
        closing = {"seconds": 123456.7, "attention_seconds": 54321.9, "precision": "int8"}
        closing |= {"profile": LONG_NAME, "paths": paths}
        closing |= {"reasons": {REASON: 123456} if sparse else {}}
        lines.append(end | closing)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Sample:
    """What is opened, and with which lines of script before the pictures are taken."""

    def __init__(self, name: str, profile: Path | None, prepare: str = ""):
        self.name, self.profile, self.prepare = name, profile, prepare


def samples(folder: Path) -> list[Sample]:
    """Profiles that are awkward to show."""
    from conftest import FINGERPRINT, LAYERS, make_profile

    folder.mkdir(parents=True, exist_ok=True)
    plain = make_profile(folder, "wan")
    other = make_profile(folder, "other", seed=1)
    write_run_log(folder / "runlog.jsonl", FINGERPRINT, LAYERS)
    long = folder / "long"
    long.mkdir(exist_ok=True)
    long_profile = make_profile(
        long, LONG_NAME, 2, LONG_LAYERS, 3, "hunyuan-video-1.5-image-to-video-distilled"
    )
    long_other = make_profile(long, LONG_NAME + "_2", 3, LONG_LAYERS, 3, "hunyuan-video-1.5")
    write_run_log(long / "runlog.jsonl", FINGERPRINT, LONG_LAYERS)
    lonely = folder / "small"
    lonely.mkdir(exist_ok=True)
    small = make_profile(lonely, "one", 4, ("block.0.0",), 1)
    compare = "dialog compare\nclick dialog.name\ntype {}\nclick dialog.ok\n"
    compare += "until differences >= 0\n"
    return [
        Sample("plain", plain),
        Sample("full", plain, "key ] 200\nwait\n"),
        Sample("low", plain, "key [ 200\nwait\n"),
        Sample("long", long_profile, compare.format(long_other) + "key ] 10\nwait\n"),
        Sample("small", small),
        Sample("compared", plain, compare.format(other) + "click density.scope_all\nwait\n"),
        Sample("empty", None),
    ]


def script(sample: Sample, size: tuple[int, int, float], folder: Path | None, missing: str) -> str:
    """All views of a sample at one size; pictures go to folder where one is given."""
    lines = [f"resize {size[0]} {size[1]} {size[2]}", "frames 8"]

    def view(name: str, *steps: str) -> None:
        lines.extend([*steps, "frames 3", f"readable {name}"])
        if folder is not None:
            lines.append(f"screenshot {folder / name}.png")

    if sample.profile is None:
        view("welcome")
        view("welcome-help", "key f1")
        view("welcome-dialog", "key f1", "dialog open")
        view("welcome-error", "click dialog.cancel", f"open {missing}", "wait")
        return "\n".join([*lines, "click message.dismiss", "frames 3"]) + "\n"
    view("whole")
    view("tab-kernel", "click tab.kernel")
    view("tab-ran", "click tab.ran")
    view("tab-curves", "click tab.curves")
    if size[0] / size[2] < 1900:  # larger windows show the three curves side by side
        view("curves-all", "click curves.tab_all")
        view("curves-step", "click curves.tab_step")
        lines.append("click curves.tab_head")
    for tab in ("about", "compare", "edits"):
        view(f"tab-{tab}", f"click tab.{tab}")
    for panel in PANELS:
        view(panel, f"maximise {panel}", "wait")
    lines += ["maximise", "frames 6"]
    view("menu", "click menu.file")
    lines += ["key escape", "frames 3"]
    view("dialog-save", "dialog save_as")
    lines += ["click dialog.cancel", "frames 3"]
    view("dialog-problem", "dialog open", "click dialog.name", "key ctrl+a", f"type {missing}",
         "click dialog.ok", "frames 2")  # fmt: skip
    lines += ["click dialog.cancel", "frames 3"]
    view("help", "key f1")
    view("error", "key f1", f"open {missing}", "wait")
    view("light", "theme light")
    return "\n".join([*lines, "theme dark", "click message.dismiss", "frames 3"]) + "\n"


def check(viewer: str, sample: Sample, sizes, folder: Path | None = None) -> str:
    """What cannot be read, in lines; empty where all is well. One session for all sizes."""
    with tempfile.TemporaryDirectory() as work:
        missing = str(Path(work) / f"{LONG_NAME}.json")
        text = ""
        if sample.profile is not None:
            text = f"open {sample.profile}\nwait\n{sample.prepare}"
        for size in sizes:
            target = None if folder is None else folder / name_of(size)
            if target is not None:
                target.mkdir(parents=True, exist_ok=True)
            text += script(sample, size, target, missing)
        path = Path(work) / "script.txt"
        path.write_text(text, encoding="utf-8")
        env = {**os.environ, "PARO_CONFIG_DIR": str(Path(work) / "config")}
        command = [viewer, "--headless", "--script", str(path)]
        command += ["--undrawn"] if folder is None else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=1800, env=env, cwd=work
        )
    return "" if done.returncode == 0 else done.stderr or f"ended with {done.returncode}"


def main(viewer: str, folder: str, file: str = "") -> int:
    out = Path(folder).resolve()
    faults = 0
    with tempfile.TemporaryDirectory() as work:
        shown = [Sample("given", Path(file).resolve())] if file else []
        for sample in shown + samples(Path(work) / "samples"):
            for size in SIZES:
                problem = check(viewer, sample, [size], out / sample.name)
                print(f"{'MISS' if problem else 'ok  '} {sample.name} {name_of(size)}", flush=True)
                if problem:
                    print(problem)
                    faults += 1
    print(f"pictures are in {out}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
