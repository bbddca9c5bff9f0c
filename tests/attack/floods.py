"""Attacks by amount and by malformed bytes: whoever else is there must not notice. (B21, B22, B23, B26)"""

import resource
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import mqtt5

from tests.attack import mutants, wire
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import Bystander, Field, happens, percentile
from tests.system.child import Gnomon
from tests.system.mqtt import connected, shadow_topic

ONCE: Final = mqtt5.QoS.AT_LEAST_ONCE
NOTICED: Final = 3.0
"""Times the own p99 of a bystander before: what others do may not slow it down more."""
NOISE_S: Final = 0.25
"""Below this nobody could tell it from the machine's own noise."""
CONNECTIONS_EACH: Final = 40
"""Of one thing: above 60 in ten minutes it is put into quarantine, and then it attacks no more."""
REFUSED: Final = frozenset({400, 413, 415})
"""415: the protocol's own word for what is not UTF-8."""
MIB: Final = 1_048_576
PACKET_BYTES_MAX: Final = 262_144


MEMBERS: Final = b",".join(b'"k%d":1' % n for n in range(4_000))


def odd_documents() -> dict[str, bytes]:
    """Return what is no request, by what is wrong with it."""
    deep = 15_000
    return {
        "no bytes": b"",
        "blanks": b" " * 1_000,
        "NUL": b"\x00",
        "cut": b'{"state": {"reported": {"n": 1',
        "text behind": b'{"state": {"reported": {"n": 1}}} x',
        "two documents": b'{"state": {"reported": {}}}{"state": {}}',
        "arrays in arrays": b"[" * deep + b"]" * deep,
        "objects in objects": b'{"state":{"reported":' + b'{"a":' * 6_000 + b"1" + b"}" * 6_000 + b"}}",
        "arrays without end": b'{"state":{"reported":{"a":' + b"[" * deep,
        "NaN": b'{"state": {"reported": {"n": NaN}}}',
        "infinity": b'{"state": {"reported": {"n": -Infinity}}}',
        "a number beyond floats": b'{"state": {"reported": {"n": 1e999}}}',
        "a plus": b'{"state": {"reported": {"n": +1}}}',
        "hexadecimal": b'{"state": {"reported": {"n": 0x10}}}',
        "leading zero": b'{"state": {"reported": {"n": 01}}}',
        "single quotes": b"{'state': {'reported': {'n': 1}}}",
        "a comment": b'{"state": {"reported": {"n": 1}}} // ok',
        "trailing comma": b'{"state": {"reported": {"n": 1,}}}',
        "an array": b"[]",
        "a number": b"1",
        "a text": b'"state"',
        "null": b"null",
        "state is a text": b'{"state": "x"}',
        "reported is an array": b'{"state": {"reported": [1]}}',
        "version is a text": b'{"state": {"reported": {"n": 1}}, "version": "1"}',
        "version below zero": b'{"state": {"reported": {"n": 1}}, "version": -1}',
        "version is half": b'{"state": {"reported": {"n": 1}}, "version": 1.5}',
        "a token that is too long": b'{"state": {"reported": {"n": 1}}, "clientToken": "%s"}' % (b"t" * 600),
        "a token that is a number": b'{"state": {"reported": {"n": 1}}, "clientToken": 1}',
        "not UTF-8": b'{"state": {"reported": {"n": "\xff\xfe"}}}',
        "overlong UTF-8": b'{"state": {"reported": {"n": "\xc0\xaf"}}}',
        "UTF-16": '{"state": {"reported": {"n": 1}}}'.encode("utf-16"),
        "a byte order mark": b'\xef\xbb\xbf{"state": {"reported": {"n": 1}}}',
        "a control character": b'{"state": {"reported": {"n": "\x01"}}}',
        "half an escape": b'{"state": {"reported": {"n": "\\u12"}}}',
        "more than a shadow may hold": b'{"state": {"reported": {"n": "%s"}}}' % (b"x" * 20_000),
        "more than a request may hold": b'{"state": {"reported": {"n": "%s"}}}' % (b"x" * 60_000),
        "a thousand levels of text": b'{"state": {"reported": {"n": "' + b"\\\\" * 16_000,
        "a thousand members": b'{"state": {"reported": {'
        + b",".join(b'"k%d":1' % n for n in range(4_000))
        + b"}}}",
    }


