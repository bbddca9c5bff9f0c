"""The one way in which executions change: take what waits, decide, commit once, then tell.

What devices ask for, what the executor of campaigns wants and what was seen of shadows goes through one
lane a process, so that one commit serves all of them and no two of our own writers ever race. Writers in
other processes lose or win by compare-and-set. (spec: ota, 1; design: D4, D5)
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from infra import intake
from infra.clock import Clock
from infra.documents.port import DocumentStore, StoreBrokenError, StoreUnavailableError
from infra.intake import Intake
from infra.telemetry import Metrics
from ota.errors import ExecutionBusyError, LaneFullError
from ota.execution_store import Act, ExecutionPage, ExecutionStore, Held, jobs_of
from ota.executions import ThingJobs, settled
from ota.models import Execution, execution_id

BATCH_CHANGES_MAX: Final = 500
"""Changes that share one commit. Most executions are of some kB; should so many of those that their devices
have filled (to 130 kB at most) be too much for one, each is committed alone."""
WAITING_CHANGES_MAX: Final = 60_000
"""Changes that may wait: three campaigns of the largest size being stopped at once."""
SAVE_ATTEMPTS_MAX: Final = 5
"""Tries to win against others who write the same execution."""
FOR_A_WHILE: Final = (StoreUnavailableError, ExecutionBusyError, LaneFullError)
"""What a change fails of that ends by itself."""

A = TypeVar("A")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Decision(Generic[A]):
    """What becomes of the executions of a thing, and what whoever asked is told of it."""

    answer: A
    executions: tuple[Execution, ...] = ()
    """Those that change, as they shall be."""
    act: Act | None = None
    """Of a person: its row in the audit trail is written with the one execution that changes."""


@dataclass(frozen=True, slots=True)
class Change(Generic[A]):
    """Something to be decided of one thing's executions.

    ``decide`` gets what there is and the time, and must be pure: where others were first it is asked again.
    One that changes several executions at once must come to the same end when only some of that was written.
    """

    thing: str
    decide: Callable[[ThingJobs, int], Decision[A]]
    campaigns: tuple[str, ...] = ()
    """Of these the execution is wanted also when it is final; only what is open is there anyhow."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing is known to have been changed: what ``decide`` or the store raised."""

    error: Exception


class Commit(NamedTuple):
    """One execution before and after a commit; None: it was not there."""

    before: Execution | None
    after: Execution


Listener = Callable[[Sequence[Commit]], None]


@dataclass(slots=True)
class _Round:
    """What is decided towards one commit."""

    held: Mapping[str, Mapping[str, Held]]
    before: Mapping[str, ThingJobs]
    """What there is."""
    jobs: dict[str, ThingJobs]
    """What there would be, as far as it is decided."""
    changed: dict[str, dict[str, Execution]] = field(default_factory=dict)
    """By thing and id."""
    acts: dict[str, Act] = field(default_factory=dict)
    """By the id of the execution that they changed."""
    closed: set[str] = field(default_factory=set)
    """Things of which nothing more is decided before the commit."""
    answers: dict[int, Any] = field(default_factory=dict)


