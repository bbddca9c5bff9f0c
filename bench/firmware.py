"""What an upgrade needs beforehand: devices of a model, its maker's key, and an image that is released."""

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Final

from bench.names import NAME, home
from fleet.keys import write_keys
from fleet.makes import BLOCK, FACTORY_COUNTER, FACTORY_VERSION, MAKES
from gnomon.services import Services
from infra.clock import MS_PER_S
from infra.documents.records import Records
from ota import manifest as manifests
from ota.envelope import Typ, public_of, seal
from ota.keys import parse_key
from ota.manifest import DataMode, Manifest
from ota.releases import NewRelease
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole
from registry import devices
from registry.lifecycle import Device
from registry.models import Owner
from registry.states import Lifecycle
from security.policy import Principal, Role
from tests import ota_base

MODEL: Final = "norland-t1-wifi"
IMAGE_BYTES: Final = 512 * 1_024
KEYS_FILE: Final = "firmware-keys.json"
AUTHOR: Final = Principal("bench author", Role.OPERATOR)
SECOND: Final = Principal("bench second", Role.OPERATOR)
OFFICER: Final = Principal("bench officer", Role.SECURITY)
LIFE_S: Final = 30 * 86_400
AT_ONCE: Final = 250


async def prepare(services: Services, directory: Path, count: int) -> str:
    """Make the first things devices of the utility's, release an image for them; return the release's id.

    Whose signatures the devices are to believe is in ``KEYS_FILE`` in the directory.
    """
    records = Records(services.store, devices.DEVICES, Device, devices._found_by)
    for first in range(0, count, AT_ONCE):
        new = [device(number) for number in range(first, min(count, first + AT_ONCE))]
        await asyncio.gather(*(records.put(one.id, one, 0) for one in new))
    now_ms = services.clock.now_ms()
    keys = services.ota.keys
    vendor = MAKES[MODEL].vendor
    await keys.add(parse_key(public_of(ota_base.VENDOR_KEY), KeyRole.IMAGE, vendor, now_ms), OFFICER)
    await keys.sign(ota_base.ORDER)  # the first use makes the utility's own key: devices are to know it
    write_keys(directory / KEYS_FILE, await keys.keys())
    return await _release(services, now_ms // MS_PER_S)


async def _release(services: Services, now_s: int) -> str:
    ota, image = services.ota, random.Random(0).randbytes(IMAGE_BYTES)
    manifest = _manifest(image, now_s)
    with ota.images.receive(manifest.sha256, 0) as upload:
        upload.write(image)
        await ota.images.finish(upload, AUTHOR)
    new = NewRelease(
        image=manifest.sha256, envelope=seal(manifests.write(manifest), Typ.MANIFEST, ota_base.VENDOR_KEY)
    )
    made = await ota.releases.create(new, AUTHOR, key="bench")
    return (await ota.releases.let_out(made.id, SECOND)).id


def _manifest(image: bytes, now_s: int) -> Manifest:
    make, leaves = MAKES[MODEL], leaf_list(image, BLOCK)
    return Manifest(
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


def device(number: int) -> Device:
    """Return what the registry knows of a device."""
    return Device(
        id=NAME % number,
        model=MODEL,
        hw=1,
        owner=Owner.UTILITY,
        lifecycle=Lifecycle.REGISTERED,
        premises=home(number),
    )
