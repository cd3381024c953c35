"""The plugin in a real ComfyUI on machines that are not like ours, several oddities at once."""

import json
import sys
import urllib.parse

import comfy_server
import pytest
from comfy_server import small, workflow
from strange import LONG, NAME, STRANGE, require, require_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made by Linux's means")

# The plugin's folder becomes read-only, for root too; then a user without a name and rights, whose
# files nobody else may read, gets one core.
ODD = """
mount --bind "$PLUGIN" "$PLUGIN" && mount -o remount,ro,bind "$PLUGIN" || exit 3
touch "$PLUGIN/try" 2>/dev/null && exit 4
umask 077
exec unshare --user --map-user=12345 taskset -c 0 "$@"
"""
SERVERS = {
    "odd in all ways": {
        "before": ("unshare", "--mount", "sh", "-c", ODD, "sh"),
        "environment": {
            "HOME": None,
            # Without it torch, which asks for a name, lets ComfyUI not start.
            "LOGNAME": "someone",
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "Pacific/Kiritimati",
            "DISPLAY": None,
            "OMP_NUM_THREADS": None,
        },
    },
    "ASCII alone, no home folder": {
        "before": (),
        "environment": {
            "HOME": "/nonexistent",
            "LC_ALL": "POSIX",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONUTF8": "0",
            "TZ": ":/no/such/zone",
        },
    },
}


@pytest.fixture(params=SERVERS)
def server(request, comfyui_dir, tmp_path, locales, monkeypatch):
    require_root()
    for program in ("unshare", "taskset"):
        require(program, "util-linux")
    machine = SERVERS[request.param]
    base = comfy_server.make_base(tmp_path / STRANGE / LONG)
    monkeypatch.setenv("LOCPATH", str(locales))
    monkeypatch.setenv("PLUGIN", str(base / "custom_nodes" / comfy_server.PLUGIN_NAME))
    for name, value in machine["environment"].items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    log = tmp_path / "log"
    with comfy_server.ComfyServer(comfyui_dir, base, log, before=machine["before"]) as found:
        found.odd = "odd" in request.param
        # Where file names are ASCII others cannot be written: see names_beyond_ascii.
        found.name = NAME if found.odd else "x" * len(NAME.encode())
        yield found
    text = log.read_text(errors="replace")
    for unexpected in ("an error of ours", "the report of this run", "reading the model failed"):
        assert unexpected not in text


def graph(seed, **node):
    built = small(workflow("demo_sparse", sampler={"seed": seed}, **node))
    inputs = {"samples": built["7"]["inputs"]["samples"], "filename_prefix": "latents/strange"}
    built["7"] = {"class_type": "SaveLatent", "inputs": inputs}
    return built


def names_beyond_ascii(server):
    """They cost the profile and not the run, and are told; files of such names do no harm."""
    profiles = server.base / "models" / "paro"
    server.run(graph(7, profile="none", observe_steps=1, save_as="画"))
    end = comfy_server.read_runlog(server.base)[-1][-1]
    assert end["ok"] and end["paths"] == {"observe": 8, "sparse": 16}
    (reason,) = end["reasons"]
    assert reason.startswith("the profile could not be saved: ")
    (profiles / f"{server.name}.json").rename(profiles / "画.json")
    server.get("/paro/profiles")
    server.get("/object_info/PAROAttention")
    server.run(graph(8, profile="auto", observe_steps=1, save_as="plain"))
    assert comfy_server.read_runlog(server.base)[-1][-1]["ok"]
    assert (profiles / "plain.json").is_file()


def test_first_runs(server):
    """A run that watches and saves under the longest name, one that goes by it, one that finds it,
    and the page's routes."""
    ends = []
    for node in (
        {"profile": "none", "observe_steps": 1, "save_as": server.name},
        {"profile": server.name, "watch": "if needed"},
        {"profile": "auto", "watch": "if needed"},
    ):
        server.run(graph(len(ends), **node))
        ends.append(comfy_server.read_runlog(server.base)[-1][-1])
    assert [end["paths"] for end in ends] == [{"observe": 8, "sparse": 16}, *[{"sparse": 24}] * 2]
    assert all(end["ok"] and not end["reasons"] for end in ends)
    profiles = server.base / "models" / "paro"
    names = {path.name: path for path in profiles.iterdir()}
    name = server.name
    assert set(names) == {f"{name}.json", f"{name}.capture.safetensors"}
    document = json.loads(names[f"{name}.json"].read_text(encoding="utf-8"))
    listed = server.get("/paro/profiles")
    assert [one["name"] for one in listed["profiles"] if not one["shipped"]] == [name]
    assert server.get(f"/paro/profiles/{urllib.parse.quote(name)}") == document
    if not server.odd:
        names_beyond_ascii(server)
    if server.odd:
        files = [*names.values(), server.base / "output" / "paro" / "runlog.jsonl"]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        plugin = server.base / "custom_nodes" / comfy_server.PLUGIN_NAME
        assert not list(plugin.rglob("__pycache__"))
