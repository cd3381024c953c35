"""Every rule of Settings, with the argument, the rule and the value in the message."""

import pytest
from paroattention import Error, Settings

NAN = float("nan")
BAD = {
    "target_error": [0, 0.004, 1.01, NAN, "0.1", None, True],
    "refresh": [1, "true", None],
    "refresh_every": [0, 1001, 2.0, None, True],
    "meter_limit": [-0.1, 1.1, NAN, None, True],
    "density": [0, 0.049, 1.001, -1, NAN, float("inf"), "0.3", None, True, [0.3]],
    "start_percent": [-0.01, 1.01, NAN, "0", None, False],
    "end_percent": [-0.01, 1.01, NAN, "1", None, True],
    "observe_steps": [-1, 1001, 4.0, "4", None, True],
    "every_n_steps": [0, -1, 1001, 1.0, None, True],
    "queries": [0, 4097, 64.0, "64", None, True],
    "precision": ["fp8", "INT8", "", None, 8],
    "mask": ["auto", "", None, 1],
    "tail": [1, 0, "true", None],
    "block_q": [0, 63, 256, "64", None],
    "block_kv": [0, 32, 65, "64", None],
}
CASES = [(name, value) for name, values in BAD.items() for value in values]
GOOD = {
    "density": [0.05, 0.3, 1, 1.0, "auto"],
    "target_error": [0.005, 1],
    "refresh": [True, False],
    "refresh_every": [1, 1000],
    "meter_limit": [0, 1],
    "start_percent": [0, 0.5, 1],
    "end_percent": [0, 0.5, 1],
    "observe_steps": [0, 1, 1000],
    "every_n_steps": [1, 1000],
    "queries": [1, 4096],
    "precision": ["int8", "bf16"],
    "mask": ["static", "dynamic"],
    "tail": [True, False],
    "block_q": [64, 128],
    "block_kv": [64, 128],
}
TAKEN = [(name, value) for name, values in GOOD.items() for value in values]


def test_defaults_are_the_documented_ones():
    settings = Settings()
    settings.validate()
    assert (settings.density, settings.precision, settings.mask) == (0.3, "int8", "static")
    assert (settings.tail, settings.start_percent, settings.end_percent) == (True, 0, 1)
    assert (settings.observe_steps, settings.queries, settings.calibrate) == (4, 64, False)


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
def test_refuses(name, value):
    with pytest.raises(Error) as caught:
        Settings(**{name: value}).validate()
    message = str(caught.value)
    assert message.startswith(f"{name} must ") and f"(got {value!r})" in message


@pytest.mark.parametrize(("name", "value"), TAKEN, ids=str)
def test_takes_the_bounds(name, value):
    # A start of 1 needs an end of 1, which is the default; an end of 0 needs a start of 0.
    Settings(**{name: value}).validate()


def test_what_is_not_built_is_refused_by_name():
    with pytest.raises(Error, match="precision int4 is not built yet; choose int8 or bf16"):
        Settings(precision="int4").validate()


def test_start_must_not_exceed_end():
    with pytest.raises(
        Error, match=r"start_percent must be at most end_percent \(0.4\) \(got 0.5\)"
    ):
        Settings(start_percent=0.5, end_percent=0.4).validate()
