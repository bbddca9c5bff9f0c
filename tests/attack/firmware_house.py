"""What a utility and a vendor have set up before firmware is attacked: keys, a model, releases, campaigns.

Two officers and two operators did that, one code of a second factor each half minute. Here it is done in the
store while the service is stopped, by the service's own parts, so that an attack begins with what it needs.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import Final, TypeVar

import httpx

from broker_bridge.deadletters import DEAD_LETTERS
from gnomon.services import Services, open_services
from infra.clock import SystemClock
from infra.documents.records import Records
from infra.ids import RandomIds
from infra.settings.loading import load
from ota import manifest as manifests
from ota.campaign import Campaign, Selector, Wave
from ota.envelope import Typ, public_of, seal
from ota.keys import UTILITY, parse_key
from ota.manifest import Manifest
from ota.models import job_id
from ota.releases import NewRelease
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole
from registry import devices
from registry.catalogue import DeviceModel
from registry.lifecycle import Device
from registry.states import Lifecycle
from security.policy import Principal, Role
from shadow.commands import Channel, Origin
from shadow.document import ShadowId
from tests import ota_base, release_rig
from tests.attack.field import Field
from tests.shadow_rig import accepted, update
from tests.system.child import Gnomon

AUTHOR: Final = Principal("ann", Role.OPERATOR)
SECOND: Final = Principal("otto", Role.OPERATOR)
OFFICER: Final = Principal("olga", Role.SECURITY)
SYSTEM: Final = Principal("attacks", Role.SYSTEM)
MODEL: Final = replace(
    release_rig.MODEL,
    firmware=replace(release_rig.FIRMWARE, classes={"2": ota_base.MANIFEST.hw[0]}, slot_bytes=2**20),
)
BLOCK: Final = 4_096
IMAGE: Final = Random(20).randbytes(400_000)
SHA256: Final = hashlib.sha256(IMAGE).hexdigest()
LIFE_S: Final = 300 * 86_400
OLD: Final = {"sha256": "0123" * 16, "version": "1.0.0.0", "counter": 1, "confirmed": True}
TRACES: Final = "telemetry."
"""Settings of what is written down: what is done here is no part of it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class House:
    """What was released: by its id, under which stream its files are, and what its vendor said of it."""

    release: str
    stream: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Rollout:
    """A campaign that is carried out."""

    id: str
    job: str


def manifest_of(image: bytes, model: DeviceModel = MODEL, **changes: object) -> Manifest:
    """Return what the vendor says of an image, today."""
    now_s, leaves = int(time.time()), leaf_list(image, BLOCK)
    manifest = replace(
        ota_base.MANIFEST,
        model=model.id,
        version=0x0002_0000_0000_0000,
        label="2.0.0",
        counter=3,
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        block=BLOCK,
        root=list_tree(leaves).root,
        issued=now_s - 60,
        expires=now_s + LIFE_S,
    )
    return replace(manifest, **changes)  # type: ignore[arg-type]


def sealed(manifest: Manifest) -> bytes:
    """Return what the vendor says, signed."""
    return seal(manifests.write(manifest), Typ.MANIFEST, ota_base.VENDOR_KEY)


def house(field: Field) -> House:
    """Return what was released; it is made when it is first needed."""
    if field.house is None:
        field.house = done(field.gnomon, _release)
    return field.house


def rollout(field: Field, things: Sequence[str]) -> Rollout:
    """Start a campaign for these things, which take part in it as soon as they are connected."""
    release = house(field).release
    return done(field.gnomon, lambda services: _rollout(services, release, things))


def submitted(field: Field, things: Sequence[str]) -> Campaign:
    """Return a campaign for these things that waits for its approval."""
    release = house(field).release
    return done(field.gnomon, lambda services: _submitted(services, release, things))


def operator(field: Field) -> httpx.Client:
    """Return a client that speaks as an operator."""
    return httpx.Client(
        base_url=field.gnomon.api_url, auth=field.gnomon.accounts.auth(Role.OPERATOR), timeout=30
    )


def done(gnomon: Gnomon, act: Callable[[Services], Awaitable[T]]) -> T:
    """Do something by the service's own parts while it is stopped."""
    gnomon.stop()
    try:
        return asyncio.run(_done(gnomon, act))
    finally:
        gnomon.start()


async def _done(gnomon: Gnomon, act: Callable[[Services], Awaitable[T]]) -> T:
    overrides = {key: str(value) for key, value in gnomon.settings.items() if not key.startswith(TRACES)}
    settings = load(overrides=overrides, environ={})
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(
            open_services(settings, SystemClock(), RandomIds(), logs=[DEAD_LETTERS])
        )
        running = [asyncio.create_task(services.shadows.run()), asyncio.create_task(services.ota.lane.run())]
        stack.push_async_callback(_stopped, running)
        return await act(services)


async def _stopped(tasks: Iterable["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _release(services: Services) -> House:
    ota, now_ms = services.ota, services.clock.now_ms()
    await services.models.put(MODEL, SECOND)
    for key, role, owner in (
        (ota_base.VENDOR_KEY, KeyRole.IMAGE, "acme"),
        (ota_base.UTILITY_KEY, KeyRole.CAMPAIGN, UTILITY),
    ):
        await ota.keys.add(parse_key(public_of(key), role, owner, now_ms), OFFICER)
    manifest = manifest_of(IMAGE)
    with ota.images.receive(manifest.sha256, 0) as upload:
        upload.write(IMAGE)
        await ota.images.finish(upload, AUTHOR)
    made = await ota.releases.create(
        NewRelease(image=manifest.sha256, envelope=sealed(manifest)), AUTHOR, key="attacks"
    )
    await ota.releases.let_out(made.id, SECOND)
    return House(made.id, made.stream, manifest)


async def _submitted(services: Services, release: str, things: Sequence[str]) -> Campaign:
    for thing in things:
        await _known(services, thing)
    campaigns = services.ota.campaigns
    terms = campaigns.terms(
        release=release,
        selector=Selector(things=tuple(things)),
        waves=(Wave(percent=100),),
        deadline_s=3_600,
    )
    made = await campaigns.submit((await campaigns.create(terms, AUTHOR)).id, AUTHOR)
    assert made.frozen is not None
    assert made.frozen.ordered == len(things), made.frozen.excluded
    return made


async def _rollout(services: Services, release: str, things: Sequence[str]) -> Rollout:
    made = await _submitted(services, release, things)
    await services.ota.campaigns.approve(made.id, SECOND)
    return Rollout(made.id, job_id(made.id))


async def _known(services: Services, thing: str) -> None:
    """Let a thing be a device that takes part, and runs what is old."""
    registered = await services.registry.thing(thing)
    records = Records(services.store, devices.DEVICES, Device, devices._found_by)
    device = Device(
        id=thing,
        model=MODEL.id,
        hw=2,
        owner=registered.owner,
        lifecycle=Lifecycle.REGISTERED,
        premises=registered.premises,
    )
    await records.put(thing, device, 0)
    await services.registry.set_taking_part(thing, True, SYSTEM)
    state = {"fw": OLD, "healthy": True, "boot": 1, "schema": 5, "hw": MODEL.firmware.classes["2"]}  # type: ignore[union-attr]
    reported = update(
        {"reported": state}, ShadowId(thing, "firmware"), Origin(thing, Role.DEVICE, Channel.MQTT)
    )
    (outcome,) = await services.shadows.submit([reported])
    accepted(outcome)
