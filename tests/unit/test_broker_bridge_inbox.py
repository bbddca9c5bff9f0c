"""The inbox: bounded in all and for each thing, in order, never waiting for a batch to fill."""

import asyncio

import pytest

from broker_bridge.inbox import Inbox, Message
from broker_bridge.topics import Operation, Request
from shadow.document import ShadowId


def message(thing: str, number: int = 0) -> Message:
    request = Request(Operation.UPDATE, ShadowId(thing))
    return Message(request, b"%d" % number, number, connection=1, duplicate=False)


async def test_messages_are_taken_in_the_order_they_came():
    inbox = Inbox(requests_max=10, in_flight_max=10)
    sent = [message("hall", number) for number in range(5)]
    assert all(inbox.put(one) for one in sent)
    assert await inbox.take(3) == sent[:3]
    assert await inbox.take(3) == sent[3:]


async def test_a_thing_may_have_ten_unanswered_requests_and_not_eleven():
    inbox = Inbox(requests_max=100, in_flight_max=10)
    assert all(inbox.put(message("hall", number)) for number in range(10))
    assert not inbox.put(message("hall", 11))
    assert inbox.put(message("attic"))
    assert len(inbox) == 11


async def test_taken_messages_count_until_they_are_answered():
    inbox = Inbox(requests_max=100, in_flight_max=2)
    inbox.put(message("hall", 1))
    inbox.put(message("hall", 2))
    taken = await inbox.take(2)
    assert not inbox.put(message("hall", 3))
    inbox.answered(taken[:1])
    assert inbox.put(message("hall", 3))
    inbox.answered(taken[1:])
    assert len(inbox) == 1


async def test_a_full_inbox_says_no_at_once():
    inbox = Inbox(requests_max=3, in_flight_max=10)
    assert all(inbox.put(message(f"thing-{number}")) for number in range(3))
    assert not inbox.put(message("one-too-many"))
    assert len(inbox) == 3


async def test_taking_does_not_wait_for_a_batch_to_fill_but_for_a_first_message():
    inbox = Inbox(requests_max=10, in_flight_max=10)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.take(256)
    inbox.put(message("hall"))
    async with asyncio.timeout(1):
        assert len(await inbox.take(256)) == 1
