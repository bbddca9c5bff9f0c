"""What waits while a batch is served is the next batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.intake import Intake, settled


@dataclass
class Rig:
    intake: Intake[int, int]
    task: asyncio.Task[None]
    batches: list[list[int]] = field(default_factory=list)


@asynccontextmanager
async def running(*, fails: BaseException | None = None) -> AsyncIterator[Rig]:
    async def serve(asked: Sequence[int]) -> list[int]:
        rig.batches.append(list(asked))
        await asyncio.sleep(0)
        if fails is not None:
            raise fails
        return [-one for one in asked]

    intake = Intake(serve, batch_max=3, waiting_max=6)
    rig = Rig(intake, asyncio.create_task(intake.run()))
    try:
        yield rig
    finally:
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)


async def test_each_hears_the_answers_to_what_they_asked_and_one_batch_serves_all_who_wait():
    async with running() as rig:
        one, other = rig.intake.put([1]), rig.intake.put([2, 3])
        assert (await one, await other) == ([-1], [-2, -3])
        assert rig.batches == [[1, 2, 3]]


async def test_who_asks_for_more_than_a_batch_holds_is_served_alone_and_nobody_is_torn_apart():
    async with running() as rig:
        await asyncio.gather(rig.intake.put([1, 2]), rig.intake.put([3, 4, 5, 6]), rig.intake.put([7]))
        assert rig.batches == [[1, 2], [3, 4, 5, 6], [7]]


async def test_there_is_room_for_so_much_and_no_more_until_some_of_it_is_taken():
    async with running() as rig:
        waiting = rig.intake.put([1, 2, 3, 4, 5])
        assert (rig.intake.has_room(1), rig.intake.has_room(2)) == (True, False)
        await waiting
        assert rig.intake.has_room(6)


async def test_who_does_not_wait_for_the_answer_any_more_holds_nobody_up():
    async with running() as rig:
        gone, other = rig.intake.put([1]), rig.intake.put([2])
        gone.cancel()
        assert await other == [-2]


@pytest.mark.parametrize("fails", [StoreBrokenError("fsync"), RuntimeError("a bug")])
async def test_what_ends_it_is_heard_by_all_who_wait_and_all_who_come_later(fails):
    async with running(fails=fails) as rig:
        waiting = [rig.intake.put([1, 2]), rig.intake.put([3, 4])]
        assert await asyncio.gather(*waiting, return_exceptions=True) == [fails, fails]
        with pytest.raises(type(fails)):
            await rig.intake.put([5])
        assert rig.batches == [[1, 2]]
        with pytest.raises(type(fails)):
            await rig.task


async def test_who_waits_when_the_service_stops_is_told_that_it_does():
    async with running() as rig:
        waiting = rig.intake.put([1])
        await asyncio.sleep(0)
        rig.task.cancel()
        with pytest.raises(StoreUnavailableError, match="stopping"):
            await waiting


async def test_while_somebody_works_alone_nothing_is_served():
    async with running() as rig:
        async with rig.intake.serving:
            waiting = rig.intake.put([1])
            await asyncio.sleep(0.01)
            assert not waiting.done()
        assert await waiting == [-1]


async def test_a_bug_fails_only_what_it_is_about():
    tried: list[list[int]] = []

    async def settle(positions: Sequence[int], answers: dict[int, str]) -> None:
        tried.append(list(positions))
        for position in positions:
            if position == 1:
                raise ValueError("odd")
            answers[position] = "done"

    found = await settled(3, settle, lambda position, error: f"{position}: {error}")
    assert found == ["done", "1: odd", "done"]
    assert tried == [[0, 1, 2], [1], [2]]


async def test_a_broken_store_is_no_bug_of_one():
    async def settle(positions: Sequence[int], _answers: dict[int, str]) -> None:
        raise StoreBrokenError("fsync") if len(positions) == 1 else RuntimeError("together")

    with pytest.raises(StoreBrokenError):
        await settled(2, settle, lambda *_: "failed")
