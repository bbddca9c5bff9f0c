"""A shadow as a stored document, and back. Pure.

The body is msgpack around the JSON of each tree: the JSON is what is sent and measured anyway, so
storing costs no further encoding, and a document that is only swept or listed is never parsed.
"""

from dataclasses import replace
from typing import Final

import msgspec

from infra.documents.port import Collection, Entry, IndexValue
from security import audit
from security.policy import Principal, Role
from shadow import wire
from shadow.decisions import OutboxEntry, Shadow
from shadow.document import EMPTY, Part, ShadowId
from shadow.history import HistoryRow

SHADOWS: Final = Collection("shadows", indexed=("thing", "pending"))
HISTORY: Final = "history"
HISTORY_HAN: Final = "history_han"
"""The `han` shadow's history lives a day only; a log of its own spares the sweep all other rows."""
LOGS: Final = (HISTORY, HISTORY_HAN)
PENDING: Final = 1
"""Value of the index field that finds documents with something unsent."""

_FORMAT: Final = 1


class _Record(msgspec.Struct, array_like=True, gc=False):
    format: int
    version: int
    at_ms: int
    exists: bool
    desired: bytes
    desired_stamps: bytes
    reported: bytes
    reported_stamps: bytes
    sequence: tuple[int, int] | None
    ledger: bytes
    outbox: tuple[tuple[int, bytes], ...]
    diverged_ms: int | None
    oldest_version: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode
_tree = msgspec.json.Decoder().decode


class UnknownFormatError(Exception):
    """The document was written by a newer Gnomon."""

    def __init__(self, key: str, format: int) -> None:
        super().__init__(
            f"shadow {key} is stored in format {format}; this Gnomon knows {_FORMAT}: upgrade it"
        )


def history_log(id: ShadowId) -> str:
    """Return the log that keeps the versions of this shadow."""
    return HISTORY_HAN if id.name == "han" else HISTORY


def history_entry(id: ShadowId, version: int, at_ms: int, row: bytes) -> Entry:
    """Return the log entry of one version."""
    return Entry(history_log(id), id.key, version, at_ms, row)


def audit_entry(id: ShadowId, row: HistoryRow) -> Entry:
    """Return what the audit says about a version that no thing made itself."""
    act = audit.act(
        Principal(row.actor, Role(row.role)),
        audit.Via(row.gateway or row.channel, row.request_id),
        f"shadow.{row.operation}",
        f"shadow/{id.key}",
        at_ms=row.at_ms,
        before=row.version - 1,
        after=row.version,
    )
    return audit.entry(replace(act, sha256=row.sha256), row.version, life=row.at_ms)


def body_of(shadow: Shadow) -> bytes:
    """Return the bytes to store."""
    desired, reported = shadow.desired, shadow.reported
    return _encode(
        _Record(
            _FORMAT,
            shadow.version,
            shadow.at_ms,
            shadow.exists,
            desired.state_json,
            desired.stamps_json,
            reported.state_json,
            reported.stamps_json,
            shadow.sequence,
            shadow.ledger,
            shadow.outbox,
            shadow.diverged_ms,
            shadow.oldest_version,
        )
    )


def index_of(id: ShadowId, shadow: Shadow) -> dict[str, IndexValue]:
    """Return the fields the document is found by."""
    return {"thing": id.thing, "pending": PENDING} if shadow.outbox else {"thing": id.thing}


def shadow_of(key: str, body: bytes) -> Shadow:
    """Return the shadow that :func:`body_of` stored; raise :class:`UnknownFormatError` for a newer one."""
    record = _decode(body)
    if record.format != _FORMAT:
        raise UnknownFormatError(key, record.format)
    desired = _part(record.desired, record.desired_stamps)
    reported = _part(record.reported, record.reported_stamps)
    return Shadow(
        desired=desired,
        reported=reported,
        version=record.version,
        at_ms=record.at_ms,
        exists=record.exists,
        sequence=record.sequence,
        ledger=record.ledger,
        outbox=tuple(OutboxEntry(*entry) for entry in record.outbox),
        diverged_ms=record.diverged_ms,
        oldest_version=record.oldest_version,
        json=wire.version_json(desired, reported, record.version) if record.exists else None,
    )


def exists(body: bytes) -> bool:
    """Tell whether a stored document is a shadow rather than the memory of a deleted one."""
    return _decode(body).exists


def _part(state: bytes, stamps: bytes) -> Part:
    tree = _tree(state)
    return Part(tree, _tree(stamps), state, stamps) if tree else EMPTY
