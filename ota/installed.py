"""What crews tell afterwards of what they installed on site, however late. It annotates, and decides nothing.

Only the device's own report closes a target; what is told here says by what way its image came there. The
clock of a field tool is its own: its times are kept beside ours and are in none of our figures.
(spec: ota, 10)
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue, Write
from infra.documents.records import Records
from ota.errors import OtaError
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal

INSTALLED: Final = Collection("ota_installed", ("thing",))
NOTES_MAX: Final = 100
"""Notes of one thing that are kept: a crew comes a few times in a device's life."""


class Result(StrEnum):
    """How it ended, in the device's own words."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


class OtherNoteError(OtaError):
    """Something else was told of the same installation before."""

    def __init__(self) -> None:
        super().__init__("this installation was told of before, and differently: the first note stands")


class NotesFullError(OtaError):
    """As much was told of the thing as is kept: nothing is let go for more."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"{NOTES_MAX} installations of {thing} on site are kept, and no more")
        self.thing = thing


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One installation. Times of the tool are seconds since the epoch, by its own clock."""

    thing: str
    order: str
    """SHA-256 of the utility's order, 64 lower-case hex; so are the next two."""
    manifest: str
    sha256: str
    started_at: int
    finished_at: int
    result: Result
    operator: str
    """Who was there."""
    noted_at_ms: int = 0
    """When we were told, by our clock."""
    by: str = ""


Listener = Callable[[str], None]
"""Is told of which thing something new is known. Must not raise or wait."""


class InstalledService:
    """Keeps the notes."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._records = Records(store, INSTALLED.name, Installed, _found_by)
        self._audited = Audited(self._records, clock, "installed")
        self.listeners: list[Listener] = []

    async def note(self, new: Installed, by: Principal, via: Via = INSIDE) -> Installed:
        """Keep what was told of an installation; told again it is the same note.

        Raises:
            OtherNoteError: something else was told of it before.
            NotesFullError: there is no room for another one.
        """

        def decide(before: Installed | None) -> Installed:
            if before is None:
                return replace(new, noted_at_ms=self._clock.now_ms(), by=by.name)
            if replace(before, noted_at_ms=0, by="") != replace(new, noted_at_ms=0, by=""):
                raise OtherNoteError
            return before

        if await self._records.load(_id(new)) is None and not await self._has_room(new.thing):
            raise NotesFullError(new.thing)
        kept = await self._audited.change(_id(new), decide, "installed.note", by, via)
        for listener in self.listeners:
            listener(new.thing)
        return kept

    async def of_thing(self, thing: str) -> tuple[Installed, ...]:
        """Return what was told of a thing, the newest first."""
        found = await self._records.load_by("thing", [thing], NOTES_MAX)
        return tuple(sorted(found, key=lambda one: (one.started_at, one.noted_at_ms), reverse=True))

    async def on_site(self, thing: str) -> frozenset[str]:
        """Return the images that were installed there on site."""
        return frozenset(one.sha256 for one in await self.of_thing(thing) if one.result is Result.SUCCEEDED)

    async def forget(self, thing: str) -> None:
        """Erase the notes of a thing that has gone."""
        while found := await self._store.find_in(INSTALLED.name, "thing", [thing], limit=NOTES_MAX):
            await self._store.commit([Write(INSTALLED.name, one.id, one.revision, None) for one in found])

    async def _has_room(self, thing: str) -> bool:
        return await self._store.count(INSTALLED.name, "thing", thing, thing, at_most=NOTES_MAX) < NOTES_MAX


def _id(new: Installed) -> str:
    key = f"{new.thing}\n{new.order}\n{new.started_at}"
    return "i-" + hashlib.sha256(key.encode()).hexdigest()[:32]


def _found_by(one: Installed) -> Mapping[str, IndexValue]:
    return {"thing": one.thing}
