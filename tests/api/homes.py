"""Two homes with equipment: the one of the rig's customer, and somebody else's."""

from typing import Any

from registry.accounts import Account
from registry.devices import Device
from registry.models import NewThing, Owner, ThingKind
from registry.states import DeviceTrigger
from tests.api.rig import ACCOUNT, HALL, HOME, OPERATOR, Rig

OTHER_HOME = "home-8"
OTHER_ACCOUNT = "account-8"
SWITCH = "meter-switch"
"""The utility's own load switch, in home 7."""
SENSOR = "00124B00000000D0"
"""A door sensor in home 7: the utility has nothing to do with it."""
FOREIGN = "other-thermostat"
"""Registered, in home 8."""
_REGISTERED = (DeviceTrigger.SEEN, DeviceTrigger.PROVED, DeviceTrigger.REGISTER)


async def furnish(rig: Rig) -> None:
    """Put equipment into both homes."""
    registry = rig.services.registry
    await registry.hand_over(OTHER_HOME, OTHER_ACCOUNT, OPERATOR)
    for account, tariff in ((ACCOUNT, "res-tou"), (OTHER_ACCOUNT, "res-tou")):
        await rig.services.accounts.put(Account(id=account, customer=f"c-{account}", tariff=tariff), OPERATOR)
    await rig.services.models.seed()
    for name, home, owner in (
        (SWITCH, HOME, Owner.UTILITY),
        (FOREIGN, OTHER_HOME, Owner.CUSTOMER),
    ):
        await registry.register(NewThing(name, ThingKind.DEVICE, "m", home, False, owner), OPERATOR)
    await add(rig, HALL, eui64="00124B0014B5D2A1", name="Thermostat", location="hall")
    await add(rig, SWITCH, model="acme-lcs-1", owner=Owner.UTILITY)
    await add(rig, SENSOR, (DeviceTrigger.JOINED,), model="door sensor", account="")
    await add(rig, FOREIGN, premises=OTHER_HOME, account=OTHER_ACCOUNT)


async def add(rig: Rig, id: str, triggers: tuple[DeviceTrigger, ...] = _REGISTERED, **facts: Any) -> Device:
    """Make a device known, by default registered in home 7."""
    known: dict[str, Any] = {
        "model": "acme-pct-2",
        "fw": "1.4.0",
        "account": ACCOUNT,
        "premises": HOME,
        "premises_epoch": 1,
    } | facts
    new = Device(id=id, **known)
    for trigger in triggers:
        new = await rig.services.devices.apply(id, trigger, OPERATOR, new=new)
    return new
