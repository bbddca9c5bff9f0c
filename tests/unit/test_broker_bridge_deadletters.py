"""Dead letters: the bytes and the reason are kept, a repeat is kept once, and keeping them never fails."""

import base64

import pytest
import structlog

from broker_bridge.deadletters import DEAD_LETTERS, LETTERS_PER_THING_MAX, DeadLetters
from broker_bridge.inbox import Message
from broker_bridge.topics import (
    JobRequest,
    Operation,
    Request,
    StreamOperation,
    StreamRequest,
)
from infra.documents.memory import MemoryStore
from infra.telemetry import Metrics
from ota.job_requests import JobOperation
from shadow.document import ShadowId
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import EVERYTHING, FaultyStore


@pytest.fixture
def store():
    return FaultyStore(MemoryStore([], [DEAD_LETTERS]))


@pytest.fixture
def letters(store):
    return DeadLetters(store, FakeClock(), Metrics())


def message(payload=b"\xff\x00 anything", shadow="", gateway=None):
    request = Request(Operation.UPDATE, ShadowId("hall", shadow), gateway)
    return Message(request, payload, 1, connection=1, duplicate=False)


async def test_a_letter_tells_whose_it_is_when_why_and_what_byte_for_byte(letters):
    await letters.add(message(shadow="cfg", gateway="meter"), "trace abc")
    (letter,) = [one async for one in letters.all()]
    assert (letter.thing, letter.shadow, letter.operation, letter.gateway) == (
        "hall", "cfg", "update", "meter",
    )  # fmt: skip
    assert (letter.at_ms, letter.reason) == (NOW_MS, "trace abc")
    assert base64.b64decode(letter.payload) == b"\xff\x00 anything"


async def test_a_letter_about_firmware_tells_of_which_kind_it_is(letters):
    for request in (
        JobRequest(JobOperation.UPDATE, "hall", "c-1", "meter"),
        StreamRequest(StreamOperation.GET, "hall", "fw-1", "cbor"),
    ):
        await letters.keep(request, "", b"\xa0", "trace abc")
    kept = {(one.operation, one.thing, one.shadow, one.gateway) async for one in letters.all()}
    assert kept == {("JobRequest.update", "hall", "", "meter"), ("StreamRequest.get", "hall", "", None)}


async def test_the_same_bytes_again_are_one_letter_and_two_counts(letters):
    for _ in range(2):
        await letters.add(message(), "trace abc")
    assert len([one async for one in letters.all()]) == 1
    assert letters._metrics.dead_letters.value == 2


async def test_of_one_thing_only_so_many_are_kept_whatever_it_sends(letters):
    for number in range(4 * LETTERS_PER_THING_MAX):
        await letters.add(message(b"%d" % number, shadow=f"s-{number}"), "trace abc")
    kept = [one async for one in letters.all()]
    assert LETTERS_PER_THING_MAX // 2 < len(kept) <= LETTERS_PER_THING_MAX


async def test_a_store_that_is_down_costs_the_letter_and_nothing_else(letters, store):
    store.refuses = EVERYTHING
    with structlog.testing.capture_logs() as logs:
        await letters.add(message(), "trace abc")
    store.refuses = ()
    assert [event["event"] for event in logs] == ["dead_letter", "dead_letter_lost"]
    assert [one async for one in letters.all()] == []
