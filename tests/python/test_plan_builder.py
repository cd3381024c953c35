"""Plans built in the background, from Python."""

import threading

import pytest
from paroattention import Error, _core
from problems import GRID, profile

TWO = ((1.0, 0.6), (0.6, 0.0))


def same(plan, other) -> bool:
    words = [_core.plan_words(p).tolist() for p in (plan, other)]
    return words[0] == words[1] and plan.density == other.density


@pytest.mark.parametrize("block", [64, 128])
def test_hands_out_what_plan_layer_makes(block):
    built = profile(groups=TWO)
    size = {"block_q": block, "block_kv": block}
    builder = _core.PlanBuilder(built, 1, GRID, prefix=3, suffix=5, density=0.4, threads=2, **size)
    for place, layer in enumerate(built.layer_ids()):
        expected = _core.plan_layer(
            built, place, 1, GRID, prefix=3, suffix=5, density=0.4, threads=1, **size
        )
        assert same(builder.get(layer), expected)
        assert same(builder.get(place), expected)
        assert builder.ready(layer)
        assert (builder.get(layer).prefix, builder.get(layer).suffix) == (3, 5)
    assert builder.progress == (4, 4)


def test_takes_layers_by_id_in_the_order_needed():
    built = profile()
    builder = _core.PlanBuilder(built, 0, GRID, layers=["double.1.0"])
    assert builder.get("double.1.0").head_count == 2
    assert builder.progress == (2, 2)
    with pytest.raises(Error, match="layer must be one that was asked for"):
        builder.get("double.0.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 2}, "group must be an index"),
        ({"grid": (0, 4, 4)}, "grid"),
        ({"density": 0.0}, "density must be above 0"),
        ({"block_q": 0}, "block"),
        ({"layers": ["double.7.0"]}, "layer must be one of the profile's layers"),
        ({"layers": [0, 0]}, "layers must not name a layer twice"),
    ],
)
def test_refuses_bad_requests(change, message):
    keywords = {"group": 0, "grid": GRID, **change}
    with pytest.raises(Error, match=message):
        _core.PlanBuilder(profile(), **keywords)


def test_cancelled_it_raises_instead_of_waiting():
    builder = _core.PlanBuilder(profile(), 0, GRID, threads=1)
    first = builder.get(0)
    builder.cancel()
    assert builder.ready(0) and builder.ready(1)
    assert same(builder.get(0), first)


def test_waiting_leaves_the_interpreter_to_others():
    """Only who gets the interpreter while get() waits can cancel it."""
    built = profile(heads=16)
    builder = _core.PlanBuilder(built, 0, (21, 45, 80), threads=1)
    outcome = []

    def wait():
        try:
            outcome.append(builder.get(1))
        except Error as error:
            outcome.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    builder.cancel()
    thread.join(60)
    assert outcome == ["layer must be built before the builder is cancelled (got 1)"]
    done, every = builder.progress
    assert done < every == 32
