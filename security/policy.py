"""Who may write, read and delete which shadow: one table, pure, and the default is no.

A role says how somebody stands to the shadow *in this act*, so that the table needs no second argument
that could be forgotten. Two roles are there for that reason alone:

* ``RELAY``: a gateway that speaks, in its own topic tree, for a thing attached to it. It may do what the
  thing itself may, and never touches a ``han`` shadow: that one only "the gateway itself" reports and reads.
* ``STAND_IN``: whoever holds the operator token, on the AWS-shaped HTTP routes. Those routes are a device's
  data plane: clients made for them (boto3, test benches, device simulators) report as well as desire. A
  role of its own keeps ``reported`` out of an operator's reach everywhere else, and history and audit
  show which of the two it was. It reports no reserved shadow: those state what a device really did.

That a role may do something here does not say *for which thing*: a thing is proved by the broker, an
attachment by the registry, a person by a token, and all of that happens before this table is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    """What kind of party acts, and in which standing."""

    DEVICE = "device"
    """A device, for itself."""
    GATEWAY = "gateway"
    """A gateway, for itself."""
    RELAY = "relay"
    """A gateway, for a thing attached to it."""
    CUSTOMER = "customer"
    """A person with an account."""
    REP = "rep"
    """A call-center representative: sees a customer under a live verification only."""
    INSTALLER = "installer"
    """Field staff: premises of their open work orders."""
    OPERATOR = "operator"
    """Runs the fleet, campaigns, programs and events; sees what is enrolled."""
    SECURITY = "security"
    """The security officer: credentials, revocation, people."""
    AUDITOR = "auditor"
    """Reads and verifies the audit chain, changes nothing."""
    CCS = "ccs"
    """The customer care system."""
    BL = "bl"
    """OpenADR business logic."""
    VEN = "ven"
    """An OpenADR virtual end node."""
    VENDOR = "vendor"
    """A firmware vendor's upload."""
    METERDATA = "meterdata"
    """The metering system."""
    STAND_IN = "stand_in"
    """The same person on the AWS-shaped routes, in the place of the thing."""
    SYSTEM = "system"
    """Our own workflows, in this process, by their own rule."""


class Section(StrEnum):
    """The two halves of a shadow."""

    DESIRED = "desired"
    REPORTED = "reported"


class Action(StrEnum):
    """What can be done to a shadow."""

    READ = "read"
    DELETE = "delete"
    DESIRE = "desire"
    REPORT = "report"
    CLEAR_DESIRED = "clear_desired"
    """Write a patch of nothing but nulls into ``desired``: to withdraw a finished entry."""
    CLEAR_REPORTED = "clear_reported"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proved who they are.

    ``account`` is a customer's own. ``reach`` holds what is open to staff now: accounts under a live
    verification for a representative, premises of open work orders for an installer.
    """

    name: str
    role: Role
    account: str = ""
    reach: frozenset[str] = frozenset()


CLASSIC: Final = ""
RESERVED: Final = ("program", "firmware", "config", "han")
"""Shadow names with a meaning of ours; nobody deletes them."""
FREE: Final = "*"
"""Stands in the table for every other name; no shadow can be called so."""

THINGS: Final = frozenset({Role.DEVICE, Role.GATEWAY, Role.RELAY})
"""Roles in which a thing speaks, itself or by its gateway: the history says what they did, not the audit."""
_PERSON: Final = frozenset({Role.OPERATOR, Role.STAND_IN})
_SYSTEM: Final = frozenset({Role.SYSTEM})
_ITSELF: Final = frozenset({Role.GATEWAY})
_NOBODY: Final = frozenset[Role]()

# The one table. An action without a row, and a shadow without a row, is nobody's. What may be written may
# also be cleared; the CLEAR rows name who may *only* clear. A person may delete, until there are roles.
TABLE: Final[Mapping[str, Mapping[Action, frozenset[Role]]]] = MappingProxyType(
    {
        CLASSIC: {
            Action.READ: THINGS | _PERSON | _SYSTEM,
            Action.DELETE: THINGS | _PERSON,
            Action.DESIRE: THINGS | _PERSON,
            Action.REPORT: THINGS | {Role.STAND_IN},
        },
        "program": {
            Action.READ: THINGS | _PERSON | _SYSTEM,
            Action.DESIRE: _SYSTEM,
            Action.REPORT: THINGS,
            Action.CLEAR_REPORTED: _SYSTEM,
        },
        "firmware": {
            Action.READ: THINGS | _PERSON | _SYSTEM,
            Action.DESIRE: _NOBODY,
            Action.REPORT: THINGS,
            Action.CLEAR_REPORTED: _SYSTEM,
        },
        "config": {
            Action.READ: THINGS | _PERSON | _SYSTEM,
            Action.DESIRE: _PERSON | _SYSTEM,
            Action.REPORT: THINGS,
            Action.CLEAR_REPORTED: _SYSTEM,
        },
        "han": {
            Action.READ: _ITSELF | _SYSTEM,
            Action.DESIRE: _SYSTEM,
            Action.REPORT: _ITSELF,
            Action.CLEAR_REPORTED: _SYSTEM,
        },
        FREE: {
            Action.READ: THINGS | _PERSON | _SYSTEM,
            Action.DELETE: THINGS | _PERSON,
            Action.DESIRE: THINGS | _PERSON,
            Action.REPORT: THINGS | {Role.STAND_IN},
        },
    }
)

_CLEARING: Final = {Action.CLEAR_DESIRED: Action.DESIRE, Action.CLEAR_REPORTED: Action.REPORT}
_WRITING: Final = {Section.DESIRED: Action.DESIRE, Section.REPORTED: Action.REPORT}
_EMPTYING: Final = {Section.DESIRED: Action.CLEAR_DESIRED, Section.REPORTED: Action.CLEAR_REPORTED}


def _allowed(shadow: str, action: Action) -> frozenset[Role]:
    rows = TABLE[shadow]
    allowed = rows.get(action, _NOBODY)
    wider = _CLEARING.get(action)
    return allowed if wider is None else allowed | rows.get(wider, _NOBODY)


_NAMES: Final = {shadow: shadow for shadow in TABLE if shadow != FREE}
_MAY: Final = frozenset(
    (role, action, shadow) for shadow in TABLE for action in Action for role in _allowed(shadow, action)
)


def may(role: Role, action: Action, shadow_name: str) -> bool:
    """Tell whether this role may do this to a shadow of this name (``""`` = classic)."""
    # Asked for every update of every device: one look-up for the name, one for the answer.
    return (role, action, _NAMES.get(shadow_name, FREE)) in _MAY


def may_read(role: Role, shadow_name: str) -> bool:
    """Tell whether this role may read the shadow and its history."""
    return may(role, Action.READ, shadow_name)


def may_delete(role: Role, shadow_name: str) -> bool:
    """Tell whether this role may delete the shadow."""
    return may(role, Action.DELETE, shadow_name)


def may_write(role: Role, shadow_name: str, section: Section, *, nulls_only: bool = False) -> bool:
    """Tell whether this role may write this section.

    ``nulls_only`` says that the patch does nothing but delete fields; who forgets to say so is judged as if
    it wrote values.
    """
    if nulls_only:
        return may(role, _EMPTYING[section], shadow_name)
    return may(role, _WRITING[section], shadow_name)


def stand_in(principal: Principal) -> Principal:
    """Return who acts on the AWS-shaped routes: an operator stands in for the thing, all others stay."""
    return Principal(principal.name, Role.STAND_IN) if principal.role is Role.OPERATOR else principal
