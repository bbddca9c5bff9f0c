"""The bridge's MQTT session: stays connected, subscribed and honest about what the broker has.

The session at the broker is persistent (``clean_start`` false, long expiry) and messages are acknowledged
by hand, so that the broker keeps for us what we have not dealt with. Only where the broker itself came
back with outdated memories it begins anew: what they hold was answered long ago. Its own publishes are
QoS 1 and flow-controlled, all but blocks of files; a *mark* on one says when the broker has it. What was
not settled when a connection ends is forgotten here and said again by whoever marked it.
(spec: shadow 13; reliability 3.2)
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import mqtt5
import structlog

from broker_bridge import packets
from broker_bridge.link import (
    REFUSED_FROM,
    ConnectionLostError,
    Counts,
    Handler,
    Link,
    LinkError,
    ProtocolViolationError,
    Reply,
)
from broker_bridge.outbound import Outbound

SESSION_EXPIRY_S: Final = 604_800
"""How long the broker keeps our session, and what is queued in it, when we are away."""
RECEIVE_MAX: Final = 4_096
"""Messages the broker may send us that we have not acknowledged."""
PACKET_BYTES_MAX: Final = 262_144
PROTOCOL_PACKET_BYTES_MAX: Final = 268_435_455
CONNECT_S_MAX: Final = 10.0
"""For TCP, CONNECT and SUBSCRIBE together."""
KEEP_ALIVE_S: Final = 30
PING_S_MAX: Final = 10.0
LEAVE_S_MAX: Final = 1.0
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 5.0
RETRY_DOUBLINGS_MAX: Final = 16
STABLE_S: Final = 5.0
"""A connection that lasted this long was a good one: the next retry starts quickly again."""
TOPIC_ROOM_BYTES: Final = 1_024
"""What of a packet's limit is kept for its topic and header."""

SUBSCRIBE_PACKET_ID: Final = 1
_R = TypeVar("_R", mqtt5.ConnAckPacket, mqtt5.SubAckPacket)

_log = structlog.get_logger(__name__)


class SessionError(Exception):
    """The session cannot do its work, and trying again would not help."""


class SubscriptionRefusedError(SessionError):
    """The broker does not let us hear what we must hear."""

    def __init__(self, filter: str, reason: mqtt5.SubAckReasonCode) -> None:
        super().__init__(
            f"the broker refused the subscription {filter} ({reason.name}): let this user read these topics"
        )
        self.filter = filter
        self.reason = reason


class ConnectionRefusedByBrokerError(LinkError):
    """The broker answered CONNECT with a refusal. It may change its mind (busy, shutting down)."""

    def __init__(self, reason: mqtt5.ConnAckReasonCode) -> None:
        super().__init__(f"the broker refused the connection: {reason.name}")
        self.reason = reason


