"""Firmware from an operator's command to the flash of devices: a real service, broker and signatures.

Whose a device is (the utility's, a customer's) by how the image comes (over the network, on site). Nothing is
stood in for: operators type commands, devices fetch the key list and check everything themselves, and what is
compared in the end is what stands in their flash. (scenario 3.1)
"""

import asyncio
import hashlib
import random
import threading
import time
from pathlib import Path
from typing import Any, Final, Self

import pytest
from click.testing import CliRunner

from fleet.boot import FileStatus, Store
from fleet.connection import Certificates, Endpoint
from fleet.firmware import Setting
from fleet.flash_file import Kept
from fleet.hardware import new_hardware
from fleet.keyring import read_roots
from fleet.makes import BLOCK, FACTORY_COUNTER, FACTORY_VERSION, MAKES
from fleet.plan import DevicePlan, Home, Plan
from fleet.simulation import Simulation
from fleet.trees import Tree
from gnomon.cli import main
from gnomon.commands.login import opened
from gnomon.demo_people import ACCOUNT
from gnomon.services import Services, open_services
from infra.clock import SystemClock
from infra.documents.records import Records
from infra.ids import RandomIds
from infra.settings import load as load_settings
from ota.envelope import public_of
from ota.keys import parse_key
from ota.manifest import DataMode, Manifest
from ota.releases import NewRelease
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole
from registry import devices
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.states import Lifecycle
from security.policy import Action, Principal, Role
from tests import ota_base, release_rig
from tests.covers import covers
from tests.on_site import Bench, field_tool
from tests.system.child import Gnomon
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

MODEL: Final = "norland-t1-wifi"
MAKE: Final = MAKES[MODEL]
PREMISES: Final = "pr-upgrades"
OURS, THEIRS, SPARE = "th-ours", "th-theirs", "th-spare"
OWNERS: Final = {OURS: Owner.UTILITY, THEIRS: Owner.CUSTOMER, SPARE: Owner.CUSTOMER}
TARGETS: Final = (OURS, THEIRS)
HOME: Final = Home(
    PREMISES,
    (),
    tuple(DevicePlan(name, "thermostat", MODEL, has_certificate=True, gateways=()) for name in OWNERS),
)
AUTHOR, SECOND = Principal("author", Role.OPERATOR), Principal("second", Role.OPERATOR)
OFFICER: Final = Principal("officer", Role.SECURITY)
WISHED: Final = {"lang": "de"}
"""What an operator wants of the customer's device; the rest of its configuration nobody has asked for."""
OWN: Final = {"set": {"day": 22.5, "night": 16}, "lang": "en"}
UPGRADE_S_MAX: Final = 60.0
LIFE_S: Final = 30 * 86_400
HALF_AN_HOUR_S: Final = 1_800.0


class Release:
    """An image and what its vendor says of it."""

    def __init__(self, number: int, schema: int) -> None:
        self.image = random.Random(number).randbytes(60_000)
        self.schema = schema
        leaves, now_s = leaf_list(self.image, BLOCK), int(time.time())
        self.manifest = Manifest(
            vendor=MAKE.vendor,
            model=MODEL,
            hw=(MAKE.hw,),
            label=f"1.{number}.0",
            version=FACTORY_VERSION + number,
            counter=FACTORY_COUNTER + number,
            size=len(self.image),
            sha256=hashlib.sha256(self.image).hexdigest(),
            block=BLOCK,
            root=list_tree(leaves).root,
            issued=now_s - 60,
            expires=now_s + LIFE_S,
            data=DataMode.CHOSEN,
            config_schema=schema,
            min_from=0,
            requires={},
        )
        self.id = ""


KEEPS, RESETS = Release(1, min(MAKE.schemas)), Release(2, max(MAKE.schemas))


# ---------------------------------------------------------------------------- what there is before


async def _prepare(directory: Path) -> None:
    """Let there be devices, a vendor's key and two releases that are let out."""
    settings = load_settings(environ={}, overrides={"directory": str(directory), "people.demo": "true"})
    async with open_services(settings, SystemClock(), RandomIds()) as services:
        await services.models.seed()
        await services.registry.hand_over(PREMISES, ACCOUNT, AUTHOR)
        for name, owner in OWNERS.items():
            await _know(services, name, owner)
        key = parse_key(public_of(ota_base.VENDOR_KEY), KeyRole.IMAGE, MAKE.vendor, services.clock.now_ms())
        await services.ota.keys.add(key, OFFICER)
        for release in (KEEPS, RESETS):
            with services.ota.images.receive(release.manifest.sha256, 0) as upload:
                upload.write(release.image)
                await services.ota.images.finish(upload, AUTHOR)
            new = NewRelease(image=release.manifest.sha256, envelope=release_rig.sealed(release.manifest))
            made = await services.ota.releases.create(new, AUTHOR, key=release.manifest.label)
            release.id = (await services.ota.releases.let_out(made.id, SECOND)).id


