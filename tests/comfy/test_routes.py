"""The page's routes on a real server: what they hand out, take and refuse."""

import asyncio
import http.client
import json
import os
import unicodedata
import urllib.parse
import urllib.request

import harness
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from comfy_server import small, workflow

ORIGIN = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Content-Type": "application/json"}


class Routes:
    def __init__(self, server):
        self.server = server
        self.folder = server.base / "models" / "paro"
        self.plugin = server.base / "custom_nodes" / "comfyui-paroattention"

    def __call__(self, method, path, body=None, **headers):
        """(status, parsed JSON or bytes), the path as it is, so that dots and escapes stay."""
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        link.request(method, path, body=body, headers=headers)
        answer = link.getresponse()
        data = answer.read()
        link.close()
        try:
            return answer.status, json.loads(data)
        except ValueError:
            return answer.status, data

    def files(self):
        """Every file of the base directory but logs and caches, with its content."""
        kept = {}
        for path in self.server.base.rglob("*"):
            if path.is_file() and "__pycache__" not in str(path) and path.suffix != ".npy":
                kept[str(path.relative_to(self.server.base))] = path.stat().st_size
        return kept


@pytest.fixture(scope="module")
def routes(comfy_live):
    return Routes(comfy_live)


@pytest.fixture(scope="module")
def saved(routes, comfy_live):
    """A profile that a run has saved, as the document it is."""
    built = small(workflow("demo_sparse", profile="none", observe_steps=1, save_as="routed"))
    comfy_live.run(built)
    return json.loads((routes.folder / "routed.json").read_text())


def test_list(routes, saved):
    status, answer = routes("GET", "/paro/profiles")
    found = {profile["name"]: profile for profile in answer["profiles"]}
    assert status == 200 and found["routed"]["family"] == "wan2.1"
    assert found["routed"]["shipped"] is False and found["routed"]["grids"] == [[4, 8, 11]]
    assert found["routed"]["fingerprint"] == saved["model"]["fingerprint"]
    assert routes("GET", "/api/paro/profiles")[1] == answer


def test_a_broken_file_is_listed_with_its_error(routes, saved):
    broken = routes.folder / "broken.json"
    broken.write_text("{")
    try:
        _, answer = routes("GET", "/paro/profiles")
        (entry,) = [p for p in answer["profiles"] if p["name"] == "broken"]
        assert set(entry) == {"name", "error"}
    finally:
        broken.unlink()


def test_get_put_and_delete(routes, saved):
    status, document = routes("GET", "/paro/profiles/routed")
    assert status == 200 and document == saved
    assert routes("PUT", "/paro/profiles/copy", document, **JSON, **ORIGIN)[0] == 200
    assert json.loads((routes.folder / "copy.json").read_text()) == saved
    info = routes("GET", "/object_info/PAROAttention")[1]["PAROAttention"]
    assert "copy" in info["input"]["required"]["profile"][1]["options"]
    status, answer = routes("PUT", "/paro/profiles/copy", document, **JSON)
    assert status == 409 and "copy" in answer["error"]
    assert routes("PUT", "/paro/profiles/copy?overwrite=1", document, **JSON)[0] == 200
    (routes.folder / "copy.capture.safetensors").write_bytes(b"rows")
    assert routes("DELETE", "/paro/profiles/copy", **ORIGIN)[0] == 200
    assert not list(routes.folder.glob("copy*"))
    assert routes("DELETE", "/paro/profiles/copy")[0] == 404
    assert routes("GET", "/paro/profiles/copy")[0] == 404


NAMES = [
    "../outside", "..%2f..%2foutside", "%2e%2e%2foutside", "/etc/passwd", "%2fetc%2fpasswd",
    "C:%5coutside", "%5c%5chost%5cshare", "..%5coutside", "con", "nul.txt", ".hidden", "x" * 236,
    "a%00b", "a%0ab", "%1b[2J", "a%20", "._shared", "%E9", "%FF%FE", "%ED%A0%80", "%E2%80%AEa",
    "lpt%C2%B9", "auto", "None", "SCHEMA", "schema", "%3Cscript%3E",
]  # fmt: skip


UNICODE = ["shared (1)", "mein profil für wan", "配置", "100% [a] & b", "a+b", "%E9", "\U0001f600"]


@pytest.mark.parametrize("name", UNICODE, ids=ascii)
def test_names_of_any_alphabet(routes, saved, name):
    path = f"/paro/profiles/{urllib.parse.quote(name, safe='')}"
    assert routes("PUT", path, saved, **JSON) == (200, {"name": name})
    assert json.loads((routes.folder / f"{name}.json").read_text()) == saved
    assert name in [one["name"] for one in routes("GET", "/paro/profiles")[1]["profiles"]]
    assert routes("GET", path) == (200, saved)
    # In macOS's spelling it is the same one.
    apart = urllib.parse.quote(unicodedata.normalize("NFD", name), safe="")
    assert routes("PUT", f"/paro/profiles/{apart}", saved, **JSON)[0] == 409
    assert routes("DELETE", f"/paro/profiles/{apart}") == (200, {"name": name})
    assert not (routes.folder / f"{name}.json").exists()


def test_a_download_has_its_name(routes, saved, comfy_live):
    (routes.folder / "für (1).json").write_text(json.dumps(saved))
    url = f"{comfy_live.url}/paro/profiles/f%C3%BCr%20(1)"
    with urllib.request.urlopen(url, timeout=60) as answer:
        kind = answer.headers["Content-Disposition"]
    assert kind == "attachment; filename*=UTF-8''f%C3%BCr%20%281%29.json"
    (routes.folder / "für (1).json").unlink()


