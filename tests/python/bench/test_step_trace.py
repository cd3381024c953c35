"""Shares of a step by kind of GPU work, of made-up events."""

import pytest
from paroattention.bench import step_trace

MS = 1_000_000
HOPPER = "paro_attention_hopper_int8_d128_q128_k128"
COPY = "Memcpy HtoD (Pinned -> Device)"


def test_kinds_by_the_kernels_names():
    assert step_trace.kind_of(HOPPER) == "attention"
    assert step_trace.kind_of("paro_pack_pooled_d64_k128") == "packing"
    assert step_trace.kind_of("paro_pool_blocks_bf16_d128") == "masks"
    assert step_trace.kind_of("Memcpy DtoH (Device -> Pinned)") == "copies to the host"
    assert step_trace.kind_of("cutlass_gemm_s8") == step_trace.REST


@pytest.mark.parametrize("order", (1, -1))
def test_time_is_covered_once_however_events_overlap(order):
    events = [("a", 0, 10), ("b", 5, 8), ("c", 9, 12), ("d", 20, 25)]
    assert step_trace.covered(events[::order]) == 17
    assert step_trace.covered([]) == 0


def test_shares_of_two_steps():
    events = [
        (HOPPER, 0, 4 * MS),
        (COPY, 1 * MS, 3 * MS),
        ("gemm", 6 * MS, 7 * MS),
        (HOPPER, 7 * MS, 9 * MS),
    ]
    found = step_trace.shares(events, 0.010, 2)
    assert found == {
        "attention": 0.003,
        "copies to the device": 0.001,
        step_trace.REST: 0.0005,
        # Nothing ran from 4 to 6 and from 9 to 10 ms.
        step_trace.IDLE: 0.0015,
        step_trace.SECONDS: 0.005,
    }


def test_what_took_longest_comes_first():
    events = [("gemm", 0, MS), (HOPPER, 0, 5 * MS), ("gemm", 2 * MS, 3 * MS)]
    assert step_trace.longest(events, 1) == [(HOPPER, 1, pytest.approx(0.005))]
    assert step_trace.longest(events)[1] == ("gemm", 2, pytest.approx(0.002))


def test_pauses_say_when_and_between_what():
    events = [("a", 0, MS), ("long", 0, 4 * MS), ("b", 6 * MS, 7 * MS), ("c", 7 * MS + 10, 8 * MS)]
    assert step_trace.pauses(events) == [(0.004, pytest.approx(0.002), "long", "b")]
    assert [pause[3] for pause in step_trace.pauses(events, 0.0)] == ["b", "c"]
