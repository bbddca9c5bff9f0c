"""A release in the API's tests: its vendor is known, its model described, its image there."""

from ota.envelope import public_of
from ota.keys import parse_key
from ota.verification import KeyRole
from tests import ota_base as base
from tests.api.rig import OPERATOR, Rig
from tests.release_rig import MODEL, OFFICER, OTHER, new


async def provide(rig: Rig) -> None:
    """Trust the vendor's key, and describe the model."""
    key = parse_key(public_of(base.VENDOR_KEY), KeyRole.IMAGE, "acme", base.NOW_S * 1_000)
    await rig.services.ota.keys.add(key, OFFICER)
    await rig.services.models.put(MODEL, OTHER)


async def release(rig: Rig) -> str:
    """Bring the base image and let it out; return the release."""
    await provide(rig)
    images, releases = rig.services.ota.images, rig.services.ota.releases
    with images.receive(base.MANIFEST.sha256, 0) as upload:
        upload.write(base.IMAGE)
        await images.finish(upload, OPERATOR)
    made = await releases.create(new(), OPERATOR, key="k")
    return (await releases.let_out(made.id, OTHER)).id
