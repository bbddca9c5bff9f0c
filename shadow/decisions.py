"""What a command does to a shadow: the checks that need the document, then the change. Pure.

``decide`` takes the documents before, a batch in arrival order and the time, and returns the documents
after and an outcome for each command, with the bytes to send. Nothing of it counts before the service
has committed it. The numbers in comments are the rows of the table of checks (spec: shadow, section 8).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from infra.settings.model import ShadowLimits
from security.policy import THINGS, Section, may_delete, may_read, may_write
from shadow import ledger, wire
from shadow.commands import Command, Delete, Get, Update
from shadow.document import EMPTY, Part, ShadowId, Stamp, difference, nulls_only, write
from shadow.errors import (
    ForbiddenError,
    IdempotencyMismatchError,
    NoShadowError,
    ShadowError,
    StaleSequenceError,
    TooLargeError,
    UnavailableError,
    VersionConflictError,
)

MS_PER_S: Final = 1_000

_SECTIONS: Final = {"desired": Section.DESIRED, "reported": Section.REPORTED}

_encode = msgspec.json.Encoder().encode


class OutboxEntry(NamedTuple):
    """A version whose messages the broker has not acknowledged; ``row`` is its history row."""

    version: int
    row: bytes


class Shadow(msgspec.Struct, frozen=True):
    """One shadow with all that must be atomic with it. Version 0: never made.

    A msgspec Struct rather than a dataclass, like :class:`shadow.document.Part`.
    """

    desired: Part = EMPTY
    reported: Part = EMPTY
    version: int = 0
    at_ms: int = 0
    exists: bool = False
    sequence: tuple[int, int] | None = None
    ledger: bytes = ledger.NO_TOKENS
    outbox: tuple[OutboxEntry, ...] = ()
    diverged_ms: int | None = None
    """Since when desired and reported differ; None while they agree."""
    oldest_version: int = 1
    """The oldest version whose history is kept."""
    json: bytes | None = None
    """This version as ``update/documents`` shows it; None when there is nothing to show."""

    @property
    def timestamp(self) -> int:
        """Seconds since 1970, as the wire has it."""
        return self.at_ms // MS_PER_S

    @property
    def compared_version(self) -> int:
        """What a request's ``version`` is compared with: 0 for what was never made or was deleted."""
        return self.version if self.exists else 0

    def swept(self) -> "Shadow":
        """Return the shadow with nothing left to send; its version stays."""
        return msgspec.structs.replace(self, outbox=())

    def trimmed(self, oldest_version: int) -> "Shadow":
        """Return the shadow with history from ``oldest_version`` on."""
        return msgspec.structs.replace(self, oldest_version=oldest_version)


NEVER_MADE = Shadow()


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a version changed, ready to be sent and stored."""

    version: int
    row: bytes
    """Its history row; with the whole document in it where that is due."""
    delta: bytes | None = None
    documents: bytes | None = None
    converged_after_ms: int | None = None
    """How long desired and reported had differed, if this version ended that."""
    follows: int | None = None
    """The newest version before it that is in the outbox too, 0: none, None: not known."""


class Accepted(msgspec.Struct, frozen=True):
    """A command that was carried out, or was before (``replayed``)."""

    command: Command
    body: bytes
    version: int
    at_ms: int
    change: Change | None = None
    replayed: bool = False


class Rejected(msgspec.Struct, frozen=True):
    """A command that changed nothing."""

    command: Command
    error: ShadowError
    body: bytes


Outcome = Accepted | Rejected


class Circumstances(NamedTuple):
    """What a batch is decided under, beside the documents."""

    now_ms: int
    limits: ShadowLimits
    settled: Mapping[ShadowId, int] = MappingProxyType({})
    """Up to which version the broker has acknowledged a shadow's messages."""
    crowded: Collection[ShadowId] = frozenset()
    """Shadows that may not be made, because their thing has as many as it may have."""


