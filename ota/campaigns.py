"""The campaigns: what people do with them, and what others must know of them.

Who may do what is the permission table's; that nobody starts what they wrote is the campaign's own rule. What
is carried out is carried out by ``executor``: an act here is one commit, and wakes it. (spec: ota, 9)
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore
from infra.documents.records import SAVE_ATTEMPTS_MAX
from infra.ids import Ids
from infra.machines import IllegalTransitionError
from infra.settings.model import OtaSettings
from infra.versions import check_version
from ota import campaign as acts
from ota import clocks, needs, pace
from ota.campaign import TARGETS_MAX, Campaign, Frozen, Path, Terms, wave_ends
from ota.campaign_ports import Releases, ReleaseView, Signer
from ota.campaign_store import NOUN, CampaignStore, Names
from ota.clocks import Figures
from ota.data import RESET
from ota.envelope import Typ, open_envelope
from ota.errors import (
    CampaignNotFoundError,
    CampaignUnfitError,
    ExecutionBusyError,
    OtherRequestError,
    TargetNotFoundError,
    TooManyCampaignsError,
)
from ota.evidence import Wanted
from ota.execution_store import Act
from ota.executions import ThingJobs, moved
from ota.facts import FactReader
from ota.fields import uuid_text
from ota.lane import Change, Decision, ExecutionLane, Failed
from ota.manifest import DataMode
from ota.models import Execution
from ota.needs import DeviceFacts, Need, Reason
from ota.order import Order
from ota.packing import Contents, NoBundleError
from ota.plan import ORDER_EXPIRED
from ota.rolls import Rolls
from ota.service_levels import SINCE_MS, ServiceLevels, combined
from ota.states import (
    ACTIVE,
    CAMPAIGN,
    WAITING,
    CampaignState,
    CampaignTrigger,
    ExecutionState,
    ExecutionTrigger,
)
from ota.trees import name_tree
from ota.verification import Refused, signed_order
from registry.catalogue import HealthSign, ModelCatalogue
from security.audit import INSIDE, Via
from security.audited import RecordBusyError
from security.policy import Action, Principal

RUNNING_MAX: Final = 50
"""Those that wait for their time included: all of them may begin at the same hour."""
WANTED_KEPT_MAX: Final = 200
"""Campaigns of which it is remembered what they want."""
EARLY_S: Final = 3_600
"""An order holds from a little before it is made, for devices whose clocks are behind."""
TAKEN_OUT: Final = frozenset({ExecutionState.CANCELED, ExecutionState.REMOVED, ExecutionState.SKIPPED})
CANCELED_BY_HAND: Final = "canceled"
RELEASE_WITHDRAWN: Final = "release_withdrawn"
RELEASE_EXPIRED: Final = "release_expired"
KEY_REVOKED: Final = "key_revoked"
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Who would get it, who would not and why, and what people should know."""

    included: int
    replaced: int
    """Those that have to be replaced: targets, but not of the order."""
    excluded: Mapping[str, int]
    """How many, by reason. Of those that take no part only the number is known."""
    warnings: Mapping[str, int]
    waves: tuple[int, ...]
    """How many targets each wave comes to, earlier ones included."""
    forecast_end_ms: int
    """At the earliest, started now."""


@dataclass(slots=True)
class _Found:
    """Devices that were looked at, sorted out."""

    ordered: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)

    @property
    def names(self) -> Names:
        """Return who is meant, in the order in which it is signed."""
        return Names(tuple(sorted(self.ordered)), tuple(sorted(self.replaced)))

    def add(self, facts: DeviceFacts, need: Need, campaign: str, now_ms: int) -> None:
        """Sort out one more."""
        reason = needs.why_not(facts, need, campaign)
        if reason is None:
            self.ordered.append(facts.device.id)
            self.warnings.update(str(one) for one in needs.warnings_of(facts, need, now_ms))
            return
        if reason is Reason.OTA_NONE:
            self.replaced.append(facts.device.id)
        self.excluded[str(reason)] += 1


