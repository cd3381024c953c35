"""The demo's figures and its report, from made-up runs."""

import json
import math
import re
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tools.demo import driver, figures, heads, results, write  # noqa: E402
from tools.demo.page import Page  # noqa: E402
from tools.demo.results import ResultError, Run  # noqa: E402

SHAPE = (4, 16, 22, 3)


def video(seed=0, noise=0.0):
    base = np.random.default_rng(0).uniform(-0.9, 0.9, SHAPE)
    return base + noise * np.random.default_rng(seed).standard_normal(SHAPE)


def step_lines(paths, reason=""):
    return [
        {
            "step": step,
            "sigma": 1.0 - step / len(paths),
            "layer": layer,
            "path": path,
            "reason": reason,
        }
        for step, path in enumerate(paths)
        for layer in ("double.0.0", "double.1.0")
    ]


END = {
    "end": True,
    "density": 0.3,
    "density_total": 0.31,
    "precision": "fp32",
    "tail": True,
    "mask": "static",
    "block_q": 64,
    "block_kv": 64,
    "attention_seconds": 2.0,
    "observe_seconds": 0.1,
    "plan_seconds": 0.01,
    "retained": 0.9,
    "profile": "demo",
    "paths": {"dense": 4, "sparse": 4},
    "reasons": {},
}


def make_run(name, frames, seconds=10.0, policy="profile", log=None):
    lines = [*step_lines(["dense", "dense", "sparse", "sparse"]), END] if log is None else log
    return Run(name, name.title(), policy, "cat left ball", 7, seconds, frames, lines)


DENSE = make_run("dense", video(), 20.0, "dense", [])


# Rows


def test_sparse_row_has_the_public_keys_and_the_figures_of_the_definitions():
    run = make_run("second-0.3", video(1, 0.05))
    row = results.sparse_row(run, DENSE)
    assert tuple(row) == results.RUN_KEYS
    a, b = np.clip(DENSE.frames, -1, 1), np.clip(run.frames, -1, 1)
    assert row["psnr_db"] == pytest.approx(10 * math.log10(4 / np.mean((a - b) ** 2)))
    assert row["dense_steps"] == 2 and row["seconds"] == 10.0 and row["density_total"] == 0.31
    second = [np.abs(x[2:] - 2 * x[1:-1] + x[:-2]).mean() for x in (a, b)]
    assert row["flicker"] == pytest.approx(second[1] / second[0])


def test_dense_row_has_the_same_keys():
    row = results.dense_row(DENSE, 20, "fp32", 15.0)
    assert tuple(row) == results.RUN_KEYS
    assert row["density"] == 1.0 and row["psnr_db"] is None and row["dense_steps"] == 20


def test_an_equal_video_has_no_psnr_rather_than_infinity():
    row = results.sparse_row(make_run("same", video()), DENSE)
    assert row["psnr_db"] is None and row["ssim"] == pytest.approx(1.0)
    json.dumps(row, allow_nan=False)


def test_pixels_are_clipped_before_they_are_compared():
    over = np.full(SHAPE, 3.0)
    assert np.array_equal(results.unit(over), np.ones(SHAPE))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.where(np.arange(4)[:, None, None, None] == 2, np.nan, video()), "not finite"),
        (np.where(np.arange(4)[:, None, None, None] == 2, np.inf, video()), "not finite"),
        (np.zeros(SHAPE), "all pixels are equal"),
        (video()[..., :2], "frames must be"),
        (video()[0], "frames must be"),
    ],
    ids=["nan", "inf", "black", "channels", "one frame"],
)
def test_bad_frames_fail_the_run(frames, message):
    with pytest.raises(ResultError, match=message):
        results.check_frames("x", frames)


def test_a_run_that_stayed_dense_fails_with_its_reasons():
    lines = step_lines(["dense", "dense", "dense", "dense"], "no profile fits")
    with pytest.raises(ResultError, match="4 dense steps, not 2"):
        results.check_sparse(make_run("x", video(), log=[*lines, END]), 2)
    mixed = step_lines(["dense", "dense", "sparse", "sparse"])
    mixed[-1] |= {"path": "fallback", "reason": "output was not finite"}
    with pytest.raises(ResultError, match="output was not finite"):
        results.check_sparse(make_run("x", video(), log=[*mixed, END]), 2)
    results.check_sparse(make_run("x", video()), 2)


