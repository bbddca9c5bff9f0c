"""Service roles: starts the entry points over the services, and stops them in order.

``gnomon up`` runs every role in one process beside a Mosquitto child. Stopping goes from the outside
in: no new requests, then the lane, then the store, then the broker; all within ``STOP_S_MAX``.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import mqtt5
import structlog

from api.app import create_app
from api.server import serve
from api.services import ApiServices
from broker_bridge.catchup import CatchUp
from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.dispatch import Dispatcher
from broker_bridge.inbox import Inbox
from broker_bridge.mosquitto import Mosquitto
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.session import Session
from broker_bridge.speaker import Speaker
from broker_bridge.topics import PRESENCE_SUBSCRIPTIONS, SUBSCRIPTIONS
from gnomon.readiness import Readiness
from gnomon.services import Services, open_services
from infra.clock import SystemClock
from infra.ids import RandomIds
from infra.settings import Settings

STOP_S_MAX: Final = 3.0

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The service could not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """What ``on_ready`` is told: the service as it runs now."""

    services: Services
    bridge: Bridge
    catch_up: CatchUp
    inbox: Inbox
    device_address: tuple[str, int]
    api_url: str


async def up(settings: Settings, on_ready: Callable[[Running], None]) -> None:
    """Run every role until SIGINT or SIGTERM; raise :class:`StartError` when that cannot be."""
    async with running(settings) as system:
        on_ready(system)
        await stop_signal()


async def stop_signal() -> None:
    """Return at the first SIGINT or SIGTERM; a second one ends the process at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: int) -> None:
        stopped.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    await stopped.wait()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start every role, yield once all are ready, and stop them in order at the end."""
    clock, ids = SystemClock(), RandomIds()
    async with (
        open_services(settings, clock, ids, collections=[PROBES], logs=[DEAD_LETTERS]) as services,
        _broker(services) as broker,
        asyncio.TaskGroup() as lane,
        asyncio.TaskGroup() as roles,
    ):
        lane_tasks = [
            lane.create_task(services.shadows.run(), name="shadow lane"),
            lane.create_task(services.shadows.sweep(), name="shadow sweep"),
        ]
        suspects = Suspects(settings.directory / "bridge", settings.limits.poison_tries_max)
        suspects.begin()
        session, bridge, catch_up, inbox = _bridge(services, broker, suspects)
        readiness = Readiness(services.store, session, clock)
        api_url = await _start_api(roles, services, readiness, inbox, catch_up)
        tasks = [
            roles.create_task(bridge.run(session), name="bridge"),
            roles.create_task(readiness.run(), name="readiness"),
        ]
        ...
