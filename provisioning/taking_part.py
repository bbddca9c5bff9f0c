"""Programs, consents and enrolments, as sessions need them: the port over the services of ``programs``."""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, Final

from programs.catalogue import ProgramCatalogue
from programs.consents import ConsentChannel, ConsentService, NewConsent
from programs.eligibility import CURED_BY_SESSION, blocking
from programs.enrolments import EnrolmentService
from programs.errors import IneligibleError, ProgramError, ProgramsBusyError
from programs.states import EnrolmentState
from provisioning.observed import Enrolled
from provisioning.ports import Candidate, Offer, WillNotWorkError
from provisioning.session import Consent, pair
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from security.policy import Principal, Role

SYSTEM: Final = Principal("provisioning", Role.SYSTEM)


class TakingPart:
    """Implements :class:`provisioning.ports.Programs`."""

    def __init__(
        self,
        *,
        catalogue: ProgramCatalogue,
        consents: ConsentService,
        enrolments: EnrolmentService,
        accounts: AccountService,
        devices: DeviceService,
        models: ModelCatalogue,
    ) -> None:
        self._catalogue = catalogue
        self._consents = consents
        self._enrolments = enrolments
        self._accounts = accounts
        self._devices = devices
        self._models = models

    async def offers(self, programs: Collection[str]) -> Mapping[str, Offer]:
        """Return those programs that there are."""
        found = await self._catalogue.programs_of(programs)
        return {id: Offer(id, one.name, one.consent_text_version) for id, one in found.items()}

    async def weigh(
        self, device: Candidate, chosen: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Mapping[str, Sequence[str]]:
        """Return what keeps a device out, beside what a session is about to cure."""
        for program, params in (chosen or {}).items():
            await self._catalogue.check_params(await self._catalogue.program(program), params)
        found = await self._enrolments.appraisal.weigh(device, chosen)
        return {
            program: tuple(map(str, blocking(reasons, CURED_BY_SESSION)))
            for program, reasons in found.items()
        }

    async def enrolments(self, things: Collection[str]) -> Mapping[str, Enrolled]:
        """Return the enrolments of things."""
        found = await asyncio.gather(*map(self._enrolments.of_device, sorted(set(things))))
        return {
            pair(one.device, one.program): Enrolled(one.id, one.state, one.rev, one.failure)
            for some in found
            for one in some
        }

    async def consents(self, things: Collection[str], account: str) -> Mapping[str, str]:
        """Return the texts that this account has said yes to."""
        standing = await self._consents.standing_of(sorted(set(things))) if things else {}
        return {
            pair(thing, program): consent.text_version
            for thing, one in standing.items()
            for program, consent in one.consents.items()
            if consent.account == account
        }

    async def give(self, thing: str, consent: Consent, account: str) -> None:
        """Put a consent on record."""
        known = (await self._accounts.accounts([account])).get(account)
        new = NewConsent(
            device=thing,
            program=consent.program,
            account=account,
            customer=account if known is None else known.customer,
            given_by=consent.given_by,
            relation=consent.relation,
            channel=ConsentChannel(consent.channel),
            text_version=consent.text_version,
        )
        # In the name of who has heard it; it is we who carry it over.
        await self._refusing(self._consents.give(new, Principal(consent.recorded_by, Role.SYSTEM)))

    async def enrol(
        self, thing: str, program: str, account: str, premises: str, params: Mapping[str, Any]
    ) -> None:
        """Make an enrolment."""
        await self._refusing(self._enrolments.enrol(thing, program, account, premises, SYSTEM, params=params))

    async def retry(self, enrolment: str) -> None:
        """Try again what has failed."""
        await self._refusing(self._enrolments.retry(enrolment, SYSTEM))

    async def end(self, enrolment: str, reason: str) -> None:
        """End an enrolment."""
        await self._refusing(self._enrolments.leave(enrolment, SYSTEM, reason=reason))

    async def carry_over(self, old: str, new: str, account: str, premises: str) -> None:
        """Give a device the enrolments of the one whose place it takes."""
        able = await self._can_do_as_much(old, new)
        standing = await self._consents.standing(old)
        for one in await self._enrolments.of_device(old):
            if not one.is_live or one.state is EnrolmentState.ENDING:
                continue
            consent = standing.consents.get(one.program)
            if able and consent is not None and consent.account == account:
                yes = Consent(
                    new,
                    one.program,
                    consent.given_by,
                    consent.relation,
                    consent.channel,
                    consent.text_version,
                    consent.recorded_by,
                    consent.at_ms,
                )
                await self.give(new, yes, account)
            try:
                await self._enrolments.enrol(
                    new, one.program, account, premises, SYSTEM, params=one.params, waiting_for_consent=True
                )
            except IneligibleError:
                continue  # what it does not fit it does not get

    async def end_all(self, thing: str, reason: str) -> bool:
        """End all enrolments of a thing and close its consents."""
        after = await self._enrolments.end_all(thing, SYSTEM, reason=reason)
        await self._consents.close_all(thing, SYSTEM)
        return all(one.state is EnrolmentState.ENDED for one in after)

    async def _can_do_as_much(self, old: str, new: str) -> bool:
        devices = await self._devices.devices([old, new])
        models = await self._models.models({one.model for one in devices.values()})
        before, after = (models.get(devices[one].model) if one in devices else None for one in (old, new))
        return before is not None and after is not None and before.capabilities <= after.capabilities

    async def _refusing(self, act: Awaitable[object]) -> None:
        """Do it; say by one word why it never will be."""
        try:
            await act
        except ProgramsBusyError:
            raise
        except IneligibleError as error:
            raise WillNotWorkError(", ".join(error.reasons)) from error
        except ProgramError as error:
            raise WillNotWorkError(type(error).__name__) from error
