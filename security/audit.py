"""What is written down about privileged acts and refusals, and where it is read again.

An act's row travels in the same write as the act, so there is one if and only if the act happened; its
place in the log follows from the act, so a repeated write stores the same row. Refusals belong to no write
and are folded: nobody can flood the log. Rows hold names of things and principals, never personal data,
secrets or state. Who may read them is not decided here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security.policy import Principal

LOG: Final = "audit"
REFUSALS_FOLDED_MAX: Final = 4_096
"""Different refusals held apart at a time; further ones are counted together under :data:`OTHERS`."""
TEXT_CHARS_MAX: Final = 256
"""Length of a text that came from outside; the rest is cut off."""
REFUSED: Final = "refused/"
"""What the log keys of folded refusals begin with; their number is the minute."""
OTHERS: Final = "(others)"
"""Stands for every actor, action and target of the refusals that were too many to tell apart."""
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


class Refusals:
    """Folds equal refusals of one actor, action, target and minute into one row with a count.

    ``note`` only counts, so it may stand on a hot path. ``flush`` writes every row that has changed over
    its earlier self: call it every few seconds and once more at the end. What a crash can lose is the
    counting since the last flush.
    """

    def __init__(self, store: DocumentStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        # Two processes, or two runs within a minute, must not write over each other's counts.
        self._writer = ids.token(WRITER_BITS)
        self._folded: dict[tuple[str, int], AuditEntry] = {}
        self._unwritten: set[tuple[str, int]] = set()
        self._others: tuple[str, int] | None = None

    @property
    def keys(self) -> str:
        """What the log keys of all rows of this writer begin with."""
        return f"{REFUSED}{self._writer}/"

    def note(self, by: Actor, via: Via, action: str, target: str, reason: str, *, count: int = 1) -> None:
        """Count a refusal; the first of its minute lends the row its reason, way and request."""
        now_ms = self._clock.now_ms()
        actor, action, target = _cut(by.name), _cut(action), _cut(target)
        place = (f"{self.keys}{actor}/{action}/{target}", now_ms // MS_PER_MINUTE)
        if place not in self._folded and len(self._folded) >= REFUSALS_FOLDED_MAX:
            place, actor, action, target = self._overflow(now_ms), OTHERS, OTHERS, OTHERS
        first = self._folded.get(place) or AuditEntry(
            at_ms=now_ms,
            actor=actor,
            role=by.role,
            via=_cut(via.channel),
            request_id=_cut(via.request_id),
            action=action,
            target=target,
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
                [_placed(row, key, minute) for (key, minute), row in sorted(changed.items(), key=_place)]
            )
        self._let_go(changed)

    def _overflow(self, now_ms: int) -> tuple[str, int]:
        """Return the place of the row for all that is too much: this minute's, or one still unwritten."""
        if self._others is None or self._others not in self._unwritten:
            self._others = (f"{self.keys}{OTHERS}", now_ms // MS_PER_MINUTE)
        return self._others

    def _let_go(self, written: Mapping[tuple[str, int], AuditEntry]) -> None:
        # Counted on while it was being written: stays for the next flush.
        self._unwritten = {
            place for place in self._unwritten if self._folded[place] is not written.get(place)
        }
        minute = self._clock.now_ms() // MS_PER_MINUTE
        done = [place for place in self._folded if place[1] != minute and place not in self._unwritten]
        for place in done:
            del self._folded[place]


def _place(item: tuple[tuple[str, int], AuditEntry]) -> tuple[str, int]:
    return item[0]


def _placed(row: AuditEntry, key: str, number: int) -> Entry:
    return Entry(LOG, key, number, row.at_ms, _encode(replace(row, id=f"{key}:{number}")))


def _cut(text: str) -> str:
    # Lone surrogates and NUL can come out of a URL, and no store keeps them: the rows behind would wait.
    return text[:TEXT_CHARS_MAX].encode(errors="replace").decode().replace("\0", "?")
