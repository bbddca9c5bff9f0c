"""The API in process: the real services over a real store, called through HTTP without a socket."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar

from api.app import create_app
from api.limits import ApiLimits
from api.services import ApiServices
from gnomon.proofs import RegistryProofs
from infra.documents.opening import open_store
from infra.documents.port import DocumentStore, StoreBrokenError
from infra.live import Live
from infra.outbox import LANES, Outbox
from infra.outbox import LOG as OUTBOX
from infra.presence import Presence
from infra.settings import Settings
from infra.settings.model import ApiSettings, ShadowLimits
from infra.telemetry import Metrics
from ota.opening import open_ota
from programs.collections import LOGS as PROGRAM_LOGS
from programs.opening import open_programs
from programs.writing import Writing
from provisioning import care_embedded
from provisioning.care_embedded import EmbeddedCare
from provisioning.center import ProvisioningCenter
from provisioning.desk import Desk
from provisioning.learning import Learning
from provisioning.outgoing import OutboxOutgoing
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from security import audit
from security.audit import Refusals, Via
from security.blocks import BLOCKS
from security.hashing import Hashing
from security.heads import Heads
from security.people.people import People, open_people
from security.people.records import COLLECTIONS as PEOPLE
from security.policy import Action, Principal, Role
from security.secretbox import SecretBox
from security.trust.authority import Authority
from security.trust.center import open_center
from security.trust.issued import IssuedStore
from shadow.commands import Channel, Origin, parse_update
from shadow.decisions import Accepted, Outcome
from shadow.document import ShadowId
from shadow.records import LOGS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.fakes import FakeClock, SeededIds
from tests.people_rig import CHEAP
from tests.programs_rig import FakePresence
from tests.provisioning_rig import ALL, Process, World

OPERATOR = Principal("operator", Role.OPERATOR)
HALL = "hall"
ACCOUNT = "account-7"
HOME = "home-7"
OWNER = f"token-{Role.CUSTOMER}"
"""What opens the API for the customer of home 7."""
SHADOW = f"/v1/things/{HALL}/shadows/@classic"
AWS = f"/things/{HALL}/shadow"
MERGE = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}


@dataclass
class Rig:
    """One API, its services, and a caller of each role; ``http`` is the customer of home 7."""

    services: ApiServices
    app: Litestar
    http: httpx.AsyncClient
    by: Mapping[Role, httpx.AsyncClient]
    """A caller for each role."""
    stranger: httpx.AsyncClient
    token: str
    """What opens it for ``http``."""
    clock: FakeClock
    store: DocumentStore
    reasons: list[str]
    """Why it is not ready."""
    broken: list[StoreBrokenError]
    tokens: "Tokens"
    confirmations: "Confirmations"
    home: Process
    """Provisioning, with a home at the other end; nobody lives there until it is settled in."""
    care: EmbeddedCare
    presence: Presence
    """Who is connected, as firmware knows it."""

    async def confirmed(
        self, role: Role, action: Action, method: str, path: str, body: bytes = b"", **headers: str
    ) -> httpx.Response:
        """Send a request that somebody has confirmed by a fresh second factor."""
        token = self.confirmations.confirm(principal_of(role), action, f"{method} {path}", body)
        fields = {
            "Gnomon-Step-Up": token,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.by[role].request(method, path, content=body, headers=fields)

    async def report(self, thing: str, state: dict[str, Any], name: str = "", **members: Any) -> Accepted:
        """Do what a device does over MQTT."""
        payload = msgspec.json.encode({"state": {"reported": state}, **members})
        origin = Origin(thing, Role.DEVICE, Channel.MQTT)
        update = parse_update(payload, ShadowId(thing, name), origin, self.services.settings.limits)
        (outcome,) = await self.services.shadows.submit([update])
        assert isinstance(outcome, Accepted), outcome
        return outcome

    async def desire(self, state: Any, shadow: str = SHADOW, **headers: str) -> httpx.Response:
        """Send a merge patch."""
        return await self.http.patch(shadow, json={"desired": state}, headers=MERGE | headers)

    async def audit(self) -> list[Mapping[str, Any]]:
        await self.services.refusals.flush()
        answer = await self.by[Role.AUDITOR].get("/v1/audit")
        items: list[Mapping[str, Any]] = answer.json()["items"]
        return items


class Tokens:
    """Who holds a bearer token: as many as a test likes, and whoever has logged in."""

    def __init__(self, people: People) -> None:
        self._people = people
        self.holders: dict[str, Principal] = {}

    async def principal(self, bearer: str) -> Principal | None:
        """Return who holds it."""
        return self.holders.get(bearer) or await self._people.identities.principal(bearer)


class Confirmations:
    """What people have confirmed by a second factor: as many acts as a test likes, and what really was."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._acts: dict[str, tuple[str, Action, str, str]] = {}

    def confirm(self, who: Principal, action: Action, target: str, body: bytes = b"") -> str:
        """Return a token for exactly this act."""
        token = f"step-up-{len(self._acts)}"
        self._acts[token] = (who.name, action, target, sha256(body).hexdigest())
        return token

    async def take(
        self, principal: Principal, action: Action, target: str, body_sha256: str, token: str
    ) -> bool:
        """Tell whether it is one for this act; it counts once."""
        if token not in self._acts:
            return await self._people.step_ups.take(principal, action, target, body_sha256, token)
        if self._acts[token] != (principal.name, action, target, body_sha256):
            return False
        del self._acts[token]
        return True


