"""What the integration suite may use beside the fixtures of all suites."""

import pytest

from tests.backends import choice


@pytest.fixture(scope="session")
def broker_program(request: pytest.FixtureRequest) -> str:
    """Mosquitto's program: these tests are about the child that we start, so no other broker will do."""
    path = choice.mosquitto()
    if path is None:
        missing = "install the Debian package mosquitto"
        if request.config.getoption("--strict-backends"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path
