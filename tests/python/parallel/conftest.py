import pytest
from team import Team


@pytest.fixture(scope="session")
def team():
    """Two ranks, for all tests that leave them alive."""
    made = Team(2)
    yield made
    made.end()
