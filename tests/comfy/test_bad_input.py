"""Bad profiles: a clear error, or a dense run with its reason; nothing is lost or written."""

import json
import os
import sys

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

NAN = float("nan")


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """The document of a valid profile of this model and grid."""
    with pytest.MonkeyPatch.context() as patch:
        folders = harness.Folders(patch, tmp_path_factory.mktemp("good"))
        harness.sample(harness.paro(model, save_as="good"), steps=2)
        return json.loads((folders.profiles / "good.json").read_text())


@pytest.fixture(scope="module")
def error():
    import paroattention

    return paroattention.Error


def put(folders, content, name="bad"):
    folders.profiles.mkdir(parents=True, exist_ok=True)
    path = folders.profiles / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def tree(folders):
    """Everything below the test's folder, with its content."""
    root = folders.profiles.parents[1]
    files = (p for p in root.rglob("*") if p.is_file() and p.stat().st_size < 1 << 20)
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def changed(good, place, value):
    document = json.loads(json.dumps(good))
    at = document
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return document


def text(good):
    return json.dumps(good).encode()


GROUP = ("layers", 1, "heads", 0, "groups", 0)
# How a file is broken, and what the error must name.
BROKEN = {
    "empty": (lambda good: b"", []),
    "truncated": (lambda good: text(good)[:700], []),
    "no JSON": (lambda good: b"\x89PNG\r\n\x1a\n" + bytes(100), []),
    "not UTF-8": (lambda good: text(good).replace(b"wan2.1", b"w\xff.1"), []),
    "deeply nested": (lambda good: b"[" * 100_000, ["deep", "16"]),
    "unknown key": (lambda good: changed(good, ("extra",), 1), ["extra"]),
    "unknown key within": (lambda good: changed(good, (*GROUP, "x"), 1), ["layers[1]", "x"]),
    "duplicate key": (
        lambda good: text(good).replace(b'"bins":', b'"bins": {}, "bins":', 1), ["bins"],
    ),
    "NaN": (lambda good: changed(good, (*GROUP, "peak"), NAN), []),
    "infinity": (lambda good: text(good).replace(b'"peak": ', b'"peak": 1e999, "p": ', 1), []),
    "missing key": (
        lambda good: {k: v for k, v in good.items() if k != "defaults"}, ["defaults"],
    ),
    "too few heads": (lambda good: changed(good, ("model", "heads"), 3), ["heads"]),
    "too few layers": (lambda good: changed(good, ("layers",), good["layers"][:1]), ["layers"]),
    "kernel of another size": (
        lambda good: changed(good, (*GROUP, "kernel"), "eJwDAAAAAAE="), ["layers[1]", "kernel"],
    ),
    "kernel no base64": (lambda good: changed(good, (*GROUP, "kernel"), "!!"), ["kernel"]),
    "wrong schema": (lambda good: changed(good, ("schema",), "paroattention/9"), ["schema"]),
    "a list": (lambda good: b"[1, 2, 3]", []),
    "density 7": (lambda good: changed(good, ("defaults", "density"), 7), ["defaults.density"]),
    "huge counts": (lambda good: changed(good, ("model", "layers"), 2**31 - 1), ["layers"]),
    "grid of 2^60": (
        lambda good: changed(good, ("calibration", "grids"), [[2**20, 2**20, 2**20]]), ["grids"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_profile_is_refused_by_name_before_sampling(model, folders, good, error, case):
    make, words = BROKEN[case]
    put(folders, make(good))
    before = tree(folders)
    with pytest.raises(error) as caught:
        harness.paro(model, profile="bad")
    told = str(caught.value)
    assert "bad.json" in told and not [word for word in words if word not in told], told
    assert len(told) < 600 and tree(folders) == before


@pytest.mark.parametrize("case", ["truncated", "deeply nested", "unknown key", "wrong schema"])
def test_auto_skips_a_broken_profile_and_says_so(model, folders, good, case):
    path = put(folders, BROKEN[case][0](good))
    before = path.read_bytes()
    harness.sample(harness.paro(model), steps=3)
    assert folders.steps() == "oss"
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("profile bad skipped: ") and len(reason) < 600
    assert path.read_bytes() == before and len(folders.names()) == 3


def test_auto_takes_the_good_one_beside_a_broken_one(model, folders, good):
    put(folders, b"{", "a-bad")
    put(folders, good, "b-good")
    harness.sample(harness.paro(model), steps=3)
    assert folders.steps() == "sss" and folders.last()["profile"].startswith("b-good")


def test_a_huge_file_is_refused_by_its_size(model, folders, error):
    path = put(folders, b"{")
    with path.open("r+b") as file:
        file.truncate(65 << 20)
    with pytest.raises(error, match=r"bad\.json.*(bytes|MB)"):
        harness.paro(model, profile="bad")
    harness.sample(harness.paro(model), steps=3)
    assert folders.steps() == "oss"


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "dangling link"])
def test_what_is_no_regular_file_is_no_profile(model, folders, error, kind):
    folders.profiles.mkdir(parents=True)
    path = folders.profiles / "odd.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere.json")
    assert "odd" not in harness.part("store").names()
    with pytest.raises(error, match="profile must"):
        harness.paro(model, profile="odd")
    harness.sample(harness.paro(model), steps=2)
    assert folders.steps() == "os"


