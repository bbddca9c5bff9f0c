"""What the demo utility knows of its city's equipment: all of it as devices, and who may get new firmware.

A campaign finds its targets among the devices. Three of four customers said yes to firmware on the telephone,
once: what they say later stands. What is the utility's own needs nobody's yes.
"""

import asyncio
from dataclasses import replace
from typing import Final
from zlib import crc32

from fleet.plan import Plan
from gnomon.demo_city import AT_ONCE, DEMO, things_of
from gnomon.services import Services
from programs.consents import OTA_TEXT_VERSION
from programs.models import OTA
from programs.records import ConsentChannel, NewConsent
from registry.devices import Device
from registry.models import NewThing, Owner, Premises
from registry.states import DeviceTrigger, Lifecycle

HARDWARE: Final = 1
"""Version of the hardware of all equipment of the city."""
ASKED: Final = 4
"""Of so many devices one is left alone by its customer's wish."""
_HALF_KNOWN: Final = frozenset({Lifecycle.DISCOVERED, Lifecycle.AUTHENTICATED})


async def know(services: Services, plan: Plan) -> None:
    """Let the utility know all equipment of a plan as devices; what it knows already stays as it is."""
    places = {home.premises: await services.registry.premises(home.premises) for home in plan.homes}
    every = [_device(thing, places[home.premises]) for home in plan.homes for thing in things_of(home)]
    known = await services.devices.devices([one.id for one in every])
    new = [one for one in every if one.id not in known or known[one.id].lifecycle in _HALF_KNOWN]
    for first in range(0, len(new), AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for device in new[first : first + AT_ONCE]:
                group.create_task(_know(services, device), name=f"know {device.id}")


def says_yes(device: str) -> bool:
    """Tell whether the customer of a device says yes to new firmware: three of four do."""
    return crc32(device.encode()) % ASKED != 0


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


async def _know(services: Services, device: Device) -> None:
    """Take a device as far as it gets: what is the utility's, or in nobody's home, is bound to no account."""
    apply = services.devices.apply
    await apply(device.id, DeviceTrigger.SEEN, DEMO, new=replace(device, account=""))
    await apply(device.id, DeviceTrigger.PROVED, DEMO)
    if device.owner is Owner.UTILITY or not device.account:
        return
    if says_yes(device.id):
        await _consent(services, device)
    # Last: of a device that is registered the customer was asked.
    await apply(
        device.id, DeviceTrigger.REGISTER, DEMO, change=lambda one: replace(one, account=device.account)
    )
    await services.programs.enrolments.reconcile(device.id)  # now, and not when its turn comes


async def _consent(services: Services, device: Device) -> None:
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
