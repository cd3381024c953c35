"""The trial of the wheel for Windows: what it decides, without wine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tools.setup.paths import Paths  # noqa: E402
from tools.setup.steps import SetupError  # noqa: E402
from tools.wheels import inputs, pack  # noqa: E402
from tools.windows import environment, math_library, screen, steps, trial, wine  # noqa: E402
from tools.windows.context import Context, Failed  # noqa: E402
from tools.windows.screen import Picture, Place  # noqa: E402
from tools.windows.wine import Done, Wine, windows_path  # noqa: E402

# Which wheel


def test_the_newest_wheel_is_tried(tmp_path):
    old = pack.wheel("windows", {}, {}, tmp_path)
    pack.wheel("linux", {}, {}, tmp_path)
    assert trial.find_wheel(None, tmp_path) == old
    assert trial.find_wheel(old) == old


def test_without_a_wheel_it_is_told_how_to_build_one(tmp_path):
    pack.wheel("linux", {}, {}, tmp_path)
    for named in (None, tmp_path / "other.whl"):
        with pytest.raises(SetupError, match="There is no wheel") as told:
            trial.find_wheel(named, tmp_path)
        assert "run.py wheels --system windows" in str(told.value)


def test_a_wheel_of_another_system_is_refused(tmp_path):
    linux = pack.wheel("linux", {}, {}, tmp_path)
    damaged = tmp_path / f"paroattention-1-{pack.TAGS['windows']}.whl"
    damaged.write_bytes(b"PK")
    for named in (linux, damaged):
        with pytest.raises(SetupError, match="is no wheel for Windows"):
            trial.find_wheel(named)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--wheel", "nowhere.whl"], 1, "There is no wheel nowhere.whl"),
        (["--python", "3.14"], 2, "invalid choice"),
    ],
    ids=["no such wheel", "no such Python"],
)
def test_bad_use_of_the_command(tmp_path, arguments, code, words):
    command = [sys.executable, str(REPO / "run.py"), "windows", *arguments]
    env = wine.Wine(tmp_path, tmp_path).environment(PARO_CACHE=str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists(), "something was set up first"


# wine


def test_what_is_lacking_is_named_with_its_packages(monkeypatch):
    there = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if "ine" in name else name)
    with pytest.raises(SetupError, match="needs wine, which") as told:
        wine.require()
    assert f"apt-get install {wine.PACKAGES}" in str(told.value)
    monkeypatch.setattr(shutil, "which", lambda name: there("true"))
    wine.require()


def test_paths_for_windows():
    assert windows_path(Path("/a/b c/für.json")) == "Z:\\a\\b c\\für.json"


def test_the_environment_of_a_windows_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("DISPLAY", ":0")
    one = Wine(tmp_path / "prefix", tmp_path / "log")
    env = one.environment()
    assert "PYTHONPATH" not in env and env["DISPLAY"] == ""
    assert env["WINEPREFIX"] == str(tmp_path / "prefix") and env["KMP_AFFINITY"] == "disabled"
    assert one.environment(DISPLAY=":7")["DISPLAY"] == ":7"


@pytest.fixture
def posing(monkeypatch, tmp_path):
    """A shell in place of wine: `wine -c SCRIPT`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("wine", "wineserver"):
        program = folder / name
        program.write_text('#!/bin/sh\n[ "$1" = -k ] || exec sh "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Wine(tmp_path / "prefix", tmp_path / "logs" / "log")


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="wine runs on Linux")