@attack("B21", "huge, deep and odd JSON", at_least=Size(300, 70))
def odd_json(field: Field, score: Score) -> None:
    """Send what is no request by both ways in; each is refused with 400 or 413, and nobody else is slower."""
    gnomon, name = field.gnomon, field.gnomon.new()
    documents = odd_documents()
    rounds = field.size(5, 1)
    worst_s = 0.0
    with Bystander(gnomon) as bystander, connected(gnomon, name) as device:
        device.listen()
        device.report({"n": 0})
        calm = calmly(bystander)
        for _ in range(rounds):
            for what, document in documents.items():
                began = time.monotonic()
                by_mqtt = device.ask_bytes("update", document, None)
                code = by_mqtt.json.get("code")
                score.attempt(f"{what} by MQTT: {code}", succeeded=code not in REFUSED)
                wish = document.replace(b'"reported"', b'"desired"')
                by_http = gnomon.http.post(f"/things/{name}/shadow", content=wish)
                score.attempt(
                    f"{what} by HTTP: {by_http.status_code}", succeeded=by_http.status_code not in REFUSED
                )
                worst_s = max(worst_s, time.monotonic() - began)
        score.honest("a good one is taken after all that", works=device.report({"n": 1})["version"] == 2)
    score.attempt(
        "the shadow changed", succeeded=field.gnomon.shadow(name)["state"] != {"reported": {"n": 1}}
    )
    undisturbed(score, bystander, calm)
    score.measure(documents=len(documents), slowest_ms=round(worst_s * 1_000))


