"""Values of every kind in every input of our nodes, by API and over links: refused by name."""

import asyncio
import json
import math
import urllib.error
import urllib.request

import comfy_server
import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

NAN = float("nan")
NODES = {
    "PAROAttention": {
        "model": ["1", 0], "profile": "auto", "density": 0.3, "precision": "int8",
        "mask": "static", "tail": True, "start_percent": 0.0, "end_percent": 1.0,
        "observe_steps": 4, "save_as": "", "target_error": 0.0,
    },
    "PAROCalibrate": {
        "model": ["1", 0], "name": "mine", "queries": 16, "every_n_steps": 1, "exact": False,
    },
    "PAROCompare": {"images_a": ["1", 1], "images_b": ["1", 1]},
    "PAROInspect": {
        "profile": ["1", 2], "layer": -1, "head": -1, "density": 0.3, "steps": "early",
    },
}  # fmt: skip
INPUTS = [(node, name) for node, inputs in NODES.items() for name in inputs]
IDS = ["-".join(one) for one in INPUTS]
VALUES = [
    None, [], ["auto", "none", "int8"], 7, -3, 0.5, True, {}, {"a": [1]}, "text", "", "../x", NAN,
    math.inf, -math.inf, 10**30, -(10**400), "x" * 100_000, "\ud800", "\0",
]  # fmt: skip


