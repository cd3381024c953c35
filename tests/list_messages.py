"""Lists the messages that a person can meet.

    python tests/list_messages.py --kind error --grep profile

A line is `file:line kind text`. Parts that are filled in when the program runs stand in braces.
Kinds: error (raised, required, refused), note (told or logged during a run), help (of commands and
of a node's inputs), text (all other strings of two words or more, such as constants that hold a
reason, and the words of the page and of the viewer).
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("comfy_nodes", "native", "tools", "viewer", "run.py")
KINDS = ("error", "note", "help", "text")
_HELP = {"help", "description", "epilog", "tooltip"}
_NOTE = re.compile(r"(^|\.)_?(note|print|say|tell)$|\blog\.\w+$")
_REFUSE = re.compile(r"(^|\.)_?(require\w*|refuse\w*|fail\w*|error)$|(Error|Refusal)$")
_CPP_REFUSE = re.compile(
    r"\b(?:require\w*|fail\w*|refuse\w*|throw\s+[\w:]+|return\s+Refusal)\s*[({]"
)
# Comments are matched too, so that quotes within them are not taken for strings.
_CPP_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|#\s*include[^\n]*|R\"(?P<mark>\w*)\((?P<raw>.*?)\)(?P=mark)\""
    r"|\"(?P<text>(?:\\.|[^\"\\\n])*)\"|'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)
_JS_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?P<text>(?:\\.|[^\"\\\n])*)\"|`(?P<template>(?:\\.|[^`\\])*)`",
    re.DOTALL,
)


class Message(NamedTuple):
    """line: where the text begins, from 1."""

    file: str
    line: int
    kind: str
    text: str


def is_prose(text: str) -> bool:
    """Whether a string is of two words or more, or in Chinese: all else is a name or a format."""
    return bool(re.search(r"[^\W\d_]{2,}[,.:;)]* +[(\"']?[^\W\d_{]|[一-鿿]", text))


def _text(node: ast.AST) -> str | None:
    """A string expression with its filled-in parts in braces; None for other expressions."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
            for part in node.values
        )
    return None


class _Python(ast.NodeVisitor):
    """Collects (line, kind, text): a call or a raise decides the kind of the strings in it."""

    def __init__(self):
        self.found: list[tuple[int, str, str]] = []
        self._kind = "text"

    def _within(self, kind: str, node: ast.AST) -> None:
        before, self._kind = self._kind, kind
        self.generic_visit(node)
        self._kind = before

    def visit_Raise(self, node: ast.Raise) -> None:
        self._within("error", node)

    def visit_Call(self, node: ast.Call) -> None:
        name, kind = ast.unparse(node.func), self._kind
        if _NOTE.search(name):
            kind = "note"
        elif _REFUSE.search(name):
            kind = "error"
            # The argument's name and its rule are strings of their own: one message together.
            parts = [_text(argument) for argument in node.args]
            texts = [part for part in parts if part]
            if len(texts) > 1:
                self.found.append((node.lineno, kind, " | ".join(texts)))
                return
        self._within(kind, node)

    def visit_keyword(self, node: ast.keyword) -> None:
        self._within("help" if node.arg in _HELP else self._kind, node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if _text(node.value) is None:  # else a docstring
            self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        text = _text(node)
        if text is None:
            super().generic_visit(node)
        elif is_prose(text):
            self.found.append((node.lineno, self._kind, text))
        else:  # parts that are chosen as the program runs may be prose where the whole is not
            super().generic_visit(node)


def in_python(source: str) -> list[tuple[int, str, str]]:
    """(line, kind, text) of a Python file's messages."""
    visitor = _Python()
    visitor.visit(ast.parse(source))
    return visitor.found


def _line(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def _close(source: str, start: int, tokens: list[re.Match]) -> int:
    """Where the bracket at `start` closes; brackets within strings and comments do not count."""
    depth, ends = 0, {token.start(): token.end() for token in tokens}
    place = start
    while place < len(source):
        if place in ends:
            place = ends[place]
            continue
        depth += (source[place] in "({") - (source[place] in ")}")
        if depth == 0:
            return place
        place += 1
    return len(source)


def in_cpp(source: str) -> list[tuple[int, str, str]]:
    """(line, kind, text) of a C++ file's messages; the strings of one refusal stand together."""
    tokens = list(_CPP_TOKEN.finditer(source))
    strings = [
        (token.start(), token["text"] if token["text"] is not None else token["raw"])
        for token in tokens
        if token["text"] is not None or token["raw"] is not None
    ]
    found, taken = [], set()
    for call in _CPP_REFUSE.finditer(source):
        end = _close(source, call.end() - 1, tokens)
        parts = [(at, text) for at, text in strings if call.start() < at < end and at not in taken]
        taken |= {at for at, _ in parts}
        texts = [text for _, text in parts if text.strip()]
        if any(is_prose(text) for text in texts) or len(texts) > 1:
            found.append((call.start(), "error", " | ".join(texts)))
    found += [(at, "text", text) for at, text in strings if at not in taken and is_prose(text)]
    return [(_line(source, at), kind, text) for at, kind, text in sorted(found)]


def in_js(source: str) -> list[tuple[int, str, str]]:
    """(line, kind, text) of a script's strings; one-word values of a table count too."""
    found = []
    for token in _JS_TOKEN.finditer(source):
        text = token["text"] or token["template"]
        before = source[source.rfind("\n", 0, token.start()) + 1 : token.start()]
        if text and (is_prose(text) or re.fullmatch(r" +\w+: ", before)):
            found.append((_line(source, token.start()), "text", text))
    return found


_READERS = {".py": in_python, ".js": in_js}
_READERS |= dict.fromkeys((".cpp", ".h", ".cu", ".cuh"), in_cpp)


def messages(paths: list[Path]) -> Iterator[Message]:
    """The messages of these files and of all in these folders."""
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            reader = _READERS.get(file.suffix)
            if reader is None:
                continue
            name = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)
            for line, kind, text in reader(file.read_text(encoding="utf-8")):
                yield Message(name, line, kind, " ".join(text.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description="List the messages that a person can meet.")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders (default: all code)")
    parser.add_argument("--kind", choices=KINDS, help="only messages of this kind")
    parser.add_argument("--grep", default="", help="only texts that match this regular expression")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.paths] or [ROOT / name for name in FOLDERS]
    for one in messages(paths):
        if options.kind in (None, one.kind) and re.search(options.grep, one.text, re.IGNORECASE):
            print(f"{one.file}:{one.line} {one.kind} {one.text}")


if __name__ == "__main__":
    main()
