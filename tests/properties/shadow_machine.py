"""A shadow service against a small model: requests, repeats, restarts and crashes, in any order.

The machine drives one service a store, all in step, and compares each answer with the model and with the
others. What is said (answers, delta, documents) is collected by version: it must be the same bytes each
time, nothing may be left out, and no version may be said before an older one.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.clock import MS_PER_S
from infra.documents.port import DocumentStore
from infra.settings.model import ShadowLimits
from security import audit
from shadow.commands import Command, parse_delete, parse_get, parse_update
from shadow.decisions import Accepted, Outcome
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from tests import reference
from tests.fakes import FakeClock
from tests.faulty_store import Crash, FaultyStore
from tests.properties.strategies import patches
from tests.shadow_rig import ANNA, DEVICE, Rig, make_rig, shown
from tests.vectors.cases import canonical, read

Json = Any
LIMITS = ShadowLimits(
    dedup_records_max=3,
    dedup_age_s=60,
    outbox_entries_max=4,
    history_full_every=3,
    history_versions_max=12,
    request_bytes_max=2**20,
    document_bytes_max=2**20,
)
NAMES = ("", "free")

Open = Callable[[], Awaitable[DocumentStore]]


class Place(NamedTuple):
    """Where a service keeps its documents, and how they are opened anew after a restart."""

    name: str
    open: Open
    reopens: bool = True
    """False for the memory store, which would come back empty."""


# ------------------------------------------------------------------------------------ the model


class Known(NamedTuple):
    """A token that was answered."""

    token: str
    operation: str
    payload: bytes
    unique: bool
    body: bytes
    at: int


@dataclass
class Model:
    """What one shadow should be, and what it should answer."""

    shadow: reference.Shadow = field(default_factory=reference.Shadow)
    at_ms: int = 0
    sequence: tuple[int, int] | None = None
    tokens: list[Known] = field(default_factory=list)
    outbox: list[int] = field(default_factory=list)
    settled: int = 0
    """What this process knows to be delivered; a restart forgets it."""
    said: int = 0
    """Up to which version everything was said at least once."""
    history: dict[int, Json] = field(default_factory=dict)

    def expect(self, operation: str, payload: bytes, now: int) -> tuple[int, Known | None]:
        """Return the code a request is answered with, and the record it repeats."""
        if operation == "get":
            return (200 if self.shadow.exists else 404), None
        request = json.loads(payload or b"{}")
        known = self.known(request.get("clientToken"), now)
        if known is not None and known.unique and (known.operation, known.payload) == (operation, payload):
            return 200, known
        pair = request.get("sequence")
        if pair and self.sequence and (pair["epoch"], pair["number"]) <= self.sequence:
            return 409, None
        if operation == "delete" and not self.shadow.exists:
            return 404, None
        if operation == "update" and request.get("version") not in {None, self.compared()}:
            return 409, None
        if len(self.unsettled()) >= LIMITS.outbox_entries_max:
            return 503, None
        return 200, None

    def apply(self, operation: str, payload: bytes, now_ms: int, body: bytes | None) -> None:
        """Take over what was accepted; ``body`` is the answer, if anybody has seen it."""
        now = now_ms // MS_PER_S
        self.at_ms = max(self.at_ms, now_ms)
        request = json.loads(payload or b"{}")
        if operation == "update":
            self.shadow.update(request["state"], now)
            if pair := request.get("sequence"):
                self.sequence = (pair["epoch"], pair["number"])
        else:
            self.shadow.delete(now)
        version = self.shadow.version
        self.outbox = [*self.unsettled(), version]
        self.history[version] = self.shadow.show()
        self.remember(operation, payload, request.get("clientToken"), body or b"")

    def compared(self) -> int:
        return self.shadow.version if self.shadow.exists else 0

    def unsettled(self) -> list[int]:
        return [version for version in self.outbox if version > self.settled]

    def known(self, token: str | None, now: int) -> Known | None:
        oldest = max(now, self.shadow.at) - LIMITS.dedup_age_s
        return next((one for one in self.tokens if one.token == token and one.at >= oldest), None)

    def remember(self, operation: str, payload: bytes, token: str | None, body: bytes) -> None:
        if not token:
            return
        at = self.shadow.at
        unique = self.known(token, at) is None
        kept = [one for one in self.tokens if one.token != token][-(LIMITS.dedup_records_max - 1) :]
        kept = [one for one in kept if one.at >= at - LIMITS.dedup_age_s]
        self.tokens = [*kept, Known(token, operation, payload, unique, body, at)]

    def answered(self, known: Known, body: bytes) -> None:
        """Keep the answer to a request whose first one nobody saw."""
        self.tokens[self.tokens.index(known)] = known._replace(body=body)


# ----------------------------------------------------------------------------------- the machine


class Request(NamedTuple):
    id: ShadowId
    operation: str
    payload: bytes
    by_person: bool = False

    def command(self) -> Command:
        origin = ANNA if self.by_person else DEVICE
        match self.operation:
            case "update":
                return parse_update(self.payload, self.id, origin, LIMITS)
            case "delete":
                return parse_delete(self.payload, self.id, origin, LIMITS)
            case _:
                return parse_get(self.payload, self.id, origin, LIMITS)


class World:
    """One service on one store, through all its lives."""

    def __init__(self, place: Place, clock: FakeClock) -> None:
        self.place = place
        self.clock = clock
        self.rig: Rig
        self.lane: asyncio.Task[None]
        self.said: dict[tuple[ShadowId, int], tuple[bytes, bytes | None]] = {}
        """By shadow and version: the answer and the documents, as they were said first."""
        self.newest: dict[ShadowId, int] = {}
        self.last: Outcome | None = None

    async def start(self) -> None:
        self.begin(await self.place.open())

    def begin(self, store: DocumentStore) -> None:
        self.rig = make_rig(FaultyStore(store), limits=LIMITS, clock=self.clock)
        self.rig.service.listen(self.hear)
        self.lane = asyncio.create_task(self.rig.service.run(), name=f"lane on {self.place.name}")

    async def stop(self) -> DocumentStore:
        self.lane.cancel()
        await asyncio.gather(self.lane, return_exceptions=True)
        store = self.rig.store.inner
        if self.place.reopens:
            await store.close()
        return store

    async def restart(self) -> None:
        """End the process and start another, which says first what was left unsaid."""
        store = await self.stop()
        self.begin(await self.place.open() if self.place.reopens else store)
        cursor: str | None = None
        while True:
            unsent, cursor = await self.rig.service.unsent(cursor)
            self.hear(unsent)
            if cursor is None:
                break

    def hear(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.last = outcome
            if isinstance(outcome, Accepted) and outcome.change is not None:
                self._said(outcome.command.id, outcome.change.version, outcome.body, outcome.change.documents)

    def _said(self, id: ShadowId, version: int, body: bytes, documents: bytes | None) -> None:
        first = self.said.setdefault((id, version), (body, documents))
        assert first == (body, documents), f"version {version} was said in other words"
        newest = self.newest.get(id, 0)
        assert version <= newest + 1, f"version {version} was said before {newest + 1}"
        self.newest[id] = max(newest, version)


class ShadowMachine(RuleBasedStateMachine):
    """Subclass it with ``places``."""

    places: ClassVar[Callable[[], Sequence[Place]]]
    runner: ClassVar[asyncio.Runner]

    @initialize()
    def start(self) -> None:
        self.clock = FakeClock()
        self.worlds = [World(place, self.clock) for place in type(self).places()]
        self.models: dict[ShadowId, Model] = {ShadowId("hall", name): Model() for name in NAMES}
        self.sent: list[Request] = []
        self.tokens = 0
        for world in self.worlds:
            self.runner.run(world.start())

    def teardown(self) -> None:
        for world in getattr(self, "worlds", ()):
            self.runner.run(world.stop())

    # --- requests

    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        state=st.none()
        | st.fixed_dictionaries({}, optional={"desired": st.none() | patches, "reported": patches}),
        version=st.sampled_from(["none", "none", "none", "current", "stale", "zero"]),
        token=st.sampled_from(["none", "new", "new", "constant", "empty"]),
        sequence=st.none() | st.tuples(st.integers(0, 2), st.integers(0, 3)),
        by_person=st.booleans(),
    )
    def update(
        self,
        data: st.DataObject,
        name: str,
        state: Json,
        version: str,
        token: str,
        sequence: tuple[int, int] | None,
        by_person: bool,
    ) -> None:
        id = ShadowId("hall", name)
        body: Json = {"state": state}
        if version != "none":
            current = self.models[id].compared()
            body["version"] = {"current": current, "stale": max(0, current - 1), "zero": 0}[version]
        self._tokened(body, token)
        if sequence is not None and isinstance(state, dict) and "reported" in state:
            body["sequence"] = {"epoch": sequence[0], "number": sequence[1]}
        only_desires = state is not None and set(state) == {"desired"}
        self._send(Request(id, "update", json.dumps(body).encode(), by_person and only_desires))

    @rule(name=st.sampled_from(NAMES), token=st.sampled_from(["none", "new", "constant"]))
    def delete(self, name: str, token: str) -> None:
        body: Json = {}
        self._tokened(body, token)
        self._send(Request(ShadowId("hall", name), "delete", json.dumps(body).encode() if body else b""))

    @rule(name=st.sampled_from(NAMES))
    def get(self, name: str) -> None:
        self._send(Request(ShadowId("hall", name), "get", b'{"clientToken":"g"}'))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send a request once more: the last ones most often."""
        back = min(data.draw(st.integers(0, 9)), len(self.sent) - 1)
        self._send(self.sent[-1 - back])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), size=st.integers(2, 5))
    def batch(self, data: st.DataObject, size: int) -> None:
        """Send some requests of before in one submission."""
        requests = [
            self.sent[-1 - min(data.draw(st.integers(0, 9)), len(self.sent) - 1)] for _ in range(size)
        ]
        expected = []
        for request in requests:
            code, known = self._expect(request)
            expected.append((request, code, known))
            if code == 200 and known is None and request.operation != "get":
                self.models[request.id].apply(request.operation, request.payload, self.clock.now_ms(), None)
        bodies = self._submit_all(requests, [code for _, code, _ in expected])
        for (_, _, known), body in zip(expected, bodies, strict=True):
            assert known is None or known.body in {b"", body}

    @rule(seconds=st.sampled_from([0, 0.3, 1, 5, 20, 61]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.integers(1, 100))
    def the_clock_is_set_back(self, seconds: int) -> None:
        self.clock.jump(-seconds)

    # --- the broker

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def the_broker_takes(self, name: str, data: st.DataObject) -> None:
        """Settle some of what was said."""
        id = ShadowId("hall", name)
        model = self.models[id]
        if model.said:
            version = data.draw(st.integers(max(1, model.said - 2), model.said))
            model.settled = max(model.settled, version)
            for world in self.worlds:
                world.rig.service.settle(id, version)

    @rule(after_quiet=st.booleans())
    def sweep(self, after_quiet: bool) -> None:
        """Empty the outboxes that may be; after a while without requests that is all of them."""
        if after_quiet:
            self.clock.advance(LIMITS.outbox_sweep_s + 1)
            for id, model in self.models.items():
                model.settled = max(model.settled, model.said)
                for world in self.worlds:
                    world.rig.service.settle(id, model.said)
        for world in self.worlds:
            self.runner.run(world.rig.service.sweep_once())
        for model in self.models.values():
            quiet = model.at_ms <= self.clock.now_ms() - LIMITS.outbox_sweep_s * MS_PER_S
            if quiet and not model.unsettled():
                model.outbox = []

    # --- misfortune

    @rule()
    def restart(self) -> None:
        for world in self.worlds:
            self.runner.run(world.restart())
        for model in self.models.values():
            model.settled = 0
            model.said = model.shadow.version

    @rule(
        crash=st.sampled_from(Crash),
        state=patches,
        name=st.sampled_from(NAMES),
        dies=st.booleans(),
        person=st.booleans(),
    )
    def crash(self, crash: Crash, state: Json, name: str, dies: bool, person: bool) -> None:
        """Lose a commit's reply, or the commit, or its rows; the process dies of it or lives on."""
        id = ShadowId("hall", name)
        body: Json = {"state": {"desired": state}}
        self._tokened(body, "new")
        request = Request(id, "update", json.dumps(body).encode(), person)
        model = self.models[id]
        if len(model.unsettled()) >= LIMITS.outbox_entries_max:
            return
        for world in self.worlds:
            world.rig.store.crash = crash
        self._submit_all([request], [503])
        if crash is not Crash.BEFORE_COMMIT:
            model.apply("update", request.payload, self.clock.now_ms(), None)
        self.sent.append(request)
        if dies:
            self.restart()

    # --- what must hold

    @invariant()
    def what_is_stored_is_what_the_model_says(self) -> None:
        for world in getattr(self, "worlds", ()):
            for id, model in self.models.items():
                shadow = self.runner.run(world.rig.stored(id))
                assert shadow.version == model.shadow.version
                assert canonical(shown(shadow)) == canonical(model.shadow.show())
                assert shadow.sequence == model.sequence
                assert [entry.version for entry in shadow.outbox] == model.outbox
                assert world.newest.get(id, 0) >= model.said

    @rule(name=st.sampled_from(NAMES))
    def look_back(self, name: str) -> None:
        """Read every version that is kept; what was not said yet may lack its row."""
        id = ShadowId("hall", name)
        model = self.models[id]
        for world in self.worlds:
            self.runner.run(self._look_back(world, id, model))

    async def _look_back(self, world: World, id: ShadowId, model: Model) -> None:
        shadow = await world.rig.stored(id)
        for version in range(shadow.oldest_version, shadow.version + 1):
            was = model.history[version]
            try:
                snapshot = await world.rig.service.archive.at_version(id, version)
            except NoShadowError:
                assert was is None
                continue
            sections = {"desired": snapshot.desired, "reported": snapshot.reported}
            state = {name: section.state for name, section in sections.items() if section.state}
            assert canonical(state) == canonical(was["state"])
            assert snapshot.at_ms // MS_PER_S == was["timestamp"]
        if model.said == shadow.version > 0:
            rows = await world.rig.service.archive.history(id, limit=100)
            assert [row.version for row in rows] == list(range(shadow.version, shadow.oldest_version - 1, -1))
            people = [row.version for row in rows if row.role == ANNA.role]
            page = await audit.read(world.rig.store.inner, 0, 10**15, 1_000)
            audited = {one.version_after for one in page.entries if one.target == f"shadow/{id.key}"}
            assert audited >= set(people)

    # --- details

    def _tokened(self, body: Json, kind: str) -> None:
        if kind == "new":
            self.tokens += 1
            body["clientToken"] = f"t{self.tokens}"
        elif kind != "none":
            body["clientToken"] = "" if kind == "empty" else kind

    def _expect(self, request: Request) -> tuple[int, Known | None]:
        now = self.clock.now_ms() // MS_PER_S
        return self.models[request.id].expect(request.operation, request.payload, now)

    def _send(self, request: Request) -> None:
        code, known = self._expect(request)
        note(f"{request} → {code}")
        model = self.models[request.id]
        before = model.shadow.show()
        (body,) = self._submit_all([request], [code])
        if code == 200 and known is None and request.operation != "get":
            model.apply(request.operation, request.payload, self.clock.now_ms(), body)
            self._said(model, before)
        if known is not None:
            assert known.body in {b"", body}
            model.answered(known, body)
        if code == 200 and request.operation == "get":
            self._shown(read(body), model)
        self.sent.append(request)

    def _said(self, model: Model, before: Json) -> None:
        """Compare delta and documents of what was accepted last."""
        now, delta = model.shadow.show(), None
        if now is not None:
            delta = model.shadow.delta()
        for world in self.worlds:
            assert isinstance(world.last, Accepted)
            assert world.last.change is not None
            said = read(world.last.change.delta)
            assert canonical(said and {name: said[name] for name in ("state", "metadata")}) == canonical(
                delta
            )
            documents = read(world.last.change.documents)
            versions = documents and (documents["previous"], documents["current"])
            assert canonical(versions) == canonical(now and (_version(before), _version(now)))

    def _shown(self, body: Json, model: Model) -> None:
        expected = model.shadow.show()
        delta = model.shadow.delta()
        if delta is not None:
            for part in ("state", "metadata"):
                expected[part]["delta"] = delta[part]
        assert canonical(body | {"timestamp": 0}) == canonical(
            expected | {"timestamp": 0, "clientToken": "g"}
        )

    def _submit_all(self, requests: Sequence[Request], codes: Sequence[int]) -> list[bytes]:
        """Submit to all worlds, which must answer alike and as expected; return the bodies."""
        bodies: list[list[bytes]] = []
        for world in self.worlds:
            outcomes = self.runner.run(world.rig.service.submit([request.command() for request in requests]))
            assert [_code(outcome) for outcome in outcomes] == list(codes)
            bodies.append([outcome.body for outcome in outcomes])
        assert all(one == bodies[0] for one in bodies), [world.place.name for world in self.worlds]
        for id in {request.id for request in requests}:
            self.models[id].said = max(world.newest.get(id, 0) for world in self.worlds)
        return bodies[0]


def _version(document: Json) -> Json:
    return document and {name: document[name] for name in ("state", "metadata", "version")}


def _code(outcome: Outcome) -> int:
    return 200 if isinstance(outcome, Accepted) else outcome.error.code
