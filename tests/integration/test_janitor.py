"""Ending live sessions, on a real broker."""

import asyncio
import os
import signal
from itertools import count

import msgspec
import pytest

from broker_bridge import janitor as janitor_module
from broker_bridge.janitor import BrokerSilentError
from broker_bridge.mosquitto_config import JANITOR_USER
from broker_bridge.topics import CONTROL_ANSWERS, CONTROL_TOPIC, SUBSCRIPTIONS
from tests.broker_rig import BrokerRig
from tests.system.mqtt import V5, V311

pytestmark = pytest.mark.integration

VERSIONS = pytest.mark.parametrize("protocol", [V311, V5], ids=["3.1.1", "5"])
_names = count(1)


@pytest.fixture(scope="module")
def rig(tmp_path_factory, broker_program):  # noqa: ARG001 - a skip without Mosquitto
    rig = BrokerRig(tmp_path_factory.mktemp("broker"))
    rig.start()
    yield rig
    rig.close()


@pytest.fixture
def lamp():
    """A name that no other test uses."""
    return f"bulb-{next(_names)}"


def request(thing):
    return f"$aws/things/{thing}/shadow/update"


def commands(name, *words):
    return msgspec.json.encode({"commands": [{"command": word, "username": name} for word in words]})


@VERSIONS
def test_a_session_is_ended_on_the_device_listener_and_no_other_is_disturbed(rig, lamp, protocol):
    with (
        rig.janitor() as janitor,
        rig.bridge() as bridge,
        rig.thing(lamp, protocol=protocol) as victim,
        rig.thing(f"{lamp}-other", protocol=protocol) as other,
    ):
        bridge.subscribe(*SUBSCRIPTIONS)
        rig.call(janitor.kick(lamp))
        victim.wait_connected(False)
        other.publish(request(other.name), b"still here")
        bridge.wait_on(request(other.name))
        assert other.is_connected
        assert bridge.is_connected


def test_an_end_is_no_ban(rig, lamp):
    with rig.janitor() as janitor, rig.thing(lamp) as device, device.cut_off():
        rig.call(janitor.kick(lamp))


def test_to_end_what_is_not_there_is_no_error(rig, lamp):
    with rig.janitor() as janitor:
        for _ in range(3):
            rig.call(janitor.kick(lamp))
        assert janitor.kicks == 3


def test_many_at_once_all_end(rig, lamp):
    # So many that a `memory_limit` would end it: the plugin's commands make the broker miscount its memory.
    names = [f"{lamp}-{number}" for number in range(600)]

    async def kick_all(janitor):
        async with asyncio.TaskGroup() as kicks:
            for name in names:
                kicks.create_task(janitor.kick(name), name="kick")

    with rig.janitor() as janitor, rig.thing(names[0]) as first, rig.thing(names[-1]) as last:
        rig.call(kick_all(janitor))
        first.wait_connected(False)
        last.wait_connected(False)


def test_nothing_of_it_stays_in_the_plugins_file(rig, lamp):
    with rig.janitor() as janitor:
        rig.call(janitor.kick(lamp))
    file = rig.directory / "broker" / "dynamic-security.json"
    assert file.stat().st_mode & 0o077 == 0
    assert lamp not in file.read_text()
    state = msgspec.json.decode(file.read_bytes())
    assert set(state["defaultACLAccess"].values()) == {False}
    assert state["clients"] == []


def test_to_disable_a_user_does_not_keep_out_who_has_a_certificate(rig, lamp):
    # The trap: a kick it is, but the next connection is let in, and what it says is delivered.
    with (
        rig.bridge(JANITOR_USER, rig.broker.janitor_password) as control,
        rig.bridge() as bridge,
        rig.thing(lamp) as device,
    ):
        bridge.subscribe(*SUBSCRIPTIONS)
        control.subscribe(CONTROL_ANSWERS)
        with device.cut_off():
            control.publish(CONTROL_TOPIC, commands(lamp, "createClient", "disableClient"))
            assert "error" not in control.wait_on(CONTROL_ANSWERS).payload.decode()
        device.publish(request(lamp), b"I am back")
        assert bridge.wait_on(request(lamp)).payload == b"I am back"
        control.publish(CONTROL_TOPIC, commands(lamp, "deleteClient"))
        device.wait_connected(False)


def test_after_a_reload_sessions_can_still_be_ended(rig, lamp):
    with rig.janitor() as janitor, rig.thing(lamp) as device:
        rig.broker.reload()
        device.publish(request(lamp), b"undisturbed")
        assert device.is_connected
        rig.call(janitor.kick(lamp))
        device.wait_connected(False)


@pytest.mark.parametrize("who", ["a device", "the bridge", "the probe"])
def test_nobody_else_can_end_a_session(rig, lamp, who):
    probe = ("svc.probe", rig.broker._passwords["svc.probe"])
    others = {
        "a device": lambda: rig.thing(f"{lamp}-mallory"),
        "the bridge": rig.bridge,
        "the probe": lambda: rig.bridge(*probe),
    }
    with rig.thing(lamp) as victim, others[who]() as mallory:
        assert mallory.publish(CONTROL_TOPIC, commands(lamp, "createClient", "deleteClient")).is_failure
        victim.publish(request(lamp), b"after")
        assert victim.is_connected


def test_who_ends_sessions_may_do_nothing_else(rig, lamp):
    with rig.bridge(JANITOR_USER, rig.broker.janitor_password) as control, rig.thing(lamp) as device:
        control.subscribe("#", "$aws/#", "$SYS/#")
        device.listen()
        assert control.publish(f"{request(lamp)}/accepted", b"forged").is_failure
        assert control.publish(request(lamp), b"forged").is_failure
        device.publish(request(lamp), b"secret")
        with rig.bridge() as bridge:
            bridge.publish(f"{request(lamp)}/delta", b"after")
        device.wait_on(f"{request(lamp)}/delta")
        assert len(device.received) == 1
        assert control.received == []


def test_without_an_answer_it_is_an_error_and_not_a_yes(rig, lamp, monkeypatch):
    monkeypatch.setattr(janitor_module, "KICK_S_MAX", 0.2)
    pid = rig.broker.pid
    assert pid is not None
    with rig.janitor() as janitor:
        rig.call(janitor.kick(lamp))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerSilentError, match=lamp):
                rig.call(janitor.kick(lamp))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert janitor._asked == {}
        rig.call(janitor.kick(lamp))
