"""tests/list_messages.py finds messages of each kind, in each language."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import list_messages  # noqa: E402

ROOT = TESTS.parent


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str, str]]:
    """(file, kind, text) of every message."""
    paths = [ROOT / name for name in list_messages.FOLDERS]
    return {(one.file, one.kind, one.text) for one in list_messages.messages(paths)}


@pytest.mark.parametrize(
    ("file", "kind", "part"),
    [
        ("native/python/paroattention/settings.py", "error", "must be int8 or bf16"),
        ("comfy_nodes/routes.py", "error", "a profile must not exceed"),
        ("comfy_nodes/run.py", "note", "was made with other LoRAs"),
        ("comfy_nodes/patch.py", "note", "this run stays dense"),
        ("comfy_nodes/nodes.py", "help", "attention blocks that are computed"),
        ("run.py", "help", "run all tests"),
        ("comfy_nodes/override.py", "text", "attention mask"),
        ("native/core/src/plan/plan.cpp", "error", "heads | must hold at least one head"),
        ("viewer/panels/help.cpp", "text", "What am I looking at?"),
        ("comfy_nodes/web/words.js", "text", "校准"),
    ],
)
def test_known_messages_are_listed_with_their_kind(found, file, kind, part):
    assert any(one[:2] == (file, kind) and part in one[2] for one in found)


def test_docstrings_and_comments_are_no_messages():
    python = '"""A docstring of a module."""\n# a comment of words\nraise ValueError("two words")\n'
    assert list_messages.in_python(python) == [(3, "error", "two words")]
    cpp = '// a "comment" of words\nrequire(ok, "name", "must be one");\n'
    assert list_messages.in_cpp(cpp) == [(2, "error", "name | must be one")]
    assert list_messages.in_js('// "not this one"\nsay("but this one")\n') == [
        (2, "text", "but this one")
    ]


def test_the_command_filters_by_kind_and_words():
    command = [sys.executable, TESTS / "list_messages.py", "run.py", "--kind", "help"]
    lines = subprocess.run(
        [*command, "--grep", "RUN ALL"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(lines) == 1 and lines[0].endswith(" help run all tests")
