"""One connection to the broker: bytes in, packets to whom they concern, bytes out.

A link lives as long as its TCP connection. It reads into one buffer that it keeps and decodes in place.
What the broker sends against the protocol ends it; that it ended, and why, is :attr:`Link.closed`. When to
connect, to subscribe or to try again is not known here. (D9; written for speed: see ``bench/session.py``)
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import mqtt5

from broker_bridge.outbound import Outbound, OutOfOrderError

READ_BYTES: Final = 262_144
"""The read buffer at first; it grows for a larger packet, up to the packet limit."""
WRITE_BYTES_HIGH: Final = 1_048_576
"""What the transport may hold unsent before it asks us to stop."""

REFUSED_FROM: Final = 0x80
"""Reason codes from here on say no. The codec's enumerations know no order, whatever their stubs say."""

_PUBACK: Final = 0x40
_PUBACK_LENGTH: Final = 2
_PUBACK_BYTES: Final = 4
_PUBLISH: Final = 3
_QOS_MASK: Final = 0x06
_LENGTH_BYTES_MAX: Final = 4

Receive = Callable[[mqtt5.PublishPacket, int], None]
Reply = mqtt5.ConnAckPacket | mqtt5.SubAckPacket
_T = TypeVar("_T")


class LinkError(ConnectionError):
    """The connection ended. A new one may do."""


class ConnectionLostError(LinkError):
    """The broker, or the way to it, is gone."""


class ProtocolViolationError(LinkError):
    """The broker sent what MQTT 5 does not allow there, or nothing when it had to."""


class Handler(Protocol):
    """What a session does its work for. All but ``connected`` is called from the read loop."""

    def received(self, packet: mqtt5.PublishPacket, connection: int) -> None:
        """Take a message; with a packet id it is to be acknowledged later, on this connection."""
        ...

    def settled(self, mark: object) -> None:
        """The broker has the publish with this mark, and all that were published before it."""
        ...

    async def connected(self, session_present: bool) -> None:
        """Prepare for messages, which wait until this returns; publishing is possible already."""
        ...

    def disconnected(self) -> None:
        """The connection is gone, and with it all that was published and not settled."""
        ...


@dataclass(slots=True)
class Counts:
    """What happened since the session was made. Only ever rises."""

    connections: int = 0
    violations: int = 0
    refused: int = 0
    """Publishes the broker acknowledged with a reason to refuse them: a permission is missing."""
    undecodable: int = 0
    """Messages our codec refused though the broker passed them on; acknowledged and dropped."""
    early: int = 0
    """Messages without acknowledgement (QoS 0) dropped because the handler was not ready for long."""
    oversized: int = 0
    """Publishes above the broker's packet limit; dropped."""


