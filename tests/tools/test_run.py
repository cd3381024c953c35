"""run.py and what it stands on: stages, lock, errors, ComfyUI's archive, system packages."""

import io
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path, PurePosixPath

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

import run  # noqa: E402
from tools.setup import comfyui, python_env, steps, suites, system  # noqa: E402
from tools.setup.paths import Paths  # noqa: E402
from tools.setup.steps import Lock, Progress, SetupError, hash_tree, run_logged, stage  # noqa: E402
from tools.setup.suites import Suite  # noqa: E402


def run_py(*arguments, **env):
    command = [sys.executable, str(REPO / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})


# The environment


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize("there", [True, False])
def test_the_builder_of_source_packages_is_installed_where_it_is_missing(
    monkeypatch, tmp_path, there
):
    """What is built before any package is installed, the viewer for the page, needs it too."""
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    paths = Paths()
    paths.python.parent.mkdir(parents=True)
    paths.python.write_text(f"#!/bin/sh\nexit {0 if there else 1}\n")
    paths.python.chmod(0o755)
    installed = []
    monkeypatch.setattr(python_env, "install", lambda *told: installed.append(told[2]))
    python_env.ensure_builder(paths)
    assert len(installed) == (0 if there else 1)
    for words in installed:
        assert words[:3] == ["--no-deps", "--require-hashes", "-r"]
        assert re.search(r"^scikit-build-core==[\d.]+ ", Path(words[3]).read_text(), re.MULTILINE)


# Stages


def test_stage_builds_once_per_input(tmp_path):
    built = []
    for inputs in ("a", "a", "b", "b", "a"):
        stage(tmp_path / "stamp", inputs, lambda inputs=inputs: built.append(inputs))
    assert built == ["a", "b", "a"]


def test_stage_redoes_what_broke_off(tmp_path):
    stamp = tmp_path / "stamp"
    stage(stamp, "a", lambda: None)

    def breaks():
        raise SetupError("out of disk")

    with pytest.raises(SetupError):
        stage(stamp, "b", breaks)
    built = []
    # Neither the old stamp nor a half one may pass for finished work.
    assert stage(stamp, "a", lambda: built.append("a"))
    assert built == ["a"]


def test_stage_takes_a_damaged_stamp_as_none(tmp_path):
    (tmp_path / "stamp").write_text("{")
    assert stage(tmp_path / "stamp", "a", lambda: None)


def test_hash_tree_sees_names_and_contents(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.cpp").write_text("1")
    first = hash_tree(tmp_path, ["src"])
    assert hash_tree(tmp_path, ["src"]) == first
    (tmp_path / "src" / "a.cpp").write_text("2")
    changed = hash_tree(tmp_path, ["src"])
    (tmp_path / "src" / "a.cpp").rename(tmp_path / "src" / "b.cpp")
    assert len({first, changed, hash_tree(tmp_path, ["src"])}) == 3


# Lock, progress, errors


def test_lock_refuses_a_second_run_and_names_the_first(tmp_path):
    with Lock(tmp_path / "lock"):
        result = run_py("test", PARO_CACHE=str(tmp_path))
    assert result.returncode == 1
    assert f"process {os.getpid()}" in result.stderr
    assert "Traceback" not in result.stderr
    with Lock(tmp_path / "lock"):
        pass  # free again


def test_progress_is_silent_for_short_steps_and_counts_long_ones(capsys, monkeypatch):
    monkeypatch.setattr(steps, "QUIET_SECONDS", 0.2)
    with Progress("short"):
        pass
    assert capsys.readouterr().out == ""
    with Progress("long"):
        time.sleep(0.4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "long: running 0 s"
    assert lines[-1].strip().startswith("long: done in")


def test_failing_command_is_one_clear_paragraph(tmp_path):
    script = "print('x.cpp:3: error: no such type'); [print('line', i) for i in range(40)]; exit(3)"
    log = tmp_path / "build.log"
    with pytest.raises(SetupError) as caught:
        run_logged("building", [sys.executable, "-c", script], log, "fix x.cpp")
    text = str(caught.value)
    assert "building failed (exit code 3)" in text
    assert "x.cpp:3: error: no such type" in text and "line 39" in text and "line 3\n" not in text
    assert str(log) in text and "What to do: fix x.cpp." in text


def test_command_that_hangs_is_ended(tmp_path):
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    start = time.monotonic()
    with pytest.raises(SetupError, match="did not end within 1 s"):
        run_logged("sleeping", sleeper, tmp_path / "log", "", timeout=1)
    assert time.monotonic() - start < 15


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_children_of_an_ended_command_end_too(tmp_path):
    mark = tmp_path / "pid"
    grandchild = "import time; time.sleep(60)"
    parent = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]); "
        f"open({str(mark)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    with pytest.raises(SetupError, match="did not end"):
        run_logged("building", [sys.executable, "-c", parent], tmp_path / "log", "", timeout=3)
    pid = int(mark.read_text())
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} is still there")


def test_command_that_is_not_there(tmp_path):
    with pytest.raises(SetupError, match="no-such-tool"):
        run_logged("trying", ["no-such-tool"], tmp_path / "log", "install it")


