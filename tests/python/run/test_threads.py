"""Two threads in any order: what a run draws, learns and runs is the same."""

import threading

import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, _core
from problems import profile
from test_watching import GRID, shifted

LAYERS = [f"double.{layer}.0" for layer in range(5)]
LONG = [1.0 - 0.05 * step for step in range(16)] + [0.0]


class Turns:
    """Two threads make their calls in an order that is given: "abba", again from the start."""

    def __init__(self, order):
        self._order, self._place = order, 0
        self._changed, self._over = threading.Condition(), set()

    def wait(self, name):
        with self._changed:
            while self._over.isdisjoint("ab") and self._turn() != name:
                assert self._changed.wait(20)

    def _turn(self):
        return self._order[self._place % len(self._order)]

    def done(self, name, last):
        with self._changed:
            self._place += 1
            if last:
                self._over.add(name)
            self._changed.notify_all()


def run(order, settings, *, on_device=None, sigmas=LONG, **options):
    """Cond and uncond in two threads, several layers each; outputs by step, thread and layer."""
    host = Host(settings, sigmas=sigmas, grid=GRID, limit=0.3, **options)
    host.layers = LAYERS
    session, outputs = host.session, {}
    if on_device is not None:
        session.observer.on_device = on_device
    for step, sigma in enumerate(sigmas[:-1]):
        session.begin_call(sigma)
        turns = Turns(order)

        def evaluate(name, step=step, sigma=sigma, turns=turns):
            for place, layer in enumerate(host.layers):
                turns.wait(name)
                if place == 0:
                    forward = session.begin_forward(sigma, conds=("ab".index(name),))
                qkv = shifted(0 if step < 2 else 1 + place % 2, seed=ord(name) + place)
                out, _ = host.call(forward, layer, qkv, lambda qkv=qkv: qkv[2])
                outputs[step, name, layer] = out
                turns.done(name, place == len(host.layers) - 1)

        threads = [threading.Thread(target=evaluate, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        session.end_call()
    plans = session.planner.plans()
    found = {key: bytes(_core.plan_words(plan)) for key, plan in plans.items()}
    summary = session.finish()
    assert not any("not " in reason for reason in session.report.reasons.counts), (
        session.report.reasons.counts
    )
    end = {name: value for name, value in summary.items() if not name.endswith("seconds")}
    return outputs, found, [one.dump() for one in host.saved], end, host.lines


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("kind", ["observed", "found", "auto"])
def test_masks_are_the_same_however_threads_interleave(device, kind):
    density = "auto" if kind == "auto" else 0.2
    settings = Settings(observe_steps=2, density=density, target_error=0.2, dense_below=0.0)
    runs = []
    for order in ("aaaaabbbbb", "bbbbbaaaaa", "ab", "ba", "aab", "bba"):
        options = {"on_device": (lambda q: True) if device else None}
        if kind == "found":
            options["find_profile"] = finder(profile(grid=GRID, layers=LAYERS))[0]
        runs.append(run(order, settings, **options))
    first = runs[0]
    assert first[3]["renewals"] or kind == "auto"
    for outputs, plans, saved, end, lines in runs[1:]:
        assert all(torch.equal(outputs[name], out) for name, out in first[0].items())
        assert plans == first[1] and saved == first[2] and end == first[3] and lines == first[4]


def test_a_calibration_is_the_same_however_threads_interleave():
    settings = Settings(calibrate=True, exact=True)
    runs = [run(order, settings, sigmas=SIGMAS) for order in ("aaaaabbbbb", "bbbbbaaaaa", "bab")]
    for _, _, saved, end, lines in runs[1:]:
        assert saved == runs[0][2] and end == runs[0][3] and lines == runs[0][4]


def test_evaluations_of_one_model_call_are_one_step():
    """Where a step stays at its sigma, cond and uncond are no two steps."""
    session = Host(sigmas=[0.9, 0.5, 0.5, 0.5, 0.0]).session
    found = []
    for sigma in (0.9, 0.5, 0.5, 0.5):
        session.begin_call(sigma)
        found.append([session.begin_forward(sigma, conds=(cond,)).step for cond in (0, 1, 0)])
        session.end_call()
    assert found == [[step] * 3 for step in range(4)]
    # Without its calls the conditionings tell where one ends.
    session = Host(sigmas=[0.9, 0.5, 0.5, 0.5, 0.0]).session
    calls = [(0.9, 0), (0.9, 1), (0.5, 0), (0.5, 1), (0.5, 0), (0.5, 1), (0.5, 1), (0.5, 0)]
    steps = [session.begin_forward(sigma, conds=(cond,)).step for sigma, cond in calls]
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3]
