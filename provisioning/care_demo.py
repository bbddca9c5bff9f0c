"""Sixty fictitious homes for the embedded customer care system: nobody lives in any of them.

Every telephone number lies in a range kept free for fiction, every e-mail address in a domain that nobody can
own. The premises are those of the simulated city; the last ten homes are made for scenarios: what is special
about a contract stands here, what is special about the equipment is the fleet's.
"""

from dataclasses import replace
from types import MappingProxyType
from typing import Final

from provisioning.care import CareAccount, CareCustomer

HOMES: Final = 60
DEMO_ACCOUNT: Final = "demo-customer"
"""The account of the first home: the demo customer logs in for it."""
TIME_OF_USE: Final = "tou-res"
FLAT: Final = "flat-res"
ACTIVE: Final = "active"
CLOSED: Final = "closed"

SCENARIOS: Final = MappingProxyType(
    {
        "pr-0051": "the meter has no radio for the HAN",
        "pr-0052": "broadband only",
        "pr-0053": "equipment of another technology than the gateway's",
        "pr-0054": "a bridge is there to be installed",
        "pr-0055": "one customer with two accounts, the other at pr-0056",
        "pr-0056": "the second account of the customer of pr-0055",
        "pr-0057": "moved out: the account is closed",
        "pr-0058": "the same telephone number as pr-0059",
        "pr-0059": "the same telephone number as pr-0058",
        "pr-0060": "no e-mail, no telephone, and another language",
    }
)

_GIVEN: Final = ("Ada", "Basil", "Cleo", "Dorian", "Esme", "Felix", "Greta", "Hugo", "Ines", "Jasper")
_FAMILY: Final = ("Example", "Fictitious", "Placeholder", "Sample", "Specimen", "Testcase")
_STREETS: Final = ("Gnomon Way", "Sundial Street", "Noon Lane", "Shadow Row", "Meridian Road", "Hour Close")


def customers() -> tuple[CareCustomer, ...]:
    """Return all of them, the same each time."""
    made = {number: _customer(number) for number in range(1, HOMES + 1)}
    both = made[55]
    made[55] = replace(both, accounts=(*both.accounts, *made.pop(56).accounts))
    made[57] = replace(made[57], accounts=(replace(made[57].accounts[0], status=CLOSED),))
    made[59] = replace(made[59], phone=made[58].phone)
    made[60] = replace(made[60], phone="", email="", language="es")
    return tuple(made.values())


def _customer(number: int) -> CareCustomer:
    given, family = _GIVEN[(number - 1) % 10], _FAMILY[(number - 1) // 10]
    street = _STREETS[(number - 1) % 6]
    account = CareAccount(
        id=DEMO_ACCOUNT if number == 1 else f"acc-{number:04d}",
        number=f"9900-{number:04d}-{(number * 37) % 97:02d}",
        tariff=FLAT if number % 5 == 0 else TIME_OF_USE,
        status=ACTIVE,
        premises=f"pr-{number:04d}",
        address=f"{number} {street}, 00000 Fixture Bay",
    )
    return CareCustomer(
        ref=f"cust-{number:04d}",
        name=f"{given} {family}",
        language="en",
        phone=f"+1 202 555 01{number:02d}",
        email=f"{given}.{family}@example.com".lower(),
        accounts=(account,),
    )
