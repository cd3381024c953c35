"""`python -m paroattention`: what it prints, its exit codes: 0, 1 on a fault, 2 on bad usage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import paroattention
import pytest
from paroattention import Profile, _core
from paroattention.__main__ import main
from problems import profile


def run(*arguments) -> int:
    """The exit code; argparse ends with SystemExit."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


@pytest.fixture
def saved(tmp_path) -> Path:
    profile(seed=1).save(tmp_path / "a.json")
    profile(seed=2).save(tmp_path / "b.json")
    return tmp_path


def test_doctor_says_what_runs_here(capsys):
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert f"paroattention {_core.__version__}" in out and "torch" in out
    assert f"CPU kernels: {_core.active_isa()}" in out
    assert "GPU: none that torch can use" in out or "NVIDIA's driver" in out
    assert "Self-test on cpu: 8 of 8 kernels compute rightly" in out


def test_doctor_writes_a_report_without_folders(tmp_path, capsys):
    assert run("doctor", "--quick", "--report", tmp_path / "report.txt") == 0
    text = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out and "Self-test" not in text
    assert str(Path.home()) not in text and str(tmp_path) not in text


def test_doctor_ends_with_1_where_a_kernel_is_wrong(monkeypatch, capsys):
    from paroattention.kernels import self_test

    wrong = self_test.Result("portable", "int8", 64, 128, 0.5, "dense attention is off by 0.500")
    monkeypatch.setattr(self_test, "run", lambda device: [wrong])
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert "0 of 1 kernels compute rightly" in out
    assert "portable int8, head_dim 64, blocks of 128x128: dense attention is off by 0.500" in out


@pytest.mark.parametrize("isa", _core.available_isas())
def test_doctor_says_why_not_faster(isa, capsys):
    before = _core.active_isa()
    try:
        _core.set_isa(isa)
        assert run("doctor", "--quick") == 0
    finally:
        _core.set_isa(before)
    out = capsys.readouterr().out
    assert ("slow" in out) == (isa == "scalar")
    assert ("no AVX-512 VNNI" in out) == (isa == "avx2")


def test_show(saved, capsys):
    assert run("profile", "show", saved / "a.json") == 0
    out = capsys.readouterr().out
    assert "a.json: valid paroattention/1" in out
    for words in ("wan2.1", "2 layers, 2 heads a layer, head size 64", "1 prompt(s)", "8 steps"):
        assert words in out
    assert "(3, 6, 8)" in out and "double.1.0" in out and "retained mass" in out


def test_merge(saved, capsys):
    assert run("profile", "merge", saved / "a.json", saved / "b.json", saved / "c.json") == 0
    assert "c.json" in capsys.readouterr().out
    assert Profile.load(saved / "c.json").calibration.prompts == 2
    assert Profile.load(saved / "a.json").calibration.prompts == 1


def test_merge_of_other_models_is_refused_and_writes_nothing(saved, capsys):
    profile(heads=3).save(saved / "other.json")
    before = (saved / "a.json").read_bytes()
    assert run("profile", "merge", saved / "a.json", saved / "other.json", saved / "c.json") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and "heads" in captured.err and not captured.out
    assert not (saved / "c.json").exists() and (saved / "a.json").read_bytes() == before


def test_merge_takes_many(saved, capsys):
    profile(seed=3).save(saved / "d.json")
    files = [saved / name for name in ("a.json", "b.json", "d.json", "out.json")]
    assert run("profile", "merge", *files, "--density", "0.2") == 0
    assert Profile.load(saved / "out.json").calibration.prompts == 3
    assert run("profile", "merge", saved / "a.json", saved / "b.json") == 2
    assert "two or more profiles" in capsys.readouterr().err


def test_diff_of_a_profile_and_itself(saved, capsys):
    assert run("profile", "diff", saved / "a.json", saved / "a.json") == 0
    out = capsys.readouterr().out
    assert "0 of 4 heads" in out and "->" not in out


