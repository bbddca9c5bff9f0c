"""What goes out on a connection, and in which order: the sender's half of MQTT 5 flow control. No I/O.

The broker names how many of our publishes it wants unacknowledged at once (its Receive Maximum, here the
*window*). What exceeds it waits, bounded, and moves up as acknowledgements come. An acknowledgement of
ours waits behind the publishes that were queued before it: a request is never acknowledged before its
answer is written. Blocks of files (QoS 0) need no window and are never queued here: they are taken only
when they can be written next, so however slow the broker reads, no more than one portion of them is held.
Nothing outlives the connection: what was not acknowledged is in the outbox of its
shadow and is said again from there, so there is one memory of it and not two.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from broker_bridge import packets

WAITING_MESSAGES_MAX: Final = 16_384
WAITING_BYTES_MAX: Final = 33_554_432
"""What may wait beyond the window; above either, :meth:`Outbound.publish` says no."""
DRAINED_BELOW: Final = 1_024
DRAINED_BELOW_BYTES: Final = WAITING_BYTES_MAX // 2
"""As long as less waits, there is room for another batch, and surely for all messages of one version."""
PACKET_ID_MAX: Final = 65_535

Waiting = tuple[str, bytes, int, object]
"""A publish (topic, payload, expiry, mark) without its packet id, which it gets when it moves up."""


class OutOfOrderError(Exception):
    """The broker acknowledged a publish that is not the oldest one."""

    def __init__(self, packet_id: int) -> None:
        super().__init__(f"the broker acknowledged packet {packet_id} out of order")


class Outbound:
    """Publishes and acknowledgements of one connection after another."""

    def __init__(self) -> None:
        self.published = 0
        """Messages given to a connection so far; only ever rises, as :attr:`settled` does."""
        self.settled = 0
        self._open = False
        self._held = False
        self._free = 0
        self._next_id = 1
        self._oldest_id = 1
        self._marks: deque[object] = deque()  # one per publish in flight; None = nobody wants to know
        self._waiting: deque[Waiting | bytes] = deque()
        self._waiting_bytes = 0
        self._out: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to publish on."""
        return self._open

    @property
    def window_free(self) -> int:
        """How many publishes the broker takes now."""
        return self._free

    @property
    def in_flight(self) -> int:
        """Publishes that the broker has not acknowledged."""
        return len(self._marks)

    @property
    def waiting(self) -> int:
        """Publishes and acknowledgements that wait for the window."""
        return len(self._waiting)

    @property
    def drained(self) -> bool:
        """Whether there is room for another batch; true as well when there is nobody to send it to."""
        return not self._open or (
            not self._held
            and len(self._waiting) < DRAINED_BELOW
            and self._waiting_bytes < DRAINED_BELOW_BYTES
        )

    def open(self, window: int) -> None:
        """Begin on a new connection, with nothing in flight."""
        self.close()
        self._open = True
        self._free = min(window, PACKET_ID_MAX)

    def close(self) -> None:
        """Forget everything; refuse until the next :meth:`open`."""
        self._open = self._held = False
        self._free = 0
        self._next_id = self._oldest_id = 1
        self._marks.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._out.clear()

    def publish(self, topic: str, payload: bytes, expiry_s: int, mark: object) -> bool:
        """Queue a publish; False when there is no connection, or no room."""
        if self._free and not self._waiting and not self._held:
            self._send(topic, payload, expiry_s, mark)
            return True
        if (
            not self._open
            or len(self._waiting) >= WAITING_MESSAGES_MAX
            or self._waiting_bytes + len(payload) > WAITING_BYTES_MAX
        ):
            return False
        self._waiting.append((topic, payload, expiry_s, mark))
        self._waiting_bytes += len(payload)
        return True

    def pass_on(self, parts: Iterable[bytes]) -> bool:
        """Take packets that need no acknowledgement, already spelled; False when they cannot be written."""
        if not self._open or self._held:
            return False
        self._out += parts
        return True

    def acknowledge(self, packet_id: int) -> None:
        """Queue the acknowledgement of what we received, behind the publishes that wait."""
        packet = packets.puback(packet_id)
        (self._waiting or self._out).append(packet)

    def settle(self, packet_id: int) -> object:
        """Take the broker's acknowledgement of our oldest publish; return that one's mark.

        Raises:
            OutOfOrderError: it is not the oldest. MQTT demands order, and marks rely on it.
        """
        if packet_id != self._oldest_id or not self._marks:
            raise OutOfOrderError(packet_id)
        self._oldest_id = packet_id + 1 if packet_id < PACKET_ID_MAX else 1
        self.settled += 1
        self._free += 1
        if self._waiting:
            self._move_up()
        return self._marks.popleft()

    def hold(self) -> None:
        """The transport is full: what is published from now on waits."""
        self._held = True

    def release(self) -> None:
        """The transport has room again."""
        self._held = False
        self._move_up()

    def take(self) -> bytes:
        """Return what is to be written now, in one piece; empty while the transport is full."""
        if self._held or not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _send(self, topic: str, payload: bytes, expiry_s: int, mark: object) -> None:
        packet_id = self._next_id
        self._next_id = packet_id + 1 if packet_id < PACKET_ID_MAX else 1
        self.published += 1
        self._free -= 1
        self._marks.append(mark)
        self._out.append(packets.publish(topic, payload, packet_id, expiry_s))

    def _move_up(self) -> None:
        waiting = self._waiting
        while waiting and not self._held:
            head = waiting[0]
            if isinstance(head, bytes):
                self._out.append(head)
            elif self._free:
                self._send(*head)
                self._waiting_bytes -= len(head[1])
            else:
                break
            waiting.popleft()
