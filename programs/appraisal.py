"""Weighs devices against programs: gathers what the rule of ``eligibility`` must know."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from infra.clock import Clock
from programs import shadow
from programs.catalogue import ProgramCatalogue
from programs.consents import ConsentService
from programs.eligibility import Counters, Enrolled, Reason, reasons
from programs.models import Body, Program
from programs.ports import AccountFacts, DeviceFacts, ModelFacts, PremisesFacts
from programs.records import Enrolment, Standing, enrolment_id
from programs.states import EnrolmentState, ProgramState
from programs.store import EnrolmentStore, place
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.errors import PremisesNotFoundError
from registry.service import RegistryService
from shadow.decisions import NEVER_MADE, Shadow
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.service import ShadowService

NO_PARAMS: Final[Body] = {}
_NO_CLAIMS: Final[Mapping[str, int]] = {}
_ALWAYS: Final = 2**63
"""Of a claim that nothing was made of yet."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one device and of what it has to do with programs."""

    device: DeviceFacts
    model: ModelFacts | None
    account: AccountFacts | None
    premises: PremisesFacts | None
    standing: Standing
    enrolments: Sequence[Enrolment]
    live: Mapping[str, Program]
    """The programs it is in, and those it is about to be in."""
    shadow: Shadow

    @property
    def feeder(self) -> str:
        """The feeder it hangs on; empty where nobody knows."""
        return "" if self.premises is None else self.premises.feeder


class Appraisal:
    """Says which programs a device fits, and why not the others."""

    def __init__(
        self,
        *,
        clock: Clock,
        catalogue: ProgramCatalogue,
        consents: ConsentService,
        enrolments: EnrolmentStore,
        models: ModelCatalogue,
        accounts: AccountService,
        registry: RegistryService,
        shadows: ShadowService,
        shadow_bytes_max: int,
    ) -> None:
        self._clock = clock
        self._catalogue = catalogue
        self._consents = consents
        self._enrolments = enrolments
        self._models = models
        self._accounts = accounts
        self._registry = registry
        self._shadows = shadows
        self._shadow_bytes_max = shadow_bytes_max

    async def weigh(
        self, device: DeviceFacts, chosen: Mapping[str, Body] | None = None
    ) -> dict[str, tuple[Reason, ...]]:
        """Return why a device does not fit, by program: nothing where it does.

        ``chosen`` are programs with their parameters that it shall be in *together*; without, each program
        on offer is weighed for itself. The device need not be registered yet.
        """
        if chosen is None:
            facts = await self.facts(device)
            offered = await self._catalogue.programs(ProgramState.PUBLISHED)
            return {one.id: await self.reasons(facts, one) for one in offered}
        facts = await self.facts(device, dict.fromkeys(chosen, _ALWAYS))
        programs = [await self._catalogue.program(id) for id in sorted(chosen)]
        already = {one.program for one in facts.enrolments if one.is_live}
        return {one.id: await self.reasons(_without(facts, one.id, already), one, chosen) for one in programs}

    async def facts(self, device: DeviceFacts, claims: Mapping[str, int] = _NO_CLAIMS) -> Facts:
        """Gather what is known of a device; ``claims`` are programs it is about to be in, and since when.

        A claim that an enrolment was made of counts no more: that enrolment speaks for itself.
        """
        enrolments = [kept.record for kept in (await self._enrolments.of_device(device.id)).values()]
        live = {one.program for one in enrolments if one.is_live}
        since_ms = {one.program: one.since_ms for one in enrolments}
        claimed = {id for id, at_ms in claims.items() if since_ms.get(id, -1) < at_ms}
        return Facts(
            device,
            (await self._models.models(_known(device.model))).get(device.model),
            (await self._accounts.accounts(_known(device.account))).get(device.account),
            await self._premises(device.premises),
            await self._consents.standing(device.id),
            enrolments,
            await self._catalogue.programs_of({*live, *claimed}),
            await shadow_of(self._shadows, device.id),
        )

    async def reasons(
        self, facts: Facts, program: Program, chosen: Mapping[str, Body] | None = None
    ) -> tuple[Reason, ...]:
        """Return everything that keeps a device out of a program it is not in yet."""
        consent = facts.standing.consents.get(program.id)
        return reasons(
            facts.device,
            facts.model,
            facts.account,
            facts.premises,
            program,
            Enrolled(facts.live, _left(facts)),
            Counters(
                await self._taken("program", program.id, program.capacity.devices),
                await self._taken("feeder", place(program.id, facts.feeder), program.capacity.per_feeder),
                await self._fits(facts, {program.id: NO_PARAMS} if chosen is None else chosen),
            ),
            self._clock.now_ms(),
            consent=consent is not None
            and consent.account == facts.device.account
            and consent.text_version == program.consent_text_version,
        )

    async def _taken(self, field: str, value: str, most: int | None) -> int:
        """Return how many take part, as far as it matters: no further than ``most``."""
        return 0 if most is None else await self._enrolments.count(field, value, most)

    async def _fits(self, facts: Facts, chosen: Mapping[str, Body]) -> bool:
        programs = await self._catalogue.programs_of(chosen.keys())
        there = [one for one in facts.enrolments if one.program not in chosen]
        trials = [_trial(facts, one, chosen[one.id]) for one in programs.values()]
        tariffs = await self._catalogue.tariffs_of({one.tariff for one in (*there, *trials) if one.tariff})
        held = facts.shadow
        return shadow.fits(
            [*there, *trials], tariffs, held.desired.state, held.reported.state, self._shadow_bytes_max
        )

    async def _premises(self, id: str) -> PremisesFacts | None:
        try:
            return await self._registry.premises(id)
        except PremisesNotFoundError:
            return None


def _known(id: str) -> list[str]:
    """Return an id to look up; none is asked for where it is empty."""
    return [id] if id else []


async def shadow_of(shadows: ShadowService, device: str) -> Shadow:
    """Return the ``program`` shadow of a device, made or not."""
    try:
        return await shadows.view(ShadowId(device, shadow.SHADOW))
    except NoShadowError:
        return NEVER_MADE


def _without(facts: Facts, program: str, already: Collection[str]) -> Facts:
    """Return the facts for one of several programs chosen together: it does not stand in its own way."""
    if program in already:
        return facts
    return replace(facts, live={id: one for id, one in facts.live.items() if id != program})


def _left(facts: Facts) -> dict[str, int]:
    """Return when this account's device left which program; what somebody else did with it does not count."""
    return {
        one.program: one.left_ms
        for one in facts.enrolments
        if one.left_ms is not None and one.account == facts.device.account
    }


def _trial(facts: Facts, program: Program, params: Body) -> Enrolment:
    """Return what the device would be told."""
    return Enrolment(
        id=enrolment_id(facts.device.id, program.id),
        device=facts.device.id,
        program=program.id,
        account=facts.device.account,
        premises=facts.device.premises,
        state=EnrolmentState.PROVISIONING,
        state_ms=0,
        since_ms=0,
        params=params,
        tariff=program.tariff_ref,
    )
