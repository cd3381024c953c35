"""Bad names and values: refused when queued and when run, by argument, rule and value."""

import asyncio
import json

import harness
import pytest

pytestmark = pytest.mark.usefixtures("folders")

NAN = float("nan")


@pytest.fixture(scope="module")
def error():
    import paroattention

    return paroattention.Error


def nodes():
    return harness.part("nodes")


def refusal(node, **inputs):
    """What the node says of inputs that are queued."""
    told = node.validate_inputs(**inputs)
    assert isinstance(told, str), told
    return told


# -- names -----------------------------------------------------------------------------------------

NAMES = {
    "traversal": "../outside",
    "traversal within": "a/../../outside",
    "backslashes": "..\\outside",
    "absolute": "/outside",
    "drive": "C:\\outside",
    "UNC": "\\\\host\\share",
    "file URL": "file:///etc/passwd",
    "device": "CON",
    "device with an extension": "nul.txt",
    "numbered device": "com1",
    "zero byte": "a\0b",
    "line break": "a\nb",
    "escape": "a\x1b[2Jb",
    "236 bytes": "x" * 236,
    "too many bytes in few characters": "配" * 79,
    "dots": "..",
    "hidden": ".hidden",
    "macOS's attributes": "._shared",
    "space at the end": "a ",
    "direction of writing": "a\u202egnp",
    "zero width": "a\u200bb",
    "half a pair": "a\ud800",
    "superscript device": "LPT\u00b9.x",
    "stream": "a:b",
    "wildcard": "*",
}


@pytest.fixture
def outside(folders):
    """A file that could be reached from the folder, which itself is empty."""
    folders.profiles.mkdir(parents=True)
    (folders.profiles.parent / "outside.json").write_text(json.dumps({"schema": "paroattention/1"}))
    return folders


@pytest.mark.parametrize("case", NAMES)
def test_bad_names_are_refused_when_queued_and_when_run(model, outside, error, case):
    name = NAMES[case]
    refusals = {
        "profile": (nodes().PAROAttention, lambda: harness.paro(model, profile=name)),
        "save_as": (nodes().PAROAttention, lambda: harness.paro(model, save_as=name)),
        "name": (nodes().PAROCalibrate, lambda: harness.calibrate(model, name=name)),
    }
    for argument, (node, run) in refusals.items():
        told = node.validate_inputs(**{argument: name})
        assert isinstance(told, str) and told.startswith(f"{argument}: ") and "\x1b" not in told
        with pytest.raises(error) as caught:
            run()
        assert "name" in str(caught.value) and "\x1b" not in str(caught.value)
    assert outside.names() == [] and not outside.output.exists()


@pytest.mark.parametrize("name", ["auto", "none", "schema", "None", "AUTO"])
def test_names_that_could_not_be_chosen_are_refused(model, folders, error, name):
    for argument, node, make in (
        ("save_as", nodes().PAROAttention, harness.paro),
        ("name", nodes().PAROCalibrate, harness.calibrate),
    ):
        assert name in refusal(node, **{argument: name})
        with pytest.raises(error, match=name):
            make(model, **{argument: name})


@pytest.mark.parametrize("name", ["x" * 80, "a", "A-b_c.9", "console", "com", "a..b", "größe (1)"])
def test_good_names_are_taken(model, folders, name):
    assert nodes().PAROAttention.validate_inputs(save_as=name) is True
    harness.sample(harness.paro(model, save_as=name), steps=2)
    assert folders.names() == [f"{name}.capture.safetensors", f"{name}.json"]


def test_an_empty_name_means_the_automatic_one(model, folders):
    """As `auto` looks it up: what the page's button queues."""
    assert nodes().PAROCalibrate.validate_inputs(name="") is True
    harness.sample(harness.calibrate(model, name=""), steps=2)
    assert all(name.startswith("wan2.1-") for name in folders.names())
    harness.sample(harness.paro(model), steps=2)
    assert folders.steps() == "ss"


# -- values ----------------------------------------------------------------------------------------