def test_a_run_log_without_its_closing_line_is_an_error():
    with pytest.raises(ResultError, match="0 closing lines"):
        _ = make_run("x", video(), log=step_lines(["dense"])).summary


def test_log_is_read_from_where_the_last_run_ended(tmp_path):
    path = tmp_path / "runlog.jsonl"
    assert results.read_log(path) == ([], 0)
    path.write_text('{"run": 1}\n')
    lines, end = results.read_log(path)
    path.write_text('{"run": 1}\n{"run": 2}\n')
    assert lines == [{"run": 1}] and results.read_log(path, end)[0] == [{"run": 2}]


# The driver's inputs


def test_workflows_take_the_settings_of_every_run():
    for variant in driver.VARIANTS:
        workflow = driver.load_workflow("demo_sparse", **variant.settings)
        assert workflow["3"]["inputs"]["density"] == variant.settings["density"]
        assert workflow["6"]["inputs"]["seed"] == driver.SEED
    assert len({variant.name for variant in driver.VARIANTS}) == len(driver.VARIANTS)


def test_unknown_settings_are_not_dropped_silently():
    with pytest.raises(KeyError, match="dnsity"):
        driver.load_workflow("demo_sparse", dnsity=0.3)


def test_calibration_sees_other_prompts_and_seeds():
    prompts, seeds = zip(*driver.PROMPTS, strict=True)
    assert driver.CALIBRATION_PROMPT not in prompts and len(set(prompts)) == 2
    assert driver.CALIBRATION_SEED not in seeds


def test_fixed_order_holds_every_head():
    head = {"order": "WFH", "locked": False, "groups": []}
    fixed = driver.fix_order({"layers": [{"id": "a", "heads": [dict(head), dict(head)]}]})
    assert all(h["order"] == "FHW" and h["locked"] for h in fixed["layers"][0]["heads"])


def test_precision_is_what_comfyui_said(tmp_path):
    log = tmp_path / "server.log"
    log.write_text("x\nmodel weight dtype torch.float16, manual cast: torch.float32\n")
    assert write.compute_precision(log) == "fp32"
    log.write_text("model weight dtype torch.bfloat16, manual cast: None\n")
    assert write.compute_precision(log) == "bf16"
    log.write_text("")
    assert write.compute_precision(log) == "unknown"


# Pictures


def test_difference_is_black_where_equal_and_amplified():
    a, b = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    b[0, 0] = 0.1
    gap = figures.difference(b, a, 8)
    assert gap[1, 1].max() == 0 and gap[0, 0, 0] == round(0.05 * 8 * 255)


def test_amplification_is_a_power_of_two_that_fits_the_middle_run():
    gaps = [np.full(SHAPE, size) for size in (0.02, 0.1, 0.9)]
    assert figures.amplification(gaps) == 16
    assert figures.amplification([np.zeros(SHAPE)]) == 1 == figures.amplification([])


def test_maps_are_drawn_in_whole_pixels_a_block():
    assert heads.picture(View("FHW", 0.5)).shape == (276, 276, 3)


# The page


@dataclass
class View:
    """As paroattention's HeadView, of 6 x 6 blocks."""

    order: str
    retained: float
    rows: int = 6

    def picture(self, side):
        return np.zeros((side, side, 3), np.uint8)


VIEWS = [
    heads.Head(layer, head, View("FHW", before), View(order, after))
    for layer, head, order, before, after in (
        ("double.0.0", 0, "HWF", 0.5, 0.9),
        ("double.0.0", 1, "FHW", 0.8, 0.8),
        ("double.1.0", 0, "WHF", 0.6, 0.7),
    )
]


