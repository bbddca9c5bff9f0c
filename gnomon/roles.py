"""Service roles: starts the entry points over the services, and stops them in order.

``gnomon up`` runs every role in one process beside a Mosquitto child. Stopping goes from the outside
in: no new requests, then the bridge, then the lane, then the broker, then the store.
"""

import asyncio
import gc
import os
import random
import resource
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import mqtt5
import structlog

from api.device_server import serve_devices
from api.server import ListenError, listen, serve
from api.services import ApiServices
from api.transport import ServerTls
from broker_bridge.attendance import Attendance
from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.janitor import Janitor
from broker_bridge.link import Handler
from broker_bridge.mosquitto import LOOPBACK, BrokerError, Mosquitto, find_plugin
from broker_bridge.mosquitto_config import JANITOR_USER, PROBE_USER, BrokerConfig
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.selftest import HolesError, SelfTestError, Voice, try_out
from broker_bridge.session import Session
from broker_bridge.topics import CONTROL_ANSWERS, PRESENCE_SUBSCRIPTIONS, SUBSCRIPTIONS
from broker_bridge.unread import Unread, read_sockets
from broker_bridge.warden import Warden
from gnomon import canaries, demo_people
from gnomon.credentials import DEFAULT_URL
from gnomon.readiness import PROBES, Readiness
from gnomon.revocations import LocalBroker, Recorded, bar_in
from gnomon.services import NoPlaceError, Services, broker_directory, open_services
from infra import logs
from infra.clock import SystemClock
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.ids import RandomIds
from infra.settings import Settings
from infra.settings.model import is_loopback
from infra.telemetry import Metrics
from ota.health import Part
from provisioning import care_demo
from provisioning.care_embedded import EmbeddedCare
from provisioning.care_http import CareSetupError
from security.heads import BadHeadsError
from security.people.errors import PeopleError
from security.people.people import SWEEP_S
from security.trust.authority import (
    Authority,
    AuthorityError,
    Credentials,
    DamagedFileError,
    ExposedFileError,
)
from security.trust.expiry import Expiry
from security.trust.revocation import REVOCATIONS, RevocationList, Revocations

READY_S_MAX: Final = 15.0
"""How long the bridge may take to be served by the broker at start."""

IMPATIENCE_S: Final = 1.0
"""A second signal within this time is an echo of the first: `make` and a terminal both pass it on."""
EXIT_INTERRUPTED: Final = 130
RENEWAL_CHECK_S: Final = 21_600
"""A server certificate lasts 90 days and is renewed when 30 are left."""
AUTHORITY_CHECK_S: Final = 3_600
UNREADABLE: Final = (AuthorityError, DamagedFileError, ExposedFileError, OSError)
"""What is wrong with authorities is told, and ends nothing: what was issued goes on."""
DESCRIPTORS_SPARE: Final = 256
"""Beside the connections of devices: files, our own connections, those of the API."""
SELF_TEST_S: Final = 3_600.0
SELF_TEST_RETRY_S: Final = 60.0
"""After one in which the broker could not be tried out, as when it is just being started again."""
BROKER: Final = "local"
"""The broker's name in records of revocations."""
SWITCH_INTERVAL_S: Final = 0.000_5
COLLECTOR_THRESHOLDS: Final = (50_000, 20, 20)
"""New objects before the young, the middle and the old are looked at; Python's own are (700, 10, 10)."""

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The service could not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class System:
    """The service as it runs."""

    services: Services
    broker: Mosquitto
    bridge: Bridge
    api_url: str
    device_url: str
    """Where devices join, and reach their shadows by HTTPS."""


async def up(settings: Settings, on_ready: Callable[[System], None]) -> None:
    """Run every role until SIGINT or SIGTERM.

    Raises:
        StartError: it could not start; nothing is left running.
    """
    with interruptible():
        async with running(settings) as system:
            on_ready(system)
            await stop_signal()


@contextmanager
def interruptible() -> Iterator[None]:
    """End the block, in order, when a signal comes that nobody waits for yet: while we start."""
    main, came = asyncio.current_task(), asyncio.Event()
    assert main is not None, "called from a task"

    def stop() -> None:
        came.set()
        main.cancel()

    _on_signals(stop)
    try:
        yield
    except asyncio.CancelledError:
        if not came.is_set():
            raise
        main.uncancel()


