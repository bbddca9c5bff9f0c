"""Stay connected to a broker: MQTT 5 over mutual TLS, light enough for thousands in one process.

    Link        one TCP connection: bytes ⇄ packets, QoS 1 window, keep-alive
    Connection  one identity: opens links one after another, with full jitter

What is published here is handed over, no more: PUBACK is the broker's word, and
a broker may forget. Whoever needs an answer repeats the request (`keeper`, `load`);
so nothing is kept here when a link breaks. A session is always clean, for the
same reason: what matters is asked for again.

All links share one receive buffer. That is safe because the loop fills it and
calls ``buffer_updated`` without anything in between; what is left of a packet is
copied to the link it belongs to.
"""

import asyncio
import random
import ssl
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import mqtt5

from fleet.retry import full_jitter_s

OPEN_S_MAX: Final = 30.0  # TCP, TLS and CONNACK together
CLOSE_S_MAX: Final = 5.0
KEEP_ALIVE_S: Final = 60
RETRY_BASE_S, RETRY_CAP_S = 1.0, 60.0
OPENING_MAX: Final = 64  # handshakes at once in a process: more only time each other out
QUEUE_PACKETS_MAX: Final = 1_000  # waiting for the broker's window; full: ``publish`` says no
PACKET_BYTES_MAX: Final = 256 * 1024
_BUFFER: Final = memoryview(bytearray(256 * 1024))
_PACKET_IDS: Final = 65_535
_FAILURE: Final = 0x80  # reason codes from here on; the codec's are not the integers its stubs promise


