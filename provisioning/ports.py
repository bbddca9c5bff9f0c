"""What provisioning needs of services that know nothing of sessions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from provisioning.observed import Enrolled
from provisioning.session import Consent, Record


class WillNotWorkError(Exception):
    """A service said no, and will say so again; ``code`` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device that may be enrolled, registered or not."""

    id: str
    model: str
    fw: str
    lifecycle: str
    account: str
    premises: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A program, as far as a session needs to know it."""

    id: str
    name: str
    text_version: str


class Programs(Protocol):
    """Programs, consents and enrolments."""

    async def offers(self, programs: Collection[str]) -> Mapping[str, Offer]:
        """Return those programs that there are, by id."""
        ...

    async def weigh(
        self, device: Candidate, chosen: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Mapping[str, Sequence[str]]:
        """Return what keeps a device out of programs beside what a session cures: nothing where it fits.

        ``chosen`` are programs with their parameters that it shall be in together; None: each on offer.
        """
        ...

    async def enrolments(self, things: Collection[str]) -> Mapping[str, Enrolled]:
        """Return the enrolments of things, by ``session.pair`` of thing and program."""
        ...

    async def consents(self, things: Collection[str], account: str) -> Mapping[str, str]:
        """Return the versions of the texts that this account has said yes to, by the same pair."""
        ...

    async def give(self, thing: str, consent: Consent, account: str) -> None:
        """Put a consent on record, once."""
        ...

    async def enrol(
        self, thing: str, program: str, account: str, premises: str, params: Mapping[str, Any]
    ) -> None:
        """Make an enrolment, once; raises :class:`WillNotWorkError` where none can be."""
        ...

    async def retry(self, enrolment: str) -> None:
        """Try again what has failed."""
        ...

    async def end(self, enrolment: str, reason: str) -> None:
        """End an enrolment, at once."""
        ...

    async def carry_over(self, old: str, new: str, account: str, premises: str) -> None:
        """Give a device the enrolments of the one whose place it takes, once each.

        Where it can do all that the old one could, what the customer said yes to goes on to count; else they
        are asked again. What it does not fit, it does not get.
        """
        ...

    async def end_all(self, thing: str, reason: str) -> bool:
        """End all enrolments of a thing and close its consents; True once it has said that they are over."""
        ...


class Outgoing(Protocol):
    """Where records go to be delivered."""

    async def put(self, premises: str, records: Sequence[Record]) -> None:
        """Take records, durably and once each, in the order of these premises."""
        ...


class Belongings(Protocol):
    """What is kept of a device beside its shadows, for whoever has it."""

    async def carry_over(self, old: str, new: str) -> None:
        """Give a successor the configuration of the device whose place it has taken; again is no error."""
        ...

    async def forget(self, thing: str) -> None:
        """Erase what is kept of a device; again is no error."""
        ...
