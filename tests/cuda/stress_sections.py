"""The sections of stress.py: each is a round that its seed decides and that says what was wrong.

Besides `random`, every section first makes its calls one after another, held against fp64, and then
asks for the same bits while something else goes on.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable

import stress_calls as calls
import stress_cases as cases
import torch
from paroattention.kernels import cuda_masks
from paroattention.kernels.head_orders import HeadOrders, OrderedHead
from stress_tally import Tally


class Context:
    """What a round has: the device, the tally, and the call, which --plant exchanges."""

    def __init__(self, device, tally: Tally, attend: calls.Attend = calls.attend):
        self.device, self.tally, self.attend = device, tally, attend

    def draw(self, seed: int) -> cases.Case:
        return self.device.adapt(cases.draw(seed, self.device.sizes))

    def word(self, case: cases.Case) -> torch.Tensor | None:
        if not case.broken:
            return None
        return torch.zeros(1, dtype=torch.int32, device=self.device.name)

    def call(self, one: calls.Problem, inputs=None) -> torch.Tensor:
        q, k, v = one.inputs if inputs is None else inputs
        return self.attend(one.case, q, k, v, one.plan, self.word(one.case))

    def checked(self, case: cases.Case) -> tuple[calls.Problem, torch.Tensor, list[str]]:
        """A case's problem, its output, and what fp64 says is wrong with it."""
        one = calls.problem(case, self.device.name)
        word = self.word(case)
        o = self.attend(case, *one.inputs, one.plan, word)
        found, measured = calls.wrong(one, o, word)
        if not found:
            self.tally.compared(case, measured, calls.allowed(case, self.device.name))
        return one, o, found

    def dirty(self, bytes_: int) -> None:
        """Fills memory that is free with NaN, so that what is not written shows."""
        torch.full((max(1, bytes_ // 4),), float("nan"), device=self.device.name)


def random_round(context: Context, seed: int) -> list[str]:
    """One call against fp64, and again over memory that holds NaN."""
    return check_case(context, context.draw(seed))


def check_case(context: Context, case: cases.Case) -> list[str]:
    one, o, found = context.checked(case)
    fresh = cases.tensors(case, context.device.name)
    kept = zip(one.inputs, fresh, strict=True)
    if not all(torch.equal(now, before) for now, before in kept):
        found.append("q, k and v must stay as they are (got other values after the call)")
    size = o.numel() * o.element_size()
    first = o.clone()
    del o
    context.dirty(size)
    context.tally.repeats += 1
    if not torch.equal(context.call(one, fresh), first):
        found.append("a second call must give the same bits (got others)")
    return found


def _several(context: Context, seed: int, count: int) -> tuple[list, list[str]]:
    """Some cases with their outputs, made one after another and held against fp64."""
    made, found = [], []
    for number in range(count):
        case = context.draw(seed * 1000 + number)
        one, o, wrong = context.checked(case)
        context.device.keep(one.plan)
        made.append((one, o.clone()))
        found += [f"alone, {case.dump()}: {text}" for text in wrong]
    context.device.wait()
    return made, found


class _Repeats:
    """Calls of one problem again and again on one stream; differences are counted there."""

    def __init__(self, context: Context, one: calls.Problem, expected: torch.Tensor):
        self.context, self.one, self.expected = context, one, expected
        self.different = torch.zeros(1, dtype=torch.int64, device=context.device.name)
        self.steps = 0

    def step(self) -> None:
        """Copies the inputs, calls, compares: nothing waits, and memory goes back at once."""
        inputs = [x.clone() for x in self.one.inputs]
        o = self.context.call(self.one, inputs)
        del inputs
        self.context.dirty(o.numel() * o.element_size())
        self.different += (o != self.expected).any()
        self.steps += 1

    def result(self, where: str) -> list[str]:
        count = int(self.different)
        self.context.tally.repeats += self.steps
        case = self.one.case.dump()
        return [f"{where}, {case}: {count} calls gave other bits than alone"] if count else []


def streams_round(context: Context, seed: int) -> list[str]:
    """Four problems on four streams, queued without waiting."""
    made, found = _several(context, seed, 4)
    lanes = []
    for one, expected in made:
        stream = context.device.stream()
        with context.device.on(stream):
            lanes.append((stream, _Repeats(context, one, expected)))
    context.device.wait()
    for _ in range(6):
        for stream, repeats in lanes:
            with context.device.on(stream):
                repeats.step()
    context.device.wait()
    return found + [text for _, repeats in lanes for text in repeats.result("on a stream")]


def threads_round(context: Context, seed: int) -> list[str]:
    """Four threads with a problem and a stream each."""
    made, found = _several(context, seed, 4)
    start, raised, ended = threading.Barrier(len(made)), [], []

    def work(one: calls.Problem, expected: torch.Tensor) -> None:
        try:
            stream = context.device.stream()
            with context.device.on(stream):
                repeats = _Repeats(context, one, expected)
                start.wait(60)
                for _ in range(6):
                    repeats.step()
            context.device.wait()
            ended.append(repeats)
        except Exception as error:
            raised.append(f"in a thread, {one.case.dump()}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=pair) for pair in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found + raised + [text for one in ended for text in one.result("in a thread")]


def allocator_round(context: Context, seed: int) -> list[str]:
    """Three problems in turns whose memory is given back and filled with NaN while calls run."""
    made, found = _several(context, seed, 3)
    draws = random.Random(seed)
    lanes = [_Repeats(context, one, expected) for one, expected in made]
    for _ in range(18):
        draws.choice(lanes).step()
        context.dirty(draws.randrange(1, 1 << 22))
    context.device.wait()
    return found + [text for lane in lanes for text in lane.result("with memory used again")]


def plans_round(context: Context, seed: int) -> list[str]:
    """Layers in turns whose plans do not stay on the device: they come through two buffers."""
    made, found = [], []
    with context.device.few_plans():
        for number in range(5):
            case = context.draw(seed * 1000 + number)
            if case.mask == "found":
                case = dataclasses.replace(case, mask="scattered")
            one, o, wrong = context.checked(case)
            made.append(_Repeats(context, one, o.clone()))
            found += [f"alone, {case.dump()}: {text}" for text in wrong]
        for _ in range(4):
            for layer in made:
                layer.step()
        context.device.wait()
    return found + [text for layer in made for text in layer.result("with plans on their way")]


def graphs_round(context: Context, seed: int) -> list[str]:
    """A recorded call whose inputs change: each replay is the call with what they hold now."""
    case = context.draw(seed)
    if case.path == "releasing":
        case = dataclasses.replace(case, path="auto")
    one, _, found = context.checked(case)
    inputs = [x.clone() for x in one.inputs]
    asked = HeadOrders(
        case.layout, tuple(OrderedHead(order, case.density) for order in case.orders), *case.tile
    )

    def call() -> torch.Tensor:
        plan = one.plan
        if case.mask == "found":
            # A run with mask dynamic finds its masks inside what is recorded.
            plan = cuda_masks.find_masks(*inputs[:2], asked, case.sm_scale)
        return context.attend(case, *inputs, plan, word)

    word = context.word(case)
    context.device.keep(one.plan)
    call()  # what is made once, such as densities on the device, is there before the recording
    out, replay = context.device.capture(call)
    for number in range(1, 4):
        other = dataclasses.replace(case, seed=case.seed + 1_000_003 * number)
        for x, new in zip(inputs, cases.tensors(other, context.device.name), strict=True):
            x.copy_(new)
        replay()
        context.device.wait()
        context.tally.repeats += 1
        if not torch.equal(out, call()):
            found.append(f"replay {number} must give the call's bits (got others)")
    # The last replay against fp64 too: a call could be as stale as the graph.
    plan = cases.plan_of(case, *inputs[:2]) if case.mask == "found" else one.plan
    wrong, measured = calls.wrong(calls.Problem(case, *inputs, plan), out)
    if not wrong:
        context.tally.compared(case, measured, calls.allowed(case, context.device.name))
    return found + [f"replayed: {text}" for text in wrong]


def failures_round(context: Context, seed: int) -> list[str]:
    """A call that gets no memory at some point: it raises, and the next one is as before."""
    case = context.draw(seed)
    # On a GPU each input and the output are blocks of their own, which only the driver can give.
    grid, heads = ((2, 10, 20), 2) if context.device.name == "cpu" else ((8, 64, 64), 4)
    case = dataclasses.replace(
        case, grid=grid, batch=1, orders=("HWF",) * heads, mask="band", density=0.1,
    )  # fmt: skip
    one, expected, found = context.checked(case)
    expected = expected.clone()
    context.device.keep(one.plan)
    copies = [x.clone() for x in one.inputs]
    peak = context.device.peak(lambda: context.call(one, copies))
    draws = random.Random(seed)
    spares = [0, *(int(peak * draws.random()) for _ in range(4)), 2 * peak + (64 << 20)]
    outcomes = []
    for spare in spares:
        o = None
        try:
            with context.device.limited(spare):
                o = context.call(one, copies)
            outcomes.append("ran")
        except torch.OutOfMemoryError:
            outcomes.append("no memory")
        if o is not None and not torch.equal(o, expected):
            found.append(f"with {spare} bytes to spare: other bits than before")
        if not torch.equal(context.call(one), expected):
            found.append(f"after {spare} bytes to spare: other bits than before")
        context.tally.repeats += 2
    context.tally.note("calls that got no memory", outcomes.count("no memory"))
    if outcomes[0] != "no memory" or outcomes[-1] != "ran":
        found.append(f"must fail without memory and run with enough (got {outcomes} of {spares})")
    return found


def large_round(context: Context, seed: int) -> list[str]:
    """Tokens, heads or batch entries that lie more than 2^31 elements apart, or are as many."""
    draws = random.Random(seed)
    which = draws.choice(("batch", "heads", "tokens"))
    case = dataclasses.replace(
        context.draw(seed), dtype="bfloat16", batch=2, mask="scattered", density=0.4,
        data="normal", scale=1.0, orders=("WHF", "HFW"), grid=(3, 9, 11),
    )  # fmt: skip
    one = calls.problem(case, context.device.name)
    apart = _far_apart(one.inputs, {"batch": 0, "heads": 1, "tokens": 2}[which])
    far = dataclasses.replace(one, q=apart[0], k=apart[1], v=apart[2])
    context.tally.note(f"strides beyond 2^31 elements between {which}")
    word = context.word(case)
    o = context.attend(case, *far.inputs, far.plan, word)
    found, measured = calls.wrong(far, o, word)
    if not found:
        context.tally.compared(case, measured, calls.allowed(case, context.device.name))
    del apart, far
    return found + (many_elements(context, case) if context.device.large else [])


def _far_apart(inputs: list[torch.Tensor], dim: int) -> list[torch.Tensor]:
    """The same in memory where the last of `dim` lies more than 2^31 elements behind the first."""
    shape = inputs[0].shape
    b, h, n, d = shape
    strides = [h * n * d, n * d, d, 1]
    strides[dim] = -(-(2**31) // (shape[dim] - 1) // 64) * 64 + 64
    each = 3 * b * h * n * d  # room for the three beside each other
    span = (shape[dim] - 1) * strides[dim] + each
    made = []
    for x in inputs:
        out = torch.empty(span, dtype=x.dtype, device=x.device).as_strided(shape, strides)
        made.append(out.copy_(x))
    return made


def many_elements(
    context: Context, case: cases.Case, heads: int = 520, grid: tuple = (32, 32, 32)
) -> list[str]:
    """More than 2^31 elements in each of q, k, v and o: some heads at both ends against fp64."""
    case = dataclasses.replace(
        case, batch=1, orders=("HWF",) * heads, grid=grid, prefix=0, suffix=0, head_dim=128,
        density=0.03, views=("bnhd",) * 3, tile=(128, 128) if case.path != "narrow" else (64, 64),
    )  # fmt: skip
    one = calls.problem(case, context.device.name)
    o = context.call(one)
    context.tally.note(f"tensors of {o.numel():,} elements")
    found, measured = calls.wrong(one, o, heads=(0, heads // 2, heads - 1))
    if not found:
        context.tally.compared(case, measured, calls.allowed(case, context.device.name))
    return [f"{o.numel()} elements: {text}" for text in found]


Round = Callable[[Context, int], list[str]]
# By name: the round, and its share of the time of the process that runs all but `random`.
SECTIONS: dict[str, tuple[Round, float]] = {
    "random": (random_round, 2.0),
    "streams": (streams_round, 2.0),
    "threads": (threads_round, 2.0),
    "allocator": (allocator_round, 1.0),
    "plans": (plans_round, 1.0),
    "graphs": (graphs_round, 2.0),
    "failures": (failures_round, 1.0),
    "large": (large_round, 1.0),
}
