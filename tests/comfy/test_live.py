"""A running server as its users treat it: nodes taken out, servers restarted, files deleted under
way, and requests that no page would send."""

import json

import comfy_server
import numpy as np
import pytest
from comfy_server import ServerError, small, workflow


def graph(which, seed=1, **node):
    built = small(workflow(which, sampler={"seed": seed}, **node))
    built["4"]["inputs"]["prompt"] = "coffee left ball"
    return built


def frames(server, built):
    built["7"]["inputs"]["save_as"] = "live"
    server.run(built)
    return np.load(server.base / "output" / "paro" / "live.npy")


def last(server):
    return comfy_server.read_runlog(server.base)[-1][-1]


def without_ours(built):
    """The prompt that the page sends for a bypassed or removed node: its input is passed on."""
    model = built["3"]["inputs"]["model"]
    bypassed = {key: node for key, node in built.items() if key != "3"}
    bypassed["6"] = json.loads(json.dumps(bypassed["6"]))
    bypassed["6"]["inputs"]["model"] = model
    return bypassed


def test_bypassed_and_back(comfy_live):
    """In one session, on cached loaders: nothing of ours is left, and it works again after."""
    built = graph("demo_sparse", 21, profile="none", observe_steps=1)
    sparse = frames(comfy_live, built)
    count = len(comfy_server.read_runlog(comfy_live.base))
    dense = frames(comfy_live, without_ours(built))
    assert len(comfy_server.read_runlog(comfy_live.base)) == count
    assert np.array_equal(dense, frames(comfy_live, graph("demo_dense", 21)))
    assert not np.array_equal(dense, sparse)
    again = graph("demo_sparse", 21, profile="none", observe_steps=1, density=0.3001)
    assert np.array_equal(frames(comfy_live, again), sparse)


def test_a_server_that_is_restarted(comfyui_dir, tmp_path):
    base = comfy_server.make_base(tmp_path / "base")
    results = []
    for _ in range(2):
        with comfy_server.ComfyServer(comfyui_dir, base, tmp_path / "log") as server:
            results.append(frames(server, graph("demo_sparse", 3, observe_steps=1)))
            assert "by-hand" not in json.dumps(server.get("/object_info/PAROAttention"))
    ends = [run[-1] for run in comfy_server.read_runlog(base)]
    assert [end["paths"] for end in ends] == [{"observe": 8, "sparse": 16}] * 2
    assert (
        ends[1]["profile"].endswith("exact grid, and 1 step of this run") and not ends[1]["reasons"]
    )
    assert np.isfinite(results[1]).all()


def test_a_profile_deleted_between_two_queues(comfy_live):
    """The node is cached and does not run again: the run itself says what is gone."""
    comfy_live.run(graph("demo_sparse", 31, profile="none", observe_steps=1, save_as="gone"))
    named = graph("demo_sparse", 32, profile="gone", watch="if needed")
    comfy_live.run(named)
    assert last(comfy_live)["paths"] == {"sparse": 24}
    path = comfy_live.base / "models" / "paro" / "gone.json"
    path.unlink()
    named["6"]["inputs"]["seed"] = 33
    with pytest.raises(ServerError, match="gone"):
        comfy_live.run(named)
    # With `auto` another one is made.
    comfy_live.run(graph("demo_sparse", 34, observe_steps=1))
    assert last(comfy_live)["ok"]


WRONG = [
    {"density": "lots"}, {"density": None}, {"density": [0.3]}, {"density": {"a": 1}},
    {"density": 1e308}, {"density": -0.0}, {"precision": 8}, {"precision": ["int8"]},
    {"precision": {"__value__": "int4"}}, {"mask": 0}, {"tail": "perhaps"},
    {"start_percent": [0]}, {"start_percent": 0.9, "end_percent": 0.1}, {"observe_steps": 1.5e9},
    {"observe_steps": "x"}, {"profile": 7}, {"profile": {}}, {"profile": ["auto"]},
    {"profile": "../../models/paro/one"}, {"profile": "/etc/passwd"}, {"profile": "C:\\x"},
    {"profile": "\\\\host\\share\\x"}, {"profile": "a" * 100_000}, {"profile": "a\u0000b"},
    {"profile": "%s%n%x"}, {"profile": "{0.__class__}"}, {"profile": "\u202egnp"},
    {"save_as": "../x"}, {"save_as": "/tmp/x"}, {"save_as": "\\\\?\\C:\\x"}, {"save_as": "con"},
    {"save_as": "x" * 81}, {"save_as": "a\r\nb"}, {"save_as": "\x1b[31m"}, {"save_as": []},
]  # fmt: skip


@pytest.mark.parametrize("node", WRONG, ids=lambda node: ascii(node)[:40])
def test_values_of_any_kind_by_api(comfy_live, node):
    """Refused by the argument's name, or run: the server stays up and writes nothing elsewhere."""
    folder = comfy_live.base
    before = {p for p in folder.rglob("*") if "output" not in p.parts and "temp" not in p.parts}
    built = graph("demo_sparse", 41, **({"profile": "none", "observe_steps": 1} | node))
    try:
        comfy_live.run(built)
    except ServerError as error:
        assert any(name in str(error) for name in node) and "\x1b" not in str(error)
    else:
        # ComfyUI turns some wrong types into right ones ("7" is a name, [0] a link).
        assert last(comfy_live)["ok"]
    after = {p for p in folder.rglob("*") if "output" not in p.parts and "temp" not in p.parts}
    new = {p for p in after - before if "__pycache__" not in p.parts}
    assert all(p.parent == folder / "models" / "paro" for p in new)
    assert comfy_live.get("/system_stats")["system"]


@pytest.mark.parametrize(
    "node",
    [{"name": "../x"}, {"name": 5}, {"queries": 0}, {"queries": "many"}, {"every_n_steps": -1},
     {"exact": True}, {"exact": "yes"}, {"name": "a" * 1000}],
    ids=lambda node: ascii(node)[:40],
)  # fmt: skip
def test_wrong_values_of_calibrate_by_api(comfy_live, node):
    try:
        comfy_live.run(graph("demo_calibrate", 51, **({"name": "c", "every_n_steps": 1} | node)))
    except ServerError as error:
        assert any(name in str(error) for name in node)
    else:
        assert last(comfy_live)["ok"]