class ExecutionLane:
    """Changes executions durably and tells its listeners; see :meth:`submit`."""

    def __init__(self, store: DocumentStore, clock: Clock, metrics: Metrics) -> None:
        self._store = ExecutionStore(store, clock)
        self._clock = clock
        self._metrics = metrics
        self._listeners: list[Listener] = []
        self._intake: Intake[Change[Any], Any] = Intake(
            self._serve, batch_max=BATCH_CHANGES_MAX, waiting_max=WAITING_CHANGES_MAX
        )
        metrics.gauge(
            "things_with_jobs", "Things whose jobs are kept in memory", lambda: self._store.things_kept
        )

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with what each commit changed, in order, right after it.

        It must not block and must not raise; a commit of unknown fate is not told.
        """
        self._listeners.append(listener)

    async def submit(self, changes: Sequence[Change[A]]) -> list[A | Failed]:
        """Return an answer for each change; those of one thing keep their order.

        An answer that is not :class:`Failed` stands on what is durable. Raises
        :class:`infra.documents.port.StoreBrokenError` when the process must stop.
        """
        if not self._intake.has_room(len(changes)):
            return [Failed(LaneFullError()) for _ in changes]
        portions = [
            self._intake.put(changes[first : first + BATCH_CHANGES_MAX])
            for first in range(0, len(changes), BATCH_CHANGES_MAX)
        ]
        return [answer for portion in portions for answer in await portion]

    async def run(self) -> None:
        """Serve until cancelled. What was taken is finished, or its callers are told."""
        try:
            await self._intake.run()
        except (asyncio.CancelledError, StoreBrokenError):
            raise
        except BaseException as error:
            _log.error("execution_lane_failed", exc_info=error)
            raise

    async def create(self, executions: Sequence[Execution]) -> None:
        """Make executions that are not there yet; one that is there stays as it is."""
        for first in range(0, len(executions), BATCH_CHANGES_MAX):
            async with self._intake.serving:
                made = await self._store.create(executions[first : first + BATCH_CHANGES_MAX])
            self._tell([Commit(None, one) for one in made])

    async def view(self, thing: str) -> ThingJobs:
        """Return what is open of a thing; where others write too it may be a second old."""
        return await self._store.view(thing)

    async def current(self, thing: str) -> ThingJobs:
        """Return what is open of a thing now, whoever wrote it."""
        return await self._store.current(thing)

    async def views(self, things: Collection[str]) -> dict[str, ThingJobs]:
        """Return what :meth:`view` does, of many at once."""
        held = await self._store.load(things, ())
        return {thing: jobs_of(thing, of_it.values()) for thing, of_it in held.items()}

    async def load(self, campaign: str, thing: str) -> Execution | None:
        """Return one execution, final or not."""
        id = execution_id(campaign, thing)
        held = (await self._store.load([thing], [id]))[thing].get(id)
        return None if held is None else held.execution

    async def of_campaign(self, campaign: str) -> list[Execution]:
        """Return all executions of a campaign."""
        return await _all(lambda cursor: self._store.of_campaign(campaign, cursor))

    async def of_thing(self, thing: str, limit: int, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions that a thing has and had."""
        return await self._store.of_thing(thing, limit, cursor)

    async def touched_since(self, campaign: str, ms: int) -> list[Execution]:
        """Return the executions of a campaign that changed at that time or later."""
        return await _all(lambda cursor: self._store.touched_since(campaign, ms, cursor))

    async def pending(self, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions of which somebody is still to be told something."""
        return await self._store.pending(cursor)

    # ------------------------------------------------------------------ a batch

    async def _serve(self, changes: Sequence[Change[Any]]) -> list[Any]:
        def failed(position: int, error: Exception) -> Failed:
            _log.error("change_of_jobs_failed", thing=changes[position].thing, exc_info=error)
            return Failed(error)

        return await intake.settled(len(changes), partial(self._settle, changes), failed)

    async def _settle(
        self, changes: Sequence[Change[Any]], waiting: Sequence[int], answers: dict[int, Any]
    ) -> None:
        """Add the answers of what waits."""
        tries = dict.fromkeys(waiting, 0)
        while waiting:
            try:
                one, lost = await self._round(changes, waiting)
            except StoreUnavailableError as error:
                self._metrics.store_errors.inc()
                _log.warning("store_unavailable", changes=len(waiting), reason=str(error))
                answers |= dict.fromkeys(waiting, Failed(error))
                return
            for position in waiting:
                if changes[position].thing in lost:
                    tries[position] += 1
                    if tries[position] == SAVE_ATTEMPTS_MAX:
                        answers[position] = Failed(ExecutionBusyError(changes[position].thing))
                elif position in one.answers:
                    answers[position] = one.answers[position]
            waiting = [position for position in waiting if position not in answers]

    async def _round(self, changes: Sequence[Change[Any]], waiting: Sequence[int]) -> tuple[_Round, set[str]]:
        """Decide what can be decided towards one commit, and make it; return the things that lost a race."""
        batch = [changes[position] for position in waiting]
        held = await self._store.load(
            list({change.thing for change in batch}),
            [execution_id(campaign, change.thing) for change in batch for campaign in change.campaigns],
        )
        before = {thing: jobs_of(thing, of_it.values()) for thing, of_it in held.items()}
        one = _Round(held, before, dict(before))
        for position in waiting:
            _decide(one, position, changes[position], self._clock.now_ms())
        return one, await self._commit(one)

    async def _commit(self, one: _Round) -> set[str]:
        changed = [
            execution
            for thing, by_id in one.changed.items()
            for execution in settled(one.before[thing], one.jobs[thing], list(by_id.values()))
        ]
        if not changed:
            return set()
        started_s = self._clock.elapsed_s()
        lost = await self._store.save(one.held, changed, one.acts)
        self._metrics.commit_seconds.observe(self._clock.elapsed_s() - started_s)
        # Commit before send: a lost message is sent again from the document, a lost write is gone.
        self._tell(
            [
                Commit(before.execution if before is not None else None, after)
                for after in changed
                if after.id not in lost
                for before in (one.held[after.thing].get(after.id),)
            ]
        )
        return {after.thing for after in changed if after.id in lost}

    def _tell(self, commits: Sequence[Commit]) -> None:
        for listener in self._listeners if commits else ():
            try:
                listener(commits)
            except Exception as error:  # noqa: BLE001 - what is committed is not decided again for this
                _log.error("listener_of_jobs_failed", exc_info=error)


def _decide(one: _Round, position: int, change: Change[Any], now_ms: int) -> None:
    """Decide one change on what those before it left, unless that has to wait for the commit.

    What is decided towards one commit changes one execution of a thing: if it loses its race all of that
    is decided again, and nothing that was written is decided twice. An act of a person is the last: a commit
    has one row for each execution.
    """
    thing = change.thing
    if thing in one.closed:
        return
    try:
        decision = change.decide(one.jobs[thing], now_ms)
    except Exception as error:  # noqa: BLE001 - one that cannot be decided stops no other
        one.answers[position] = Failed(error)
        return
    ids = {execution.id for execution in decision.executions}
    changed = one.changed.setdefault(thing, {})
    if changed and not ids <= changed.keys():
        one.closed.add(thing)
        return
    if len(ids) > 1 or decision.act is not None:
        one.closed.add(thing)
    if decision.act is not None:
        (id,) = ids
        one.acts[id] = decision.act
    changed |= {execution.id: execution for execution in decision.executions}
    one.jobs[thing] = one.jobs[thing].after(decision.executions)
    one.answers[position] = decision.answer


async def _all(page_from: Callable[[str | None], Any]) -> list[Execution]:
    executions: list[Execution] = []
    cursor: str | None = None
    while True:
        page: ExecutionPage = await page_from(cursor)
        executions += page.executions
        cursor = page.next
        if cursor is None:
            return executions