def test_diff_tells_what_changed(saved, capsys):
    second = Profile.load(saved / "b.json")
    first, *rest = second.layers
    head = first.heads[0]
    head.order = (
        "WHF" if Profile.load(saved / "a.json").layers[0].heads[0].order != "WHF" else "FHW"
    )
    head.density, head.locked = 0.6, True
    second.layers = [_core.ProfileLayer(first.id, [head, *first.heads[1:]]), *rest]
    calibration = second.calibration
    calibration.sampler, calibration.prompts = "dpmpp_2m", 5
    second.calibration = calibration
    second.save(saved / "c.json")
    assert run("profile", "diff", saved / "a.json", saved / "c.json", "--tile", "16") == 0
    out = capsys.readouterr().out
    for words in (
        'sampler: "euler" -> "dpmpp_2m"',
        "prompts: 1 -> 5",
        f"-> {head.order}",
        "locked",
    ):
        assert words in out, out
    assert "density 0.3 -> 0.6" in out and "mean retained mass" in out
    assert run("profile", "diff", saved / "a.json", saved / "c.json", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["heads"][0]["order_b"] == head.order and found["heads"][0]["locked_b"]
    assert {field["name"] for field in found["fields"]} == {
        "calibration.sampler", "calibration.prompts",
    }  # fmt: skip
    assert all(0 < entry["b_by_b"] <= 1 for entry in found["heads"])


def test_diff_of_other_models_says_so(saved, capsys):
    profile(heads=3, layers=("double.0.0", "single.0.0")).save(saved / "other.json")
    assert run("profile", "diff", saved / "a.json", saved / "other.json") == 0
    out = capsys.readouterr().out
    assert "model.heads: 2 -> 3" in out and "layer double.1.0: only in the first" in out
    assert "layer single.0.0: only in the second" in out


BROKEN = {
    "missing": None,
    "empty": b"",
    "truncated": b'{"schema": "paroattention/1", "model": {',
    "no text": b"\xff\xfe\x00",
    "another schema": b'{"schema": "paroattention/2"}',
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line_of_error(case, tmp_path, capsys):
    path = tmp_path / "p.json"
    if BROKEN[case] is not None:
        path.write_bytes(BROKEN[case])
    assert run("profile", "show", path) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and "p.json" in captured.err
    assert len(captured.err.splitlines()) == 1 and not captured.out


def test_a_folder_is_no_profile(tmp_path, capsys):
    assert run("profile", "show", tmp_path) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["profile"],
        ["profile", "nonsense"],
        ["profile", "show"],
        ["profile", "merge", "one.json"],
        ["bench"],
        ["bench", "nonsense"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_bad_usage_is_2_and_told(arguments, capsys):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err and "Traceback" not in captured.err and not captured.out


def test_as_a_program():
    """Exit codes and streams of the real process."""
    folder = str(Path(paroattention.__file__).parents[1])
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "paroattention", "profile", "show", "nowhere.json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=120
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


CONSOLES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252 strict": {"PYTHONIOENCODING": "cp1252:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "C as it is": {"LC_ALL": "C"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}
# Cyrillic, Chinese, an accent, a smiley, bytes that are no text, and what would move the cursor.
# Windows has no names of bytes.
BYTES = "grün" if sys.platform == "win32" else os.fsdecode(b"gr\xfcn")
NAMES = ["профиль", "配置", "für", "\U0001f600", BYTES, "a\x1b[2Jb"]


def paro(folder, *arguments, env=None, script=None, **options):
    """The real process in a folder, or a script of its Python."""
    package = str(Path(paroattention.__file__).parents[1])
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, *(["-c", script] if script else ["-m", "paroattention"]), *arguments]
    env = kept | {"PYTHONPATH": path} | (env or {})
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120}
    return subprocess.run(command, cwd=folder, env=env, **(defaults | options))


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder of such a name with a valid profile under each of the names."""
    if sys.platform == "win32":
        pytest.skip("some of the names cannot be there")
    folder = tmp_path_factory.mktemp("console") / "папка 配置"
    folder.mkdir()
    for name in NAMES:
        profile(seed=1).save(folder / f"{name}.json")
    return folder


# Every command on every name in one process: most of a process's time is importing torch.
EVERY_NAME = """
import os, sys
from paroattention.__main__ import main
for name in sorted(os.listdir()):
    assert main(["profile", "show", os.path.abspath(name)]) == 0
    assert main(["profile", "merge", name, name, os.path.join(os.pardir, "neu " + name)]) == 0
    assert main(["profile", "show", os.path.join(os.pardir, "neu " + name)]) == 0
    assert main(["profile", "show", name + "x"]) == 1
sys.exit(0)
"""


@pytest.mark.parametrize("console", CONSOLES)
def test_any_console_shows_what_it_can_and_escapes_the_rest(named, console):
    env, count = CONSOLES[console], len(NAMES)
    done = paro(named, env=env, script=EVERY_NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"valid paroattention/1") == 2 * count
    assert b"\x1b" not in done.stdout
    errors = done.stderr.splitlines()
    assert len(errors) == count and all(line.startswith(b"error: ") for line in errors)
    assert b"\x1b" not in done.stderr
    merged = [name for name in os.listdir(named.parent) if name.startswith("neu ")]
    assert len(merged) == count
    # The program itself, with such a name among its arguments.
    done = paro(named, "profile", "show", os.fsencode(f"{NAMES[-2]}.json"), env=env)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of another kind")
@pytest.mark.parametrize("tool", ["show", "merge"])
def test_a_reader_that_has_had_enough_is_no_failure(saved, tool):
    """As in `... | head -1`: the work is done and the exit code says so."""
    reader, writer = os.pipe()
    os.close(reader)
    files = ["a.json"] if tool == "show" else ["a.json", "b.json", "c.json"]
    try:
        done = paro(saved, "profile", tool, *files, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (saved / "c.json").is_file() == (tool == "merge")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_output_on_a_full_disk_is_a_failure(saved):
    with open("/dev/full", "wb") as full:
        done = paro(saved, "profile", "show", "a.json", stdout=full)
    assert done.returncode == 1 and done.stderr.startswith(b"error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["doctor"], ["profile", "show", "a.json"], ["bench"], ["x"]])
def test_without_any_console(saved, arguments, monkeypatch):
    """pythonw has neither output."""
    monkeypatch.chdir(saved)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run(*arguments) == (2 if arguments[0] in ("bench", "x") else 0)
    assert sys.stdout is None and sys.stderr is None


@pytest.mark.skipif(sys.platform == "win32", reason="closed by the shell")
def test_with_its_outputs_closed(saved):
    done = paro(saved, "profile", "show", "a.json", preexec_fn=lambda: (os.close(1), os.close(2)))
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the viewer")
def test_view_runs_the_viewer_with_its_arguments(tmp_path, monkeypatch, capfd):
    from paroattention.cli import viewer

    monkeypatch.setenv("PATH", str(tmp_path))
    # A wheel has one beside the package.
    monkeypatch.setattr(viewer, "__file__", str(tmp_path / "elsewhere" / "cli" / "x.py"))
    assert main(["view", "x.json"]) == 1
    assert "run.py view" in capfd.readouterr().err
    program = tmp_path / "paro-viewer"
    program.write_text('#!/bin/sh\necho "seen $*"\nexit 3\n')
    program.chmod(0o755)
    assert viewer.program() == str(program)
    assert main(["view", "x.json", "--theme", "light"]) == 3
    assert "seen x.json --theme light" in capfd.readouterr().out
