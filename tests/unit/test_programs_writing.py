"""What is written into the catalogue by two: bound to what was read, done once, and never half."""

from dataclasses import replace
from typing import Any

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreUnavailableError
from infra.machines import IllegalTransitionError
from infra.versions import OutdatedVersionError
from programs.errors import InvalidEntryError, ProgramNotFoundError, ShapeFixedError
from programs.models import Program, ProgramType, Shape, ShapeKind, Tariff
from programs.states import ProgramState
from programs.writing import (
    Asked,
    Writing,
    close_program,
    publish_program,
    write_program,
    write_shape,
    write_tariff,
)
from security.audit import INSIDE
from security.people.approvals import Approvals, Decision, Held
from security.people.errors import ActOutdatedError
from security.people.records import COLLECTIONS as PEOPLE
from security.policy import Principal, Role
from tests.fakes import SeededIds
from tests.faulty_store import Crash, FaultyStore
from tests.programs_rig import ALL_LOGS, COLLECTIONS, open_rig

OTTO, OLGA = Principal("otto", Role.OPERATOR), Principal("olga", Role.OPERATOR)
NIGHTS = Program(id="nights", name="Cool nights", type=ProgramType.PCT)
FLAT = Shape("flat/1", ShapeKind.TARIFF, {"type": "object", "properties": {"price": {"type": "string"}}})
OPEN_MAX = 10


class Desk:
    """The catalogue and the approvals over one store, as a process has them."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore((*COLLECTIONS, *PEOPLE), ALL_LOGS))
        rig = open_rig(self.store)
        self.catalogue = rig.catalogue
        self.writing = Writing(rig.catalogue)
        self.approvals = Approvals(self.store, rig.clock, SeededIds(), self.writing.table())

    async def hold(self, asked: Asked) -> Held:
        await self.writing.check(asked)
        return await self.approvals.ask(asked.act, asked.target, asked.facts, OTTO)

    async def done(self, asked: Asked) -> Held:
        held = await self.hold(asked)
        return await self.approvals.approve(held.id, OLGA, INSIDE)

    def crash_at(self, number: int, crash: Crash) -> None:
        """Let the commit of this number, counted from now, go wrong."""

        async def nothing() -> None:
            return

        async def plant() -> None:
            self.store.crash = crash

        self.store.before_commit = [*[nothing] * (number - 1), plant]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_program_goes_its_way_by_two(desk: Desk):
    assert (await desk.done(write_program(NIGHTS, 0))).decision is Decision.DONE
    assert (await desk.catalogue.program("nights")).state is ProgramState.DRAFT
    await desk.done(publish_program("nights", 1))
    await desk.done(close_program("nights"))
    assert (await desk.catalogue.program("nights")).state is ProgramState.CLOSED


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("crash", [Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])
async def test_what_was_approved_by_a_process_that_died_is_done_once(desk: Desk, number: int, crash: Crash):
    held = await desk.hold(write_program(NIGHTS, 0))
    desk.crash_at(number, crash)
    with pytest.raises(StoreUnavailableError):
        await desk.approvals.approve(held.id, OLGA, INSIDE)
    await desk.approvals.finish(OPEN_MAX)
    assert (await desk.approvals.held(held.id)).decision is Decision.DONE
    assert (await desk.catalogue.program("nights")).version == 1


async def test_what_cannot_be_done_any_more_fails_and_holds_up_nobody(desk: Desk):
    late = await desk.hold(write_program(NIGHTS, 0))
    other = await desk.hold(write_shape(FLAT))
    await desk.catalogue.put(replace(NIGHTS, name="Others were first"), OLGA)
    for held in (late, other):
        desk.crash_at(2, Crash.BEFORE_COMMIT)
        with pytest.raises((StoreUnavailableError, ActOutdatedError)):
            await desk.approvals.approve(held.id, OLGA, INSIDE)
    desk.store.crash = None
    await desk.approvals.finish(OPEN_MAX)
    assert (await desk.approvals.held(late.id)).decision is Decision.FAILED
    assert (await desk.approvals.held(other.id)).decision is Decision.DONE
    assert (await desk.catalogue.program("nights")).name == "Others were first"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (write_program(NIGHTS, 1), OutdatedVersionError),
        (write_program(replace(NIGHTS, id="ota"), 0), InvalidEntryError),
        (publish_program("nobody", 1), ProgramNotFoundError),
        (close_program("nobody"), ProgramNotFoundError),
        (write_shape(replace(FLAT, id="flat")), InvalidEntryError),
        (write_tariff(Tariff("t9", "tou/1", {}), 0), InvalidEntryError),
    ],
    ids=lambda value: f"{value.act} {value.id}" if isinstance(value, Asked) else "",
)
async def test_what_cannot_be_is_said_to_who_asks_and_nothing_is_held(
    desk: Desk, asked: Asked, error: type[Exception]
):
    await desk.catalogue.seed()
    commits = len(desk.store.commits)
    with pytest.raises(error):
        await desk.hold(asked)
    assert len(desk.store.commits) == commits


async def test_a_shape_that_is_there_and_a_program_that_is_closed_stay_so(desk: Desk):
    await desk.done(write_shape(FLAT))
    with pytest.raises(ShapeFixedError):
        await desk.hold(write_shape(replace(FLAT, kind=ShapeKind.MESSAGE)))
    await desk.done(write_program(NIGHTS, 0))
    await desk.done(close_program("nights"))
    for asked in (publish_program("nights", 2), write_program(replace(NIGHTS, name="x"), 2)):
        with pytest.raises(IllegalTransitionError):
            await desk.hold(asked)


async def test_a_tariff_is_written_over_the_rev_that_was_seen(desk: Desk):
    await desk.done(write_shape(FLAT))
    prices: list[dict[str, Any]] = [{"price": "0.20"}, {"price": "0.21"}]
    for rev, body in enumerate(prices):
        await desk.done(write_tariff(Tariff("flat", "flat/1", body), rev))
    with pytest.raises(OutdatedVersionError) as stale:
        await desk.hold(write_tariff(Tariff("flat", "flat/1", prices[0]), 1))
    assert (stale.value.current, (await desk.catalogue.tariff("flat")).rev) == (2, 2)
