"""The customer care system as Gnomon needs it: the port, its values, and what of them anybody may be shown.

Names, addresses and telephone numbers are here only while a call lasts: nothing below keeps, caches or logs
them. What Gnomon keeps of a customer is the reference that the care system gave.
"""

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from infra.outbox import DeliveryRefusedError, DeliveryUnavailableError, OutboxItem, Receipt

CANDIDATES_MAX: Final = 5
"""Customers one search returns: who means more than these has to ask more exactly."""
VALUE_CHARS_MAX: Final = 200
ACCOUNT_CHARS_MIN: Final = 4
ADDRESS_CHARS_MIN: Final = 6
"""A shorter beginning fits half a town, and is a look around rather than a search."""
PHONE_DIGITS_MIN: Final = 7
PHONE_DIGITS_KEPT: Final = 9
"""The last digits, by which numbers are compared: so it is one with or without the country's code."""
HIDDEN: Final = "•"


class CareError(Exception):
    """The customer care system did not do what was asked."""


class CareUnavailableError(CareError, DeliveryUnavailableError):
    """It is down, slow or busy; nothing was learned. The caller may try again."""


class CareRefusedError(CareError, DeliveryRefusedError):
    """It said no. ``text`` is the title of its answer, never its body, which could name a customer."""


class BadSearchError(CareError):
    """What was asked cannot be searched for; the message says what is needed."""


class SearchBy(StrEnum):
    """What a customer on the telephone can say to be found by."""

    ACCOUNT = "account"
    ADDRESS = "address"
    PHONE = "phone"


@dataclass(frozen=True, slots=True)
class CareAccount:
    """A contract of a customer, at one place."""

    id: str
    number: str
    tariff: str
    status: str
    premises: str
    address: str


@dataclass(frozen=True, slots=True)
class CareCustomer:
    """A person as the care system knows them; ``ref`` is how it is asked for them again."""

    ref: str
    name: str
    language: str
    phone: str
    email: str
    accounts: tuple[CareAccount, ...]


@dataclass(frozen=True, slots=True)
class CandidateAccount:
    """A contract as it is shown before the caller is verified."""

    number: str
    address: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A customer as shown before the caller is verified: enough to choose by, too little to learn from."""

    ref: str
    name: str
    accounts: tuple[CandidateAccount, ...]


class CustomerCare(Protocol):
    """The system that knows the customers. Every call is live, and none waits for longer than 3 s."""

    async def search(self, by: SearchBy, value: str, limit: int) -> tuple[CareCustomer, ...]:
        """Return at most ``limit`` customers, in a fixed order; none is an answer.

        An account's number and a telephone number must be whole, an address may be a beginning.

        Raises:
            BadSearchError: too short or too long to be searched for.
            CareUnavailableError, CareRefusedError: as they say.
        """
        ...

    async def customer(self, ref: str) -> CareCustomer | None:
        """Return one customer; raises as :meth:`search`."""
        ...

    async def deliver(self, item: OutboxItem) -> Receipt:
        """Store a record. The same item may come again: it has effect once, and gets the same receipt.

        Raises:
            CareUnavailableError: try again.
            CareRefusedError: it will not have this one.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# ---------------------------------------------------------------------------- searching


def search_key(by: SearchBy, value: str) -> str:
    """Return what is compared: spelling, spaces and punctuation do not count.

    Raises:
        BadSearchError: too short or too long to be searched for.
    """
    if len(value) > VALUE_CHARS_MAX or not value.isprintable():
        raise BadSearchError(f"a value to search for is a line of at most {VALUE_CHARS_MAX} characters")
    match by:
        case SearchBy.ACCOUNT:
            return _long_enough(account_key(value), ACCOUNT_CHARS_MIN, "the whole number of the account")
        case SearchBy.ADDRESS:
            return _long_enough(address_key(value), ADDRESS_CHARS_MIN, "at least the street")
        case SearchBy.PHONE:
            digits = "".join(one for one in value if one.isdecimal())
            _long_enough(digits, PHONE_DIGITS_MIN, "the whole telephone number")
            return phone_key(value)


def account_key(number: str) -> str:
    """Return an account's number without what people put between its parts."""
    return "".join(one for one in number.upper() if one.isalnum())


def address_key(address: str) -> str:
    """Return an address in small letters without accents, its words parted by single spaces."""
    plain = unicodedata.normalize("NFKD", address.casefold())
    kept = (one if one.isalnum() else " " for one in plain if not unicodedata.combining(one))
    return " ".join("".join(kept).split())[:VALUE_CHARS_MAX].rstrip()


def phone_key(phone: str) -> str:
    """Return the last digits of a telephone number; empty when there are too few to know it by."""
    digits = "".join(str(unicodedata.decimal(one)) for one in phone if one.isdecimal())
    return digits[-PHONE_DIGITS_KEPT:] if len(digits) >= PHONE_DIGITS_MIN else ""


def _long_enough(key: str, least: int, needed: str) -> str:
    if len(key) < least:
        raise BadSearchError(f"to search, give {needed}")
    return key


# ---------------------------------------------------------------------------- masking


def masked(customer: CareCustomer) -> Candidate:
    """Return what a representative may see before the caller has proved who they are."""
    accounts = (CandidateAccount(_last(one.number), _words(one.address)) for one in customer.accounts)
    return Candidate(customer.ref, _words(customer.name), tuple(accounts))


def _words(text: str) -> str:
    """Keep the first letter of each word, and no digit: as many dots for a long word as for a short one."""
    return " ".join(map(_word, text.split()))


def _word(word: str) -> str:
    first = word[0] if word[0].isalpha() else HIDDEN
    return first + HIDDEN * 3 + ("," if word.endswith(",") else "")


def _last(number: str) -> str:
    """Keep the last two characters of a number."""
    kept = account_key(number)
    return HIDDEN * 4 + (kept[-2:] if len(kept) >= ACCOUNT_CHARS_MIN else "")
