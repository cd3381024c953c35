"""tests/cuda/stress.py on a CPU: every kind of call is drawn, and faults that are put in are found.

The stand-ins of stress_devices.py take the place of streams, graphs and memory that runs out.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import stat
import time
from types import SimpleNamespace

import pytest
import torch
from paroattention import ORDERS
from stress_modules import (
    stress,
    stress_calls,
    stress_cases,
    stress_children,
    stress_devices,
    stress_plants,
    stress_sections,
    stress_tally,
)
from tolerances import Tolerance, tolerance

Tally = stress_tally.Tally


pytestmark = pytest.mark.usefixtures("one_thread")


def run_with(plant: str = "") -> stress.Run:
    return stress.Run(stress.parse(["--device", "cpu", *(["--plant", plant] if plant else [])]))


def first_found(plant: str, section: str, seeds: int) -> dict:
    """The first mismatch of a section with a fault in it."""
    run = run_with(plant)
    for seed in range(seeds):
        if run.round(section, seed):
            return run.tally.mismatches[0]
    pytest.fail(f"{section} did not find {plant} in {seeds} rounds")


@pytest.mark.parametrize("sizes", [stress_devices.Gpu.sizes, stress_devices.Cpu.sizes], ids=str)
def test_every_kind_is_drawn(sizes):
    seen: dict[str, set] = {}
    for seed in range(2000):
        case = stress_cases.draw(seed, sizes)
        assert case == stress_cases.draw(seed, sizes)
        assert stress_cases.Case.parse(case.dump()) == case
        for kind, values in case.kinds().items():
            seen.setdefault(kind, set()).update(values)
        if case.path == "narrow":
            assert (case.head_dim, case.tile[0]) == (128, 64)
        assert case.precision == "int8" or case.path == "auto"
        assert max(case.grid) >= 1 and case.layout.grid_size <= sizes.tokens
    wanted = {
        "dtype": {*stress_cases.DTYPES},
        "precision": {"int8", "bf16"},
        "path": {*stress_cases.PATHS},
        "head_dim": {"64", "128"},
        "tile": {"64x64", "64x128", "128x64", "128x128"},
        "tail": {"on", "off"},
        "order": {*ORDERS},
        "strides": {*stress_cases.VIEWS},
        "mask": {*stress_cases.MASKS},
        "density": {"up to 0.1", "up to 0.3", "up to 0.6", "up to 0.999", "above 0.999"},
        "layout": {*stress_cases.LAYOUTS.values()},
        "last block": {"full", "ragged"},
        "batch": {str(n + 1) for n in range(sizes.batch)},
        "heads": {str(n + 1) for n in range(sizes.heads)},
        "data": {*stress_cases.DATA},
        "sm_scale": {"default", "given"},
        "broken": {"given", "not given"},
    }
    assert {kind: seen[kind] for kind in wanted} == wanted
    assert {"up to 64", "up to 256", "up to 1024"} <= seen["tokens"]


@pytest.mark.parametrize("view", stress_cases.VIEWS)
def test_strides_differ_and_values_do_not(view):
    x = torch.arange(2 * 3 * 5 * 8, dtype=torch.float32).view(2, 3, 5, 8)
    out = stress_cases.laid_out(x, view)
    want = x[:1].expand(2, 3, 5, 8) if view == "one batch entry" else x
    assert torch.equal(out, want)
    assert (out.stride() == x.stride()) == (view == "bhnd")
    strides = {stress_cases.laid_out(x, other).stride() for other in stress_cases.VIEWS}
    offsets = {stress_cases.laid_out(x, other).storage_offset() for other in stress_cases.VIEWS}
    assert len(strides) >= len(stress_cases.VIEWS) - 1 and len(offsets) >= 4


def test_limits_are_those_of_the_tests():
    case = stress_cases.draw(0, stress_devices.Cpu.sizes)
    for dtype, of in stress_cases.DTYPES.items():
        for precision in ("int8", "bf16"):
            one = dataclasses.replace(case, dtype=dtype, precision=precision)
            assert stress_calls.allowed(one, "cpu") == tolerance(of, precision)
    # A GPU reads unquantised float32 as bfloat16.
    one = dataclasses.replace(case, dtype="float32", precision="bf16")
    assert stress_calls.allowed(one, "cuda") == tolerance(torch.bfloat16, "bf16")


# The section that has to find it, and within how many rounds.
@pytest.mark.parametrize(
    "plant, section, seeds",
    [
        ("block", "random", 40),
        ("mask", "random", 20),
        ("order", "random", 80),
        ("stride", "random", 20),
        ("tail", "random", 80),
        ("bit", "random", 20),
        ("bit", "streams", 2),
        ("bit", "threads", 2),
        ("bit", "allocator", 2),
        ("bit", "plans", 2),
        ("bit", "failures", 2),
        ("stale", "graphs", 2),
        ("memory", "failures", 2),
        ("offset", "large", 2),
    ],
)
def test_a_fault_is_found(plant, section, seeds):
    found = first_found(plant, section, seeds)
    assert found["what"] and found["section"] == section
    # The printed command runs that round alone; without the fault nothing is wrong with it.
    assert found["command"].endswith(f"--plant {plant} --only {section}:{found['seed']}")
    clean = run_with()
    assert clean.round(section, found["seed"]) == []
    assert clean.tally.mismatches == []


@pytest.mark.parametrize("plant", ["block", "mask", "stride"])
def test_a_printed_command_finds_it_again(plant, capsys):
    found = first_found(plant, "random", 40)
    printed = capsys.readouterr().out
    for command in (found["command"], found["smallest"]):
        assert command in printed
        arguments = shlex.split(command)[2:]
        assert stress.main(arguments) == 1
        told = capsys.readouterr().out
        assert "WRONG" in told
        # The same finding, to the last digit; and none without the fault.
        assert command == found["smallest"] or found["what"][0] in told
        clean = [part for part in arguments if part not in ("--plant", plant)]
        assert stress.main(clean) == 0
        assert capsys.readouterr().out.startswith("right")


def test_a_wrong_case_is_made_simple():
    """The fault needs tiles of 128 queries by 64 keys: the rest of the case can go."""
    found = first_found("block", "random", 40)
    case = stress_cases.Case.parse(found["case"])
    least = stress_cases.Case.parse(found["smallest"].partition("--case ")[2].strip("'"))
    assert case.tile == least.tile == (128, 64)
    assert (least.batch, least.heads, least.prefix, least.suffix) == (1, 1, 0, 0)
    assert least.layout.length <= 2 and least.mask == "all" and not least.tail
    assert least.views == ("bhnd",) * 3


@pytest.mark.parametrize("plant", ["", "block"])
def test_some_heads_of_many_are_compared(plant):
    run = run_with(plant)
    case = dataclasses.replace(run.context.draw(2), mask="scattered", dtype="bfloat16")
    if plant:  # of the last head
        plain = stress_plants.PLANTS[plant]
        tiled = lambda case, *rest: plain(dataclasses.replace(case, tile=(128, 64)), *rest)  # noqa: E731
        run.context.attend = tiled
    found = stress_sections.many_elements(run.context, case, heads=9, grid=(3, 8, 11))
    assert len(found) == (2 if plant else 0)
    assert run.tally.calls == (0 if plant else 1)
    assert "tensors of 304,128 elements" in run.tally.notes


def test_a_whole_run(tmp_path, capsys):
    file = tmp_path / "stress.json"
    options = ["--device", "cpu", "--seconds", "1", "--seed", "11"]
    assert stress.main([*options, "--out", str(file)]) == 0
    told, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert told["whole"] and told["finished"] and told["did_not_run"] == []
    assert told["mismatches"] == 0 and told["seed"] == 11
    assert set(told["rounds"]) == {*stress_sections.SECTIONS, "processes"}
    assert told["notes"]["calls that got no memory"] >= 1
    assert any(note.startswith("strides beyond 2^31") for note in told["notes"])
    for kind, values in told["kinds"].items():
        counts = [one["calls"] for one in values.values()]
        # A case may have several orders and strides; of the rest it has one.
        calls = told["calls_against_fp64"]
        assert sum(counts) > calls if kind in ("order", "strides") else sum(counts) == calls
        assert all(0 <= one["worst_share_of_tolerance"] <= 1 for one in values.values())
    worst = told["kinds"]["precision"]["int8"]
    assert 1e-3 < worst["worst_error"] < 2.5e-2 < 0.12 and worst["worst_token_error"] < 0.12
    assert f"{told['calls_against_fp64']:,} calls against fp64" in printed


def test_a_run_with_a_fault_fails(tmp_path):
    file = tmp_path / "stress.json"
    options = ["--device", "cpu", "--seconds", "0.5", "--seed", "3", "--plant", "mask"]
    assert stress.main([*options, "--without", "processes", "--out", str(file)]) == 1
    told = json.loads(file.read_text())
    assert told["mismatches"] == len(told["wrong"]) > 0 and not told["whole"]
    assert all("--only" in one["command"] for one in told["wrong"])


def test_a_run_that_is_cut_short_has_kept_what_it_found(tmp_path, monkeypatch):
    file = tmp_path / "stress.json"
    options = ["--device", "cpu", "--seconds", "1000", "--seed", "3", "--out", str(file)]
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(stress.time, "time", lambda: next(clock))
    round_, run = stress.Run.round, []

    def cut_short(self, *arguments):
        run.append(arguments[0])
        if len(run) == 8:
            raise KeyboardInterrupt
        return round_(self, *arguments)

    monkeypatch.setattr(stress.Run, "round", cut_short)
    with pytest.raises(KeyboardInterrupt):
        stress.main([*options, "--without", "processes"])
    told = json.loads(file.read_text())
    assert not told["finished"] and not told["whole"] and told["calls_against_fp64"] > 0


def test_a_worker_that_dies_is_told_and_begins_anew(tmp_path):
    worker = stress_children.Worker(0, ["--device", "cpu", "--plant", "death"], tmp_path)
    worker.start(0, 1, time.time() + 60)
    deadly = [s for s in range(20) if stress_cases.draw(s, stress_devices.Cpu.sizes).prefix > 40]
    while not worker.dead:
        time.sleep(0.1)
        worker.watch("python3 tests/cuda/stress.py")
    worker.child.process.kill()
    (mismatch,) = worker.gone.mismatches
    assert mismatch["seed"] == deadly[0] and "status -9" in mismatch["what"][0]
    assert mismatch["command"] == f"python3 tests/cuda/stress.py --only random:{deadly[0]}"


def test_a_worker_that_always_dies_is_given_up(tmp_path, monkeypatch):
    class Dead:
        """Counts a call, and dies of the same seed."""

        process = SimpleNamespace(poll=lambda: 1)

        def __init__(self, arguments):
            Tally(calls=1).write(tmp_path / "0.json")
            (tmp_path / "0.seed").write_text("7")

        def finish(self, seconds):
            return 1, "the reason"

    monkeypatch.setattr(stress_children, "Child", Dead)
    worker = stress_children.Worker(0, [], tmp_path)
    worker.start(0, 1, time.time() + 60)
    for _ in range(20):
        worker.watch("command")
    for told in (worker.so_far(), worker.result(1)):
        assert (told.calls, len(told.mismatches)) == (6, 6)
        assert told.mismatches[5]["what"] == ["a worker ended with status 1: the reason"]


def test_two_processes_must_agree(monkeypatch):
    context = run_with().context
    ours = stress_children.digest(context, 5, 2)
    assert ours == stress_children.digest(context, 5, 2) != stress_children.digest(context, 6, 2)
    told = [(0, f"digest {ours}\n"), (0, f"digest {'0' * 64}\n"), (1, "no such thing")]

    def found(*which: int) -> list[str]:
        answers = iter([told[one] for one in which])
        child = lambda arguments: SimpleNamespace(finish=lambda seconds: next(answers))  # noqa: E731
        monkeypatch.setattr(stress_children, "Child", child)
        return stress_children.processes_round(context, 5, 60, count=2)

    assert found(0, 0) == []
    assert found(0, 1) == ["process 1 gave other bits than this one"]
    assert found(2, 0) == ["process 0 must end with 0 (got 1): no such thing"]


def test_counts_add_up():
    case = stress_cases.draw(1, stress_devices.Cpu.sizes)
    one, other, limit = Tally(), Tally(), Tolerance(0.02, 0.1)
    one.compared(case, Tolerance(0.01, 0.02), limit)
    one.spent("random", 1.0)
    other.compared(dataclasses.replace(case, seed=9), Tolerance(0.005, 0.09), limit)
    other.spent("random", 2.0)
    other.note("n", 3)
    one.add(other)
    assert (one.calls, one.rounds, one.seconds, one.notes) == (
        2,
        {"random": 2},
        {"random": 3},
        {"n": 3},
    )
    held = one.kinds["precision"][case.precision]
    assert held == {
        "calls": 2,
        "worst_error": 0.01,
        "worst_token_error": 0.09,
        "worst_share_of_tolerance": pytest.approx(0.9),
        "worst_seed": 9,
    }


@pytest.mark.parametrize(
    "errors, calls, clean", [(0, 3, True), (2, 3, False), (0, 0, False)], ids=str
)
def test_a_sanitizers_verdict(tmp_path, errors, calls, clean):
    program = tmp_path / "sanitizer"
    program.write_text(f"#!/bin/sh\necho calls ran: {calls}\necho ERROR SUMMARY: {errors} errors\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for child in stress_children.sanitizers(str(program), 1, 3).values():
        assert stress_children.verdict(child, 20)[1] is clean
    # racecheck looks at another package, and ends with words of its own.
    program.write_text(
        f"#!/bin/sh\necho $2 $PARO_PACKAGE calls ran: {calls}\n"
        f"echo RACECHECK SUMMARY: {errors} hazards displayed\n"
    )
    child = stress_children.sanitizers(str(program), 1, 3, "other")["racecheck"]
    code, text = child.finish(20)
    assert (code, text.splitlines()[0]) == (0, f"racecheck other calls ran: {calls}")
    assert stress_children.verdict(child, 20)[1] is clean
    gone = stress_children.sanitizers(str(tmp_path / "none"), 1, 3)
    assert {*gone} == {"memcheck", "initcheck", "synccheck"}
    assert stress_children.verdict(gone["memcheck"], 1) == (
        "not run: compute-sanitizer was not found",
        False,
    )


def test_each_fault_says_what_it_is():
    assert all(plant.__doc__ for plant in stress_plants.PLANTS.values())
