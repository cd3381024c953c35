"""How wheels are put together, and what keeps one from being shipped."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools.setup.steps import SetupError
from tools.wheels import check, components, pack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wheels are made on Linux")


def native() -> Path:
    import paroattention

    return next(Path(paroattention.__file__).parent.glob("_core*.so"))


def wheel(folder, **built) -> Path:
    """A wheel for Linux; built: contents of compiled files by name, with _ for the last dot."""
    files = {}
    for name, content in built.items():
        file = folder / "built" / name.replace("__", ".")
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content)
        files[file.name] = file
    return pack.wheel("linux", files, [PART], folder)


BILL = "sboms/paroattention.cdx.json"
PART = components.Component(
    name="A library",
    version="1.0 beta",
    license="MIT",
    url="pkg:github/a/library",
    what="does something",
    text=("other.txt", pack.REPO / "LICENSE"),
)


def test_two_builds_are_the_same(tmp_path):
    first = wheel(tmp_path / "a", data__bin=b"1").read_bytes()
    assert first == wheel(tmp_path / "b", data__bin=b"1").read_bytes()
    assert first != wheel(tmp_path / "c", data__bin=b"2").read_bytes()


def test_pip_installs_it_and_finds_what_it_records(tmp_path):
    made, site = wheel(tmp_path, _core__so=native().read_bytes()), tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q"]
    done = subprocess.run([*command, "--target", str(site), str(made)], capture_output=True)
    assert done.returncode == 0, done.stderr
    for name in ("__init__.py", "run/session.py", "_core.so"):
        assert (site / "paroattention" / name).is_file()
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        record = list(csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode())))
        metadata = archive.read(f"{info}/METADATA").decode()
    assert sorted(name for name, *_ in record) == sorted(names)
    assert all(digest for name, digest, _ in record if not name.endswith("RECORD"))
    assert f"Version: {pack.project()['version']}\n" in metadata
    # pip must not exchange ComfyUI's torch.
    assert "Requires-Dist: numpy" in metadata and "Requires-Dist: torch" not in metadata
    assert f"{info}/licenses/other.txt" in names and f"{info}/{BILL}" in names


def test_the_list_of_materials_is_of_the_format_that_it_names(tmp_path):
    with zipfile.ZipFile(wheel(tmp_path)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(BILL)]
        text = archive.read(name).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert [one["name"] for one in bill["components"]] == ["A library"]
    assert bill["components"][0]["purl"] == "pkg:github/a/library@1.0%20beta"
    # The validator takes what is wrong for wrong.
    wrong = text.replace('"type": "library"', '"type": "book"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


@pytest.mark.parametrize(
    ("dropped", "fault"),
    [("licenses/other.txt", "A library has no licenses/other.txt"), (BILL, "no list of materials")],
)
def test_a_part_without_licence_is_refused(tmp_path, dropped, fault):
    made = wheel(tmp_path / "whole")
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(tmp_path / made.name, "w") as other:
        for name in archive.namelist():
            if not name.endswith(dropped):
                other.writestr(name, archive.read(name))
    with pytest.raises(SetupError, match=fault):
        check.check(tmp_path / made.name, "linux")


def test_a_licence_of_no_part_is_refused(tmp_path):
    made = wheel(tmp_path)
    with zipfile.ZipFile(made, "a") as archive:
        info = archive.namelist()[-1].split("/")[0]
        archive.writestr(f"{info}/licenses/stray.txt", "x")
    with pytest.raises(SetupError, match=r"licenses/stray\.txt is of no listed part"):
        check.check(made, "linux")


def test_versions_are_read_from_what_is_compiled(tmp_path):
    header = tmp_path / "a.h"
    defines = ('#define A_VERSION "1.2 WIP"', "#define B_MAJOR 3", "#define B_MINOR 4")
    header.write_text("\n".join(defines))
    assert components._define(header, "A_VERSION") == "1.2 WIP"
    assert components._numbers(tmp_path, "B", "MAJOR MINOR") == "3.4"
    with pytest.raises(SetupError, match="No version"):
        components._define(header, "C_VERSION")
    with pytest.raises(SetupError, match="No version of C"):
        components._numbers(tmp_path, "C", "MAJOR")


def test_only_the_package_is_in_it(tmp_path):
    with zipfile.ZipFile(wheel(tmp_path)) as archive:
        assert not [name for name in archive.namelist() if "comfy_nodes" in name or ".so" in name]


def test_versions_agree():
    assert pack.require_one_version() == pack.project()["version"]


@pytest.mark.parametrize("file", ["CMakeLists.txt", "requirements.txt"])
def test_a_version_that_differs_is_named(tmp_path, monkeypatch, file):
    for name in ("CMakeLists.txt", "requirements.txt", "pyproject.toml"):
        text = (pack.REPO / name).read_text(encoding="utf-8")
        other = text.replace(pack.project()["version"], "0.9.7") if name == file else text
        (tmp_path / name).write_text(other, encoding="utf-8")
    monkeypatch.setattr(pack, "REPO", tmp_path)
    with pytest.raises(SetupError, match=rf"{file} must name .* \(got 0.9.7\)"):
        pack.require_one_version()


def test_a_wheel_without_fault_is_listed(tmp_path):
    names = dict(check.check(wheel(tmp_path, data__bin=b"12345"), "linux"))
    assert names["paroattention/data.bin"] == 5


def test_a_library_that_needs_a_runtime_of_the_system_is_refused(tmp_path):
    """The one of a developer's build does."""
    with pytest.raises(SetupError) as told:
        check.check(wheel(tmp_path, _core__so=native().read_bytes()), "linux")
    assert "must not be shipped" in str(told.value) and "libstdc++" in str(told.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"x\0/home/somebody/src/paro.cpp\0", "/home/somebody/src/paro.cpp"), (b"\x7fELF", "readelf")],
    ids=["a path of the machine", "a damaged library"],
)
def test_faults_are_named(tmp_path, content, fault):
    name = "_core__so" if content[:4] == b"\x7fELF" else "data__bin"
    with pytest.raises(SetupError, match=fault):
        check.check(wheel(tmp_path, **{name: content}), "linux")


def test_a_wheel_may_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MOST_BYTES", 1 << 10)
    with pytest.raises(SetupError, match="MiB, at most"):
        check.check(wheel(tmp_path), "linux")


@pytest.mark.parametrize("name", ["_core", "_torch_ops"])
def test_a_library_offers_its_entry_points_alone(name):
    file = Path(f"{name}.so")
    allowed = check.EXPORTS[name]
    assert not check._offers(file, set(allowed))
    assert "offers 1 names more, such as malloc" in check._offers(file, {*allowed, "malloc"})[0]
    assert "does not offer" in check._offers(file, set())[0]
