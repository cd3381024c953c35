"""Dense calls by our own kernel: when, how near to the model's own, and what is told."""

import pytest
import torch
from fake_host import Host, finder
from paroattention import Error, Settings, TokenLayout, attention, reference
from paroattention.kernels import capability
from paroattention.run import dense_calls
from problems import profile, tensors
from tolerances import assert_close


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    """One on which 8 bits are faster, whatever this one is."""
    monkeypatch.setattr(dense_calls, "fast_at_density_1", lambda q: True)


def ours(settings=None, **given):
    return Host(settings, dense_steps="int8", **given)


def by(host) -> str:
    """What computed each step: m(odel), i(nt8)."""
    found = {}
    for line in host.lines:
        found.setdefault(line["step"], set()).add(line["attention"])
    return "".join("".join(sorted(one))[0] for _, one in sorted(found.items()))


def test_watched_steps_are_computed_in_8_bits():
    host = ours(Settings(observe_steps=2))
    summary = host.run()
    assert list(host.paths().values()) == ["observe"] * 2 + ["sparse"] * 4 and by(host) == "iiiiii"
    # The first call is compared with the host's own, the third one timed against it.
    assert host.dense_calls == 2 and summary["dense_calls"] == {"int8": 4}
    assert 0 < summary["dense_error"] < 0.03 and not host.reasons()
    both = host.session.dense_calls.seconds
    assert both is not None and min(both) > 0


@pytest.mark.parametrize("settings", [{"dense_steps": "model"}, {"precision": "bf16"}], ids=str)
def test_by_the_models_own_attention(settings):
    wanted = dict(settings)
    steps = wanted.pop("dense_steps", "int8")
    host = Host(Settings(observe_steps=2, **wanted), dense_steps=steps)
    summary = host.run()
    assert host.dense_calls == 4 and by(host)[:2] == "mm"
    assert summary["dense_calls"] == {"model": 4} and summary["dense_error"] is None


def test_on_a_processor_where_8_bits_are_slower(monkeypatch):
    monkeypatch.setattr(dense_calls, "fast_at_density_1", capability.fast_at_density_1)
    monkeypatch.setattr(capability._core, "active_isa", lambda: "avx2")
    host = ours(Settings(observe_steps=2))
    assert host.run()["dense_calls"] == {"model": 4}


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.0), (0.0, 0.5)])
def test_steps_outside_the_percents_too(start, end):
    find, _ = finder(profile())
    host = ours(Settings(start_percent=start, end_percent=end), find_profile=find)
    summary = host.run()
    assert summary["paths"] == {"dense": 6, "sparse": 6} and by(host) == "iiiiii"
    assert summary["dense_calls"] == {"int8": 6} and not host.reasons()


def test_a_run_without_a_plan_is_the_models_own():
    """It was not asked for: what keeps calls dense keeps them off our kernels."""
    host = ours(Settings(observe_steps=0))
    assert host.run()["dense_calls"] == {"model": 12} and host.dense_calls == 12


def test_a_calibration_watches_them_as_well():
    host = ours(Settings(calibrate=True, every_n_steps=2, exact=True))
    summary = host.run()
    assert summary["dense_calls"] == {"int8": 12} and len(host.saved) == 1
    model = Host(Settings(calibrate=True, every_n_steps=2, exact=True))
    model.run()
    # What is watched is q and k: no matter what computed the output.
    assert host.saved[0].dump() == model.saved[0].dump()


def test_the_output_is_near_the_hosts_in_either_of_its_shapes():
    for shape in ("heads first", "tokens first"):
        host = ours(Settings(observe_steps=2))
        forward = host.session.begin_forward(1.0)
        q, k, v = tensors(2, host.layout.length, 64, seed=1)
        theirs = reference.dense(q, k, v).float()

        def dense(theirs=theirs, shape=shape):
            return theirs if shape == "heads first" else theirs.transpose(1, 2).flatten(2)

        out, mine = host.call(forward, "double.0.0", (q, k, v), dense)
        assert mine and out.shape == q.shape
        assert_close(out, theirs, q.dtype, "int8")
        assert host.session.dense_calls.error == pytest.approx(
            reference.relative_error(out, theirs), rel=0.05
        )


def test_a_host_of_another_shape_is_not_compared():
    host = ours(Settings(observe_steps=1))
    forward = host.session.begin_forward(1.0)
    qkv = tensors(2, host.layout.length, 64, seed=1)
    _, mine = host.call(forward, "double.0.0", qkv, lambda: torch.zeros(3))
    assert mine and host.session.dense_calls.error is None


@pytest.mark.parametrize("wrong", [lambda o: 2 * o, lambda o: o * torch.nan], ids=["off", "NaN"])
def test_a_model_with_which_8_bits_go_wrong_stays_dense(wrong):
    def kernel(q, k, v, plan, **options):
        options.pop("broken")
        return wrong(attention(q, k, v, plan, **options))

    host = ours(Settings(observe_steps=2), kernel=kernel)
    # What is not finite is known at once on a CPU, and never handed on.
    host.session.faults.finite = lambda out: True
    summary = host.run()
    assert summary["dense_calls"] == {"model": 12} and "sparse" not in summary["paths"]
    told = [reason for reason in host.reasons() if "attention in 8 bits is off by" in reason]
    assert len(told) == 1 and "choose precision bf16" in told[0]


def test_a_kernel_that_fails_costs_no_watched_call():
    def kernel(*arguments, **options):
        raise RuntimeError("no code for this GPU")

    host = ours(Settings(observe_steps=2), kernel=kernel)
    summary = host.run()
    assert summary["dense_calls"]["model"] == 12 and summary["paths"]["observe"] == 4
    assert any("a dense call was computed by the model's own" in text for text in host.reasons())


def test_odd_shapes_and_text_on_both_sides():
    grid = (1, 7, 11)
    host = ours(Settings(observe_steps=1), grid=grid, heads=3, head_dim=128)
    host.layout = TokenLayout(grid, 226, 3)
    forward = host.session.begin_forward(1.0)
    qkv = [x.repeat(2, 1, 1, 1) for x in tensors(3, host.layout.length, 128, seed=2)]
    out, mine = host.call(forward, "double.0.0", qkv)
    assert mine
    assert_close(out, reference.dense(*qkv), out.dtype, "int8")


def test_results_are_the_same_in_every_run():
    outs = []
    for _ in range(2):
        host = ours(Settings(observe_steps=2))
        forward = host.session.begin_forward(1.0)
        outs.append(host.call(forward, "double.0.0", tensors(2, host.layout.length, 64, seed=3))[0])
    assert torch.equal(*outs)


@pytest.mark.parametrize("value", ["fp8", "", None, True, ["int8"]])
def test_bad_words_are_refused(value):
    with pytest.raises(Error, match="dense_steps must be int8 or model"):
        Settings(dense_steps=value).validate()
