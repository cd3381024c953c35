"""The viewer in the page, in a real browser: from the node to the next run, saves, faults, manners.

PARO_SHOTS names a folder for screenshots.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest
from comfy_server import read_runlog, small, workflow
from sessions import FILTER, SESSION, ZOOM
from test_page import NODE, PANEL, button, shot
from web_viewer import CTRL, Viewer, require_built

TESTS = Path(__file__).resolve().parents[1]


def module(path):
    """A test module of another folder, by its file: both have a conftest."""
    spec = importlib.util.spec_from_file_location(f"other_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


make_profile = module(TESTS / "viewer" / "conftest.py").make_profile


@pytest.fixture(scope="module", autouse=True)
def built():
    require_built()


@pytest.fixture(scope="module")
def folder(comfy_live):
    path = comfy_live.base / "models" / "paro"
    path.mkdir(parents=True, exist_ok=True)
    make_profile(path, "other", seed=1)
    return path


@pytest.fixture
def profile(folder):
    """wan.json as it was made, with its capture."""
    path = make_profile(folder, "wan")
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def viewer(page, comfy_live, profile):
    shown = Viewer(page)
    page.js("localStorage.clear()")
    shown.open(comfy_live, "wan")
    return shown


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def head_of(path, layer, head):
    return read(path)["layers"][layer]["heads"][head]


def open_with_node(page, comfy_live):
    """ComfyUI's page with one PAROAttention node, whose panel is there."""
    page.open(comfy_live.url)
    page.wait("window.app?.graph && window.app.extensionManager && window.paro", 120)
    page.js("app.graph.clear(); void app.graph.add(LiteGraph.createNode('PAROAttention'))")
    page.wait(f"{PANEL} !== undefined")


@pytest.mark.slow
def test_from_the_node_to_the_next_run(page, comfy_live, folder):
    """The button on the node, a head by mouse and keys, its density, its order, a save, a run."""
    start = workflow("demo_sparse", profile="none", observe_steps=1, save_as="seen")
    comfy_live.run(small(start))
    open_with_node(page, comfy_live)
    page.wait(f"{NODE}.widgets.find((w) => w.name === 'profile').options.values.includes('seen')")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'seen'")
    page.js(f"{NODE}.pos = [300, 200]; app.canvas.ds.offset = [0, 0]; app.canvas.ds.scale = 1")
    page.js("app.canvas.setDirty(true, true)")
    time.sleep(1)  # the panel follows its node a few frames later
    page.click(".paro [data-action=viewer]", "Viewer")
    viewer = Viewer(page, "document.querySelector('.paro-web-viewer iframe')?.contentWindow")
    viewer.wait_ready("seen")
    # Other tests may have run on the same server before.
    logged = len(read_runlog(comfy_live.base))
    viewer.until("runs", str(logged))

    viewer.click("tile.1")
    viewer.until("selection.index", "1")
    viewer.key("ArrowDown")
    index = int(viewer.query("selection.index"))
    assert index > 1
    viewer.key("ArrowUp")
    viewer.until("selection.index", "1")
    viewer.drag("density.slider", 0.3, 0.9)
    assert 0.8 < float(viewer.query("head.density")) < 1
    viewer.key("z", CTRL)
    assert viewer.query("modified") == "false"
    viewer.key("y", CTRL)
    viewer.click("profile.order")
    viewer.frames(2)
    order = "WHF" if viewer.query("head.order") != "WHF" else "FWH"
    viewer.click(f"order.{order}")
    viewer.until("head.order", order)
    assert viewer.query("head.locked") == "true"
    shot(page, "web-viewer-dialog")
    viewer.key("s", CTRL)
    viewer.until("modified", "false")
    saved = head_of(folder / "seen.json", 0, 1)
    assert saved["order"] == order and saved["locked"] and saved["density"] > 0.6

    # The next run goes by it, without a restart.
    density = {"density": 0.2, "profile": "seen", "watch": "if needed"}
    runs = len(read_runlog(comfy_live.base))
    comfy_live.run(small(workflow("demo_sparse", sampler={"seed": 7}, **density)))
    (run,) = read_runlog(comfy_live.base)[runs:]
    layer = read(folder / "seen.json")["layers"][0]["id"]
    mine = [
        line
        for line in run
        if line.get("layer") == layer and line.get("path") == "sparse" and 1 in line["heads"]
    ]
    others = [
        line
        for line in run
        if line.get("path") == "sparse" and line.get("layer") not in (None, layer)
    ]
    assert mine and others
    most = max(line["density"] for line in others)
    assert all(line["density"] > most for line in mine if len(line["heads"]) == 1) or all(
        line["density"] > most for line in mine
    )
    # The viewer follows: that run is in it, while the dialog stays open.
    viewer.until("runs", str(logged + 1))
    page.click(".paro-web-viewer [data-action=close]", "Close")
    page.wait("document.querySelector('.paro-web-viewer') === null")


