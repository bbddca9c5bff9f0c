"""What a run needs before the service starts: devices, their certificates, a vendor's key, a release."""

import asyncio
import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Final

from fleet.makes import BLOCK, FACTORY_COUNTER, FACTORY_VERSION, MAKES
from gnomon.demo_people import ACCOUNT
from gnomon.services import Services, open_services
from infra.clock import MS_PER_S, SystemClock
from infra.documents.records import Records
from infra.ids import RandomIds
from infra.settings import load
from ota import manifest as manifests
from ota.envelope import Typ, public_of, seal
from ota.keys import parse_key
from ota.manifest import DataMode, Manifest
from ota.releases import NewRelease
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole
from registry import devices
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX
from registry.states import Lifecycle
from security.policy import Principal, Role
from tests import ota_base
from tests.certificates import certificate_files
from tests.chaos_ota.cast import Cast
from tests.chaos_ota.written import MODEL, THINGS, Run

AUTHOR: Final = Principal("author", Role.OPERATOR)
SECOND: Final = Principal("second", Role.OPERATOR)
OFFICER: Final = Principal("officer", Role.SECURITY)
LIFE_S: Final = 30 * 86_400


def prepare(directory: Path, var: Path, cast: Cast, image_bytes: int) -> Run:
    """Fill the directory of a service that does not run yet, and write down who plays what."""
    cast.write(directory)
    return asyncio.run(_prepare(directory, var, cast, image_bytes))


async def _prepare(directory: Path, var: Path, cast: Cast, image_bytes: int) -> Run:
    settings = load(environ={}, overrides={"directory": str(var), "people.demo": "true"})
    async with open_services(settings, SystemClock(), RandomIds()) as services:
        await services.models.seed()
        await _register(services, cast)
        manifest, envelope, release = await _release(services, cast.seed, image_bytes)
        # The first use makes the utility's own key: devices are to know it.
        await services.ota.keys.sign(ota_base.ORDER)
        folder = directory / THINGS
        folder.mkdir()
        (folder / "ca.crt").write_bytes(services.authority.root_pem)
        for part in cast.parts:
            certificate_files(services.authority, folder, part.thing)
    make = MAKES[MODEL]
    factory = make.factory_image()[0]
    return Run(
        devices=len(cast.parts),
        seed=cast.seed,
        factory_sha256=factory.sha256,
        image_sha256=manifest.sha256,
        manifest_sha256=hashlib.sha256(envelope).hexdigest(),
        counter=manifest.counter,
        factory_config=make.factory_defaults(factory.schema),
        release=release,
    )


async def _register(services: Services, cast: Cast) -> None:
    """Make them the utility's own devices: these take part, whoever's the home is."""
    records = Records(services.store, devices.DEVICES, Device, devices._found_by)
    for place, part in enumerate(cast.parts):
        home = f"chaos-home-{place // THINGS_PER_PREMISES_MAX}"
        if place % THINGS_PER_PREMISES_MAX == 0:
            await services.registry.hand_over(home, ACCOUNT, AUTHOR)
        new = NewThing(part.thing, ThingKind.DEVICE, MODEL, home, owner=Owner.UTILITY)
        await services.registry.register(new, AUTHOR)
        device = Device(
            id=part.thing,
            model=MODEL,
            hw=1,
            owner=Owner.UTILITY,
            lifecycle=Lifecycle.REGISTERED,
            premises=home,
        )
        await records.put(device.id, device, 0)


async def _release(services: Services, seed: int, image_bytes: int) -> tuple[Manifest, bytes, str]:
    ota, image = services.ota, random.Random(seed).randbytes(image_bytes)
    manifest = manifest_of(image, services.clock.now_ms() // MS_PER_S)
    envelope = seal(manifests.write(manifest), Typ.MANIFEST, ota_base.VENDOR_KEY)
    key = parse_key(public_of(ota_base.VENDOR_KEY), KeyRole.IMAGE, manifest.vendor, services.clock.now_ms())
    await ota.keys.add(key, OFFICER)
    with ota.images.receive(manifest.sha256, 0) as upload:
        upload.write(image)
        await ota.images.finish(upload, AUTHOR)
    made = await ota.releases.create(
        NewRelease(image=manifest.sha256, envelope=envelope), AUTHOR, key="chaos"
    )
    return manifest, envelope, (await ota.releases.let_out(made.id, SECOND)).id


def manifest_of(image: bytes, now_s: int) -> Manifest:
    """Return what the vendor says of an image."""
    make, leaves = MAKES[MODEL], leaf_list(image, BLOCK)
    return replace(
        ota_base.MANIFEST,
        vendor=make.vendor,
        model=make.model,
        hw=(make.hw,),
        label="1.1.0",
        version=FACTORY_VERSION + 1,
        counter=FACTORY_COUNTER + 1,
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        block=BLOCK,
        root=list_tree(leaves).root,
        issued=now_s,
        expires=now_s + LIFE_S,
        data=DataMode.CHOSEN,
        config_schema=min(make.schemas),
    )
