"""The job service: what devices ask about their jobs, carried out durably and answered in bytes.

It decides nothing itself: ``job_requests`` reads, ``jobs`` decides, the lane commits, the gate and the
documents are others' (``job_ports``). Nothing is answered before its commit. (spec: ota, 4)
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import StoreBrokenError
from ota.executions import PUSHES, ThingJobs, moved, next_of, told
from ota.job_ports import Documents, Gate, Hold, Permit, Uses
from ota.job_requests import (
    Ask,
    Code,
    Describe,
    InvalidJobRequestError,
    JobOperation,
    Update,
    parse,
    peek_token,
)
from ota.jobs import GateAsk, Held, JobError, Reply, answer, described, encoded, grant, pushed_lists, state_of
from ota.lane import FOR_A_WHILE, Change, Decision, ExecutionLane, Failed
from ota.models import Execution
from ota.states import ACTIVE, EXECUTION, ExecutionTrigger

GATE_S_MAX: Final = 5.0
"""How long leave to activate may take to be given; then the device asks again."""
GATE_SLOW_S: Final = 10
RETRY_AFTER_S: Final = 2
"""When to come again after a store that could not take it."""
USES_KEPT_MAX: Final = 256
"""Campaigns of which it is remembered what their things may fetch."""

_log = structlog.get_logger(__name__)


class Asked(NamedTuple):
    """A request as it came: what for, about which job of which thing, and its bytes."""

    operation: JobOperation
    thing: str
    job: str
    payload: bytes


class Answered(NamedTuple):
    """What is to be sent; ``failure`` is for us alone: why nobody foresaw it."""

    accepted: bool
    body: bytes
    failure: Exception | None = None
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a thing was told of: the executions and which news of each."""

    thing: str
    news: Mapping[str, int]
    """By campaign."""


class Pushes(NamedTuple):
    """What a thing is to hear unasked."""

    notify: bytes
    notify_next: bytes


Decided = Reply | GateAsk | Held | JobError
Rule = Callable[[ThingJobs, int], Reply | GateAsk | Held]


