"""What it takes for devices to be upgraded: that they are known, whose signatures count, and a release.

For tests and benches that run the whole service; what is written here goes past its REST, because no test of
upgrades is about how equipment is bought.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fleet.makes import BLOCK, FACTORY_COUNTER, FACTORY_VERSION, MAKES
from gnomon.services import Services
from infra.clock import MS_PER_S
from infra.documents.records import Records
from ota import manifest as manifests
from ota.envelope import Typ, public_of, seal
from ota.keys import parse_key
from ota.manifest import DataMode, Manifest
from ota.releases import NewRelease, Release
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole, Keys
from registry import devices
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.states import Lifecycle
from security.policy import Principal, Role
from tests import ota_base

MODEL: Final = "norland-t1-wifi"
AUTHOR: Final = Principal("author", Role.OPERATOR)
SECOND: Final = Principal("second", Role.OPERATOR)
OFFICER: Final = Principal("officer", Role.SECURITY)
LIFE_S: Final = 30 * 86_400
AT_ONCE: Final = 250


async def register(services: Services, homes: Sequence[tuple[str, str]]) -> None:
    """Make things, each at its home, devices of the utility's own: these take part, whoever's the home is."""
    records = Records(services.store, devices.DEVICES, Device, devices._found_by)

    async def one(thing: str, home: str) -> None:
        new = NewThing(thing, ThingKind.DEVICE, MODEL, home, owner=Owner.UTILITY)
        await services.registry.register(new, AUTHOR)
        device = Device(
            id=thing,
            model=MODEL,
            hw=1,
            owner=Owner.UTILITY,
            lifecycle=Lifecycle.REGISTERED,
            premises=home,
        )
        await records.put(thing, device, 0)

    for first in range(0, len(homes), AT_ONCE):
        await asyncio.gather(*(one(thing, home) for thing, home in homes[first : first + AT_ONCE]))


async def trust(services: Services) -> Keys:
    """Let the vendor's key count; return whose signatures devices are to believe."""
    keys, now_ms = services.ota.keys, services.clock.now_ms()
    public, vendor = public_of(ota_base.VENDOR_KEY), MAKES[MODEL].vendor
    await keys.add(parse_key(public, KeyRole.IMAGE, vendor, now_ms), OFFICER)
    await keys.sign(ota_base.ORDER)  # the first use makes the utility's own key: devices are to know it
    return await keys.keys()


async def release(services: Services, image: bytes) -> Release:
    """Let an image out, newer than what devices are sold with."""
    ota, manifest = services.ota, manifest_of(image, services.clock.now_ms() // MS_PER_S)
    with ota.images.receive(manifest.sha256, 0) as upload:
        upload.write(image)
        await ota.images.finish(upload, AUTHOR)
    envelope = seal(manifests.write(manifest), Typ.MANIFEST, ota_base.VENDOR_KEY)
    new = NewRelease(image=manifest.sha256, envelope=envelope)
    made = await ota.releases.create(new, AUTHOR, key=manifest.sha256)
    return await ota.releases.let_out(made.id, SECOND)


def manifest_of(image: bytes, now_s: int) -> Manifest:
    """Return what the vendor says of an image."""
    make = MAKES[MODEL]
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
        root=list_tree(leaf_list(image, BLOCK)).root,
        issued=now_s,
        expires=now_s + LIFE_S,
        data=DataMode.CHOSEN,
        config_schema=min(make.schemas),
    )
