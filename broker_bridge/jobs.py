"""Requests about jobs as they come from the broker: who may ask is asked here, all else of the service.

As with shadows the broker proves who may use a topic; whether that thing is registered, live, and attached
to the gateway that speaks for it is asked of the registry for every message. (spec: ota, 4)
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import mqtt5

from broker_bridge import dispatch
from broker_bridge.deadletters import DeadLetters
from broker_bridge.desk import KILLED, Acknowledger, Desk
from broker_bridge.inbox import Inbox, Message
from broker_bridge.job_speaker import JobSpeaker
from broker_bridge.poison import Suspects
from broker_bridge.topics import JobRequest
from infra.telemetry import Metrics
from ota.job_requests import Code, peek_token
from ota.job_service import RETRY_AFTER_S, Asked, JobService
from ota.jobs import JobError
from registry.models import Standing
from registry.service import RegistryService
from security.audit import Refusals
from shadow.errors import ForbiddenError, ThingNotFoundError

BATCH_MESSAGES_MAX: Final = 256
UNANSWERED_MAX: Final = 20_000
"""Requests about jobs that wait, of all things together."""
UNANSWERED_PER_THING_MAX: Final = 10

_ECHOED: Final = re.compile(r"[!-~]{0,128}", re.ASCII)
"""Names of jobs that an answer may repeat, valid or not; we publish on nothing else that others made up."""
_TOO_MANY: Final = JobError(
    Code.REQUEST_THROTTLED, "wait for the answers to earlier requests", retry_after_s=RETRY_AFTER_S
)
_NOT_NOW: Final = JobError(Code.REQUEST_THROTTLED, "not now: send again", retry_after_s=RETRY_AFTER_S)
_FORBIDDEN: Final = JobError(Code.FORBIDDEN, "this thing is not attached to this gateway")
_UNKNOWN: Final = JobError(Code.RESOURCE_NOT_FOUND, "there is no such thing")
_DEAD: Final = JobError(Code.INTERNAL_ERROR, "dead letter")


class JobDesk(Desk[JobRequest]):
    """Takes requests about jobs, has them carried out, and acknowledges them."""

    def __init__(
        self,
        service: JobService,
        speaker: JobSpeaker,
        registry: RegistryService,
        session: Acknowledger,
        dead_letters: DeadLetters,
        suspects: Suspects,
        refusals: Refusals,
        metrics: Metrics,
    ) -> None:
        inbox = Inbox[JobRequest](UNANSWERED_MAX, UNANSWERED_PER_THING_MAX)
        super().__init__(inbox, registry, session, suspects, BATCH_MESSAGES_MAX, speaker.ready)
        self._service = service
        self._speaker = speaker
        self._dead_letters = dead_letters
        self._refusals = refusals
        self._metrics = metrics

    def __len__(self) -> int:
        """How many requests are not answered yet."""
        return len(self._inbox)

    def received(self, request: JobRequest, packet: mqtt5.PublishPacket, connection: int) -> None:
        """Take a request, or answer or drop it at once."""
        message = Message(request, packet.payload, packet.packet_id or 0, connection, packet.duplicate)
        if not _ECHOED.fullmatch(request.job):
            self._metrics.dropped("unknown_topic")
        elif self._inbox.put(message):
            return
        else:
            self._overloaded(message)
        self.drop(message.packet_id, connection)

    def forget(self) -> None:
        """Let go of what waits and will be delivered again on a session that goes on."""
        self._inbox.forget()

    async def _condemn(self, message: Message[JobRequest]) -> None:
        # Not even its token is looked at.
        await self._dead_letters.keep(message.request, "", message.payload, KILLED)
        self._speaker.answer(message.request, self._service.refused(_DEAD, None))

    async def _carry_out(
        self, batch: Sequence[Message[JobRequest]], standings: Mapping[str, Standing]
    ) -> None:
        messages = [one for one in batch if await self._admitted(one, standings)]
        asked = [
            Asked(message.request.operation, message.request.thing, message.request.job, message.payload)
            for message in messages
        ]
        for message, answered in zip(messages, await self._service.handle(asked), strict=True):
            self._speaker.answer(message.request, answered)
            if answered.failure is not None:
                self._session.flush()  # nobody else waits for this
                await self._keep(message, answered.failure)

    async def _admitted(self, message: Message[JobRequest], standings: Mapping[str, Standing]) -> bool:
        """Tell whether a request is to be carried out; if not it is answered, or silence is its answer."""
        request = message.request
        gateway = None if request.gateway is None else standings.get(request.gateway)
        try:
            # By way of its module: whoever weakens it for a test weakens it for all who ask.
            dispatch.admit(request, standings.get(request.thing), gateway)
        except dispatch.SilenceError as silence:
            self._metrics.dropped(silence.reason)
            dispatch.note_refusal(self._refusals, request, silence.reason)
        except ForbiddenError:
            dispatch.note_refusal(self._refusals, request, "not attached")
            self._refuse(message, _FORBIDDEN)
        except ThingNotFoundError:
            self._refuse(message, _UNKNOWN)
        except Exception as error:  # noqa: BLE001 - our bug in one request stops no other
            await self._fail(message, error)
        else:
            return True
        return False

    def _put_off(self, message: Message[JobRequest]) -> None:
        self._refuse(message, _NOT_NOW)

    async def _fail(self, message: Message[JobRequest], error: Exception) -> None:
        self._speaker.answer(message.request, self._service.failed(error, message.payload))
        await self._keep(message, error)

    def _overloaded(self, message: Message[JobRequest]) -> None:
        speaker = self._registry.standing(message.request.gateway or message.request.thing)
        if isinstance(speaker, Standing) and speaker.thing.barred:
            self._metrics.dropped(dispatch.bar_of(speaker.thing))
        else:
            self._refuse(message, _TOO_MANY)

    def _refuse(self, message: Message[JobRequest], error: JobError) -> None:
        self._speaker.answer(message.request, self._service.refused(error, peek_token(message.payload)))

    async def _keep(self, message: Message[JobRequest], error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        await self._dead_letters.keep(message.request, "", message.payload, reason)