def content(runs):
    rows = [results.dense_row(DENSE, 20, "fp32", 15.0)]
    rows += [results.sparse_row(run, DENSE) for run in runs]
    # Of another prompt: the same runs, farther from dense.
    again = [make_run(run.name, video(9, 0.3), policy=run.policy) for run in runs]
    others = [results.dense_row(DENSE, 20, "fp32", None)]
    others += [results.sparse_row(run, DENSE) for run in again]
    rows += [row | {"name": row["name"] + results.SECOND} for row in others]
    return {
        "date": "2025-01-01 00:00 UTC",
        "host": {"cpu": "Test <CPU>", "threads": 2},
        "versions": {"comfyui": "0.30.0"},
        "sampling": {
            "prompt": "cat left ball",
            "seed": 7,
            "grid": [4, 4, 5],
            "tokens": 80,
            "steps": 20,
            "watched_steps": 4,
            "sampler": "euler",
            "scheduler": "simple",
            "cfg": 1.0,
            "shift": 3.0,
        },
        "calibration": {
            "prompt": "coffee left ball",
            "seed": 8,
            "seconds": 20.0,
            "observe_seconds": 0.2,
            "observe_share": 0.01,
            "queries": 64,
            "every_n_steps": 5,
        },
        "files": {"demo.json": 41000, "runlog.jsonl": 1200000},
        "pass_through_equal": True,
        "dense_seconds_again": 20.5,
        "failures": [],
        "runs": rows,
        "details": {
            run.name + end: {"title": run.title}
            for run in (DENSE, *runs)
            for end in ("", results.SECOND)
        },
    }


@pytest.fixture
def page():
    runs = [make_run("second-0.3", video(1, 0.02)), make_run("fixed-0.3", video(2, 0.1))]
    videos = {run.name: run.frames for run in (DENSE, *runs)}
    return Page(content(runs), videos, VIEWS, {"density": 0.3, "tile": 64})


class Check(HTMLParser):
    """Collects sources and unbalanced tags."""

    VOID = ("meta", "img", "input", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.images = [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += tag == "img"
        self.sources += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_one_self_contained_well_formed_file(page):
    text = page.html()
    check = Check(text)
    assert check.open == []
    outside = [s for s in check.sources if not s.startswith("data:image/png;base64,")]
    assert set(outside) == {"report.json", "demo.json", "runlog.jsonl"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert check.images >= 3 + 2 * 6 + 2 * len(VIEWS)


def test_page_shows_every_run_and_escapes_names(page):
    text = page.html()
    for row in page.content["runs"]:
        assert page.title(row["name"]) in text
    assert "Test &lt;CPU&gt;" in text and "<CPU>" not in text
    assert f"&times; {page.factor}" in text
    assert "prefers-color-scheme: dark" in text


def test_player_holds_the_frames_of_every_run(page):
    block = re.search(
        r'<script type="application/json" id="films">(.*?)</script>', page.html(), re.S
    )
    films = json.loads(block[1])
    assert films["frames"] == 4 and set(films["films"]) == set(page.videos)


def test_page_names_failures(page):
    page.content["failures"] = ["auto-0.3: output was <bad>"]
    assert "output was &lt;bad&gt;" in page.html()


def test_a_busy_machine_is_told():
    made = content([])
    assert write.drift(made) == pytest.approx(0.025) and write.drift(made) < write.STEADY
    made["dense_seconds_again"] = 30.0
    assert "20.0 s at the start and 30.0 s at the end" in write.unsteady(made)
    assert "uncertain by 50%" in write.unsteady(made)
    page = Page(made, {"dense": DENSE.frames}, [], {"density": 0.3, "tile": 64}, "busy & loud")
    assert '<p class="warning">busy &amp; loud</p>' in page.html()


def test_page_without_sparse_runs_still_draws():
    text = Page(content([]), {"dense": DENSE.frames}, [], {"density": 0.3, "tile": 64}).html()
    assert Check(text).open == []


def test_most_telling_heads_gain_most_and_one_stays():
    chosen = heads.most_telling(VIEWS)
    assert [(one.order, one.number) for one in chosen] == [("HWF", 0), ("WHF", 0), ("FHW", 1)]


def test_closing_table_lines_up():
    runs = [make_run("second-0.3", video(1, 0.02))]
    lines = write.closing_table(content(runs))
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split()[0] == "second-0.3" and "2.00" in lines[2]
    # The second prompt's figure stands in the same line.
    psnr = [row["psnr_db"] for row in content(runs)["runs"] if row["name"].startswith("second")]
    assert len(lines) == 3 and psnr[0] > psnr[1]
    assert all(f"{value:.1f}" in lines[2] for value in psnr)