@pytest.mark.skipif(os.name == "nt", reason="no such file there")
def test_files_that_cannot_be_chosen_are_listed_with_what_to_do(routes, saved):
    path = routes.folder / "a:b.json"
    path.write_text(json.dumps(saved))
    try:
        answer = routes("GET", "/paro/profiles")[1]
        rule = 'its name must hold none of <>:"/\\|?*'
        assert answer["not_offered"] == [{"file": "a:b.json", "rule": rule, "rename": "a_b.json"}]
        assert "a:b" not in [one["name"] for one in answer["profiles"]]
    finally:
        path.unlink()
    assert routes("GET", "/paro/profiles")[1]["not_offered"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(routes, saved, method, name):
    before = routes.files()
    path = f"/paro/profiles/{name}".replace(" ", "%20")
    status, answer = routes(method, path, saved if method == "PUT" else None, **JSON)
    assert status in (400, 404, 405), (status, answer)
    if isinstance(answer, dict) and "error" in answer:
        assert all(ord(c) >= 32 for c in answer["error"])
    assert routes.files() == before


def test_a_link_out_of_the_folder_is_not_followed(routes, saved, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(saved))
    link = routes.folder / "linked.json"
    os.symlink(secret, link)
    try:
        assert routes("GET", "/paro/profiles/linked")[0] == 400
        assert routes("PUT", "/paro/profiles/linked?overwrite=1", saved, **JSON)[0] == 400
        assert routes("DELETE", "/paro/profiles/linked")[0] == 400
        assert secret.read_text() == json.dumps(saved) and link.is_symlink()
    finally:
        link.unlink()


BODIES = {
    "empty": b"",
    "no JSON": b"not json",
    "another document": b'{"schema": "other/1"}',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"schema": "\xff"}',
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "NaN": b"NaN",
    "a huge number": b"1" * 10_000,
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_are_no_profile(routes, saved, case):
    before = routes.files()
    status, answer = routes("PUT", "/paro/profiles/bad", BODIES[case], **JSON)
    assert status == 400 and answer["error"] and routes.files() == before


def test_a_body_in_another_encoding(routes, saved):
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        status, answer = routes("PUT", "/paro/profiles/wide", json.dumps(saved).encode(encoding),
                                **JSON)  # fmt: skip
        assert status == 400 and "must be saved as UTF-8 (got UTF-" in answer["error"]
    status, answer = routes("PUT", "/paro/profiles/wide", b'{"schema": "\xe9"}', **JSON)
    assert status == 400 and "saved as UTF-8" in answer["error"]
    assert not (routes.folder / "wide.json").exists()
    body = b"\xef\xbb\xbf" + json.dumps(saved).encode()
    assert routes("PUT", "/paro/profiles/wide", body, **JSON)[0] == 200
    assert routes("DELETE", "/paro/profiles/wide")[0] == 200


def test_a_body_that_is_too_large(routes, saved):
    """Refused by what it says it has, and by what it turns out to have."""
    assert routes("PUT", "/paro/profiles/big", b"", Content_Length=str(1 << 33), **JSON)[0] == 413

    def chunks():
        for _ in range(70):
            yield b" " * (1 << 20)

    try:
        status = routes("PUT", "/paro/profiles/big", chunks(), **JSON)[0]
    except (BrokenPipeError, ConnectionResetError):
        status = 413
    assert status == 413 and not (routes.folder / "big.json").exists()


FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port": {"Sec-Fetch-Site": "same-site"},
    "another origin": {"Origin": "http://evil.example"},
    "no origin to name": {"Origin": "null"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_another_page_sends(routes, saved, case):
    before, headers = routes.files(), FOREIGN[case]
    for method, path, body in (
        ("PUT", "/paro/profiles/foreign", saved),
        ("DELETE", "/paro/profiles/routed", None),
    ):
        assert routes(method, path, body, **JSON, **headers)[0] == 403
    assert routes.files() == before


def test_a_form_cannot_put(routes, saved):
    """The content types that a page may send to another site without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, _ = routes("PUT", "/paro/profiles/form", saved, Content_Type=kind)
        assert status == 415 and not (routes.folder / "form.json").exists()


def test_no_route_opens_the_viewer(routes, saved):
    """A request starts no program."""
    for method in ("GET", "POST"):
        assert routes(method, "/paro/view", {"name": "routed"}, **JSON)[0] in (404, 405)


def test_without_the_native_library(monkeypatch):
    module = harness.part("routes")
    monkeypatch.setattr(module, "paro", None)

    async def ask():
        table = web.RouteTableDef()
        module.register(table)
        app = web.Application()
        app.add_routes(table)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/paro/profiles")
            return answer.status, await answer.json()

    status, answer = asyncio.run(ask())
    assert status == 501 and set(answer) == {"error"}


def test_the_page_has_our_script_and_help(routes):
    _, scripts = routes("GET", "/extensions")
    ours = [path for path in scripts if "comfyui-paroattention" in path]
    assert {path.rsplit("/", 1)[1] for path in ours} == {
        "paro.js", "panel.js", "profiles.js", "viewer.js", "viewer_command.js", "words.js",
    }  # fmt: skip
    for node in ("PAROAttention", "PAROCalibrate", "PAROCompare"):
        for file in (f"{node}.md", f"{node}/zh.md"):
            path = urllib.parse.quote(f"/extensions/comfyui-paroattention/docs/{file}")
            status, text = routes("GET", path)
            assert status == 200 and node.removeprefix("PARO").encode() in text
