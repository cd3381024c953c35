"""Conditionings in threads, as ComfyUI has them on several GPUs: the same seed, the same bits.

Its own thread pool with two devices, which are one here; threads are delayed at random.
"""

import json
import random
import re
import time

import harness
import pytest
import torch

RUNS = 6


@pytest.fixture(scope="module")
def multi():
    """A model with a clone on a second device, as MultiGPU Work Units makes it."""
    import comfy.model_management
    import comfy.multigpu

    base = harness.tiny_wan()
    base.cached_patcher_init = (harness.tiny_wan, ())
    devices = [torch.device("cpu"), torch.device("cpu", 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: devices
        )
        return comfy.multigpu.create_multigpu_deepclones(base, 2)


@pytest.fixture(autouse=True)
def delays(monkeypatch):
    """Calls begin when they like; counts the threads that they came from."""
    import threading

    import paroattention

    draws, seen = random.Random(1), set()
    attention = paroattention.Session.attention_of

    def late(self, *args, **kwargs):
        seen.add(threading.get_ident())
        time.sleep(draws.choice((0, 0, 0.001, 0.004)))
        return attention(self, *args, **kwargs)

    monkeypatch.setattr(paroattention.Session, "attention_of", late)
    return seen


def sample(node, steps=10):
    texts = {"positive": harness.conditioning(4, 1), "negative": harness.conditioning(7, 2)}
    return harness.sample(node, cfg=3.0, steps=steps, **texts)


def saved(folders, name):
    """A profile's bytes but for its date, and its capture's without the profile in it."""
    text = (folders.profiles / f"{name}.json").read_text(encoding="utf-8")
    return re.sub(r'"date": "[^"]*"', "", text)


def lines(folders):
    """The run log's lines and summary of the newest run, without times."""
    *steps, end = folders.runs()[-1]
    return steps, {k: v for k, v in end.items() if not k.endswith("seconds")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observe_steps": 3},
        {"mask": "dynamic"},
        {"target_error": 0.2},
        {"target_error": 0.2, "mask": "dynamic"},
    ],
    ids=json.dumps,
)
def test_a_run_that_observes_is_the_same_every_time(multi, folders, delays, options):
    found = []
    for run in range(RUNS):
        out = sample(harness.paro(multi, profile="none", save_as=f"p{run}", **options))
        found.append((out, saved(folders, f"p{run}"), lines(folders)))
    assert len(delays) >= 2
    first = found[0]
    assert first[2][1]["renewals"] or "mask" in options or "target_error" in options
    for out, profile, log in found[1:]:
        assert torch.equal(out, first[0]) and profile == first[1] and log == first[2]


@pytest.mark.parametrize("mask", ["static", "dynamic"])
def test_a_run_with_a_profile_is_the_same_every_time(multi, folders, mask):
    sample(harness.paro(multi, save_as="p"))
    found = []
    for _ in range(RUNS):
        out = sample(harness.paro(multi, profile="p", mask=mask))
        found.append((out, lines(folders)))
    assert folders.steps() == "s" * 10 and (mask == "dynamic" or folders.last()["renewals"])
    assert all(torch.equal(out, found[0][0]) and log == found[0][1] for out, log in found[1:])


@pytest.mark.parametrize("exact", [False, True], ids=["kernels", "exact maps"])
def test_a_calibration_is_the_same_every_time(multi, folders, exact):
    found = []
    for run in range(3):
        sample(harness.calibrate(multi, name=f"c{run}", exact=exact), steps=6)
        capture = [p for p in folders.profiles.iterdir() if p.name.startswith(f"c{run}")]
        rest = [p.read_bytes() for p in sorted(capture) if p.suffix != ".json"]
        found.append((saved(folders, f"c{run}"), rest))
    assert found[0][1] and all(one[0] == found[0][0] for one in found[1:])
    assert all(one[1] == found[0][1] for one in found[1:])


def test_one_thread_and_two_learn_the_same(multi, model, folders):
    """The draws are those of the conditionings, not of the thread that comes to them."""
    sample(harness.paro(model, profile="none", save_as="one"), steps=6)
    sample(harness.paro(multi, profile="none", save_as="two"), steps=6)
    assert saved(folders, "one") == saved(folders, "two")
