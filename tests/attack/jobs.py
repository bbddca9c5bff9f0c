"""Attacks on jobs and on the files that come with them: those of other things, and more than one's share.

(B2, B3, B26: the same rows as for shadows, on the topics of firmware)
"""

import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cbor2

from broker_bridge.fairness import PACE
from tests.attack import firmware_house, joining, wire
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Bystander, Field, happens
from tests.attack.firmware_house import BLOCK, IMAGE, Rollout
from tests.attack.floods import MIB, calmly, resident_bytes, undisturbed
from tests.attack.topics import listen
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected

GET: Final = cbor2.dumps({"f": 0, "l": BLOCK, "n": 8})
END: Final = b'{"status": "FAILED"}'
FORGED: Final = b'{"execution": {"jobId": "forged", "versionNumber": 9}}'
OFFERED_S_MAX: Final = 10.0
WHOLE_S_MAX: Final = 20.0
STOPPED_S_MAX: Final = 3.0
FILES: Final = frozenset({"data", "description"})

Files = tuple[Path, Path]
Kind = Callable[["Trial"], tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Trial:
    """Who tries, against whom, about which job and which files."""

    one: str
    victim: str
    gateway: str
    """To which the victim is attached, or another one."""
    job: str
    stream: str


def own(thing: str) -> str:
    return f"$aws/things/{thing}"


def up(gateway: str, thing: str) -> str:
    return f"gnomon/gateways/{gateway}/up/things/{thing}"


KINDS: Final[dict[str, Kind]] = {
    "list its jobs": lambda it: (f"{own(it.victim)}/jobs/get", b"{}"),
    "start its job": lambda it: (f"{own(it.victim)}/jobs/start-next", b"{}"),
    "read its next job": lambda it: (f"{own(it.victim)}/jobs/$next/get", b"{}"),
    "read its job": lambda it: (f"{own(it.victim)}/jobs/{it.job}/get", b"{}"),
    "end its job": lambda it: (f"{own(it.victim)}/jobs/{it.job}/update", END),
    "read its files": lambda it: (f"{own(it.victim)}/streams/{it.stream}/get/cbor", GET),
    "describe its files": lambda it: (f"{own(it.victim)}/streams/{it.stream}/describe/json", b"{}"),
    "forge a push": lambda it: (f"{own(it.victim)}/jobs/notify-next", FORGED),
    "forge an answer": lambda it: (f"{own(it.victim)}/jobs/start-next/accepted", FORGED),
    "forge a block": lambda it: (f"{own(it.victim)}/streams/{it.stream}/data/cbor", GET),
    "forge a refusal": lambda it: (f"{own(it.victim)}/streams/{it.stream}/rejected/cbor", GET),
    "forge a push to itself": lambda it: (f"{own(it.one)}/jobs/notify-next", FORGED),
    "forge a block to itself": lambda it: (f"{own(it.one)}/streams/{it.stream}/data/cbor", GET),
    "speak in another's tree": lambda it: (f"{up(it.gateway, it.victim)}/jobs/{it.job}/update", END),
    "forge in another's tree": lambda it: (
        f"gnomon/gateways/{it.gateway}/down/things/{it.victim}/jobs/notify-next",
        FORGED,
    ),
    "list, by its own tree": lambda it: (f"{up(it.one, it.victim)}/jobs/get", b"{}"),
    "start, by its own tree": lambda it: (f"{up(it.one, it.victim)}/jobs/start-next", b"{}"),
    "end, by its own tree": lambda it: (f"{up(it.one, it.victim)}/jobs/{it.job}/update", END),
    "files, by its own tree": lambda it: (f"{up(it.one, it.victim)}/streams/{it.stream}/get/cbor", GET),
    "the victim's job as its own": lambda it: (f"{own(it.one)}/jobs/{it.job}/get", b"{}"),
    "end the victim's job as its own": lambda it: (f"{own(it.one)}/jobs/{it.job}/update", END),
    "the victim's files as its own": lambda it: (f"{own(it.one)}/streams/{it.stream}/get/cbor", GET),
    "describe them as its own": lambda it: (f"{own(it.one)}/streams/{it.stream}/describe/json", b"{}"),
}
"""By who asks and what for."""
IN_ITS_TREE: Final = 4
"""So many kinds are in the intruder's own tree: the broker lets them pass, and only we say no."""


@attack("B2/jobs", "another thing's jobs and files", at_least=Size(140, 140))
def foreign_jobs(field: Field, score: Score) -> None:
    """Start, end and forge jobs of others, and load what they may load, by every topic and over HTTPS."""
    gnomon = field.gnomon
    (target, target_files), (victim, _), (late, late_files) = (joining.enrolled(field) for _ in range(3))
    gateway, gateway_files = joining.enrolled(field, "gateway")
    (intruder, intruder_files), (rogue, rogue_files) = (
        joining.enrolled(field),
        joining.enrolled(field, "gateway"),
    )
    lamp = gnomon.new(premises=_premises(gnomon, gateway), has_certificate=False)
    gnomon.attach(gateway, lamp)
    going = firmware_house.rollout(field, [target, victim, late, lamp])
    stream = firmware_house.house(field).stream
    with field.connected([target, victim, late, gateway, intruder, rogue]) as things:
        by_name = {thing.name: thing for thing in things}
        for thing in things:
            _listens(thing)
        _started(score, by_name[target], own(target), stream)
        _started(score, by_name[victim], own(victim), stream)
        _started(score, by_name[gateway], up(gateway, lamp), stream)
        before = _executions(field, going)
        for thing in things:
            thing.forget()
        tried = 0
        for one, (other, its_gateway) in itertools.product(
            (intruder, rogue, late), ((victim, gateway), (lamp, gateway))
        ):
            trial = Trial(one, other, its_gateway, going.job, stream)
            # The late one is a target: its own job is its own.
            kinds = [kind for name, kind in KINDS.items() if one != late or "job as its own" not in name]
            by_name[one].publish_all([kind(trial) for kind in kinds])
            tried += len(kinds)
        time.sleep(2 * SETTLED_S)
        score.attempts("", tried, 0)
        for one in (intruder, rogue, late):
            _nothing_given(score, by_name[one])
        for one in (victim, gateway):
            told = [message.topic for message in by_name[one].received]
            score.attempts(f"{one} was told {told[:3]}", 0, len(told))
        after = _executions(field, going)
        changed = [thing for thing in (target, victim, lamp) if after[thing] != before[thing]]
        score.attempts(f"changed: {changed}", 0, len(changed))
        _over_https(score, gnomon, {intruder: intruder_files, rogue: rogue_files, late: late_files})
        for one, files in ((target, target_files), (gateway, gateway_files)):
            works = _image(gnomon, files) == (200, IMAGE)
            score.honest(f"{one} loads its own over HTTPS", works=works)
        _suspended(field, score, by_name[gateway], lamp, gateway_files, stream)
        _stopped(field, score, going, by_name[target], target_files, stream)
    refused = field.refusals_written(2 * IN_ITS_TREE, lambda row: row["actor"] == rogue)
    score.must(f"the audit counts what a rogue gateway tried ({refused})", held=refused >= 2 * IN_ITS_TREE)
    score.measure(kinds=len(KINDS), audited=refused)


def _premises(gnomon: Gnomon, thing: str) -> str:
    premises: str = gnomon.http.get(f"/v1/things/{thing}").json()["premises"]
    return premises


def _listens(thing: Thing) -> None:
    """Subscribe to all that a device of firmware may hear."""
    base, down = own(thing.name), f"gnomon/gateways/{thing.name}/down/#"
    jobs = [f"{base}/jobs/{end}" for end in ("notify", "notify-next", "get/+", "start-next/+", "+/get/+")]
    streams = [f"{base}/streams/+/{word}/+" for word in ("data", "description", "rejected")]
    thing.subscribe(*jobs, f"{base}/jobs/+/update/+", *streams, down)


def _started(score: Score, thing: Thing, base: str, stream: str) -> None:
    """Start its job as soon as there is one, and load the first blocks as one should."""
    heard = base.replace("/up/", "/down/")

    def begins() -> bool:
        since = len(thing.received)
        thing.publish(f"{base}/jobs/start-next", b"{}")
        return "execution" in thing.wait_on(f"{heard}/jobs/start-next/accepted", since=since).json

    score.honest(f"{base} has a job", works=happens(begins, OFFERED_S_MAX, every_s=0.2))
    since = len(thing.received)
    thing.publish(f"{base}/streams/{stream}/get/cbor", GET)
    block = cbor2.loads(thing.wait_on(f"{heard}/streams/{stream}/data/cbor", since=since).payload)
    score.honest(f"{base} loads its own", works=block["p"] == IMAGE[:BLOCK])
    happens(lambda: len(thing.received) >= since + 8, 5)


def _executions(field: Field, going: Rollout) -> dict[str, Any]:
    """Return where each target of a campaign is, as an operator sees it."""
    with firmware_house.operator(field) as client:
        answer = client.get(f"/v1/ota/campaigns/{going.id}/executions")
    assert answer.is_success, answer.text
    return {one["thing"]: (one["state"], one.get("attempt")) for one in answer.json()["items"]}


def _nothing_given(score: Score, thing: Thing) -> None:
    """See that all that an intruder heard is that it may not."""
    given = [
        message.topic
        for message in thing.received
        if FILES & set(message.topic.split("/")) or b'"jobDocument"' in message.payload
    ]
    score.attempts(f"{thing.name} got {given[:3]}", 0, len(given))
    forged = [message.topic for message in thing.received if b"forged" in message.payload]
    score.attempts(f"{thing.name} heard what it said itself: {forged[:3]}", 0, len(forged))


def _over_https(score: Score, gnomon: Gnomon, intruders: dict[str, Files]) -> None:
    """Ask for the image over HTTPS: who has no job about it hears what is said of one that is not there."""
    for name, files in intruders.items():
        known, unknown = _image(gnomon, files), _image(gnomon, files, "0" * 64)
        score.attempt(f"{name} loads the image: {known[0]}", succeeded=known[0] != 404)
        score.attempt(f"{name} tells the image from none", succeeded=known != unknown)


def _image(gnomon: Gnomon, files: Files, sha256: str = "") -> tuple[int, bytes]:
    """Return what a device hears that asks for an image on the devices' own listener."""
    context = ssl.create_default_context(cafile=gnomon.root_certificate)
    context.load_cert_chain(*files)
    port = int(gnomon.join_url.rpartition(":")[2])
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    try:
        connection.request("GET", f"/v1/ota/images/{sha256 or firmware_house.SHA256}")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return answer.status, body if answer.status < 400 else body.partition(b'"requestId"')[0]


def _suspended(field: Field, score: Score, gateway: Thing, lamp: str, files: Files, stream: str) -> None:
    """Suspend an attached thing, let it go on, detach it: while it is barred its gateway loads nothing."""
    gnomon = field.gnomon
    assert gnomon.http.post(f"/v1/things/{lamp}/suspend").is_success
    _gets_nothing(score, "suspended", gnomon, gateway, up(gateway.name, lamp), files, stream)
    assert gnomon.http.post(f"/v1/things/{lamp}/resume").is_success
    score.honest("who may go on loads again", works=_image(gnomon, files)[0] == 200)
    gnomon.detach(gateway.name, lamp)
    _gets_nothing(score, "detached", gnomon, gateway, up(gateway.name, lamp), files, stream)


def _stopped(field: Field, score: Score, going: Rollout, thing: Thing, files: Files, stream: str) -> None:
    """Abort the campaign: whoever is loading loads no more."""
    began = time.monotonic()
    with firmware_house.operator(field) as client:
        answer = client.post(f"/v1/ota/campaigns/{going.id}/abort", json={"note": "stop"})
    assert answer.is_success, answer.text
    over = happens(lambda: _image(field.gnomon, files)[0] == 404, STOPPED_S_MAX)
    score.must("an abort ends a download over HTTPS", held=over)
    score.measure(stopped_ms=round((time.monotonic() - began) * 1_000))
    _gets_nothing(score, "aborted", field.gnomon, thing, own(thing.name), files, stream)


def _gets_nothing(
    score: Score, why: str, gnomon: Gnomon, thing: Thing, base: str, files: Files, stream: str
) -> None:
    since = len(thing.received)
    thing.publish(f"{base}/streams/{stream}/get/cbor", GET)
    thing.publish(f"{base}/streams/{stream}/describe/json", b"{}")
    time.sleep(SETTLED_S)
    given = [one for one in thing.topics(since) if FILES & set(one.split("/"))]
    score.attempts(f"{why}: {given[:2]}", 2, len(given))
    status = _image(gnomon, files)[0]
    score.attempt(f"{why}: over HTTPS {status}", succeeded=status < 400)


# ---------------------------------------------------------------------------- listening


def spying(victim: str, gateway: str, stream: str) -> tuple[str, ...]:
    """Return filters that would bring others' jobs and files to whoever may read them."""
    return (
        "$aws/things/+/jobs/#",
        "$aws/things/+/jobs/notify-next",
        "$aws/things/+/jobs/+/get/+",
        "$aws/things/+/jobs/start-next/accepted",
        f"{own(victim)}/jobs/#",
        "$aws/things/+/streams/#",
        "$aws/things/+/streams/+/data/+",
        f"{own(victim)}/streams/{stream}/data/cbor",
        f"$share/group/{own(victim)}/streams/{stream}/data/cbor",
        "$share/group/$aws/things/+/streams/+/data/cbor",
        "gnomon/gateways/+/down/things/+/streams/#",
        f"gnomon/gateways/{gateway}/down/things/#",
    )


@attack("B3/files", "listening to jobs and files of others", at_least=12)
def spying_on_files(field: Field, score: Score) -> None:
    """Subscribe to others' jobs and blocks while they load; nothing of it may come."""
    gnomon = field.gnomon
    victim, gateway = gnomon.new(), gnomon.new("gateway")
    going = firmware_house.rollout(field, [victim])
    stream = firmware_house.house(field).stream
    kicked = 0
    with connected(gnomon, victim) as thing:
        _listens(thing)
        _started(score, thing, own(victim), stream)
        with _loading(thing, stream) as loaded:
            for filter in spying(victim, gateway, stream):
                heard, closed = listen(field, gnomon.new(), filter, wire.V5)
                kicked += closed
                given = IMAGE[:32] in heard or going.job.encode() in heard
                score.attempt(f"{filter} brought {heard[:80]!r}", succeeded=given)
        score.must("who is spied on does not notice", held=thing.connections == 1)
    tries = len(spying(victim, gateway, stream))
    score.must(f"who subscribes to that is thrown off ({kicked} of {tries} were)", held=kicked == tries)
    score.must(f"blocks went by meanwhile ({loaded()})", held=loaded() > tries)
    score.measure(filters=tries, kicked=kicked, blocks_meanwhile=loaded())


@contextmanager
def _loading(thing: Thing, stream: str) -> Iterator[Callable[[], int]]:
    """Have a thing load the first blocks again and again; yields what counts them."""
    over, before = threading.Event(), len(thing.received)

    def load() -> None:
        while not over.wait(0.02):
            thing.send(f"{own(thing.name)}/streams/{stream}/get/cbor", GET, qos=0)

    thread = threading.Thread(target=load, name="loading", daemon=True)
    thread.start()
    try:
        yield lambda: len(thing.received) - before
    finally:
        over.set()
        thread.join(5)


# ---------------------------------------------------------------------------- flooding


@attack("B26/blocks", "a flood of requests for blocks and jobs", at_least=Size(20_000, 4_000))
def block_flood(field: Field, score: Score) -> None:
    """Ask for as much as one can, again and again: more than one's share does not come, and others load."""
    gnomon, for_s = field.gnomon, field.size(10, 3)
    flooder, honest = gnomon.new(), gnomon.new()
    firmware_house.rollout(field, [flooder, honest])
    stream = firmware_house.house(field).stream
    before = resident_bytes(gnomon.pid)
    with connected(gnomon, flooder) as thing:
        _listens(thing)
        _started(score, thing, own(flooder), stream)
    with Bystander(gnomon) as bystander, connected(gnomon, honest) as device:
        calm = calmly(bystander)
        _listens(device)
        _started(score, device, own(honest), stream)
        with _flooding(field, flooder, stream, for_s) as flood:
            whole_s = _whole(device, stream)
    most = (PACE.bytes_per_s * flood.took_s + PACE.burst_bytes) * 1.25
    came = f"{flood.got / MIB:.1f} MiB came in {flood.took_s:.1f} s"
    score.attempts(came, flood.sent, int(flood.got > most))
    score.must(f"it gets what is its share: {came}", held=flood.got > most / 4)
    score.honest(f"another loads its image meanwhile, in {whole_s:.1f} s", works=whole_s < WHOLE_S_MAX)
    grew_mib = (resident_bytes(gnomon.pid) - before) / MIB
    score.must(f"memory is bounded (grew by {grew_mib:.0f} MiB)", held=grew_mib < 64)
    undisturbed(score, bystander, calm)
    score.measure(
        came_mib_s=round(flood.got / MIB / flood.took_s, 2),
        other_whole_ms=round(whole_s * 1_000),
        grew_mib=round(grew_mib),
    )


@dataclass(slots=True)
class _Flood:
    """How many requests were sent in what time, and how many bytes came for them."""

    sent: int = 0
    got: int = 0
    took_s: float = 0.0


@contextmanager
def _flooding(field: Field, name: str, stream: str, for_s: float) -> Iterator[_Flood]:
    """Have a thing ask for the largest blocks, for what is not there and for its jobs, without a pause."""
    base, largest = own(name), cbor2.dumps({"f": 0, "l": 131_072, "n": 1})
    packets = [wire.fleeting_packet(f"{base}/streams/{stream}/get/cbor", largest)] * 90
    packets += [
        wire.fleeting_packet(f"{base}/streams/keys-{field.rng.getrandbits(30)}/get/cbor", GET)
        for _ in range(5)
    ]
    packets += [wire.fleeting_packet(f"{base}/jobs/$next/get", b"{}")] * 5
    flood, portion = _Flood(), b"".join(packets)

    def ask() -> None:
        # By hand: a library would slow down everybody else in this process.
        with wire.session(field.gnomon, name) as connection:
            connection.sendall(wire.subscribe_packet(f"{base}/streams/+/data/+"))
            began = time.monotonic()
            while flood.took_s < for_s:
                connection.sendall(portion)
                flood.sent += len(packets)
                flood.got += _drained(connection)
                flood.took_s = time.monotonic() - began

    thread = threading.Thread(target=ask, name="flood", daemon=True)
    thread.start()
    try:
        yield flood
    finally:
        thread.join(30)


def _drained(connection: ssl.SSLSocket) -> int:
    """Return how many bytes there were to read."""
    connection.settimeout(0.02)
    got = 0
    try:
        while chunk := connection.recv(262_144):
            got += len(chunk)
    except TimeoutError:
        connection.settimeout(wire.TIMEOUT_S)
    return got


def _whole(thing: Thing, stream: str) -> float:
    """Load the whole image as a device does, window by window; return how long that took."""
    began, missing = time.monotonic(), set(range(-(-len(IMAGE) // BLOCK)))
    while missing and time.monotonic() - began < WHOLE_S_MAX:
        since, first = len(thing.received), min(missing)
        wanted = {one for one in missing if one < first + 8}
        thing.send(
            f"{own(thing.name)}/streams/{stream}/get/cbor",
            cbor2.dumps({"f": 0, "l": BLOCK, "o": first, "n": 8}),
            qos=0,
        )
        happens(lambda: wanted <= _indexes(thing, since), 1)  # noqa: B023 - asked at once
        missing -= _indexes(thing, since)
    return time.monotonic() - began


def _indexes(thing: Thing, since: int) -> set[int]:
    return {cbor2.loads(one.payload)["i"] for one in thing.received[since:] if "/data/" in one.topic}
