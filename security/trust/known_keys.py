"""Keys that were ever brought: each serves one claim, once. One that comes again was copied.

The first to bring a key inserts its SHA-256, and that insert is the decision. Whoever brings it for something
else is refused, somebody is told, and the suspicion is noted on both things: which of the two is the copy is
not to be known from here.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, Write
from infra.telemetry.metrics import Count
from security import audit
from security.audit import Via
from security.policy import Principal

KNOWN_KEYS: Final = Collection("known_keys")
SUSPICIONS: Final = Collection("suspicions")
NOTED_MAX: Final = 16
"""Times that are kept of one thing's suspicions, the last ones."""
NOTE_ATTEMPTS_MAX: Final = 5

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bringer:
    """For which thing, and for which claim or renewal, a key was brought."""

    thing: str
    purpose: str
    registration: int = field(default=1, compare=False)
    """Of the thing: what is noted of it is not a later one's of the name. It makes no other purpose."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A thing one of whose keys was brought twice: how often, and when last."""

    count: int = 0
    at_ms: tuple[int, ...] = ()
    registration: int = 1


class KeyKnownError(Exception):
    """This key has been brought before, for something else."""

    def __init__(self) -> None:
        super().__init__("this key has been used before: make a new one, and let nobody copy it")


_encode: Final = msgspec.json.Encoder().encode
_bringer: Final = msgspec.json.Decoder(Bringer).decode
_suspicion: Final = msgspec.json.Decoder(Suspicion).decode


class KnownKeys:
    """Lets a key in once."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.duplicates = Count()

    async def introduce(self, spki: str, bringer: Bringer, by: Principal, via: Via) -> None:
        """Let a key in for this purpose; for the same purpose it may come again, after a crash.

        Raises:
            KeyKnownError: it served another one; that is noted, and told.
        """
        if not await self._store.commit([Write(KNOWN_KEYS.name, spki, 0, _encode(bringer))]):
            return
        first = _bringer((await self._store.get(KNOWN_KEYS.name, [spki]))[spki].body)
        if first == bringer:
            return
        self.duplicates.inc()
        _log.error("enrolment_key_seen_before", thing=bringer.thing, first=first.thing)
        for thing, registration in sorted({(one.thing, one.registration) for one in (first, bringer)}):
            await self._note(thing, registration, by, via)
        raise KeyKnownError

    async def suspicion(self, thing: str, registration: int) -> Suspicion:
        """Return what is noted on a thing; nothing of an earlier one of its name."""
        noted = (await self._load(thing))[0]
        return noted if noted.registration == registration else Suspicion(registration=registration)

    async def _note(self, thing: str, registration: int, by: Principal, via: Via) -> None:
        now_ms = self._clock.now_ms()
        for _ in range(NOTE_ATTEMPTS_MAX):
            before, revision = await self._load(thing)
            if before.registration > registration:
                return  # that thing is gone, and the one that has its name now is another
            if before.registration < registration:
                before = Suspicion(registration=registration)
            after = replace(before, count=before.count + 1, at_ms=(*before.at_ms, now_ms)[-NOTED_MAX:])
            row = audit.act(
                by,
                via,
                "thing.suspect",
                f"suspicion/{thing}",
                at_ms=now_ms,
                before=revision,
                after=revision + 1,
                reason="a key was brought twice",
            )
            entry = audit.entry(row, revision + 1, life=0)
            if not await self._store.commit(
                [Write(SUSPICIONS.name, thing, revision, _encode(after), entries=(entry,))]
            ):
                return

    async def _load(self, thing: str) -> tuple[Suspicion, int]:
        document = (await self._store.get(SUSPICIONS.name, [thing])).get(thing)
        return (Suspicion(), 0) if document is None else (_suspicion(document.body), document.revision)