async def stop_signal() -> None:
    """Return at the first SIGINT or SIGTERM; another one that comes later ends the process at once."""
    stopped = asyncio.Event()
    _on_signals(stopped.set)
    await stopped.wait()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    first_s: list[float] = []

    def came() -> None:
        if not first_s:
            first_s.append(loop.time())
            stop()
        elif loop.time() - first_s[0] > IMPATIENCE_S:
            os._exit(EXIT_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, came)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[System]:
    """Start every role, yield once all are ready, and stop them in order at the end."""
    raise_descriptor_limit(settings)
    forbid_core_dumps()
    suspects = Suspects(settings.directory / "bridge", settings.limits.poison_tries_max)
    job_suspects = Suspects(settings.directory / "bridge" / "jobs", settings.limits.poison_tries_max)
    async with (
        _services(settings) as services,
        _revocation_list(services) as revoked,
        _broker(services) as broker,
        tasks(
            services.shadows.run(),
            services.shadows.sweep(),
            services.shadows.retain(),
            services.sealer.run(),
            services.devices.run(),
            services.programs.worker.run(),
            *services.ota.runs(),
            services.outbox.run(services.care.deliver),
            sweep_people(services),
            watch_authorities(services.authority),
        ),
    ):
        suspects.begin()
        job_suspects.begin()
        await services.models.seed()
        await services.programs.catalogue.seed()
        janitor = _janitor(services, broker)
        revocations = Revocations(
            services.store,
            services.clock,
            bar=bar_in(services.registry),
            certificates=Recorded(services.trust.issued),
            list=revoked,
            brokers={BROKER: LocalBroker(broker, janitor)},
        )
        warden = Warden(janitor, services.registry, services.refusals, services.clock, services.metrics)
        unread = Unread(broker.device_port, warden, services.clock, read_sockets)
        bridge = _bridge(services, broker, suspects, job_suspects, unread)
        bridge.listeners.append(lambda up: services.ota.health.note(Part.BROKER, well=up))
        _show(services.metrics, bridge)
        _show_guards(services.metrics, janitor, revocations, revoked, warden)
        readiness = Readiness(services.store, bridge.session, services.clock)
        async with (
            tasks(
                bridge.run(),
                readiness.run(),
                janitor.run(),
                revocations.run(),
                warden.run(),
                unread.run(),
                services.trust.enrolment.run(superseded=revocations.relist),
                Expiry(services.trust.issued, services.clock, janitor.kick).run(),
                *services.provisioning.runs(),
            ),
            _api(services, bridge, readiness, revocations) as (api_url, device_url),
        ):
            await _until_ready(readiness)
            if settings.people.demo:
                await demo_people.provide(services, api_url)
                if isinstance(services.care, EmbeddedCare):
                    await services.care.put(care_demo.customers())
            _tune_the_interpreter()
            yield System(services, broker, bridge, api_url, device_url)
        # Only here: whatever ended the block before by an error may have been a request.
        suspects.end()
        job_suspects.end()
        await _write_refusals(services)
        await services.sealer.seal_and_publish(services.refusals.keys)


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    async with AsyncExitStack() as undo:
        opening = open_services(
            settings, SystemClock(), RandomIds(), collections=[PROBES, REVOCATIONS], logs=[DEAD_LETTERS]
        )
        try:
            services = await undo.enter_async_context(opening)
        except (AuthorityError, BadHeadsError, CareSetupError, NoPlaceError) as error:
            raise StartError(str(error)) from error
        if services.authority.root_in_reach:
            _log.warning("root_in_reach", remedy="gnomon ca move-root DIRECTORY")
        yield services


