"""The demo: two prompts through a real ComfyUI server, dense and sparse, and the report about it.

Runs inside the virtual environment that run.py makes; `python3 run.py demo` is the way to call it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path.insert(0, str(REPO))

import numpy as np  # noqa: E402

from tools.demo.results import (  # noqa: E402
    SECOND,
    ResultError,
    Run,
    check_frames,
    check_sparse,
    dense_row,
    read_log,
    sparse_row,
)
from tools.demo.server import ComfyServer, ServerError, prepare_base  # noqa: E402
from tools.demo.write import keep_outputs, write_report  # noqa: E402
from tools.setup import console  # noqa: E402
from tools.setup.steps import Progress, say  # noqa: E402

MODEL = REPO / "assets" / "model" / "paro-wan-tiny.safetensors"
DEMO_NODES = HERE / "nodes" / "paro_demo"
WORKFLOWS = HERE / "workflows"
# Combinations that the model was not trained on, and that calibration never saw.
PROMPTS = (("cat clockwise horse", 109), ("coffee down face", 111))
PROMPT, SEED = PROMPTS[0]
CALIBRATION_PROMPT, CALIBRATION_SEED = "coffee left ball", 16054
PROFILE, FIXED_PROFILE = "demo", "demo-fixed-order"
STEPS, WATCHED_STEPS = 20, 4
WARM_UP_STEPS = 2
TILE = 64


@dataclass(frozen=True)
class Variant:
    """A sparse run: what the node is asked for."""

    name: str
    title: str
    policy: str
    settings: dict = field(default_factory=dict)
    watched: int = WATCHED_STEPS


def asked(density: float, profile: str = "none", **more) -> dict:
    """Settings of a run that watches its first steps, as every run does by default."""
    settings = {"profile": profile, "density": density, "precision": "int8"}
    return settings | {"observe_steps": WATCHED_STEPS} | more


VARIANTS = (
    Variant("all-blocks", "All blocks in INT8", "int8", asked(1.0)),
    Variant("fixed-0.3", "Fixed order", "fhw", asked(0.3, FIXED_PROFILE)),
    Variant("first-0.3", "First run", "auto", asked(0.3)),
    Variant("second-0.3", "Second run", "profile", asked(0.3, PROFILE)),
    Variant("second-0.5", "Second run", "profile", asked(0.5, PROFILE)),
    Variant("unwatched-0.3", "Nothing watched", "alone", asked(0.3, PROFILE, watch="if needed"), 0),
)


class Demo:
    """The runs in order, and what the report needs to know about them."""

    tile = TILE
    profile_file = f"{PROFILE}.json"
    kept = (profile_file, f"{PROFILE}.capture.safetensors", "runlog.jsonl")

    def __init__(self, comfyui: Path, base: Path, out: Path):
        self.comfyui, self.base, self.out = comfyui, base, out
        self.log = base / "output" / "paro" / "runlog.jsonl"
        self.profiles = base / "models" / "paro"
        self.log_end = 0
        # Of the first prompt, which the report shows, and of the second one, by the same names.
        self.runs: dict[str, Run] = {}
        self.others: dict[str, Run] = {}
        self.pass_through: Run | None = None
        self.gap = math.nan
        self.failures: list[str] = []

    def prepare(self) -> None:
        for needed in (MODEL, DEMO_NODES):
            if not needed.exists():
                raise ResultError(f"{needed.relative_to(REPO)} is missing from this checkout")
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ("report.json", "report.html", "server.log", *self.kept):
            (self.out / name).unlink(missing_ok=True)
        prepare_base(self.base, REPO, [DEMO_NODES], {f"diffusion_models/{MODEL.name}": MODEL})

    def sample(self, server: ComfyServer, variant: Variant, workflow: dict, title: str = "") -> Run:
        """Queues one workflow and gathers its frames, time and run log."""
        inputs = workflow["6"]["inputs"]
        workflow["7"]["inputs"]["save_as"] = variant.name
        with Progress(title or f"{variant.name} ({inputs['steps']} steps)") as progress:

            def on_event(kind: str, data: dict) -> None:
                if kind == "progress" and data.get("node") == "6":
                    progress.detail = f"step {data['value']} of {data['max']}"

            result = server.run(workflow, on_event)
        lines, self.log_end = read_log(self.log, self.log_end)
        frames = np.load(self.base / "output" / "paro" / f"{variant.name}.npy")
        check_frames(variant.name, frames)
        if "6" not in result.seconds:
            raise ResultError(f"{variant.name}: ComfyUI did not run the sampler")
        return Run(
            variant.name,
            variant.title,
            variant.policy,
            workflow["4"]["inputs"]["prompt"],
            inputs["seed"],
            result.seconds["6"],
            frames,
            lines,
        )

    def run_all(self, server: ComfyServer) -> None:
        warm = load_workflow("demo_dense", PROMPT, SEED + 1, steps=WARM_UP_STEPS)
        self.sample(server, Variant("warm-up", "Warm-up", "dense"), warm)
        self.calibrate(server)
        for prompt, runs in zip(PROMPTS, (self.runs, self.others), strict=True):
            self.run_prompt(server, prompt, runs)
        self.check_pass_through(server)

    def run_prompt(self, server: ComfyServer, prompt: tuple[str, int], runs: dict) -> None:
        """Dense and every variant of one prompt."""
        dense = Variant("dense", "Dense", "dense")
        runs["dense"] = self.sample(server, dense, load_workflow("demo_dense", *prompt))
        for variant in VARIANTS:
            try:
                workflow = load_workflow("demo_sparse", *prompt, **variant.settings)
                run = runs[variant.name] = self.sample(server, variant, workflow)
                check_sparse(run, variant.watched)
            except (ServerError, ResultError) as error:
                self.fail(error)
                server.check_alive()

    def calibrate(self, server: ComfyServer) -> None:
        """Another prompt and seed, dense and watched: the profile that the next runs use."""
        workflow = load_workflow("demo_calibrate", CALIBRATION_PROMPT, CALIBRATION_SEED)
        variant = Variant("calibration", "Calibration", "dense")
        self.calibration = self.sample(server, variant, workflow)
        profile = self.profiles / f"{PROFILE}.json"
        if not profile.is_file():
            raise ResultError(f"calibration left no profile: {self.calibration.summary['reasons']}")
        derived = fix_order(json.loads(profile.read_text(encoding="utf-8")))
        fixed = self.profiles / f"{FIXED_PROFILE}.json"
        fixed.write_text(json.dumps(derived), encoding="utf-8")

    def check_pass_through(self, server: ComfyServer) -> None:
        """Through the node with every step dense: the same bits, and what attention alone costs."""
        settings = {"profile": PROFILE, "start_percent": 1.0, "end_percent": 1.0}
        settings |= {"dense_steps": "model", "watch": "if needed"}
        variant = Variant("dense-through-node", "Dense through the node", "dense")
        try:
            run = self.sample(server, variant, load_workflow("demo_sparse", **settings))
            self.pass_through = run
            self.gap = float(np.abs(run.frames - self.runs["dense"].frames).max())
            if self.gap != 0.0:
                raise ResultError(f"{variant.name}: differs from the dense run by {self.gap:.3g}")
        except (ServerError, ResultError) as error:
            self.fail(error)

    @property
    def pass_through_equal(self) -> bool:
        return self.pass_through is not None and self.gap == 0.0

    def fail(self, error: Exception) -> None:
        self.failures.append(str(error))
        say(f"  FAILED: {error}")

    # For the report

    def table(self, precision: str) -> list[dict]:
        """Rows of the first prompt, then of the second, whose names end in SECOND."""
        passed = self.pass_through
        attention = passed.summary["attention_seconds"] if passed else None
        rows = self.rows(self.runs, precision, attention)
        others = self.rows(self.others, precision, None)
        return rows + [row | {"name": row["name"] + SECOND} for row in others]

    def rows(self, runs: dict[str, Run], precision: str, attention: float | None) -> list[dict]:
        dense = runs["dense"]
        rows = [dense_row(dense, STEPS, precision, attention)]
        for name, run in runs.items():
            if name != "dense":
                try:
                    rows.append(sparse_row(run, dense))
                except (ResultError, KeyError) as error:
                    self.fail(error)
        return rows

    def sampling(self) -> dict:
        workflow = load_workflow("demo_dense")
        sampler = workflow["6"]["inputs"]
        return {
            "model": MODEL.name,
            "prompt": PROMPT,
            "seed": SEED,
            "steps": STEPS,
            "watched_steps": WATCHED_STEPS,
            "second_prompt": PROMPTS[1][0],
            "second_seed": PROMPTS[1][1],
            "sampler": sampler["sampler_name"],
            "scheduler": sampler["scheduler"],
            "cfg": sampler["cfg"],
            "shift": workflow["2"]["inputs"]["shift"],
        }

    def calibration_settings(self) -> dict:
        inputs = load_workflow("demo_calibrate")["3"]["inputs"]
        return {key: inputs[key] for key in ("queries", "every_n_steps", "exact")}


def load_workflow(
    name: str, prompt: str = PROMPT, seed: int = SEED, steps: int = STEPS, **node
) -> dict:
    """A workflow of tools/demo/workflows with this run's values; `node` are those of node 3."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    workflow["4"]["inputs"]["prompt"] = prompt
    workflow["6"]["inputs"] |= {"seed": seed, "steps": steps}
    if node:
        unknown = set(node) - set(workflow["3"]["inputs"])
        if unknown:
            raise KeyError(f"{name}.json: node 3 has no input {', '.join(sorted(unknown))}")
        workflow["3"]["inputs"] |= node
    return workflow


def fix_order(profile: dict) -> dict:
    """The same profile with every head held in the model's own order, as a baseline."""
    for layer in profile["layers"]:
        for head in layer["heads"]:
            head["order"], head["locked"] = "FHW", True
    return profile


def main(argv: list[str]) -> int:
    with console.prepared():
        return run(argv)


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPO / "out" / "demo")
    parser.add_argument("--base", type=Path, default=REPO / ".cache" / "comfy-base")
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_DIR"))
    arguments = parser.parse_args(argv)
    if arguments.comfyui is None:
        parser.error("set --comfyui or COMFYUI_DIR to the folder of ComfyUI")
    # So that a plain `kill` stops the server as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    demo = Demo(arguments.comfyui, arguments.base.resolve(), arguments.out.resolve())
    try:
        demo.prepare()
        server = ComfyServer(demo.comfyui, demo.base, demo.out / "server.log")
        with Progress("starting ComfyUI's server"):
            server.start()
        try:
            demo.run_all(server)
        finally:
            server.stop()
            keep_outputs(demo)
        return write_report(demo)
    except (ServerError, ResultError) as error:
        say(f"\nThe demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted: the server is stopped, no report was written.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
