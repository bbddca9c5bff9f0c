"""What may become of a device: values in, values out. Pure. The table itself is in ``states``.

Three things come with a step beside the state: a device that was left out forgets within a day what a
session learned of it; one that is not the account's any more forgets at once whose it was and what they
called it; and a step that was taken already is not taken again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from infra.machines import Transition, remember
from registry.errors import DeviceNotFoundError, DeviceTakenError, InvalidDetailError
from registry.models import Owner
from registry.rules import check_id, check_text
from registry.states import DEVICE, DeviceTrigger, Lifecycle

PURGE_AFTER_MS: Final = 24 * 3_600_000
RATED_W_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device. ``id`` is its thing name: for what was seen on a HAN its EUI-64, in upper case."""

    id: str
    eui64: str = ""
    model: str = ""
    """Its id in the catalogue, or what it calls itself where nobody knows it."""
    maker: str = ""
    hw: int = 0
    fw: str = ""
    serial: str = ""
    lfdi: str = ""
    owner: Owner = Owner.CUSTOMER
    account: str = ""
    """By which it takes part; empty while it is bound to none."""
    premises: str = ""
    premises_epoch: int = 0
    """Of the ownership of the premises in which it came there: a later one has nothing to do with it."""
    name: str = ""
    """What the customer calls it."""
    location: str = ""
    """The customer's word for the room."""
    rated_w: int = 0
    lifecycle: Lifecycle = Lifecycle.COMMISSIONED
    """What a new one says here does not count: its first step does."""
    transitions: tuple[Transition, ...] = ()
    successor: str = ""
    predecessor: str = ""
    purge_at_ms: int | None = None


Change = Callable[[Device], Device]
"""What comes with a step. Pure; of identity, state and history nothing can be changed by it."""

_D, _L = DeviceTrigger, Lifecycle

SETTLED: Final[Mapping[DeviceTrigger, frozenset[Lifecycle]]] = MappingProxyType(
    {
        _D.DELIVERED: frozenset({_L.MANUFACTURED}),
        _D.JOINED: frozenset({_L.COMMISSIONED}),
        # A registered one is listed in the session, and stays registered.
        _D.SEEN: frozenset({_L.DISCOVERED, _L.AUTHENTICATED, _L.REGISTERED, _L.SUSPENDED}),
        # So does one that proves itself once more.
        _D.PROVED: frozenset({_L.AUTHENTICATED, _L.REGISTERED, _L.SUSPENDED}),
        _D.REGISTER: frozenset({_L.REGISTERED}),
        _D.LEFT_OUT: frozenset({_L.COMMISSIONED}),
        _D.SUSPEND: frozenset({_L.SUSPENDED}),
        _D.LIFT: frozenset({_L.REGISTERED}),
        _D.DEREGISTER: frozenset({_L.DEREGISTERED}),
        _D.REPLACE: frozenset({_L.REPLACED}),
        _D.RETIRE: frozenset({_L.RETIRED}),
    }
)
"""States in which a trigger has nothing left to do: it is answered with the device as it is."""


def step(
    id: str,
    before: Device | None,
    trigger: DeviceTrigger,
    *,
    at_ms: int,
    actor: str,
    reason: str = "",
    change: Change | None = None,
    new: Device | None = None,
) -> Device:
    """Return a device after a trigger; as it is, where the trigger has nothing left to do.

    ``new`` describes a device that is not known yet.

    Raises:
        IllegalTransitionError: the table has no row for this.
        DeviceNotFoundError: it is not known, and nobody describes it.
        DeviceTakenError: it is registered, for somebody else.
        InvalidDetailError: it can not be so.
    """
    if before is not None and before.lifecycle in SETTLED[trigger]:
        _check_bound_alike(before, trigger, change)
        return before
    state = before.lifecycle if before is not None else None
    after = DEVICE.after(state, trigger)
    start = before if before is not None else new
    if start is None:
        raise DeviceNotFoundError(id)
    changed = start if change is None else change(start)
    kept = remember(
        () if before is None else before.transitions,
        Transition(at_ms, actor, reason, state or "", trigger, after),
    )
    stepped = replace(changed, id=id, lifecycle=after, transitions=kept)
    check(stepped)
    return _with(stepped, trigger, at_ms)


def amend(id: str, before: Device | None, change: Change) -> Device:
    """Return a device with other details; its life goes on as it was."""
    if before is None:
        raise DeviceNotFoundError(id)
    amended = replace(change(before), id=id, lifecycle=before.lifecycle, transitions=before.transitions)
    check(amended)
    return amended


def check(device: Device) -> None:
    """Raise :class:`InvalidDetailError` unless a device can be so."""
    check_id(device.id)
    check_text(device.eui64, device.model, device.maker, device.fw, device.serial, device.lfdi)
    check_text(device.name, device.location)
    if not 0 <= device.rated_w <= RATED_W_MAX:
        raise InvalidDetailError(f"a device draws 0 to {RATED_W_MAX} W")
    if device.lifecycle is Lifecycle.REGISTERED and not (device.account and device.premises):
        raise InvalidDetailError("a device is registered for an account, at premises")


def purge(before: Device, now_ms: int) -> Device:
    """Return what is kept of a device that was left out, once it is time.

    That a vendor delivered it, and as what, is not the customer's and stays.
    """
    if before.purge_at_ms is None or now_ms < before.purge_at_ms:
        return before
    bare = Device(
        id=before.id, eui64=before.eui64, lifecycle=before.lifecycle, transitions=before.transitions
    )
    if before.transitions[0].trigger != DeviceTrigger.DELIVERED:
        return bare
    return replace(
        bare,
        model=before.model,
        maker=before.maker,
        hw=before.hw,
        serial=before.serial,
        lfdi=before.lfdi,
        owner=before.owner,
    )


def _check_bound_alike(device: Device, trigger: DeviceTrigger, change: Change | None) -> None:
    if trigger is not DeviceTrigger.REGISTER or change is None:
        return
    wanted = change(device)
    if (wanted.account, wanted.premises) != (device.account, device.premises):
        raise DeviceTakenError(device.id)


def _with(device: Device, trigger: DeviceTrigger, at_ms: int) -> Device:
    """Return a device with what else comes of a step."""
    match trigger:
        case DeviceTrigger.LEFT_OUT:
            return replace(device, purge_at_ms=at_ms + PURGE_AFTER_MS)
        case DeviceTrigger.SEEN:
            return replace(device, purge_at_ms=None)
        case DeviceTrigger.DEREGISTER | DeviceTrigger.REPLACE | DeviceTrigger.RETIRE:
            return replace(device, account="", name="", location="", purge_at_ms=None)
        case _:
            return device
