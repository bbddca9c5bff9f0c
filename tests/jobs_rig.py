"""The job service over a real lane and store, with a gate and documents that do as they are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.documents.memory import MemoryStore
from infra.telemetry import Metrics
from ota.execution_store import EXECUTIONS
from ota.executions import ThingJobs, moved
from ota.job_ports import Go, Permit, Uses
from ota.job_requests import JobOperation
from ota.job_service import Answered, Asked, JobService
from ota.lane import Change, Decision, ExecutionLane
from ota.models import Execution, job_id
from ota.states import ExecutionState, ExecutionTrigger
from tests.fakes import FakeClock
from tests.faulty_store import FaultyStore

CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
JOB = job_id(CAMPAIGN)
DOCUMENT = {"gnomon": {"v": 1}}
IMAGE = "6e" * 32


class FakeGate:
    """Gives leave, or what a test wants instead."""

    def __init__(self) -> None:
        self.permit: Permit | Exception = Go("snap-1", 3)
        self.asked: list[Execution] = []
        self.slow: asyncio.Event | None = None

    async def decide(self, execution: Execution) -> Permit:
        self.asked.append(execution)
        if self.slow is not None:
            await self.slow.wait()
        if isinstance(self.permit, Exception):
            raise self.permit
        return self.permit


class FakeDocuments:
    """One document and one image for all campaigns."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.uses_asked = 0
        self.by_thing: dict[str, bytes] = {}

    async def document(self, execution: Execution) -> bytes:
        if self.fails is not None:
            raise self.fails
        if execution.thing in self.by_thing:
            return self.by_thing[execution.thing]
        return msgspec.json.encode(DOCUMENT | {"job": execution.job})

    async def uses(self, campaign: str) -> Uses:
        self.uses_asked += 1
        return Uses(frozenset({IMAGE}), frozenset({f"fw-{campaign[:8]}"}))


@dataclass
class JobsRig:
    """One process's worth of jobs."""

    store: FaultyStore
    clock: FakeClock
    lane: ExecutionLane
    jobs: JobService
    gate: FakeGate = field(default_factory=FakeGate)
    documents: FakeDocuments = field(default_factory=FakeDocuments)

    async def plan(self, thing: str, campaign: str = CAMPAIGN) -> None:
        await self.lane.create([planned(thing, campaign)])

    async def offer(self, thing: str, campaign: str = CAMPAIGN) -> None:
        await self.plan(thing, campaign)
        await self.move(thing, ExecutionTrigger.OFFER, campaign)

    async def move(self, thing: str, trigger: ExecutionTrigger, campaign: str = CAMPAIGN) -> None:
        def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
            execution = jobs.find(campaign)
            assert execution is not None
            return Decision(None, (moved(execution, trigger, now_ms),))

        assert await self.lane.submit([Change(thing, decide, (campaign,))]) == [None]

    async def execution(self, thing: str, campaign: str = CAMPAIGN) -> Execution:
        found = await self.lane.load(campaign, thing)
        assert found is not None
        return found

    async def ask(self, thing: str, operation: JobOperation, job: str = "", **members: Any) -> Answered:
        (answer,) = await self.jobs.handle([Asked(operation, thing, job, msgspec.json.encode(members))])
        return answer

    async def update(self, thing: str, status: str, **members: Any) -> Answered:
        return await self.ask(thing, JobOperation.UPDATE, JOB, status=status, **members)


def planned(thing: str, campaign: str = CAMPAIGN) -> Execution:
    return Execution(
        campaign=campaign, thing=thing, wave=0, place=0, proof_index=0, state=ExecutionState.PLANNED
    )


def make_jobs(store: FaultyStore, clock: FakeClock, metrics: Metrics) -> JobsRig:
    lane, gate, documents = ExecutionLane(store, clock, metrics), FakeGate(), FakeDocuments()
    return JobsRig(store, clock, lane, JobService(lane, clock, gate, documents), gate, documents)


@asynccontextmanager
async def running_jobs(*, exclusive: bool = True) -> AsyncIterator[JobsRig]:
    """Run a lane for as long as the block lasts."""
    store = FaultyStore(MemoryStore([EXECUTIONS], []), exclusive=exclusive)
    rig = make_jobs(store, FakeClock(), Metrics())
    task = asyncio.create_task(rig.lane.run())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