class Session:
    """One client of one broker, for as long as :meth:`run` runs."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: str,
        username: str,
        password: str,
        subscriptions: Sequence[mqtt5.TopicFilter],
        handler: Handler,
        rng: random.Random,
        receive_max: int = RECEIVE_MAX,
        packet_bytes_max: int = PACKET_BYTES_MAX,
        keep_alive_s: int = KEEP_ALIVE_S,
        outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare a session; ``outdated``, asked at each connect, tells that the broker's must not go on."""
        self._host = host
        self._port = port
        self._subscriptions = list(subscriptions)
        self._handler = handler
        self._rng = rng
        self._packet_bytes_max = packet_bytes_max
        self._keep_alive_s = keep_alive_s
        self._client_id = client_id
        self._username = username
        self._password = password.encode()
        self._outdated = outdated
        self._receive_max = receive_max
        self._outbound = Outbound()
        self._link: Link | None = None
        self._connection = 0
        self._subscribed = False
        self._payload_bytes_max = 0
        self.counts = Counts()

    # ------------------------------------------------------------------ what callers use

    @property
    def connected(self) -> bool:
        """Whether publishing is possible."""
        return self._outbound.is_open

    @property
    def published(self) -> int:
        """How many messages were given to the broker so far."""
        return self._outbound.published

    @property
    def settled(self) -> int:
        """How many of them it acknowledged."""
        return self._outbound.settled

    @property
    def window_free(self) -> int:
        """How many publishes the broker takes at once from now on."""
        return self._outbound.window_free

    def publish(self, topic: str, payload: bytes, expiry_s: int, mark: object | None = None) -> bool:
        """Queue a message with QoS 1; :meth:`flush` writes it. False when not connected, or no room.

        The handler's ``settled`` gets the mark once the broker has this message and all before it.
        """
        if len(payload) > self._payload_bytes_max and self._outbound.is_open:
            return self._leave_out(topic, mark)
        return self._outbound.publish(topic, payload, expiry_s, mark)

    def send(self, topic: str, head: bytes, tails: Sequence[bytes]) -> bool:
        """Queue messages with QoS 0, of which each is ``head`` and a tail; :meth:`flush` writes them.

        False when there is no connection, or it takes nothing more now; see :meth:`drained`.
        """
        if max(map(len, tails), default=0) + len(head) > self._payload_bytes_max and self._outbound.is_open:
            return self._leave_out(topic, None)
        return self._outbound.pass_on(packets.blocks(topic, head, tails))

    def acknowledge(self, packet_id: int, connection: int) -> None:
        """Queue the acknowledgement of a received message; nothing happens if its connection is gone.

        It is written after everything that was published before.
        """
        if connection == self._connection and self._outbound.is_open:
            self._outbound.acknowledge(packet_id)

    def flush(self) -> None:
        """Write all that is queued, in one piece."""
        if self._link is not None:
            self._link.flush()

    async def drained(self) -> None:
        """Return when there is room for another batch of messages, or no connection to have room on."""
        while self._link is not None and not self._outbound.drained:
            room = self._link.room
            room.clear()
            await room.wait()

    async def echo(self) -> None:
        """Return when the broker has answered a ping.

        Raises:
            LinkError: there is no connection, or it ended meanwhile.
        """
        if self._link is None:
            raise ConnectionLostError("there is no connection to the broker")
        await self._link.ping()

    async def run(self) -> None:
        """Connect, serve, connect again; ends by cancellation, with a goodbye to the broker.

        Raises:
            SessionError: the broker lacks a permission for us.
        """
        loop = asyncio.get_running_loop()
        failures, cancellations = 0, _cancellations()
        while True:
            began_s = loop.time()
            try:
                await self._serve()
            except OSError as error:  # a LinkError is one, and so is a time-out
                reason = str(error) or type(error).__name__
                _log.warning("broker_connection_ended", host=self._host, port=self._port, reason=reason)
            if _cancellations() > cancellations:
                # Cancelled just as the connection ended: of the two, a task group raises the latter.
                raise asyncio.CancelledError
            failures = 0 if loop.time() - began_s >= STABLE_S else failures + 1
            await asyncio.sleep(self._retry_delay_s(failures))

    # ------------------------------------------------------------------ one connection

    async def _serve(self) -> None:
        """Live through one connection; always ends by an exception."""
        link = await self._open()
        early = _Early(self._receive_max, self.counts)
        link.receive = early.put
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                connack = await self._shake_hands(link)
            await self._attend(link, connack, early)
        finally:
            await _leave(link)

    async def _open(self) -> Link:
        self._connection += 1
        number = self._connection
        async with asyncio.timeout(CONNECT_S_MAX):
            # The loop sets TCP_NODELAY.
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(number, self._handler, self._outbound, self.counts, self._packet_bytes_max),
                self._host,
                self._port,
            )
        return link

    async def _shake_hands(self, link: Link) -> mqtt5.ConnAckPacket:
        """Log in and, unless the broker remembers that, subscribe."""
        connack = _expect(mqtt5.ConnAckPacket, await link.ask(self._connect_packet()))
        if connack.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise ConnectionRefusedByBrokerError(connack.reason_code)
        # The first time also on a session that exists: its filters may be those of an older release.
        if not (connack.session_present and self._subscribed):
            await self._subscribe(link)
        return connack

    def _connect_packet(self) -> mqtt5.ConnectPacket:
        return mqtt5.ConnectPacket(
            self._client_id,
            username=self._username,
            password=self._password,
            clean_start=self._outdated(),
            session_expiry_interval=SESSION_EXPIRY_S,
            keep_alive=self._keep_alive_s,
            receive_max=self._receive_max,
            max_packet_size=self._packet_bytes_max,
        )

    async def _subscribe(self, link: Link) -> None:
        request = mqtt5.SubscribePacket(SUBSCRIBE_PACKET_ID, self._subscriptions)
        suback = _expect(mqtt5.SubAckPacket, await link.ask(request))
        for filter, reason in zip(self._subscriptions, suback.reason_codes, strict=True):
            if int(reason) >= REFUSED_FROM:
                raise SubscriptionRefusedError(filter.pattern, reason)
        self._subscribed = True

    async def _attend(self, link: Link, connack: mqtt5.ConnAckPacket, early: "_Early") -> None:
        """Serve until the link ends; raises why it did."""
        self._payload_bytes_max = (connack.max_packet_size or PROTOCOL_PACKET_BYTES_MAX) - TOPIC_ROOM_BYTES
        self._outbound.open(connack.receive_max)
        self._link = link
        self.counts.connections += 1
        ended: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._welcome(link, connack.session_present, early), name="session welcome")
                keep_alive_s = connack.server_keep_alive or self._keep_alive_s
                tasks.create_task(_keep_alive(link, keep_alive_s), name="session keep-alive")
                # Here and not in a task: while it waits for tasks alone, Python 3.11's group leaves its own
                # cancellation of us uncounted-down, and then nobody can tell whether we were cancelled.
                await asyncio.shield(link.closed)
        except* LinkError as errors:
            ended += errors.exceptions
        finally:
            self._link = None
            self._handler.disconnected()
        raise ended[0]

    async def _welcome(self, link: Link, session_present: bool, early: "_Early") -> None:
        """Let the handler prepare, then give it what came meanwhile and all that comes."""
        await self._handler.connected(session_present)
        for packet in early.packets:
            self._handler.received(packet, link.number)
        link.receive = self._handler.received
        link.flush()

    def _retry_delay_s(self, failures: int) -> float:
        """Return how long to wait: full jitter, so that many who lost one broker do not return at once."""
        ceiling_s = RETRY_S_MIN * 2 ** min(failures, RETRY_DOUBLINGS_MAX)
        return self._rng.uniform(0, min(RETRY_S_MAX, ceiling_s))

    def _leave_out(self, topic: str, mark: object | None) -> bool:
        """Drop what the broker would cut us off for; limits elsewhere see to it that this never happens."""
        self.counts.oversized += 1
        _log.error("message_too_large_for_the_broker", topic=topic, bytes_max=self._payload_bytes_max)
        if mark is not None:
            self._handler.settled(mark)
        return True


