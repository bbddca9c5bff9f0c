"""The inbox: bounded in all and for each thing, in order, never waiting for a batch to fill."""

import asyncio

import pytest

from broker_bridge.inbox import Inbox, Message
from broker_bridge.topics import Operation, Request
from shadow.document import ShadowId


def message(thing: str, number: int = 0) -> Message[Request]:
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


def asked(thing: str, number: int, gateway: str | None = None) -> Message[Request]:
    return message(thing, number)._replace(request=Request(Operation.UPDATE, ShadowId(thing), gateway))


async def test_what_comes_by_a_gateway_takes_no_place_from_the_thing_or_from_another_gateway():
    inbox = Inbox(requests_max=100, in_flight_max=2)
    for gateway in ("meter", "hub", None):
        assert inbox.put(asked("hall", 1, gateway))
        assert inbox.put(asked("hall", 2, gateway))
        assert not inbox.put(asked("hall", 3, gateway))
    inbox.answered([asked("hall", 1, "meter")])
    assert inbox.put(asked("hall", 4, "meter"))
    assert not inbox.put(asked("hall", 4))


async def test_what_will_be_delivered_again_is_forgotten_with_its_places_and_what_will_not_stays():
    inbox = Inbox(requests_max=10, in_flight_max=2)
    again, once = message("hall", 1), message("hall", 0)  # packet 0: QoS 0
    inbox.put(again)
    inbox.put(once)
    assert inbox.forget() == [again]
    assert len(inbox) == 1
    assert inbox.put(message("hall", 2))
    assert await inbox.take(10) == [once, message("hall", 2)]


async def test_taking_waits_again_after_all_was_forgotten():
    inbox = Inbox(requests_max=10, in_flight_max=2)
    inbox.put(message("hall", 1))
    inbox.forget()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.take(10)
    assert len(inbox) == 0
