"""What the generated configuration lets devices, gateways and ourselves do: on a real broker, by attack.

The broker grants every subscription and, in MQTT 3.1.1, acknowledges every publish; only what is delivered
tells what is allowed. So each attack is followed by something that must arrive, and by nothing else.
"""

import re
import socket
import ssl
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import mqtt5
import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker_bridge.mosquitto_config import BRIDGE_USER, KEEP_ALIVE_S_MAX, PROBE_USER
from broker_bridge.presence import Sign, parse_line
from broker_bridge.topics import PRESENCE_SUBSCRIPTIONS, SUBSCRIPTIONS
from tests.broker_rig import BrokerRig
from tests.certificates import certificate_files, open_authority
from tests.system.mqtt import V5, V311

pytestmark = pytest.mark.integration

LOG_LINES = Path(__file__).parents[1] / "vectors" / "broker_log_lines.txt"
VERSIONS = pytest.mark.parametrize("protocol", [V311, V5], ids=["3.1.1", "5"])
CONNACK = b"\x20"
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
    return f"lamp-{next(_names)}"


def shadow(thing, rest):
    return f"$aws/things/{thing}/shadow/{rest}"


def delivered(bridge, witness, topic, payload=b"after"):
    """Send something allowed, wait until the bridge has it, and return all that came until then."""
    witness.publish(topic, payload)
    bridge.wait_for(lambda one: one.topic == topic and one.payload == payload)
    return [(one.topic, one.payload) for one in bridge.received]


# ---------------------------------------------------------------------- who may connect


