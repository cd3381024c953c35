"""Every file and folder that the docs name exists."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(
    [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    + [ROOT / f"{name}/README.md" for name in ("native", "native/cuda", "profiles", "assets/model")]
)
# What a run, a set-up or a user makes, and ComfyUI's own: not in the repository.
ELSEWHERE = ("out/", "output/", "models/", "results/", "/tmp/", ".cache", "custom_nodes", "comfy/")
ELSEWHERE += ("user/",)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.*/-]+\.(?:py|cpp|h|cu\*?|cuh|js|json|md|ini|txt)")
# A word with a slash: a folder, if it begins as one of ours does.
_FOLDER = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?")
# NAME.json, A.json
_PLACEHOLDER = re.compile(r"(?:^|/)[A-Z]{1,4}(?:[./]|$)")


def _tree() -> list[str]:
    skipped = {".git", ".cache", "__pycache__", "build"}
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if not skipped.intersection(parts):
            found.append("/".join(parts))
    return found


TREE = _tree()
TOP = {name.partition("/")[0] for name in TREE}


def _exists(name: str) -> bool:
    """Whether a path, or the end of one (`plan/plan.cpp`), is in the repository."""
    wanted = name.rstrip("/")
    return any(PurePosixPath(one).match(wanted) for one in TREE)


def _anchors(doc: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.*)$", doc.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _broken(doc: Path, link: str) -> bool:
    """Whether a link into the repository leads nowhere."""
    file, _, anchor = link.partition("#")
    target = doc.parent / file if file else doc
    return not target.exists() or bool(anchor and anchor not in _anchors(target))


def _named(text: str) -> list[str]:
    """Files and folders within backticks."""
    found = []
    for code in _CODE.findall(text):
        for word in code.split():
            if word.startswith(ELSEWHERE) or _PLACEHOLDER.search(word):
                continue
            if _FILE.fullmatch(word) and (word[0] != "." or "/" in word):
                found.append(word)
            elif _FOLDER.fullmatch(word) and word.partition("/")[0] in TOP:
                found.append(word)
    return found


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_path_that_a_doc_names_exists(doc):
    text = doc.read_text(encoding="utf-8")
    links = [link for link in _LINK.findall(text) if "://" not in link]
    broken = [link for link in links if _broken(doc, link)]
    missing = [name for name in _named(text) if not _exists(name)]
    assert not broken and not missing


def test_a_wrong_path_is_noticed():
    readme = ROOT / "README.md"
    assert _broken(readme, "docs/no.md") and _broken(readme, "docs/concepts.md#no-such-heading")
    assert not _broken(readme, "docs/concepts.md#token-grid")
    text = "See `plan/planning.py`, `no/such.py`, `native/nothing/` and `missing.cpp`."
    assert [name for name in _named(text) if not _exists(name)] == [
        "no/such.py",
        "native/nothing/",
        "missing.cpp",
    ]