async def _know(services: Services, name: str, owner: Owner) -> None:
    device = Device(
        id=name,
        model=MODEL,
        hw=1,
        owner=owner,
        lifecycle=Lifecycle.REGISTERED,
        account="" if owner is Owner.UTILITY else ACCOUNT,
        premises=PREMISES,
        successor=SPARE if name == THEIRS else "",
    )
    await Records(services.store, devices.DEVICES, Device, devices._found_by).put(name, device, 0)
    await services.registry.register(NewThing(name, ThingKind.DEVICE, MODEL, PREMISES, owner=owner), AUTHOR)
    await services.registry.set_taking_part(name, True, AUTHOR)


def factory_fresh() -> dict[str, Kept]:
    """Return flashes of devices whose owners have set them to their liking."""
    kept = {}
    for name in OWNERS:
        flash = new_hardware(MAKE, Setting(), random.Random(name)).flash
        if name != SPARE:
            Store(flash).write_config("a", OWN)
        kept[name] = Kept(MODEL, flash)
    return kept


# ---------------------------------------------------------------------------- the devices


class City:
    """The devices on the network, in a thread of their own."""

    def __init__(self, gnomon: Gnomon, flashes: dict[str, Kept]) -> None:
        self._loop = asyncio.new_event_loop()
        self._simulation = Simulation(
            Plan((HOME,)),
            endpoint=Endpoint("127.0.0.1", gnomon.device_port),
            identities=Certificates(gnomon.directory / "things").identity,
            clock=SystemClock(),
            seed=1,
            roots=read_roots(gnomon.root_certificate),
            flashes=flashes,
        )
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._simulation.run(),))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._simulation.stop)
        self._thread.join(UPGRADE_S_MAX)
        assert not self._thread.is_alive()
        self._loop.close()

    def all_run(self, release: Release) -> bool:
        """Tell whether all that are meant have confirmed an image to themselves."""
        computers = [self._simulation.devices[name].computer for name in TARGETS]
        return all(
            not one.is_dark
            and one.firmware.state is FileStatus.ACTIVATED
            and one.firmware.image.sha256 == release.manifest.sha256
            and one.firmware.settled
            for one in computers
        )

    def configuration(self, name: str) -> Tree:
        """Return the configuration by which a device works."""
        return self._simulation.devices[name].configuration.settings


# ---------------------------------------------------------------------------- operators


def typed(gnomon: Gnomon, role: Role, number: int, *words: str) -> str:
    """Type a command as somebody; return what it says."""
    file = gnomon.accounts.file(role, number)
    result = CliRunner().invoke(main, [*words, "--as", str(file)])
    assert result.exit_code == 0, result.output
    return result.stdout


def asked(
    gnomon: Gnomon, role: Role, number: int, method: str, path: str, body: Any = None, **more: Any
) -> Any:
    """Return what the service answers to somebody, in the session of their commands."""
    with opened(gnomon.accounts.file(role, number)) as access:
        return access.request(method, path, body, **more)


def started(gnomon: Gnomon, release: Release, author: int, second: int, *options: str) -> str:
    """Return a campaign that one operator has written and another has let begin.

    By turns, as a code of a second factor counts once, and the next one has to be waited for.
    """
    things = [word for name in TARGETS for word in ("--thing", name)]
    at_once = ("--wave", "100%", "--soak", "0", "--submit")
    made = typed(gnomon, Role.OPERATOR, author, "campaign", "create", release.id, *things, *at_once, *options)
    id = made.split()[0]
    assert "2 devices" in made
    typed(gnomon, Role.OPERATOR, second, "campaign", "approve", id)
    return id


def targets(gnomon: Gnomon, campaign: str) -> dict[str, dict[str, Any]]:
    page = asked(gnomon, Role.OPERATOR, 1, "GET", f"/v1/ota/campaigns/{campaign}/executions")
    return {one["thing"]: one for one in page["items"]}


def open_the_door(gnomon: Gnomon) -> None:
    """Give the crew an order that opens the premises to it."""
    crew = asked(gnomon, Role.INSTALLER, 1, "GET", "/v1/me")["id"]
    order = {"premises": PREMISES, "assignee": crew}
    asked(gnomon, Role.OPERATOR, 1, "POST", "/v1/work-orders", order)


@covers("S3.1", "S3.1-s", "I3FR3.1", "I3FR6.1", "I3NFR4", "A11", "A14b", "I3FR3.1-n")
def test_equipment_of_the_utility_and_of_customers_is_upgraded_over_the_network_and_on_site(tmp_path):
    gnomon, flashes = Gnomon(tmp_path, {"api.compat_http": "true"}), factory_fresh()
    asyncio.run(_prepare(gnomon.var))
    for name in OWNERS:
        gnomon.certificate(name)
    with gnomon:
        before = remotely(gnomon, flashes)
        on_site(gnomon, flashes, tmp_path)
        replaced(gnomon, flashes, before)


