"""The bridge as a service role: session, inbox, dispatcher, speaker and catch-up, put together.

It is the only part that talks MQTT for the service. It holds no state that it cannot lose.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import mqtt5
import structlog

from broker_bridge.catchup import CatchUp
from broker_bridge.deadletters import DeadLetters
from broker_bridge.dispatch import Dispatcher
from broker_bridge.fairness import PACE, Pace
from broker_bridge.inbox import Inbox, Message
from broker_bridge.job_speaker import JobSpeaker
from broker_bridge.jobs import JobDesk
from broker_bridge.link import Handler
from broker_bridge.poison import Suspects
from broker_bridge.presence import Presence, parse_line
from broker_bridge.session import Session
from broker_bridge.speaker import Speaker
from broker_bridge.streams import StreamDesk
from broker_bridge.topics import (
    FirmwareRequest,
    JobRequest,
    Request,
    parse,
    parse_firmware,
    refuse_unguarded,
)
from infra.clock import Clock
from infra.documents.port import StoreUnavailableError
from infra.ids import Ids
from infra.settings import BridgeSettings, ShadowLimits
from infra.telemetry import Journeys, Metrics
from ota.job_service import JobService, Told
from ota.stream_service import StreamService
from registry.service import RegistryService
from security.audit import Refusals
from shadow.decisions import Accepted, Outcome
from shadow.document import ShadowId
from shadow.errors import TooManyRequestsError
from shadow.service import ShadowService

LOG_TOPICS: Final = "$SYS/broker/log/"
REFUSALS_FLUSH_S: Final = 5.0
FINISH_S_MAX: Final = 2.5
"""How long the batch in hand may take at the end; a store that is silent for longer is as good as gone."""
_TOO_MANY: Final = TooManyRequestsError("wait for the answers to earlier requests")

_log = structlog.get_logger(__name__)


class Warden(Protocol):
    """Who else hears the broker's log, and acts on it."""

    def read(self, presence: Presence) -> None: ...
    def begin(self, presences: list[Presence]) -> None: ...


