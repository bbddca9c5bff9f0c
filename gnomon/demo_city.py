"""The demo utility's city in the registry: who lives where, what stands there, and each thing's certificate.

Everything is put there once and found again by a later run. Whose home is whose the embedded customer care
system knows; equipment that nobody has called about yet is in no register, only its labels lie in a file.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleet.plan import DevicePlan, GatewayPlan, Home, Plan
from fleet.provisioning import SCENES, Scene
from gnomon.services import Services
from provisioning.care_demo import customers
from registry.accounts import Account, AccountStatus
from registry.errors import GatewayNotFoundError, MeterNotFoundError, PremisesNotFoundError
from registry.gateways import Gateway, GatewayKind
from registry.meters import Meter
from registry.models import NewThing, Owner, ThingKind
from security import private_files
from security.audit import INSIDE
from security.policy import Principal, Role
from security.trust import keys

DEMO: Final = Principal("demo", Role.OPERATOR)
AT_ONCE: Final = 32
"""Their records share commits, which is what takes the time."""
DEVICES_MAX, LOAD_CONTROL_MAX = 10, 8
"""What a gateway of the demo can serve."""


async def settle_in(services: Services, plan: Plan, directory: Path) -> None:
    """Register whatever is not registered yet, and give each thing with a certificate its files."""
    trusted = _trust(services, directory)
    await _accounts(services, plan)
    things = [thing for home in plan.homes for thing in things_of(home)]
    known = await services.registry.standings([thing.name for thing in things])
    for thing in things:
        if thing.name not in known:
            await services.registry.register(thing, DEMO)
    bare = [
        thing.name
        for thing in things
        if thing.has_certificate and not (trusted and (directory / f"{thing.name}.key").exists())
    ]
    for first in range(0, len(bare), AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for name in bare[first : first + AT_ONCE]:
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


async def install(services: Services, home: Home, gateway: GatewayPlan, directory: Path) -> None:
    """Put a further gateway into a home, as a crew does: registered, certified, known."""
    if gateway.name not in await services.registry.standings([gateway.name]):
        await services.registry.register(_gateway(home, gateway), DEMO)
        await _enrol(services, gateway.name, directory)
    await _know_gateway(services, home, gateway)


def write_labels(plan: Plan, directory: Path) -> None:
    """Write down what stands on the labels of the equipment that customers have bought."""
    private_files.make_directory(directory)
    homes = {home.premises for home in plan.homes}
    for scene in SCENES.values():
        if scene.home.premises not in homes:
            continue
        file = directory / f"{scene.home.premises}.txt"
        private_files.replace(file, _labels(scene).encode())


def devices(plan: Plan) -> Iterator[DevicePlan]:
    """Yield all devices that are registered."""
    for home in plan.homes:
        yield from home.devices


def things_of(home: Home) -> Iterator[NewThing]:
    """Yield all things of a home as they are registered, its gateways first."""
    for gateway in home.gateways:
        yield _gateway(home, gateway)
    for device in home.devices:
        yield NewThing(device.name, ThingKind.DEVICE, device.model, home.premises, device.has_certificate)


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
