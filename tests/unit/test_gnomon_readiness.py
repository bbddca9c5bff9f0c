"""Ready means: the store took a write and the broker answered, both lately."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from broker_bridge.link import ConnectionLostError
from gnomon import readiness
from gnomon.readiness import FRESH_S, PROBES, Readiness
from infra.documents.memory import MemoryStore
from infra.documents.port import StoreBrokenError
from tests.bridge_rig import settled
from tests.fakes import FakeClock
from tests.faulty_store import Crash, FaultyStore


class Broker:
    """The part of a session that is asked."""

    def __init__(self):
        self.there = True
        self.silent = False

    async def echo(self):
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if not self.there:
            raise ConnectionLostError("away")


class Stage:
    def __init__(self):
        self.clock, self.store, self.broker = FakeClock(), FaultyStore(MemoryStore([PROBES], [])), Broker()
        self.readiness = Readiness(self.store, self.broker, self.clock)

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(self.readiness.run())
            yield
            probing.cancel()

    async def reasons_after(self, seconds):
        self.clock.advance(seconds)
        await self.readiness.changed()
        return await self.readiness.reasons()


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(readiness, "PROBE_EVERY_S", 0.005)
    monkeypatch.setattr(readiness, "FIRST_PROBES_EVERY_S", 0.005)
    monkeypatch.setattr(readiness, "PROBE_TIMEOUT_S", 0.02)
    return Stage()


async def test_before_the_first_probe_it_is_not_ready(stage):
    assert len(await stage.readiness.reasons()) == 2


async def test_with_store_and_broker_it_is_ready_and_stays_so(stage):
    async with stage.running():
        for _ in range(3):
            assert await stage.reasons_after(FRESH_S) == ()


async def test_a_broker_that_is_away_or_silent_is_a_reason_after_five_seconds_and_until_it_is_back(stage):
    async with stage.running():
        await stage.readiness.changed()
        for fault in ("there", "silent"):
            setattr(stage.broker, fault, fault == "silent")
            assert await stage.reasons_after(FRESH_S - 1) == ()
            assert await stage.reasons_after(2) == (f"the broker did not answer within {FRESH_S:.0f} s",)
            setattr(stage.broker, fault, fault != "silent")
            await settled(lambda: not _run(stage.readiness.reasons()))


def _run(reasons):
    try:
        reasons.send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError("reasons are known without waiting")


async def test_a_store_that_takes_no_write_is_a_reason(stage):
    async with stage.running():
        await stage.readiness.changed()
        stage.store.refuses = ("commit",)
        assert await stage.reasons_after(FRESH_S + 1) == (f"the store took no write within {FRESH_S:.0f} s",)
        stage.store.refuses = ()
        await settled(lambda: not _run(stage.readiness.reasons()))


async def test_a_store_that_lost_its_race_has_taken_a_write_all_the_same(stage):
    """Of several processes only one wins, and all of them have seen that the store works."""
    other = Readiness(stage.store, stage.broker, stage.clock)
    async with stage.running():
        await asyncio.gather(other._probe_store(), stage.readiness._probe_store())
        assert await stage.reasons_after(0) == ()


async def test_a_broken_disk_is_not_waited_for_it_ends_the_process(stage):
    stage.store.crash, stage.store.crash_with = Crash.BEFORE_COMMIT, StoreBrokenError("an fsync failed")
    with pytest.raises(ExceptionGroup) as ended:
        await stage.readiness.run()
    assert ended.group_contains(StoreBrokenError)
