"""Output that is not finite: told by a word on the device, read after a step, never waited for."""

import gc
import weakref

import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Error, Settings, TokenLayout, attention
from paroattention.kernels import cuda_observe
from paroattention.run import faults
from paroattention.run.faults import Faults
from problems import GRID, profile, random_plan, tensors

CPU, LAYOUT = torch.device("cpu"), TokenLayout(GRID)


@pytest.fixture
def told():
    return []


@pytest.fixture
def found(told):
    """Faults as on a GPU, on the device that this machine has."""
    made = Faults(lambda reason, count, dense: told.append((reason, count, dense)))
    made.waits = lambda device: True
    return made


# -- what attention does with a word ---------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_output_that_is_not_finite_is_zeros_and_told(precision, dtype, bad):
    own, (q, k, v) = random_plan(LAYOUT, 2, 0.5), (x.to(dtype) for x in tensors(2, 144, 64))
    v = v.clone()
    v[0, 1, 20, 3] = bad
    raw = attention(q, k, v, own, precision=precision)
    assert not torch.isfinite(raw).all() and torch.isfinite(raw[:, 0]).all()
    broken = torch.zeros(1, dtype=torch.int32)
    out = attention(q, k, v, own, precision=precision, broken=broken)
    assert broken.tolist() == [1]
    assert torch.equal(out, torch.where(torch.isfinite(raw), raw, 0))


def test_a_word_needs_no_dimension():
    q, k, v = tensors(2, 144, 64)
    v, broken = torch.full_like(v, float("inf")), torch.zeros((), dtype=torch.int32)
    assert not attention(q, k, v, random_plan(LAYOUT, 2, 0.5), broken=broken).any()
    assert broken.item() == 1


@pytest.mark.parametrize("before", [0, 1])
def test_finite_output_leaves_the_word_as_it_is(before):
    own, (q, k, v) = random_plan(LAYOUT, 2, 0.5), tensors(2, 144, 64)
    broken = torch.full((1,), before, dtype=torch.int32)
    assert torch.equal(attention(q, k, v, own, broken=broken), attention(q, k, v, own))
    assert broken.tolist() == [before]


