"""The viewer's routes on a real server: its files, captures, the run log, versions, saves."""

import asyncio
import gzip
import hashlib
import json
import re
import urllib.request

import harness
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from test_routes import FOREIGN, JSON, NAMES, ORIGIN, Routes, saved  # noqa: F401
from web_viewer import require_built


@pytest.fixture(scope="module")
def routes(comfy_live):
    return Routes(comfy_live)


def head(server, path, method="GET", body=None, **headers):
    """(status, headers, body) as they came."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


FILES = {
    "viewer.html": "text/html", "viewer.css": "text/css", "viewer.js": "text/javascript",
    "files.js": "text/javascript", "input.js": "text/javascript",
    "paro-viewer.js": "text/javascript", "paro-viewer.wasm": "application/wasm",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_viewers_files_have_types_and_a_policy(comfy_live, name):
    require_built()
    status, headers, body = head(comfy_live, f"/paro/viewer/{name}", Accept_Encoding="gzip")
    assert status == 200 and headers["Content-Type"].partition(";")[0] == FILES[name]
    assert headers["Content-Encoding"] == "gzip" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    plain = gzip.decompress(body)
    assert headers["ETag"].strip('"') == hashlib.sha256(plain).hexdigest()[:32]
    assert head(comfy_live, f"/paro/viewer/{name}")[2] == plain
    assert head(comfy_live, f"/api/paro/viewer/{name}")[2] == plain
    tag = headers["ETag"]
    assert head(comfy_live, f"/paro/viewer/{name}", If_None_Match=tag)[0] == 304


def test_no_script_stands_in_the_page(comfy_live):
    require_built()
    text = head(comfy_live, "/paro/viewer/viewer.html")[2].decode()
    assert "<script>" not in text and not re.search(r"\s(on\w+|style)=", text)
    strict(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])


def strict(policy):
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy and "connect-src 'self'" in policy


def test_the_policy_is_a_header_too():
    """The server of the other tests has no API nodes: ComfyUI then sends a policy of its own."""
    require_built()

    async def ask():
        table = web.RouteTableDef()
        harness.part("viewer_routes").register(table)
        app = web.Application()
        app.add_routes(table)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/paro/viewer/viewer.html")
            return answer.status, answer.headers["Content-Security-Policy"]

    status, policy = asyncio.run(ask())
    assert status == 200 and "frame-ancestors 'self'" in policy
    strict(policy)


@pytest.mark.parametrize(
    "name", ["files.json", "viewer.html.gz", "..%2fviewer.html", "%2e%2e%2f__init__.py", "x", ".."]
)
def test_no_other_file_is_served(routes, name):
    assert routes("GET", f"/paro/viewer/{name}")[0] in (400, 403, 404, 405)


def test_a_capture_is_sent_whole_or_in_ranges(routes, saved, comfy_live):  # noqa: F811
    content = bytes(range(256)) * 64
    path = routes.folder / "routed.capture.safetensors"
    kept = path.read_bytes() if path.is_file() else None
    path.write_bytes(content)
    try:
        assert routes("GET", "/paro/captures/routed") == (200, content)
        status, headers, part = head(comfy_live, "/paro/captures/routed", Range="bytes=100-199")
        assert status == 206 and part == content[100:200]
        assert headers["Content-Range"] == f"bytes 100-199/{len(content)}"
        versions = routes("GET", "/paro/versions/routed")[1]
        assert headers["ETag"] == versions["capture"]
        assert (
            head(comfy_live, "/paro/captures/routed", If_None_Match=versions["capture"])[0] == 304
        )
    finally:
        path.unlink() if kept is None else path.write_bytes(kept)


def test_versions_name_what_there_is(routes, saved, comfy_live):  # noqa: F811
    versions = routes("GET", "/paro/versions/routed")[1]
    assert set(versions) == {"profile", "capture", "runlog"}
    assert versions["profile"] == head(comfy_live, "/paro/profiles/routed")[1]["ETag"]
    assert versions["runlog"] == head(comfy_live, "/paro/runlog")[1]["ETag"]
    listed = {one["name"]: one for one in routes("GET", "/paro/profiles")[1]["profiles"]}
    assert listed["routed"]["version"] == versions["profile"]
    none = routes("GET", "/paro/versions/missing")[1]
    assert none["profile"] is None and none["capture"] is None
    assert routes("GET", "/paro/captures/missing")[0] == 404


@pytest.mark.parametrize("route", ["captures", "versions"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(routes, saved, route, name):  # noqa: F811
    status, answer = routes("GET", f"/paro/{route}/{name}".replace(" ", "%20"))
    assert status in (400, 404, 405), (status, answer)


def test_two_writers_cannot_overwrite_each_other(routes, saved, comfy_live):  # noqa: F811
    """Each save names the version that it was made of."""
    path = "/paro/profiles/shared-by-two"
    assert routes("PUT", path, saved, If_None_Match="*", **JSON)[0] == 200
    assert routes("PUT", path, saved, If_None_Match="*", **JSON)[0] == 412
    first = head(comfy_live, path)[1]["ETag"]
    mine = json.loads(json.dumps(saved))
    mine["defaults"]["density"] = 0.25
    theirs = json.loads(json.dumps(saved))
    theirs["defaults"]["density"] = 0.5
    status, headers, _ = head(
        comfy_live, path, "PUT", json.dumps(mine).encode(), If_Match=first, **JSON
    )
    assert status == 200 and headers["ETag"] != first
    status, answer = routes("PUT", path, theirs, If_Match=first, **JSON)
    assert status == 412 and "another one on the server now" in answer["error"]
    assert json.loads((routes.folder / "shared-by-two.json").read_text()) == mine
    assert routes("PUT", path, theirs, If_Match=headers["ETag"], **JSON)[0] == 200
    assert routes("DELETE", path, **ORIGIN)[0] == 200
    # What was deleted meanwhile is no version to replace.
    assert routes("PUT", path, mine, If_Match=headers["ETag"], **JSON)[0] == 412


@pytest.mark.parametrize("case", FOREIGN)
def test_another_sites_page_saves_nothing(routes, saved, case):  # noqa: F811
    tag = routes("GET", "/paro/versions/routed")[1]["profile"]
    answer = routes("PUT", "/paro/profiles/routed", saved, If_Match=tag, **JSON, **FOREIGN[case])
    assert answer[0] == 403