@dataclass(frozen=True, slots=True)
class CampaignPage:
    """Campaigns in a fixed order; ``next`` continues after the last, None = no more."""

    campaigns: tuple[Campaign, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class TargetPage:
    """Targets in the order of their places; ``next`` is the place to go on after, None = no more."""

    executions: tuple[Execution, ...]
    next: int | None


class CampaignService:
    """What people do with campaigns."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        ids: Ids,
        settings: OtaSettings,
        *,
        lane: ExecutionLane,
        rolls: Rolls,
        facts: FactReader,
        models: ModelCatalogue,
        releases: Releases,
        signer: Signer,
    ) -> None:
        self.store = CampaignStore(store, clock)
        self.listeners: list[Callable[[], None]] = []
        """Called when something has changed that is to be carried out soon. Must not block or raise."""
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._lane = lane
        self._rolls = rolls
        self._facts = facts
        self._models = models
        self._releases = releases
        self._signer = signer
        self._wanted: dict[str, Wanted] = {}

    # Reading

    async def campaign(self, id: str) -> Campaign:
        """Return a campaign."""
        return (await self.store.load(id)).record

    async def page(
        self, limit: int, cursor: str | None = None, state: CampaignState | None = None
    ) -> CampaignPage:
        """Return a page of the campaigns, or of those in one state."""
        page = await self.store.page(state, limit, cursor)
        return CampaignPage(page.records, page.next)

    async def counts(self, id: str) -> Mapping[str, int]:
        """Return how many targets are waiting, active, and in each final state."""
        return buckets((await self._rolls.roll(id)).counts)

    async def figures(self, campaign: Campaign) -> Figures:
        """Return how long devices take, and how many are done in an hour."""
        roll = await self._rolls.roll(campaign.id)
        return clocks.figures(
            roll.targets(),
            self._settings.deadline_s * MS_PER_S,
            self._clock.now_ms(),
            prestage=campaign.terms.prestage,
        )

    async def service_levels(self) -> ServiceLevels:
        """Return how the fleet stands to what is set."""
        at_work = [one.record for one in await self.store.at_work()]
        ended = await self.store.ended_since(self._clock.now_ms() - SINCE_MS)
        every = {one.id: one for one in (*at_work, *ended)}
        return combined(
            [await self.figures(one) for one in every.values()],
            limit_ms=self._settings.deadline_s * MS_PER_S,
            per_hour=self._settings.devices_per_hour,
        )

    async def execution(self, id: str, thing: str) -> Execution:
        """Return a target."""
        found = await self._lane.load(id, thing)
        if found is None:
            raise TargetNotFoundError(thing)
        return found

    async def executions(
        self, id: str, limit: int, after: int = -1, keep: Callable[[Execution], bool] | None = None
    ) -> TargetPage:
        """Return a page of the targets that are to be kept, those whose places come after this one."""
        targets = (await self._rolls.roll(id)).targets()
        start = bisect_right(targets, after, key=lambda one: one.place)
        kept = (one for one in islice(targets, start, None) if keep is None or keep(one))
        found = tuple(islice(kept, limit + 1))
        return TargetPage(found[:limit], found[limit - 1].place if len(found) > limit else None)

    async def wanted(self, campaigns: Collection[str]) -> Mapping[str, Wanted]:
        """Return what those campaigns that were approved want of each of their targets: it never changes."""
        unknown = [id for id in campaigns if id not in self._wanted]
        for id, one in (await self.store.load_all(unknown)).items() if unknown else ():
            if one.frozen is not None and one.approver:
                self._wanted[id] = await self._wanted_of(one, one.frozen)
        found = {id: self._wanted[id] for id in campaigns if id in self._wanted}
        while len(self._wanted) > WANTED_KEPT_MAX:
            del self._wanted[next(iter(self._wanted))]
        return found

    async def _wanted_of(self, campaign: Campaign, frozen: Frozen) -> Wanted:
        release = await self._releases.view(campaign.terms.release)
        model = (await self._models.models([release.model])).get(release.model)
        firmware = None if model is None else model.firmware
        return Wanted(
            sha256=frozen.image,
            schema=release.manifest.config_schema,
            data=campaign.terms.data,
            health_ms=campaign.terms.health_s * MS_PER_S,
            gate=firmware is None or firmware.gate,
            by_session=firmware is not None and firmware.health is HealthSign.SESSION,
            local=campaign.terms.path is Path.LOCAL,
            release=campaign.terms.release,
        )

    async def contents(self, campaign: str) -> Contents:
        """Return what a campaign says that crews carry out on site; raises :class:`NoBundleError`."""
        try:
            one = await self.campaign(campaign)
        except CampaignNotFoundError as error:
            raise NoBundleError(campaign) from error
        frozen = one.frozen
        stands = one.is_over or one.state is CampaignState.PAUSED
        if frozen is None or not one.order or stands or one.terms.path is not Path.LOCAL:
            raise NoBundleError(campaign)
        release = await self._releases.view(one.terms.release)
        if not release.is_released:
            raise NoBundleError(campaign)
        names = (await self.store.names(campaign, frozen.revision, frozen.parts)).ordered
        roll, facts = await self._rolls.roll(campaign), await self._facts.of(names)
        return Contents(
            manifest=release.envelope,
            order=one.order,
            names=names,
            targets=frozenset(name for name in names if _is_on_site(roll.get(name), facts.get(name))),
            sha256=frozen.image,
            block=release.manifest.block,
        )

    # Drafts

    def terms(self, **wishes: Any) -> Terms:  # noqa: ANN401 - fields of it
        """Return what an author wants; what is not said is as the settings have it."""
        usual = self._settings
        said: dict[str, Any] = {
            "per_hour": usual.devices_per_hour,
            "max_in_flight": usual.in_flight,
            "lasts_ms": usual.order_days * 86_400_000,
            "deadline_s": usual.deadline_s,
            "start_grace_s": usual.start_grace_s,
            "confirm_s": usual.confirm_s,
            "health_s": usual.health_s,
            "soak_s": usual.soak_s,
            "pause_ttl_s": usual.pause_ttl_s,
            "retries": usual.retries,
            "time_zone": usual.time_zone,
        }
        return Terms(**(said | wishes))

    async def create(self, terms: Terms, by: Principal, via: Via = INSIDE, key: str = "") -> Campaign:
        """Make a draft. The same ``key`` of the same caller with the same terms is the same draft."""
        await self._check_terms(terms)
        id = self._id(by, key)
        digest = hashlib.sha256(_encode(terms)).hexdigest() if key else ""

        def decide(before: Campaign | None) -> Campaign:
            if before is None:
                return acts.create(id, terms, by.name, self._clock.now_ms(), digest)
            if before.request != digest:
                raise OtherRequestError
            return before

        return await self.store.change(id, decide, Action.CAMPAIGN_CREATE, by, via)

    async def edit(
        self, id: str, terms: Terms, by: Principal, via: Via = INSIDE, *, if_match: int | None = None
    ) -> Campaign:
        """Put other terms in place of a draft's; what was frozen is not any more."""
        await self._check_terms(terms)

        def decide(before: Campaign) -> Campaign:
            check_version(before.version, if_match)
            return acts.edit(before, terms, by.name, self._clock.now_ms())

        return await self._change(id, decide, "campaign.edit", by, via)

    async def delete(self, id: str, by: Principal, via: Via = INSIDE) -> None:
        """Forget a draft."""
        kept = await self.store.load(id)
        if kept.record.state not in {CampaignState.DRAFT, CampaignState.FROZEN}:
            raise IllegalTransitionError(CAMPAIGN.name, kept.record.state, CampaignTrigger.EDIT)
        if not await self.store.remove(kept, by, via, "campaign.delete"):
            raise RecordBusyError("campaign")
        await self._drop_names(kept.record)
        self._tell()

    async def dry_run(self, id: str, by: Principal, via: Via = INSIDE) -> DryRun:
        """Return what submitting it now would freeze; that somebody looked has its row."""
        campaign = await self.campaign(id)
        release = await self._releases.view(campaign.terms.release)
        found = self._summary(campaign.terms, await self._look(campaign.terms, release, id))
        await self.store.tell(campaign, "campaign.dry_run", by, via)
        return found

    async def submit(
        self, id: str, by: Principal, via: Via = INSIDE, *, note: str = "", if_match: int | None = None
    ) -> Campaign:
        """Freeze the targets and the order, for a second person to approve."""
        kept = await self.store.load(id)
        check_version(kept.record.version, if_match)
        CAMPAIGN.after(kept.record.state, CampaignTrigger.SUBMIT)
        terms, release = kept.record.terms, await self._releases.view(kept.record.terms.release)
        found = await self._look(terms, release, id)
        self._check_fit(terms, release, found.names)
        # Looking takes its time: whoever was faster keeps the names that they froze.
        check_version((await self.campaign(id)).version, kept.record.version)
        frozen = await self._frozen(kept.record, release, found)

        def decide(before: Campaign) -> Campaign:
            check_version(before.version, kept.record.version)
            return acts.submit(before, frozen, by.name, self._clock.now_ms(), note)

        try:
            return await self._change(id, decide, "campaign.submit", by, via, note)
        except CampaignNotFoundError:
            # Deleted meanwhile, with the names that were there then: of these nobody would know.
            await self.store.drop_names(id, frozen.revision)
            raise

    # The second person

    async def approve(
        self,
        id: str,
        by: Principal,
        via: Via = INSIDE,
        *,
        reason: str = "",
        order: bytes | None = None,
        if_match: int | None = None,
    ) -> Campaign:
        """Have the order signed, or take it signed by the approver's own key, and let the campaign begin."""
        kept = await self.store.load(id)
        before = kept.record
        check_version(before.version, if_match)
        now_ms = self._clock.now_ms()
        acts.approve(before, b"", by.name, now_ms, reason)  # raises before anything is signed
        assert before.frozen is not None, "what can be approved was frozen"
        if await self.store.live() >= RUNNING_MAX:
            raise TooManyCampaignsError(RUNNING_MAX)
        signed = await self._signed(before, before.frozen, order)

        def decide(now: Campaign) -> Campaign:
            check_version(now.version, before.version)
            return acts.approve(now, signed, by.name, now_ms, reason)

        return await self._change(id, decide, Action.CAMPAIGN_APPROVE, by, via, reason)

    async def resume(self, id: str, note: str, by: Principal, via: Via = INSIDE) -> Campaign:
        """Let a paused campaign go on; after a pause that no person made, another person than its author.

        One that would have to stop again at once does not go on: meanwhile devices would be let go on.
        """
        found, now_ms = await self.campaign(id), self._clock.now_ms()
        acts.resume(found, note, by.name, now_ms)  # raises what it has to
        assert found.frozen is not None, "what is paused was frozen"
        reason = await unfit(found, self._releases, self._signer, now_ms)
        if now_ms >= found.frozen.not_after_s * MS_PER_S:
            reason = ORDER_EXPIRED
        if reason:
            raise CampaignUnfitError((reason,))
        return await self._change(
            id,
            lambda before: acts.resume(before, note, by.name, self._clock.now_ms()),
            Action.CAMPAIGN_RESUME,
            by,
            via,
            note,
        )

    # Stopping

    async def pause(self, id: str, note: str, by: Principal, via: Via = INSIDE) -> Campaign:
        """Offer nothing more and let nobody go on, until it is resumed."""
        return await self._change(
            id,
            lambda before: acts.pause(before, note, by.name, self._clock.now_ms(), automatic=False),
            Action.CAMPAIGN_PAUSE,
            by,
            via,
            note,
        )

    async def abort(self, id: str, note: str, by: Principal, via: Via = INSIDE) -> Campaign:
        """End a campaign: whoever has not been let go on keeps what it runs."""
        return await self._change(
            id,
            lambda before: acts.abort(before, note, by.name, self._clock.now_ms()),
            Action.CAMPAIGN_ABORT,
            by,
            via,
            note,
        )

    async def cancel(
        self, id: str, thing: str, by: Principal, via: Via = INSIDE, note: str = ""
    ) -> Execution:
        """End one target that was not let go on."""
        act = Act(by, via, "campaign.cancel_target", note)
        return await self._move(id, thing, ExecutionTrigger.CANCEL, act, reason=CANCELED_BY_HAND)

    async def retry(self, id: str, thing: str, by: Principal, via: Via = INSIDE, note: str = "") -> Execution:
        """Plan one target that failed once more, whatever its retries."""
        # Nothing is written for one that cannot be tried again.
        moved(await self.execution(id, thing), ExecutionTrigger.RETRY, self._clock.now_ms())
        kept_open = await self._keep_open(id)
        by_ms = kept_open.open_until_ms - acts.HAND_MS_MAX
        act = Act(by, via, "campaign.retry_target", note)
        return await self._move(id, thing, ExecutionTrigger.RETRY, act, by_ms=by_ms)

    async def _keep_open(self, id: str) -> Campaign:
        """Have a campaign not end before one of its targets is planned once more."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self.store.load(id)
            noted = await self.store.note(acts.keep_open(kept.record, self._clock.now_ms()), kept)
            if noted is not None:
                return noted.record
        raise RecordBusyError(NOUN)

    async def _move(
        self,
        id: str,
        thing: str,
        trigger: ExecutionTrigger,
        act: Act,
        *,
        reason: str = "",
        by_ms: int | None = None,
    ) -> Execution:
        def decide(jobs: ThingJobs, now_ms: int) -> Decision[Execution | Exception]:
            before = jobs.find(id)
            if before is None:
                return Decision(TargetNotFoundError(thing))
            if by_ms is not None and now_ms > by_ms:
                return Decision(ExecutionBusyError(thing))
            try:
                after = moved(before, trigger, now_ms, reason=reason)
            except IllegalTransitionError as error:
                return Decision(error)
            return Decision(after, (after,), act)

        (answer,) = await self._lane.submit([Change(thing, decide, (id,))])
        if isinstance(answer, Failed):
            raise answer.error
        if isinstance(answer, Exception):
            raise answer
        self._tell()
        return answer

    # Details

    def _id(self, by: Principal, key: str) -> str:
        seed = f"{by.name}\n{key}" if key else self._ids.token()
        digest = bytearray(hashlib.sha256(b"campaign\n" + seed.encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80  # version 8 of RFC 9562: made by a rule of our own
        digest[8] = digest[8] & 0x3F | 0x80
        return uuid_text(bytes(digest))

    async def _change(
        self,
        id: str,
        act: Callable[[Campaign], Campaign],
        action: str,
        by: Principal,
        via: Via,
        reason: str = "",
    ) -> Campaign:
        def decide(before: Campaign | None) -> Campaign:
            if before is None:
                raise CampaignNotFoundError(id)
            return act(before)

        after = await self.store.change(id, decide, action, by, via, reason)
        self._tell()
        return after

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    async def _check_terms(self, terms: Terms) -> None:
        """Raise unless there can be such a campaign, and its release is there."""
        acts.check(terms)
        await self._releases.view(terms.release)

    async def _look(self, terms: Terms, release: ReleaseView, id: str) -> _Found:
        need, found, now_ms = need_of(terms, release), _Found(), self._clock.now_ms()
        async for some in self._facts.select(release.model, terms.selector):
            for facts in some:
                found.add(facts, need, id, now_ms)
        if strangers := await self._facts.strangers(terms.selector):
            found.excluded[Reason.NOT_ENROLLED] = strangers
        return found

    def _summary(self, terms: Terms, found: _Found) -> DryRun:
        ordered = len(found.ordered)
        waves = wave_ends(terms, ordered)
        return DryRun(
            included=ordered,
            replaced=len(found.replaced),
            excluded=dict(sorted(found.excluded.items())),
            warnings=dict(sorted(found.warnings.items())),
            waves=waves,
            forecast_end_ms=self._clock.now_ms() + _forecast_ms(terms, waves),
        )

    def _check_fit(self, terms: Terms, release: ReleaseView, names: Names) -> None:
        settings, mode, now_s = self._settings, mode_of(terms), self._clock.now_ms() // MS_PER_S
        checks = (
            (release.is_released, "release: it is not released"),
            (now_s < release.manifest.expires, "release: what its vendor said of it holds no longer"),
            (release.manifest.allows(mode), f"data: its vendor does not allow {terms.data}"),
            (bool(names.ordered or names.replaced), "targets: nobody needs it"),
            (len(names.ordered) + len(names.replaced) <= TARGETS_MAX, f"targets: over {TARGETS_MAX:,}"),
            (
                terms.per_hour <= settings.devices_per_hour_max,
                f"per_hour: over {settings.devices_per_hour_max:,}",
            ),
            (
                terms.max_in_flight <= settings.in_flight_max,
                f"max_in_flight: over {settings.in_flight_max:,}",
            ),
            (
                max(terms.start_at_ms, terms.activate_at_ms) < _holds_until_s(terms, now_s) * MS_PER_S,
                "start_at, activate_at: before its order ends",
            ),
        )
        failed = tuple(text for holds, text in checks if not holds)
        if failed:
            raise CampaignUnfitError(failed)

    async def _frozen(self, campaign: Campaign, release: ReleaseView, found: _Found) -> Frozen:
        revision = campaign.revision + 1
        await self._drop_names(campaign)
        names = found.names
        parts = await self.store.put_names(campaign.id, revision, names)
        ordered, now_s = names.ordered, self._clock.now_ms() // MS_PER_S
        return Frozen(
            revision=revision,
            targets=len(ordered) + len(names.replaced),
            ordered=len(ordered),
            root=name_tree(ordered).root.hex() if ordered else "",
            manifest=hashlib.sha256(release.envelope).hexdigest(),
            image=release.manifest.sha256,
            not_before_s=now_s - EARLY_S,
            not_after_s=_holds_until_s(campaign.terms, now_s),
            excluded=dict(sorted(found.excluded.items())),
            warnings=dict(sorted(found.warnings.items())),
            parts=parts,
        )

    async def _signed(self, campaign: Campaign, frozen: Frozen, given: bytes | None) -> bytes:
        """Return the signed order, checked as devices will (U11)."""
        names = await self.store.names(campaign.id, frozen.revision, frozen.parts)
        if not names.ordered:
            return b""  # there are only devices to be replaced
        if self._clock.now_ms() >= frozen.not_after_s * MS_PER_S:
            raise CampaignUnfitError(("order: it was submitted too long ago, and is over",))
        order = order_of(campaign, frozen)
        if name_tree(names.ordered).root != order.targets or len(names.ordered) != order.count:
            raise CampaignUnfitError(("order: the targets are not those that were submitted",))
        release = await self._releases.view(campaign.terms.release)
        self._check_fit(campaign.terms, release, names)
        signed = given if given is not None else await self._signer.sign(order)
        try:
            found = signed_order(signed, release.envelope, await self._signer.keys())
        except Refused as refused:
            raise CampaignUnfitError((str(refused),)) from refused
        if found != order:
            raise CampaignUnfitError(("V6 order_field: it says other things than what was submitted",))
        return signed

    async def _drop_names(self, campaign: Campaign) -> None:
        """Forget who a draft meant: what was frozen last, and what a try of the next revision left behind."""
        for revision in (campaign.revision, campaign.revision + 1):
            await self.store.drop_names(campaign.id, revision)


async def unfit(campaign: Campaign, releases: Releases, signer: Signer, now_ms: int) -> str:
    """Return why nothing of a campaign may be carried out now; empty: what was signed for it holds (U12)."""
    release = await releases.view(campaign.terms.release)
    if not release.is_released:
        return RELEASE_WITHDRAWN
    if now_ms >= release.manifest.expires * MS_PER_S:
        return RELEASE_EXPIRED
    if not campaign.order:
        return ""  # there are only devices to be replaced
    keys = await signer.keys()
    signed = (open_envelope(campaign.order, Typ.ORDER), open_envelope(release.envelope, Typ.MANIFEST))
    holds = all((key := keys.get(one.kid)) is not None and not key.revoked for one in signed)
    return "" if holds else KEY_REVOKED


def buckets(counts: Mapping[ExecutionState, int]) -> dict[str, int]:
    """Return the counts of targets as people see them; their sum is the number of targets."""
    waiting = sum(counts.get(state, 0) for state in WAITING)
    active = sum(counts.get(state, 0) for state in ACTIVE)
    final = [state for state in ExecutionState if state not in WAITING | ACTIVE]
    return {"waiting": waiting, "active": active} | {str(state): counts.get(state, 0) for state in final}


def _is_on_site(target: Execution | None, facts: DeviceFacts | None) -> bool:
    """Tell whether crews may install on a device: it takes part still, and nobody has taken it out."""
    return facts is not None and facts.in_scope and (target is None or target.state not in TAKEN_OUT)


def need_of(terms: Terms, release: ReleaseView) -> Need:
    """Return what a campaign wants to bring, and to whom."""
    return Need(
        manifest=release.manifest,
        model=release.model,
        path=terms.path,
        data=terms.data,
        pinned=frozenset(terms.selector.pinned),
    )


def mode_of(terms: Terms) -> DataMode:
    """Return what an order says of the configuration."""
    return DataMode.RESET if terms.data == RESET else DataMode.PRESERVE


def order_of(campaign: Campaign, frozen: Frozen) -> Order:
    """Return what is signed."""
    return Order(
        campaign=campaign.id,
        revision=frozen.revision,
        manifest=frozen.manifest,
        targets=bytes.fromhex(frozen.root),
        count=frozen.ordered,
        data=mode_of(campaign.terms),
        not_before=frozen.not_before_s,
        not_after=frozen.not_after_s,
        per_hour=campaign.terms.per_hour,
        max_in_flight=campaign.terms.max_in_flight,
    )


def _holds_until_s(terms: Terms, now_s: int) -> int:
    """Return how long an order holds that is made now."""
    starts_s = max(now_s, terms.start_at_ms // MS_PER_S)
    return min(starts_s + terms.lasts_ms // MS_PER_S, now_s - EARLY_S + acts.ORDER_MS_MAX // MS_PER_S)


def _forecast_ms(terms: Terms, waves: tuple[int, ...]) -> int:
    """Return how long it takes at least: the pace, and each wave watched."""
    total, before, soaks = 0, 0, 0
    for end in waves:
        per_hour = pace.pace(terms.per_hour, terms.ramp, before)
        total += (end - before) * pace.OFFER // per_hour
        soaks += 0 < end < waves[-1] and end > before
        before = end
    return total + soaks * terms.soak_s * MS_PER_S
