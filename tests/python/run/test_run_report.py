"""What a session tells: the run log, the node's text, the closing summary."""

import json

import pytest
from fake_host import SIGMAS, Host, sparse_host
from paroattention import ModelInfo, Settings
from paroattention.run.report import OTHERS, Reasons
from paroattention.runlog import RunLog
from problems import GRID

# Of 3 x 3 blocks: round(0.3 * 9), and one more for a query tile left without any.
DENSITY = 4 / 9
LINE = {
    "step",
    "sigma",
    "layer",
    "heads",
    "path",
    "reason",
    "attention",
    "density",
    "retained",
    "error",
}
MEASURED = {"head_retained", "head_error"}


def test_run_log_has_a_line_per_step_and_layer(tmp_path):
    host = Host(Settings(observe_steps=2, dense_below=0.0))
    host.session.report.calls.runlog = RunLog(tmp_path / "runlog.jsonl")
    host.run([1.0, 0.9, 0.9, 0.7, 0.5, 0.3, 0.1])
    lines = [json.loads(line) for line in (tmp_path / "runlog.jsonl").read_text().splitlines()]
    steps, end = lines[:-1], lines[-1]
    assert [(line["step"], line["layer"]) for line in steps] == [
        (step, layer) for step in range(6) for layer in host.layers
    ]
    for line in steps:
        # Step 3 begins the second half: new masks are proposed, and judged in the steps after.
        sampled = line["step"] >= 2
        assert set(line) == LINE | (MEASURED if sampled else set())
        assert line["path"] == ("observe" if line["step"] < 2 else "sparse")
        assert line["heads"] == [0, 1]
        assert line["sigma"] == pytest.approx(SIGMAS[line["step"]])
        assert line["reason"] == ("observing" if line["step"] < 2 else "")
        assert 0 < line["retained"] <= 1 and (line["error"] is not None) == sampled
        # A tile that the samples leave without a block takes one more.
        least = 3 / 9 if line["step"] >= 2 else 1.0
        assert least <= line["density"] <= (DENSITY if line["step"] >= 2 else 1.0) + 1e-6
    assert end["end"] and end["ok"] and end["steps"] == 6 and end["grid"] == list(GRID)
    assert end["paths"] == {"observe": 6, "sparse": 8}


def test_progress_tells_state_density_and_reasons():
    host = sparse_host(settings=Settings(observe_steps=0, dense_below=0.0, refresh=False))
    for sigma in SIGMAS[:3]:
        host.evaluate(sigma)
    host.layers = ["single.9.0"]
    host.run(SIGMAS[3:-1])
    reason = "layer single.9.0 is not in the profile, and observe_steps 0 watches no step"
    texts = dict(host.texts)
    assert texts[0].startswith("step 1 of 6: starting")
    assert texts[2].startswith("step 3 of 6: sparse")
    assert "density 0.44" in texts[5] and "retained mass" in texts[5]
    assert f"dense: {reason} (2 calls)" in texts[5]
    assert host.texts[-1][0] == 6 and host.texts[-1][1].startswith("finished")


def test_progress_of_a_run_that_observes():
    host = Host(Settings(observe_steps=2, refresh=False))
    host.run()
    texts = [text.splitlines()[0] for _, text in host.texts]
    assert texts[:3] == ["step 1 of 6: starting", "step 2 of 6: observing", "step 3 of 6: sparse"]


def test_progress_tells_how_many_heads_stay_dense():
    host = Host(Settings(observe_steps=2, dense_below=1.0, refresh=False))
    summary = host.run()
    # One of four, which gets half of what was asked for: .6 of 1.2. Each other has one block a row.
    told = "1 of 4 heads look at all tokens and get more; the others have a density of 0.20"
    assert told in host.texts[-1][1]
    assert summary["density"] == pytest.approx((5 / 9 + 3 * 3 / 9) / 4)


def test_progress_of_a_calibration():
    host = Host(Settings(calibrate=True))
    host.run()
    assert host.texts[1][1] == "step 2 of 6: calibrating"


def test_summary_of_a_sparse_run():
    summary = sparse_host().run()
    assert summary["precision"] == "int8" and summary["tail"] is True
    assert (summary["block_q"], summary["block_kv"], summary["mask"]) == (64, 64, "static")
    assert summary["density"] == summary["density_total"] == pytest.approx(DENSITY)
    assert 0 < summary["retained"] <= 1
    assert summary["attention_seconds"] > summary["observe_seconds"] == 0


def test_unknown_models_have_a_valid_identity():
    host = Host(Settings(observe_steps=1), model=ModelInfo())
    host.run()
    assert host.saved[0].model.family == "unknown"


def test_causes_that_differ_in_a_figure_do_not_fill_the_log():
    """The text of an error may say how much memory was free: other words in each call."""
    reasons = Reasons()
    for number in range(1000):
        reasons.note(f"OutOfMemoryError: {number} MiB is free", dense=True)
    reasons.note("OutOfMemoryError: 3 MiB is free", dense=True)
    assert len(reasons.counts) == 33 and reasons.counts.total() == 1001
    assert reasons.counts["OutOfMemoryError: 3 MiB is free"] == 2
    assert reasons.counts[OTHERS] == 1000 - 32 and reasons.is_dense(OTHERS)
