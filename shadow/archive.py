"""A shadow's past: pages of history, the document as it was, and what a crash left unsent."""

from collections.abc import Mapping, Sequence
from typing import Final

from infra.documents.port import Entry
from infra.settings.model import ShadowLimits
from security.policy import THINGS, Role
from shadow import wire
from shadow.commands import Channel, Delete, Origin, Update
from shadow.decisions import Accepted, Change, OutboxEntry, Shadow, full_row, is_full
from shadow.document import ShadowId, difference
from shadow.errors import NoShadowError, VersionPrunedError
from shadow.history import HistoryRow, Snapshot, conflicts, fold, row_of
from shadow.records import audit_entry, history_entry
from shadow.store import ShadowStore

CONFLICT_ROWS_MAX: Final = 64
"""How far back a conflict is explained; beyond it the answer leaves ``conflicts`` out."""

_NO_DIGEST: Final = b""


class Archive:
    """Reads history. It never writes, but for rows that a crash kept from being written."""

    def __init__(self, store: ShadowStore, limits: ShadowLimits) -> None:
        self._store = store
        self._limits = limits

    async def history(
        self,
        id: ShadowId,
        *,
        limit: int,
        before: int | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> list[HistoryRow]:
        """Return at most ``limit`` rows, newest first: below version ``before``, within the times given.

        Raises:
            NoShadowError: there never was such a shadow.
        """
        shadow = await self._known(id)
        last = shadow.version if before is None else min(before - 1, shadow.version)
        if to_ms is not None:
            last = min(last, await self._newest_not_later(id, shadow, to_ms))
        rows = await self._store.rows(id, shadow.oldest_version, last, limit, newest_first=True)
        return [row for row in rows if from_ms is None or row.at_ms >= from_ms]

    async def at_version(self, id: ShadowId, version: int) -> Snapshot:
        """Return the document as it was.

        Raises:
            NoShadowError: no such version, or it is a deletion.
            VersionPrunedError: its history is no longer kept.
        """
        shadow = await self._known(id)
        if not 1 <= version <= shadow.version:
            raise NoShadowError(*id)
        if version < shadow.oldest_version:
            raise VersionPrunedError(shadow.oldest_version)
        snapshot, _ = await self._snapshot(id, shadow, version)
        if not snapshot.exists:
            raise NoShadowError(*id)
        return snapshot

    async def at_time(self, id: ShadowId, at_ms: int) -> Snapshot:
        """Return the newest version that is not later than ``at_ms``; raises as :meth:`at_version`."""
        shadow = await self._known(id)
        version = await self._newest_not_later(id, shadow, at_ms)
        if version < shadow.oldest_version:
            if shadow.oldest_version > 1:
                raise VersionPrunedError(shadow.oldest_version)
            raise NoShadowError(*id)
        return await self.at_version(id, version)

    async def first_after(self, id: ShadowId, shadow: Shadow, at_ms: int) -> tuple[Snapshot, bytes]:
        """Return the first version after ``at_ms``, at least the newest, and its row with all of it in it."""
        version = min(await self._newest_not_later(id, shadow, at_ms) + 1, shadow.version)
        snapshot, row = await self._snapshot(id, shadow, version)
        return snapshot, _whole(row, snapshot)

    async def conflicts(self, update: Update, current: int) -> tuple[str, ...] | None:
        """Return what was written since ``update.version`` that it would write too; None when unknown."""
        wanted = update.version
        if wanted is None or not 0 <= current - wanted <= CONFLICT_ROWS_MAX:
            return None
        rows = await self._store.rows(update.id, wanted + 1, current, CONFLICT_ROWS_MAX)
        return conflicts(update.state, rows) if len(rows) == current - wanted else None

    async def unsent(self, id: ShadowId, shadow: Shadow, entries: Sequence[OutboxEntry]) -> list[Accepted]:
        """Return the outcomes of versions whose messages may not have arrived, oldest first.

        The same function makes the same bytes again; ``delta`` is there for the newest version only.
        """
        bodies, missing = await self._rows(id, shadow, entries[0].version - 1, shadow.version)
        snapshots = _fold(bodies)
        await self._store.add_rows(
            [self._history_entry(id, entry, snapshots[entry.version]) for entry in missing]
            + await self._store.unwritten(_audit_entries(id, entries))
        )
        return [_resent(id, shadow, row_of(entry.row), snapshots) for entry in entries]

    def _history_entry(self, id: ShadowId, entry: OutboxEntry, snapshot: Snapshot) -> Entry:
        full = is_full(entry.version, self._limits)
        return history_entry(
            id, snapshot.version, snapshot.at_ms, _whole(entry.row, snapshot) if full else entry.row
        )

    async def _snapshot(self, id: ShadowId, shadow: Shadow, version: int) -> tuple[Snapshot, bytes]:
        """Return one version and its row; raise :class:`VersionPrunedError` if it was let go meanwhile."""
        bodies, _ = await self._rows(id, shadow, version, version)
        if version not in bodies:
            raise VersionPrunedError(shadow.oldest_version)
        return _fold(bodies)[version], bodies[version]

    async def _rows(
        self, id: ShadowId, shadow: Shadow, first: int, last: int
    ) -> tuple[dict[int, bytes], list[OutboxEntry]]:
        """Return the rows to fold for versions ``first`` to ``last``, and which of them are not written.

        What is in the outbox is committed, but a store without transactions may not have its row yet.
        A version below the outbox has its row, so the fold begins at a whole one of those.
        """
        unsure = [entry for entry in shadow.outbox if entry.version <= last]
        written = min(first, unsure[0].version - 1) if unsure else first
        every = self._limits.history_full_every
        start = max(shadow.oldest_version, written // every * every)
        bodies = await self._store.bodies(id, start, last)
        missing = [entry for entry in unsure if start <= entry.version and entry.version not in bodies]
        bodies |= {entry.version: entry.row for entry in missing}
        if bodies and min(bodies) != start:
            raise VersionPrunedError(shadow.oldest_version)
        return dict(sorted(bodies.items())), missing

    async def _newest_not_later(self, id: ShadowId, shadow: Shadow, at_ms: int) -> int:
        """Bisect for the newest version not later than ``at_ms``: no gaps, and times never fall."""
        low, high = shadow.oldest_version - 1, shadow.version
        while low < high:
            middle = (low + high + 1) // 2
            known = [row_of(entry.row) for entry in shadow.outbox if entry.version == middle]
            rows = known or await self._store.rows(id, middle, middle, 1)
            # One that is gone was let go while we looked, because it is old.
            low, high = (low, middle - 1) if rows and rows[0].at_ms > at_ms else (middle, high)
        return low

    async def _known(self, id: ShadowId) -> Shadow:
        shadow = await self._store.current(id)
        if shadow.version == 0:
            raise NoShadowError(*id)
        return shadow


def _resent(id: ShadowId, shadow: Shadow, row: HistoryRow, snapshots: dict[int, Snapshot]) -> Accepted:
    origin = Origin(row.actor, Role(row.role), Channel(row.channel), row.gateway)
    timestamp = row.at_ms // 1_000
    now = snapshots[row.version]
    before = snapshots.get(row.version - 1)
    if row.operation == "delete":
        delete = Delete(id, origin, row.token, None, _NO_DIGEST)
        body = wire.deleted(row.version - 1, timestamp, row.token)
        return Accepted(delete, body, row.version - 1, row.at_ms, Change(row.version, b""))
    differs = difference(now.desired, now.reported) if row.version == shadow.version else ({}, {})
    update = Update(id, origin, row.token, None, _NO_DIGEST, row.state)
    change = Change(
        row.version,
        b"",
        delta=wire.delta_message(differs, row.version, timestamp, row.token) if differs[0] else None,
        documents=wire.documents_message(
            _json(before) if before is not None and before.exists else None,
            _json(now),
            timestamp,
            row.token,
        ),
    )
    body = wire.update_accepted(row.state, {"timestamp": timestamp}, row.version, row.token)
    return Accepted(update, body, row.version, row.at_ms, change)


def _audit_entries(id: ShadowId, entries: Sequence[OutboxEntry]) -> list[Entry]:
    rows = (row_of(entry.row) for entry in entries)
    return [audit_entry(id, row) for row in rows if row.role not in THINGS]


def _whole(row: bytes, snapshot: Snapshot) -> bytes:
    if row_of(row).full is not None:
        return row
    return full_row(row, snapshot.exists, snapshot.desired, snapshot.reported)


def _fold(bodies: Mapping[int, bytes]) -> dict[int, Snapshot]:
    return {snapshot.version: snapshot for snapshot in fold(row_of(body) for body in bodies.values())}


def _json(snapshot: Snapshot) -> bytes:
    return wire.version_json(snapshot.desired, snapshot.reported, snapshot.version)
