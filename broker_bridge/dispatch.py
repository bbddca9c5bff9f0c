"""From messages to commands, and from errors to silence: what each request that came in deserves.

The broker proves who may use a topic; whether that thing is registered, live, and attached to the
gateway that speaks for it is asked here, of the registry, for every message. Every message is
acknowledged once its fate is settled: answered, or dropped on purpose and counted. Only a dying
process leaves one open. (spec: shadow, sections 7.2 and 8; security, section 6)
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import structlog

from broker_bridge.deadletters import DeadLetters
from broker_bridge.desk import KILLED, Acknowledger, Desk
from broker_bridge.inbox import Inbox, Message
from broker_bridge.poison import Suspects
from broker_bridge.speaker import Speaker
from broker_bridge.topics import AnyRequest, FirmwareRequest, Operation, Request, action_of
from infra.ids import Ids
from infra.settings.model import ShadowLimits
from infra.telemetry import Journeys, Metrics
from registry.models import Standing, Thing, ThingKind
from registry.rules import target
from registry.service import RegistryService
from security.audit import Refusals, Via
from security.policy import Principal, Role, may
from shadow.commands import (
    Channel,
    Command,
    Origin,
    RefusedError,
    parse_delete,
    parse_get,
    parse_update,
    peek_token,
)
from shadow.decisions import Outcome, Rejected
from shadow.errors import ForbiddenError, InternalError, ShadowError, ThingNotFoundError, UnavailableError
from shadow.service import ShadowService

_log = structlog.get_logger(__name__)

ORIGINS_CACHED_MAX: Final = 65_536
_BY_MQTT: Final = Via("mqtt")
_NOT_NOW: Final = UnavailableError("the registry cannot be asked now; send again later")


REVOKED: Final = "revoked"
SUSPENDED: Final = "suspended"
NO_CERTIFICATE: Final = "no_certificate"


class SilenceError(Exception):
    """The request gets no answer: nothing may be told to who sent it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Dispatcher(Desk[Request]):
    """Takes what waits in the inbox, has it carried out, and acknowledges it."""

    def __init__(  # everything an update meets on its way
        self,
        inbox: Inbox[Request],
        shadows: ShadowService,
        registry: RegistryService,
        speaker: Speaker,
        session: Acknowledger,
        dead_letters: DeadLetters,
        suspects: Suspects,
        refusals: Refusals,
        ids: Ids,
        limits: ShadowLimits,
        metrics: Metrics,
        journeys: Journeys,
        batch_messages_max: int,
    ) -> None:
        super().__init__(inbox, registry, session, suspects, batch_messages_max, speaker.ready)
        self._shadows = shadows
        self._speaker = speaker
        self._dead_letters = dead_letters
        self._refusals = refusals
        self._ids = ids
        self._limits = limits
        self._metrics = metrics
        self._journeys = journeys

    def overloaded(self, message: Message[Request], error: ShadowError) -> None:
        """Answer a message that the inbox did not take, and acknowledge it; written as in :meth:`drop`."""
        speaker = self._registry.standing(message.request.gateway or message.request.id.thing)
        if isinstance(speaker, Standing) and speaker.thing.barred:
            self._metrics.dropped(bar_of(speaker.thing))
        else:
            self._refuse(message, error, peek_token(message.payload, self._limits))
        self.drop(message.packet_id, message.connection)

    async def _settle(self, batch: Sequence[Message[Request]]) -> None:
        if self._journeys.open:
            self._journeys.taken(message.key for message in batch)
        await super()._settle(batch)
        if self._journeys.open:
            self._journeys.ended(message.key for message in batch)

    async def _condemn(self, message: Message[Request]) -> None:
        # Not even its token is looked at.
        await self._dead_letters.add(message, KILLED)
        self._refuse(message, InternalError("dead letter"), None)

    async def _carry_out(self, batch: Sequence[Message[Request]], standings: Mapping[str, Standing]) -> None:
        messages: list[Message[Request]] = []
        commands: list[Command] = []
        for message in batch:
            try:
                command = self._command(message, standings)
            except Exception as error:  # noqa: BLE001 - row 17: our bug in one request stops no other
                await self._fail(message, error)
                continue
            if command is not None:
                messages.append(message)
                commands.append(command)
        if self._journeys.open:
            self._journeys.became((m.key, id(c)) for m, c in zip(messages, commands, strict=True))
        if commands:
            await self._note_refusals(messages, await self._shadows.submit(commands))

    def _command(self, message: Message[Request], standings: Mapping[str, Standing]) -> Command | None:
        """Return the command to carry out, or None when the message is answered or dropped already."""
        request = message.request
        try:
            gateway = None if request.gateway is None else standings.get(request.gateway)
            origin = admit(request, standings.get(request.id.thing), gateway)
            return _parse(message, origin, self._limits)
        except SilenceError as silence:
            self._metrics.dropped(silence.reason)
            self._note(request, silence.reason)
        except RefusedError as refused:
            self._refuse(message, refused.error, refused.token)
        except ShadowError as error:
            if isinstance(error, ForbiddenError):
                self._note(request, "not attached")
            self._refuse(message, error, peek_token(message.payload, self._limits))
        return None

    async def _note_refusals(self, messages: Sequence[Message[Request]], outcomes: Sequence[Outcome]) -> None:
        """Write down who wanted what nobody may, and the bytes of what failed unforeseen."""
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                if isinstance(outcome.error, ForbiddenError):
                    self._note(message.request, outcome.error.detail or outcome.error.message)
                elif isinstance(outcome.error, InternalError):
                    self._session.flush()  # nobody else waits for this
                    await self._dead_letters.add(message, outcome.error.detail or outcome.error.message)

    def _put_off(self, message: Message[Request]) -> None:
        self._refuse(message, _NOT_NOW, peek_token(message.payload, self._limits))

    async def _fail(self, message: Message[Request], error: Exception) -> None:
        request, internal = message.request, InternalError(trace := self._ids.token())
        _log.error(
            "request_failed", trace=trace, thing=request.id.thing, shadow=request.id.name, exc_info=error
        )
        try:
            token = peek_token(message.payload, self._limits)
        except Exception:  # noqa: BLE001 - the bug may be in there
            token = None
        self._refuse(message, internal, token)
        await self._dead_letters.add(message, internal.detail or internal.message)

    def _note(self, request: Request, reason: str) -> None:
        role = Role.DEVICE if request.gateway is None else Role.RELAY
        who = Principal(request.gateway or request.id.thing, role)
        self._refusals.note(who, _BY_MQTT, f"shadow.{request.operation}", f"shadow/{request.id.key}", reason)

    def _refuse(self, message: Message[Request], error: ShadowError, token: str | None) -> None:
        self._speaker.refuse(message.request, error, token)
        self._metrics.rejected(error.code)


