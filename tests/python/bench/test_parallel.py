"""`bench parallel`: the simulation from measured block times, and the bench itself on two CPUs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from paroattention import Error
from paroattention.bench import parallel
from paroattention.bench import parallel_simulated as simulated
from paroattention.layout import TokenLayout
from problems import profile

TIMES = Path(__file__).resolve().parents[2] / "bench" / "results" / "h100.json"


def spread(dense: int = 2):
    """A profile of 16 heads, the first of them dense."""
    made = profile(layers=[f"double.{n}.0" for n in range(4)], heads=4)
    layers = list(made.layers)
    for head in range(dense):
        layers[0].heads[head].density = 1.0
    made.layers = layers
    return made


@pytest.fixture(scope="module")
def rows():
    return simulated.rows(spread(), simulated.fitted(TIMES))


def test_the_fit_goes_through_what_was_measured():
    time = simulated.fitted(TIMES)
    assert time.off < 0.02
    # Ten heads of Wan 14B at 720p on an H100, tail on.
    assert 10 * time.of(0.3, time.tokens) == pytest.approx(9.338, rel=0.02)
    assert time.of(1, 2 * time.tokens) > 3.9 * time.of(1, time.tokens)


def test_a_file_without_such_rows_is_refused(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('{"rows": []}')
    with pytest.raises(Error, match=r"--times must hold three rows.*got 0"):
        simulated.fitted(file)


def test_each_head_has_the_density_that_a_run_gives_it():
    layers = simulated.densities_of(simulated.tiled(spread(), 40, 40, True), 0.3)
    every = [density for own in layers for density in own]
    assert sum(every) / len(every) == pytest.approx(0.3)
    assert every.count(1.0) == 200 and len(set(every)) == 2


def test_dealing_gains_and_keeps_the_work(rows):
    by = {}
    for row in rows:
        by.setdefault((row["model"], row["order"], row["density"], row["ranks"]), []).append(row)
    for even, equal, dealt, pay, parts in by.values():
        assert parts["imbalance"] <= pay["imbalance"] + 2e-3 <= dealt["imbalance"] + 4e-3
        assert parts["attention_s"] <= dealt["attention_s"] * 1.002
        assert dealt["imbalance"] <= equal["imbalance"] + 1e-3
        assert equal["imbalance"] <= even["imbalance"] + 1e-3
        mean = [row["attention_s"] / (1 + row["imbalance"]) for row in (even, equal, dealt)]
        assert mean == pytest.approx([mean[0]] * 3, rel=1e-3)


def test_parts_of_heads_are_within_five_percent(rows):
    found = [row for row in rows if row["dealing"] == "parts"]
    assert {(row["heads"], row["ranks"]) for row in found} >= {(40, 8), (56, 8)}
    # At .1 one dense head is two ranks' share, and each of its parts costs what a head costs.
    assert max(row["imbalance"] for row in found if row["density"] >= 0.2) < 0.05
    assert max(row["imbalance"] for row in found) < 0.08


def test_fifty_six_heads_on_eight_ranks_are_within_five_percent(rows):
    found = [row["imbalance"] for row in rows
             if (row["heads"], row["ranks"], row["dealing"]) == (56, 8, "dealt")
             and row["density"] in (0.2, 0.3)]  # fmt: skip
    assert len(found) == 4 and max(found) < 0.05


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_least_is_the_least(ranks):
    """Small enough to try every dealing."""
    times = [1.0, 1.0, 0.3, 0.3, 0.3, 0.3, 0.3]
    best = min(
        max(sum(time for time, rank in zip(times, chosen, strict=True) if rank == one)
            for one in range(ranks))
        for chosen in itertools.product(range(ranks), repeat=len(times))
    )  # fmt: skip
    assert simulated.least(times, ranks) == pytest.approx(best)


def test_ours_is_near_the_least(rows):
    dealt = [row for row in rows if row["dealing"] == "dealt"]
    whole = [row for row in rows if "parts" not in row["dealing"]]
    assert all(row["least"] <= row["imbalance"] + 1e-4 for row in whole)
    assert max(row["imbalance"] - row["least"] for row in dealt) < 0.015


def test_all_heads_alike_are_dealt_out_exactly():
    layers = [[0.3] * 40]
    time = simulated.HeadTime(0.1, 2.7, 75600, 0.0)
    row = simulated.row(layers, TokenLayout((21, 45, 80)), 8, time, "dealt")
    assert row["imbalance"] == row["worst_layer"] == 0
    assert row["attention_s"] == pytest.approx(5 * (0.1 + 2.7 * 0.3) * 1e-3, abs=1e-4)


def test_the_bench_runs_on_two_processes(tmp_path, capsys):
    file, out = tmp_path / "profile.json", tmp_path / "rows.json"
    spread().save(file)
    given = ["--profile", str(file), "--device", "cpu", "--shape", "tiny", "--repeats", "1"]
    assert parallel.main([*given, "--gpus", "2", "--density", "0.3", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["rows"]
    assert [(row["name"], row["dealing"]) for row in found] == [
        ("dense", "even"),
        ("paro", "even"),
        ("paro", "dealt"),
        ("paro", "parts"),
    ]
    assert all(sum(row["heads"]) >= 4 and len(row["attention_ms"]) == 2 for row in found)
    assert all(row["ms"] >= max(row["attention_ms"]) for row in found)


def test_more_gpus_than_there_are_are_refused(tmp_path):
    file = tmp_path / "profile.json"
    spread().save(file)
    with pytest.raises(Error, match=r"--gpus must be at most the \d+ GPUs here \(got 64\)"):
        parallel.main(["--profile", str(file), "--gpus", "64"])
