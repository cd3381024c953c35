"""The real page in a real browser: the template browser, the panel, its buttons, import and export.

PARO_SHOTS names a folder for screenshots of each stage, for people to look at.
"""

import json
import os
import re
import time
from pathlib import Path

import pytest

TEMPLATE = "PARO Wan text to video"
# The example's loaders want files that are not here: the bundled model takes their place, and the
# demo's own nodes those of text encoder and VAE.
BUNDLED = """(() => {
  const graph = app.graph, find = (type) => graph._nodes.filter((n) => n.type === type)
  const add = (type) => { const n = LiteGraph.createNode(type); graph.add(n); return n }
  const set = (node, values) => {
    for (const w of node.widgets) if (w.name in values) w.value = values[w.name]
  }
  set(find('UNETLoader')[0], {unet_name: 'paro-wan-tiny.safetensors'})
  set(find('ModelSamplingSD3')[0], {shift: 3.0})
  set(find('EmptyHunyuanLatentVideo')[0], {width: 176, height: 128, length: 13})
  const sampler = find('KSampler')[0]
  set(sampler, {steps: 6, cfg: 4, sampler_name: 'euler', seed: 1})
  for (const [slot, words] of [[1, 'coffee left ball'], [2, '']]) {
    const prompt = add('PARODemoPrompt')
    set(prompt, {prompt: words})
    prompt.connect(0, sampler, slot)
  }
  const decode = add('PARODemoDecode'), preview = add('PreviewImage')
  decode.pos = [1380, 0]; preview.pos = [1380, 300]
  sampler.connect(0, decode, 0)
  decode.connect(0, preview, 0)
  const away = ['CLIPLoader', 'VAELoader', 'CLIPTextEncode', 'VAEDecode', 'CreateVideo']
  for (const n of [...away, 'SaveVideo'].flatMap(find)) graph.remove(n)
  const seed = sampler.widgets.find((w) => w.name === 'control_after_generate')
  if (seed) seed.value = 'increment'
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [-300, 250]
  app.canvas.setDirty(true, true)
})()"""
NODE = "app.graph._nodes.find((n) => n.type === 'PAROAttention')"
PANEL = f"paro.panels.get(String({NODE}.id))"


def shot(page, name):
    folder = os.environ.get("PARO_SHOTS")
    if folder:
        time.sleep(0.5)
        page.screenshot(Path(folder) / f"{name}.png")