# Command line


def test_usage_names_the_commands():
    result = run_py("--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("demo", "test", "bench", "view"))


@pytest.mark.parametrize("arguments", [(), ("look",), ("demo", "--nope")], ids=" ".join)
def test_wrong_usage_exits_with_2(arguments, tmp_path):
    result = run_py(*arguments, PARO_CACHE=str(tmp_path))
    assert result.returncode == 2 and "usage: run.py" in result.stderr


ON_AN_ASCII_CONSOLE = {
    "run.py": """
import run
run.demo = lambda paths, arguments: run.say("профиль 配置 \\udcfc") or 0
code = run.main(["demo"])
assert code == 0, code
""",
    "the demo": """
from tools.demo import driver
def broken(*arguments):
    raise driver.ServerError("профиль 配置 \\udcfc")
driver.Demo = type("Demo", (), {"__init__": lambda *arguments: None, "prepare": broken})
code = driver.main(["--comfyui", "x"])
assert code == 1, code
""",
}


@pytest.mark.parametrize("case", ON_AN_ASCII_CONSOLE)
def test_what_a_console_cannot_show_is_escaped(case, tmp_path):
    script = tmp_path / "try.py"
    setup = f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
    script.write_text(setup + ON_AN_ASCII_CONSOLE[case], encoding="utf-8")
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PARO_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, env=env, timeout=120)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert b"\\u043f" in done.stdout and b"\\u914d" in done.stdout and b"\\udcfc" in done.stdout


def test_wrong_comfyui_dir_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    with pytest.raises(SetupError, match=r"COMFYUI_DIR names .* holds no ComfyUI"):
        comfyui.ensure(run.Paths())


def test_bench_hands_its_arguments_on():
    arguments = run.parse(["bench", "fidelity", "--device", "cpu"])
    assert arguments.arguments == ["fidelity", "--device", "cpu"]


# Test counts

JUNIT = """<testsuites><testsuite>
<testcase name="a" time="1.5"/><testcase name="b" time="0.5"><failure>x</failure></testcase>
<testcase name="c" time="0"><skipped/></testcase></testsuite></testsuites>"""


def suite(tmp_path, code, xml, log="===== 1 passed, 1 failed in 2.0s ====="):
    (tmp_path / "report.xml").write_text(xml)
    (tmp_path / "log").write_text("noise\n" + log + "\n")
    found = Suite("x", [], tmp_path / "report.xml", tmp_path / "log", r"\d+ passed")
    found.read(code, 3.0)
    return found


def test_suite_counts_from_the_report(tmp_path):
    found = suite(tmp_path, 1, JUNIT)
    assert (found.passed, found.failed, found.skipped) == (1, 1, ["c"])
    assert not found.ok and "1 failed in 2.0s" in found.last_line


def test_suite_without_tests_fails(tmp_path):
    assert not suite(tmp_path, 0, "<testsuites/>").ok


def test_suite_with_a_good_report_but_a_bad_exit_fails(tmp_path, capsys):
    good = '<testsuite><testcase name="a" classname="tests.test_b" time="1"/></testsuite>'
    crashed, fine = suite(tmp_path, 139, good), suite(tmp_path, 0, good)
    assert fine.ok and not crashed.ok
    assert suites.summarise([fine, crashed], 10.0) == 1
    assert suites.summarise([fine], 10.0) == 0
    told = capsys.readouterr().out
    assert "All tests passed: 1 passed, 0 failed, 0 skipped in 10 s" in told
    assert "1.0 s  test_b: a" in told


def writes(tmp_path, name, script):
    """A suite of one test whose runner is this Python script."""
    report = tmp_path / f"{name}.xml"
    closing = f"open({str(report)!r}, 'w').write('<t><testcase name=\"{name}\" time=\"0\"/></t>')"
    command = [sys.executable, "-c", f"{textwrap.dedent(script)}\n{closing}\nprint('1 passed')"]
    return Suite(name, command, report, tmp_path / f"{name}.log", "passed")


def test_lanes_run_side_by_side_and_each_in_its_order(tmp_path, capsys):
    # Each of the two waits for a file of the other's: one after the other they would not end.
    meet = """
        import pathlib, time
        pathlib.Path({here!r}).touch()
        while not pathlib.Path({there!r}).exists():
            time.sleep(0.01)
        """
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    first = writes(tmp_path, "first", meet.format(here=here, there=there))
    other = writes(tmp_path, "other", meet.format(here=there, there=here))
    after = writes(tmp_path, "after", f"assert open({str(first.report)!r}).read()")
    suites.run_lanes([[first, after], [other]], dict(os.environ))
    assert all(one.ok and one.passed == 1 for one in (first, other, after))
    assert capsys.readouterr().out.splitlines().count("1 passed") == 3


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_lanes_that_are_left_early_end_what_runs(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    long = writes(tmp_path, "long", script)

    def interrupt(seconds):
        if pid.exists() and pid.read_text():
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(suites.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        suites.run_lanes([[long], []], dict(os.environ))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# ComfyUI

WANTED = PurePosixPath("vendor/ComfyUI")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pkg-1/vendor/ComfyUI/main.py", "main.py"),
        ("pkg-1/vendor/ComfyUI/comfy/ops.py", "comfy/ops.py"),
        ("pkg-1/vendor/ComfyUI", None),
        ("pkg-1/vendor/other/main.py", None),
        ("pkg-1/setup.py", None),
        ("vendor/ComfyUI/main.py", None),
    ],
)
def test_member_path(name, expected):
    found = comfyui.member_path(name, WANTED)
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize("tail", ["../../evil", "a/../../b", "c:\\evil", "a\\..\\..\\b"])
def test_member_path_refuses_escapes(tail):
    with pytest.raises(SetupError, match="leads out"):
        comfyui.member_path(f"pkg-1/vendor/ComfyUI/{tail}", WANTED)


