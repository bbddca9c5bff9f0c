"""Enrolments: who takes part in what, made, ended and kept true.

Whatever happens to an enrolment is first written into its document; what has to be done elsewhere (the
device's shadow, the registry, a consent) follows from the document and from what is seen there, and is done
by :meth:`EnrolmentService.reconcile`, now and again until it is seen to be done. So a crash between any two
steps does no harm, and it does not matter which process goes on. Who may ask for what is not asked here.

Two who enrol one device at once cannot both be right about what excludes what: each first writes what it is
about to make into the device's *claims* by compare-and-set, and whoever loses that looks again.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry, StoreUnavailableError
from infra.machines import Transition
from infra.settings.model import ShadowLimits
from programs.advance import CloseConsent, Effect, Observed, TakePart, WriteShadow, advance, retried
from programs.appraisal import Appraisal, Facts, shadow_of
from programs.catalogue import ProgramCatalogue
from programs.consents import ConsentService
from programs.eligibility import Code, Reason, blocking
from programs.errors import EnrolmentNotFoundError, IneligibleError, ProgramsBusyError
from programs.models import Body, Program
from programs.ports import Presence
from programs.records import Enrolment, enrolment_id
from programs.shadow import SHADOW
from programs.states import ENROLMENT, EnrolmentState, EnrolmentTrigger
from programs.store import Claims, EnrolmentPage, EnrolmentStore, Kept
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.errors import ThingNotFoundError
from registry.service import RegistryService
from security import audit
from security.audit import INSIDE, Via
from security.policy import Action, Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Rejected
from shadow.document import ShadowId
from shadow.errors import ShadowError, TooLargeError, VersionConflictError
from shadow.service import ShadowService

SAVE_ATTEMPTS_MAX: Final = 8
ROUNDS_MAX: Final = 16
"""Looks at one device at a time; what is not settled by then is looked at again when it is due."""
CLAIM_MS_MAX: Final = 60_000
"""So long what is about to be made counts as if it were; whoever dies in between holds nobody up longer."""
OURSELVES: Final = Principal("programs", Role.SYSTEM)
_ORIGIN: Final = Origin(OURSELVES.name, Role.SYSTEM, Channel.SYSTEM)
_NO_PARAMS: Final[Body] = {}

Change = Callable[[Enrolment, int], Enrolment]
"""What becomes of an enrolment at a time; the same value where nothing does."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder().decode
_log: Final = structlog.get_logger(__name__)