@pytest.fixture
def outside(folders, good):
    """A valid profile one level above the folder, and in it nothing."""
    folders.profiles.mkdir(parents=True)
    (folders.profiles.parent / "outside.json").write_text(json.dumps(good))
    return folders


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_out_of_the_folder_is_neither_read_nor_written(model, outside, error):
    target = outside.profiles.parent / "outside.json"
    (outside.profiles / "link.json").symlink_to(target)
    before = target.read_bytes()
    with pytest.raises(error, match=r"profile must lie in paro/"):
        harness.paro(model, profile="link")
    harness.sample(harness.paro(model, profile="none", save_as="link"), steps=2)
    assert target.read_bytes() == before and (outside.profiles / "link.json").is_symlink()
    assert "link-3x6x8.json" in outside.names()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_folder_itself_may_be_a_link(model, folders):
    elsewhere = folders.profiles.parents[1] / "elsewhere"
    elsewhere.mkdir()
    folders.profiles.parent.mkdir(parents=True)
    folders.profiles.symlink_to(elsewhere)
    harness.sample(harness.paro(model, save_as="mine"), steps=2)
    harness.sample(harness.paro(model, profile="mine"), steps=2)
    assert folders.steps() == "ss" and (elsewhere / "mine.json").is_file()


# -- what changes between queue and run ------------------------------------------------------------


def no_model_call(model):
    """A model that must not be called: the error comes before the sampling costs time."""

    def called(func, *args, **kwargs):
        raise AssertionError("sampled")

    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = called
    return clone


@pytest.mark.parametrize("fault", ["deleted", "truncated", "replaced by a folder"])
def test_a_profile_lost_between_queue_and_run(model, folders, good, error, fault):
    path = put(folders, good, "mine")
    wrapped = harness.paro(no_model_call(model), profile="mine", start_percent=0.5)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    else:
        path.unlink()
        if fault != "deleted":
            path.mkdir()
    before = tree(folders)
    with pytest.raises(error, match="mine"):
        harness.sample(wrapped)
    assert tree(folders) == before


def test_a_profile_replaced_between_runs_is_read_again(model, folders, good):
    path = put(folders, good, "mine")
    wrapped = harness.paro(model, profile="mine", density=0.3)
    harness.sample(wrapped, steps=2)
    before = folders.last()["density"]
    heads = [{**head, "density": 1, "locked": True} for head in good["layers"][0]["heads"]]
    layers = [{**layer, "heads": heads} for layer in good["layers"]]
    path.write_text(json.dumps(good | {"layers": layers}))
    harness.sample(wrapped, steps=2)
    assert before < 0.6 and folders.last()["density"] == 1


@pytest.mark.parametrize("blocked", ["profiles", "output"])
def test_a_folder_that_cannot_be_written_does_not_end_the_run(model, folders, blocked):
    path = getattr(folders, blocked)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    out = harness.sample(harness.paro(model), steps=3)
    assert torch.isfinite(out).all() and path.read_text() == "in the way"
    if blocked == "profiles":
        assert folders.steps() == "oss"
        (reason,) = folders.last()["reasons"]
        assert reason.startswith("the profile could not be saved: ")
    else:
        assert len(folders.names()) == 2


def on_a_full_disk(save):
    """The same function while no file may grow beyond 500 bytes."""
    resource = pytest.importorskip("resource")

    def limited(*args):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            return save(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def test_a_full_disk_leaves_the_old_profile_and_no_temporary_file(model, folders, monkeypatch):
    harness.sample(harness.calibrate(model), steps=2)
    before = tree(folders)
    store = harness.part("store")
    monkeypatch.setattr(store, "save", on_a_full_disk(store.save))
    harness.sample(harness.calibrate(model), steps=2)
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("the profile could not be saved: ") and "mine" in reason
    log = "output/paro/runlog.jsonl"
    assert {k: v for k, v in tree(folders).items() if k != log} == {
        k: v for k, v in before.items() if k != log
    }