def remotely(gnomon: Gnomon, flashes: dict[str, Kept]) -> dict[str, Tree]:
    """Over the network, with what stands on the device kept: byte for byte what it was."""
    with City(gnomon, flashes) as city:
        gnomon.desire(THEIRS, WISHED, "config")
        until(lambda: city.configuration(THEIRS)["lang"] == "de", "the wish is obeyed", UPGRADE_S_MAX)
        before = {name: dict(city.configuration(name)) for name in TARGETS}
        assert before[OURS] == OWN
        campaign = started(gnomon, KEEPS, 1, 2)
        watched = typed(gnomon, Role.OPERATOR, 1, "campaign", "watch", campaign)
        assert watched.splitlines()[-1].startswith("COMPLETED"), watched
        for name, one in targets(gnomon, campaign).items():
            assert (one["state"], one.get("how", "")) == ("SUCCEEDED", ""), one
            assert 0 < one["seconds"] < UPGRADE_S_MAX
            assert city.configuration(name) == before[name]
        until(lambda: city.all_run(KEEPS), "all have confirmed it", UPGRADE_S_MAX)
    for name in TARGETS:
        store = Store(flashes[name].flash)
        assert store.config(store.record.running) == before[name]
        assert store.record.image.sha256 == KEEPS.manifest.sha256
    return before


def on_site(gnomon: Gnomon, flashes: dict[str, Kept], directory: Path) -> None:
    """With no network at all, and everything reset: factory defaults, and what is desired over them."""
    campaign = started(gnomon, RESETS, 2, 1, "--path", "local", "--data", "reset")
    bundle, journal = directory / "campaign.bundle", directory / "monday.jsonl"
    typed(gnomon, Role.OPERATOR, 1, "field", "fetch", campaign, "--out", str(bundle))
    roots = read_roots(gnomon.root_certificate)
    # As one that has never had a network: whom to believe it learns of the bundle.
    flashes[OURS].flash.keys.pages = factory_fresh()[OURS].flash.keys.pages
    with field_tool(bundle, journal) as tool:
        devices_there = [Bench(name, flashes[name], roots, tool) for name in TARGETS]
        for device in devices_there:
            device.install()
            assert device.waits(HALF_AN_HOUR_S)
        assert {one["state"] for one in targets(gnomon, campaign).values()} == {"PLANNED"}
        with City(gnomon, flashes) as city:
            until(lambda: city.all_run(RESETS), "all have confirmed it", UPGRADE_S_MAX)
            watched = typed(gnomon, Role.OPERATOR, 1, "campaign", "watch", campaign)
            assert watched.splitlines()[-1].startswith("COMPLETED"), watched
            factory = MAKE.factory_defaults(RESETS.schema)
            until(lambda: city.configuration(THEIRS) == factory | WISHED, "what is desired", UPGRADE_S_MAX)
            assert city.configuration(OURS) == factory
        for device in devices_there:
            device.tells()
    open_the_door(gnomon)
    told = typed(gnomon, Role.INSTALLER, 1, "field", "report", str(journal))
    assert told.splitlines() == [f"{name}  SUCCEEDED  told" for name in sorted(TARGETS)]
    for name, one in targets(gnomon, campaign).items():
        assert (one["state"], one["how"]) == ("SUCCEEDED", "on_site"), one
        history = gnomon.http.get(f"/v1/things/{name}/firmware").json()
        assert [job["state"] for job in history["executions"]] == ["SUCCEEDED"] * 2
        assert [note["sha256"] for note in history["installed"]] == [RESETS.manifest.sha256]
        assert history["reported"]["version"] == "1.0.0.2"


def replaced(gnomon: Gnomon, flashes: dict[str, Kept], before: dict[str, Tree]) -> None:
    """What was kept of a device before it was upgraded is given to the one that takes its place."""
    kept = gnomon.http.get(f"/v1/things/{THEIRS}/snapshots").json()["items"]
    first = min((one for one in kept if one["why"] == "gate"), key=lambda one: one["at"])
    with City(gnomon, flashes) as city:
        assert city.configuration(SPARE) != before[THEIRS]
        path = f"/v1/things/{THEIRS}/snapshots/{first['id']}/restore"
        wish = {"to": SPARE, "parts": ["config"]}
        done = asked(gnomon, Role.OPERATOR, 2, "POST", path, wish, confirms=Action.SHADOW_DESIRE)
        assert done["dropped"] == []
        until(lambda: city.configuration(SPARE) == before[THEIRS], "what it was", UPGRADE_S_MAX)
