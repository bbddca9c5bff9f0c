"""What every suite may use: the servers of a run, and the document stores.

The chain that decides where a server comes from is `tests/backends`; the header of a run says what was
really used.
"""

import secrets
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key
from pymongo import MongoClient

from infra.documents import sqlite_writer
from infra.documents.opening import open_store
from infra.documents.port import Collection, DocumentStore
from tests import profiles  # noqa: F401 - sets how long the properties look
from tests.backends import choice, servers, skips
from tests.backends.choice import Choice, Step

BACKENDS = ("auto", "explicit", "container", "process")
_CHOICES = pytest.StashKey[dict[str, Choice]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("back ends")
    group.addoption("--backends", choices=BACKENDS, default="auto", help="where servers come from")
    group.addoption("--strict-backends", action="store_true", help="a missing server is a failure")


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.getoption("--backends")
    config.stash[_CHOICES] = {"broker": choice.broker(wanted), "mongodb": choice.mongodb(wanted)}


def pytest_report_header(config: pytest.Config) -> str:
    return " · ".join(f"{need}: {_name(need, chosen)}" for need, chosen in config.stash[_CHOICES].items())


def pytest_sessionstart(session: pytest.Session) -> None:
    xml = session.config.stash.get(xml_key, None)
    if xml is not None:
        for need, chosen in session.config.stash[_CHOICES].items():
            xml.add_global_property(need, _name(need, chosen))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.stash[_CHOICES]["mongodb"].is_emulator:
        listed = skips.known()
        for item in items:
            if item.nodeid in listed:
                item.add_marker(pytest.mark.skip(reason=f"emulator: {listed[item.nodeid]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped on the emulator without standing in the list."""
    report = yield
    chosen = item.config.stash[_CHOICES]["mongodb"]
    if report.skipped and chosen.is_emulator and _uses_mongodb(item) and item.nodeid not in skips.known():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped on the emulator and is not in {skips.LIST.name}"
    return report


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An open MQTT broker, shared by the run: use topics of your own."""
    with servers.broker(_chosen(request, "broker"), tmp_path_factory.mktemp("broker")) as url:
        yield url


@pytest.fixture(scope="session")
def mongodb_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What speaks MongoDB's protocol, shared by the run."""
    with servers.mongodb(_chosen(request, "mongodb"), tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture
def mongodb_url(mongodb_server: str) -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    database = f"gnomon_test_{secrets.token_hex(6)}"
    base, _, options = mongodb_server.partition("/?")
    yield f"{base}/{database}" + (f"?{options}" if options else "")
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_server, timeoutMS=5_000)
    with client:
        client.drop_database(database)


@pytest.fixture
def store_collections() -> Sequence[Collection]:
    """What `store` is opened with; override it where other collections are needed."""
    return (Collection("things", ("kind", "room")), Collection("plain"))


@pytest.fixture
def store_logs() -> Sequence[str]:
    """As `store_collections`."""
    return ("history", "audit")


@pytest.fixture(params=["memory", "sqlite", "sqlite-folding", "mongodb"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store of each kind.

    ``sqlite`` keeps what a test writes in its journal, ``sqlite-folding`` brings all but the last
    commit into its tables at once.
    """
    match request.param:
        case "memory":
            yield "memory:"
        case "mongodb":
            yield request.getfixturevalue("mongodb_url")
        case "sqlite-folding":
            monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", 1)
            yield f"sqlite:{tmp_path / 'gnomon.db'}"
        case _:
            yield f"sqlite:{tmp_path / 'gnomon.db'}"


@pytest.fixture
async def store(
    store_url: str, store_collections: Sequence[Collection], store_logs: Sequence[str]
) -> AsyncIterator[DocumentStore]:
    """An empty store of each kind."""
    opened = await open_store(store_url, store_collections, store_logs, testing=True)
    yield opened
    await opened.close()


def _chosen(request: pytest.FixtureRequest, need: str) -> Choice:
    chosen = request.config.stash[_CHOICES][need]
    if chosen.step is Step.NONE:
        if request.config.getoption("--strict-backends"):
            pytest.fail(f"{need}: {chosen.name}")
        pytest.skip(f"{need}: {chosen.name}")
    return chosen


def _uses_mongodb(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return "mongodb_url" in names or "[mongodb" in item.nodeid


def _name(need: str, chosen: Choice) -> str:
    if need == "mongodb" and chosen.is_emulator:
        return f"{chosen.name} ({len(skips.known())} kinds of check skipped)"
    return chosen.name