class Link(asyncio.BufferedProtocol):
    """Reads packets from one connection and writes what is queued for it."""

    def __init__(
        self, number: int, handler: Handler, outbound: Outbound, counts: Counts, packet_bytes_max: int
    ) -> None:
        self.number = number
        self.receive: Receive = handler.received
        """Who gets messages; may be changed between two of them."""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Never has a result: an exception says why the link ended."""
        self.room = asyncio.Event()
        """Set whenever there may be room to publish again."""
        self._settled = handler.settled
        self._outbound = outbound
        self._counts = counts
        self._packet_bytes_max = packet_bytes_max
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._transport: asyncio.Transport | None = None
        self._replies: deque[asyncio.Future[Reply]] = deque()
        self._pings: deque[asyncio.Future[None]] = deque()

    # ------------------------------------------------------------------ for the session

    def flush(self) -> None:
        """Write what is queued, in one piece."""
        data = self._outbound.take()
        if data and self._transport is not None:
            self._transport.write(data)

    async def ask(self, packet: mqtt5.ConnectPacket | mqtt5.SubscribePacket) -> Reply:
        """Send a packet that has a reply, and return that."""
        return await self._answer(self._replies, packet.write())

    async def ping(self) -> None:
        """Return when the broker has answered a ping."""
        await self._answer(self._pings, mqtt5.PingReqPacket().write())

    def leave(self, packet: mqtt5.DisconnectPacket) -> None:
        """Say goodbye after what is queued, and end the connection."""
        self._outbound.release()
        self.flush()
        if self._transport is not None:
            self._transport.write(packet.write())
            self._transport.close()

    def fail(self, error: BaseException) -> None:
        """End the connection at once; the first reason counts."""
        if self.closed.done():
            return
        self.closed.set_exception(error)
        self._outbound.close()
        asked: list[asyncio.Future[Any]] = [*self._replies, *self._pings]
        for answer in asked:
            if not answer.done():
                answer.set_exception(error)
        self.room.set()
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self, queue: "deque[asyncio.Future[_T]]", data: bytes) -> _T:
        if self._transport is None or self.closed.done():
            raise ConnectionLostError("there is no connection")
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        queue.append(answer)
        self._transport.write(data)
        return await answer

    # ------------------------------------------------------------------ for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an isinstance: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(ConnectionLostError(str(exc or "the broker closed the connection")))

    def pause_writing(self) -> None:
        self._outbound.hold()

    def resume_writing(self) -> None:
        self._outbound.release()
        self.flush()
        self.room.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._read(self._filled + nbytes)
        except ConnectionLostError as error:
            self.fail(error)
        except (ProtocolViolationError, OutOfOrderError) as error:
            self._counts.violations += 1
            self.fail(ProtocolViolationError(str(error)))
        except Exception as error:  # noqa: BLE001 - ours: not to be lost in the loop; the session raises it
            self.fail(error)
        else:
            self.flush()
            if not self.room.is_set() and self._outbound.drained:
                self.room.set()

    # ------------------------------------------------------------------ bytes to packets

    def _read(self, end: int) -> None:
        """Take all whole packets from the buffer, and move the rest to its front."""
        buffer, view = self._buffer, self._view
        read, publish = mqtt5.read, mqtt5.PublishPacket
        settle, settled = self._outbound.settle, self._settled
        at = 0
        while at < end:
            # What the broker sends most, three for each update: the short form of PUBACK.
            if buffer[at] == _PUBACK and end - at >= _PUBACK_BYTES and buffer[at + 1] == _PUBACK_LENGTH:
                mark = settle(buffer[at + 2] << 8 | buffer[at + 3])
                if mark is not None:
                    settled(mark)
                at += _PUBACK_BYTES
                continue
            try:
                packet, size = read(view[at:end])
            except BaseException as error:
                if not _is_refusal(error):
                    raise
                length = self._length(at, end)
                if length is None or length > end - at:
                    break
                self._skip(at, at + length, error)
                at += length
                continue
            if type(packet) is publish:
                self.receive(packet, self.number)
            else:
                self._take(packet)
            at += size
        if at < end and (at or self._buffer is not buffer):
            self._buffer[: end - at] = view[at:end]
        self._filled = end - at

    def _length(self, at: int, end: int) -> int | None:
        """Return how long the packet at ``at`` is, None while that cannot be known; make room for it."""
        length = 0
        for index in range(_LENGTH_BYTES_MAX):
            if at + 1 + index >= end:
                return None
            byte = self._buffer[at + 1 + index]
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follows
                length += 2 + index
                self._make_room(length)
                return length
        raise ProtocolViolationError("the broker sent a packet with a malformed length")

    def _make_room(self, length: int) -> None:
        if length > self._packet_bytes_max:
            raise ProtocolViolationError(f"the broker sent a packet of {length} bytes")
        if length > len(self._buffer):
            # Not resized in place: views of the old one are in use.
            self._buffer = bytearray(length)
            self._view = memoryview(self._buffer)

    def _skip(self, at: int, end: int, error: BaseException) -> None:
        """Drop a message that our codec refuses, or it would be redelivered, and refused, for ever."""
        if self._buffer[at] >> 4 != _PUBLISH:
            raise ProtocolViolationError(f"the broker sent bytes that are no packet: {error}") from error
        self._counts.undecodable += 1
        if self._buffer[at] & _QOS_MASK:
            packet_id = self._packet_id(at, end)
            if packet_id is None:
                raise ProtocolViolationError("the broker sent a message without packet id") from error
            self._outbound.acknowledge(packet_id)

    def _packet_id(self, at: int, end: int) -> int | None:
        """Find the packet id of a PUBLISH that is otherwise not understood."""
        buffer = self._buffer
        start = at + 2
        while buffer[start - 1] >= 0x80:  # noqa: PLR2004 - past the length, which was checked
            start += 1
        if start + 2 <= end:
            start += 2 + (buffer[start] << 8 | buffer[start + 1])
        return buffer[start] << 8 | buffer[start + 1] if start + 2 <= end else None

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PubAckPacket():  # the long form: with a reason
                if int(packet.reason_code) >= REFUSED_FROM:
                    self._counts.refused += 1
                mark = self._outbound.settle(packet.packet_id)
                if mark is not None:
                    self._settled(mark)
            case mqtt5.PingRespPacket() if self._pings:
                _fulfil(self._pings.popleft(), None)
            case mqtt5.ConnAckPacket() | mqtt5.SubAckPacket() if self._replies:
                _fulfil(self._replies.popleft(), packet)
            case mqtt5.DisconnectPacket():
                raise ConnectionLostError(f"the broker disconnected us: {packet.reason_code.name}")
            case _:
                raise ProtocolViolationError(f"the broker sent a {type(packet).__name__} that is not due")


def _is_refusal(error: BaseException) -> bool:
    """Tell the codec's refusals (too few bytes, bad bytes) from everything else.

    Its Rust half panics on text that is not UTF-8, with an exception that is no ``Exception``. [measured]
    """
    return isinstance(error, IndexError | ValueError) or type(error).__name__ == "PanicException"


def _fulfil(future: "asyncio.Future[_T]", result: _T) -> None:
    if not future.done():  # whoever asked may have been cancelled
        future.set_result(result)