@pytest.mark.parametrize("script", [SESSION, ZOOM, FILTER], ids=["session", "zoom", "filter"])
def test_the_desktops_scripts(viewer, profile, script):
    viewer.run(script.format(profile="wan.json", other="other.json"))
    if script is SESSION:
        assert head_of(profile, 0, 1)["order"] == "WHF" and head_of(profile, 0, 1)["locked"]
        assert read(profile)["defaults"]["density"] > 0.5


def test_a_capture_comes_quietly_after_its_profile(viewer):
    viewer.key("ArrowRight")
    viewer.until("head.rows", "true")
    assert viewer.query("messages") == ""


def test_a_second_writer_is_not_overwritten(viewer, profile):
    """A conflict is told of, and nothing of either is lost."""
    viewer.block("/versions/")  # the page does not hear of the other's save
    viewer.key("]")
    mine = float(viewer.query("head.density"))
    theirs = read(profile)
    theirs["calibration"]["prompts"] = 7
    profile.write_text(json.dumps(theirs))
    viewer.key("s", CTRL)
    viewer.until("messages", "was saved by someone else meanwhile")
    assert viewer.query("modified") == "true"
    assert read(profile) == theirs
    shot(viewer.page, "web-viewer-conflict")
    viewer.unblock()
    viewer.page.js("document.dispatchEvent(new Event('visibilitychange'))")
    viewer.until("messages", "was read again; your edits were kept")
    assert viewer.query("modified") == "true"
    viewer.key("s", CTRL)
    viewer.until("modified", "false")
    saved = read(profile)
    assert saved["calibration"]["prompts"] == 7
    assert abs(saved["layers"][0]["heads"][0]["density"] - mine) < 1e-6


def test_a_server_that_does_not_answer(viewer, profile):
    before = profile.read_text()
    viewer.key("]")
    viewer.block()
    viewer.key("s", CTRL)
    viewer.until("messages", "Not saved: ComfyUI's server does not answer")
    viewer.until("messages", "What is shown stays, and so do your edits")
    assert viewer.query("modified") == "true" and profile.read_text() == before
    shot(viewer.page, "web-viewer-silent")
    viewer.unblock()
    viewer.until("messages", "ComfyUI's server answers again")
    viewer.key("s", CTRL)
    viewer.until("modified", "false")
    assert head_of(profile, 0, 0)["density"] is not None


def test_a_profile_that_is_deleted_is_written_again(viewer, profile):
    viewer.key("]")
    profile.unlink()
    viewer.until("messages", "wan.json is gone")
    viewer.key("s", CTRL)
    viewer.until("modified", "false")
    assert head_of(profile, 0, 0)["density"] is not None


def test_a_profile_that_is_replaced_is_read_again(viewer, profile, folder):
    theirs = read(profile)
    theirs["layers"][0]["heads"][0]["density"] = 0.75
    profile.write_text(json.dumps(theirs))
    viewer.until("messages", "wan.json changed on the server and was read again")
    viewer.until("head.density", "0.75")
    # With another model's, and with one that is no profile.
    profile.write_text("{")
    viewer.until("messages", "What was read before stays")
    assert viewer.query("heads") == "6"


def test_malformed_profiles_are_told_of(viewer, folder):
    schema = module(TESTS / "python" / "test_profile_schema.py")
    lines = ["open wan.json", "wait"]
    for number, case in enumerate(schema.BAD):
        (folder / f"bad{number}.json").write_text(json.dumps(schema.damaged(*schema.BAD[case])))
        lines += [f"open bad{number}.json", "wait", f"expect messages ~ bad{number}.json"]
        lines += ["expect path == wan.json"]
    for number, content in enumerate((b"", b"hello", b"\xff\xfe{", b"[" * 100_000)):
        (folder / f"worse{number}.json").write_bytes(content)
        lines += [f"open worse{number}.json", "wait", f"expect messages ~ worse{number}.json"]
    lines += ["open missing.json", "wait", "expect messages ~ missing.json", "expect heads == 6"]
    viewer.run("\n".join(lines))
    for path in [*folder.glob("bad*.json"), *folder.glob("worse*.json")]:
        path.unlink()


def test_malformed_captures_leave_the_profile(viewer, profile):
    capture = profile.with_name("wan.capture.safetensors")
    good = capture.read_bytes()
    for bad in (
        b"",
        b"\xff" * 40,
        good[:100],
        good[:-1],
        good + b"\0",
        good.replace(b"rows", b"rovs"),
    ):
        capture.write_bytes(bad)
        viewer.until("messages", "wan.capture.safetensors")
        assert viewer.query("heads") == "6" and viewer.query("head.rows") == "false"
        viewer.page.wait("paro.place('message.dismiss').length === 4")
        viewer.click("message.dismiss")
        viewer.until("messages", "")
    capture.write_bytes(good)
    viewer.key("ArrowRight")
    viewer.until("head.rows", "true")


def test_a_calm_page_draws_no_frames(viewer):
    viewer.until("all.exact", "6")
    drawn, end = [-1, -2], time.monotonic() + 20
    while drawn[-1] != drawn[-2] and time.monotonic() < end:
        time.sleep(3)  # longer than the page takes to ask the server for versions
        drawn.append(viewer.page.js("paro.frames()"))
    assert drawn[-1] == drawn[-2], drawn


