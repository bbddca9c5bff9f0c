"""What a release is made of in tests: the base pair of the specification, as a model of the catalogue."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.blobs import Blobs
from infra.documents.memory import MemoryStore
from infra.documents.port import DocumentStore
from ota import manifest as manifests
from ota.collections import COLLECTIONS as OTA
from ota.envelope import Typ, public_of, seal
from ota.images import ImageService
from ota.keys import UTILITY, KeyActs, SigningKeys, parse_key
from ota.manifest import IMAGE_BYTES_MAX, Manifest
from ota.releases import NewRelease, ReleaseService
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole
from registry.catalogue import (
    Apply,
    DeviceModel,
    HealthSign,
    ModelCatalogue,
    ModelFirmware,
    Ota,
    Signatures,
)
from registry.collections import COLLECTIONS
from security import audit
from security.policy import Principal, Role
from security.secretbox import SecretBox
from security.trust.authority import Authority
from tests import ota_base as base
from tests.fakes import FakeClock, SeededIds

AUTHOR = Principal("ann", Role.OPERATOR)
OTHER = Principal("otto", Role.OPERATOR)
OFFICER = Principal("olga", Role.SECURITY)
VENDOR = Principal("acme-ci", Role.VENDOR, "acme")
STRANGER = Principal("norland-ci", Role.VENDOR, "norland")
MANIFEST = replace(base.MANIFEST, model="acme-t1")
FIRMWARE = ModelFirmware(
    vendor="acme",
    classes={"2": MANIFEST.hw[0]},
    slot_bytes=16_384,
    apply=Apply.AB,
    gate=True,
    trust=Signatures.TWO,
    health=HealthSign.REPORT,
    schemas={"5": {"lang": "en"}},
    link_bytes_s=8_192,
)
MODEL = DeviceModel(
    id="acme-t1",
    maker="Acme",
    model="T1",
    name="Acme T1",
    ota=Ota.BOTH,
    firmware=FIRMWARE,
)


def sealed(manifest: Manifest = MANIFEST, key: Any = base.VENDOR_KEY) -> bytes:
    return seal(manifests.write(manifest), Typ.MANIFEST, key)


def new(manifest: Manifest = MANIFEST, **more: Any) -> NewRelease:
    return NewRelease(**{"image": manifest.sha256, "envelope": sealed(manifest), **more})


def of_image(data: bytes, **changes: Any) -> Manifest:
    """Return a manifest about other bytes."""
    leaves = leaf_list(data, base.BLOCK)
    about = {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "root": list_tree(leaves).root,
    }
    return replace(MANIFEST, **{**about, **changes})


@dataclass
class Rig:
    store: DocumentStore
    clock: FakeClock
    blobs: Blobs
    images: ImageService
    keys: SigningKeys
    acts: KeyActs
    models: ModelCatalogue
    releases: ReleaseService
    authority: Authority

    async def send(self, data: bytes = base.IMAGE, by: Principal = AUTHOR) -> str:
        name = hashlib.sha256(data).hexdigest()
        with self.images.receive(name, 0) as upload:
            upload.write(data)
            await self.images.finish(upload, by)
        return name

    async def acts_of_audit(self) -> list[tuple[str, str, str]]:
        page = await audit.read(self.store, 0, 2**53, 1_000)
        return [(row.actor, row.action, row.target) for row in page.entries]


async def rig(directory: Path, store: DocumentStore | None = None, *, send: bool = True) -> Rig:
    """Return the services with the model known, both keys registered and the image stored."""
    clock = FakeClock(base.NOW_S * 1_000)
    found = store or MemoryStore([*COLLECTIONS, *OTA], [audit.LOG])
    box = SecretBox.open(directory / "secrets" / "master.key", SeededIds())
    authority = Authority.open(directory / "ca", box, clock)
    blobs = Blobs(directory / "images", IMAGE_BYTES_MAX)
    images = ImageService(found, clock, blobs)
    keys = SigningKeys(found, clock, box=box, authority=authority, directory=directory / "secrets")
    models = ModelCatalogue(found, clock)
    releases = ReleaseService(found, clock, images=images, keys=keys, models=models)
    made = Rig(found, clock, blobs, images, keys, KeyActs(keys, clock), models, releases, authority)
    now_ms = clock.now_ms()
    await keys.add(parse_key(public_of(base.VENDOR_KEY), KeyRole.IMAGE, "acme", now_ms), OFFICER)
    await keys.add(parse_key(public_of(base.UTILITY_KEY), KeyRole.CAMPAIGN, UTILITY, now_ms), OFFICER)
    await models.put(MODEL, OTHER)
    if send:
        await made.send()
    return made
