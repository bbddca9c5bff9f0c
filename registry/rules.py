"""What may become of things and attachments. Pure: records and the time in, a record out or an error.

A record is what is stored. Records are never deleted: a removed name keeps counting its registrations, and
a detached pair its epochs. That makes an attachment prove itself: it names the registrations of both its
ends and counts only while both are the live ones, so that a row which a crash or a race left behind can
never speak for a later thing of the same name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from infra.time_zones import is_time_zone
from registry.errors import (
    AttachmentNotFoundError,
    InvalidAccountError,
    InvalidDetailError,
    InvalidModelError,
    InvalidPremisesError,
    InvalidThingNameError,
    NotAGatewayError,
    PremisesFullError,
    PremisesMismatchError,
    QuarantinedError,
    ReservedNameError,
    ThingExistsError,
    ThingNotFoundError,
)
from registry.models import Attachment, Location, NewThing, Owner, Premises, Standing, Thing, ThingKind
from security.policy import Role, Target

NAME_CHARS_MAX: Final = 128
CERTIFIED_NAME_CHARS_MAX: Final = 64
"""A certificate's common name ends here."""
RESERVED_PREFIX: Final = "gnomon-canary-"
"""Names of things that we play ourselves, to see what the broker lets them do; no thing may have one."""
PREMISES_CHARS_MAX: Final = 128
THINGS_PER_PREMISES_MAX: Final = 64
"""Of one home, revoked ones too: names are everybody's, and what was registered is never quite forgotten."""
ACCOUNT_CHARS_MAX: Final = 128
MODEL_CHARS_MAX: Final = 128
TEXT_CHARS_MAX: Final = 128
"""Length of what people or equipment say of a thing, such as its name or its room."""

_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]+")
# Models carry the maker's own spelling; blanks inside, nothing that needs escaping anywhere.
_MODEL: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9 ._:+/()-]*[a-zA-Z0-9.+)])?")


@dataclass(frozen=True, slots=True)
class ThingRecord:
    """A thing, or what is kept of one that was removed."""

    thing: Thing
    removed: bool = False


@dataclass(frozen=True, slots=True)
class AttachmentRecord:
    """An attachment, or what is kept of one that has ended."""

    attachment: Attachment
    attached: bool
    gateway_registration: int
    thing_registration: int


def check(new: NewThing) -> None:
    """Raise an :class:`~registry.errors.InvalidThingError` unless a thing can be so."""
    chars_max = CERTIFIED_NAME_CHARS_MAX if new.has_certificate else NAME_CHARS_MAX
    if len(new.name) > chars_max or not _NAME.fullmatch(new.name):
        raise InvalidThingNameError(new.name, chars_max)
    if new.name.startswith(RESERVED_PREFIX):
        raise ReservedNameError(new.name)
    check_premises(new.premises)
    if len(new.model) > MODEL_CHARS_MAX or not _MODEL.fullmatch(new.model):
        raise InvalidModelError(
            f"a device model has 1 to {MODEL_CHARS_MAX} letters, digits, blanks and . _ : + / ( ) -"
        )


def check_premises(id: str) -> None:
    """Raise :class:`InvalidPremisesError` unless premises can be called so."""
    if len(id) > PREMISES_CHARS_MAX or not _NAME.fullmatch(id):
        raise InvalidPremisesError(f"an id of premises has 1 to {PREMISES_CHARS_MAX} of A-Z a-z 0-9 : _ -")


def check_id(id: str) -> None:
    """Raise :class:`InvalidDetailError` unless something of the registry can be called so."""
    if len(id) > NAME_CHARS_MAX or not _NAME.fullmatch(id):
        raise InvalidDetailError(f"an id has 1 to {NAME_CHARS_MAX} of A-Z a-z 0-9 : _ -")


def check_text(*texts: str) -> None:
    """Raise :class:`InvalidDetailError` unless people can read these, and they are short."""
    if any(len(text) > TEXT_CHARS_MAX or not text.isprintable() for text in texts):
        raise InvalidDetailError(f"a text has at most {TEXT_CHARS_MAX} characters that can be printed")


def enrolled(thing: Thing) -> bool:
    """Tell whether the utility may see a thing: its own, and what a customer lets take part."""
    return thing.owner is Owner.UTILITY or thing.taking_part


def hand_over(before: Premises | None, id: str, account: str, now_ms: int) -> Premises:
    """Return premises that belong to an account; a new ownership begins only where it changes hands."""
    check_premises(id)
    if len(account) > ACCOUNT_CHARS_MAX or (account and not _NAME.fullmatch(account)):
        raise InvalidAccountError(f"an id of an account has 1 to {ACCOUNT_CHARS_MAX} of A-Z a-z 0-9 : _ -")
    if before is None:
        return Premises(id, account, 1, now_ms)
    if before.account == account:
        return before
    # Times never fall: what was seen before must not come into view again when the clock is set back.
    since_ms = max(now_ms, before.since_ms + 1)
    return replace(before, account=account, epoch=before.epoch + 1, since_ms=since_ms)


def describe(before: Premises | None, id: str, at: Location, now_ms: int) -> Premises:
    """Return premises with what is known of where they lie; until they have an account they are nobody's."""
    check_premises(id)
    check_text(at.zone, at.feeder, at.service_point)
    if at.time_zone and not is_time_zone(at.time_zone):
        raise InvalidDetailError("a time zone is a name of the IANA database, as Europe/Berlin, or empty")
    known = Premises(id, "", 1, now_ms) if before is None else before
    return replace(known, **at._asdict())


