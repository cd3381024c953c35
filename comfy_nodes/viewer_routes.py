"""Routes of the viewer in the page: its own files, captures, the run log, and their versions.

As for profiles: names, never paths. Files go out as they lie on the disk, in pieces.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web
from server import PromptServer

from . import store
from .native import paro
from .routes import Refusal, answering, profile_name
from .run import runlog_path

# The page runs its own scripts and WebAssembly alone, speaks with this server alone, and no other
# site may hold it in a frame. viewer.html says the same once more: without its API nodes ComfyUI
# puts a wider policy of its own into the place of this header.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
SAFE = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


async def get_page_file(request: web.Request) -> web.Response:
    """One of the viewer's files, compressed as it was packed."""
    name = request.match_info["file"]
    if problem := paro.web_viewer.problem():
        raise Refusal(404, problem)
    try:
        file = await asyncio.to_thread(paro.web_viewer.read, name)
    except ValueError as error:
        raise Refusal(500, str(error)) from None
    if file is None:
        raise Refusal(404, "the viewer has no such file")
    headers = SAFE | {
        "Content-Type": file.type,
        "Content-Security-Policy": POLICY,
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "same-origin",
        # Asked for anew each time, sent anew only after an update.
        "Cache-Control": "no-cache",
        "ETag": f'"{file.sha256[:32]}"',
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=file.packed, headers=headers | {"Content-Encoding": "gzip"})
    return web.Response(body=await asyncio.to_thread(file.plain), headers=headers)


def _sent(path: Path | None, kind: str, what: str) -> web.FileResponse:
    if path is None or not path.is_file():
        raise Refusal(404, f"there is no {what}")
    headers = SAFE | {"Content-Type": kind, "Cache-Control": "no-cache"}
    return web.FileResponse(path, headers=headers, chunk_size=1 << 20)


async def get_capture(request: web.Request) -> web.StreamResponse:
    """A capture by its profile's name; ranges of it too."""
    name = profile_name(request)
    return _sent(store.capture(name), "application/octet-stream", f"capture of profile {name}")


async def get_runlog(request: web.Request) -> web.StreamResponse:
    return _sent(runlog_path(), "application/jsonl", "run log")


async def get_versions(request: web.Request) -> web.Response:
    """{profile, capture, runlog}: the ETag of each, null for what there is not."""
    name = profile_name(request)
    paths = {
        "profile": store.find(name),
        "capture": store.capture(name),
        "runlog": runlog_path(),
    }
    found = {what: store.version(path) for what, path in paths.items()}
    return web.json_response(found, headers={"Cache-Control": "no-cache"})


def register(routes: web.RouteTableDef) -> None:
    routes.get("/paro/viewer/{file}")(answering(get_page_file))
    routes.get("/paro/captures/{name}")(answering(get_capture))
    routes.get("/paro/runlog")(answering(get_runlog))
    routes.get("/paro/versions/{name}")(answering(get_versions))


if getattr(PromptServer, "instance", None) is not None:
    register(PromptServer.instance.routes)
