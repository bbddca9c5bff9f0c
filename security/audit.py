"""What is written down about privileged acts and refusals, and where it is read again.

An act's row travels in the same write as the act, so there is one if and only if the act happened; its
place in the log follows from the act, so a repeated write stores the same row. Refusals belong to no write
and are folded: nobody can flood the log. Rows hold names of things and principals, never personal data,
secrets or state. Who may read them is not decided here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec

from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security.policy import Principal

LOG: Final = "audit"
REFUSALS_FOLDED_MAX: Final = 4_096
"""Different refusals held apart at a time; above that there is one row for each further actor."""
TARGETS_MAX: Final = 16
"""Targets told apart for an actor, action and minute; the rest is counted together under :data:`OTHERS`."""
ACTOR_ROWS_MAX: Final = 64
"""Of the refusals held apart, those of one actor; the rest is one row of that actor."""
ACTORS_MAX: Final = 16_384
"""Actors with such a row at a time; only what comes from still more has one row for all."""
TEXT_CHARS_MAX: Final = 256
"""Length of a text that came from outside; the rest is cut off."""
REFUSED: Final = "refused/"
"""What the log keys of folded refusals begin with; their number is the minute."""
OTHERS: Final = "(others)"
"""Stands for what was too much to tell apart: targets; an actor's actions too; at the very last, actors."""
WRITER_BITS: Final = 64
MS_PER_MINUTE: Final = 60_000


class Decision(StrEnum):
    """What became of the request."""

    ALLOWED = "allowed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Via:
    """The way an act came in: the channel or gateway, and the request's id if it had one."""

    channel: str
    request_id: str = ""
    sha256: str = ""
    """Of the request's body, in hex. Never of one that holds a secret: the hash of a PIN is as good as it."""


INSIDE: Final = Via("inside")
"""No request: this process acts on its own."""


class Actor(Protocol):
    """Whom a row names: a principal, or who has not proved to be one."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Nobody:
    name: str = "(unknown)"
    role: str = ""


NOBODY: Final = _Nobody()
"""Who tried, and has proved nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row. ``count`` is above 1 only for folded refusals, which say when the first one came."""

    at_ms: int
    actor: str
    role: str
    action: str
    target: str
    via: str = ""
    decision: Decision = Decision.ALLOWED
    reason: str = ""
    cause: str = ""
    """The principal on whose behalf ``system`` acted."""
    request_id: str = ""
    version_before: int | None = None
    version_after: int | None = None
    sha256: str = ""
    """SHA-256 of the request's body, in hex."""
    count: int = 1
    id: str = ""
    """Given by the place in the log."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Rows in order of time; ``next`` continues after the last, None = no more."""

    entries: tuple[AuditEntry, ...]
    next: str | None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AuditEntry).decode


def entry(act: AuditEntry, number: int, *, life: int) -> Entry:
    """Return the log entry for an act that made version ``number`` of its target.

    ``life`` tells one life of a target from an earlier one under the same name, whose numbers it would
    repeat: 0 where numbers never start again, else the time (ms) of the first version, or, where that is
    not known, of this one. Without it the rows of a removed thing would be overwritten by its successor.
    """
    key = f"{act.target}#{life}" if life else act.target
    return _placed(act, key, number)


def act(
    by: Principal,
    via: Via,
    action: str,
    target: str,
    *,
    at_ms: int,
    before: int,
    after: int,
    reason: str = "",
    cause: str = "",
) -> AuditEntry:
    """Return the row for something a principal did, or ``system`` on behalf of ``cause``."""
    return AuditEntry(
        at_ms=at_ms,
        actor=by.name,
        role=by.role,
        via=via.channel,
        request_id=via.request_id,
        action=action,
        target=target,
        reason=_cut(reason),
        cause=cause,
        version_before=before,
        version_after=after,
        sha256=via.sha256,
    )


async def read(
    store: DocumentStore, from_ms: int, to_ms: int, limit: int, cursor: str | None = None
) -> AuditPage:
    """Return the rows of a span of time, both ends included, oldest first."""
    page = await store.scan(LOG, from_ms, to_ms, limit=limit, cursor=cursor)
    return AuditPage(tuple(_decode(one.body) for one in page.entries), page.next)


class _Name(NamedTuple):
    """What is folded into one row."""

    actor: str
    action: str
    target: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A row's place in the log: its key and its minute; and whose it is."""

    key: str
    minute: int
    actor: str


