"""The demo utility's city in the registry: who lives where, what stands there, and each thing's certificate.

Everything is put there once and found again by a later run. Whose home is whose the embedded customer care
system knows; equipment that nobody has called about yet is in no register, only its labels lie in a file.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from zlib import crc32

from fleet.plan import DevicePlan, GatewayPlan, Home, Plan
from fleet.provisioning import SCENES, Scene
from gnomon.services import Services
from programs.consents import OTA_TEXT_VERSION
from programs.models import OTA
from programs.records import ConsentChannel, NewConsent
from provisioning.care_demo import customers
from registry.accounts import Account, AccountStatus
from registry.devices import Device
from registry.errors import GatewayNotFoundError, MeterNotFoundError, PremisesNotFoundError
from registry.gateways import Gateway, GatewayKind
from registry.meters import Meter
from registry.models import NewThing, Owner, Premises, ThingKind
from registry.states import DeviceTrigger, Lifecycle
from security import private_files
from security.audit import INSIDE
from security.policy import Principal, Role
from security.trust import keys

DEMO: Final = Principal("demo", Role.OPERATOR)
ENROLLED_AT_ONCE: Final = 32
"""Their records share commits, which is what takes the time."""
HARDWARE: Final = 1
"""Version of the hardware of all equipment of the city."""
CONSENTING: Final = 4
"""Of so many customers' devices all but one may get new firmware."""
_HALF_KNOWN: Final = frozenset({Lifecycle.DISCOVERED, Lifecycle.AUTHENTICATED})
DEVICES_MAX, LOAD_CONTROL_MAX = 10, 8
"""What a gateway of the demo can serve."""


