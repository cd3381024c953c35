"""Translations, help pages and examples against the nodes: nothing missing or outdated."""

import asyncio
import json
import re

import harness
import pytest

LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module")
def nodes():
    """Schema of each node by its id."""
    extension = asyncio.run(harness.plugin().comfy_entrypoint())
    found = asyncio.run(extension.get_node_list())
    return {node.define_schema().node_id: node.define_schema() for node in found}


def translation(language):
    path = harness.REPOSITORY / "locales" / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_is_translated(nodes, language):
    texts = translation(language)
    assert set(texts) <= set(nodes)
    for name, schema in nodes.items():
        if name == "PAROInspect" and name not in texts:
            continue
        own = texts[name]
        assert own["display_name"] and own["description"]
        assert set(own["inputs"]) == {one.id for one in schema.inputs}
        assert set(own["outputs"]) == {str(i) for i in range(len(schema.outputs))}
        for one in schema.inputs:
            assert bool(getattr(one, "tooltip", None)) == ("tooltip" in own["inputs"][one.id])


def test_english_texts_are_those_of_the_nodes(nodes):
    for name, texts in translation("en").items():
        schema = nodes[name]
        assert (texts["display_name"], texts["description"]) == (
            schema.display_name, schema.description,
        )  # fmt: skip
        for one in schema.inputs:
            assert texts["inputs"][one.id].get("tooltip") == getattr(one, "tooltip", None)


def test_chinese_is_chinese():
    for texts in translation("zh").values():
        assert re.search(r"[\u4e00-\u9fff]", texts["description"])


@pytest.mark.parametrize("file", ["{}.md", "{}/zh.md"])
def test_help_pages_name_every_input(nodes, file):
    docs = harness.REPOSITORY / "comfy_nodes" / "web" / "docs"
    for name, schema in nodes.items():
        path = docs / file.format(name)
        if name == "PAROInspect" and not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {schema.display_name}")
        for one in schema.inputs:
            assert one.id == "model" or f"`{one.id}`" in text


def test_the_page_has_a_word_for_everything_it_says():
    """Both languages have the same keys, and the scripts use no other."""
    web = harness.REPOSITORY / "comfy_nodes" / "web"
    words = (web / "words.js").read_text(encoding="utf-8")
    english, chinese = words.split("zh: {")
    keys = [re.findall(r"^\s+(\w+):\s+\"", part, re.MULTILINE) for part in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) == len(set(keys[0])) > 20
    scripts = "".join(
        path.read_text(encoding="utf-8") for path in web.glob("*.js") if path.name != "words.js"
    )
    used = set(re.findall(r"(?:say|figure|button|new Error)\(\"(\w+)\"", scripts))
    assert used and used <= set(keys[0])


def test_widgets_values_of_the_examples_are_those_of_today(nodes):
    """A workflow that was saved before a widget came or went would shift its values."""
    for path in sorted((harness.REPOSITORY / "example_workflows").glob("*.json")):
        graph = json.loads(path.read_text(encoding="utf-8"))
        for node in graph["nodes"]:
            if node["type"] not in nodes:
                continue
            schema = nodes[node["type"]]
            widgets = [one for one in schema.inputs if one.io_type not in ("MODEL", "IMAGE")]
            assert len(node.get("widgets_values") or []) == len(widgets), path.name
            for value, one in zip(node.get("widgets_values") or [], widgets, strict=True):
                default = one.default
                assert isinstance(value, type(default)) or isinstance(value, (int, float))


def test_the_registry_finds_what_it_wants():
    text = (harness.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    project = pytest.importorskip("tomllib").loads(text)
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"] == "PARO Attention"
    assert comfy["Icon"].startswith("https://") and comfy["Icon"].endswith(".png")
    icon = harness.REPOSITORY / "assets" / "icon.png"
    data = icon.read_bytes()
    size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert data[:4] == b"\x89PNG" and size[0] == size[1] <= 800 and len(data) < 100_000
    assert project["project"]["urls"]["Repository"]
    text = (harness.REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    wanted = [line for line in text.splitlines() if not line.startswith("#")]
    # torch is ComfyUI's own: a package that asks for one may replace it.
    own = project["project"]["dependencies"]
    assert not any(line.startswith("torch") for line in own)
    library = f"paroattention=={project['project']['version']}; sys_platform == "
    assert wanted[: len(own)] == own and len(wanted) == len(own) + 2
    assert all(line.startswith(library) for line in wanted[len(own) :])
