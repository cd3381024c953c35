import sys

import pytest

# Engines that run a model over several GPUs are for Linux; gloo is not tried elsewhere.
collect_ignore = ["test_equal_runs.py", "test_failing_ranks.py"] if sys.platform == "win32" else []


@pytest.fixture(scope="session")
def team():
    """Two ranks, for all tests that leave them alive."""
    from team import Team

    made = Team(2)
    yield made
    made.end()