async def sweep_people(services: Services) -> None:
    """Delete sessions that are over, finish what was approved, rotate keys, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await services.people.sweep()
        except (StoreUnavailableError, PeopleError) as error:
            _log.warning("people_not_swept", reason=str(error))


async def _write_refusals(services: Services) -> None:
    try:
        await services.refusals.flush()
    except StoreUnavailableError as error:
        _log.warning("refusals_lost", reason=str(error))


def descriptors_wanted(settings: Settings) -> int:
    """Return how many files and connections a process may have to hold open: the broker most of all."""
    return settings.broker.connections_max + DESCRIPTORS_SPARE


def raise_descriptor_limit(settings: Settings) -> None:
    """Let the broker, which inherits our limit, take as many connections as the settings say.

    The limit that programs begin with (1,024 on many systems) may be raised up to the hard one by anybody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors_wanted(settings)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def forbid_core_dumps() -> None:
    """Leave no image of our memory, where keys are, on a disk; the broker inherits this."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def welcome(system: System) -> str:
    """Return what a person needs to know first."""
    settings = system.services.settings
    lines = [
        f"api          {system.api_url}/docs",
        f"devices      mqtts://{settings.broker.listen}:{system.broker.device_port}   (mutual TLS)",
        f"             they join at {system.device_url}",
        f"             they trust {system.services.authority.root_pem_path}",
    ]
    return "\n".join([*lines, *_how_to_log_in(system)])


def _how_to_log_in(system: System) -> list[str]:
    settings, secret = system.services.settings, system.services.people.first_secret
    if settings.people.demo:
        return [
            f"accounts     one a role and more, for this demo: {demo_people.credentials_directory(settings)}"
        ]
    if secret is None:
        return ["accounts     log in: gnomon token FILE"]
    return [
        f"secret       {secret.reveal()}",
        "             shown only now, good for 15 minutes and for one thing:",
        f"accounts     none yet; be the first security officer: {_first(system)}",
    ]


def _first(system: System) -> str:
    """Return the command as it has to be typed on this machine, from anywhere on it."""
    command = ["gnomon", "person", "first", "LOGIN"]
    if system.api_url != DEFAULT_URL:
        command += ["--url", system.api_url]
    if system.api_url.startswith("https:"):
        command += ["--root", str(system.services.authority.root_pem_path.absolute())]
    return shlex.join(command)


@asynccontextmanager
async def _revocation_list(services: Services) -> AsyncIterator[RevocationList]:
    """Write the list before the broker reads it: with one that has expired nobody would get in."""
    canary = canaries.make(services.settings, services.authority, services.clock)
    revoked = RevocationList(services.authority, Recorded(services.trust.issued), services.clock, [canary])
    await revoked.issue()
    yield revoked


@asynccontextmanager
async def _broker(services: Services) -> AsyncIterator[Mosquitto]:
    settings = services.settings.broker
    credentials = services.authority.server_credentials(settings.hosts)
    try:
        plugin = find_plugin(settings.plugin, settings.executable)
    except BrokerError as error:
        raise StartError(str(error)) from error
    broker = Mosquitto(
        BrokerConfig(
            directory=broker_directory(services.settings),
            authority_file=services.authority.authorities_path,
            revocation_file=services.authority.crl_path,
            plugin=plugin,
            listen=settings.listen,
            device_port=settings.device_port,
            service_port=settings.service_port,
            connections_max=settings.connections_max,
            packet_bytes_max=settings.packet_bytes_max,
        ),
        credentials,
        ids=services.ids,
        rng=random.Random(services.ids.number()),  # noqa: S311 - jitter of restarts
        executable=settings.executable,
    )
    logs.conceal(broker.password, broker.janitor_password)
    try:
        await broker.start()
    except BrokerError as error:
        raise StartError(str(error)) from error
    try:
        await _try_out(services, broker)
        async with tasks(
            broker.run(),
            renew_certificate(services, broker, credentials),
            try_out_again(services, broker),
        ):
            yield broker
    finally:
        await broker.stop()


async def _try_out(services: Services, broker: Mosquitto) -> None:
    """See that the broker keeps things apart before anybody relies on it."""
    voice = Voice(broker.service_port, PROBE_USER, broker.probe_password)
    place = canaries.place(services.settings, services.authority.root_pem_path, broker.device_port, voice)
    try:
        await try_out(place)
    except SelfTestError as error:
        raise StartError(str(error)) from error


async def try_out_again(services: Services, broker: Mosquitto) -> None:
    """Do the same each hour until cancelled; a hole ends the service, and the next start will not begin."""
    pause_s = SELF_TEST_S
    while True:
        await asyncio.sleep(pause_s)
        try:
            await _try_out(services, broker)
        except StartError as error:
            if isinstance(error.__cause__, HolesError):
                _log.error("broker_has_holes", reason=str(error))
                raise
            _log.warning("broker_not_tried_out", reason=str(error))
            pause_s = SELF_TEST_RETRY_S
        else:
            pause_s = SELF_TEST_S


async def renew_certificate(services: Services, broker: Mosquitto, shown: Credentials) -> None:
    """Have the broker show a new certificate in time before the old one ends, until cancelled."""
    while True:
        await asyncio.sleep(RENEWAL_CHECK_S)
        try:
            credentials = services.authority.server_credentials(services.settings.broker.hosts)
            if credentials != shown:
                broker.renew(credentials)
                shown = credentials
                _log.info("server_certificate_renewed")
        except UNREADABLE as error:
            _log.error("server_certificate_not_renewed", reason=str(error))


async def watch_authorities(authority: Authority) -> None:
    """Say what ends too soon, at once and now and then, until cancelled."""
    while True:
        try:
            for alarm in authority.alarms():
                _log.error("authority_ends", subject=alarm.subject, found=alarm.found, remedy=alarm.remedy)
        except UNREADABLE as error:
            _log.error("authorities_unreadable", reason=str(error))
        await asyncio.sleep(AUTHORITY_CHECK_S)


def _bridge(
    services: Services, broker: Mosquitto, suspects: Suspects, job_suspects: Suspects, warden: Unread
) -> Bridge:
    def open_session(handler: Handler) -> Session:
        return Session(
            host=LOOPBACK,
            port=broker.service_port,
            client_id=broker.username,
            username=broker.username,
            password=broker.password,
            subscriptions=_filters(),
            handler=handler,
            rng=random.Random(services.ids.number()),  # noqa: S311 - jitter of reconnects
            packet_bytes_max=services.settings.broker.packet_bytes_max,
            outdated=lambda: broker.outdated,
        )

    return Bridge(
        open_session=open_session,
        remember_session=broker.save,
        shadows=services.shadows,
        registry=services.registry,
        jobs=services.ota.jobs,
        streams=services.ota.streams,
        dead_letters=DeadLetters(services.store, services.clock, services.metrics),
        refusals=services.refusals,
        suspects=suspects,
        job_suspects=job_suspects,
        clock=services.clock,
        ids=services.ids,
        metrics=services.metrics,
        journeys=services.journeys,
        limits=services.settings.limits,
        settings=services.settings.bridge,
        logged=broker.logged,
        warden=Attendance(services.presence, warden),
    )


def _janitor(services: Services, broker: Mosquitto) -> Janitor:
    def open_session(handler: Handler) -> Session:
        return Session(
            host=LOOPBACK,
            port=broker.service_port,
            client_id=JANITOR_USER,
            username=JANITOR_USER,
            password=broker.janitor_password,
            subscriptions=[mqtt5.TopicFilter(CONTROL_ANSWERS, max_qos=mqtt5.QoS.AT_LEAST_ONCE)],
            handler=handler,
            rng=random.Random(services.ids.number()),  # noqa: S311 - jitter of reconnects
            outdated=lambda: True,  # what it asked on an earlier connection it asks again
        )

    return Janitor(open_session)


def _filters() -> list[mqtt5.TopicFilter]:
    """Return what the bridge subscribes: requests with QoS 1, the broker's log as it comes."""
    return [
        mqtt5.TopicFilter(
            pattern,
            max_qos=qos,
            retain_as_published=True,
            retain_handling=mqtt5.RetainHandling.SEND_NEVER,
        )
        for patterns, qos in (
            (SUBSCRIPTIONS, mqtt5.QoS.AT_LEAST_ONCE),
            (PRESENCE_SUBSCRIPTIONS, mqtt5.QoS.AT_MOST_ONCE),
        )
        for pattern in patterns
    ]