class _Early:
    """Messages that came before the handler was ready for them."""

    def __init__(self, messages_max: int, counts: Counts) -> None:
        self.packets: list[mqtt5.PublishPacket] = []
        self._messages_max = messages_max
        self._counts = counts

    def put(self, packet: mqtt5.PublishPacket, _connection: int) -> None:
        # The broker keeps to our Receive Maximum; only what needs no acknowledgement is without bound.
        if packet.packet_id is None and len(self.packets) >= self._messages_max:
            self._counts.early += 1
        else:
            self.packets.append(packet)


def _cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def _keep_alive(link: Link, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            async with asyncio.timeout(PING_S_MAX):
                await link.ping()
        except TimeoutError:
            raise ConnectionLostError(f"the broker did not answer a ping within {PING_S_MAX:g} s") from None


async def _leave(link: Link) -> None:
    """End a connection in good order, if there still is one."""
    link.leave(mqtt5.DisconnectPacket())
    with suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_S_MAX):
            await asyncio.wait([link.closed])
    link.fail(ConnectionLostError("we left"))
    link.closed.exception()  # looked at, so that the loop does not complain that nobody did


def _expect(kind: type[_R], reply: Reply) -> _R:
    if not isinstance(reply, kind):
        raise ProtocolViolationError(f"the broker answered with a {type(reply).__name__}")
    return reply
