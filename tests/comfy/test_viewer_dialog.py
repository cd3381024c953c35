"""The Viewer button's dialog where the library came without the viewer for the page: its command is
run and copied, and never a trap."""

import json
import os
import subprocess
import sys
import time

import pytest
from test_page import NODE, PANEL, button, shot

DIALOG = "document.querySelector('dialog.paro-viewer')"


# The server's answer where the library has no viewer for the page.
WITHOUT = """(() => {
  const real = app.api.kept ??= app.api.fetchApi.bind(app.api)
  const none = () => Promise.resolve(new Response('{"error": "none was built"}', {status: 404}))
  const ours = (path) => path.startsWith('/paro/viewer/')
  app.api.fetchApi = (path, options) => ours(path) ? none() : real(path, options)
})()"""


def ours(page):
    """A page with our node alone."""
    page.js("app.graph.clear(); void app.graph.add(LiteGraph.createNode('PAROAttention'))")
    page.wait(f"{PANEL} !== undefined")
    page.js(WITHOUT)


def command_for(page, name):
    """What the Viewer button's dialog offers for a profile; the dialog stays open."""
    page.wait(f"{DIALOG} === null")
    page.js(f"{NODE}.widgets.find((w) => w.name === 'profile').value = {json.dumps(name)}")
    button(page, "viewer")
    found = page.wait(f"{DIALOG}?.open && {DIALOG}.querySelector('b').textContent")
    assert found == f"{name}.json"
    assert "cannot be opened in this page: none was built" in page.js(f"{DIALOG}.innerText")
    assert "PARO Inspect draws" in page.js(f"{DIALOG}.innerText")
    return page.js(f"{DIALOG}.querySelector('input').value")


def test_the_viewer_button_offers_a_command_that_works(page, comfy_live, tmp_path):
    """On a shell, in models/paro, with a script in place of the viewer."""
    ours(page)
    folder = comfy_live.base / "models" / "paro"
    folder.mkdir(exist_ok=True)
    name = "f\u00fcr wan (1) & #2 'x' \u914d\u7f6e"
    (folder / f"{name}.json").write_text("{}")
    command = command_for(page, name)
    assert command == f'python -m paroattention view "{name}.json"'
    shot(page, "viewer")
    viewer = tmp_path / "paro-viewer"
    viewer.write_text('#!/bin/sh\ncp "$1" seen.json && echo "$# $1"\n')
    viewer.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    told = {"capture_output": True, "text": True}
    # As a person pastes it.
    done = subprocess.run(command, shell=True, cwd=folder, env=env, **told)  # noqa: S602
    (folder / "seen.json").unlink()
    assert (done.returncode, done.stdout) == (0, f"1 {name}.json\n"), done.stderr

    # Copied: the page is on this machine, where it may write to the clipboard.
    origin = page.js("location.origin")
    for kind in ("clipboardReadWrite", "clipboardSanitizedWrite"):
        page.call("Browser.grantPermissions", permissions=[kind], origin=origin)
    page.js("window.written = []; navigator.clipboard.writeText = async (t) => { written.push(t) }")
    page.click("dialog.paro-viewer [data-action=copy]", "Copy")
    page.wait(f"{DIALOG}.innerText.includes('Copied')")
    assert page.js("written") == [command]
    page.click("dialog.paro-viewer [data-action=download]", "Download")
    file, end = page.downloads / f"{name}.json", time.monotonic() + 30
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert file.read_text() == "{}"
    page.click("dialog.paro-viewer [data-action=close]", "Close")
    page.wait(f"{DIALOG} === null")
    (folder / f"{name}.json").unlink()


@pytest.mark.parametrize(
    "name", ["$(touch hit)", "`touch hit`", "%PATH%", "a!b", "\u201d & x", "-h"]
)
def test_a_name_that_a_shell_reads_is_in_no_command(page, name):
    """Profiles come from anyone, and a command is copied without being read."""
    ours(page)
    assert command_for(page, name) == "python -m paroattention view FILE"
    assert "Put it in place of FILE yourself" in page.js(f"{DIALOG}.innerText")
    page.js(f"{DIALOG}.close()")


def test_without_a_clipboard_the_command_is_copied_all_the_same(page):
    """As on a page of another machine without HTTPS."""
    ours(page)
    command = command_for(page, "p")
    page.js("""Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})
      window.copied = ''
      document.execCommand = (what) => { copied = what + ' ' + getSelection().toString() }""")
    page.click("dialog.paro-viewer [data-action=copy]", "Copy")
    page.wait(f"{DIALOG}.innerText.includes('Copied')")
    assert page.js("copied") == f"copy {command}"
    page.js("delete navigator.clipboard; delete document.execCommand")
    page.js(f"{DIALOG}.close()")
