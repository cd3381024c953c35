"""The user's settings file: what it sets, and that no content of it ends a run."""

import json
import os

import harness
import pytest

DEFAULTS = (None, 8, 0.05)
NAME = "user/__paro/settings.json"


@pytest.fixture
def module():
    return harness.part("user_settings")


@pytest.fixture
def read(module, set_by_user):
    """(tile, few_steps, least_gain) and what is told."""

    def values():
        found, told = module.read()
        return (found.tile, found.few_steps, found.least_gain), told

    return values


def test_without_a_file_the_defaults_hold(read):
    assert read() == (DEFAULTS, [])


def test_each_key_is_optional_and_a_change_holds_at_once(read, set_by_user):
    set_by_user(tile=128, few_steps=0, least_gain=0.2)
    assert read() == ((128, 0, 0.2), [])
    set_by_user(tile=None, least_gain=1)
    assert read() == ((None, 8, 1), [])
    # As many bytes, in the same instant: nothing is kept of the file before.
    set_by_user(tile=None, least_gain=0)
    assert read() == ((None, 8, 0), [])
    set_by_user()
    assert read() == (DEFAULTS, [])


def test_it_lies_where_no_route_reaches(module, set_by_user):
    assert module.file() == set_by_user()


VALUES = {
    "another tile": ({"tile": 96}, "tile must be null, 64 or 128 (got 96); the device's tile"),
    "a tile as text": ({"tile": "128"}, "tile must be null, 64 or 128 (got '128')"),
    "a tile that is true": ({"tile": True}, "tile must be null, 64 or 128 (got true)"),
    "half a step": ({"few_steps": 8.5}, "must be a whole number from 0 to 1000 (got 8.5)"),
    "too few steps": ({"few_steps": -1}, "from 0 to 1000 (got -1); 8 is used"),
    "no number": ({"few_steps": None}, "must be a whole number from 0 to 1000 (got null"),
    "a list": ({"few_steps": [8]}, "(got [8]); 8 is used"),
    "a share above 1": ({"least_gain": 5}, "least_gain must be from 0 to 1 (got 5); 0.05 is used"),
    "not a number": ({"least_gain": float("nan")}, "least_gain must be from 0 to 1 (got nan)"),
    "no end": ({"least_gain": float("inf")}, "least_gain must be from 0 to 1 (got inf)"),
    "a long text": ({"least_gain": "x" * 1000}, "xxx...); 0.05 is used"),
    "another case": ({"Tile": 128}, "'Tile' is no setting; did you mean tile?"),
    "a near word": ({"min_gain": 0}, "'min_gain' is no setting; did you mean least_gain?"),
    "another word": ({"density": 0.3}, "is no setting; the keys are tile, few_steps, least_gain"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_breaks_its_rule_is_named(read, set_by_user, case):
    given, words = VALUES[case]
    set_by_user(**given)
    values, (told,) = read()
    assert values == DEFAULTS and told.startswith(f"{NAME}: ") and words in told


def test_the_other_keys_hold_and_few_are_told(read, set_by_user):
    set_by_user(few_steps="eight", least_gain=0.1)
    values, told = read()
    assert values == (None, 8, 0.1) and len(told) == 1
    set_by_user(least_gain=0.1, **{f"key{number}": 1 for number in range(2000)})
    values, told = read()
    assert values == (None, 8, 0.1) and len(told) == 6
    assert told[-1] == f"{NAME}: 1995 more keys are not used"


FILES = {
    "empty": (b"", "must be JSON (got: Expecting value in line 1, column 1)"),
    "cut off": (b'{\n"tile": 64,', "in line 2, column 12)"),
    "no object": (b"[64]", 'must hold one object, such as {"few_steps": 8} (got [64])'),
    "not UTF-8": (b'{"tile": "\xe9"}', "must be saved as UTF-8"),
    "UTF-16": ('{"tile": 64}'.encode("utf-16"), "must be saved as UTF-8"),
    "deep": (b'{"x":' + b"[" * 60_000, "must be JSON without numbers of thousands of digits or"),
    "a huge number": (b'{"few_steps": ' + b"9" * 60_000 + b"}", "few_steps must be a whole number"),
    "large": (b" " * (64 << 10) + b"{}", "must not be larger than 64 KiB"),
    "binary": (bytes(range(256)), "must be saved as UTF-8"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_none_is_told_and_the_defaults_hold(read, set_by_user, case):
    content, words = FILES[case]
    set_by_user().write_bytes(content)
    values, (told,) = read()
    # Python of before 2023 reads such a number, and the rule refuses it.
    other = "must be JSON without numbers" if case == "a huge number" else words
    assert values == DEFAULTS and told.startswith(NAME) and (words in told or other in told)


def test_a_mark_at_its_beginning_is_no_fault(read, set_by_user):
    set_by_user().write_bytes(b'\xef\xbb\xbf{"few_steps": 4}')
    assert read() == ((None, 4, 0.05), [])


def test_a_file_of_the_largest_size_is_read(read, set_by_user):
    text = b'{"few_steps": 4}'
    set_by_user().write_bytes(text + b" " * ((64 << 10) - len(text)))
    assert read() == ((None, 4, 0.05), [])


def _pipe(path):
    os.mkfifo(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _terminal(path):
    path.symlink_to("/dev/tty")


def _loop(path):
    path.symlink_to(path)


KINDS = {
    "a folder": (lambda path: path.mkdir(), "must be a regular file"),
    "a pipe": (_pipe, "must be a regular file"),
    "a device": (_device, "must be a regular file"),
    "a terminal": (_terminal, "must be a regular file"),
    "a link to itself": (_loop, "cannot be read (OSError)"),
}


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
@pytest.mark.parametrize("case", KINDS)
def test_what_is_no_file_is_never_waited_for(read, set_by_user, case):
    make, words = KINDS[case]
    path = set_by_user()
    path.unlink()
    make(path)
    assert read() == (DEFAULTS, [f"{NAME} {words}; the defaults are used"])


def test_a_file_of_another_user_is_told(read, set_by_user, module, monkeypatch):
    set_by_user(few_steps=4)

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "open", closed, raising=False)
    assert read() == (DEFAULTS, [f"{NAME} cannot be read (PermissionError); the defaults are used"])


def test_a_file_in_place_of_its_folder_is_told(read, set_by_user):
    folder = set_by_user().parent
    (folder / "settings.json").unlink()
    folder.rmdir()
    folder.write_text("")
    values, (told,) = read()
    assert values == DEFAULTS and "cannot be read (NotADirectoryError)" in told


def test_the_environment_sets_nothing(read, monkeypatch):
    for name in ("PARO_TILE", "PARO_FEW_STEPS", "PARO_MIN_GAIN"):
        monkeypatch.setenv(name, "128")
    assert read() == (DEFAULTS, [])


def test_a_run_goes_by_them_and_tells_what_is_wrong_once(model, folders, set_by_user):
    set_by_user(tile=128, few_steps=3, least_gain=0, steps=3)
    harness.sample(harness.paro(model, observe_steps=2), steps=4)
    assert folders.steps() == "ooss"
    told = f"{NAME}: 'steps' is no setting; did you mean few_steps?"
    assert folders.last()["reasons"] == {told: 1}
    set_by_user(tile=128, few_steps=4, least_gain=0)
    harness.sample(harness.paro(model, observe_steps=2, profile="none"), steps=4)
    assert folders.steps() == "osss"
    assert [told.split(" (")[0] for told in folders.last()["reasons"]] == ["only 1 step is watched"]


@pytest.mark.parametrize(("tile", "side"), [(64, 64), (128, 128), (None, 64)])
def test_plans_have_the_tiles_that_are_set(model, folders, set_by_user, monkeypatch, tile, side):
    sessions, plain = [], harness.part("run").Run.finish

    def finish(self, ok):
        sessions.append(self.session.settings)
        return plain(self, ok)

    monkeypatch.setattr(harness.part("run").Run, "finish", finish)
    set_by_user(tile=tile, least_gain=0)
    harness.sample(harness.paro(model), steps=3)
    assert folders.steps() == "oss"
    assert (sessions[0].block_q, sessions[0].block_kv) == (side, side)


def test_a_broken_file_does_not_change_the_result(model, folders, set_by_user):
    import torch

    set_by_user(few_steps=8)
    want = harness.sample(harness.paro(model, profile="none"), grid=(5, 6, 8))
    set_by_user().write_text("{few_steps: 8}")
    got = harness.sample(harness.paro(model, profile="none"), grid=(5, 6, 8))
    assert torch.equal(got, want)
    # Whether sparse steps are slower, which is told too, is the machine's.
    told = [reason for reason in folders.last()["reasons"] if not reason.startswith("sparse")]
    assert len(told) == 1
    assert told[0].startswith(f"{NAME} must be JSON (got: Expecting property name enclosed in")


def test_what_is_set_is_what_the_docs_say(module):
    """Keys, defaults and place, in the table of docs/comfyui.md."""
    text = (harness.REPOSITORY / "docs" / "comfyui.md").read_text(encoding="utf-8")
    assert module.SHOWN in text
    for key in module.KEYS:
        default = getattr(module.UserSettings, key)
        assert f"| `{key}` | {json.dumps(default)} " in text