@linux_only
def test_a_program_is_run_and_logged(posing):
    done = posing.run("a step", "-c", "printf 'one\\r\\ntwo\\r\\n'; echo bad >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "one\ntwo\n", "bad\n")
    assert done.closing(2) == "two / bad"
    log = posing.log.read_text()
    assert "one\ntwo\nbad\n(exit code 3)" in log and log.startswith("\n$ wine -c")


@linux_only
def test_a_program_that_does_not_end_is_ended(posing):
    done = posing.run("a step", "-c", "echo begun; sleep 60", timeout=1)
    assert (done.code, done.out) == (124, "begun\n") and done.seconds < 30


@linux_only
def test_a_prefix_that_is_not_made_is_an_error(posing):
    with pytest.raises(SetupError, match="wine made no prefix"):
        posing.ensure_prefix()


def test_versions_are_pinned():
    pins = environment.packages("3.12")
    assert set(environment.packages("3.13")) < set(pins)
    assert all(pin.count("==") == 1 for pin in pins)
    assert len({pin.partition("==")[0] for pin in pins}) == len(pins)


def test_an_unknown_python_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match=r"3\.14 is not known"):
        environment.Environment(Paths()).python("3.14", with_torch=False)


# numpy's math library

TABLES = """
	DLL Name: KERNEL32.dll
	vma:  Hint/Ord Member-Name Bound-To
	3bb0c0	   10  Sleep

	DLL Name: api-ms-win-crt-math-l1-1-0.dll
	vma:  Hint/Ord Member-Name Bound-To
	3bb0e8	   23  _dsign
	3bb10e	  190  floor
	3bb098	  131  cimagl

 0003d2f4	0003d3b0 00000000
"""  # fmt: skip


def test_imports_of_one_library():
    assert math_library.imported(TABLES, math_library.THEIRS) == {"_dsign", "floor", "cimagl"}
    assert math_library.imported(TABLES, b"KERNEL32.dll") == {"Sleep"}
    assert math_library.imported(TABLES, b"other.dll") == set()


def test_complex_functions_are_ours_and_others_are_passed_on():
    lines = math_library.definition({"cosh", "ccosh", "cpowf", "_cabs"}).splitlines()
    assert lines[0] == f"LIBRARY {math_library.OURS.decode()}" and lines[1] == "EXPORTS"
    assert [line.strip() for line in lines[2:]] == [
        *("_cabs = ucrtbase._cabs", "ccosh = paro_ccosh"),
        *("cosh = ucrtbase.cosh", "cpowf = paro_cpowf"),
    ]


def test_the_name_fits_where_the_other_stood():
    assert len(math_library.OURS) == len(math_library.THEIRS)
    assert not math_library.OURS.startswith((b"api-", b"ext-")), "wine answers these itself"


def test_the_source_has_every_complex_function():
    source = math_library.SOURCE.read_text(encoding="utf-8")
    for name in math_library.NUMBERS:
        assert f"({name})" in source or f" paro_c{name}(" in source, name


# Steps


def core(**changed) -> dict:
    found = {"python": "3.11.9", "heads": 6, "tokens": 156, "words": 9, "shares": [0.5] * 6}
    found |= {"refused": "grid.f must be at least 1 (got 0)", "refused_text": "no JSON"}
    return found | changed


def test_a_core_without_fault():
    assert steps.core_faults(core(), "3.11") == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"python": "3.1.1"}, "it is Python 3.1.1"),
        ({"heads": 5}, "5 heads"),
        ({"shares": [0.5, 1.0]}, "it kept"),
        ({"refused": ""}, "bad input"),
        ({"refused_text": ""}, "bad input"),
    ],
)
def test_faults_of_a_core(changed, words):
    (fault,) = steps.core_faults(core(**changed), "3.11")
    assert words in fault


def test_answers_of_probes():
    assert steps.answer(Done(0, 'noise\n{"a": 1}\n', "", 1.0)) == {"a": 1}
    for done, words in (
        (Done(1, '{"a": 1}', "ImportError: no", 1.0), "exit code 1.*ImportError"),
        (Done(0, "", "", 1.0), "not answered"),
        (Done(0, "hello", "", 1.0), "not answered: hello"),
    ):
        with pytest.raises(Failed, match=words):
            steps.answer(done)


REPORT = """<testsuites><testsuite>
<testcase classname="python.a" name="one"/>
<testcase classname="python.a" name="two"><failure message="no"/></testcase>
<testcase classname="python.a" name="three"><error message="no"/></testcase>
<testcase classname="python.a" name="four"><skipped message="no nm"/></testcase>
<testcase classname="python.a" name="five"><skipped message="no nm"/></testcase>
</testsuite></testsuites>"""


