"""The transcripts of docs/protocol.md, run through the bridge and the shadow service."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.inbox import Message
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.topics import parse
from gnomon.services import open_services
from infra.settings import load
from registry.models import NewThing, ThingKind
from security.policy import Principal, Role
from tests.fakes import FakeClock, SeededIds

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
TRANSCRIPTS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?^```transcript\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
OPERATOR = Principal("operator", Role.OPERATOR)


Said = tuple[str, dict[str, Any]]


class Recorder:
    """A session that notes what is published."""

    def __init__(self, handler) -> None:
        self.said: list[Said] = []

    def publish(self, topic, payload, expiry_s, mark=None) -> bool:
        self.said.append((topic, json.loads(payload)))
        return True

    def acknowledge(self, packet_id, connection) -> None: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...


def steps(transcript: str):
    """Yield (topic, payload, what is expected after it)."""
    exchanges: list[tuple[str, str, list[Said]]] = []
    for line in transcript.splitlines():
        way, topic, payload = line.split(" ", 2)
        if way == ">":
            exchanges.append((topic, payload, []))
        else:
            exchanges[-1][2].append((topic, json.loads(payload)))
    return exchanges


def test_the_page_has_transcripts():
    assert len(TRANSCRIPTS) >= 5


@pytest.mark.parametrize(
    "transcript", [text for _, text in TRANSCRIPTS], ids=[title for title, _ in TRANSCRIPTS]
)
async def test_what_the_page_says_is_what_happens(transcript, tmp_path):
    settings = load(environ={}, overrides={"directory": str(tmp_path)})
    async with open_services(settings, FakeClock(), SeededIds(), logs=[DEAD_LETTERS]) as services:
        for name in ("th-1", "th-2", "th-3", "th-4"):
            await services.registry.register(NewThing(name, ThingKind.DEVICE, "m", "pr-1"), OPERATOR)
        await services.registry.register(NewThing("gw-1", ThingKind.GATEWAY, "m", "pr-1"), OPERATOR)
        await services.registry.register(
            NewThing("ls-1", ThingKind.DEVICE, "m", "pr-1", has_certificate=False), OPERATOR
        )
        await services.registry.attach("gw-1", "ls-1", OPERATOR)
        sessions: list[Recorder] = []

        def open_session(handler) -> Any:
            sessions.append(Recorder(handler))
            return sessions[0]

        bridge = Bridge(
            open_session=open_session,
            remember_session=lambda: None,
            shadows=services.shadows,
            registry=services.registry,
            jobs=services.ota.jobs,
            streams=services.ota.streams,
            dead_letters=DeadLetters(services.store, services.clock, services.metrics),
            refusals=services.refusals,
            suspects=Suspects(tmp_path / "bridge", 3),
            job_suspects=Suspects(tmp_path / "jobs", 3),
            clock=services.clock,
            metrics=services.metrics,
            journeys=services.journeys,
            ids=services.ids,
            limits=settings.limits,
            settings=settings.bridge,
        )
        work = [
            asyncio.create_task(services.shadows.run()),
            asyncio.create_task(bridge._speaker.run()),
        ]
        await bridge.connected(session_present=True)
        for topic, payload, expected in steps(transcript):
            sessions[0].said.clear()
            request = parse(topic)
            assert request is not None
            await bridge._dispatcher.serve([Message(request, payload.encode(), 1, 1, duplicate=False)])
            assert sessions[0].said == expected
        for task in work:
            task.cancel()