class Bridge:
    """Implements the session's handler: what to do with packets, acknowledgements and connections."""

    def __init__(
        self,
        *,
        open_session: Callable[[Handler], Session],
        remember_session: Callable[[], None],
        shadows: ShadowService,
        registry: RegistryService,
        jobs: JobService,
        streams: StreamService,
        dead_letters: DeadLetters,
        refusals: Refusals,
        suspects: Suspects,
        job_suspects: Suspects,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        journeys: Journeys,
        limits: ShadowLimits,
        settings: BridgeSettings,
        logged: Callable[[], Iterable[str]] = tuple,
        warden: Warden | None = None,
        pace: Pace = PACE,
    ) -> None:
        """Put the parts together.

        ``open_session`` makes the session that calls this handler; ``remember_session`` has the broker
        save that the session exists, which it must once it was made anew; ``logged`` returns what the
        broker has logged of late, whether we heard it or not; ``warden`` hears it too; ``pace`` is how fast a
        thing is given files.
        """
        refuse_unguarded()
        self._logged = logged
        self._warden = warden
        self._shadows = shadows
        self._refusals = refusals
        self._metrics = metrics
        self._journeys = journeys
        self._remember_session = remember_session
        self.listeners: list[Callable[[bool], None]] = []
        """Are told whether the broker is there, each time that changes. Must not raise or wait."""
        self.session = open_session(self)
        self.inbox = Inbox[Request](settings.inbox_requests_max, limits.in_flight_max)
        self._speaker = Speaker(self.session, shadows, registry, clock, limits, metrics)
        self.catch_up = CatchUp(self._speaker, shadows, registry, clock, limits, metrics)
        self._dispatcher = Dispatcher(
            self.inbox,
            shadows,
            registry,
            self._speaker,
            self.session,
            dead_letters,
            suspects,
            refusals,
            ids,
            limits,
            metrics,
            journeys,
            settings.batch_messages_max,
        )
        self.streams = StreamDesk(
            streams, self.session, registry, dead_letters, suspects, refusals, ids, metrics, pace
        )
        self.job_speaker = JobSpeaker(self.session, jobs, registry, limits, metrics)
        self._jobs = JobDesk(
            jobs, self.job_speaker, registry, self.session, dead_letters, job_suspects, refusals, metrics
        )
        jobs.lane.listen(self.job_speaker.hear)
        shadows.listen(self._committed)
        shadows.listen(self._speaker.hear)
        registry.listeners.append(self.catch_up.changed)

    @property
    def shadows_left(self) -> int:
        """How many shadows have messages left over that the broker did not take yet."""
        return self._speaker.left

    async def run(self) -> None:
        """Serve until cancelled; then settle what is in hand and say goodbye to the broker."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.session.run(), name="bridge session")
            tasks.create_task(self._dispatcher.run(), name="bridge dispatcher")
            tasks.create_task(self._speaker.run(), name="bridge speaker")
            tasks.create_task(self.catch_up.run(), name="bridge catch-up")
            tasks.create_task(self._jobs.run(), name="bridge jobs")
            tasks.create_task(self.job_speaker.run(), name="bridge job speaker")
            tasks.create_task(self._flush_refusals(), name="bridge refusals")
            tasks.create_task(self.streams.run(), name="bridge streams")
            try:
                await asyncio.get_running_loop().create_future()  # for ever
            finally:
                await self._finish()

    async def _finish(self) -> None:
        """Take nothing new, and answer what is in hand while there is a session to answer on."""
        self._dispatcher.close()
        self._jobs.close()
        try:
            async with asyncio.timeout(FINISH_S_MAX):
                await self._dispatcher.idle()
                await self._jobs.idle()
        except TimeoutError:
            _log.warning("bridge_stopped_in_mid_batch", after_s=FINISH_S_MAX)  # its outboxes speak later

    # ---------------------------------------------------------- the session's handler

    def received(self, packet: mqtt5.PublishPacket, connection: int) -> None:
        """Put a request into the inbox, or drop it with a reason that is counted."""
        topic = packet.topic
        request = parse(topic)
        if request is None:
            if topic.startswith(LOG_TOPICS):
                presence = parse_line(packet.payload.decode(errors="replace"), topic)
                self.catch_up.read(presence)
                if self._warden is not None and presence is not None:
                    self._warden.read(presence)
            elif (firmware := parse_firmware(topic)) is not None:
                if self._ask_for_firmware(firmware, packet, connection):
                    return
            else:
                self._metrics.dropped("unknown_topic")
        elif packet.retain:
            self._metrics.dropped("retained")
        else:
            message = Message(request, packet.payload, packet.packet_id or 0, connection, packet.duplicate)
            if self.inbox.put(message):
                # What has no packet id could not be told from others of its kind.
                if self._journeys.on and message.packet_id:
                    self._journeys.received(message.key, _attributes(request))
                self.catch_up.heard(request.gateway or request.id.thing)
            else:
                self._dispatcher.overloaded(message, _TOO_MANY)
            return
        self._dispatcher.drop(packet.packet_id, connection)

    def _ask_for_firmware(
        self, request: FirmwareRequest, packet: mqtt5.PublishPacket, connection: int
    ) -> bool:
        """Hand a request to whom it concerns; False when it is to be acknowledged here."""
        if packet.retain:
            self._metrics.dropped("retained")
            return False
        self.catch_up.heard(request.gateway or request.thing)
        if isinstance(request, JobRequest):
            self._jobs.received(request, packet, connection)
        else:
            self.streams.received(request, packet, connection)
        return True

    def settled(self, mark: object) -> None:
        """Note that the broker has all messages of one version, or what a thing is told of its jobs."""
        if isinstance(mark, Told):
            self.job_speaker.settled(mark)
            return
        assert isinstance(mark, tuple)
        id, version = mark
        assert isinstance(id, ShadowId)
        self._shadows.settle(id, version)

    async def connected(self, session_present: bool) -> None:
        """Say first what was left unsaid, then let requests in."""
        await self._dispatcher.idle()  # so that it is not in hand twice
        await self._jobs.idle()
        if session_present:
            # What we had not answered when the connection broke comes again. If the broker lost its
            # session it does not, and we are the only ones who still have it.
            self._journeys.forget(message.key for message in self.inbox.forget())
            self._jobs.forget()
        else:
            self._remember_session()
        self.catch_up.listen(session_present=session_present)
        # A thing may be quicker back than we are; then it waits for a word that nobody else will say.
        presences = [parse_line(line) for line in self._logged()]
        for presence in presences:
            self.catch_up.read(presence)
        if self._warden is not None:
            self._warden.begin([presence for presence in presences if presence is not None])
        await self._speaker.greet()
        self.job_speaker.greet()
        self._tell(up=True)

    def disconnected(self) -> None:
        """The broker is gone; outboxes remember what it does not know."""
        self._speaker.silence()
        self.streams.disconnected()
        self.job_speaker.silence()
        self._tell(up=False)

    def _tell(self, *, up: bool) -> None:
        for listener in self.listeners:
            listener(up)

    def _committed(self, outcomes: Sequence[Outcome]) -> None:
        if self._journeys.open:
            self._journeys.committed(
                id(outcome.command)
                for outcome in outcomes
                if isinstance(outcome, Accepted) and outcome.change is not None
            )

    async def _flush_refusals(self) -> None:
        while True:
            await asyncio.sleep(REFUSALS_FLUSH_S)
            try:
                await self._refusals.flush()
            except StoreUnavailableError as error:
                _log.warning("refusals_wait_for_the_store", reason=str(error))


def _attributes(request: Request) -> dict[str, str]:
    """Return what a trace says about a request: never anything of its payload."""
    return {
        "operation": str(request.operation),
        "thing": request.id.thing,
        "shadow": request.id.name,
        "gateway": request.gateway or "",
    }