class Refusals:
    """Folds the refusals of one actor, action, target and minute into one row with a count.

    Whoever floods it fills rows of their own only: targets beyond :data:`TARGETS_MAX` share one, rows
    beyond :data:`ACTOR_ROWS_MAX` share one of that actor, and everybody else is still named.

    ``note`` only counts, so it may stand on a hot path. ``flush`` writes every row that has changed over
    its earlier self: call it every few seconds and once more at the end. What a crash can lose is the
    counting since the last flush.
    """

    def __init__(self, store: DocumentStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        # Two processes, or two runs within a minute, must not write over each other's counts.
        self._writer = ids.token(WRITER_BITS)
        self._folded: dict[_Place, AuditEntry] = {}
        self._unwritten: set[_Place] = set()
        self._targets: Counter[tuple[str, str, int]] = Counter()
        self._rows: Counter[str] = Counter()
        self._overflows: dict[str, _Place] = {}

    @property
    def keys(self) -> str:
        """What the log keys of all rows of this writer begin with."""
        return f"{REFUSED}{self._writer}/"

    def note(self, by: Actor, via: Via, action: str, target: str, reason: str, *, count: int = 1) -> None:
        """Count a refusal; the first of its minute lends the row its reason, way and request."""
        now_ms = self._clock.now_ms()
        wanted = _Name(_cut(by.name), _cut(action), _cut(target))
        place, name = self._find(wanted, now_ms // MS_PER_MINUTE)
        first = self._folded.get(place) or AuditEntry(
            at_ms=now_ms,
            actor=name.actor,
            role=by.role,
            via=_cut(via.channel),
            request_id=_cut(via.request_id),
            action=name.action,
            target=name.target,
            decision=Decision.REFUSED,
            reason=_cut(reason),
            count=0,
        )
        self._folded[place] = replace(first, count=first.count + count)
        self._unwritten.add(place)

    async def flush(self) -> None:
        """Write what has changed; rows of past minutes are let go once they are written."""
        changed = {place: self._folded[place] for place in self._unwritten}
        if changed:
            await self._store.append(
                [
                    _placed(row, place.key, place.minute)
                    for place, row in sorted(changed.items(), key=_in_order)
                ]
            )
        self._let_go(changed)

    def _find(self, name: _Name, minute: int) -> tuple[_Place, _Name]:
        """Return the row that counts a refusal, and what it says: the most exact for which there is room."""
        place = self._placing(name, minute)
        if place in self._folded:
            return place, name
        told_apart = (name.actor, name.action, minute)
        if self._targets[told_apart] >= TARGETS_MAX:
            name = name._replace(target=OTHERS)
            place = self._placing(name, minute)
            if place in self._folded:
                return place, name
        if not self._has_room(name.actor):
            return self._overflow(name.actor, minute)
        self._rows[name.actor] += 1
        self._targets[told_apart] += 1
        return place, name

    def _placing(self, name: _Name, minute: int) -> _Place:
        return _Place(self.keys + "/".join(name), minute, name.actor)

    def _has_room(self, actor: str) -> bool:
        held = len(self._folded) - len(self._overflows)
        return self._rows[actor] < ACTOR_ROWS_MAX and held < REFUSALS_FOLDED_MAX

    def _overflow(self, actor: str, minute: int) -> tuple[_Place, _Name]:
        """Return the row for all that is too much of an actor: this minute's, or one still unwritten."""
        if actor not in self._overflows and len(self._overflows) >= ACTORS_MAX:
            actor = OTHERS
        place = self._overflows.get(actor)
        if place is None or place not in self._unwritten:
            place = _Place(f"{self.keys}{actor}/{OTHERS}", minute, actor)
        self._overflows[actor] = place
        return place, _Name(actor, OTHERS, OTHERS)

    def _let_go(self, written: Mapping[_Place, AuditEntry]) -> None:
        # Counted on while it was being written: stays for the next flush.
        self._unwritten = {
            place for place in self._unwritten if self._folded[place] is not written.get(place)
        }
        minute = self._clock.now_ms() // MS_PER_MINUTE
        self._folded = {
            place: row
            for place, row in self._folded.items()
            if place.minute == minute or place in self._unwritten
        }
        self._count_anew()

    def _count_anew(self) -> None:
        """Count what is left by whose it is."""
        self._overflows = {actor: place for actor, place in self._overflows.items() if place in self._folded}
        overflows = set(self._overflows.values())
        apart = [(place, row) for place, row in self._folded.items() if place not in overflows]
        self._rows = Counter(place.actor for place, _ in apart)
        self._targets = Counter((place.actor, row.action, place.minute) for place, row in apart)


def _in_order(item: tuple[_Place, AuditEntry]) -> tuple[str, int]:
    return item[0].key, item[0].minute


def _placed(row: AuditEntry, key: str, number: int) -> Entry:
    return Entry(LOG, key, number, row.at_ms, _encode(replace(row, id=f"{key}:{number}")))


def _cut(text: str) -> str:
    # Lone surrogates and NUL can come out of a URL, and no store keeps them: the rows behind would wait.
    return text[:TEXT_CHARS_MAX].encode(errors="replace").decode().replace("\0", "?")
