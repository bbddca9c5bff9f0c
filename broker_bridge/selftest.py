"""Whether the broker keeps things apart: tried out by two canaries, before anything is served.

The bridge believes the broker that an identity may use a topic. So this is not taken from a configuration
file: two things of ours, and one with a revoked certificate, try what no thing may do. One success means that
the rules are not what they have to be; it is told with the line that is missing. Looked at is the effect, as
the broker grants every subscription. (spec: security, 5.3)
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import mqtt5
import msgspec

from broker_bridge.link import REFUSED_FROM
from broker_bridge.mosquitto import LOOPBACK
from broker_bridge.topics import CANARIES, CONTROL_TOPIC, REVOKED_CANARY, VOICE_TOPICS

SELF_TEST_S_MAX: Final = 10.0
PACKET_BYTES_MAX: Final = 262_144
MESSAGES_MAX: Final = 1_000
KEEP_ALIVE_S: Final = 60
LISTEN_S: Final = 0.002
HEAR_S_MAX: Final = 3.0

OUTSIDER: Final = "outsider"

_SONG: Final = b"gnomon canary"
_OWN_SONG: Final = b"{}"
_NO_SENSE: Final = (OSError, EOFError, ValueError, IndexError)
"""What it means when the broker is not there, or says nothing that could be understood."""
_LEVELS: Final = ("get", "update", "delete")
_Reply = TypeVar("_Reply", mqtt5.ConnAckPacket, mqtt5.SubAckPacket, mqtt5.PubAckPacket, mqtt5.PingRespPacket)


@dataclass(frozen=True, slots=True)
class Hole:
    """Something that the broker let a canary do; ``line`` is what its configuration lacks."""

    attack: str
    line: str

    def __str__(self) -> str:
        return f"{self.attack} (missing: {self.line})"


class SelfTestError(Exception):
    """The broker does not keep things apart, or nobody knows whether it does."""


class HolesError(SelfTestError):
    """Some attacks succeeded."""

    def __init__(self, holes: Sequence[Hole]) -> None:
        super().__init__("the broker lets things do what they may not: " + "; ".join(map(str, holes)))
        self.holes = tuple(holes)


class NotTriedError(SelfTestError):
    """The canaries could not be made to sing at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"what the broker lets things do could not be tried: {reason}")


