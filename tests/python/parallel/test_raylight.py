"""The processor for Raylight, with a stand-in of its protocol on two processes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import raylight_runs
import torch
from paroattention import Error, Profile, Settings, raylight
from problems import profile
from raylight_stand_in import Registry
from shared_run import Case, settings
from team import Failed

# 8 text, 2 audio and 385 video tokens: one token of padding on two ranks. And video alone.
H3 = Case(settings(), grid=(5, 7, 11), prefix=10, heads=4)
WAN = Case(settings(), grid=(5, 7, 11), heads=4)


def given(**changes) -> raylight.Given:
    return replace(raylight.Given(settings()), **changes)


def written(folder, **changes):
    file = folder / "raylight.json"
    raylight.write(file, given(**changes))
    return str(file)


@pytest.mark.parametrize(("kind", "case"), [("h3", H3), ("wan", WAN)])
def test_two_workers_give_what_one_process_gives(team, tmp_path, kind, case):
    file = written(tmp_path, save_as="learned", folders=(str(tmp_path),))
    both = team.run(raylight_runs.sampled, file, case, kind)
    alone = raylight_runs.alone(case)
    for number, (here, whole) in enumerate(zip(both[0]["outputs"], alone, strict=True)):
        # Watched steps are Raylight's own attention, which has the padding among its keys.
        whole = raylight_runs.padded(case, *divmod(number, 2)) if number < 4 else whole
        assert torch.equal(here, whole), number
    assert case.layout.length % 2 == 1
    assert both[0]["summary"]["paths"] == {"observe": 4, "sparse": 12}
    assert not both[0]["summary"]["reasons"] and not both[1]["summary"]["reasons"]
    saved = Profile.load(tmp_path / "learned.json")
    assert saved.layer_ids() == ["block.0.0", "block.1.0"] and saved.model.heads == 4


def _dense_head(folder) -> str:
    made = profile(grid=(5, 7, 11), heads=4, layers=("block.0.0", "block.1.0"))
    layers = list(made.layers)
    for head in (0, 1):
        layers[0].heads[head].density = 1.0
    made.layers = layers
    made.save(folder / "mine.json")
    return str(folder / "mine.json")


@pytest.mark.parametrize("move_heads", [False, True])
def test_a_profile_by_name_and_heads_that_are_sent_on(team, tmp_path, move_heads):
    path = _dense_head(tmp_path)
    own = settings(watch="if needed")
    changes = {"profile": "mine", "folders": (str(tmp_path),), "move_heads": move_heads}
    file = written(tmp_path, settings=own, **changes)
    case = replace(WAN, settings=own)
    both = team.run(raylight_runs.sampled, file, case, "wan")
    alone = raylight_runs.alone(case, path)
    assert all(map(torch.equal, both[0]["outputs"], alone))
    assert both[0]["summary"]["paths"] == {"sparse": 16}


def test_what_the_kernels_have_no_part_for_stays_with_raylight(team, tmp_path):
    file = written(tmp_path)
    for more, told in (({"causal": True}, "causal"), ({"window_size": (4, 4)}, "window_size")):
        for part in team.run(raylight_runs.sampled, file, WAN, "wan", more):
            assert part["summary"]["paths"] == {}
            assert f"the kernels have no part for {told}" in part["summary"]["reasons"]


def test_a_model_whose_grid_is_not_known_stays_with_raylight(team, tmp_path):
    for part in team.run(raylight_runs.sampled, written(tmp_path), WAN, "other"):
        assert any("does not say where the video lies" in one for one in part["summary"]["reasons"])


def test_a_worker_that_fails_ends_the_run_on_all(team, tmp_path):
    with pytest.raises(Failed) as failed:
        team.run(raylight_runs.sampled, written(tmp_path), WAN, "wan", None, 3)
    assert failed.value.errors[1][0] == "MemoryError"
    assert "rank 1 of 2 failed: MemoryError: no room in this worker" in failed.value.message(0)


def test_a_ring_is_refused_with_the_reason(team, tmp_path):
    with pytest.raises(Failed) as failed:
        team.run(raylight_runs.with_ring, written(tmp_path))
    for rank in (0, 1):
        assert "log-sum-exp" in failed.value.message(rank)
        assert "ulysses_degree" in failed.value.message(rank)
    assert raylight.Processor.supports_ring is False


def test_it_is_registered_once_and_made_by_name(tmp_path):
    registry = Registry()
    raylight.register(registry)
    raylight.register(registry)
    made = registry.create_inner_attention(raylight.NAME, file=written(tmp_path))
    assert made.given == given()


def test_the_file_holds_all_of_the_settings(tmp_path):
    every = given(
        settings=Settings(density=0.2, mask="dynamic", observe_steps=1),
        profile="mine",
        folders=("/a", "/b"),
        save_as="other",
        move_heads=True,
    )
    raylight.write(tmp_path / "deep" / "file.json", every)
    assert raylight.read(tmp_path / "deep" / "file.json") == every


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.pop("schema"), 'must be an object with "schema"'),
        (lambda c: c.update(settings=[]), "must hold an object settings"),
        (lambda c: c.update(color=1), r"must hold known keys only \(got 'color'\)"),
        (lambda c: c["settings"].update(colour=1), r"known keys only \(got 'settings.colour'\)"),
        (lambda c: c["settings"].update(density=7), "density must be from 0.05 to 1"),
        (lambda c: c.update(profile="../x"), "profile"),
        (lambda c: c.update(save_as="mine"), "folders must be a list of paths, with one at least"),
        (lambda c: c.update(folders=[1]), "folders must be a list of paths"),
        (lambda c: c.update(move_heads=1), "move_heads must be true or false"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(tmp_path, change, told):
    file = tmp_path / "raylight.json"
    raylight.write(file, given())
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(Error, match=told):
        raylight.read(file)


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "must be JSON"), ("[" * 70000, "not be larger than 64 KiB"), ("[" * 9999, "JSON")],
)
def test_a_file_that_is_no_json_is_refused(tmp_path, content, told):
    file = tmp_path / "raylight.json"
    file.write_text(content)
    with pytest.raises(Error, match=told):
        raylight.read(file)


def test_profiles_are_found_in_their_folders_alone(tmp_path):
    _dense_head(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link.json").symlink_to(tmp_path / "mine.json")
    assert raylight.find("mine", (str(tmp_path / "inner"), str(tmp_path))).model.heads == 4
    with pytest.raises(Error, match=r"profile must name a file of .* \(got link\)"):
        raylight.find("link", (str(tmp_path / "inner"),))
    with pytest.raises(Error):
        raylight.find("../mine", (str(tmp_path / "inner"),))
