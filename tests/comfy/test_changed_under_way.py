"""What others change while a run goes on: its profile, another save of it, the model's place."""

import os
import subprocess
import sys
import threading
import time

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")
STEPS = 5


def at_evaluation(model, number, work):
    """A clone whose evaluation with that number (from 1) does some work first. To a profile such a
    wrapper is a change of the model."""
    from comfy.patcher_extension import WrappersMP

    clone, count = model.clone(), [0]

    def wrapper(executor, *args, **kwargs):
        count[0] += 1
        if count[0] == number:
            work()
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    return clone


# -- a profile that is replaced while a run uses it ------------------------------------------------


def _another(path, other):
    path.write_bytes(other)


def _by_rename(path, other):
    path.with_name("new").write_bytes(other)
    os.replace(path.with_name("new"), path)


def _garbage(path, other):
    path.write_bytes(b'{"schema"' + bytes(3000))


def _deleted(path, other):
    path.unlink()


def _a_folder(path, other):
    path.unlink()
    path.mkdir()


CHANGES = {
    "written over": _another,
    "replaced": _by_rename,
    "garbage": _garbage,
    "deleted": _deleted,
    "a folder": _a_folder,
}


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """(a profile's bytes, those of one that gives other masks)."""
    with pytest.MonkeyPatch.context() as patch:
        folders = harness.Folders(patch, tmp_path_factory.mktemp("made"))
        for name, seed in (("one", 1), ("two", 2)):
            watched = harness.calibrate(at_evaluation(model, 0, None), name=name)
            harness.sample(watched, steps=3, seed=seed)
        files = (folders.profiles / f"{name}.json" for name in ("one", "two"))
        return tuple(file.read_bytes() for file in files)


@pytest.fixture
def mine(folders, made):
    folders.profiles.mkdir(parents=True)
    path = folders.profiles / "mine.json"
    path.write_bytes(made[0])
    return path


def left(path):
    """What lies at a path now."""
    return "a folder" if path.is_dir() else path.read_bytes() if path.exists() else "nothing"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("node", ["named", "auto"])
def test_a_profile_that_changes_while_a_run_uses_it(model, folders, made, mine, node, change):
    """The run goes by what it has read. What lies there at its end is the other's."""
    inputs = {
        "named": {"profile": "mine"},
        "auto": {"profile": "auto", "watch": "always"},
    }[node]
    want = harness.sample(harness.paro(at_evaluation(model, 0, None), **inputs), steps=STEPS)
    assert "mine" in folders.last()["profile"]
    for path in folders.profiles.iterdir():
        path.unlink()
    mine.write_bytes(made[0])
    found = []

    def work():
        CHANGES[change](mine, made[1])
        found.append(left(mine))

    out = harness.sample(harness.paro(at_evaluation(model, 3, work), **inputs), steps=STEPS)
    assert torch.equal(out, want) and folders.last()["ok"]
    assert left(mine) == found[0]


@pytest.mark.parametrize("change", CHANGES)
def test_a_profile_that_changes_while_a_run_makes_it(model, folders, made, mine, change):
    """Saved as the run goes sparse, replaced by others, and saved once more at the end."""
    mine.unlink()

    def work():
        assert mine.is_file()
        CHANGES[change](mine, made[1])

    wrapped = at_evaluation(model, 3, work)
    out = harness.sample(harness.paro(wrapped, profile="none", save_as="mine"), steps=STEPS)
    assert torch.isfinite(out).all() and folders.last()["ok"] and folders.last()["renewals"]
    assert not [name for name in folders.names() if name.endswith(".tmp")]
    if change == "a folder":
        (reason,) = folders.last()["reasons"]
        assert reason.startswith("the profile could not be saved: ") and mine.is_dir()
        return
    # What it has learned is there: a run that observes takes the place of what would fit.
    assert not folders.last()["reasons"]
    assert left(mine) != made[1] and folders.load("mine").calibration.prompts == 1


# -- two that save at once -------------------------------------------------------------------------


def test_another_save_in_between_is_merged_too(model, folders, monkeypatch):
    """A calibration adds its prompt to what is there when it saves, not to what was there."""
    store = harness.part("store")
    harness.sample(harness.calibrate(model), steps=2, seed=1)
    first = store.load("mine")
    tensors, others = store.with_held_capture, []

    def beside(*args):
        if not others:
            # The other server's calibration comes to its end.
            others.append(store.save("mine", _with_prompts(first, 5)))
        return tensors(*args)

    monkeypatch.setattr(store, "with_held_capture", beside)
    harness.sample(harness.calibrate(model), steps=2, seed=2)
    assert others and folders.load("mine").calibration.prompts == 6
    assert folders.last()["reasons"] == {}


def _with_prompts(profile, prompts):
    from paroattention import Profile

    copy = Profile.parse(profile.dump())
    calibration = copy.calibration
    calibration.prompts = prompts
    copy.calibration = calibration
    return copy


def test_a_profile_that_is_always_replaced_is_told(model, folders, monkeypatch):
    store = harness.part("store")
    harness.sample(harness.calibrate(model), steps=2)
    before = folders.load("mine").dump()

    def replaced(*args, **kwargs):
        raise store.Replaced("profile mine is another one on the server now")

    monkeypatch.setattr(store, "save", replaced)
    harness.sample(harness.calibrate(model), steps=2)
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("the profile could not be saved: profile mine is another one")
    assert folders.load("mine").dump() == before


HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_a_save_waits_for_another_servers_but_not_without_end(tmp_path, monkeypatch):
    module = harness.part("alone")
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    began = time.monotonic()
    with module.alone(tmp_path):
        assert 0.3 <= time.monotonic() - began < 20
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    order = []

    def save():
        with module.alone(tmp_path):
            order.append("ours")

    ours = threading.Thread(target=save)
    ours.start()
    ours.join(0.2)
    order.append("theirs")
    other.communicate()
    ours.join(30)
    assert order == ["theirs", "ours"]
    with module.alone(tmp_path / "missing"):
        pass


# -- versions that times do not tell apart ---------------------------------------------------------


@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_a_profile_of_the_same_time_and_size_is_read_again(model, folders, made, mine, how):
    """A clock that was set back, or times of whole seconds."""
    store, other = harness.part("store"), made[0].replace(b'"queries": 16', b'"queries": 17')
    assert len(other) == len(made[0]) and other != made[0]
    os.utime(mine, (1000, 1000))
    assert store.load("mine").calibration.queries == 16
    CHANGES[how](mine, other)
    os.utime(mine, (1000, 1000))
    assert store.load("mine").calibration.queries == 17


# -- the model's place -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("how", ["unloaded", "memory freed", "cache emptied"])
def test_a_model_that_is_unloaded_between_two_steps(model, folders, how, number):
    import comfy.model_management as management

    work = {
        "unloaded": management.unload_all_models,
        "memory freed": lambda: management.free_memory(1e30, torch.device("cpu")),
        "cache emptied": management.soft_empty_cache,
    }[how]
    want = harness.sample(harness.paro(model, profile="none"), steps=STEPS)
    wrapped = harness.paro(at_evaluation(model, number, work), profile="none")
    assert torch.equal(harness.sample(wrapped, steps=STEPS), want)
    assert folders.steps() == "o" + "s" * (STEPS - 1) and not folders.last()["reasons"]
