import asyncio

import pytest

from infra.live import Live, TooManyWatchersError


async def returns(awaitable):
    """Whether it returns without anything else having to happen."""
    try:
        async with asyncio.timeout(0.01):
            await awaitable
    except TimeoutError:
        return False
    return True


async def test_an_announcement_wakes_those_who_watch_that_topic_and_nobody_else():
    live = Live()
    with live.watch("hall") as hall, live.watch("hall") as hall_too, live.watch("attic") as attic:
        live.announce("hall")
        assert await returns(hall.wait())
        assert await returns(hall_too.wait())
        assert not await returns(attic.wait())


async def test_announcements_while_a_watcher_is_busy_are_one():
    live = Live()
    with live.watch("hall") as watcher:
        for _ in range(1_000):
            live.announce("hall")
        assert await returns(watcher.wait())
        assert not await returns(watcher.wait())


async def test_an_announcement_during_a_wait_ends_it():
    live = Live()
    with live.watch("hall") as watcher:
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(watcher.wait(), name="watcher")
            await asyncio.sleep(0)
            live.announce("hall")


async def test_closing_ends_every_watcher_for_good_those_who_come_later_too():
    live = Live()
    with live.watch("hall") as early:
        live.close()
        with live.watch("attic") as late:
            for watcher in (early, late):
                assert watcher.closed
                assert await returns(watcher.wait())
                assert await returns(watcher.wait())


async def test_the_number_of_watchers_is_bounded_and_a_place_is_freed_when_one_leaves():
    live = Live(watchers_max=2)
    with live.watch("a"):
        with live.watch("a"), pytest.raises(TooManyWatchersError, match="try again"), live.watch("b"):
            pass
        with live.watch("b"):
            assert live.watchers == 2
    assert live.watchers == 0


def test_announcing_to_nobody_is_no_error_and_is_not_kept():
    live = Live()
    live.announce("hall")
    with live.watch("hall") as watcher:
        assert not watcher._told.is_set()