def admit(request: AnyRequest, thing: Standing | None, gateway: Standing | None) -> Origin:
    """Return on whose behalf a request is carried out (spec: shadow 8, rows 2 and 3).

    Raises:
        SilenceError: revoked, suspended, or registered as one that has no certificate; nothing is said.
        ThingNotFoundError: the thing speaks for itself and is not registered.
        ForbiddenError: not attached to this gateway, whether or not the thing exists.
    """
    if request.gateway is None:
        if thing is None:
            raise ThingNotFoundError
        if thing.thing.barred:
            raise SilenceError(bar_of(thing.thing))
        if not thing.thing.has_certificate:
            # Whoever holds one of this name, it is from another life of the name.
            raise SilenceError(NO_CERTIFICATE)
        role = Role.GATEWAY if thing.thing.kind is ThingKind.GATEWAY else Role.DEVICE
        speaker, origin = _speaker(request.thing, role, None)
        if not may(speaker, action_of(request), target(thing)):
            raise ForbiddenError(f"{role} may not do this")
        return origin
    if gateway is not None and gateway.thing.barred:
        raise SilenceError(bar_of(gateway.thing))
    speaker, origin = _speaker(request.gateway, Role.RELAY, request.gateway)
    if (
        gateway is None
        or gateway.thing.kind is not ThingKind.GATEWAY
        or thing is None
        or thing.thing.barred
        or not may(speaker, action_of(request), target(thing))
    ):
        raise ForbiddenError("this thing is not attached to this gateway")
    return origin


def note_refusal(refusals: Refusals, request: FirmwareRequest, reason: str) -> None:
    """Write down who asked for a job or a file and may not."""
    who = Principal(request.gateway or request.thing, Role.DEVICE if request.gateway is None else Role.RELAY)
    refusals.note(who, _BY_MQTT, action_of(request), f"thing/{request.thing}", reason)


def bar_of(thing: Thing) -> str:
    """Return why a thing that is barred hears nothing."""
    return REVOKED if thing.revoked_at_ms is not None else SUSPENDED


@lru_cache(ORIGINS_CACHED_MAX)
def _speaker(actor: str, role: Role, gateway: str | None) -> tuple[Principal, Origin]:
    return Principal(actor, role), Origin(actor, role, Channel.MQTT, gateway)


def _parse(message: Message[Request], origin: Origin, limits: ShadowLimits) -> Command:
    request, payload = message.request, message.payload
    match request.operation:
        case Operation.UPDATE:
            return parse_update(payload, request.id, origin, limits)
        case Operation.GET:
            return parse_get(payload, request.id, origin, limits)
        case Operation.DELETE:
            return parse_delete(payload, request.id, origin, limits)
