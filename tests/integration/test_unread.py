"""A thing that asks and never reads: the broker keeps all of it, so its session is ended."""

import socket
import ssl
import time
from pathlib import Path

import mqtt5
import pytest

from broker_bridge.presence import parse_line
from broker_bridge.unread import LOOKS_MAX, Unread, read_sockets
from broker_bridge.watch import Cause, Sentence, Verdict
from infra.clock import SystemClock
from tests.broker_rig import BrokerRig
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

MESSAGE = bytes(131_072)
MESSAGES = 400
"""50 MB: far more than sockets hold."""
PROBED_S = 0.3


@pytest.fixture
def rig(tmp_path):
    rig = BrokerRig(tmp_path)
    rig.start()
    yield rig
    rig.close()


class Warden:
    """Notes, and ends sessions."""

    def __init__(self):
        self.verdicts = []

    def read(self, _presence):
        pass

    def begin(self, _presences):
        pass

    def judge(self, verdict):
        self.verdicts.append(verdict)


def deaf(rig, name):
    """Connect over mutual TLS and subscribe; whoever has it does not read."""
    context = ssl.create_default_context(cafile=str(rig.root_certificate))
    context.load_cert_chain(*rig.certificate(name))
    connection = context.wrap_socket(
        socket.create_connection(("127.0.0.1", rig.device_port), 5), server_hostname="localhost"
    )
    connection.sendall(mqtt5.ConnectPacket(name, clean_start=True).write())
    assert connection.recv(100)
    topic = mqtt5.TopicFilter(f"$aws/things/{name}/streams/+/data/+")
    connection.sendall(mqtt5.SubscribePacket(1, [topic]).write())
    assert connection.recv(100)
    return connection


def memory_mb(rig):
    return int(Path(f"/proc/{rig.broker.pid}/statm").read_text().split()[1]) * 4_096 / 1e6


def test_the_session_of_a_thing_that_never_reads_is_ended_and_others_are_served(rig):
    warden = Warden()
    unread = Unread(rig.device_port, warden, SystemClock(), read_sockets)
    with rig.janitor() as janitor, rig.bridge() as bridge, rig.thing("hall") as hall:
        hall.subscribe("$aws/things/hall/streams/+/data/+")
        connection = deaf(rig, "deaf")
        presences = [parse_line(text) for text in rig.broker.logged()]
        unread.begin([presence for presence in presences if presence is not None])
        before_mb = memory_mb(rig)
        for _ in range(MESSAGES):
            for thing in ("deaf", "hall"):
                bridge.send(f"$aws/things/{thing}/streams/fw-0/data/cbor", MESSAGE)
        until(lambda: len(hall.received) == MESSAGES, "the other one has all of it")
        assert memory_mb(rig) > before_mb + 20
        time.sleep(PROBED_S)
        for _ in range(LOOKS_MAX):
            assert warden.verdicts == []
            unread.look(read_sockets())
        assert warden.verdicts == [Verdict(Sentence.KICK, "deaf", Cause.UNREAD)]
        rig.call(janitor.kick("deaf"))
        until(lambda: any("Client deaf " in text for text in rig.broker.logged()), "its session has ended")
        unread.look(read_sockets())
        assert unread._seen == {}
        assert hall.is_connected
        connection.close()
