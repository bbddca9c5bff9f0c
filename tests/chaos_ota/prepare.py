"""What a run needs before the service starts: devices, their certificates, a vendor's key, a release."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from fleet.makes import MAKES
from gnomon.demo_people import ACCOUNT
from gnomon.services import Services, open_services
from infra.clock import SystemClock
from infra.ids import RandomIds
from infra.settings import load
from registry.rules import THINGS_PER_PREMISES_MAX
from tests import upgradable
from tests.certificates import certificate_files
from tests.chaos_ota.cast import Cast
from tests.chaos_ota.written import THINGS, Run
from tests.upgradable import MODEL


def prepare(directory: Path, var: Path, cast: Cast, image_bytes: int) -> Run:
    """Fill the directory of a service that does not run yet, and write down who plays what."""
    cast.write(directory)
    return asyncio.run(_prepare(directory, var, cast, image_bytes))


async def _prepare(directory: Path, var: Path, cast: Cast, image_bytes: int) -> Run:
    settings = load(environ={}, overrides={"directory": str(var), "people.demo": "true"})
    async with open_services(settings, SystemClock(), RandomIds()) as services:
        await services.models.seed()
        await _register(services, [part.thing for part in cast.parts])
        await upgradable.trust(services)
        release = await upgradable.release(services, random.Random(cast.seed).randbytes(image_bytes))
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
        image_sha256=release.image,
        manifest_sha256=release.manifest_sha256,
        counter=release.manifest.counter,
        factory_config=make.factory_defaults(factory.schema),
        release=release.id,
    )


async def _register(services: Services, things: Sequence[str]) -> None:
    homes = [f"chaos-home-{place // THINGS_PER_PREMISES_MAX}" for place in range(len(things))]
    for home in dict.fromkeys(homes):
        await services.registry.hand_over(home, ACCOUNT, upgradable.AUTHOR)
    await upgradable.register(services, list(zip(things, homes, strict=True)))