def _show(metrics: Metrics, bridge: Bridge) -> None:
    """Let Prometheus read what the bridge keeps anyway."""
    session, counts = bridge.session, bridge.session.counts
    metrics.gauge("inbox_requests", "Requests not yet answered", lambda: len(bridge.inbox))
    metrics.gauge("shadows_left", "Shadows whose messages wait for the broker", lambda: bridge.shadows_left)
    metrics.gauge(
        "things_untold_of_jobs", "Things whose jobs wait for the broker", lambda: bridge.job_speaker.left
    )
    metrics.gauge("things_present", "Things connected", lambda: bridge.catch_up.present)
    files = bridge.streams
    metrics.gauge("stream_requests_waiting", "Requests for files not yet answered", lambda: len(files))
    metrics.counter("stream_requests", "Requests for files answered", lambda: files.answered)
    metrics.counter("stream_blocks", "Blocks of files sent", lambda: files.blocks)
    metrics.counter("stream_bytes", "Bytes of files sent, as they are spelled", lambda: files.bytes)
    metrics.counter("publishes", "Messages given to the broker", lambda: session.published)
    metrics.counter("pubacks", "Messages it acknowledged", lambda: session.settled)
    metrics.counter("broker_connections", "Times the bridge connected", lambda: counts.connections)
    metrics.counter("publishes_refused", "Publishes that the broker refused", lambda: counts.refused)
    metrics.counter("messages_undecodable", "Messages that our codec refused", lambda: counts.undecodable)


def _show_guards(
    metrics: Metrics, janitor: Janitor, revocations: Revocations, revoked: RevocationList, warden: Warden
) -> None:
    """Let Prometheus read what those count who keep others out."""
    metrics.counter("sessions_ended", "Sessions ended by us", lambda: janitor.kicks)
    metrics.counter("revocations", "Revocations with all four acts done", lambda: revocations.done)
    metrics.gauge("revocations_open", "Revocations not yet done", lambda: revocations.open)
    metrics.gauge("revocation_list_left_seconds", "How long the list lasts", lambda: revoked.left_s)
    metrics.counter("quarantines", "Things put into quarantine", lambda: warden.quarantines)


