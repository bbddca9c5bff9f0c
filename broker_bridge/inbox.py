"""What was received and not yet answered: bounded in all, and for each thing and way it came.

A gateway that floods us with requests about a thing, attached to it or not, takes no place from the thing
itself or from another gateway.

``put`` never waits and never blocks others: it says no, and the sender hears 429. ``take`` does not
wait for a batch to fill; the next one forms while the last one is written. Arrival order is kept,
which is the order per shadow. (spec: shadow, sections 7 and 10)
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from broker_bridge.topics import JobRequest, Request

R = TypeVar("R", Request, JobRequest)


class Message(NamedTuple, Generic[R]):
    """A request as it came from the broker, and what is needed to acknowledge it."""

    request: R
    payload: bytes
    packet_id: int
    """0: sent with QoS 0, so there is nothing to acknowledge and it does not come again."""
    connection: int
    duplicate: bool

    @property
    def share(self) -> str:
        """Whose places it takes."""
        gateway, thing = self.request.gateway, self.request.thing
        return thing if gateway is None else f"{gateway}/{thing}"

    @property
    def key(self) -> tuple[int, int]:
        """Tells messages apart as long as they are unanswered."""
        return self.packet_id, self.connection


class Inbox(Generic[R]):
    """Messages in arrival order; counts those taken as long as they are unanswered."""

    def __init__(self, requests_max: int, in_flight_max: int) -> None:
        self._requests_max = requests_max
        self._in_flight_max = in_flight_max
        self._waiting: deque[Message[R]] = deque()
        self._unanswered: dict[str, int] = {}
        self._total = 0
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """Messages unanswered, waiting or taken."""
        return self._total

    def put(self, message: Message[R]) -> bool:
        """Add a message; False when the inbox, or this thing's share of it, is full."""
        share = message.share
        unanswered = self._unanswered.get(share, 0)
        if unanswered >= self._in_flight_max or self._total >= self._requests_max:
            return False
        self._unanswered[share] = unanswered + 1
        self._total += 1
        self._waiting.append(message)
        self._arrived.set()
        return True

    async def take(self, messages_max: int) -> list[Message[R]]:
        """Return what waits, at least one message and at most ``messages_max``."""
        await self._arrived.wait()
        waiting = self._waiting
        if len(waiting) <= messages_max:
            taken = list(waiting)
            waiting.clear()
            self._arrived.clear()
        else:
            taken = [waiting.popleft() for _ in range(messages_max)]
        return taken

    def answered(self, messages: Iterable[Message[R]]) -> None:
        """Free the places of messages whose answer is written."""
        unanswered = self._unanswered
        for message in messages:
            share = message.share
            left = unanswered[share] - 1
            if left:
                unanswered[share] = left
            else:
                del unanswered[share]
            self._total -= 1

    def forget(self) -> list[Message[R]]:
        """Let go of what waits and will be delivered again, because nobody acknowledged it; return that."""
        gone = [message for message in self._waiting if message.packet_id]
        self._waiting = deque(message for message in self._waiting if not message.packet_id)
        if not self._waiting:
            self._arrived.clear()
        self.answered(gone)
        return gone
