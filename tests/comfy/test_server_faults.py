"""What may happen to a running server and its folders: broken files at its start, a full disk,
folders that turn read-only, a clock that is set back, a second server on the same folders.

The folders are really full or read-only: small file systems in memory, mounted over them. That
needs root.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import subprocess
import sys

import comfy_server
import pytest
from comfy_server import small, workflow
from strange import require_root
from syscalls import Faults, build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux has them")

HALF_A_LINE = b'{"run": true, "fam'
YEARS = 10 * 365 * 24 * 3600


def graph(seed, which="demo_sparse", steps=3, **node):
    built = small(workflow(which, sampler={"seed": seed}, **node), steps)
    built["4"]["inputs"]["prompt"] = "coffee left ball"
    # The demo's own node writes beside our run log; ComfyUI's does not.
    samples = built["7"]["inputs"]["samples"]
    inputs = {"samples": samples, "filename_prefix": "latents/faults"}
    built["7"] = {"class_type": "SaveLatent", "inputs": inputs}
    return built


def first_run(seed, **node):
    """A run that looks for no profile and saves one."""
    return graph(seed, profile="none", observe_steps=1, **node)


class Disk:
    """A server with folders that can be made small or read-only."""

    def __init__(self, server, faults):
        self.server, self.faults = server, faults
        self.profiles = server.base / "models" / "paro"
        self.output = server.base / "output" / "paro"
        self.states = []

    def run(self, built, at_step=None):
        """The run's summary in the log, else None. at_step: called as the sampler has ended its
        first step. What the node is sent is kept in `states`."""
        before, self.states = len(self.runs()), []
        waiting = [at_step]

        def event(kind, data):
            if kind == "paro.status":
                self.states.append(data)
            if kind == "progress" and waiting[0] is not None:
                waiting.pop()()
                waiting.append(None)

        self.server.run(built, event)
        runs = self.runs()[before:]
        return runs[-1][-1] if runs else None

    def runs(self):
        return comfy_server.read_runlog(self.server.base)

    def told(self) -> list[str]:
        """What the node says when a run is over."""
        assert self.states[-1]["done"]
        return [one["text"] for one in self.states[-1]["reasons"]]

    def unfinished(self) -> list[str]:
        return [one for one in os.listdir(self.profiles) if one.endswith(".tmp")]


@contextlib.contextmanager
def mounted(folder, size: str):
    """A file system of that size over a folder, with a copy of what lay in it."""
    require_root()
    kept = {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        for name, content in kept.items():
            if len(content) < 4096:
                (folder / name).write_bytes(content)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


BROKEN = {
    "empty": b"",
    "half": b'{"schema": "paroattention/1", "model": {"family": "wan2.1", "finger',
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "deep": b"[" * 100_000,
    "zeros": bytes(5000),
}


@pytest.fixture(scope="module")
def disk(comfyui_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    base = comfy_server.make_base(folder / "base")
    faults = Faults(build(folder), folder / "control", base)
    profiles, output = base / "models" / "paro", base / "output" / "paro"
    for one in (profiles, output):
        one.mkdir(parents=True)
    for name, content in BROKEN.items():
        (profiles / f"{name}.json").write_bytes(content)
        (profiles / f"{name}.capture.safetensors").write_bytes(content)
    os.mkfifo(profiles / "pipe.json")
    (profiles / "folder.json").mkdir()
    (profiles / "loop.json").symlink_to("loop.json")
    with open(profiles / "huge.json", "wb") as huge:
        huge.truncate(100 << 20)
    # Of a server that was killed.
    (profiles / ".paro-1-2.tmp").write_bytes(b"{")
    os.utime(profiles / ".paro-1-2.tmp", (0, 0))
    (output / "runlog.jsonl").write_bytes(HALF_A_LINE)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in faults.environment.items():
            patch.setenv(name, value)
        with comfy_server.ComfyServer(comfyui_dir, base, folder / "log") as server:
            for name in faults.environment:
                patch.delenv(name)
            yield Disk(server, faults)
    log = (folder / "log").read_text(errors="replace")
    # Nothing of all this was an error that nobody expected, and nothing was said too often.
    for unexpected in ("an error of ours", "the report of this run", "reading the model failed"):
        assert unexpected not in log
    assert max(map(log.count, {line for line in log.splitlines() if "WARNING" in line})) < 20


def test_broken_files_at_the_start(disk):
    listed = disk.server.get("/paro/profiles")["profiles"]
    assert {one["name"] for one in listed if "error" in one} == {*BROKEN, "huge"}
    found = disk.server.get("/object_info/PAROAttention")["PAROAttention"]["input"]["required"]
    assert not {"pipe", "folder", "loop"} & set(found["profile"][1]["options"])
    # The broken line stays, and spoils no other.
    log = disk.output / "runlog.jsonl"
    disk.server.run(graph(1, observe_steps=1))
    lines = log.read_bytes().split(b"\n")
    assert lines[0] == HALF_A_LINE and lines[-1] == b""
    end = json.loads(lines[-2])
    assert end["ok"] and end["paths"] == {"observe": 8, "sparse": 16}
    assert sum("skipped" in reason for reason in end["reasons"]) == len(BROKEN) + 1
    assert disk.unfinished() == []
    for name in BROKEN:
        with pytest.raises(comfy_server.ServerError, match=name):
            disk.server.run(graph(1, profile=name))
    log.write_bytes(b"".join(line + b"\n" for line in lines[1:-1]))
    (disk.profiles / "folder.json").rmdir()
    for name in (*BROKEN, "pipe", "loop", "huge"):
        (disk.profiles / f"{name}.json").unlink()
        (disk.profiles / f"{name}.capture.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("size", ["4k", "64k"], ids=["no room", "room for the profile alone"])
def test_a_full_disk(disk, size):
    with mounted(disk.profiles, size):
        seed = 20 + len(size)
        end = disk.run(first_run(seed, save_as="full"))
        names = sorted(os.listdir(disk.profiles))
        (told,) = disk.told()
        assert end["ok"] and end["paths"] == {"observe": 8, "sparse": 16}
        if size == "4k":
            assert told.startswith("the profile could not be saved: ") and names == []
        else:
            assert "is saved, but not the rows" in told and names == ["full.json"]
            assert disk.run(graph(seed + 10, profile="full"))["ok"]
        # Once there is room again it is saved.
        remount(disk.profiles, "size=8m")
        end = disk.run(first_run(seed + 20, save_as="full"))
        assert end["ok"] and not end["reasons"]
        assert sorted(os.listdir(disk.profiles)) == ["full.capture.safetensors", "full.json"]


def test_a_full_disk_under_the_run_log(disk):
    before = len(disk.runs())
    with mounted(disk.output, "4k"):
        assert disk.run(first_run(5)) is None
        (told,) = disk.told()
        assert told.startswith("the run log could not be written: ")
        assert (disk.output / "runlog.jsonl").read_bytes() == b""
        remount(disk.output, "size=8m")
        assert disk.run(first_run(6))["ok"] and len(disk.runs()) == 1
    assert len(disk.runs()) == before


def test_folders_that_turn_read_only(disk):
    disk.run(first_run(7, save_as="kept"))
    with mounted(disk.profiles, "8m"), mounted(disk.output, "8m"):
        disk.run(first_run(8, save_as="kept"))
        files = {path.name: path.read_bytes() for path in disk.profiles.iterdir()}
        remount(disk.profiles, "ro")
        remount(disk.output, "ro")
        lines = (disk.output / "runlog.jsonl").read_bytes()
        disk.run(graph(9, profile="none", observe_steps=1, save_as="other"))
        told = sorted(disk.told())
        assert len(told) == 2 and told[0].startswith("the profile could not be saved: ")
        assert told[1].startswith("the run log could not be written: ")
        disk.run(graph(10, profile="kept", watch="if needed"))
        assert disk.states[-1]["state"] == "finished" and disk.states[-1]["sparse"]
        link = http.client.HTTPConnection("127.0.0.1", disk.server.port, timeout=60)
        link.request("DELETE", "/paro/profiles/kept")
        answer = link.getresponse()
        assert answer.status == 500 and b"cannot be used" in answer.read()
        assert {path.name: path.read_bytes() for path in disk.profiles.iterdir()} == files
        assert (disk.output / "runlog.jsonl").read_bytes() == lines


def test_a_clock_that_is_set_back(disk):
    """By ten years, in the middle of a run, and forward again in the next one."""
    disk.run(first_run(11, save_as="clock"))
    back = disk.run(
        graph(12, profile="clock", observe_steps=1), lambda: disk.faults.set(clock=-YEARS)
    )
    # As the server sees it: what it writes of the day, and what it calls old.
    disk.run(first_run(13, save_as="clock"))
    written = json.loads((disk.profiles / "clock.json").read_text())["calibration"]["date"]
    forward = disk.run(
        graph(14, profile="clock", observe_steps=1), lambda: disk.faults.set(clock=0)
    )
    today = subprocess.check_output(["date", "-u", "+%Y"], text=True).strip()
    assert abs(int(today) - 10 - int(written[:4])) <= 1
    for end in (back, forward):
        assert end["ok"] and not end["reasons"] and end["paths"]["sparse"] >= 8
        for what in ("seconds", "attention_seconds", "observe_seconds", "plan_seconds"):
            assert 0 <= end[what] < 300
    assert 0 < disk.states[-1]["sparse_step_seconds"] < 300
    assert disk.run(graph(15, profile="clock"))["ok"]


def test_two_servers_on_one_folder(disk, comfyui_dir, tmp_path):
    """Both save, merge and log under the same names at the same time."""
    before, count = len(disk.runs()), 4
    base = disk.server.base
    with comfy_server.ComfyServer(comfyui_dir, base, tmp_path / "log") as other:

        def work(server, first):
            for seed in range(first, first + count):
                server.run(first_run(seed, save_as="both"))
                server.run(graph(seed, "demo_calibrate", 2, name="merged", every_n_steps=1))
                server.get("/paro/profiles")

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for one in [pool.submit(work, disk.server, 100), pool.submit(work, other, 200)]:
                one.result()
    runs = disk.runs()[before:]
    # Every run's lines stand together: none of the other's came between them.
    assert len(runs) == 4 * count and all(run[-1].get("end") and run[-1]["ok"] for run in runs)
    for run in runs:
        assert sum("end" in line for line in run) == 1
        assert not run[-1]["reasons"], run[-1]["reasons"]
    import paroattention

    for name in ("both", "merged"):
        profile = paroattention.Profile.load(disk.profiles / f"{name}.json")
        assert len(profile.layer_ids()) == 8
        paroattention.load_capture(disk.profiles / f"{name}.capture.safetensors")
    # Of calibrations that end at the same moment none is lost.
    assert (
        paroattention.Profile.load(disk.profiles / "merged.json").calibration.prompts == 2 * count
    )
    assert disk.unfinished() == [] and disk.server.get("/system_stats")["system"]
