"""The stateful model on the stores: memory alone, often; then memory, SQLite and MongoDB in step."""

import asyncio
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from infra.documents.memory import MemoryStore
from infra.documents.opening import open_store
from infra.documents.port import DocumentStore
from tests.properties.shadow_machine import Open, Place, ShadowMachine
from tests.shadow_rig import ALL_LOGS, COLLECTIONS, memory

PUSH_SHARE = 10
"""On disks and networks there is time for one example in this many."""


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def in_memory() -> Place:
    async def empty() -> MemoryStore:
        return memory()

    return Place("memory", empty, reopens=False)


def at(url: str) -> Open:
    async def open_it() -> DocumentStore:
        return await open_store(url, COLLECTIONS, ALL_LOGS)

    return open_it


def test_a_shadow_is_what_the_model_says(runner: asyncio.Runner):
    class InMemory(ShadowMachine):
        places = staticmethod(lambda: [in_memory()])

    InMemory.runner = runner
    run_state_machine_as_test(InMemory)


def fewer() -> settings:
    here = settings()
    return settings(max_examples=max(1, here.max_examples // PUSH_SHARE))


def test_memory_and_sqlite_agree_at_each_step(runner: asyncio.Runner, tmp_path: Path):
    def places() -> Sequence[Place]:
        directory = tempfile.mkdtemp(dir=tmp_path)
        return [in_memory(), Place("sqlite", at(f"sqlite:{directory}/gnomon.db"))]

    class OnDisk(ShadowMachine):
        pass

    OnDisk.places, OnDisk.runner = staticmethod(places), runner
    run_state_machine_as_test(OnDisk, settings=fewer())


@pytest.mark.integration
def test_memory_sqlite_and_mongodb_agree_at_each_step(
    runner: asyncio.Runner, tmp_path: Path, mongodb_url: str
):
    def places() -> Sequence[Place]:
        directory = tempfile.mkdtemp(dir=tmp_path)
        base, _, options = mongodb_url.partition("?")
        database = f"{base}_{secrets.token_hex(4)}" + (f"?{options}" if options else "")
        return [
            in_memory(),
            Place("sqlite", at(f"sqlite:{directory}/gnomon.db")),
            Place("mongodb", at(database)),
        ]

    class Everywhere(ShadowMachine):
        pass

    Everywhere.places, Everywhere.runner = staticmethod(places), runner
    run_state_machine_as_test(Everywhere, settings=fewer())