@pytest.fixture(scope="module")
def loaded(page):
    """The example from the template browser, by real clicks, on the bundled model."""
    page.js("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.click("[role=dialog] span", "comfyui-paroattention")
    shot(page, "templates")
    page.click("[role=dialog] h3", TEMPLATE)
    page.wait(f"{NODE} !== undefined && !document.querySelector('[role=dialog] h3')")
    page.wait(f"{PANEL} !== undefined")
    types = page.js("app.graph._nodes.map((n) => n.type).sort()")
    assert {"PAROAttention", "UNETLoader", "KSampler", "SaveVideo", "MarkdownNote"} <= set(types)
    assert page.js("app.graph._nodes.every((n) => !n.has_errors || n.type.endsWith('Loader'))")
    shot(page, "example")
    page.js(BUNDLED)
    page.wait(f"{PANEL} !== undefined")
    return page


def queue(page):
    """Queues the graph as it stands; the panel's last state of that run."""
    page.js(f"{PANEL}.state = null; app.queuePrompt(0, 1)")
    return page.wait(f"{PANEL}.state?.done && {PANEL}.state")


def button(page, action):
    return page.js(f"{PANEL}.element.querySelector('[data-action={action}]').click()")


def profiles(server):
    return sorted(p.name for p in (server.base / "models" / "paro").glob("*.json"))


def test_all_examples_are_offered_and_load(page, comfy_live):
    """No missing node in any of them, and our node's values are those of the file."""
    offered = comfy_live.get("/workflow_templates")["comfyui-paroattention"]
    assert set(offered) == {
        "PARO Wan text to video", "PARO Wan calibration", "PARO Wan compare", "PARO Flux",
    }  # fmt: skip
    folder = comfy_live.base / "custom_nodes" / "comfyui-paroattention" / "example_workflows"
    known = page.js("Object.keys(LiteGraph.registered_node_types)")
    for name in offered:
        graph = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        page.js(f"app.loadGraphData({json.dumps(graph)}, true, true)")
        types = {node["type"] for node in graph["nodes"]}
        assert types <= set(known) and any(t.startswith("PARO") for t in types)
        prompt = page.js("app.graphToPrompt().then((p) => p.output)")
        ours = [n["inputs"] for n in prompt.values() if n["class_type"].startswith("PARO")]
        assert ours[0].get("density", 0.3) in (0.3, 0.4) and "paro_panel" not in ours[0]


@pytest.mark.slow
def test_from_template_to_profile(loaded, comfy_live):
    page = loaded
    assert page.js(f"{PANEL}.title.textContent") == "not run yet"

    # Calibrate by the button: the user's graph, our node watching in its place.
    before = profiles(comfy_live)
    page.js(f"window.states = []; const p = {PANEL}, show = p.show.bind(p);"
            "p.show = (s) => { states.push(s); show(s) }")  # fmt: skip
    page.js(f"{NODE}.widgets.find((w) => w.name === 'save_as').value = 'by-button'")
    page.js(f"{PANEL}.state = null")
    button(page, "calibrate")
    state = page.wait(f"{PANEL}.state?.done && {PANEL}.state")
    assert state["saved_as"] == "by-button" and state["sparse"] is False
    assert set(profiles(comfy_live)) - set(before) == {"by-button.json"}
    seen = page.js("states.map((s) => [s.state, s.step])")
    assert ["step 3 of 6: calibrating", 2] in seen and seen[-1] == ["finished", 6]
    assert page.js(f"{NODE}.type") == "PAROAttention"
    shot(page, "calibrated")

    # The drop-down has it without a reload; a run with it is sparse from the first step.
    values = f"{NODE}.widgets.find((w) => w.name === 'profile').options.values"
    page.wait(f"{values}.includes('by-button')")
    assert page.js(f"{values}.slice(0, 2)") == ["auto", "none"]
    page.js(f"{NODE}.widgets.find((w) => w.name === 'save_as').value = ''")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'by-button'")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'watch').value = 'if needed'")
    state = queue(page)
    # Some heads may stay dense, a quarter at most.
    assert state["sparse"] and 0.27 < state["density"] < 0.5
    assert 0.3 < state["retained"] <= 1 and state["saved_seconds"] is None
    assert state["heads"] == 16 and 0 <= state["dense_heads"] <= 4
    shot(page, "sparse")

    # Watching first: both kinds of steps, so the time saved is known.
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'none'")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'observe_steps').value = 2")
    state = queue(page)
    assert state["dense_step_seconds"] > 0 and state["sparse_step_seconds"] > 0
    assert isinstance(state["saved_seconds"], float)
    text = page.js(f"{PANEL}.element.innerText")
    assert re.search(r"density\s+[34]\d %", text) and re.search(r"[0-4] / 16", text)
    assert "time saved" in text
    shot(page, "observed")


@pytest.mark.slow
def test_warnings_are_told_once(loaded):
    page = loaded
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'none'")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'observe_steps').value = 0")
    page.js(f"window.toasts = []; {PANEL}.toast = (kind, text) => toasts.push([kind, text])")
    for _ in range(2):
        state = queue(page)
        (reason,) = state["reasons"]
        assert (
            reason["dense"]
            and reason["text"] == "no saved profile fits, and observe_steps 0 watches no step"
        )
    assert page.js("toasts") == [
        ["warn", "no saved profile fits, and observe_steps 0 watches no step"]
    ]
    assert page.js(f"{PANEL}.warnings.children.length") == 1
    assert "observe_steps 0" in page.js(f"{PANEL}.warnings.innerText")
    shot(page, "warning")
    page.js(f"delete {PANEL}.toast")


DROP = """(async () => {
  const file = new File([%s], %s, {type: 'application/json'})
  const data = new DataTransfer()
  data.items.add(file)
  const event = new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})
  window.toasts = []
  const panel = %s
  panel.toast = (kind, text) => toasts.push([kind, text])
  panel.element.dispatchEvent(event)
  for (let i = 0; i < 100 && !toasts.length; i++) await new Promise((r) => setTimeout(r, 50))
  delete panel.toast
  return toasts
})()"""


@pytest.mark.slow
def test_export_and_import(loaded, comfy_live):
    page = loaded
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'by-button'")
    button(page, "export")
    file = page.downloads / "by-button.json"
    end = time.monotonic() + 30
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    original = comfy_live.base / "models" / "paro" / "by-button.json"
    text = file.read_text()
    assert json.loads(text) == json.loads(original.read_text())

    graph = page.js("app.graph._nodes.length")
    told = page.js(DROP % (json.dumps(text), json.dumps("shared.json"), PANEL))
    assert told == [["success", "imported shared"]] and "shared.json" in profiles(comfy_live)
    assert page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value") == "shared"
    # The page did not take the file for a workflow.
    assert page.js("app.graph._nodes.length") == graph
    shot(page, "imported")

    for name, content, words in (
        ("bad.json", '{"schema": "other"}', "bad.json"),
        ("a:b.json", text, "would do"),
    ):
        ((kind, message),) = page.js(DROP % (json.dumps(content), json.dumps(name), PANEL))
        assert kind == "error" and words in message
    assert not {"bad.json", "a:b.json", "a_b.json"} & set(profiles(comfy_live))

    # As a browser names a second download of a name in macOS's spelling.
    apart = "fu\u0308r wan (1)"
    told = page.js(DROP % (json.dumps(text), json.dumps(f"{apart}.json"), PANEL))
    assert told == [["success", "imported f\u00fcr wan (1)"]]
    assert "f\u00fcr wan (1).json" in profiles(comfy_live)
    button(page, "export")
    file, end = page.downloads / "f\u00fcr wan (1).json", time.monotonic() + 30
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert json.loads(file.read_text()) == json.loads(text)