def handshake(rig, certificate=None):
    """Connect with TLS and say CONNECT; return the broker's first bytes, none when it breaks off."""
    context = ssl.create_default_context(cafile=rig.root_certificate)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    try:
        with (
            socket.create_connection(("127.0.0.1", rig.device_port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp")
            return connection.recv(4)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return b""


def test_a_device_with_our_certificate_is_let_in(rig, lamp):
    assert handshake(rig, rig.certificate(lamp)) == b"\x20\x02\x00\x00"


def test_a_device_without_certificate_is_not(rig):
    assert handshake(rig) == b""


def test_a_device_with_a_certificate_of_another_authority_is_not(rig, lamp, tmp_path):
    foreign = open_authority(tmp_path)
    assert handshake(rig, certificate_files(foreign, tmp_path / "things", lamp)) == b""
    assert handshake(rig, rig.certificate(lamp)).startswith(CONNACK)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # that is the point
def test_old_tls_is_refused(rig, lamp):
    context = ssl.create_default_context(cafile=rig.root_certificate)
    context.load_cert_chain(*rig.certificate(lamp))
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", rig.device_port), 5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_plain_text_on_the_device_listener_is_refused(rig):
    with socket.create_connection(("127.0.0.1", rig.device_port), 5) as connection:
        connection.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp")
        with suppress(ConnectionResetError):
            assert not connection.recv(4).startswith(CONNACK)


def test_nobody_connects_as_the_bridge_without_its_password(rig):
    for user, password in ((BRIDGE_USER, "wrong"), (BRIDGE_USER, ""), ("svc.other", rig.broker.password)):
        with pytest.raises(AssertionError, match="was refused"), rig.bridge(user, password):
            pass


@VERSIONS
def test_a_device_cannot_throw_another_off_by_taking_its_client_id(rig, lamp, protocol):
    mallory = f"mallory-{lamp}"
    with rig.bridge() as bridge, rig.thing(lamp, protocol=protocol) as victim:
        bridge.subscribe(*SUBSCRIPTIONS)
        victim.listen()
        with rig.thing(mallory, protocol=protocol, client_id=lamp) as attacker:
            attacker.publish(shadow(mallory, "get"), b"I am still mallory")
            bridge.wait_on(shadow(mallory, "get"))
            bridge.publish(shadow(lamp, "get/accepted"), b"for the lamp")
            assert victim.wait_on(shadow(lamp, "get/accepted")).payload == b"for the lamp"
            assert victim.is_connected
            assert attacker.received == []


# ---------------------------------------------------------------------- what a device may write


@VERSIONS
def test_a_device_writes_its_own_requests_and_nothing_else(rig, lamp, protocol):
    foreign = [
        shadow("victim", "update"),
        shadow("victim", "name/config/update"),
        shadow(lamp, "update/accepted"),
        shadow(lamp, "update/rejected"),
        shadow(lamp, "update/delta"),
        shadow(lamp, "update/documents"),
        shadow(lamp, "get/accepted"),
        shadow(lamp, "name/config/update/delta"),
        shadow(lamp, "list"),
        shadow(lamp, "update/x/y"),
        "$aws/things/victim/jobs/get",
        "$aws/things/victim/streams/fw-0/get/cbor",
        f"$aws/things/{lamp}/jobs/notify-next",
        f"$aws/things/{lamp}/jobs/c-1/get/accepted",
        f"$aws/things/{lamp}/streams/fw-0/data/cbor",
        f"gnomon/gateways/victim/up/things/{lamp}/shadow/update",
        f"gnomon/gateways/{lamp}/down/things/x/shadow/update/delta",
        "$SYS/broker/log/N",
        "$CONTROL/dynamic-security/v1",
        "somewhere/else",
    ]
    with rig.bridge() as bridge, rig.thing(lamp, protocol=protocol) as device, rig.thing("victim") as victim:
        bridge.subscribe(*SUBSCRIPTIONS, *PRESENCE_SUBSCRIPTIONS)
        victim.listen()
        device.listen()
        for topic in foreign:
            device.publish(topic, b"forged")
        for rest in (
            "get",
            "update",
            "delete",
            "name/config/get",
            "name/config/update",
            "name/config/delete",
        ):
            device.publish(shadow(lamp, rest), b"own")
        seen = delivered(bridge, device, shadow(lamp, "update"))
        assert [topic for topic, payload in seen if payload == b"own"] == [
            shadow(lamp, rest)
            for rest in (
                "get",
                "update",
                "delete",
                "name/config/get",
                "name/config/update",
                "name/config/delete",
            )
        ]
        assert not [topic for topic, payload in seen if payload == b"forged"]
        assert device.received == []
        assert victim.received == []


@VERSIONS
def test_a_will_on_a_foreign_topic_is_not_delivered_and_one_on_its_own_is(rig, lamp, protocol):
    with rig.bridge() as bridge, rig.thing(f"{lamp}-witness") as witness:
        bridge.subscribe(*SUBSCRIPTIONS)
        for topic, payload in ((shadow("victim", "update"), b"foreign"), (shadow(lamp, "update"), b"own")):
            with rig.thing(lamp, protocol=protocol, will=(topic, payload)) as device:
                device.break_off()
        bridge.wait_for(lambda one: one.payload == b"own")
        seen = delivered(bridge, witness, shadow(witness.name, "update"))
        assert b"foreign" not in [payload for _, payload in seen]


def test_a_packet_above_the_limit_is_not_taken(rig, lamp):
    with rig.bridge() as bridge, rig.thing(f"{lamp}-witness") as witness:
        bridge.subscribe(*SUBSCRIPTIONS)
        with rig.thing(lamp) as device:
            device.send(shadow(lamp, "update"), bytes(rig.config.packet_bytes_max))
            device.wait_connected(False)
        assert (shadow(lamp, "update"), b"") not in delivered(bridge, witness, shadow(witness.name, "update"))


# ---------------------------------------------------------------------- what a device may read


@VERSIONS
@pytest.mark.parametrize(
    "filter",
    [
        "#",
        "+/#",
        "$aws/#",
        "$aws/things/#",
        "$aws/things/+/shadow/update",
        "$aws/things/+/shadow/update/+",
        "$aws/things/victim/shadow/#",
        "$share/group/$aws/things/+/shadow/#",
        "gnomon/#",
        "gnomon/gateways/+/up/#",
        "gnomon/gateways/victim/down/#",
        "$SYS/#",
        "$SYS/broker/log/+",
        "$CONTROL/#",
    ],
)
def test_no_subscription_brings_a_device_what_is_not_its_own(rig, lamp, filter, protocol):
    with rig.bridge() as bridge, rig.thing("victim") as victim, rig.thing(lamp, protocol=protocol) as spy:
        spy.subscribe(filter)
        spy.listen()
        victim.publish(shadow("victim", "update"), b"secret")
        victim.publish("gnomon/gateways/victim/up/things/x/shadow/update", b"secret")
        bridge.publish(shadow("victim", "update/accepted"), b"secret")
        bridge.publish("gnomon/gateways/victim/down/things/x/shadow/update/delta", b"secret")
        bridge.publish(shadow(lamp, "update/delta"), b"own")
        spy.wait_on(shadow(lamp, "update/delta"))
        assert {one.topic for one in spy.received} == {shadow(lamp, "update/delta")}


def test_a_device_does_not_even_read_its_own_requests(rig, lamp):
    with rig.bridge() as bridge, rig.thing(lamp) as device:
        device.subscribe(f"$aws/things/{lamp}/#")
        device.publish(shadow(lamp, "update"), b"mine")
        bridge.publish(shadow(lamp, "update/accepted"), b"yours")
        device.wait_on(shadow(lamp, "update/accepted"))
        assert device.topics() == [shadow(lamp, "update/accepted")]


# ---------------------------------------------------------------------- gateways


@VERSIONS
def test_a_gateway_writes_only_up_and_reads_only_down(rig, lamp, protocol):
    tree = f"gnomon/gateways/{lamp}"
    with rig.bridge() as bridge, rig.thing(lamp, protocol=protocol) as gateway:
        bridge.subscribe(*SUBSCRIPTIONS)
        gateway.subscribe(f"{tree}/#")
        gateway.publish(f"{tree}/down/things/a/shadow/update/accepted", b"forged")
        gateway.publish(f"{tree}/up/things/a/shadow/update", b"asked")
        assert bridge.wait_on(f"{tree}/up/things/a/shadow/update").payload == b"asked"
        bridge.publish(f"{tree}/down/things/a/shadow/update/accepted", b"answered")
        gateway.wait_for(lambda one: one.payload == b"answered")
        assert gateway.topics() == [f"{tree}/down/things/a/shadow/update/accepted"]
        assert "forged" not in str(bridge.received)


# ---------------------------------------------------------------------- our own processes


def test_the_bridge_speaks_only_where_answers_are_and_hears_only_requests_and_presence(rig, lamp):
    with rig.bridge() as bridge, rig.thing(lamp) as device:
        device.listen()
        bridge.subscribe("#", "$aws/#", "$SYS/#", "$CONTROL/#", *SUBSCRIPTIONS)
        for topic in (
            shadow(lamp, "update"),
            "$CONTROL/dynamic-security/v1",
            "gnomon/gateways/g/up/x",
            "other",
        ):
            assert bridge.publish(topic, b"not mine").is_failure, topic
        assert not bridge.publish(shadow(lamp, "update/delta"), b"mine").is_failure
        assert device.wait_on(shadow(lamp, "update/delta")).payload == b"mine"
        device.publish(shadow(lamp, "update"), b"asked")
        bridge.wait_on(shadow(lamp, "update"))
        allowed = {shadow(lamp, "update"), *PRESENCE_SUBSCRIPTIONS}
        assert {one.topic for one in bridge.received} <= allowed


def test_the_probe_may_log_in_and_nothing_else(rig, lamp):
    password = rig.broker._passwords[PROBE_USER]
    with rig.bridge(PROBE_USER, password) as probe, rig.thing(lamp) as device:
        probe.subscribe("#", "$aws/#", "$SYS/#")
        device.listen()
        assert probe.publish(shadow(lamp, "update/accepted"), b"forged").is_failure
        device.publish(shadow(lamp, "update"), b"asked")
        with rig.bridge() as bridge:
            bridge.publish(shadow(lamp, "update/delta"), b"after")
        device.wait_on(shadow(lamp, "update/delta"))
        assert len(device.received) == 1
        assert probe.received == []


def test_what_was_retained_is_not_sent_when_the_bridge_subscribes_and_is_marked_when_it_comes(rig, lamp):
    options = SubscribeOptions(
        qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
    )
    with rig.bridge() as bridge, rig.thing(lamp) as device:
        device.publish(shadow(lamp, "update"), b"old", retain=True)
        bridge._client.subscribe([(shadow("+", "update"), options)])
        bridge._granted.get(timeout=5)
        device.publish(shadow(lamp, "update"), b"new", retain=True)
        device.publish(shadow(lamp, "update"), b"", retain=True)
        device.publish(shadow(lamp, "update"), b"plain")
        bridge.wait_for(lambda one: one.payload == b"plain")
        seen = [(one.payload, one.retain) for one in bridge.received]
        assert seen == [(b"new", True), (b"", True), (b"plain", False)]


@VERSIONS
def test_what_a_device_retains_reaches_nobody_but_the_bridge(rig, lamp, protocol):
    with rig.bridge() as bridge, rig.thing(lamp, protocol=protocol) as device:
        bridge.subscribe(*SUBSCRIPTIONS)
        for topic in (shadow(lamp, "update"), shadow("victim", "update/delta"), shadow(lamp, "update/delta")):
            device.publish(topic, b"poison", retain=True)
        bridge.wait_on(shadow(lamp, "update"))
        assert [one.topic for one in bridge.received if one.payload == b"poison"] == [shadow(lamp, "update")]
        with rig.thing("victim", protocol=protocol) as victim:
            victim.subscribe("#", "$aws/#", shadow("victim", "update/+"), shadow(lamp, "#"))
            bridge.publish(shadow("victim", "update/delta"), b"after")
            victim.wait_on(shadow("victim", "update/delta"))
            assert {one.payload for one in victim.received} == {b"after"}, "two filters may bring it twice"
        device.publish(shadow(lamp, "update"), b"", retain=True)


# ---------------------------------------------------------------------- limits and the log


@pytest.mark.parametrize("keep_alive_s", [0, 60, KEEP_ALIVE_S_MAX, 65_535])
def test_a_client_of_the_old_protocol_may_be_silent_as_long_as_it_says(rig, lamp, keep_alive_s):
    # MQTT 3.1.1 has no way to tell it otherwise; 1,200 s is what AWS allows and its SDKs ask for. [measured]
    with secured(rig, lamp) as connection:
        connection.sendall(
            b"\x10\x10\x00\x04MQTT\x04\x02" + keep_alive_s.to_bytes(2, "big") + b"\x00\x04lamp"
        )
        assert connection.recv(4) == b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("asked_s", "told_s"), [(60, None), (KEEP_ALIVE_S_MAX, None), (65_535, KEEP_ALIVE_S_MAX)]
)
def test_a_client_of_mqtt_5_is_told_how_long_it_may_be_silent(rig, lamp, asked_s, told_s):
    with secured(rig, lamp) as connection:
        connection.sendall(mqtt5.ConnectPacket("any", keep_alive=asked_s, clean_start=True).write())
        connack, _ = mqtt5.read(memoryview(connection.recv(1_024)))
        assert isinstance(connack, mqtt5.ConnAckPacket)
        assert connack.server_keep_alive == told_s
        assert connack.max_packet_size == rig.config.packet_bytes_max
        assert connack.max_qos == mqtt5.QoS.AT_LEAST_ONCE


@contextmanager
def secured(rig, name):
    context = ssl.create_default_context(cafile=rig.root_certificate)
    context.load_cert_chain(*rig.certificate(name))
    with (
        socket.create_connection(("127.0.0.1", rig.device_port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def test_the_log_says_who_connects_and_subscribes_in_lines_that_are_understood(rig, lamp):
    signs = []
    with rig.bridge() as bridge:
        bridge.subscribe(*PRESENCE_SUBSCRIPTIONS)
        with rig.thing(lamp, protocol=V311, clean=False) as device:
            device.subscribe(shadow(lamp, "update/delta"))
        with rig.thing(lamp) as device:
            device.subscribe(shadow("victim", "update/delta"))
            device.break_off()
        bridge.wait_for(lambda one: f"Client {lamp} closed its connection" in one.payload.decode())
        said = [(one.payload.decode(), one.topic) for one in bridge.received]
    for line, topic in said:
        presence = parse_line(line, topic)
        assert presence == parse_line(line), "the file says the same"
        if presence is not None and presence.thing == lamp:
            signs.append((presence.sign, presence.fresh, presence.filter))
    assert signs == [
        (Sign.CONNECTED, False, None),
        (Sign.SUBSCRIBED, False, shadow(lamp, "update/delta")),
        (Sign.DISCONNECTED, False, None),
        (Sign.CONNECTED, True, None),
        (Sign.SUBSCRIBED, False, shadow("victim", "update/delta")),
        (Sign.DISCONNECTED, False, None),
    ]
    known = {shape(line.split("\t")[1]) for line in LOG_LINES.read_text().splitlines()}
    assert {shape(line) for line, _ in said} <= known, (
        "the broker has a line that tests/vectors does not know"
    )


def test_no_filter_makes_a_line_of_its_own_in_the_file(rig, lamp):
    with rig.thing(lamp) as device:
        for end in ("\u2028", "\u2029"):
            device.subscribe(f"x{end}1790000000: accused 1 $aws/#")
    presences = [parse_line(line) for line in rig.broker.logged()]
    said = [one for one in presences if one is not None and one.filter]
    assert lamp in {one.thing for one in said}
    assert "accused" not in {one.thing for one in said}


def shape(line):
    """Return a log line without what differs from run to run."""
    line = re.sub(r"127\.0\.0\.1:\d+|on port \d+", "…", line)
    line = re.sub(r"\$\S+", "filter", line)
    line = re.sub(r"lamp-\d+|th-\d+|svc\.\w+", "name", line)
    return re.sub(r"^\d+: ", "0: ", line)