def good(node, name, value):
    """Whether the value may pass. ComfyUI itself turns some into texts, truths and numbers before
    any node sees them: "True" is a name, and whatever is not empty is true."""
    numbers = {
        "density": (0.05, 1), "start_percent": (0, 1), "end_percent": (0, 1),
        "target_error": (0, 1), "observe_steps": (0, 1000), "queries": (1, 4096),
        "every_n_steps": (1, 1000), "layer": (-1, 9999), "head": (-1, 9999),
    }  # fmt: skip
    if name in ("tail", "exact"):
        return not isinstance(value, list)
    if name in ("save_as", "name"):
        return not isinstance(value, list) and str(value) in (
            "7", "-3", "0.5", "True", "{}", "text", "", "nan", "inf", "-inf", str(10**30),
        )  # fmt: skip
    if name in numbers:
        low, high = numbers[name]
        whole = name in ("observe_steps", "queries", "every_n_steps", "layer", "head")
        try:
            number = (int if whole else float)(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return low <= number <= high
    return False


class Source:
    """A node whose outputs are links; the last may be anything."""

    RETURN_TYPES = ("MODEL", "IMAGE", "COMBO", "*", "AUDIO")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


@pytest.fixture
def queue(monkeypatch):
    import execution
    from nodes import NODE_CLASS_MAPPINGS

    monkeypatch.setitem(NODE_CLASS_MAPPINGS, "Source", Source)
    for node in NODES:
        part = harness.part("inspect_heads" if node == "PAROInspect" else "nodes")
        monkeypatch.setitem(NODE_CLASS_MAPPINGS, node, getattr(part, node))

    def check(node, **changes):
        """(valid, what ComfyUI's own check of a queued graph says)."""
        graph = {
            "1": {"class_type": "Source", "inputs": {}},
            "2": {"class_type": node, "inputs": {**NODES[node], **changes}},
        }
        valid, errors, _ = asyncio.run(execution.validate_inputs("id", graph, "2", {}))
        return valid, " ".join(error["details"] for error in errors)

    return check


@pytest.mark.parametrize("node", NODES)
def test_the_defaults_are_queued(queue, node):
    assert queue(node) == (True, "")


@pytest.mark.parametrize(("node", "name"), INPUTS, ids=IDS)
def test_a_queued_value_of_another_kind_is_refused_by_name(queue, node, name):
    for value in VALUES:
        valid, told = queue(node, **{name: value})
        assert valid == good(node, name, value), (value, told)
        assert valid or name in told, (value, told)
        assert "incompatible function" not in told and "Traceback" not in told
        # ComfyUI itself tells a number that is none with the whole value.
        ours = isinstance(NODES[node][name], (str, list))
        assert not ours or len(told) < 10_000, told[:2000]


def test_null_for_a_profile_says_what_it_must_be(queue):
    for node in ("PAROAttention", "PAROInspect"):
        valid, told = queue(node, profile=None)
        assert not valid and "profile must be a text (got None)" in told


@pytest.mark.parametrize(("node", "name"), INPUTS, ids=IDS)
def test_links_are_checked_by_their_type(queue, node, name):
    """`*` may bring anything: that is seen when the node runs."""
    assert queue(node, **{name: ["1", 3]}) == (True, "")
    valid, told = queue(node, **{name: ["1", 4]})
    assert not valid and name in told and "AUDIO" in told


# -- when the node runs ----------------------------------------------------------------------------


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


def over_links(node, name):
    """What may not come over a link to an input."""
    values = [
        None, [], ["auto"], {}, {"a": 1}, (), b"auto", object(), Unprintable(), torch.zeros(2, 3),
        torch.tensor(0.3), NAN, math.inf, 10**5000, -(10**30), "\ud800x", "\0", "../x", "y" * 5000,
    ]  # fmt: skip
    kind = NODES[node][name]
    if not isinstance(kind, bool):
        values.append(True)
    if not isinstance(kind, str) or name in ("precision", "mask", "steps"):
        values += ["auto", "0.5", ""]
    if isinstance(kind, (str, bool)) or name in ("model", "profile", "images_a", "images_b"):
        values += [0, 1, 0.5]
    if isinstance(kind, int) and not isinstance(kind, bool):
        values += [2.5, 10**6, -2]
    if name == "model":
        values.append({"model_options": {}})
    return values


@pytest.mark.parametrize(("node", "name"), INPUTS, ids=IDS)
def test_a_linked_value_of_another_kind_is_refused_by_name(model, folders, node, name):
    import paroattention

    part = harness.part("inspect_heads" if node == "PAROInspect" else "nodes")
    folders.profiles.mkdir(parents=True)
    images = torch.rand(2, 8, 8, 3)
    inputs = dict(NODES[node])
    inputs |= {"model": model} if "model" in inputs else {}
    inputs |= {"images_a": images, "images_b": images} if "images_a" in inputs else {}
    inputs |= {"profile": "auto"} if "profile" in inputs else {}
    for value in over_links(node, name):
        with pytest.raises(paroattention.Error) as caught:
            getattr(part, node).execute(**{**inputs, name: value})
        told = str(caught.value)
        expected = "profile name" if name in ("save_as", "name") else name
        assert name in told or expected in told, told
        assert len(told) < 500 and "incompatible function" not in told, told
        told.encode()  # no half pairs, which no page could be sent


def test_images_that_are_none(folders):
    import paroattention

    node, images = harness.part("nodes").PAROCompare, torch.rand(2, 8, 8, 3)
    for bad in (images[0], images[:0], images.to(torch.uint8)):
        with pytest.raises(paroattention.Error, match="images_b must be floating-point images"):
            node.execute(images_a=images, images_b=bad)


# -- the real server -------------------------------------------------------------------------------

ANY = """
import json

class Anything(str):
    def __ne__(self, other):
        return False

class Value:
    RETURN_TYPES, FUNCTION, CATEGORY = (Anything("*"),), "run", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": "null"})}}

    def run(self, text):
        return (json.loads(text),)

NODE_CLASS_MAPPINGS = {"ParoTestValue": Value}
"""


@pytest.fixture(scope="module")
def server(comfyui_dir, tmp_path_factory):
    base = comfy_server.make_base(tmp_path_factory.mktemp("kinds") / "base")
    (base / "custom_nodes" / "any_value.py").write_text(ANY)
    with comfy_server.ComfyServer(comfyui_dir, base, base.parent / "log") as server:
        yield server


def post(server, body: bytes):
    request = urllib.request.Request(
        server.url + "/prompt", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def graph(**changes):
    built = comfy_server.small(comfy_server.workflow("demo_sparse", observe_steps=1), steps=2)
    built["3"]["inputs"] |= changes
    return built


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("profile", "null", "profile must be a text (got None)"),
        ("profile", "{}", "profile must be a text (got {})"),
        ("profile", "7", "profile must be a text (got 7)"),
        ("profile", "true", "profile must be a text (got True)"),
        ("model", "null", "model must be linked to a MODEL (got None)"),
        ("density", "NaN", "density must be from 0.05 to 1"),
        ("density", "1e999", "density must be from 0.05 to 1"),
        ("target_error", "Infinity", "target_error must be from"),
        ("observe_steps", "1" + "0" * 40, "observe_steps must be a whole number"),
        ("mask", "null", "mask must be static or dynamic"),
        ("save_as", "null", "save_as: profile name must not be auto, none or schema"),
    ],
)
def test_the_server_answers_400(server, name, text, words):
    body = json.dumps({"prompt": graph(**{name: "MARK"})}).replace('"MARK"', text)
    status, answer = post(server, body.encode())
    assert status == 400 and words in answer, (status, answer[:2000])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("profile", "null", "profile must be a text (got None)"),
        ("density", '"auto"', "density must be a number (got 'auto')"),
        ("tail", "[1]", "tail must be true or false (got [1])"),
        ("model", "{}", "model must be a MODEL (got {})"),
        ("save_as", "3", "save_as must be a text (got 3)"),
    ],
)
def test_a_link_that_brings_another_kind_ends_the_run_with_a_reason(server, name, text, words):
    built = graph(**{name: ["any", 0]})
    built["any"] = {"class_type": "ParoTestValue", "inputs": {"text": text}}
    with pytest.raises(comfy_server.ServerError) as caught:
        server.run(built)
    assert words in str(caught.value)