def place(id: str, premises: Premises | None) -> Target:
    """Return what the permission table must know of premises, known or not."""
    if premises is None:
        return Target(premises=id)
    return Target(premises=id, account=premises.account, since_ms=premises.since_ms)


def target(standing: Standing) -> Target:
    """Return what the permission table must know of a thing."""
    thing, premises = standing.thing, standing.premises
    return Target(
        thing.name,
        standing.gateways,
        "" if premises is None else premises.account,
        thing.premises,
        enrolled(thing),
        customers=thing.owner is Owner.CUSTOMER,
        liftable=thing.liftable,
        since_ms=0 if premises is None else premises.since_ms,
    )


def register(before: ThingRecord | None, new: NewThing, now_ms: int, *, there: int) -> ThingRecord:
    """Return the record of a new thing under a name that is free, at premises that have so many things."""
    if before is not None and not before.removed:
        raise ThingExistsError(new.name)
    if there >= THINGS_PER_PREMISES_MAX:
        raise PremisesFullError(THINGS_PER_PREMISES_MAX)
    return ThingRecord(
        Thing(
            new.name,
            new.kind,
            new.model,
            new.premises,
            new.has_certificate,
            registered_at_ms=now_ms,
            registration=1 if before is None else before.thing.registration + 1,
            owner=new.owner,
        )
    )


def live(name: str, record: ThingRecord | None) -> Thing:
    """Return the thing of a record, or raise :class:`ThingNotFoundError`."""
    if record is None or record.removed:
        raise ThingNotFoundError(name)
    return record.thing


def revoke(name: str, before: ThingRecord | None, now_ms: int) -> ThingRecord:
    """Return the record of a thing that no longer counts; the first revocation stays the date."""
    thing = live(name, before)
    return ThingRecord(thing if thing.revoked_at_ms is not None else replace(thing, revoked_at_ms=now_ms))


def suspend(name: str, before: ThingRecord | None, now_ms: int, by: Role) -> ThingRecord:
    """Return the record of a thing that counts for nothing until :func:`resume`.

    The first time stays; that somebody else than a customer has suspended it is noted also later.
    """
    thing = live(name, before)
    if thing.suspended_at_ms is None:
        return ThingRecord(replace(thing, suspended_at_ms=now_ms, suspended_by=by))
    if thing.liftable and by is not Role.CUSTOMER:
        return ThingRecord(replace(thing, suspended_by=by))
    return ThingRecord(thing)


def resume(name: str, before: ThingRecord | None, by: Role) -> ThingRecord:
    """Return the record of a thing that goes on. What is revoked stays revoked."""
    thing = live(name, before)
    # The table has said so already, of what was known some seconds ago.
    if by is Role.CUSTOMER and not thing.liftable:
        raise QuarantinedError
    return ThingRecord(replace(thing, suspended_at_ms=None, suspended_by=None))


def take_part(name: str, before: ThingRecord | None, taking_part: bool) -> ThingRecord:
    """Return the record of a thing that the utility may see from now on, or may not."""
    return ThingRecord(replace(live(name, before), taking_part=taking_part))


def remove(name: str, before: ThingRecord | None) -> ThingRecord:
    """Return what is kept of a thing that goes."""
    return ThingRecord(live(name, before), removed=True)


def withdraw(registered: Thing, before: ThingRecord | None) -> ThingRecord:
    """Return what is kept of a thing that was one too many; what has taken its name since stays."""
    thing = live(registered.name, before)
    return ThingRecord(thing, removed=thing.registration == registered.registration)


def attach(before: AttachmentRecord | None, gateway: Thing, thing: Thing, now_ms: int) -> AttachmentRecord:
    """Return the record of a pair that is attached; an attachment that counts already stays as it is."""
    if gateway.kind is not ThingKind.GATEWAY:
        raise NotAGatewayError("only a thing of kind gateway speaks for others")
    if gateway.name == thing.name:
        raise NotAGatewayError("a gateway speaks for itself without being attached")
    if gateway.premises != thing.premises:
        raise PremisesMismatchError(gateway.name, thing.name)
    if before is not None and counts(before, gateway, thing):
        return before
    epoch = 1 if before is None else before.attachment.epoch + 1
    return AttachmentRecord(
        Attachment(gateway.name, thing.name, epoch, now_ms),
        attached=True,
        gateway_registration=gateway.registration,
        thing_registration=thing.registration,
    )


def detach(gateway: str, thing: str, before: AttachmentRecord | None) -> AttachmentRecord:
    """Return what is kept of a pair that is no longer attached."""
    if before is None or not before.attached:
        raise AttachmentNotFoundError(gateway, thing)
    return replace(before, attached=False)


def counts(record: AttachmentRecord, gateway: Thing | None, thing: Thing | None) -> bool:
    """Tell whether a record attaches these two, given as they are now (None: not registered)."""
    return (
        record.attached
        and gateway is not None
        and thing is not None
        and record.gateway_registration == gateway.registration
        and record.thing_registration == thing.registration
        and gateway.premises == thing.premises
    )


def standing(
    thing: Thing,
    records: Iterable[AttachmentRecord],
    gateways: Mapping[str, Thing],
    premises: Premises | None = None,
) -> Standing:
    """Return what messages about a thing are judged by; ``gateways`` holds the registered ones by name."""
    able = (
        gateway.name
        for record in records
        if (gateway := gateways.get(record.attachment.gateway)) is not None
        and counts(record, gateway, thing)
        and not gateway.barred
    )
    return Standing(thing, frozenset(able), premises)