def decide(
    before: Mapping[ShadowId, Shadow],
    batch: Sequence[Command],
    circumstances: Circumstances,
    failed: Callable[[Command, Exception], ShadowError],
) -> tuple[dict[ShadowId, Shadow], list[Outcome]]:
    """Apply ``batch`` in arrival order, each command on what the last one left.

    ``failed`` turns a failure that nobody foresaw into the error to answer, so that one command cannot
    hold up the others.
    """
    after: dict[ShadowId, Shadow] = {}
    outcomes: list[Outcome] = []
    for command in batch:
        try:
            current = after.get(command.id) or before[command.id]
            outcome, changed = carry_out(current, command, circumstances)
        except ShadowError as error:
            outcomes.append(reject(command, error, circumstances.now_ms))
        except Exception as error:  # noqa: BLE001 - our bug in one command must not stop the lane
            outcomes.append(reject(command, failed(command, error), circumstances.now_ms))
        else:
            outcomes.append(outcome)
            if changed is not current:
                after[command.id] = changed
    return after, outcomes


def carry_out(current: Shadow, command: Command, circumstances: Circumstances) -> tuple[Accepted, Shadow]:
    """Return what ``command`` answers and leaves; raise :class:`ShadowError` when it is refused."""
    if type(command) is Update:
        return _update(current, command, circumstances)
    if type(command) is Delete:
        return _delete(current, command, circumstances)
    assert type(command) is Get
    return _get(current, command, circumstances.now_ms), current