def test_keys_and_wheel_stay_inside(page, comfy_live, profile):
    open_with_node(page, comfy_live)
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = 'wan'")
    page.js(f"app.canvas.selectNode({NODE})")
    button(page, "viewer")
    viewer = Viewer(page, "document.querySelector('.paro-web-viewer iframe')?.contentWindow")
    viewer.wait_ready("wan")
    before = page.js("[app.canvas.ds.scale, ...app.canvas.ds.offset, app.graph._nodes.length]")
    viewer.run("wait\n")
    viewer.mouse("mouseWheel", viewer.place("map.FHW"), deltaX=0, deltaY=-400)
    viewer.frames(3)
    assert float(viewer.query("view.width")) < 1
    for key in ("Delete", "m", "Escape"):
        viewer.key(key)
    viewer.key("F1")
    assert viewer.query("help") == "true"
    after = page.js("[app.canvas.ds.scale, ...app.canvas.ds.offset, app.graph._nodes.length]")
    assert after == before and page.js("document.querySelector('.paro-web-viewer').open")
    # Light and dark follow the page.
    for color, theme in (("#353535", "dark"), ("#f0f0f0", "light"), ("rgb(20, 20, 30)", "dark")):
        style = "document.documentElement.style"
        page.js(f"{style}.setProperty('--comfy-menu-bg', {json.dumps(color)})")
        viewer.until("theme", theme)
    page.js(f"{style}.removeProperty('--comfy-menu-bg')")
    # What is not saved is asked about.
    viewer.key("F1")
    viewer.key("]")
    page.js("window.asked = []; window.confirm = (text) => { asked.push(text); return false }")
    page.click(".paro-web-viewer [data-action=close]", "Close")
    assert page.js("asked") == ["wan: there are changes that are not saved. Leave them?"]
    assert page.js("document.querySelector('.paro-web-viewer').open")
    page.js("window.confirm = () => true")
    page.click(".paro-web-viewer [data-action=close]", "Close")
    page.wait("document.querySelector('.paro-web-viewer') === null")


def test_pixels_of_a_fine_screen(viewer):
    size = viewer.page.js("[canvas.clientWidth, canvas.clientHeight]")
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": False}
    viewer.page.call("Emulation.setDeviceMetricsOverride", **metrics)
    try:
        viewer.key("ArrowRight")  # a calm page draws nothing, and so does not look
        viewer.page.wait(f"canvas.width === {2 * size[0]} && canvas.height === {2 * size[1]}", 10)
        viewer.frames(3)
        viewer.click("tile.3")
        viewer.until("selection.index", "3")
        shot(viewer.page, "web-viewer-fine")
    finally:
        viewer.page.call("Emulation.clearDeviceMetricsOverride")


def wait_file(path, seconds=30):
    end = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    return path.read_bytes()


def test_downloads(viewer, profile):
    viewer.run("wait\ndialog export curves\nclick dialog.ok\nuntil messages ~ wan-curves.png\n")
    assert wait_file(viewer.page.downloads / "wan-curves.png")[:4] == b"\x89PNG"
    viewer.run("key ]\nclick menu.file\nframes 3\nclick menu.download\nframes 3\n")
    got = json.loads(wait_file(viewer.page.downloads / "wan.json"))
    assert got["layers"][0]["heads"][0]["density"] is not None
    assert head_of(profile, 0, 0)["density"] is None


def test_a_profile_that_is_dropped(viewer, profile, folder):
    text = json.dumps(read(profile))
    viewer.page.js(f"""(() => {{
      const data = new DataTransfer()
      data.items.add(new File([{json.dumps(text)}], 'dropped.json', {{type: 'application/json'}}))
      canvas.dispatchEvent(new DragEvent('drop', {{dataTransfer: data, bubbles: true}}))
    }})()""")
    viewer.until("path", "dropped.json")
    assert not (folder / "dropped.json").exists()
    viewer.key("s", CTRL)
    viewer.until("messages", "Saved dropped.json")
    assert read(folder / "dropped.json")["model"] == read(profile)["model"]
    (folder / "dropped.json").unlink()


def test_the_layout_is_kept_and_blocked_storage_is_told(viewer, comfy_live):
    viewer.run("theme light\nmaximise kernel\nframes 3\nkey escape\nframes 3\n")
    viewer.page.wait("localStorage.getItem('paro.viewer.json')?.includes('theme')")
    viewer.page.js("Storage.prototype.setItem = () => { throw new Error('blocked') }")
    viewer.key("m")
    viewer.until("messages", "Settings not kept")
    assert viewer.query("open") == "true"


def test_a_browser_without_webgl2(page, comfy_live, profile):
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    added = page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        page.open(f"{comfy_live.url}/paro/viewer/viewer.html?profile=wan")
        told = page.wait("window.paro?.error")
        assert "no WebGL 2" in told and "python -m paroattention view" in told
        assert page.js("document.getElementById('note').innerText").startswith("This browser")
        shot(page, "web-viewer-no-webgl")
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])


def test_nothing_breaks_the_pages_policy(viewer):
    """No script of a text, no foreign address: the browser would say so in the log."""
    assert viewer.page.log == []
