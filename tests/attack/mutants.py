"""Mutated packets for the bridge's own reader, in a process of their own: ``python -m tests.attack.mutants``.

The codec's Rust half tells standard error of each text that is not UTF-8, and a million of them is a lot to
read; if it crashed, it would take only this process with it.
"""

import asyncio
import os
import resource
import subprocess
import sys
from random import Random
from typing import Any, Final

import mqtt5
import msgspec

from broker_bridge.link import Counts, Link, LinkError
from broker_bridge.outbound import Outbound
from tests.system.child import ROOT
from tests.system.mqtt import shadow_topic

ONCE: Final = mqtt5.QoS.AT_LEAST_ONCE
PACKET_BYTES_MAX: Final = 262_144
WINDOW: Final = 64
MUTANTS_A_LINK: Final = 4
KIB: Final = 1_024
PATIENCE_S: Final = 300


class Result(msgspec.Struct, frozen=True):
    """What the reader did with them."""

    fed: int
    escaped: list[str]
    """Errors that are not the link's own, each once."""
    understood: bool
    """Whether it understands the good ones."""
    grew_mib: float


def in_a_process(count: int, seed: int) -> Result:
    """Feed this many; a process that ends otherwise raises."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.mutants", str(count), str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Result)


def mutated(packet: bytes, rng: Random) -> bytes:
    """Return a packet with a few bytes changed, cut out, put in or doubled."""
    data = bytearray(packet)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(5):
            case 0 if data:
                data[at] = rng.randrange(256)
            case 1 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randint(1, 4)]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                data += data[at:]
    return bytes(data)


class _Deaf:
    """Takes whatever the link understands."""

    def received(self, packet: Any, connection: int) -> None: ...
    def settled(self, mark: object) -> None: ...
    async def connected(self, session_present: bool) -> None: ...
    def disconnected(self) -> None: ...


def _packets() -> list[bytes]:
    """Return one of each sort that a broker sends."""
    topic = f"{shadow_topic('lamp')}/update"
    return [
        mqtt5.ConnAckPacket().write(),
        mqtt5.PingRespPacket().write(),
        mqtt5.PubAckPacket(7).write(),
        mqtt5.PubAckPacket(7, reason_code=mqtt5.PubAckReasonCode.NOT_AUTHORIZED).write(),
        mqtt5.PublishPacket(topic, b"{}", qos=ONCE, packet_id=7).write(),
        mqtt5.PublishPacket(topic, b"{}" * 50, retain=True, user_properties=[("a", "b")]).write(),
        mqtt5.PublishPacket("$SYS/broker/log/N", b"1: New client connected from ::1 as x").write(),
    ]


async def feed(count: int, rng: Random) -> Result:
    """Feed mutants to one link after another, as each lives."""
    packets = _packets()
    escaped: set[str] = set()
    link, before = _link(), _resident_mib()
    for number in range(count):
        mutant = mutated(rng.choice(packets), rng)
        if not number % MUTANTS_A_LINK:  # one that promises a long packet would swallow all that follow
            link = _link()
        link.get_buffer(-1)[: len(mutant)] = mutant
        try:
            link.buffer_updated(len(mutant))
        except BaseException as error:  # noqa: BLE001 - whatever comes out is what we look for
            escaped.add(f"{type(error).__name__}: {error}")
            link = _link()
        if link.closed.done():
            ended_by = link.closed.exception()
            if not isinstance(ended_by, LinkError):
                escaped.add(f"{type(ended_by).__name__}: {ended_by}")
            link = _link()
    understood = all(mqtt5.read(memoryview(packet)) for packet in packets)
    return Result(count, sorted(escaped), understood, round(_resident_mib() - before, 1))


def _link() -> Link:
    outbound = Outbound()
    outbound.open(WINDOW)
    return Link(1, _Deaf(), outbound, Counts(), PACKET_BYTES_MAX)


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    print(msgspec.json.encode(asyncio.run(feed(asked[0], Random(asked[1])))).decode())