@attack("B22", "malformed MQTT", at_least=Size(1_000_000, 20_000))
def malformed_mqtt(field: Field, score: Score) -> None:
    """Change bytes of good packets: a million for our own parser, thousands for the broker."""
    _our_parser(field, score)
    gnomon = field.gnomon
    rounds = field.size(2_000, 100)
    names = field.things(1 + rounds // CONNECTIONS_EACH)
    broker = gnomon.broker_pid
    assert broker is not None
    before = resident_bytes(broker), resident_bytes(gnomon.pid)
    with Bystander(gnomon) as bystander:
        calm = calmly(bystander)
        for number in range(rounds):
            _send_mutants(field, gnomon, names[number // CONNECTIONS_EACH])
        score.attempts("the broker ended", rounds, int(gnomon.broker_pid != broker))
        score.honest("the service is there", works=gnomon.http.get("/healthz").status_code == 200)
    undisturbed(score, bystander, calm)
    grown = [
        (now - then) / MIB
        for now, then in zip((resident_bytes(broker), resident_bytes(gnomon.pid)), before, strict=True)
    ]
    score.must(f"memory is bounded (grew by {grown} MiB)", held=max(grown) < 64)
    applied = [name for name in names if field.version(name) > 0]
    score.attempts(f"mutants were applied: {applied[:3]}", len(names), len(applied))
    score.measure(connections=rounds, broker_grew_mib=round(grown[0], 1), service_grew_mib=round(grown[1], 1))


def _send_mutants(field: Field, gnomon: Gnomon, name: str) -> None:
    """Connect as a good thing, and go on with packets that are none."""
    packets = _good_packets(name)
    with suppress(OSError), wire.secured(gnomon, gnomon.certificate(name)) as connection:
        if field.rng.random() < 0.8:
            connection.sendall(wire.connect_packet(name))
            connection.recv(4)
        for _ in range(4):
            connection.sendall(mutants.mutated(field.rng.choice(packets), field.rng))
        connection.settimeout(0.002)
        connection.recv(64)


def _good_packets(name: str) -> list[bytes]:
    topic = f"{shadow_topic(name)}/get"
    return [
        wire.connect_packet(name, (topic, b"x"), wire.V5),
        wire.publish_packet(topic, b""),
        wire.publish_packet(f"gnomon/gateways/{name}/up/a/b", b"\x00" * 40),
        mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(f"{topic}/+")]).write(),
        mqtt5.PublishPacket(topic, b"{}", qos=ONCE, packet_id=1, topic_alias=3).write(),
        b"\x40\x02\x00\x01",
        b"\xc0\x00",
    ]


def _our_parser(field: Field, score: Score) -> None:
    """Feed the bridge's reader: it may end the connection with its own error, and nothing else."""
    count = field.size(1_000_000, 20_000)
    result = mutants.in_a_process(count, field.rng.getrandbits(32))
    score.attempts(f"escaped from the parser: {result.escaped[:3]}", result.fed, len(result.escaped))
    score.honest("good packets are understood", works=result.understood)
    score.measure(parsed=result.fed, parser_grew_mib=result.grew_mib)
    score.must(f"the parser's memory is bounded (grew by {result.grew_mib} MiB)", held=result.grew_mib < 64)


@attack("B23", "connection flood, half-open TLS", at_least=Size(2_000, 200))
def half_open(field: Field, score: Score) -> None:
    """Open connections to the broker and the join port and never speak; honest devices must still get in."""
    gnomon, name = field.gnomon, field.gnomon.new()
    count, honest = field.size(2_000, 200), field.size(40, 10)
    join_port = int(gnomon.join_url.rpartition(":")[2])
    _allow_descriptors(count + 512)
    waits: list[float] = []
    with Bystander(gnomon) as bystander, ExitStack() as flood:
        calm = calmly(bystander)
        opened = 0
        for number in range(count):
            port = gnomon.device_port if number % 4 else join_port
            with suppress(OSError):
                one = flood.enter_context(socket.create_connection(("127.0.0.1", port), 5))
                if number % 2:
                    one.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a hello
                opened += 1
        for _ in range(honest):
            began = time.monotonic()
            greeting = wire.greet(gnomon, gnomon.certificate(name), client_id=name)
            waits.append(time.monotonic() - began)
            score.honest(f"a device gets in: {greeting.said}", works=greeting.let_in)
    p95_s = percentile(waits, 0.95)
    score.attempts(f"honest devices wait {p95_s:.2f} s (p95)", count, int(p95_s >= 1.0))
    undisturbed(score, bystander, calm)
    score.measure(opened=opened, honest_p95_ms=round(p95_s * 1_000))


@attack("B26", "topic, property and alias flood", at_least=Size(2_000, 300))
def property_flood(field: Field, score: Score) -> None:
    """Send deep topics, long properties, many aliases and filters; the broker must be calm soon after."""
    gnomon = field.gnomon
    broker = gnomon.broker_pid
    assert broker is not None
    rounds = field.size(500, 75)
    names = field.things(1 + rounds // CONNECTIONS_EACH)
    with Bystander(gnomon) as bystander:
        calm = calmly(bystander)
        sent = 0
        for number in range(rounds):
            sent += _send_flood(gnomon, names[number // CONNECTIONS_EACH])
    calmed = happens(lambda: _cpu_share(broker, 0.5) < 0.05 + calm.broker_share, 3.0)
    score.attempts("the broker was still busy after 2 s", sent, int(not calmed))
    score.attempt("the broker ended", succeeded=gnomon.broker_pid != broker)
    with connected(gnomon, gnomon.new()) as device:
        device.listen()
        score.honest("a device is served after that", works=device.report({"n": 1})["version"] == 1)
    undisturbed(score, bystander, calm)


def _send_flood(gnomon: Gnomon, name: str) -> int:
    """Connect and send what is long, deep and much; return how many packets that were."""
    tree = f"gnomon/gateways/{name}/up"
    packets = [
        _publish(f"{tree}/" + "/".join("a" * 150)),
        _publish(f"{tree}/things/x/shadow/update", properties=200),
        mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(f"{tree}/{n}/+/#") for n in range(400)]).write(),
        _publish("", alias=60_000),
    ]
    with suppress(OSError), wire.secured(gnomon, gnomon.certificate(name)) as connection:
        connection.sendall(wire.connect_packet(name, None, wire.V5))
        connection.recv(64)
        for packet in packets:
            connection.sendall(packet)
    return len(packets)


def _publish(topic: str, *, properties: int = 0, alias: int | None = None) -> bytes:
    return mqtt5.PublishPacket(
        topic,
        b"{}",
        qos=ONCE,
        packet_id=1,
        topic_alias=alias,
        user_properties=[(f"key-{number}", "v" * 200) for number in range(properties)],
    ).write()


# ---------------------------------------------------------------------- who else is there


class Calm:
    """How it was before the attack."""

    def __init__(self, bystander: Bystander, broker_share: float) -> None:
        self.answers = len(bystander.answered_s)
        self.p99_s = bystander.p99_s
        self.broker_share = broker_share


def calmly(bystander: Bystander) -> Calm:
    """Measure the bystander while nothing happens."""
    happens(lambda: len(bystander.answered_s) >= 30, 10)
    broker = bystander.gnomon.broker_pid
    return Calm(bystander, 0.0 if broker is None else _cpu_share(broker, 0.3))


def undisturbed(score: Score, bystander: Bystander, calm: Calm) -> None:
    during = bystander.answered_s[calm.answers :]
    p99_s = percentile(during, 0.99) if during else 0.0
    score.must(
        f"a bystander is served as before (p99 {p99_s * 1_000:.0f} ms, before {calm.p99_s * 1_000:.0f} ms,"
        f" {bystander.unanswered} unanswered)",
        held=bystander.undisturbed and bool(during) and p99_s <= max(NOTICED * calm.p99_s, NOISE_S),
    )
    score.measure(bystander_p99_ms=round(p99_s * 1_000), before_ms=round(calm.p99_s * 1_000))


def _cpu_share(pid: int, for_s: float) -> float:
    """Return how much of a core a process uses."""
    before = _cpu_ticks(pid)
    time.sleep(for_s)
    return (_cpu_ticks(pid) - before) / 100 / for_s


def _cpu_ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
