"""A run with a profile watches its first steps too: what is known and this prompt come together."""

import numpy as np
import pytest
from fake_host import SIGMAS, Host, finder
from paroattention import Error, Settings
from paroattention.plan.profile_copy import with_layers
from problems import GRID, profile


def watching(settings=None, found=None, **given):
    find, asked = finder(found or profile(seed=5), "mine, exact grid")
    host = Host(settings or Settings(observe_steps=2), find_profile=find, watch="always", **given)
    return host, asked


def test_the_first_steps_are_watched_and_the_rest_is_sparse():
    host, asked = watching()
    summary = host.run()
    assert list(host.paths().values()) == ["observe"] * 2 + ["sparse"] * 4 and asked == [GRID]
    assert summary["profile"] == "mine, exact grid, and 2 steps of this run"
    # What was found stays as it was saved.
    assert not host.saved and not host.reasons()


def kernels(built):
    return [head.groups[0].code for layer in built.layers for head in layer.heads]


def test_what_it_goes_by_is_both():
    found = profile(seed=5)
    host, _ = watching(Settings(observe_steps=2, refresh=False), found)
    host.run()
    used = host.session.profile
    orders = [[head.order for layer in one.layers for head in layer.heads] for one in (found, used)]
    assert orders[0] == orders[1]
    assert used.model.fingerprint == found.model.fingerprint
    pairs = zip(kernels(found), kernels(used), strict=True)
    assert all(before != after for before, after in pairs)


@pytest.mark.parametrize("settings", [{"observe_steps": 0}, {"mask": "dynamic"}], ids=str)
def test_sparse_from_the_first_step_where_that_was_asked_for(settings):
    host, _ = watching(Settings(**settings))
    summary = host.run()
    assert list(host.paths().values()) == ["sparse"] * 6
    assert summary["profile"] == "mine, exact grid"


def test_if_needed_watches_only_without_a_profile():
    find, _ = finder(profile(seed=5))
    host = Host(Settings(observe_steps=2), find_profile=find, watch="if needed")
    assert host.run()["paths"] == {"sparse": 12}
    find, _ = finder(None)
    host = Host(Settings(observe_steps=2), find_profile=find, watch="if needed")
    assert host.run()["paths"] == {"observe": 4, "sparse": 8}


def test_a_layer_that_the_profile_lacks_is_watched_with_the_others_and_added():
    host, _ = watching()
    found = profile(seed=5)
    part = with_layers(found, list(found.layers)[:1])
    model = part.model
    model.layers = 1
    part.model = model
    host, _ = watching(found=part)
    summary = host.run()
    assert list(host.paths().values()) == ["observe"] * 2 + ["sparse"] * 4
    assert "completed by 1 layer (double.1.0)" in summary["profile"]
    assert host.session.profile.layer_ids() == host.layers


def test_what_cannot_be_used_leaves_the_profile_as_it_was_found(monkeypatch):
    from paroattention.run import learning

    def fails(*arguments):
        raise Error("samples must fit the profile (got none)")

    monkeypatch.setattr(learning, "renewed", fails)
    host, _ = watching()
    summary = host.run()
    assert summary["paths"] == {"observe": 4, "sparse": 8}
    assert summary["profile"] == "mine, exact grid"
    assert any("what this run has watched is not used" in reason for reason in host.reasons())


def test_a_run_that_is_all_watched_saves_nothing():
    host, _ = watching(Settings(observe_steps=6))
    summary = host.run()
    assert summary["paths"] == {"observe": 12} and not host.saved


def test_results_are_the_same_in_every_run():
    plans = []
    for _ in range(2):
        host, _ = watching()
        for sigma in SIGMAS[:-2]:
            host.evaluate(sigma)
        held = host.session.planner.plans()
        plans.append([[head.mask.numpy() for head in plan.heads] for plan in held.values()])
        host.session.finish()
    assert all(
        np.array_equal(a, b) for one in zip(*plans, strict=True) for a, b in zip(*one, strict=True)
    )


@pytest.mark.parametrize("value", ["never", "", None, 1])
def test_bad_words_are_refused(value):
    with pytest.raises(Error, match="watch must be always or if needed"):
        Settings(watch=value).validate()