@asynccontextmanager
async def _api(
    services: Services, bridge: Bridge, readiness: Readiness, revocations: Revocations
) -> AsyncIterator[tuple[str, str]]:
    async def figures() -> Mapping[str, int | float | str]:
        return {
            "things_present": bridge.catch_up.present,
            "requests_waiting": len(bridge.inbox),
            "store": services.store.description,
        }

    settings = services.settings.api
    try:
        listener = listen(settings.host, settings.port)
        devices = listen(settings.device_host, settings.device_port, "api.device_host", "api.device_port")
    except ListenError as error:
        raise StartError(str(error)) from error
    api = ApiServices(
        shadows=services.shadows,
        registry=services.registry,
        models=services.models,
        accounts=services.accounts,
        meters=services.meters,
        gateways=services.gateways,
        devices=services.devices,
        programs=services.programs,
        ota=services.ota,
        revoke=revocations.revoke,
        store=services.store,
        refusals=services.refusals,
        heads=services.heads,
        people=services.people,
        bearer=services.people.identities,
        step_ups=services.people.step_ups,
        metrics=services.metrics,
        live=services.live,
        clock=services.clock,
        ids=services.ids,
        settings=services.settings,
        readiness=readiness.reasons,
        figures=figures,
        trust=services.trust,
        provisioning=services.provisioning,
        outbox=services.outbox,
        version=version("gnomon"),
    )
    folder, name = services.settings.directory / "api", services.settings.broker.hosts[0]
    for_devices = ServerTls(folder / "devices.pem", services.authority.authorities_path)
    for_people = ServerTls(folder / "people.pem") if settings.tls or not is_loopback(settings.host) else None
    shown = [for_devices] if for_people is None else [for_devices, for_people]
    show_certificate(services, shown)
    # The port is asked for now: a listener that is closed has none.
    urls = (
        f"{f'http://{settings.host}' if for_people is None else f'https://{name}'}:{listener.getsockname()[1]}",
        f"https://{name}:{devices.getsockname()[1]}",
    )
    stop = asyncio.Event()
    async with (
        _until_done(serve(api, listener, stop, for_people)),
        _until_done(serve_devices(api, devices, for_devices, stop)),
        tasks(renew_shown(services, shown)),
    ):
        try:
            yield urls
        finally:
            stop.set()


def show_certificate(services: Services, listeners: Iterable[ServerTls]) -> None:
    """Have the API's listeners show the server's certificate, and know the authorities there are."""
    credentials = services.authority.server_credentials(services.settings.broker.hosts)
    for tls in listeners:
        tls.load(credentials)


async def renew_shown(services: Services, listeners: Sequence[ServerTls]) -> None:
    """Do that again and again, until cancelled."""
    while True:
        await asyncio.sleep(RENEWAL_CHECK_S)
        try:
            show_certificate(services, listeners)
        except UNREADABLE as error:
            _log.error("server_certificate_not_renewed", reason=str(error))


@asynccontextmanager
async def _until_done(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work that ends by itself beside the block, and wait for its end."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work, name=getattr(work, "__qualname__", "role"))
            yield
    except BaseExceptionGroup as errors:
        raise _only(errors) from None


@asynccontextmanager
async def tasks(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run endless work beside the block, and cancel it at its end; its failure ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            started = [group.create_task(one, name=getattr(one, "__qualname__", "role")) for one in work]
            try:
                yield
            finally:
                for task in started:
                    task.cancel()
    except BaseExceptionGroup as errors:
        raise _only(errors) from None


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of a group, so that callers can name what they catch; else the group.

    A broken disk is noticed by several at once, and is then the one.
    """
    causes = list(_leaves(errors))
    broken = [cause for cause in causes if isinstance(cause, StoreBrokenError)]
    if broken or len(causes) == 1:
        return (broken or causes)[0]
    return errors


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _tune_the_interpreter() -> None:
    """Look for cycles seldom, and let a thread that comes back from the disk go on soon.

    Documents are trees: looking for cycles in them costs 8 % of an update, and what there is now stays
    for as long as the process does. The writer thread needs the interpreter after each fsync, and a busy
    loop would keep it for 5 ms: that was half of the latency at 2,000 updates a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


async def _until_ready(readiness: Readiness) -> None:
    try:
        async with asyncio.timeout(READY_S_MAX):
            while await readiness.reasons():
                await readiness.changed()
    except TimeoutError:
        raise StartError("; ".join(await readiness.reasons()) + ": see the log above") from None
