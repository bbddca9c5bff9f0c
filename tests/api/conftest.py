from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gnomon import access
from gnomon.cli import main
from gnomon.commands import login
from tests.api.rig import HALL, Rig, api
from tests.api.served import Run, Served, served
from tests.api.typist import Sit, Typist


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """The API with its defaults, and one thing."""
    async with api(tmp_path) as rig:
        yield rig


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Served]:
    """A service on a port, with an account for each role, and a thing that is not the demo customer's."""
    with served(tmp_path, demo=True, things=(HALL,)) as where:
        yield where


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where the credential files of those accounts are."""
    return tmp_path / "demo" / "credentials"


@pytest.fixture
def run(where: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line; waiting lets the service's time pass."""
    monkeypatch.setattr(login, "SystemClock", lambda: where.clock)
    monkeypatch.setattr(access, "_sleep", where.clock.advance)

    def run(*arguments: str, typed: str = "", ok: bool = True) -> Result:
        result = CliRunner().invoke(main, list(arguments), input=typed)
        assert (result.exit_code == 0) is ok, result.output
        return result

    return run


@pytest.fixture
def sit(where: Served, monkeypatch: pytest.MonkeyPatch) -> Sit:
    """Return what puts somebody at the terminal."""

    def sit(**answers: str) -> Typist:
        typist, echo = Typist(where.clock, **answers), click.echo

        def both(text: object = None, **options: object) -> None:
            typist.reads(text)
            echo(text, **options)  # type: ignore[arg-type]  # passed on

        monkeypatch.setattr(click, "echo", both)
        monkeypatch.setattr(click, "prompt", typist.types)
        return typist

    return sit
