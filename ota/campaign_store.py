"""Campaigns and the names of their targets to documents and back. No decisions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue, Write
from infra.documents.records import Kept, RecordPage, Records
from ota.campaign import LIVE, TARGETS_MAX, Campaign
from ota.errors import CampaignNotFoundError
from ota.states import CampaignState
from security import audit
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal, Role

CAMPAIGNS: Final = Collection("ota_campaigns", ("listed", "state", "release", "at_work", "ended_at_ms"))
TARGETS: Final = Collection("ota_targets", ())
NAMES_PER_PART: Final = 1_000
PARTS_MAX: Final = TARGETS_MAX // NAMES_PER_PART
LISTED: Final = 1
AT_WORK: Final = 1
SYSTEM: Final = Principal("campaigns", Role.SYSTEM)
"""By whom a campaign does what it does by itself."""
LIVE_MAX: Final = 1_000
"""Campaigns in one state that are looked through."""
NOUN: Final = "campaign"

_log: Final = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Names(NamedTuple):
    """Who is meant by a campaign."""

    ordered: tuple[str, ...]
    """In the order: sorted by their UTF-8 bytes."""
    replaced: tuple[str, ...]
    """Those that take no firmware, and have to be replaced."""


class _Part(msgspec.Struct, frozen=True):
    ordered: tuple[str, ...]
    replaced: tuple[str, ...]


_campaign: Final = msgspec.json.Decoder(Campaign).decode
_part: Final = msgspec.json.Decoder(_Part).decode


class CampaignStore:
    """Loads and saves campaigns; each change by a person or of its own has its audit row."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._records = Records(store, CAMPAIGNS.name, Campaign, _found_by)
        self._audited = Audited(self._records, clock, NOUN)

    async def load(self, id: str) -> Kept[Campaign]:
        """Return a campaign."""
        kept = await self._records.load(id)
        if kept is None:
            raise CampaignNotFoundError(id)
        return kept

    async def load_all(self, ids: Sequence[str]) -> dict[str, Campaign]:
        """Return those that there are."""
        return await self._records.load_all(ids)

    async def page(self, state: CampaignState | None, limit: int, cursor: str | None) -> RecordPage[Campaign]:
        """Return a page of all campaigns, or of those in one state."""
        field, value = ("listed", LISTED) if state is None else ("state", str(state))
        return await self._records.page(field, value, value, limit, cursor)

    async def live(self) -> int:
        """Return how many were approved and are not over."""
        return len(await self._records.load_by("state", [str(state) for state in sorted(LIVE)], LIVE_MAX))

    async def change(
        self,
        id: str,
        decide: Callable[[Campaign | None], Campaign],
        action: str,
        by: Principal,
        via: Via,
        reason: str = "",
    ) -> Campaign:
        """Put what ``decide`` makes of a campaign in its place, with its audit row."""
        return await self._audited.change(id, decide, action, by, via, reason=reason)

    async def at_work(self) -> list[Kept[Campaign]]:
        """Return the campaigns of which something may have to be carried out.

        One that cannot be read is logged, and stops no other.
        """
        page = await self._store.find(CAMPAIGNS.name, "at_work", AT_WORK, AT_WORK, limit=LIVE_MAX)
        found: list[Kept[Campaign]] = []
        for one in page.documents:
            try:
                found.append(Kept(_campaign(one.body), one.revision))
            except msgspec.DecodeError as error:
                _log.error("campaign_unreadable", campaign=one.id, reason=str(error))
        return found

    async def ended_since(self, at_ms: int) -> list[Campaign]:
        """Return the campaigns that ended at this time or later."""
        page = await self._records.page("ended_at_ms", at_ms, self._clock.now_ms(), LIVE_MAX)
        return list(page.records)

    async def note(
        self, campaign: Campaign, before: Kept[Campaign], action: str = "", reason: str = ""
    ) -> Kept[Campaign] | None:
        """Write what no person did; with an ``action`` it has its row. None: others were first."""
        entry = None
        if action:
            row = audit.act(
                SYSTEM,
                INSIDE,
                action,
                f"{NOUN}/{campaign.id}",
                at_ms=self._clock.now_ms(),
                before=before.revision,
                after=before.revision + 1,
                reason=reason,
            )
            entry = audit.entry(row, before.revision + 1, life=0)
        won = await self._records.put(campaign.id, campaign, before.revision, entry)
        return Kept(campaign, before.revision + 1) if won else None

    async def tell(self, campaign: Campaign, action: str, by: Principal, via: Via) -> None:
        """Write a row about what changes nothing."""
        at_ms, version = self._clock.now_ms(), campaign.version
        row = audit.act(by, via, action, f"{NOUN}/{campaign.id}", at_ms=at_ms, before=version, after=version)
        await self._store.append([audit.entry(row, 0, life=at_ms)])

    async def remove(self, kept: Kept[Campaign], by: Principal, via: Via, action: str) -> bool:
        """Forget a draft; False: it has changed meanwhile."""
        id, revision = kept.record.id, kept.revision
        row = audit.act(
            by, via, action, f"{NOUN}/{id}", at_ms=self._clock.now_ms(), before=revision, after=revision + 1
        )
        return await self._records.take(id, revision, audit.entry(row, revision + 1, life=0))

    async def put_names(self, campaign: str, revision: int, names: Names) -> int:
        """Write who is meant; return in how many documents. The same again changes nothing."""
        assert len(names.ordered) + len(names.replaced) <= TARGETS_MAX, "more targets than there may be"
        parts = _parts(names)
        await self._store.commit(
            [
                Write(TARGETS.name, _part_id(campaign, revision, number), 0, _encode(part))
                for number, part in enumerate(parts)
            ]
        )
        return len(parts)

    async def names(self, campaign: str, revision: int, parts: int) -> Names:
        """Return who is meant."""
        ids = [_part_id(campaign, revision, number) for number in range(parts)]
        documents = await self._store.get(TARGETS.name, ids)
        found = [_part(documents[id].body) for id in ids]
        return Names(
            tuple(name for part in found for name in part.ordered),
            tuple(name for part in found for name in part.replaced),
        )

    async def drop_names(self, campaign: str, revision: int) -> None:
        """Forget who was meant by an order that never was signed."""
        ids = [_part_id(campaign, revision, number) for number in range(PARTS_MAX)]
        documents = await self._store.get(TARGETS.name, ids)
        await self._store.commit(
            [Write(TARGETS.name, one.id, one.revision, None) for one in documents.values()]
        )


def _parts(names: Names) -> list[_Part]:
    count = max(len(names.ordered), len(names.replaced))
    spans = [slice(first, first + NAMES_PER_PART) for first in range(0, count, NAMES_PER_PART)]
    return [_Part(names.ordered[span], names.replaced[span]) for span in spans]


def _part_id(campaign: str, revision: int, number: int) -> str:
    return f"{campaign}:{revision}:{number}"


def _found_by(campaign: Campaign) -> Mapping[str, IndexValue]:
    index: dict[str, IndexValue] = {
        "listed": LISTED,
        "state": str(campaign.state),
        "release": campaign.terms.release,
    }
    if campaign.is_at_work:
        index["at_work"] = AT_WORK
    if campaign.ended_at_ms:
        index["ended_at_ms"] = campaign.ended_at_ms
    return index
