"""The whole service as a child, started once for the tests of a file; each test takes things of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.system.child import Gnomon

Start = Callable[..., Gnomon]


@pytest.fixture(scope="module")
def gnomon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnomon]:
    """`gnomon up` with its defaults."""
    request.getfixturevalue("broker_program")
    with Gnomon(tmp_path_factory.mktemp("gnomon")) as running:
        yield running


@pytest.fixture
def own_gnomon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start services of a test's own, with settings or faults, and end them whatever happens."""
    request.getfixturevalue("broker_program")
    started: list[Gnomon] = []

    def start(settings: Mapping[str, object] | None = None, faults: Sequence[str] = ()) -> Gnomon:
        one = Gnomon(tmp_path / f"gnomon-{len(started)}", settings, faults)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.close()
