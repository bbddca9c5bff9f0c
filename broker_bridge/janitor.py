"""Ends live sessions: the one client of the broker that may talk to its dynamic-security plugin.

Making a user and deleting it again ends all sessions of that name, on every listener, and leaves no state
behind. ``disableClient`` would not do: who logs in with a certificate is not asked for by the plugin, and
simply comes back. Both commands travel in one message, which the broker carries out in one go.

An end is no ban. Before it, whatever lets the name in has to be gone: see ``security.trust.revocation``.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

import mqtt5
import msgspec
import structlog

from broker_bridge.link import Handler, LinkError
from broker_bridge.session import Session
from broker_bridge.topics import CONTROL_TOPIC
from security.trust.revocation import BrokerControlError

KICKS_WAITING_MAX: Final = 1_024
"""Below what the broker takes unacknowledged at once; whoever comes later is told to come again."""
KICK_S_MAX: Final = 5.0
"""Also for a broker that is just being started again."""
QUESTION_EXPIRY_S: Final = 5
_CREATE: Final = "createClient"
_DELETE: Final = "deleteClient"

_log = structlog.get_logger(__name__)


class JanitorError(BrokerControlError):
    """The session may still be there: try again later."""


class JanitorBusyError(JanitorError):
    """Too many wait already."""

    def __init__(self) -> None:
        super().__init__(f"{KICKS_WAITING_MAX} sessions wait for their end: come again")


class BrokerSilentError(JanitorError):
    """The broker did not say that it is done."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the broker did not end the session of {name} within {KICK_S_MAX:g} s")
        self.name = name


class BrokerAwayError(JanitorError):
    """There is no connection to it now."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the broker does not answer: {reason}")


class KickRefusedError(JanitorError):
    """The plugin said no."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the broker did not end the session of {name}: {reason}")
        self.name = name


class _Said(msgspec.Struct, rename="camel"):
    """The plugin's answer to one command."""

    command: str = ""
    error: str = ""
    correlation_data: str = ""


class _Answer(msgspec.Struct):
    responses: list[_Said] = []


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Answer).decode


class Janitor:
    """Implements a session's handler. :meth:`kick` works for as long as :meth:`run` runs."""

    def __init__(self, open_session: Callable[[Handler], Session]) -> None:
        """Prepare; ``open_session`` makes the session that calls this handler."""
        self.session = open_session(self)
        self._numbers = count(1)
        self._asked: dict[str, tuple[str, asyncio.Future[None]]] = {}
        self.kicks = 0

    async def run(self) -> None:
        """Stay connected until cancelled."""
        await self.session.run()

    async def kick(self, name: str) -> None:
        """End every session of this name; return when the broker has said that it did.

        Raises:
            JanitorError: it did not, or nobody knows.
        """
        assert "." not in name, "our own sessions are not to be ended"
        if len(self._asked) >= KICKS_WAITING_MAX:
            raise JanitorBusyError
        number = str(next(self._numbers))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[number] = (name, done)
        try:
            self._ask(number, name)
            async with asyncio.timeout(KICK_S_MAX):
                await done
        except TimeoutError:
            raise BrokerSilentError(name) from None
        finally:
            del self._asked[number]
        self.kicks += 1

    async def barrier(self) -> None:
        """Return when the broker has acted on every signal that it was sent before.

        It heeds signals at the end of a turn of its loop. An answer to a ping shows that a turn has begun
        since, the answer to a second one that this turn has ended. Two signals in one turn are one to it, so
        the next must not be sent before.

        Raises:
            JanitorError: nobody knows.
        """
        try:
            async with asyncio.timeout(KICK_S_MAX):
                for _ in range(2):
                    await self.session.echo()
        except (LinkError, TimeoutError) as error:
            raise BrokerAwayError(str(error)) from error

    def _ask(self, number: str, name: str) -> None:
        commands = [
            {"command": command, "username": name, "correlationData": number}
            for command in (_CREATE, _DELETE)
        ]
        # Without a connection it is asked again once there is one.
        self.session.publish(CONTROL_TOPIC, _encode({"commands": commands}), QUESTION_EXPIRY_S)
        self.session.flush()

    # ---------------------------------------------------------- the session's handler

    def received(self, packet: mqtt5.PublishPacket, connection: int) -> None:
        """Take the plugin's answer."""
        if packet.packet_id:
            self.session.acknowledge(packet.packet_id, connection)
        try:
            answer = _decode(packet.payload)
        except msgspec.DecodeError as error:
            _log.error("plugin_not_understood", reason=str(error))
            return
        for said in answer.responses:
            if said.command == _DELETE and said.correlation_data in self._asked:
                self._settle(*self._asked[said.correlation_data], said.error)

    def settled(self, mark: object) -> None:
        """Do nothing: the plugin's own answer counts."""

    async def connected(self, session_present: bool) -> None:  # noqa: ARG002 - the handler's signature
        """Ask again for what was not answered: the last connection may have ended before it was heard."""
        for number, (name, _) in list(self._asked.items()):
            self._ask(number, name)

    def disconnected(self) -> None:
        """Do nothing: who waits goes on waiting for a new connection."""

    def _settle(self, name: str, done: "asyncio.Future[None]", error: str) -> None:
        if done.done():
            return
        if error:
            done.set_exception(KickRefusedError(name, error))
        else:
            done.set_result(None)
