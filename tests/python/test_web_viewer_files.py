"""The viewer for the page as the library hands it out: its own files, as they were built."""

import gzip
import hashlib
import json

import pytest
from paroattention import web_viewer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    content = {name: name.encode() * 50 for name in web_viewer.TYPES}
    for name, bytes_ in content.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes_))
    files = {
        name: {"sha256": hashlib.sha256(bytes_).hexdigest()} for name, bytes_ in content.items()
    }
    (tmp_path / web_viewer.MANIFEST).write_text(json.dumps({"files": files}))
    monkeypatch.setattr(web_viewer, "folder", lambda: tmp_path)
    return tmp_path


def test_each_file_is_as_it_was_built(folder):
    assert web_viewer.problem() == ""
    for name, kind in web_viewer.TYPES.items():
        file = web_viewer.read(name)
        assert file.plain() == name.encode() * 50 and file.type == kind
        assert file.sha256 == hashlib.sha256(file.plain()).hexdigest()


@pytest.mark.parametrize("name", ["files.json", "viewer.html.gz", "../web_viewer.py", "", "x"])
def test_other_names_are_no_files(folder, name):
    assert web_viewer.read(name) is None


def test_changed_bytes_are_refused(folder):
    (folder / "viewer.js.gz").write_bytes(gzip.compress(b"another program"))
    with pytest.raises(ValueError, match=r"viewer\.js must be the file that was built"):
        web_viewer.read("viewer.js")


def test_a_library_without_it_says_so(folder):
    (folder / web_viewer.MANIFEST).unlink()
    assert "python3 run.py web-viewer" in web_viewer.problem()
    assert web_viewer.read("viewer.js") is None