def make_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)


def test_unpack_writes_regular_files_only(tmp_path):
    archive = tmp_path / "a.tar.gz"
    top = "pkg-1/vendor/ComfyUI"
    make_archive(
        archive,
        [
            (f"{top}/main.py", b"print()"),
            (f"{top}/comfy/ops.py", b"x = 1"),
            (f"{top}/link", (tarfile.SYMTYPE, "/etc/passwd")),
            (f"{top}/hard", (tarfile.LNKTYPE, f"{top}/main.py")),
            ("pkg-1/pyproject.toml", b""),
        ],
    )
    comfyui.unpack(archive, WANTED, tmp_path / "out")
    files = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")
    )
    assert files == ["comfy", "comfy/ops.py", "main.py"]


def test_unpack_refuses_a_bomb_and_an_empty_one(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar.gz"
    make_archive(archive, [("pkg-1/vendor/ComfyUI/main.py", b"x" * 1000)])
    monkeypatch.setattr(comfyui, "MAX_BYTES", 999)
    with pytest.raises(SetupError, match="more than it should"):
        comfyui.unpack(archive, WANTED, tmp_path / "out")
    make_archive(archive, [("pkg-1/setup.py", b"")])
    with pytest.raises(SetupError, match="holds no"):
        comfyui.unpack(archive, WANTED, tmp_path / "other")


def test_sdist_with_a_wrong_hash_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("PARO_CACHE", str(tmp_path))
    folder = tmp_path / "downloads"
    file = folder / comfyui.SDIST_FILE

    def pretend(*_, **__):
        file.write_bytes(b"not it")

    monkeypatch.setattr(comfyui, "run_logged", pretend)
    with pytest.raises(SetupError, match="another sha256"):
        comfyui.download_sdist(run.Paths())
    assert not file.exists()


def test_requirements_lose_what_is_not_needed(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "comfyui-frontend-package==1\ncomfyui-workflow-templates==2\ncomfyui-embedded-docs>=1\n"
        "torch\n\n#comment\ncomfy-angle\n"
    )
    kept = python_env.comfy_requirements(tmp_path).split("\n")
    assert kept == ["comfyui-frontend-package==1", "torch", "", "#comment", ""]


# System packages


def test_find_source_reads_both_formats(tmp_path):
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    assert system.find_source("bookworm", tmp_path) is None
    (tmp_path / "sources.list").write_text(
        "# deb http://no.example bookworm main\n"
        "deb [signed-by=/k.gpg arch=amd64] http://a.example/debian bookworm main\n"
    )
    assert system.find_source("bookworm", tmp_path) == ("http://a.example/debian", "/k.gpg")
    (lists / "debian.sources").write_text(
        textwrap.dedent("""\
            Enabled: no
            Types: deb
            URIs: http://off.example/debian
            Suites: bookworm

            Types: deb
            # a comment
            URIs: http://b.example/debian
            Suites: bookworm bookworm-updates
            Components: main
            Signed-By: /usr/share/keyrings/debian.gpg
            """)
    )
    found = system.find_source("bookworm", tmp_path)
    assert found == ("http://b.example/debian", "/usr/share/keyrings/debian.gpg")


def test_debian_release_is_for_debian_only(tmp_path):
    file = tmp_path / "os-release"
    file.write_text('ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n')
    assert system.debian_release(file) == "bookworm"
    file.write_text("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n")
    assert system.debian_release(file) is None


def test_without_root_the_exact_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "missing", lambda with_tests: [system.COMPILER, system.ZLIB])
    monkeypatch.setattr(system, "is_root", lambda: False)
    monkeypatch.setattr(system.sys, "platform", "linux")
    monkeypatch.setattr(system.shutil, "which", lambda name: name == "apt-get")
    with pytest.raises(SetupError) as caught:
        system.ensure(True, tmp_path)
    assert "run: apt-get install g++ zlib1g-dev." in str(caught.value)
    assert "sudo" not in str(caught.value)


def test_what_cmake_can_download_is_only_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(system, "missing", lambda with_tests: [system.JSON])
    monkeypatch.setattr(system, "is_root", lambda: False)
    system.ensure(True, tmp_path)
    assert "nlohmann/json not found: CMake will download it" in capsys.readouterr().out


def test_this_machine_lacks_nothing():
    needs = [need.what for need in system.missing(with_tests=True) if need.required]
    assert needs == []
