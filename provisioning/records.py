"""What the customer care system is told, as records in the session's document. Pure.

A record has a key, so that a second copy of it does nothing, and travels with the step that causes it. Bodies
name devices as the customer calls them; the notice to the customer holds names only, no ids, no address.
(spec: han, 6)
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from provisioning.session import Record, Session, SessionDevice, ToldRemedy
from provisioning.states import DeviceState

REGISTERED: Final = "han.device.registered"
ENROLMENT_CHANGED: Final = "han.enrolment.changed"
PARTIAL: Final = "han.session.partial"
REMEDY_ORDERED: Final = "han.remedy.ordered"
DEVICE_REMOVED: Final = "han.device.removed"
METER_EXCHANGED: Final = "han.meter.exchanged"
NOTIFY: Final = "notify.customer"
KNOWN_TO_CARE: Final = "customer"
"""Language and channel: those that the customer care system knows the customer to prefer."""

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def record(key: str, kind: str, now_ms: int, body: Mapping[str, Any]) -> Record:
    """Return a record."""
    return Record(key, kind, now_ms, _encode(body).decode())


def of_ready(session: Session, now_ms: int) -> tuple[Record, ...]:
    """Return what there is to tell of the devices that are ready, and was not told yet."""
    return _new(session, (one for device in _ready(session) for one in _of(session, device, now_ms)))


def of_part(session: Session, now_ms: int) -> tuple[Record, ...]:
    """Return the same where some are not ready, with a record that says which."""
    missing = [
        {"device": one.thing or one.eui64, "state": one.state, "code": one.code}
        for _, one in sorted(session.devices.items())
        if one.state in (DeviceState.LATE, DeviceState.FAILED)
    ]
    ready = [one.thing for one in _ready(session)]
    body = {"session": session.id, "account": session.account, "ready": ready, "not_ready": missing}
    part = record(f"{session.id}/partial", PARTIAL, now_ms, body)
    return (*of_ready(session, now_ms), *_new(session, iter([part])))


def of_confirmation(session: Session, programs: Mapping[str, str], now_ms: int) -> tuple[Record, ...]:
    """Return the notice to the customer. ``programs`` names programs by id."""
    body = {
        "template": "provisioned",
        "language": KNOWN_TO_CARE,
        "channel": KNOWN_TO_CARE,
        "account": session.account,
        "devices": [
            {
                "name": device.label,
                "programs": [programs.get(id, id) for id in sorted(device.programs)],
            }
            for device in _ready(session)
        ],
        "opt_out": "any time, at the device or in the app",
        "leave": "any time, in the app or by a call; no reason is needed",
    }
    return _new(session, iter([record(f"{session.id}/confirmed", NOTIFY, now_ms, body)]))


def of_remedy(session: Session, remedy: ToldRemedy, now_ms: int) -> tuple[Record, ...]:
    """Return the order of a remedy."""
    body = {
        "session": session.id,
        "premises": session.premises,
        "account": session.account,
        "remedy": remedy.id,
        "kind": remedy.kind,
        "price_minor": remedy.price_minor,
        "currency": remedy.currency,
    }
    key = f"{session.id}/remedy/{len(session.notices)}"
    return _new(session, iter([record(key, REMEDY_ORDERED, now_ms, body)]))


def copied(session: Session, keys: frozenset[str]) -> Session:
    """Return the session without the bodies of those records that lie in the outbox."""
    if not any(one.body and one.key in keys for one in session.records):
        return session
    after = tuple(replace(one, body="") if one.key in keys else one for one in session.records)
    return replace(session, records=after)


def uncopied(session: Session) -> tuple[Record, ...]:
    """Return the records that the outbox is not known to have, in their order."""
    return tuple(one for one in session.records if one.body)


def _of(session: Session, device: SessionDevice, now_ms: int) -> Iterator[Record]:
    body: dict[str, Any] = {
        "device": device.thing,
        "eui64": device.eui64,
        "model": device.model_id,
        "account": session.account,
        "ownership": "customer",
        "name": device.name,
        "location": device.location,
        "route": list(device.gateways) or [device.thing],
    }
    if device.lfdi:
        body["lfdi"] = device.lfdi
    yield record(f"{session.id}/{device.thing}/registered", REGISTERED, now_ms, body)
    for program in sorted(device.programs):
        found = device.progress.get(program)
        yield record(
            f"{session.id}/{device.thing}/{program}",
            ENROLMENT_CHANGED,
            now_ms,
            {
                "device": device.thing,
                "program": program,
                "account": session.account,
                "state": "" if found is None else found.state,
                "rev": 0 if found is None else found.rev,
                "since_ms": device.changed_at_ms,
            },
        )


def _ready(session: Session) -> list[SessionDevice]:
    return [one for _, one in sorted(session.devices.items()) if one.state is DeviceState.READY]


def _new(session: Session, some: Iterator[Record]) -> tuple[Record, ...]:
    told = {one.key for one in session.records}
    return tuple(one for one in some if one.key not in told)