async def settle_in(services: Services, plan: Plan, directory: Path) -> None:
    """Register whatever is not registered yet, and give each thing with a certificate its files."""
    trusted = _trust(services, directory)
    await _accounts(services, plan)
    things = list(_things(plan))
    known = await services.registry.standings([thing.name for thing in things])
    for thing in things:
        if thing.name not in known:
            await services.registry.register(thing, DEMO)
    bare = [
        thing.name
        for thing in things
        if thing.has_certificate and not (trusted and (directory / f"{thing.name}.key").exists())
    ]
    for first in range(0, len(bare), ENROLLED_AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for name in bare[first : first + ENROLLED_AT_ONCE]:
                group.create_task(_enrol(services, name, directory), name=f"enrol {name}")
    for device in devices(plan):
        attached = known[device.name].gateways if device.name in known else frozenset()
        for gateway in device.gateways:
            if gateway not in attached:
                await services.registry.attach(gateway, device.name, DEMO)
    for home in plan.homes:
        for gateway_plan in home.gateways:
            await _know_gateway(services, home, gateway_plan)
        await _know_meter(services, home)
    await _know_devices(services, plan)


async def install(services: Services, home: Home, gateway: GatewayPlan, directory: Path) -> None:
    """Put a further gateway into a home, as a crew does: registered, certified, known."""
    if gateway.name not in await services.registry.standings([gateway.name]):
        await services.registry.register(_gateway(home, gateway), DEMO)
        await _enrol(services, gateway.name, directory)
    await _know_gateway(services, home, gateway)


def write_labels(directory: Path) -> None:
    """Write down what stands on the labels of the equipment that customers have bought."""
    private_files.make_directory(directory)
    for scene in SCENES.values():
        file = directory / f"{scene.home.premises}.txt"
        private_files.replace(file, _labels(scene).encode())


def devices(plan: Plan) -> Iterator[DevicePlan]:
    """Yield all devices that are registered."""
    for home in plan.homes:
        yield from home.devices


def _labels(scene: Scene) -> str:
    numbers = [
        account.number
        for customer in customers()
        for account in customer.accounts
        if account.premises == scene.home.premises
    ]
    lines = (f"{name:<12} {eui64}  {scene.labels[eui64]}" for name, eui64 in scene.eui64s.items())
    return "\n".join(
        (f"account {', '.join(numbers)}", "", f"{'device':<12} {'EUI-64':<16}  code", *lines, "")
    )


async def _accounts(services: Services, plan: Plan) -> None:
    """Say whose the homes are, as the customer care system does."""
    owners = {
        account.premises: (account, customer) for customer in customers() for account in customer.accounts
    }
    for home in plan.homes:
        account, customer = owners.get(home.premises, (None, None))
        owner = "" if account is None else account.id
        try:
            known = (await services.registry.premises(home.premises)).account
        except PremisesNotFoundError:
            known = None
        if known != owner:
            await services.registry.hand_over(home.premises, owner, DEMO)
        if account is not None and customer is not None and known != owner:
            status = AccountStatus(account.status)
            await services.accounts.put(
                Account(id=account.id, customer=customer.ref, tariff=account.tariff, status=status), DEMO
            )


def _things(plan: Plan) -> Iterator[NewThing]:
    for home in plan.homes:
        for gateway in home.gateways:
            yield _gateway(home, gateway)
        for device in home.devices:
            yield NewThing(device.name, ThingKind.DEVICE, device.model, home.premises, device.has_certificate)


def _gateway(home: Home, gateway: GatewayPlan) -> NewThing:
    owner = Owner.UTILITY if gateway.kind == "meter" else Owner.CUSTOMER
    return NewThing(gateway.name, ThingKind.GATEWAY, gateway.model, home.premises, owner=owner)


async def _know_gateway(services: Services, home: Home, plan: GatewayPlan) -> None:
    try:
        await services.gateways.gateway(plan.name)
    except GatewayNotFoundError:
        await services.gateways.put(
            Gateway(
                id=plan.name,
                kind=GatewayKind(plan.kind),
                premises=home.premises,
                wan="AMI" if plan.kind == "meter" else "broadband",
                technologies=frozenset({plan.technology}),
                devices_max=DEVICES_MAX,
                load_control_max=LOAD_CONTROL_MAX,
            ),
            DEMO,
        )


async def _know_meter(services: Services, home: Home) -> None:
    """Each home has a meter; that it was heard of is said anew by each run."""
    radio = next((one for one in home.gateways if one.kind == "meter"), None)
    id, now_ms = f"me-{home.premises.removeprefix('pr-')}", services.clock.now_ms()
    try:
        known = await services.meters.meter(id)
        installed_at_ms = known.installed_at_ms
    except MeterNotFoundError:
        installed_at_ms = now_ms
    await services.meters.put(
        Meter(
            id=id,
            model="acme-amg-4" if radio else "acme-am-1",
            premises=home.premises,
            installed_at_ms=installed_at_ms,
            technologies=frozenset({radio.technology}) if radio else frozenset(),
            comms_seen_at_ms=now_ms,
            gateway=radio.name if radio else "",
        ),
        DEMO,
    )


async def _know_devices(services: Services, plan: Plan) -> None:
    """Let the utility know all equipment as devices; most customers said yes to new firmware."""
    places = {home.premises: await services.registry.premises(home.premises) for home in plan.homes}
    all_devices = [
        _device(thing, places[home.premises]) for home in plan.homes for thing in _things(Plan((home,)))
    ]
    known = await services.devices.devices([device.id for device in all_devices])
    new = [one for one in all_devices if one.id not in known or known[one.id].lifecycle in _HALF_KNOWN]
    for first in range(0, len(new), ENROLLED_AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for device in new[first : first + ENROLLED_AT_ONCE]:
                group.create_task(_know_device(services, device), name=f"know {device.id}")


def _device(thing: NewThing, place: Premises) -> Device:
    return Device(
        id=thing.name,
        model=thing.model,
        hw=HARDWARE,
        owner=thing.owner,
        account=place.account,
        premises=place.id,
        premises_epoch=place.epoch,
    )


async def _know_device(services: Services, device: Device) -> None:
    """Take a device as far as it gets: what is the utility's, or in nobody's home, is bound to no account."""
    apply = services.devices.apply
    await apply(device.id, DeviceTrigger.SEEN, DEMO, new=replace(device, account=""))
    await apply(device.id, DeviceTrigger.PROVED, DEMO)
    if not device.account or device.owner is Owner.UTILITY:
        return
    if consents_to_firmware(device.id):
        customer = (await services.accounts.account(device.account)).customer
        yes = NewConsent(
            device=device.id,
            program=OTA,
            account=device.account,
            customer=customer,
            given_by=customer,
            relation="holder",
            channel=ConsentChannel.PHONE,
            text_version=OTA_TEXT_VERSION,
        )
        await services.programs.consents.give(yes, DEMO)
    # Last: a device that is registered was asked about, and what its customer says later stands.
    await apply(
        device.id, DeviceTrigger.REGISTER, DEMO, change=lambda one: replace(one, account=device.account)
    )


def consents_to_firmware(device: str) -> bool:
    """Tell whether its customer said yes to new firmware: three of four do."""
    return crc32(device.encode()) % CONSENTING != 0


def _trust(services: Services, directory: Path) -> bool:
    """Write down the root that all trust; False when it is another one, so that no certificate holds."""
    private_files.make_directory(directory)
    file, root = directory / "ca.crt", services.authority.root_pem
    same = file.exists() and file.read_bytes() == root
    if not same:
        for key in directory.glob("*.key"):
            key.unlink()
        private_files.replace(file, root)
    return same


async def _enrol(services: Services, name: str, directory: Path) -> None:
    """Have a simulated thing make its key; it is we who answer for it, so no code is needed."""
    key = keys.make_key()
    issued = await services.trust.enrolment.certify(name, keys.request(key, name), DEMO, INSIDE)
    private_files.replace(directory / f"{name}.crt", issued.chain_pem)
    # The key last: where there is one, there is a certificate to it.
    private_files.replace(directory / f"{name}.key", keys.key_pem(key))