class JobService:
    """Answers devices about their jobs, and says what a thing may fetch."""

    def __init__(self, lane: ExecutionLane, clock: Clock, gate: Gate, documents: Documents) -> None:
        self.lane = lane
        self._clock = clock
        self._gate = gate
        self._documents = documents
        self._uses: dict[str, Uses] = {}

    async def handle(self, requests: Sequence[Asked]) -> list[Answered]:
        """Return an answer for each request; those of one thing keep their order.

        Never raises for a bad or an unlucky request; raises
        :class:`infra.documents.port.StoreBrokenError` when the process must stop.
        """
        asks: dict[int, Ask] = {}
        answers: dict[int, Answered] = {}
        for position, request in enumerate(requests):
            try:
                asks[position] = parse(request.operation, request.job, request.payload)
            except InvalidJobRequestError as refused:
                answers[position] = self.refused(JobError(refused.code, refused.message), refused.token)
            except Exception as error:  # noqa: BLE001 - our bug in one request stops no other
                answers[position] = self.failed(error, request.payload)
        decided = await self._decide({one: (requests[one].thing, ask) for one, ask in asks.items()})
        for position, one in decided.items():
            answers[position] = await self._answered(asks[position], one)
        return [answers[position] for position in range(len(requests))]

    def refused(self, error: JobError, token: str | None) -> Answered:
        """Return the refusal of a request."""
        members: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.execution is not None:
            members["executionState"] = state_of(error.execution)
        if error.retry_after_s is not None:
            members["retryAfter"] = error.retry_after_s
        return Answered(False, encoded(members, token, self._clock.now_ms()), code=error.code)

    def failed(self, error: Exception, payload: bytes) -> Answered:
        """Return the answer to a request that met a bug of ours; its bytes are worth keeping."""
        _log.error("job_request_failed", exc_info=error)
        try:
            token = peek_token(payload)
        except Exception:  # noqa: BLE001 - the bug may be in there
            token = None
        return self._internal(error, token)

    async def pushes(self, thing: str) -> Pushes:
        """Return what a thing is to hear of its jobs as they are now."""
        jobs, now_ms = await self.lane.current(thing), self._clock.now_ms()
        execution = next_of(jobs.open)
        following = (
            b""
            if execution is None
            else await self._with_document(
                {"execution": described(execution, now_ms)}, execution, None, now_ms
            )
        )
        return Pushes(
            encoded({"jobs": pushed_lists(jobs.open)}, None, now_ms), following or encoded({}, None, now_ms)
        )

    async def told(self, all: Iterable[Told]) -> None:
        """Note what the broker has: no longer pending, unless there was news meanwhile."""
        for cleared in await self.lane.submit([_telling(one) for one in all]):
            if isinstance(cleared, Failed) and not isinstance(cleared.error, FOR_A_WHILE):
                _log.error("job_news_not_cleared", exc_info=cleared.error)

    async def uses(self, thing: str, sha256: str) -> bool:
        """Tell whether an execution that a thing is at work on needs this image."""
        return any(sha256 in uses.images for uses in await self._uses_of(thing))

    async def streams_of(self, thing: str) -> frozenset[str]:
        """Return the streams that the executions a thing is at work on are made of."""
        return frozenset().union(*(uses.streams for uses in await self._uses_of(thing)))

    # ------------------------------------------------------------------ deciding

    async def _decide(self, asks: Mapping[int, tuple[str, Ask]]) -> dict[int, Decided | Failed]:
        decided = await self._submit(
            {one: _change(thing, ask, partial(answer, ask)) for one, (thing, ask) in asks.items()}
        )
        at_gate = {one: result.execution for one, result in decided.items() if isinstance(result, GateAsk)}
        if at_gate:
            permits = await self._permits(at_gate)
            granted: dict[int, Change[Decided]] = {}
            for position, permit in permits.items():
                thing, ask = asks[position]
                if isinstance(permit, Failed):
                    decided[position] = permit
                else:
                    assert isinstance(ask, Update), "only an update asks the gate"
                    granted[position] = _change(thing, ask, partial(grant, ask, permit))
            decided |= await self._submit(granted)
        return decided

    async def _submit(self, changes: Mapping[int, Change[Decided]]) -> dict[int, Decided | Failed]:
        decided = await self.lane.submit(list(changes.values()))
        return dict(zip(changes, decided, strict=True))

    async def _permits(self, at_gate: Mapping[int, Execution]) -> dict[int, Permit | Failed]:
        """Ask for leave for all of them at once, so that the store is asked once."""
        async with asyncio.TaskGroup() as tasks:
            asked = {
                one: tasks.create_task(self._permit(execution), name=f"gate {execution.thing}")
                for one, execution in at_gate.items()
            }
        return {one: task.result() for one, task in asked.items()}

    async def _permit(self, execution: Execution) -> Permit | Failed:
        try:
            async with asyncio.timeout(GATE_S_MAX):
                return await self._gate.decide(execution)
        except TimeoutError:
            return Hold("service_health", GATE_SLOW_S)
        except StoreBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - no leave is the safe answer, and others go on
            return Failed(error)

    # ------------------------------------------------------------------ answering

    async def _answered(self, ask: Ask, decided: Decided | Failed) -> Answered:
        match decided:
            case Reply():
                return await self._accepted(ask, decided)
            case Held(error):
                return self.refused(error, ask.token)
            case JobError():
                return self.refused(decided, ask.token)
            case Failed(error):
                return self._unlucky(error, ask.token)
            case GateAsk():
                return self._unlucky(RuntimeError("a gate ask was left open"), ask.token)

    async def _accepted(self, ask: Ask, reply: Reply) -> Answered:
        now_ms = self._clock.now_ms()
        try:
            if reply.document is None:
                return Answered(True, reply.replay or encoded(reply.members, ask.token, now_ms))
            if "execution" in reply.members:
                return Answered(
                    True, await self._with_document(reply.members, reply.document, ask.token, now_ms)
                )
            body = reply.replay or encoded(reply.members, ask.token, now_ms)
            document = await self._documents.document(reply.document)
        except StoreBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - what was committed stays, and is answered when asked again
            return self._unlucky(error, ask.token)
        return Answered(True, b'%b,"jobDocument":%b}' % (body[:-1], document))

    async def _with_document(
        self, members: Mapping[str, Any], execution: Execution, token: str | None, now_ms: int
    ) -> bytes:
        document = msgspec.Raw(await self._documents.document(execution))
        return encoded({"execution": {**members["execution"], "jobDocument": document}}, token, now_ms)

    def _unlucky(self, error: Exception, token: str | None) -> Answered:
        if isinstance(error, FOR_A_WHILE):  # the 503 of this face
            return self.refused(
                JobError(Code.REQUEST_THROTTLED, "not now: send again", retry_after_s=RETRY_AFTER_S), token
            )
        _log.error("job_request_failed", exc_info=error)
        return self._internal(error, token)

    def _internal(self, error: Exception, token: str | None) -> Answered:
        refused = self.refused(JobError(Code.INTERNAL_ERROR, "this failed, and was written down"), token)
        return refused._replace(failure=error)

    # ------------------------------------------------------------------ what may be fetched

    async def _uses_of(self, thing: str) -> list[Uses]:
        jobs = await self.lane.view(thing)
        return [await self._uses_for(one.campaign) for one in jobs.open if one.state in ACTIVE]

    async def _uses_for(self, campaign: str) -> Uses:
        uses = self._uses.get(campaign)
        if uses is None:
            uses = await self._documents.uses(campaign)
            self._uses[campaign] = uses
            if len(self._uses) > USES_KEPT_MAX:
                del self._uses[next(iter(self._uses))]
        return uses


def _change(thing: str, ask: Ask, rule: Rule) -> Change[Decided]:
    def decide(jobs: ThingJobs, now_ms: int) -> Decision[Decided]:
        try:
            result = rule(jobs, now_ms)
        except JobError as refused:
            return Decision(refused)
        return Decision(result, () if isinstance(result, GateAsk) else result.executions)

    campaign = ask.campaign if isinstance(ask, Describe | Update) else None
    return Change(thing, decide, (campaign,) if campaign else ())


def _telling(one: Told) -> Change[None]:
    def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
        return Decision(None, tuple(_without_news(one, jobs, now_ms)))

    return Change(one.thing, decide, tuple(one.news))


def _without_news(one: Told, jobs: ThingJobs, now_ms: int) -> Iterable[Execution]:
    for campaign, news in one.news.items():
        execution = jobs.find(campaign)
        if execution is not None and execution.news == news and execution.untold & PUSHES:
            clear = told(execution, PUSHES)
            if EXECUTION.takes(clear.state, ExecutionTrigger.NOTIFY):
                clear = moved(clear, ExecutionTrigger.NOTIFY, now_ms)
            yield clear