def reject(command: Command, error: ShadowError, now_ms: int) -> Rejected:
    """Return the refusal of ``command`` with its answer."""
    return Rejected(command, error, wire.rejected(error, now_ms // MS_PER_S, command.token))


def _update(current: Shadow, update: Update, circumstances: Circumstances) -> tuple[Accepted, Shadow]:
    _check_rights(update)  # 11
    known = _answered(current, update, circumstances)  # 12
    if known is not None and _is_replay(known, update, ledger.UPDATE):
        return _replayed_update(update, known), current
    sequence = _checked_sequence(current, update)  # 13
    _check_version(current, update.version)  # 15
    at_ms = max(circumstances.now_ms, current.at_ms)
    timestamp = at_ms // MS_PER_S
    stamp: Stamp = {"timestamp": timestamp}
    desired, reported = _merged(current, update, stamp)
    if not current.exists and update.id in circumstances.crowded:  # 16
        raise TooLargeError(f"a thing may have {circumstances.limits.named_shadows_max} named shadows")
    _check_size(current, desired, reported, circumstances.limits.document_bytes_max_of(update.id.name))

    limits, version, token = circumstances.limits, current.version + 1, update.token
    state_json = _encode(update.state)
    row = history_row(update, state_json, version, at_ms)
    differs = difference(desired, reported)
    json = wire.version_json(desired, reported, version)
    after = Shadow(
        desired=desired,
        reported=reported,
        version=version,
        at_ms=at_ms,
        exists=True,
        sequence=sequence,
        ledger=_remembered(current, update, ledger.UPDATE, known, version, timestamp, limits),
        outbox=_with_entry(current, update.id, row, circumstances),  # 17
        diverged_ms=(current.diverged_ms or at_ms) if differs[0] else None,
        oldest_version=oldest_after(version, current.oldest_version, limits),
        json=json,
    )
    change = Change(
        version,
        full_row(row, True, desired, reported) if is_full(version, limits) else row,
        wire.delta_message(differs, version, timestamp, token) if differs[0] else None,
        wire.documents_message(current.json, json, timestamp, token),
        at_ms - current.diverged_ms if current.diverged_ms is not None and not differs[0] else None,
        _follows(after.outbox),
    )
    body = wire.update_accepted(update.state, stamp, version, token, state_json)
    return Accepted(update, body, version, at_ms, change), after


def _check_rights(update: Update) -> None:
    role, name = update.origin.role, update.id.name
    sections = update.sections
    for section, patch in sections.items():
        if not may_write(role, name, _SECTIONS[section]) and not (
            nulls_only(patch) and may_write(role, name, _SECTIONS[section], nulls_only=True)
        ):
            raise ForbiddenError(f"{role} may not write {section} of this shadow")
    if not sections and not any(may_write(role, name, section) for section in Section):
        raise ForbiddenError(f"{role} may not write this shadow")  # not even a version of it


def _delete(current: Shadow, delete: Delete, circumstances: Circumstances) -> tuple[Accepted, Shadow]:
    role, name = delete.origin.role, delete.id.name
    if not may_delete(role, name):  # 11
        raise ForbiddenError(f"{role} may not delete this shadow")
    known = _answered(current, delete, circumstances)  # 12
    if known is not None and _is_replay(known, delete, ledger.DELETE):
        body = wire.deleted(known.version, known.timestamp, delete.token)
        return Accepted(delete, body, known.version, known.timestamp * MS_PER_S, replayed=True), current
    if not current.exists:  # 14
        raise NoShadowError(*delete.id)
    _check_version(current, delete.version)  # 15

    limits, version = circumstances.limits, current.version + 1
    at_ms = max(circumstances.now_ms, current.at_ms)
    timestamp = at_ms // MS_PER_S
    row = history_row(delete, b"null", version, at_ms)
    after = Shadow(
        version=version,
        at_ms=at_ms,
        sequence=current.sequence,
        ledger=_remembered(current, delete, ledger.DELETE, known, current.version, timestamp, limits),
        outbox=_with_entry(current, delete.id, row, circumstances),  # 17
        oldest_version=oldest_after(version, current.oldest_version, limits),
    )
    change = Change(
        version,
        full_row(row, False, EMPTY, EMPTY) if is_full(version, limits) else row,
        follows=_follows(after.outbox),
    )
    body = wire.deleted(current.version, timestamp, delete.token)
    return Accepted(delete, body, current.version, at_ms, change), after


def _get(current: Shadow, get: Get, now_ms: int) -> Accepted:
    if not may_read(get.origin.role, get.id.name):  # 11
        raise ForbiddenError(f"{get.origin.role} may not read this shadow")
    if not current.exists:  # 14
        raise NoShadowError(*get.id)
    body = wire.document_accepted(
        current.desired,
        current.reported,
        difference(current.desired, current.reported),
        current.version,
        now_ms // MS_PER_S,
        get.token,
    )
    return Accepted(get, body, current.version, now_ms)


def _answered(
    current: Shadow, command: Update | Delete, circumstances: Circumstances
) -> ledger.Answered | None:
    if command.token_hash is None:
        return None
    now_s = max(circumstances.now_ms, current.at_ms) // MS_PER_S
    return ledger.find(current.ledger, command.token_hash, now_s, circumstances.limits)


def _is_replay(known: ledger.Answered, command: Update | Delete, operation: int) -> bool:
    """Tell whether this very request was answered before; refuse another body under a strict token."""
    if known.answers(command.digest, operation):
        return known.unique
    if command.strict:
        raise IdempotencyMismatchError
    return False


def _replayed_update(update: Update, known: ledger.Answered) -> Accepted:
    stamp: Stamp = {"timestamp": known.timestamp}
    body = wire.update_accepted(update.state, stamp, known.version, update.token)
    return Accepted(update, body, known.version, known.timestamp * MS_PER_S, replayed=True)


def _checked_sequence(current: Shadow, update: Update) -> tuple[int, int] | None:
    if update.sequence is None:
        return current.sequence
    if current.sequence is not None and update.sequence <= current.sequence:
        raise StaleSequenceError(current.sequence)
    return update.sequence


def _check_version(current: Shadow, wanted: int | None) -> None:
    if wanted is not None and wanted != current.compared_version:
        raise VersionConflictError(current.compared_version)


def _merged(current: Shadow, update: Update, stamp: Stamp) -> tuple[Part, Part]:
    sections = update.sections
    desired, reported = current.desired, current.reported
    if "desired" in sections:
        desired = write(desired, sections["desired"], stamp)
    if "reported" in sections:
        reported = write(reported, sections["reported"], stamp)
    return desired, reported


def _check_size(before: Shadow, desired: Part, reported: Part, bytes_max: int) -> None:
    size = desired.size_bytes + reported.size_bytes
    if size > bytes_max and size >= before.desired.size_bytes + before.reported.size_bytes:
        raise TooLargeError(f"desired and reported may have {bytes_max} bytes together; this makes {size}")


def _remembered(
    current: Shadow,
    command: Update | Delete,
    operation: int,
    known: ledger.Answered | None,
    answered_version: int,
    timestamp: int,
    limits: ShadowLimits,
) -> bytes:
    if command.token_hash is None:
        return current.ledger
    answered = ledger.Answered(command.digest, operation, known is None, answered_version, timestamp)
    return ledger.remember(current.ledger, command.token_hash, answered, limits)


def _with_entry(
    current: Shadow, id: ShadowId, row: bytes, circumstances: Circumstances
) -> tuple[OutboxEntry, ...]:
    unsettled = current.outbox
    if unsettled:
        unsettled = without_settled(unsettled, circumstances.settled.get(id, 0))
        if len(unsettled) >= circumstances.limits.outbox_entries_max:
            raise UnavailableError("messages of earlier versions are not delivered yet; try again later")
    return (*unsettled, OutboxEntry(current.version + 1, row))


def _follows(outbox: Sequence[OutboxEntry]) -> int:
    return outbox[-2].version if len(outbox) > 1 else 0


def without_settled(outbox: Sequence[OutboxEntry], settled: int) -> tuple[OutboxEntry, ...]:
    """Return the entries above the version up to which the broker has acknowledged everything."""
    if outbox[-1].version <= settled:
        return ()
    return tuple(entry for entry in outbox if entry.version > settled)


def is_full(version: int, limits: ShadowLimits) -> bool:
    """Tell whether the history row of this version holds the whole document."""
    return version % limits.history_full_every == 0


def oldest_after(version: int, oldest: int, limits: ShadowLimits) -> int:
    """Return the oldest version to keep once ``version`` is stored: always 1 or a full one.

    Cuts are made together with full rows, and so deep that the bound holds until the next one.
    """
    every = limits.history_full_every
    if version % every:
        return oldest
    beyond = version + every - limits.history_versions_max
    return max(oldest, -(-beyond // every) * every) if beyond > 0 else oldest


def history_row(command: Update | Delete, state: bytes, version: int, at_ms: int) -> bytes:
    """Return the row that stands for one version: who changed what, when, by which way."""
    origin = command.origin
    return (
        b'{"version":%d,"at_ms":%d,"operation":"%b","actor":%b,"role":"%b","channel":"%b"%b%b%b,"state":%b}'
        % (
            version,
            at_ms,
            b"update" if type(command) is Update else b"delete",
            _encode(origin.actor),
            origin.role.encode(),
            origin.channel.encode(),
            b"" if origin.gateway is None else b',"gateway":' + _encode(origin.gateway),
            b"" if command.token is None else b',"token":' + _encode(command.token),
            b"" if origin.role in THINGS else _request_members(command),
            state,
        )
    )


def _request_members(command: Update | Delete) -> bytes:
    """Return what the audit says about the request itself, so that a row is all that its entry needs."""
    return b',"request_id":%b,"sha256":"%b"' % (
        _encode(command.origin.request_id),
        command.digest.hex().encode(),
    )


def full_row(row: bytes, exists: bool, desired: Part, reported: Part) -> bytes:
    """Return ``row`` with the whole document of its version in it."""
    return b'%b,"full":{"exists":%b,"desired":%b,"desired_stamps":%b,"reported":%b,"reported_stamps":%b}}' % (
        row[:-1],
        b"true" if exists else b"false",
        desired.state_json,
        desired.stamps_json,
        reported.state_json,
        reported.stamps_json,
    )
