"""Requests taken from an inbox, served in batches and acknowledged: what shadows and jobs have in common.

Every message is acknowledged once its fate is settled: answered, or dropped on purpose and counted. Only a
dying process leaves one open. (spec: shadow, section 8)
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, Protocol

import structlog

from broker_bridge.inbox import Inbox, Message, R
from broker_bridge.poison import Suspects
from infra.documents.port import StoreError, StoreUnavailableError
from registry.models import Standing
from registry.service import RegistryService

KILLED: Final = "the process died with it in hand, again and again"

_log = structlog.get_logger(__name__)


class Acknowledger(Protocol):
    """The session's side of a request: its PUBACK, and one write for all that is queued."""

    def acknowledge(self, packet_id: int, connection: int) -> None: ...
    def flush(self) -> None: ...


class Desk(ABC, Generic[R]):
    """Takes what waits in the inbox, has it carried out, and acknowledges it."""

    def __init__(
        self,
        inbox: Inbox[R],
        registry: RegistryService,
        session: Acknowledger,
        suspects: Suspects,
        batch_messages_max: int,
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare it; ``ready`` returns when requests may be served."""
        self._inbox: Inbox[R] = inbox
        self._registry = registry
        self._session = session
        self._suspects = suspects
        self._batch_messages_max = batch_messages_max
        self._ready = ready
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Serve until closed or cancelled."""
        while True:
            await self._ready()
            batch = await self._inbox.take(self._batch_messages_max)
            if self._closed:
                return
            self._idle.clear()
            try:
                await self._settle(batch)
            finally:
                self._idle.set()

    def close(self) -> None:
        """Take nothing new: what waits is not acknowledged, so the broker keeps it for the next run."""
        self._closed = True

    async def idle(self) -> None:
        """Return when what was taken is settled."""
        await self._idle.wait()

    def drop(self, packet_id: int | None, connection: int) -> None:
        """Acknowledge what is answered by nothing. The session writes it with whatever else it read."""
        if packet_id:
            self._session.acknowledge(packet_id, connection)

    async def serve(self, batch: Sequence[Message[R]]) -> None:
        """Carry out a batch; its answers are queued when this returns."""
        try:
            standings = await self._standings({message.request for message in batch})
        except StoreUnavailableError as error:
            _log.warning("registry_unavailable", requests=len(batch), reason=str(error))
            for message in batch:
                self._put_off(message)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - row 17: alone each can fail only for itself
            if len(batch) == 1:
                await self._fail(batch[0], error)
            else:
                for message in batch:
                    await self.serve([message])
        else:
            await self._carry_out(batch, standings)

    @abstractmethod
    async def _carry_out(self, batch: Sequence[Message[R]], standings: Mapping[str, Standing]) -> None:
        """Answer a batch of which it is known who asks, and who may."""

    @abstractmethod
    def _put_off(self, message: Message[R]) -> None:
        """Answer what cannot be done now: it may be sent again."""

    @abstractmethod
    async def _fail(self, message: Message[R], error: Exception) -> None:
        """Answer a request that met a bug of ours, and keep its bytes; there is no second try."""

    @abstractmethod
    async def _condemn(self, message: Message[R]) -> None:
        """Answer what had all its tries, and keep its bytes."""

    async def _standings(self, requests: set[R]) -> Mapping[str, Standing]:
        names = {request.thing for request in requests}
        names.update(request.gateway for request in requests if request.gateway is not None)
        return await self._registry.standings(names)

    async def _settle(self, batch: Sequence[Message[R]]) -> None:
        """Serve a batch and acknowledge it."""
        await (self._serve_carefully(batch) if self._suspects.careful else self.serve(batch))
        # Before the answers are written: whoever reads one may send the next request at once.
        self._inbox.answered(batch)
        for message in batch:
            self.drop(message.packet_id, message.connection)
        self._session.flush()

    async def _serve_carefully(self, batch: Sequence[Message[R]]) -> None:
        """Serve a batch after an unclean end: one of these may be what killed the process."""
        for portion in self._suspects.portions(batch):
            if self._suspects.condemned(portion[0]):
                await self._condemn(portion[0])
            else:
                self._suspects.take(portion)
                await self.serve(portion)
                self._session.flush()  # the next portion may be the last
                self._suspects.release(portion)
        if not any(message.duplicate for message in batch):
            self._suspects.relax()