VALUES = [
    ("density", 0.049), ("density", 1.01), ("density", NAN), ("density", "0.3"), ("density", None),
    ("density", True), ("start_percent", -0.1), ("start_percent", 1.1), ("start_percent", "0"),
    ("end_percent", 2), ("end_percent", NAN), ("observe_steps", -1), ("observe_steps", 1001),
    ("observe_steps", 2.5), ("observe_steps", "4"), ("tail", "yes"), ("precision", "fp8"),
    ("mask", "causal"), ("target_error", -0.1), ("target_error", 0.004), ("target_error", 1.5),
    ("target_error", NAN), ("target_error", "0.1"), ("target_error", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), VALUES, ids=str)
def test_bad_values_name_argument_rule_and_value(model, folders, error, name, value):
    with pytest.raises(error) as caught:
        harness.paro(model, **{name: value})
    told = str(caught.value)
    assert told.startswith(f"{name} must ") and f"(got {value!r})" in told
    assert folders.names() == [] and not folders.output.exists()


@pytest.mark.parametrize(
    ("name", "value"), [("queries", 0), ("queries", 5000), ("every_n_steps", 0)], ids=str
)
def test_bad_values_of_calibration(model, error, name, value):
    with pytest.raises(error, match=rf"{name} must be a whole number.*\(got {value}\)"):
        harness.calibrate(model, **{name: value})
    assert name in refusal(nodes().PAROCalibrate, **{name: value})


def test_what_is_not_built_is_refused_by_name(model, error):
    with pytest.raises(error, match="precision int4 is not built yet"):
        harness.paro(model, precision="int4")
    assert "precision int4 is not built" in refusal(nodes().PAROAttention, precision="int4")


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_exact_is_true_or_false(model, error, value):
    with pytest.raises(error, match="exact must be true or false"):
        harness.calibrate(model, exact=value)


def test_start_after_end(model, error):
    with pytest.raises(error, match=r"start_percent must be at most end_percent \(0.2\)"):
        harness.paro(model, start_percent=0.5, end_percent=0.2)


class Source:
    """A node whose outputs are links, of which nothing is known when a graph is queued."""

    RETURN_TYPES = ("MODEL", "FLOAT", "COMBO")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


def queue(monkeypatch, **inputs):
    """What ComfyUI's own check of a queued graph says of our node."""
    import execution
    from nodes import NODE_CLASS_MAPPINGS

    monkeypatch.setitem(NODE_CLASS_MAPPINGS, "Source", Source)
    monkeypatch.setitem(NODE_CLASS_MAPPINGS, "PAROAttention", nodes().PAROAttention)
    defaults = {
        "profile": "auto", "density": 0.3, "precision": "int8", "mask": "static", "tail": True,
        "start_percent": 0.0, "end_percent": 1.0, "observe_steps": 4, "save_as": "",
    }  # fmt: skip
    graph = {
        "1": {"class_type": "Source", "inputs": {}},
        "2": {"class_type": "PAROAttention", "inputs": {"model": ["1", 0], **defaults, **inputs}},
    }
    valid, errors, _ = asyncio.run(execution.validate_inputs("id", graph, "2", {}))
    return valid, " ".join(error["details"] for error in errors)


def test_a_good_graph_is_queued(monkeypatch):
    assert queue(monkeypatch) == (True, "")


BAD_QUEUES = [("density", 0.01), ("density", 7), ("density", "much"), ("end_percent", 1.5),
              ("observe_steps", -1), ("precision", "int4"), ("precision", "fp8"),
              ("mask", "adaptive"), ("profile", "nobody"), ("profile", "../x"),
              ("save_as", "../x")]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_QUEUES, ids=str)
def test_bad_values_are_refused_when_queued(monkeypatch, name, value):
    valid, told = queue(monkeypatch, **{name: value})
    assert not valid and name in told


@pytest.mark.parametrize("name", ["density", "profile"])
def test_values_over_links_are_checked_when_run(monkeypatch, name):
    assert queue(monkeypatch, **{name: ["1", {"density": 1, "profile": 2}[name]]})[0]
