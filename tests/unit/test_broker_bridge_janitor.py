"""Who ends sessions, against a session that writes down what it is told."""

import asyncio

import mqtt5
import msgspec
import pytest

from broker_bridge import janitor as janitor_module
from broker_bridge.janitor import (
    KICKS_WAITING_MAX,
    BrokerSilentError,
    Janitor,
    JanitorBusyError,
    KickRefusedError,
)
from broker_bridge.topics import CONTROL_ANSWERS, CONTROL_TOPIC


class Control:
    """The session's side: what was asked, and the plugin's answers."""

    def __init__(self):
        self.asked = []
        self.acknowledged = []
        self.open = True

    def publish(self, topic, payload, _expiry_s, _mark=None):
        if self.open:
            assert topic == CONTROL_TOPIC
            self.asked.append(msgspec.json.decode(payload)["commands"])
        return self.open

    def flush(self):
        pass

    def acknowledge(self, packet_id, _connection):
        self.acknowledged.append(packet_id)


@pytest.fixture
def control():
    return Control()


@pytest.fixture
def janitor(control):
    return Janitor(lambda _: control)


def answer(janitor, *responses, packet_id=None):
    payload = msgspec.json.encode({"responses": list(responses)})
    qos = mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE
    janitor.received(mqtt5.PublishPacket(CONTROL_ANSWERS, payload, qos=qos, packet_id=packet_id), 1)


def done(number, **more):
    return {"command": "deleteClient", "correlationData": number, **more}


async def kicking(janitor, name):
    task = asyncio.ensure_future(janitor.kick(name))
    await asyncio.sleep(0)
    return task


async def test_a_user_is_made_and_deleted_in_one_message(janitor, control):
    task = await kicking(janitor, "lamp")
    assert control.asked == [
        [
            {"command": "createClient", "username": "lamp", "correlationData": "1"},
            {"command": "deleteClient", "username": "lamp", "correlationData": "1"},
        ]
    ]
    answer(janitor, {"command": "createClient", "correlationData": "1"})
    await asyncio.sleep(0)
    assert not task.done()
    answer(janitor, done("1"))
    await task
    assert janitor.kicks == 1


async def test_answers_find_whom_they_are_for(janitor):
    first, second = await kicking(janitor, "a"), await kicking(janitor, "b")
    answer(janitor, done("2"))
    await second
    assert not first.done()
    answer(janitor, done("1"))
    await first


async def test_a_no_is_an_error(janitor):
    task = await kicking(janitor, "lamp")
    answer(janitor, done("1", error="Client not found"))
    with pytest.raises(KickRefusedError, match="Client not found"):
        await task


async def test_one_left_over_from_a_crash_is_no_obstacle(janitor):
    task = await kicking(janitor, "lamp")
    answer(janitor, {"command": "createClient", "correlationData": "1", "error": "exists"}, done("1"))
    await task


async def test_silence_is_an_error(janitor, monkeypatch):
    monkeypatch.setattr(janitor_module, "KICK_S_MAX", 0.01)
    with pytest.raises(BrokerSilentError, match="lamp"):
        await janitor.kick("lamp")
    answer(janitor, done("1"))


async def test_what_was_not_answered_is_asked_again_on_the_next_connection(janitor, control):
    control.open = False
    task = await kicking(janitor, "lamp")
    assert control.asked == []
    janitor.disconnected()
    control.open = True
    await janitor.connected(session_present=False)
    assert len(control.asked) == 1
    answer(janitor, done("1"), done("1"))
    await task
    await janitor.connected(session_present=False)
    assert len(control.asked) == 1


async def test_too_many_are_told_to_come_again(janitor):
    tasks = [await kicking(janitor, "lamp") for _ in range(KICKS_WAITING_MAX)]
    with pytest.raises(JanitorBusyError):
        await janitor.kick("one-more")
    for number in range(KICKS_WAITING_MAX):
        answer(janitor, done(str(number + 1)))
    await asyncio.gather(*tasks)


async def test_our_own_sessions_are_not_ended(janitor):
    with pytest.raises(AssertionError):
        await janitor.kick("svc.bridge")


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"responses": 1}', b"\xff"])
async def test_an_answer_that_is_none_ends_nothing(janitor, control, payload):
    task = await kicking(janitor, "lamp")
    janitor.received(mqtt5.PublishPacket(CONTROL_ANSWERS, payload), 1)
    answer(janitor, {}, done("77"), packet_id=5)
    assert control.acknowledged == [5]
    assert not task.done()
    answer(janitor, done("1"))
    await task
