"""Names that people's profiles have, in every place that takes one; and those that are none."""

import json
import os
import sys
import unicodedata

import harness
import pytest

pytestmark = pytest.mark.usefixtures("folders")

NAMES = ["shared (1)", "mein profil für wan", "配置", "[14B] 100% & more", "профиль", "x" * 235]


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """The bytes of a valid profile of this model and grid."""
    with pytest.MonkeyPatch.context() as patch:
        folders = harness.Folders(patch, tmp_path_factory.mktemp("good"))
        harness.sample(harness.calibrate(model, name="good"), steps=2)
        return (folders.profiles / "good.json").read_bytes()


@pytest.fixture
def store(folders):
    folders.profiles.mkdir(parents=True)
    return harness.part("store")


def put(folders, name, content):
    path = folders.profiles / (name + ".json")
    path.write_bytes(content)
    return path


def options():
    return harness.part("nodes")._profile_options()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_the_node_offers_it_takes(model, folders, store, good, name):
    put(folders, name, good)
    assert name in options()
    assert harness.part("nodes").PAROAttention.validate_inputs(profile=name) is True
    assert harness.part("inspect_heads").PAROInspect.validate_inputs(profile=name) is True
    for profile in (name, "auto"):
        harness.sample(harness.paro(model, profile=profile), steps=3)
        assert folders.steps() == "sss" and folders.last()["profile"].startswith(name)
        assert not folders.last()["reasons"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_safe_name_can_be_saved_and_calibrated(model, folders, name):
    both = [f"{name}.capture.safetensors", f"{name}.json"]
    harness.sample(harness.paro(model, profile="none", save_as=name), steps=2)
    assert folders.names() == both
    assert harness.part("store").delete(name) and folders.names() == []
    for _ in range(2):
        harness.sample(harness.calibrate(model, name=name), steps=2)
    assert folders.load(name).calibration.prompts == 2 and folders.names() == both
    harness.sample(harness.calibrate(model, name=name), steps=2, grid=(9, 6, 8))
    beside = set(folders.names()) - set(both)
    assert beside == {f"{name[:60]}-9x6x8{end}" for end in (".json", ".capture.safetensors")}


def spellings(name):
    return [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]


@pytest.mark.parametrize("on_disk", [0, 1], ids=["NFC file", "NFD file"])
@pytest.mark.parametrize("asked", [0, 1], ids=["asked in NFC", "asked in NFD"])
def test_a_name_is_the_same_in_both_of_unicodes_spellings(
    model, folders, store, good, on_disk, asked
):
    """A profile from a Mac, and a workflow from one."""
    file, name = spellings("naïve für Wan")[on_disk], spellings("naïve für Wan")[asked]
    put(folders, file, good)
    (folders.profiles / (spellings(file)[1 - on_disk] + ".capture.safetensors")).write_bytes(b"x")
    assert [one for one in options() if one.startswith("na")] == [spellings(file)[0]]
    assert harness.part("nodes").PAROAttention.validate_inputs(profile=name) is True
    assert store.capture(name) is not None
    harness.sample(harness.paro(model, profile=name), steps=2)
    assert folders.steps() == "ss"
    # It is renewed where it lies: no second file, and no second capture.
    before = folders.names()
    harness.sample(harness.calibrate(model, name=name), steps=2)
    assert folders.names() == before and folders.load(file).calibration.prompts == 2
    assert store.delete(name) and folders.names() == []


def test_two_spellings_of_one_name_in_a_folder(folders, store, good):
    composed, apart = spellings("für")
    put(folders, composed, good)
    if put(folders, apart, good).samefile(folders.profiles / f"{composed}.json"):
        pytest.skip("this file system takes them for one")
    assert store.names().count(composed) == 1
    (told,) = store.not_offered()
    assert "other Unicode characters" in str(told) and told.rename == f"{composed}-2.json"


def test_capitals_count_only_where_both_are_there(folders, store, good):
    path = put(folders, "Mine", good)
    assert store.find("mine").samefile(path) and store.names()[0] == "Mine"
    profile = store.load("MINE")
    profile.calibration.prompts = 7
    assert store.save("mine", profile).samefile(path) and folders.names() == ["Mine.json"]
    other = put(folders, "mine", good)
    if other.samefile(path):
        pytest.skip("this file system takes them for one")
    assert store.find("mine") == other and store.find("Mine") == path
    assert store.load("Mine").calibration.prompts == 7 != store.load("mine").calibration.prompts


UNSAFE = {
    "a.": "a.json",
    "two ": "two.json",
    ".hidden": "hidden.json",
    "con": "_con.json",
    "auto": "auto-profile.json",
    "None": "None-profile.json",
    "SCHEMA": "SCHEMA-profile.json",
    "a:b": "a_b.json",
    "a\\b": "a_b.json",
    "bell\x07": "bell_.json",
    "right\u202eleft": "rightleft.json",
    "x" * 240: "x" * 235 + ".json",
    os.fsdecode(b"gr\xfcn"): "gr_n.json",
}


@pytest.mark.skipif(sys.platform != "linux", reason="no such names there")
@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_an_unsafe_name_is_not_offered_and_told(model, folders, store, good, error, name):
    path = put(folders, name, good)
    assert name not in store.names() and options() == ["auto", "none", *store.names()]
    node = harness.part("nodes").PAROAttention
    if name.casefold() not in ("auto", "none"):
        assert node.validate_inputs(profile=name) is not True
        with pytest.raises(error):
            harness.paro(model, profile=name)
    (told,) = store.not_offered()
    assert told.rename == UNSAFE[name] and all(c.isprintable() for c in str(told))
    harness.sample(harness.paro(model), steps=2)
    (reason,) = folders.last()["reasons"]
    assert reason == str(told) and f"rename it to {told.rename}" in reason
    # As it says, so it works.
    path.rename(folders.profiles / told.rename)
    assert store.not_offered() == [] and told.rename.removesuffix(".json") in options()


@pytest.fixture
def error():
    import paroattention

    return paroattention.Error


def test_a_suggestion_is_free(folders, store, good):
    for name in ("a", "A-2", "a."):
        put(folders, name, good)
    assert [told.rename for told in store.not_offered()] == ["a-3.json"]


@pytest.mark.parametrize("name", ["._shared", "._", ".paro-1-2.tmp"])
def test_files_of_the_system_are_left_alone_without_a_word(folders, store, good, name):
    """macOS keeps attributes beside a file on disks of other systems."""
    put(folders, "shared", good)
    put(folders, name, b"\0\5\x16\7")
    assert store.names()[0] == "shared"
    assert [told for told in store.not_offered() if told.file.startswith("._")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_out_of_the_folder_is_not_offered(folders, store, good):
    outside = folders.profiles.parent / "outside.json"
    outside.write_bytes(good)
    (folders.profiles / "link.json").symlink_to(outside)
    put(folders, "real", good)
    (folders.profiles / "inside.json").symlink_to("real.json")
    assert "link" not in options() and "inside" in options()
    (told,) = store.not_offered()
    assert "link to a place outside the folder" in str(told) and "put the file itself into" in str(
        told
    )


# -- encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-16", "UTF-16 (little-endian)"),
        ("utf-16-le", "UTF-16 (little-endian)"),
        ("utf-16-be", "UTF-16 (big-endian)"),
        ("utf-32", "UTF-32 (little-endian)"),
        ("latin-1", "saved as UTF-8"),
    ],
)
def test_another_encoding_says_what_to_do(folders, store, good, error, encoding, words):
    text = good.decode().replace("sample_euler", "sampler für Wan")
    put(folders, "notepad", text.encode(encoding))
    with pytest.raises(error) as caught:
        store.load("notepad")
    told = str(caught.value)
    assert "notepad.json" in told and "saved as UTF-8" in told and words in told and len(told) < 400
    (entry,) = [one for one in store.describe_all() if one["name"] == "notepad"]
    assert "saved as UTF-8" in entry["error"]


def test_utf_8_with_a_mark_is_read(model, folders, store, good):
    put(folders, "marked", b"\xef\xbb\xbf" + good)
    harness.sample(harness.paro(model, profile="marked"), steps=2)
    assert folders.steps() == "ss"
    assert json.loads(store.load("marked").dump()) == json.loads(good)
