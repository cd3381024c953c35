"""Plans on their way to a GPU: whatever the order in which two streams run, a kernel reads its own
plan. The streams are simulated: queues whose steps interleave at random, waiting only for events.
"""

import gc
import random

import numpy as np
import paroattention as paro
import pytest
import torch
from paroattention import _core
from paroattention.kernels.plan_store import PlanStore


class Streams:
    """The current and the side stream as queues; nothing is copied before `run`."""

    def __init__(self):
        self.queues = {"current": [], "side": []}
        self.done = set()
        self.allocated = 0
        self._events = 0

    # -- what PlanStore asks for ---------------------------------------------------------------

    def pin(self, words):
        return words.clone()

    def empty(self, count):
        self.allocated += count
        return torch.full((count,), -1, dtype=torch.int32)

    def record(self, stream="current"):
        self._events += 1
        event = self._events
        self.queues[stream].append((None, lambda: self.done.add(event)))
        return event

    def wait(self, event, stream="current"):
        self.queues[stream].append((event, lambda: None))

    def copy(self, buffer, words, stream="current"):
        self.queues[stream].append((None, lambda: buffer[: len(words)].copy_(words)))

    def copy_aside(self, buffer, words, after):
        self.wait(after, "side")
        # A copy takes time: half of it lands, then the rest.
        half = len(words) // 2
        self.copy(buffer[:half], words[:half], "side")
        self.copy(buffer[half:], words[half:], "side")
        return self.record("side")

    # -- what a test does ----------------------------------------------------------------------

    def read(self, words, plan, wrong):
        """A kernel: reads the words when its turn comes."""
        expected = torch.from_numpy(_core.plan_words(plan))

        def check():
            if not torch.equal(words, expected):
                wrong.append(plan)

        # Reads twice: what it reads must not change under it.
        self.queues["current"] += [(None, check), (None, check)]

    def run(self, draw):
        """Everything queued, in a random order that respects streams and events."""
        while any(self.queues.values()):
            free = [
                queue
                for queue in self.queues.values()
                if queue and (queue[0][0] is None or queue[0][0] in self.done)
            ]
            assert free, "the streams wait for each other"
            draw.choice(free).pop(0)[1]()


def make_plan(seed, side=6):
    draw = np.random.default_rng(seed)
    mask = draw.random((side, side)) < 0.5
    mask[:, 0] = True
    heads = [_core.HeadPlan("HWF", _core.BlockMask(mask))]
    return _core.Plan((1, side, 64), heads=heads)


def run_orders(orders, plans, *, limit=0, seed=0, metered=0.0):
    """metered: the share of calls whose plan, and one that is not in use, are read once more."""
    draw, streams, wrong = random.Random(seed), Streams(), []
    store = PlanStore(streams, limit)
    proposed = [make_plan(100 + index) for index in range(len(plans))] if metered else []
    for index in orders(draw):
        words = store.words(plans[index])
        streams.read(words, plans[index], wrong)
        for plan in (plans[index], proposed[index]) if draw.random() < metered else ():
            streams.read(store.aside(plan), plan, wrong)
        if draw.random() < 0.3:
            streams.run(draw)
    streams.run(draw)
    assert not wrong
    return store


def layers(count, passes):
    return lambda draw: [layer for _ in range(passes) for layer in range(count)]


def at_random(draw):
    return [draw.randrange(7) for _ in range(60)]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(
    "orders", [layers(5, 4), layers(2, 6), layers(1, 5), at_random], ids="5 2 1 random".split()
)
def test_a_kernel_reads_its_own_plan(orders, seed):
    sizes = random.Random(seed)
    plans = [make_plan(i, sizes.choice([4, 6, 9])) for i in range(7)]
    run_orders(orders, plans, seed=seed)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("orders", [layers(5, 4), layers(2, 6), layers(1, 5), at_random])
@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["two buffers", "all stay"])
def test_reading_plans_aside_is_right_and_changes_nothing(orders, limit, seed):
    plans = [make_plan(i) for i in range(7)]
    alone = run_orders(orders, plans, limit=limit, seed=seed)
    seen = run_orders(orders, plans, limit=limit, seed=seed, metered=0.5)
    if orders is not at_random:
        assert (seen.hits, seen.misses) == (alone.hits, alone.misses)
    # A third buffer, however many plans were read aside.
    largest = max(4 * len(_core.plan_words(make_plan(100 + i))) for i in range(7))
    assert seen.device_bytes <= alone.device_bytes + largest


def test_from_the_second_pass_on_every_copy_was_made_ahead():
    plans = [make_plan(i) for i in range(5)]
    store = run_orders(layers(5, 4), plans)
    # The first pass knows no order; the last layer of the first pass does not know the first yet.
    assert store.misses == 6 and store.hits == 14


def test_two_buffers_hold_whatever_the_number_of_layers():
    plans = [make_plan(i) for i in range(9)]
    largest = max(4 * len(_core.plan_words(plan)) for plan in plans)
    assert run_orders(layers(9, 3), plans).device_bytes <= 2 * largest


def test_small_plans_stay_on_the_device():
    plans = [make_plan(i) for i in range(5)]
    size = sum(4 * len(_core.plan_words(plan)) for plan in plans)
    store = run_orders(layers(5, 3), plans, limit=size)
    assert store.device_bytes == size and store.misses == 0
    # One byte less: two buffers.
    assert run_orders(layers(5, 3), plans, limit=size - 1).device_bytes < size / 2


def test_plans_that_are_gone_leave_nothing_behind():
    streams = Streams()
    store = PlanStore(streams, 1 << 20)
    plan = make_plan(0)
    store.words(plan)
    assert store.device_bytes > 0
    del plan
    gc.collect()
    assert store.device_bytes == 0


def test_release_lets_go_and_the_store_goes_on():
    streams = Streams()
    store = PlanStore(streams, 0)
    plans, wrong = [make_plan(i) for i in range(3)], []
    for plan in plans * 2:
        streams.read(store.words(plan), plan, wrong)
    store.release()
    assert store.device_bytes == 0
    for plan in plans * 2:
        streams.read(store.words(plan), plan, wrong)
    streams.run(random.Random(0))
    assert not wrong


def test_memory_that_cannot_be_locked_is_used_as_it_is():
    from paroattention.kernels.plan_store import CudaCopies

    class Words:
        def pin_memory(self):
            raise RuntimeError("CUDA error: out of memory")

    words = Words()
    assert CudaCopies.pin(None, words) is words


def test_a_run_that_ends_lets_go_of_its_plans(monkeypatch):
    from paroattention.kernels import plan_store

    calls = []
    monkeypatch.setattr(plan_store, "release", lambda: calls.append(True))
    paro.Session(paro.Settings(), [1.0, 0.5, 0.0]).finish()
    assert calls


def test_the_public_package_still_imports_without_a_gpu():
    from paroattention.kernels import plan_store

    plan_store.release()
    assert paro.__version__
