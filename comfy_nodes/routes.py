"""Routes for the page: list, fetch, put and delete profiles.

Anyone who reaches the port can call them, and any page a user visits can try to. So: names are
names in one folder, never paths; sizes are capped before reading; what changes something must come
from ComfyUI's own page (or from no browser at all), with a JSON content type; and none starts a
program.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from aiohttp import web
from server import PromptServer

from . import store
from .native import MISSING, paro

MAX_BYTES = 64 << 20
CHANGED = "paro.profiles"
log = logging.getLogger("paroattention")


class Refusal(Exception):
    """An answer other than 200: status and a sentence."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


def answering(function):
    """The handler with its errors as JSON: {"error": sentence}."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            if paro is None:
                raise Refusal(501, MISSING)
            return await function(request)
        except Refusal as refusal:
            status, text = refusal.status, str(refusal)
        except paro.Error as error:
            status, text = 400, str(error)
        except OSError as error:
            # Not the text of the error: it may hold a path of this machine.
            log.warning("PARO: %s %s: %s", request.method, request.path, error)
            kind = type(error).__name__
            status, text = 500, f"the profile folder cannot be used ({kind}): see ComfyUI's log"
        text = re.sub(r"[\x00-\x1f\x7f]", " ", text)[:500]
        return web.json_response({"error": text}, status=status)

    return handler


def check_origin(request: web.Request) -> None:
    """Refuses what another site's page sends. Scripts that are no browser send no such headers."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none"):
        raise Refusal(
            403, f"the request must come from ComfyUI's own page (Sec-Fetch-Site: {site})"
        )
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Refusal(403, "the request must come from ComfyUI's own page (its Origin is another)")


def check_json(request: web.Request) -> None:
    """A content type that a foreign page cannot send without asking first."""
    if request.content_type != "application/json":
        raise Refusal(415, f"the body must be application/json (got {request.content_type})")


async def _body(request: web.Request) -> bytes:
    """The body as it came, refused beyond MAX_BYTES by what it says and by what it holds."""
    too_large = Refusal(413, f"a profile must not exceed {MAX_BYTES >> 20} MB")
    if (request.content_length or 0) > MAX_BYTES:
        raise too_large
    data = bytearray()
    async for chunk in request.content.iter_chunked(1 << 20):
        data += chunk
        if len(data) > MAX_BYTES:
            raise too_large
    return bytes(data)


def profile_name(request: web.Request) -> str:
    """The name in the address, checked."""
    # From the path as it came: what is no UTF-8 there would be taken for a text with % in it.
    raw = request.raw_path.partition("?")[0].rpartition("/")[2]
    try:
        name = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "the name in the address must be UTF-8, %-encoded") from None
    store.check_name(name)
    return store.spelt(name)


def _existing(name: str) -> Path:
    path = store.find(name)
    if path is None:
        raise Refusal(404, f"name must be that of a saved profile (got {name})")
    return path


async def list_profiles(request: web.Request) -> web.Response:
    """profiles: [{name, shipped, bytes, family, fingerprint, grids, ...}], a broken one has error;
    not_offered: [{file, rule, rename}] of files whose names cannot be chosen."""
    found = await asyncio.to_thread(store.describe_all)
    others = await asyncio.to_thread(store.not_offered)
    return web.json_response({"profiles": found, "not_offered": [asdict(one) for one in others]})


async def get_profile(request: web.Request) -> web.StreamResponse:
    """The file as it is, for download."""
    name = profile_name(request)
    path = _existing(name)
    headers = {
        "Content-Type": "application/json",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.json",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return web.FileResponse(path, headers=headers)


async def put_profile(request: web.Request) -> web.Response:
    """Saves the body under a name, after it passed every rule of the schema.

    If-Match: the ETag of the version that it replaces. If-None-Match: * where there is none yet.
    Either is answered by 412 when the server holds another one. Without them an existing profile
    is replaced only with ?overwrite=1.
    """
    check_origin(request)
    check_json(request)
    name = profile_name(request)
    body = await _body(request)
    profile = await asyncio.to_thread(paro.Profile.parse, body)
    only_over = _wanted(request)
    if only_over is store.ANY and request.query.get("overwrite") != "1" and store.find(name):
        raise Refusal(409, f"there is a profile {name} already: choose another name, or replace it")
    try:
        path = await asyncio.to_thread(store.save, name, profile, only_over=only_over)
    except store.Replaced as error:
        raise Refusal(412, str(error)) from None
    tell_changed(name)
    return web.json_response({"name": name}, headers={"ETag": store.version(path) or ""})


def _wanted(request: web.Request):
    """The version that a save may replace: an ETag, None for no file, store.ANY for any."""
    if request.headers.get("If-None-Match") == "*":
        return None
    return request.headers.get("If-Match", store.ANY)


async def delete_profile(request: web.Request) -> web.Response:
    check_origin(request)
    name = profile_name(request)
    _existing(name)
    if not await asyncio.to_thread(store.delete, name):
        raise Refusal(403, f"profile {name} comes with the plugin and cannot be deleted")
    tell_changed()
    return web.json_response({"name": name})


def tell_changed(name: str = "") -> None:
    """Tells every page that the list of profiles is another one now."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(CHANGED, {"name": name})


def register(routes: web.RouteTableDef) -> None:
    """Adds the routes to ComfyUI's table (it serves them under /api too)."""
    routes.get("/paro/profiles")(answering(list_profiles))
    routes.get("/paro/profiles/{name}")(answering(get_profile))
    routes.put("/paro/profiles/{name}")(answering(put_profile))
    routes.delete("/paro/profiles/{name}")(answering(delete_profile))


if getattr(PromptServer, "instance", None) is not None:
    # Once, at import, as the nodes themselves; without a server (scripts) there is no instance.
    register(PromptServer.instance.routes)
