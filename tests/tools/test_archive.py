"""The plugin's archive for ComfyUI's registry: what is in it, and what keeps it back."""

import shutil
import subprocess
import zipfile

import pytest

from tools.setup.steps import SetupError
from tools.wheels import archive

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git lists the plugin's files")


def test_it_holds_what_comfyui_reads_and_no_sources_of_the_library(tmp_path):
    path = archive.make(tmp_path)
    with zipfile.ZipFile(path) as held:
        names = held.namelist()
    assert set(archive.NEEDED) <= set(names)
    assert any(name.startswith("example_workflows/") for name in names)
    assert not [name for name in names if name.startswith(("native", "tests", "tools", "assets"))]
    assert path.read_bytes() == archive.make(tmp_path / "again").read_bytes()


def test_git_reads_the_list_of_what_is_left_out_as_we_do(tmp_path):
    """The registry's program takes .comfyignore's lines as those of a .gitignore."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(archive.REPO / ".comfyignore", tmp_path / ".gitignore")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=archive.REPO, capture_output=True, check=True
    )
    asked = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin", "--no-index"],
        cwd=tmp_path, input=listed.stdout, capture_output=True, check=False,
    )  # fmt: skip
    every, left_out = (
        set(out.decode().split("\0")) - {""} for out in (listed.stdout, asked.stdout)
    )
    assert set(archive.files()) == every - left_out and left_out


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin of three files."""
    monkeypatch.setattr(archive, "REPO", tmp_path)
    monkeypatch.setattr(archive, "NEEDED", ("README.md",))
    for name, text in {"README.md": "words", "a.py": "x = 1", ".comfyignore": "/b/"}.items():
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("/out/")

    def make():
        subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
        return archive.make(tmp_path / "out")

    return make


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.py", "import subprocess", r"a\.py:1 imports subprocess, which starts programs"),
        ("a.js", "\neval(x)", r"a\.js:2 uses eval, which runs text as code"),
        ("a.bin", "x", r"a\.bin is of no kind that is published"),
    ],
)
def test_what_the_registry_refuses_is_named(plugin, tmp_path, name, content, words):
    """The rules themselves are tested in test_registry.py."""
    assert plugin().is_file()
    (tmp_path / name).write_text(content)
    with pytest.raises(SetupError, match=words):
        plugin()
    assert not list((tmp_path / "out").iterdir())


def test_other_faults_are_named(plugin, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("see /home/somebody/notes.txt")
    monkeypatch.setattr(archive, "NEEDED", ("LICENSE",))
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    with pytest.raises(SetupError) as told:
        plugin()
    for fault in ("LICENSE is missing", "names /home/somebody/notes.txt", "at most 0 are wanted"):
        assert fault in str(told.value)


@pytest.mark.parametrize("line", ["b/", "*.py", "/a/[b]", "!/c"])
def test_patterns_are_refused(plugin, tmp_path, line):
    (tmp_path / ".comfyignore").write_text(line)
    with pytest.raises(SetupError, match="must name files and folders by / and path"):
        plugin()


def test_without_git_it_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "REPO", tmp_path)
    with pytest.raises(SetupError, match="from a git clone"):
        archive.files()