class EnrolmentService:
    """Makes, ends and reconciles enrolments."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        catalogue: ProgramCatalogue,
        consents: ConsentService,
        devices: DeviceService,
        models: ModelCatalogue,
        accounts: AccountService,
        registry: RegistryService,
        shadows: ShadowService,
        presence: Presence,
        limits: ShadowLimits,
    ) -> None:
        self._clock = clock
        self._catalogue = catalogue
        self._consents = consents
        self._devices = devices
        self._registry = registry
        self._shadows = shadows
        self._presence = presence
        self._limits = limits
        self.records = EnrolmentStore(store)
        self.appraisal = Appraisal(
            clock=clock,
            catalogue=catalogue,
            consents=consents,
            enrolments=self.records,
            models=models,
            accounts=accounts,
            registry=registry,
            shadows=shadows,
            shadow_bytes_max=limits.document_bytes_max_of(SHADOW),
        )

    # Reading

    async def enrolment(self, id: str) -> Enrolment:
        """Return one enrolment, ended or not."""
        return (await self._load(id)).record

    async def of_device(self, device: str) -> tuple[Enrolment, ...]:
        """Return the enrolments of a device by program, ended ones too."""
        found = await self.records.of_device(device)
        return tuple(found[program].record for program in sorted(found))

    async def of_account(self, account: str, limit: int, cursor: str | None = None) -> EnrolmentPage:
        """Return a page of the enrolments of an account that have not ended."""
        return await self.records.page("account", account, limit, cursor)

    async def of_premises(self, premises: str, limit: int, cursor: str | None = None) -> EnrolmentPage:
        """Return a page of the enrolments at premises that have not ended."""
        return await self.records.page("premises", premises, limit, cursor)

    async def options(self, device: str) -> dict[str, tuple[Reason, ...]]:
        """Return, for each program on offer, why a device does not fit it: nothing where it does."""
        return await self.appraisal.weigh(await self._devices.device(device))

    # Acts

    async def enrol(
        self,
        device: str,
        program: str,
        account: str,
        premises: str,
        by: Principal,
        via: Via = INSIDE,
        params: Body = _NO_PARAMS,
        *,
        waiting_for_consent: bool = False,
    ) -> Enrolment:
        """Let a registered device take part; one that does so already for this account stays as it is.

        With ``waiting_for_consent`` an enrolment is made also where nobody has said yes yet, and waits.

        Raises:
            IneligibleError: with every reason; nothing was made.
            InvalidEntryError: the program has no such parameters.
        """
        its_program = await self._catalogue.program(program)
        await self._catalogue.check_params(its_program, params)
        for _ in range(SAVE_ATTEMPTS_MAX):
            now_ms = self._clock.now_ms()
            claims = await self.records.claims(device)
            fresh = _fresh(claims.record, now_ms)
            kept = await self.records.load(enrolment_id(device, program))
            if kept is not None and kept.record.is_live and kept.record.account == account:
                return await self._gone_on(kept.record)
            facts, found = await self._weigh(device, its_program, account, premises, fresh)
            refused = blocking(found, (Code.NO_CONSENT,) if waiting_for_consent else ())
            if refused:
                if _came_meanwhile(kept, refused):
                    continue  # the same was asked for twice at once: it stays as the first has made it
                raise IneligibleError(device, program, refused)
            waits = any(one.code is Code.NO_CONSENT for one in found)
            made = _made(kept, facts, its_program, params, now_ms, by.name, waits=waits)
            if not await self.records.claim(
                device, Claims(fresh.programs | {program: now_ms}), claims.revision
            ):
                continue
            before = 0 if kept is None else kept.revision
            entry = self._entry(made, before, Action.ENROLMENT_REQUEST, by, via)
            if not await self.records.put([(made, before, [entry])]):
                return await self._gone_on(made)
        raise ProgramsBusyError("this device's enrolments")

    async def leave(
        self, id: str, by: Principal, via: Via = INSIDE, *, at_ms: int | None = None, reason: str = "left"
    ) -> Enrolment:
        """End an enrolment, at once or at a time to come. What has ended stays as it is."""

        def change(one: Enrolment, now_ms: int) -> Enrolment:
            if not one.is_live:
                return one
            until_ms = now_ms if at_ms is None else max(at_ms, now_ms)
            return replace(one, until_ms=until_ms, until_by=by.name, until_reason=reason)

        return await self._act(id, change, "enrolment.leave", by, via, reason)

    async def pause(self, id: str, by: Principal, via: Via = INSIDE) -> Enrolment:
        """Let a device stay out for a while, as its customer wants."""
        return await self._act(id, _paused, "enrolment.pause", by, via)

    async def lift(self, id: str, by: Principal, via: Via = INSIDE) -> Enrolment:
        """Let a paused device go on."""
        return await self._act(id, _lifted, "enrolment.lift", by, via)

    async def retry(self, id: str, by: Principal, via: Via = INSIDE) -> Enrolment:
        """Tell a device once more what it failed to take; one that is under way or ready stays as it is."""

        def change(one: Enrolment, now_ms: int) -> Enrolment:
            if one.state in _UNDER_WAY:
                return one
            return retried(one, now_ms, by.name)

        return await self._act(id, change, "enrolment.retry", by, via)

    async def end_all(
        self, device: str, by: Principal, via: Via = INSIDE, *, reason: str
    ) -> tuple[Enrolment, ...]:
        """End every enrolment of a device: first of all when it is deregistered, replaced or moved out."""
        for one in await self.of_device(device):
            if one.is_live:
                await self.leave(one.id, by, via, reason=reason)
        return await self.of_device(device)

    # Reconciling

    async def reconcile(self, device: str) -> tuple[Enrolment, ...]:
        """Look at a device and do what is wanted and not seen, until nothing is; return its enrolments.

        Repeatable, at any time and by anybody. Raises a ``ShadowError`` or ``StoreError`` when something
        cannot be done now; what was done stays done, and the rest is looked at again when it is due.
        """
        too_large = False
        for _ in range(ROUNDS_MAX):
            kept = await self.records.of_device(device)
            enrolments = [kept[program].record for program in sorted(kept)]
            seen = await self._look(device, enrolments, too_large=too_large)
            plan = advance(enrolments, seen)
            if plan.changed and await self.records.put(
                [(one, kept[one.program].revision, ()) for one in plan.changed]
            ):
                continue  # others were first: look again
            if not plan.effects:
                if seen.standing.unsettled:
                    await self._consents.settle(device, seen.standing)
                return await self.of_device(device) if plan.changed else tuple(enrolments)
            if too_large and not plan.changed:
                # Nothing new is to blame: what there is has outgrown the shadow.
                _log.warning("program_shadow_full", thing=device)
                return tuple(enrolments)
            too_large = await self._carry_out(device, plan.effects)
        _log.warning("enrolments_unsettled", thing=device)
        return await self.of_device(device)

    async def _look(self, device: str, enrolments: Sequence[Enrolment], *, too_large: bool) -> Observed:
        its_device = (await self._devices.devices([device])).get(device)
        thing = (await self._registry.standings([device], fresh=True)).get(device)
        held = await shadow_of(self._shadows, device)
        programs = await self._catalogue.programs_of([one.program for one in enrolments])
        return Observed(
            now_ms=self._clock.now_ms(),
            is_thing=thing is not None,
            lifecycle="" if its_device is None else its_device.lifecycle,
            account="" if its_device is None else its_device.account,
            online=device in await self._presence.online([device]),
            taking_part=thing is not None and thing.thing.taking_part,
            desired=held.desired.state,
            reported=held.reported.state,
            version=held.compared_version,
            programs=programs,
            tariffs=await self._catalogue.tariffs_of({one.tariff for one in enrolments if one.tariff}),
            standing=await self._consents.standing(device),
            barred=await self._barred(device, enrolments, programs),
            too_large=too_large,
        )

    async def _barred(
        self, device: str, enrolments: Sequence[Enrolment], programs: Mapping[str, Program]
    ) -> dict[str, str]:
        """Return why those that wait for consent could not begin."""
        waiting = [one.program for one in enrolments if one.state is EnrolmentState.PENDING_CONSENT]
        if not waiting:
            return {}
        facts = await self.appraisal.facts(await self._devices.device(device))
        barred: dict[str, str] = {}
        for id in waiting:
            others = replace(facts, live={name: one for name, one in facts.live.items() if name != id})
            found = blocking(await self.appraisal.reasons(others, programs[id]), (Code.NO_CONSENT,))
            if found:
                barred[id] = ", ".join(map(str, found))
        return barred

    async def _carry_out(self, device: str, effects: Sequence[Effect]) -> bool:
        """Do what is wanted; return whether the shadow was too small for it."""
        too_large = False
        for effect in effects:
            match effect:
                case WriteShadow(state, version):
                    too_large = await self._write_shadow(device, state, version)
                case CloseConsent(program, given_until_ms):
                    await self._consents.withdraw(device, program, OURSELVES, given_until_ms=given_until_ms)
                case TakePart(taking_part):
                    with suppress(ThingNotFoundError):
                        await self._registry.set_taking_part(device, taking_part, OURSELVES)
        return too_large

    async def _write_shadow(self, device: str, state: dict[str, Any], version: int) -> bool:
        payload = _encode({"state": state, "version": version})
        id = ShadowId(device, SHADOW)
        (outcome,) = await self._shadows.submit(
            [update(id, _ORIGIN, state, self._limits, None, payload, version)]
        )
        if not isinstance(outcome, Rejected) or isinstance(outcome.error, VersionConflictError):
            return False  # somebody wrote meanwhile: what is still wanted is seen next
        if isinstance(outcome.error, TooLargeError):
            return True
        raise outcome.error

    # Details

    async def _weigh(
        self, device: str, program: Program, account: str, premises: str, claims: Claims
    ) -> tuple[Facts, tuple[Reason, ...]]:
        its_device = await self._devices.device(device)
        others = {id: at_ms for id, at_ms in claims.programs.items() if id != program.id}
        facts = await self.appraisal.facts(its_device, others)
        found = await self.appraisal.reasons(facts, program)
        if (its_device.account, its_device.premises) != (account, premises):
            found = (*found, Reason(Code.NOT_REGISTERED, "here"))
        return facts, found

    async def _act(
        self, id: str, change: Change, action: str, by: Principal, via: Via, reason: str = ""
    ) -> Enrolment:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._load(id)
            now_ms = self._clock.now_ms()
            after = change(kept.record, now_ms)
            if after is kept.record:
                return after
            # Due at once, so that somebody goes on with it whatever becomes of us.
            after = replace(after, due_ms=now_ms)
            entry = self._entry(after, kept.revision, action, by, via, reason)
            if not await self.records.put([(after, kept.revision, [entry])]):
                return await self._gone_on(after)
        raise ProgramsBusyError("this enrolment")

    async def _gone_on(self, one: Enrolment) -> Enrolment:
        """Return an enrolment after all that follows from it; what cannot be done now is done later."""
        with suppress(StoreUnavailableError, ShadowError):
            await self.reconcile(one.device)
        return (await self._load(one.id)).record

    async def _load(self, id: str) -> Kept[Enrolment]:
        kept = await self.records.load(id)
        if kept is None:
            raise EnrolmentNotFoundError(id)
        return kept

    def _entry(
        self, one: Enrolment, before: int, action: str, by: Principal, via: Via, reason: str = ""
    ) -> Entry:
        row = audit.act(
            by,
            via,
            action,
            f"enrolment/{one.id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        # Enrolments are never deleted, so their revisions never start again.
        return audit.entry(row, before + 1, life=0)


_UNDER_WAY: Final = frozenset(
    {EnrolmentState.PROVISIONING, EnrolmentState.ACTIVATED, EnrolmentState.READY, EnrolmentState.SUSPENDED}
)


def _paused(one: Enrolment, _now_ms: int) -> Enrolment:
    return one if one.paused or not one.is_live else replace(one, paused=True)


def _lifted(one: Enrolment, _now_ms: int) -> Enrolment:
    return replace(one, paused=False) if one.paused else one


def _fresh(claims: Claims, now_ms: int) -> Claims:
    return Claims({id: at_ms for id, at_ms in claims.programs.items() if abs(now_ms - at_ms) < CLAIM_MS_MAX})


def _came_meanwhile(kept: Kept[Enrolment] | None, refused: Sequence[Reason]) -> bool:
    """Tell whether a device was found to take part that did not when it was looked up first."""
    was_live = kept is not None and kept.record.is_live
    return not was_live and any(one.code is Code.ALREADY_ENROLLED for one in refused)


def _made(
    kept: Kept[Enrolment] | None,
    facts: Facts,
    program: Program,
    params: Body,
    now_ms: int,
    actor: str,
    *,
    waits: bool,
) -> Enrolment:
    """Return the first period of an enrolment, or its next one."""
    before = None if kept is None else kept.record
    state = None if before is None else before.state
    trigger = EnrolmentTrigger.ASK if waits else EnrolmentTrigger.ENROL
    after = ENROLMENT.after(state, trigger)
    consent = facts.standing.consents.get(program.id)
    return Enrolment(
        id=enrolment_id(facts.device.id, program.id),
        device=facts.device.id,
        program=program.id,
        account=facts.device.account,
        premises=facts.device.premises,
        state=after,
        state_ms=now_ms,
        since_ms=now_ms,
        period=1 if before is None else before.period + 1,
        rev=1 if before is None else before.rev + 1,
        feeder=facts.feeder,
        params=_decode(_encode(params)),  # plain lists and objects, as they come back from the store
        tariff=program.tariff_ref,
        consent="" if waits or consent is None else consent.id,
        left_ms=None if before is None else before.left_ms,
        transitions=(Transition(now_ms, actor, "", state or "", trigger, after),),
        due_ms=now_ms,
    )