class Listener(Protocol):
    """Who wants to know what happens on a connection. Called on the loop; must not block."""

    def connected(self) -> None: ...

    def disconnected(self) -> None: ...

    def message(self, topic: str, payload: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says when the connection breaks."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Who connects. Without ``tls`` the name is sent as user name: for plain test listeners."""

    name: str
    tls: ssl.SSLContext | None
    will: Will | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """A directory with ``<thing>.crt`` and ``<thing>.key`` for each thing, and ``ca.crt`` or another CA."""

    directory: Path
    ca: Path | None = None

    def identity(self, thing: str, will: Will | None = None) -> Identity:
        """Load what a thing needs for mutual TLS. Keep it: each load is a context of its own (24 KB)."""
        ca = self.ca or self.directory / "ca.crt"
        certificate, key = self.directory / f"{thing}.crt", self.directory / f"{thing}.key"
        return Identity(thing, mutual_tls(ca, certificate, key), will)


def plain_identity(thing: str, will: Will | None = None) -> Identity:
    """Return an identity that proves nothing: for test listeners that believe the user name."""
    return Identity(thing, None, will)


class LinkError(Exception):
    """The broker did not let us in, or spoke no MQTT 5; the text says which."""


def mutual_tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that knows one CA, checks the host name, and shows one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


class Link(asyncio.BufferedProtocol):
    """One TCP connection from CONNECT to its end."""

    __slots__ = (
        "_is_open",
        "_is_paused",
        "_is_reading",
        "_keep_alive",
        "_listener",
        "_next_id",
        "_out",
        "_ping_is_open",
        "_rest",
        "_timer",
        "_transport",
        "_unacked",
        "_waiting",
        "_window",
        "closed",
        "errors",
        "opened",
    )

    def __init__(self, identity: Identity, listener: Listener, errors: Counter[str]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.errors = errors
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # of a packet that has not arrived whole
        self._out: list[bytes] = [_connect(identity)]
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._unacked: set[int] = set()
        self._next_id = 0
        self._window = _PACKET_IDS
        self._is_open = self._is_paused = self._is_reading = self._ping_is_open = False
        self._keep_alive = KEEP_ALIVE_S
        self._timer: asyncio.TimerHandle | None = None

    # -- for the owner --------------------------------------------------------

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send with QoS 1, now or when the window allows; False if too much waits already."""
        if not self._is_open:
            return False
        if self._waiting or len(self._unacked) >= self._window or self._is_paused:
            if len(self._waiting) >= QUEUE_PACKETS_MAX:
                return False
            self._waiting.append((topic, payload))
            return True
        self._publish(topic, payload)
        return True

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for these filters with QoS 1. The broker takes packets in order: no need to wait for it."""
        wanted = [
            mqtt5.TopicFilter(
                one, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_handling=mqtt5.RetainHandling.SEND_NEVER
            )
            for one in filters
        ]
        self._send(mqtt5.SubscribePacket(self._free_id(), wanted).write())

    def close(self) -> None:
        """Say goodbye: the will is not spoken, and the listener hears nothing more of this link.

        It is told at once: TLS may take its time to part, and by then its next link may be open.
        """
        if self._transport is not None and not self._transport.is_closing():
            if self._is_open:
                self._out.append(mqtt5.DisconnectPacket().write())
                self._flush()
            self._transport.close()
            self._leave()

    def abort(self) -> None:
        """Break off as a power cut would: the will is spoken."""
        if self._transport is not None:
            self._transport.abort()

    # -- for the loop ---------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - one size fits all
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        view = _BUFFER[:nbytes]
        if self._rest:
            view, self._rest = memoryview(self._rest + view), b""
        at, end = 0, len(view)
        self._is_reading = True  # what is sent meanwhile goes out in one write at the end
        try:
            while at < end:
                packet, size = mqtt5.read(view[at:])
                at += size
                self._take(packet)
        except IndexError:
            self._rest = bytes(view[at:])  # the loop reuses the buffer
            if len(self._rest) > PACKET_BYTES_MAX:
                self._fail("packet too large")
        except (ValueError, LinkError) as error:
            self._fail(str(error) if isinstance(error, LinkError) else "malformed packet")
        finally:
            self._is_reading = False
        self._flush()

    def eof_received(self) -> None:
        """Let the transport close."""

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._publish_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._waiting.clear()
        if not self.opened.done():
            self.opened.set_exception(exc or LinkError("closed before CONNACK"))
        if not self.closed.done():
            self.closed.set_result(None)
        self._leave()

    def _leave(self) -> None:
        was_open, self._is_open = self._is_open, False
        if was_open:
            self._listener.disconnected()

    # -- packets --------------------------------------------------------------

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PublishPacket():
                if packet.packet_id is not None:
                    self._out.append(mqtt5.PubAckPacket(packet.packet_id).write())
                if self._is_open:
                    self._listener.message(packet.topic, packet.payload)
            case mqtt5.PubAckPacket():
                self._on_puback(packet)
            case mqtt5.PingRespPacket():
                self._ping_is_open = False
            case mqtt5.ConnAckPacket():
                self._on_connack(packet)
            case mqtt5.SubAckPacket():
                self._unacked.discard(packet.packet_id)
                if any(int(code) >= _FAILURE for code in packet.reason_codes):
                    self.errors["subscription refused"] += 1
            case mqtt5.DisconnectPacket():
                raise LinkError(f"broker said {packet.reason_code.name}")
            case _:
                raise LinkError(f"unexpected {type(packet).__name__}")

    def _on_puback(self, packet: mqtt5.PubAckPacket) -> None:
        self._unacked.discard(packet.packet_id)
        if packet.reason_code is not mqtt5.PubAckReasonCode.SUCCESS:
            self.errors[f"PUBACK {packet.reason_code.name}"] += 1
        if self._waiting:
            self._publish_waiting()

    def _on_connack(self, packet: mqtt5.ConnAckPacket) -> None:
        if packet.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise LinkError(f"CONNACK {packet.reason_code.name}")
        self._window = packet.receive_max
        self._keep_alive = packet.server_keep_alive or KEEP_ALIVE_S
        self._is_open = True
        if not self.opened.done():
            self.opened.set_result(None)
        self._beat()
        self._listener.connected()

    def _publish_waiting(self) -> None:
        while self._waiting and len(self._unacked) < self._window and not self._is_paused:
            self._publish(*self._waiting.popleft())

    def _publish(self, topic: str, payload: bytes) -> None:
        packet_id = self._free_id()
        packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id)
        self._send(packet.write())

    def _free_id(self) -> int:
        """Return a packet id that is not in use, and use it: the window leaves always some free."""
        packet_id = self._next_id % _PACKET_IDS + 1
        while packet_id in self._unacked:
            packet_id = packet_id % _PACKET_IDS + 1
        self._next_id = packet_id
        self._unacked.add(packet_id)
        return packet_id

    def _send(self, data: bytes) -> None:
        """Send with everything else that this turn of the loop wants to send: one write, one TLS record."""
        if not self._out and not self._is_reading:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _beat(self) -> None:
        """Ping twice a keep-alive period; a peer that left the last ping unanswered is gone."""
        if self._ping_is_open:
            self._fail("no answer to ping")
            return
        if self._timer is not None:  # not at once after CONNACK
            self._ping_is_open = True
            self._send(mqtt5.PingReqPacket().write())
        self._timer = asyncio.get_running_loop().call_later(self._keep_alive / 2, self._beat)

    def _fail(self, why: str) -> None:
        self.errors[why] += 1
        if not self.opened.done():
            self.opened.set_exception(LinkError(why))
        self.abort()


class Connection:
    """Stays connected as one identity until told to stop."""

    __slots__ = ("_chance", "_door", "_endpoint", "_errors", "_identity", "_link", "_listener", "_stopping")

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        listener: Listener,
        *,
        door: asyncio.Semaphore,
        chance: random.Random,
        errors: Counter[str],
    ) -> None:
        self._endpoint, self._identity, self._listener = endpoint, identity, listener
        self._door = door  # shared by the process: at most OPENING_MAX handshakes at once
        self._chance, self._errors = chance, errors
        self._link: Link | None = None
        self._stopping = asyncio.Event()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand over to the broker; False if not connected or too much waits: ask again later."""
        return self._link is not None and self._link.publish(topic, payload)

    def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe on this link; must be asked for anew in each ``Listener.connected``."""
        if self._link is not None:
            self._link.subscribe(filters)

    def stop(self) -> None:
        """End ``run`` after a goodbye to the broker."""
        self._stopping.set()
        if self._link is not None:
            self._link.close()

    def break_off(self) -> None:
        """Lose the link as a power cut would; ``run`` goes on and reconnects."""
        if self._link is not None:
            self._link.abort()

    async def run(self) -> None:
        """Connect, and again whenever the link is lost, with full jitter between the tries."""
        tries = 0
        try:
            while not self._stopping.is_set():
                tries = 0 if await self._live_once() else tries + 1
                await self._pause(full_jitter_s(self._chance, tries, RETRY_BASE_S, RETRY_CAP_S))
        finally:
            self.break_off()

    async def _live_once(self) -> bool:
        """Open a link and stay until it is lost; False if it could not be opened."""
        try:
            link = await self._open()
        except (OSError, TimeoutError, LinkError) as error:
            self._errors[_kind(error)] += 1
            return False
        await link.closed
        return True

    async def _open(self) -> Link:
        async with self._door, asyncio.timeout(OPEN_S_MAX):
            link = self._link = Link(self._identity, self._listener, self._errors)
            tls = self._identity.tls
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: link,
                    self._endpoint.host,
                    self._endpoint.port,
                    ssl=tls,
                    server_hostname=self._endpoint.host if tls is not None else None,
                    ssl_handshake_timeout=OPEN_S_MAX if tls is not None else None,
                    ssl_shutdown_timeout=CLOSE_S_MAX if tls is not None else None,
                )
                await link.opened
            except BaseException:
                link.abort()
                if not link.opened.cancel() and not link.opened.cancelled():
                    link.opened.exception()  # told already, by the error that is on its way
                raise
            if self._stopping.is_set():
                link.close()
            return link

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _connect(identity: Identity) -> bytes:
    return mqtt5.ConnectPacket(
        identity.name,
        username=identity.name if identity.tls is None else None,
        clean_start=True,
        keep_alive=KEEP_ALIVE_S,
        will=_will(identity.will),
        max_packet_size=PACKET_BYTES_MAX,
    ).write()


def _will(will: Will | None) -> mqtt5.Will | None:
    if will is None:
        return None
    return mqtt5.Will(will.topic, payload=will.payload, qos=mqtt5.QoS.AT_LEAST_ONCE)


def _kind(error: BaseException) -> str:
    """Name an error by kind: few enough to count."""
    match error:
        case LinkError():
            return str(error)
        case TimeoutError():
            return "connect timed out"
        case ssl.SSLError():
            return f"TLS {getattr(error, 'reason', None) or 'failed'}"  # only OpenSSL's own have one
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return type(error).__name__
