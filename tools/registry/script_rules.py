"""What scripts of the page must not do, found in their tokens: texts and comments are no code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

CODE, HOST = "runs text as code", "may reach another host"
MARKUP, HIDDEN = "takes text as markup", "hides what it does"
_WORDS = {
    CODE: "eval Function AsyncFunction GeneratorFunction WebAssembly importScripts execScript",
    # ComfyUI's api.fetchApi takes paths of its own server only.
    HOST: "fetch XMLHttpRequest WebSocket WebSocketStream WebTransport EventSource sendBeacon "
    "Worker SharedWorker serviceWorker RTCPeerConnection",
    MARKUP: "innerHTML outerHTML insertAdjacentHTML setHTMLUnsafe srcdoc createContextualFragment "
    "DOMParser",
    HIDDEN: "atob unescape fromCharCode fromCodePoint Reflect Proxy __proto__",
}
_FORBIDDEN = {word: reason for reason, words in _WORDS.items() for word in words.split()}
_GLOBALS = {"window", "globalThis", "self", "top", "parent", "frames", "document"}
_TIMERS = {"setTimeout", "setInterval", "setImmediate"}
# An iframe may show another page of this server: srcdoc and other addresses are refused as such.
_ELEMENTS = {"script", "embed"}
# The plugin's own scripts, and ComfyUI's.
_SOURCES = ("./", "../../scripts/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|^\s*(?://|(?:javascript|data|blob|vbscript):)", re.I)
_PACKED = re.compile(r"[\w+/=-]{200,}|(?:\\x[\da-f]{2}|\\u[\da-f]{4}){8,}", re.I)
_SPACE = re.compile(r"\s+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"[#$\w]+", re.UNICODE)
_TEXT = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/[a-z]*")
_PART = re.compile(r"(?:\\.|\$(?!\{)|[^`\\$])*", re.DOTALL)
# After these a slash divides; else it begins a pattern.
_ENDS = re.compile(r"[\w$)\]}]$")
_BEFORE_PATTERN = {"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new"}


class Token(NamedTuple):
    """kind: name, text, pattern or sign."""

    kind: str
    text: str
    line: int


def tokens(source: str) -> Iterator[Token]:
    """Of a script. ValueError, with the line, for what ends within a text."""
    at, line, before = 0, 1, ""
    # For every open template: braces that are open within its part of code.
    depth: list[int] = []
    while at < len(source):
        character = source[at]
        if space := _SPACE.match(source, at):
            line, at = line + space[0].count("\n"), space.end()
            continue
        if character == "`" or (character == "}" and depth and depth[-1] == 0):
            if character == "}":
                depth.pop()
            part = _PART.match(source, at + 1)
            end = part.end()
            yield Token("text", part[0], line)
            line, before = line + part[0].count("\n"), "`)"
            if source.startswith("${", end):
                depth.append(0)
                at, before = end + 2, "("
            elif source.startswith("`", end):
                at = end + 1
            else:
                raise ValueError(f"a text of line {line} does not end")
            continue
        divides = _ENDS.search(before) and before not in _BEFORE_PATTERN
        kind, found = "sign", None
        if character in "\"'":
            kind, found = "text", _TEXT.match(source, at)
            if found is None:
                raise ValueError(f"a text of line {line} does not end")
        elif character == "/" and not divides:
            kind, found = "pattern", _REGEX.match(source, at)
        elif found := _NAME.match(source, at):
            kind = "name"
        word = found[0] if found else character
        if kind == "sign" and depth:
            depth[-1] += (word == "{") - (word == "}")
        yield Token(kind, word[1:-1] if kind == "text" else word, line)
        line, at, before = line + word.count("\n"), at + len(word), word
        if kind == "text":
            before = "`)"


def faults(source: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong)."""
    try:
        all_tokens = list(tokens(source))
    except ValueError as error:
        yield 1, f"is no script: {error}"
        return
    ahead = [*all_tokens[1:], *[Token("sign", "", 0)] * 3]
    before = Token("sign", "", 0)
    for index, token in enumerate(all_tokens):
        following = ahead[index : index + 3]
        yield from ((token.line, text) for text in _of_token(token, before, following))
        before = token


def _of_token(token: Token, before: Token, after: list[Token]) -> Iterator[str]:
    text = token.text
    if token.kind in ("name", "text") and text in _FORBIDDEN:
        yield f"uses {text}, which {_FORBIDDEN[text]}"
    if token.kind == "text":
        yield from _of_text(text)
        return
    if token.kind == "sign" and text == "\\":
        yield f"writes a name with \\, which {HIDDEN}"
    if token.kind != "name":
        return
    if text == "constructor" and before.text in (".", "["):
        yield f"uses .constructor, which {CODE}"
    if text in _GLOBALS and after[0].text == "[" and before.text != ".":
        yield f"asks {text}[...] for a name, which {HIDDEN}"
    if text == "write" and before.text == ".":
        yield f"uses .write, which {MARKUP}"
    if text in _TIMERS and after[0].text == "(" and after[1].kind == "text":
        yield f"gives {text} a text, which {CODE}"
    if text in ("import", "from") and before.text != ".":
        yield from _of_import(text, after)


def _of_import(word: str, after: list[Token]) -> Iterator[str]:
    called = word == "import" and after[0].text == "("
    source = after[1] if called else after[0]
    if called and source.kind != "text":
        yield f"imports what is not written out, which {HIDDEN}"
    if source.kind == "text" and not source.text.startswith(_SOURCES):
        yield f"imports {source.text!r}, which is neither the plugin's nor ComfyUI's"


def _of_text(text: str) -> Iterator[str]:
    if found := _ADDRESS.search(text):
        yield f"holds the address {text[found.start() :][:40]!r}, which {HOST}"
    if text.lower() in _ELEMENTS:
        yield f"names the element {text}, which {CODE}"
    if _PACKED.search(text):
        yield f"holds a text of {len(text)} characters that nobody can read, which {HIDDEN}"
    if text == "constructor":
        yield f"uses 'constructor', which {CODE}"