REFUSED = {
    "another dtype": (torch.zeros(1), r"int32 tensor of one element \(got torch.float32 \(1,\)\)"),
    "two words": (torch.zeros(2, dtype=torch.int32), r"got torch.int32 \(2,\)"),
    "no tensor": (0, r"one element \(got 0\)"),
    "another device": (
        torch.zeros(1, dtype=torch.int32, device="meta"),
        r"broken must be on q's device, cpu \(got meta\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_word_that_does_not_fit_is_refused(case):
    broken, message = REFUSED[case]
    q, k, v = tensors(2, 144, 64)
    with pytest.raises(Error, match=message):
        attention(q, k, v, random_plan(LAYOUT, 2, 0.5), broken=broken)


# -- words of a session ----------------------------------------------------------------------------


def test_a_layer_is_given_up_after_the_step_in_which_its_word_was_set(found, told):
    for layer in ("a", "b", "a"):
        found.flag(layer, CPU)
    found.flag("b", CPU).fill_(1)
    assert not told and not found.refusal("b")
    found.read()
    assert told == [(faults.NOT_FINITE, 1, True)]
    assert found.refusal("b") == faults.NOT_FINITE and not found.refusal("a")
    found.read()
    assert len(told) == 1


def test_a_layers_word_stays_where_it_is_and_is_its_own(found):
    words = {layer: found.flag(layer, CPU) for layer in map(str, range(150))}
    assert all(word.dtype == torch.int32 and word.shape == (1,) for word in words.values())
    places = {word.data_ptr() for word in words.values()}
    assert len(places) == 150
    for layer, word in words.items():
        assert found.flag(layer, CPU).data_ptr() == word.data_ptr()
    # A tensor for many layers, not one for each.
    assert len({word.untyped_storage().data_ptr() for word in words.values()}) == 3


def test_every_layer_is_told_of_by_its_own_word(found, told):
    for number in range(150):
        found.flag(str(number), CPU)
    for number in (0, 63, 64, 149):
        found.flag(str(number), CPU).fill_(1)
    found.read()
    given_up = [number for number in range(150) if found.refusal(str(number))]
    assert given_up == [0, 63, 64, 149] and len(told) == 4


def test_sent_words_are_cleared_and_what_comes_after_them_is_of_the_next_step(found, told):
    found.flag("a", CPU).fill_(1)
    found.send()
    assert found.flag("a", CPU).tolist() == [0] and not found.refusal("a")
    found.flag("b", CPU).fill_(1)
    found.read()
    assert found.refusal("a") and not found.refusal("b")
    found.read()
    assert found.refusal("b") and len(told) == 2


def test_a_layer_that_was_broken_again_before_anybody_read_is_told_once(found, told):
    for _ in range(2):
        found.flag("a", CPU).fill_(1)
        found.send()
    found.read()
    assert len(told) == 1


def test_nothing_is_sent_where_no_call_was_given_a_word(found, monkeypatch):
    sent = []
    monkeypatch.setattr(faults, "Readback", lambda x: sent.append(1) or cuda_observe.Readback(x))
    found.send()
    found.flag("a", CPU)
    found.send()
    found.send()
    found.read()
    found.read()
    assert len(sent) == 1


def test_sending_and_reading_wait_for_nothing_but_what_was_sent(found, monkeypatch):
    got = []

    class Sent(cuda_observe.Readback):
        def get(self):
            got.append(1)
            return super().get()

    monkeypatch.setattr(faults, "Readback", Sent)
    found.flag("a", CPU)
    found.send()
    assert not got
    found.flag("a", CPU)
    found.read()
    assert len(got) == 1


def test_words_serve_in_and_out_of_inference_mode(found):
    """Hosts sample in inference mode; a tensor made there could not be cleared outside of it."""
    with torch.inference_mode():
        found.flag("a", CPU).fill_(1)
    found.send()
    found.read()
    assert found.refusal("a")
    with torch.inference_mode():
        found.flag("a", CPU)
        found.send()


# -- a run -----------------------------------------------------------------------------------------


def host_with_words(**options):
    """A sparse host that keeps words, as on a GPU."""
    find, _ = finder(profile())
    host = Host(find_profile=find, **options)
    host.session.faults.waits = lambda device: True
    return host


def break_first(layers, calls):
    """change for Host.evaluate: breaks the first layer's v in the given calls."""
    count = [0]

    def change(q, k, v):
        count[0] += 1
        if count[0] in calls:
            v = v.clone()
            v[0, 1, 20, 3] = float("nan")
        return q, k, v

    return change


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_layer_that_breaks_is_handed_on_as_zeros_and_dense_from_the_next_step(precision):
    host = host_with_words(settings=Settings(precision=precision))
    # Host.evaluate looks: all that is handed on is finite.
    assert host.evaluate(SIGMAS[0], change=break_first(host.layers, {1})) == [True, True]
    assert not host.reasons()
    assert host.evaluate(SIGMAS[1]) == [False, True]
    assert host.reasons()[faults.NOT_FINITE] >= 1
    assert host.session.report.paths == {"sparse": 3, "dense": 1}


def test_beside_a_gpu_a_layer_is_given_up_while_the_next_step_is_under_way():
    """Its flag is not waited for as a step begins, but for no longer than that step."""
    host = host_with_words(settings=Settings())
    host.session.observer.on_device = lambda q: True
    host.evaluate(SIGMAS[0], change=break_first(host.layers, {1}))
    assert host.evaluate(SIGMAS[1]) == [True, True] and host.reasons()
    assert host.evaluate(SIGMAS[2]) == [False, True]
    assert host.reasons()[faults.NOT_FINITE] >= 1


def test_what_breaks_in_the_last_step_is_told_at_the_end():
    host = host_with_words()
    host.evaluate(SIGMAS[0], change=break_first(host.layers, {2}))
    summary = host.session.finish()
    assert summary["reasons"] == {faults.NOT_FINITE: 1}


def test_no_word_outlives_a_run():
    """A session stands in circles: what it held would stay until Python looks for those."""
    host = host_with_words()
    host.evaluate(SIGMAS[0])
    (flags,) = host.session.faults._flags.values()
    word = weakref.ref(flags._chunks[0])
    del flags
    gc.collect()
    gc.disable()
    try:
        host.session.finish()
        assert word() is None
    finally:
        gc.enable()