@dataclass(frozen=True, slots=True)
class Voice:
    """Who may say something to the second canary, which the first one must not hear."""

    port: int
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker takes things, and who plays them: files with certificate and key of each.

    Without a voice it takes a bridge that serves already: what that answers is listened for.
    """

    host: str
    port: int
    server_name: str
    roots: Path
    canaries: tuple[Path, Path]
    revoked: Path
    voice: Voice | None = None


WRITE: Final = "device.acl: only `pattern write` lines, each below the thing's own %u"
FORGE: Final = "device.acl: `write` for requests only, `read` for answers only; neither `readwrite` nor `#`"
READ: Final = "device.acl: only `pattern read` lines, each below the thing's own %u, none for $SYS, $CONTROL"
CONTROL: Final = "device.acl: no line for $CONTROL, and the plugin on our own listener only"
IDENTITY: Final = "use_username_as_clientid true"
LIST: Final = "crlfile"
CERTIFICATE: Final = "require_certificate true"


async def try_out(place: Place) -> None:
    """Try everything a thing may not do.

    Raises:
        HolesError: something succeeded.
        NotTriedError: the broker does not answer as it should, so that nobody knows.
    """
    holes: list[Hole] = []
    failed: list[BaseException] = []
    try:
        async with asyncio.timeout(SELF_TEST_S_MAX):
            holes = await _holes(place)
    except* _NO_SENSE as errors:  # a time-out is an OSError
        failed.append(_first(errors))
    if failed:
        raise NotTriedError(str(failed[0]) or type(failed[0]).__name__) from failed[0]
    if holes:
        raise HolesError(holes)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _holes(place: Place) -> list[Hole]:
    outsiders = (
        (place.revoked, REVOKED_CANARY, Hole("a revoked certificate was taken", LIST)),
        (None, OUTSIDER, Hole("a device without certificate was taken", CERTIFICATE)),
    )
    spy, victim = (_Canary(name) for name in CANARIES)
    taken: list[Hole] = []
    async with asyncio.TaskGroup() as tries:
        for identity, name, hole in outsiders:
            tries.create_task(_come_from_outside(place, identity, name, hole, taken), name=name)
        insiders = tries.create_task(_attack(place, spy, victim, taken), name="canaries")
    return taken + insiders.result()


async def _come_from_outside(
    place: Place, identity: Path | None, name: str, hole: Hole, taken: list[Hole]
) -> None:
    if await _is_taken(place, identity, name):
        taken.append(hole)


async def _attack(place: Place, spy: "_Canary", victim: "_Canary", taken: Sequence[Hole]) -> list[Hole]:
    holes: list[Hole] = []
    thief = _Canary(victim.name)
    try:
        async with asyncio.TaskGroup() as connecting:
            connecting.create_task(spy.connect(place, place.canaries[0]), name="spy")
            connecting.create_task(victim.connect(place, place.canaries[1]), name="victim")
        await victim.subscribe(f"$aws/things/{victim.name}/#", f"gnomon/gateways/{victim.name}/#")
        await spy.subscribe(*_foreign_filters(spy.name, victim.name))
        holes += await _publish_what_is_forbidden(spy, victim)
        for topic in (
            f"$aws/things/{victim.name}/shadow/get",
            f"gnomon/gateways/{victim.name}/up/things/{victim.name}/shadow/get",
        ):
            victim.tell(topic)
        await victim.ping()
        try:
            async with asyncio.timeout(HEAR_S_MAX):
                await _speak_to_the_victim(place, victim)
        except TimeoutError:
            if not taken and not holes:
                raise TimeoutError("nothing that was said to a canary was delivered") from None
        # Whoever has the victim's name now would throw it off. The spy's own session goes, if all is well.
        await thief.connect(place, place.canaries[0])
        with suppress(OSError, EOFError):
            await spy.ping()
        holes += await _what_became_of(spy, victim)
    finally:
        for canary in (spy, victim, thief):
            canary.close()
    return holes


async def _speak_to_the_victim(place: Place, victim: "_Canary") -> None:
    """Have something said to it in both of its trees, or hear what the bridge answers there."""
    if place.voice is not None:
        voice = _Canary(place.voice.user)
        try:
            await voice.log_in(place.voice)
            for topic in VOICE_TOPICS:
                if await voice.publish(topic, _OWN_SONG):
                    raise ConnectionRefusedError(f"{voice.name} may not say anything to the canaries")
        finally:
            voice.close()
    await victim.hear(f"$aws/things/{victim.name}/", f"gnomon/gateways/{victim.name}/")


async def _publish_what_is_forbidden(spy: "_Canary", victim: "_Canary") -> list[Hole]:
    holes = []
    for topic, line in _forbidden_topics(spy.name, victim.name):
        if not await spy.publish(topic, _SONG):
            holes.append(Hole(f"a thing could publish on {topic}", line))
    end_of_victim = [{"command": word, "username": victim.name} for word in ("createClient", "deleteClient")]
    if not await spy.publish(CONTROL_TOPIC, msgspec.json.encode({"commands": end_of_victim})):
        holes.append(Hole(f"a thing could publish on {CONTROL_TOPIC}", CONTROL))
    return holes


async def _what_became_of(spy: "_Canary", victim: "_Canary") -> list[Hole]:
    holes = []
    try:
        await victim.ping()
    except (OSError, EOFError):
        holes.append(Hole("a thing could end the session of another", IDENTITY))
    if any(payload == _SONG for _, payload in victim.heard):
        holes.append(Hole("a thing was told something by another", WRITE))
    for topic, payload in spy.heard:
        if payload == _SONG and topic.startswith(
            (f"$aws/things/{spy.name}/", f"gnomon/gateways/{spy.name}/")
        ):
            holes.append(Hole("a thing could forge an answer to itself", FORGE))
        else:
            holes.append(Hole(f"a thing heard what is on {topic}", READ))
    return list(dict.fromkeys(holes))


def _foreign_filters(own: str, other: str) -> tuple[str, ...]:
    return (
        f"$aws/things/{own}/#",
        f"gnomon/gateways/{own}/#",
        f"$aws/things/{other}/#",
        f"gnomon/gateways/{other}/#",
        "$aws/things/+/#",
        "gnomon/gateways/+/#",
        "#",
        "$aws/#",
        "$SYS/#",
        "$CONTROL/#",
        "$share/canaries/$aws/things/+/#",
    )


def _forbidden_topics(own: str, other: str) -> list[tuple[str, str]]:
    foreign = [
        *(f"$aws/things/{other}/shadow/{level}" for level in _LEVELS),
        f"$aws/things/{other}/shadow/name/config/update",
        f"$aws/things/{other}/shadow/update/accepted",
        f"$aws/things/{other}/jobs/start-next",
        f"$aws/things/{other}/streams/fw-0/get/cbor",
        f"gnomon/gateways/{other}/up/things/{own}/shadow/update",
        f"gnomon/gateways/{other}/down/things/{own}/shadow/update/delta",
        "$SYS/broker/log/N",
    ]
    forged = [
        *(f"$aws/things/{own}/shadow/{level}/accepted" for level in _LEVELS),
        f"$aws/things/{own}/shadow/name/config/update/delta",
        f"$aws/things/{own}/jobs/notify-next",
        f"$aws/things/{own}/jobs/start-next/accepted",
        f"$aws/things/{own}/streams/fw-0/data/cbor",
        f"gnomon/gateways/{own}/down/things/{other}/shadow/update/delta",
    ]
    return [(topic, WRITE) for topic in foreign] + [(topic, FORGE) for topic in forged]


async def _is_taken(place: Place, identity: Path | None, name: str) -> bool:
    """Tell whether the broker takes a CONNECT with this certificate; TLS 1.3 says no only afterwards."""
    outsider = _Canary(name)
    try:
        await outsider.connect(place, identity)
    except (ssl.SSLError, ConnectionError, EOFError):
        return False
    finally:
        outsider.close()
    return True


@dataclass(slots=True)
class _Canary:
    """An MQTT 5 client that reads only when it waits for an answer; what else came it has heard."""

    name: str
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    _channel: "_Channel | None" = None
    _buffer: bytearray = field(default_factory=bytearray)
    _packet_id: int = 0

    async def log_in(self, voice: Voice) -> None:
        """Connect to our own listener."""
        self._channel = await _Channel.open(LOOPBACK, voice.port)
        await self._shake_hands(
            mqtt5.ConnectPacket(
                self.name, username=voice.user, password=voice.password.encode(), clean_start=True
            )
        )

    async def connect(self, place: Place, identity: Path | None) -> None:
        """Raise :class:`OSError` when the broker does not take it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(place.roots)
        if identity is not None:
            context.load_cert_chain(identity)
        self._channel = await _Channel.open(place.host, place.port)
        await self._channel.secure(context, place.server_name)
        # Of the spy, whose session is taken over in the end, it is spoken, and may reach nobody.
        will = mqtt5.Will(f"$aws/things/{CANARIES[1]}/shadow/update/accepted", payload=_SONG)
        await self._shake_hands(
            mqtt5.ConnectPacket(
                self.name,
                clean_start=True,
                keep_alive=KEEP_ALIVE_S,
                will=will if self.name == CANARIES[0] else None,
            )
        )

    async def _shake_hands(self, connect: mqtt5.ConnectPacket) -> None:
        self._write(connect.write())
        answer = await self._await(mqtt5.ConnAckPacket)
        if answer.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise ConnectionRefusedError(f"the broker refused {self.name}: {answer.reason_code.name}")

    async def hear(self, *prefixes: str) -> None:
        """Return once something was heard below each of these."""
        while not all(any(topic.startswith(prefix) for topic, _ in self.heard) for prefix in prefixes):
            await self.ping()
            await asyncio.sleep(LISTEN_S)

    async def subscribe(self, *filters: str) -> None:
        topics = [mqtt5.TopicFilter(one, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for one in filters]
        self._write(mqtt5.SubscribePacket(self._next_id(), topics).write())
        await self._await(mqtt5.SubAckPacket)

    async def publish(self, topic: str, payload: bytes) -> bool:
        """Publish; tell whether the broker refused it."""
        qos = mqtt5.QoS.AT_LEAST_ONCE
        self._write(mqtt5.PublishPacket(topic, payload, qos=qos, packet_id=self._next_id()).write())
        return int((await self._await(mqtt5.PubAckPacket)).reason_code) >= REFUSED_FROM

    def tell(self, topic: str) -> None:
        """Publish without wanting to know, and without anything being kept of it."""
        self._write(mqtt5.PublishPacket(topic, _OWN_SONG).write())

    async def ping(self) -> None:
        """Return once all that the broker had for us before is heard."""
        self._write(mqtt5.PingReqPacket().write())
        await self._await(mqtt5.PingRespPacket)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _next_id(self) -> int:
        self._packet_id += 1
        return self._packet_id

    def _write(self, data: bytes) -> None:
        assert self._channel is not None, "connect comes first"
        self._channel.write(data)

    async def _await(self, kind: type[_Reply]) -> _Reply:
        while True:
            packet = await self._read()
            match packet:
                case mqtt5.PublishPacket():
                    if len(self.heard) >= MESSAGES_MAX:
                        raise EOFError("the broker does not stop talking")
                    self.heard.append((packet.topic, bytes(packet.payload)))
                case mqtt5.DisconnectPacket():
                    raise ConnectionResetError(f"the broker ended it: {packet.reason_code.name}")
                case _ if isinstance(packet, kind):
                    return packet
                case _:
                    raise ValueError(f"the broker answered with a {type(packet).__name__}")

    async def _read(self) -> mqtt5.Packet:
        assert self._channel is not None, "connect comes first"
        while True:
            try:
                packet, size = mqtt5.read(memoryview(bytes(self._buffer)))
            except IndexError:
                if len(self._buffer) > PACKET_BYTES_MAX:
                    raise EOFError("the broker sends too large a packet") from None
                self._buffer += await self._channel.read()
            else:
                del self._buffer[:size]
                return packet


class _Channel:
    """Bytes to and from the broker. TLS is spoken here and not by the event loop.

    uvloop's own cannot be torn down in the middle of a handshake without a complaint in the log, and that
    is what a signal during the start does.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> "_Channel":
        return cls(*await asyncio.open_connection(host, port))

    async def secure(self, context: ssl.SSLContext, server_name: str) -> None:
        """Shake hands; raises :class:`ssl.SSLError`."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(await self._receive())
            else:
                break
        self._flush()
        self._tls = tls

    def write(self, data: bytes) -> None:
        if self._tls is None:
            self._writer.write(data)
        else:
            self._tls.write(data)
            self._flush()

    async def read(self) -> bytes:
        """Return what came; raise :class:`EOFError` at the end, :class:`ssl.SSLError` at a refusal."""
        if self._tls is None:
            return await self._receive()
        while True:
            try:
                data = self._tls.read(PACKET_BYTES_MAX)
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(await self._receive())
            else:
                if not data:
                    raise EOFError("the broker said goodbye")
                return data

    def close(self) -> None:
        self._writer.transport.abort()

    async def _receive(self) -> bytes:
        data = await self._reader.read(PACKET_BYTES_MAX)
        if not data:
            raise EOFError("the broker closed the connection")
        return data

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