@asynccontextmanager
async def api(
    directory: Path,
    *,
    url: str | None = None,
    compat_http: bool = False,
    limits: ApiLimits | None = None,
    shadow_limits: ShadowLimits | None = None,
    things: tuple[str, ...] = (HALL,),
    clock: FakeClock | None = None,
) -> AsyncIterator[Rig]:
    """Start the API over a memory or the store at ``url``, with some things registered.

    That all stores answer alike is shown by the contracts; a file costs each test as long as the API itself.
    """
    store = await open_store(
        url or "memory:",
        [*ALL, *PEOPLE, BLOCKS, LANES, *care_embedded.COLLECTIONS],
        [*LOGS, *PROGRAM_LOGS, audit.LOG, OUTBOX, care_embedded.RECORDS],
        testing=True,
    )
    hashing = Hashing()
    try:
        async with _over(
            store, hashing, directory, compat_http, limits, shadow_limits, clock or FakeClock()
        ) as rig:
            await rig.services.registry.hand_over(HOME, ACCOUNT, OPERATOR)
            for name in things:
                thing = NewThing(name, ThingKind.DEVICE, "acme-pct-2", HOME)
                await rig.services.registry.register(thing, OPERATOR)
            yield rig
    finally:
        hashing.close()
        await store.close()