@pytest.mark.slow
def test_the_panel_says_which_files_are_not_offered(loaded, comfy_live):
    page = loaded
    path = comfy_live.base / "models" / "paro" / "a.:.json"
    path.write_text("{}")
    page.js("app.api.dispatchEvent(new CustomEvent('paro.profiles', {detail: {name: 'x'}}))")
    page.wait(f"{PANEL}.warnings.innerText.includes('rename it to')")
    assert "a.:.json: not offered: its name must hold none of" in page.js(
        f"{PANEL}.warnings.textContent"
    )
    path.unlink()
    page.js("app.api.dispatchEvent(new CustomEvent('paro.profiles', {detail: {name: 'x'}}))")
    page.wait(f"!{PANEL}.warnings.textContent.includes('not offered')")


def test_a_workflow_of_before_the_target_error_loads_as_it_was(page, comfy_live):
    folder = comfy_live.base / "custom_nodes" / "comfyui-paroattention" / "example_workflows"
    graph = json.loads((folder / f"{TEMPLATE}.json").read_text(encoding="utf-8"))
    (ours,) = (node for node in graph["nodes"] if node["type"] == "PAROAttention")
    was = ours["widgets_values"][:9]
    ours["widgets_values"], ours["inputs"] = list(was), ours["inputs"][:-1]
    page.js(f"app.loadGraphData({json.dumps(graph)}, true, true)")
    assert page.js(f"{NODE}.widgets.slice(0, 9).map((w) => w.value)") == was
    prompt = page.js("app.graphToPrompt().then((p) => p.output)")
    (sent,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "PAROAttention")
    assert sent["density"] == was[1] and sent["target_error"] == 0


@pytest.mark.slow
def test_texts_from_the_server_are_no_markup(loaded):
    page = loaded
    page.js(f"""{PANEL}.show({{state: '<img src=x onerror="window.hit=1">', step: 1, steps: 2,
      profile: '<b>x</b>', saved_as: '<i>y</i>', heads: 0, done: false,
      reasons: [{{text: '<script>window.hit=1</script>', count: 1, dense: true}}]}})""")
    assert page.js(f"{PANEL}.element.querySelectorAll('img, b, i b, script').length") == 0
    assert page.js("window.hit") is None


@pytest.mark.slow
def test_messages_find_nodes_within_subgraphs(loaded):
    """The server names such a node by the path to it."""
    page = loaded
    for prefix, state in (("", "one"), ("12:", "two"), ("4:12:", "three")):
        detail = "{state: '%s', step: 0, steps: 1, reasons: [], node: '%s' + %s.id}"
        event = f"new CustomEvent('paro.status', {{detail: {detail % (state, prefix, NODE)}}})"
        page.js(f"app.api.dispatchEvent({event})")
        assert page.js(f"{PANEL}.title.textContent") == state


@pytest.mark.slow
def test_the_panel_goes_with_its_node_and_leaves_no_value(loaded):
    """Muted, bypassed and removed nodes; what is saved holds the widgets of the node alone."""
    page = loaded
    saved = page.js("app.graph.serialize().nodes.find((n) => n.type === 'PAROAttention')")
    assert len(saved["widgets_values"]) == 12
    for mode, left in ((4, True), (0, False)):  # bypassed, always
        page.js(f"{NODE}.mode = {mode}")
        prompt = page.js("app.graphToPrompt().then((p) => p.output)")
        types = [node["class_type"] for node in prompt.values()]
        assert ("PAROAttention" not in types) == left
    ident = page.js(f"String({NODE}.id)")
    page.js(f"{NODE}.mode = 4")
    page.js(f"window.toasts = []; {PANEL}.toast = (kind, text) => toasts.push([kind, text])")
    button(page, "calibrate")
    assert page.wait("toasts.length && toasts") == [
        ["error", "the node is muted, bypassed or not connected to an output"]
    ]
    page.js(f"app.graph.remove({NODE})")
    assert page.js(f"paro.panels.has({json.dumps(ident)})") is False
    assert page.log == []