def test_counts_of_a_report():
    counts = steps.count(REPORT)
    assert counts.passed == 1 and counts.failed == ["python.a::two", "python.a::three"]
    assert counts.skipped == {"no nm": 2}
    assert counts.told() == "1 passed, 2 failed, 2 skipped"


def test_tests_left_out_exist_and_say_why():
    for name, reason in steps.DESELECTED.items():
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (REPO / "tests" / file).read_text("utf-8")
        assert len(reason) > 10


# The trial


def good(context):
    return "fine", {"count": 1}


def bad(context):
    raise Failed("it broke", failed=["a"])


def test_each_step_has_its_outcome(capsys):
    outcomes = trial.run_steps(None, {"install": good, "doctor": bad, "viewer": good})
    assert [one["outcome"] for one in outcomes] == ["passed", "failed", "passed"]
    assert outcomes[0]["count"] == 1 and outcomes[1]["told"] == "it broke"
    assert outcomes[1]["failed"] == ["a"]
    assert "doctor: failed in 0 s. it broke" in capsys.readouterr().out
    assert trial.summary(outcomes) == "THE WHEEL FAILED: doctor"


def test_what_is_not_installed_is_not_tried():
    outcomes = trial.run_steps(None, {"install": bad, "doctor": good})
    assert [one["outcome"] for one in outcomes] == ["failed", "not tried"]
    assert trial.summary(outcomes[:0]) == "The wheel passed all 0 steps"


def test_results_of_a_quick_trial_are_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "OUT", tmp_path / "out")
    monkeypatch.setattr(trial, "RESULTS", tmp_path / "results")
    version = "wine-8.0 (Debian 8.0~repack-4)"
    assert trial.write({"a": "ü"}, version, True) == tmp_path / "out" / "wine8.json"
    file = trial.write({"a": "ü"}, version, False)
    assert file == tmp_path / "results" / "wine8.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}


def test_steps_run_outside_the_checkout(monkeypatch, tmp_path):
    """`python -m` puts its folder first: the checkout's modules must not be found there."""
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    made = environment.Environment(Paths())
    context = Context(made, tmp_path / "a.whl", "3.12", False, tmp_path)
    assert context.scratch.is_dir() and not context.scratch.is_relative_to(REPO)


# The screen


def picture(width, height, colour=None) -> Picture:
    pixels = [bytes(colour or (x % 256, y % 256, 40)) for y in range(height) for x in range(width)]
    return Picture(width, height, b"".join(pixels))


def test_a_window_on_a_black_screen():
    drawn = picture(30, 20)
    rows = [drawn.rgb[90 * y : 90 * (y + 1)] for y in range(20)]
    blank = bytes(3 * 50)
    shown = [bytes(15) + row + bytes(45) for row in rows]
    seen = Picture(50, 24, b"".join([blank, blank, *shown, blank, blank]))
    place = Place(5, 2, 30, 20)
    assert seen.crop(place) == drawn
    assert screen.faults(seen, place, drawn) == []
    assert "the screen shows" in screen.faults(seen, Place(15, 2, 30, 20), drawn)[-1]


def test_a_black_window_and_a_plain_one_are_none():
    black, drawn, whole = picture(30, 20, (0, 0, 0)), picture(30, 20), Place(0, 0, 30, 20)
    faults = screen.faults(black, whole, drawn)
    assert len(faults) == 3 and "1 colours" in faults[0] and "100% of the window" in faults[1]
    assert "colours" in screen.faults(picture(30, 20, (9, 9, 9)), whole, drawn)[0]


def test_a_window_that_is_cut_off_is_none():
    drawn = picture(30, 20)
    assert "shows 0%" in screen.faults(drawn, Place(5, 5, 30, 20), drawn)[-1]


def test_the_pythons_are_those_of_the_wheels():
    assert set(inputs.WINDOWS_PYTHONS) <= set(inputs.PYTHONS)