@asynccontextmanager
async def _over(
    store: DocumentStore,
    hashing: Hashing,
    directory: Path,
    compat_http: bool,
    limits: ApiLimits | None,
    shadow_limits: ShadowLimits | None,
    clock: FakeClock,
) -> AsyncIterator[Rig]:
    ids, live, metrics, presence = SeededIds(), Live(), Metrics(), Presence()
    settings = Settings(
        directory=directory,
        api=ApiSettings(compat_http=compat_http),
        limits=shadow_limits or ShadowLimits(),
    )
    shadows = ShadowService(
        ShadowStore(store, settings.limits, 1_000_000), clock, ids, settings.limits, metrics, live
    )
    shadows.listen(lambda outcomes: _deliver(shadows, outcomes))
    box, refusals = SecretBox.open(directory / "secrets" / "master.key", ids), Refusals(store, clock, ids)
    registry = RegistryService(store, clock)
    models, accounts = ModelCatalogue(store, clock), AccountService(store, clock)
    devices = DeviceService(store, clock, registry)
    programs = open_programs(
        store,
        clock,
        devices=devices,
        models=models,
        accounts=accounts,
        registry=registry,
        shadows=shadows,
        presence=FakePresence(),
        limits=settings.limits,
    )
    authority, outbox = (
        Authority.open(directory / "ca", box, clock),
        Outbox(store, clock, random.Random(0), metrics),
    )
    ota = open_ota(
        store,
        clock,
        ids,
        metrics,
        settings.ota,
        live=live,
        shadows=shadows,
        registry=registry,
        devices=devices,
        gateways=GatewayService(store, clock, registry),
        models=models,
        presence=presence,
        outbox=outbox,
        limits=settings.limits,
        images_url="https://utility.example/v1/ota/images/",
        directory=directory,
        box=box,
        authority=authority,
    )
    acts = {**Writing(programs.catalogue).table(), **ota.key_acts.table()}
    people = await open_people(store, clock, ids, box, hashing, refusals, cost=CHEAP, more=acts)
    bearer = Tokens(people)
    bearer.holders = {f"token-{role}": principal_of(role) for role in Role}
    confirmations = Confirmations(people)
    reasons: list[str] = []

    async def readiness() -> tuple[str, ...]:
        return tuple(reasons)

    async def figures() -> Mapping[str, int | float | str]:
        return {"things": 1, "connected": 0}

    trust = open_center(
        store,
        authority=authority,
        issued=IssuedStore(store, clock),
        box=box,
        hashing=hashing,
        proofs=RegistryProofs(registry, DeviceService(store, clock, registry)),
        refusals=refusals,
        clock=clock,
        ids=ids,
        metrics=metrics,
    )

    async def revoke(name: str, by: Principal, via: Via, _reason: str) -> bool:
        await registry.revoke(name, by, via)
        return True

    home = Process(
        World(directory, store=store, clock=clock),
        settings.provisioning,
        live=live,
        shadows=shadows,
        registry=registry,
        outgoing=OutboxOutgoing(outbox),
    )
    care = EmbeddedCare(store, clock)
    services = ApiServices(
        shadows=shadows,
        registry=registry,
        models=models,
        accounts=accounts,
        meters=MeterService(store, clock),
        gateways=GatewayService(store, clock, registry),
        devices=devices,
        programs=programs,
        ota=ota,
        revoke=revoke,
        store=store,
        refusals=refusals,
        people=people,
        bearer=bearer,
        metrics=metrics,
        live=live,
        clock=clock,
        ids=ids,
        settings=settings,
        readiness=readiness,
        figures=figures,
        trust=trust,
        provisioning=ProvisioningCenter(
            home.service,
            Desk(
                store,
                clock,
                care=care,
                verifications=home.verifications,
                learning=Learning(home.accounts, registry),
                searches_hour_max=settings.provisioning.searches_hour_max,
            ),
            home.verifications,
            home.work_orders,
            home.moves,
            home.routes,
        ),
        outbox=outbox,
        version="0.1.0",
        heads=Heads.open(
            directory / "elsewhere" / "heads.jsonl", directory / "secrets" / "audit.key", box, clock
        ),
        limits=limits or ApiLimits(),
        step_ups=confirmations,
    )
    broken: list[StoreBrokenError] = []
    app = create_app(services, broken.append)
    async with (
        _lane(shadows, *services.ota.runs()),
        client(app, {"Authorization": f"Bearer {OWNER}"}) as http,
        client(app, {}) as stranger,
        AsyncExitStack() as callers,
    ):
        by = {
            role: await callers.enter_async_context(client(app, {"Authorization": f"Bearer token-{role}"}))
            for role in Role
        }
        yield Rig(
            services,
            app,
            http,
            by,
            stranger,
            OWNER,
            clock,
            store,
            reasons,
            broken,
            bearer,
            confirmations,
            home,
            care,
            presence,
        )


def principal_of(role: Role) -> Principal:
    """Return somebody with this role, for whom home 7 is theirs: a thing is the one in the hall."""
    if role in {Role.DEVICE, Role.GATEWAY}:
        return Principal(HALL, role)
    account = ACCOUNT if role in {Role.CUSTOMER, Role.VEN} else ""
    reach = {Role.REP: frozenset({ACCOUNT}), Role.INSTALLER: frozenset({HOME})}
    return Principal(role.value, role, account, reach.get(role, frozenset()))


def client(app: Litestar, headers: Mapping[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]  # two spellings of ASGI
    return httpx.AsyncClient(transport=transport, base_url="http://gnomon", headers=dict(headers))


def _deliver(shadows: ShadowService, outcomes: Sequence[Outcome]) -> None:
    """Stand in for a broker that takes everything at once."""
    for outcome in outcomes:
        if isinstance(outcome, Accepted) and outcome.change is not None:
            shadows.settle(outcome.command.id, outcome.change.version)


@asynccontextmanager
async def _lane(shadows: ShadowService, *more: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run what works beside. That a store which a test breaks ends some of it is no failure of the test."""
    lanes = [asyncio.create_task(one) for one in (shadows.run(), *more)]
    try:
        yield
    finally:
        for lane in lanes:
            lane.cancel()
        for ended in await asyncio.gather(*lanes, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError | StoreBrokenError | None):
                raise ended


def slug(answer: httpx.Response) -> str:
    """Return the word a problem ends in."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    type: str = answer.json()["type"]
    return type.rpartition("#")[2]
