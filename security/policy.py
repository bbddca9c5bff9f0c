"""Who may do what: one table of actions, one of shadows, pure, and the default is no.

``GRANTS`` says for every role and action how the principal must stand to the target; ``SHADOWS`` says which
section of which shadow a role may touch. Both must agree. Nothing is looked up here: whoever asks brings the
facts along as a :class:`Target`, so that no answer can depend on what a caller forgot to load.
(spec: security, 3)

An account has exactly one role (ADR 0009), and a role says how somebody stands to the target *in this act*.
Three roles are there for that reason alone:

* ``RELAY``: a gateway that speaks for a thing attached to it. It may do what the thing itself may, and never
  touches a ``han`` shadow: that one only "the gateway itself" reports and reads. See :func:`speaker`.
* ``STAND_IN``: whoever an unchecked AWS signature stands for (``api.compat_http``, loopback only). Suites
  made for the cloud report as well as desire, and make things. It reports no reserved shadow: those state
  what a device really did.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    """What kind of party acts, and in which standing. A principal has exactly one."""

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
    """An unchecked AWS signature, in the place of any thing."""
    SYSTEM = "system"
    """Our own workflows, in this process, by their own rule."""


class Scope(StrEnum):
    """How a principal must stand to the target."""

    SELF = "self"
    """It is the thing."""
    ATTACHED = "attached"
    """It is a gateway that the thing is attached to now."""
    ACCOUNT = "account"
    """The target belongs to the principal's own account."""
    OWN = "own"
    """It does, and is not the utility's: what the utility put there is not the customer's to stop."""
    OWN_STOP = "own_stop"
    """It is their own, and it was a customer who stopped it."""
    CASE = "case"
    """The target's account is under a live verification by this representative."""
    CASE_BOUND = "case_bound"
    """It is, and the utility deals with the target: what else is in a home is nobody's business."""
    ORDER = "order"
    """The target's premises have an open work order assigned to this installer."""
    ORDER_BOUND = "order_bound"
    """They have, and the utility deals with the target."""
    ENROLLED = "enrolled"
    """The target belongs to the utility, or takes part in a program."""
    ANY = "any"


class Action(StrEnum):
    """What can be done. Routes, topics and audit rows use these words."""

    OPEN = "open"
    """Asked of nobody: it has no row, and the guard lets everybody through."""
    THING_READ = "thing.read"
    SHADOW_READ = "shadow.read"
    SHADOW_HISTORY = "shadow.history"
    SHADOW_REPORT = "shadow.report"
    SHADOW_DESIRE = "shadow.desire"
    SHADOW_DELETE = "shadow.delete"
    CERTIFICATE_ENROL = "certificate.enrol"
    CERTIFICATE_READ = "certificate.read"
    CERTIFICATE_REVOKE = "certificate.revoke"
    VOUCHER_CREATE = "voucher.create"
    INSTALL_CODE_WRITE = "install_code.write"
    THING_REGISTER = "thing.register"
    THING_REMOVE = "thing.remove"
    THING_SUSPEND = "thing.suspend"
    THING_RESUME = "thing.resume"
    ATTACHMENT_WRITE = "attachment.write"
    THING_DETACH = "thing.detach"
    HOME_READ = "home.read"
    """One's own premises, and the lists of what takes part there."""
    HOME_WRITE = "home.write"
    """To take part in programs oneself, and to leave them: a customer's own yes, given by nobody else."""
    DEVICE_READ = "device.read"
    DEVICE_WRITE = "device.write"
    """What the customer calls it, and in which room it is."""
    DEVICE_RETIRE = "device.retire"
    MODEL_READ = "model.read"
    MODEL_WRITE = "model.write"
    GATEWAY_WRITE = "gateway.write"
    METER_READ = "meter.read"
    METER_WRITE = "meter.write"
    ACCOUNT_READ = "account.read"
    ACCOUNT_WRITE = "account.write"
    PREMISES_READ = "premises.read"
    PREMISES_WRITE = "premises.write"
    CUSTOMER_FIND = "customer.find"
    VERIFICATION_CREATE = "verification.create"
    WORK_ORDER_WRITE = "work_order.write"
    SESSION_READ = "session.read"
    SESSION_WORK = "session.work"
    """Open, discover, grant, select and push: all of a provisioning session but to confirm it."""
    SESSION_CONFIRM = "session.confirm"
    SESSION_ABORT = "session.abort"
    SESSION_TAKE_OVER = "session.take_over"
    METER_EXCHANGE = "meter.exchange"
    ENROLMENT_READ = "enrolment.read"
    ENROLMENT_REQUEST = "enrolment.request"
    CONSENT_READ = "consent.read"
    CONSENT_GIVE = "consent.give"
    CONSENT_WITHDRAW = "consent.withdraw"
    MOVE_READ = "move.read"
    """How far an exchange, a replacement or a move-out is."""
    HAN_CLEAR = "han.clear"
    OUTBOX_READ = "outbox.read"
    OUTBOX_RETRY = "outbox.retry"
    EVENT_OPT_OUT = "event.opt_out"
    ACCOUNT_EXPORT = "account.export"
    ACCOUNT_ERASE = "account.erase"
    PROGRAM_READ = "program.read"
    """The catalogue: programs, shapes, tariffs."""
    PROGRAM_WRITE = "program.write"
    EVENT_CREATE = "event.create"
    EVENT_APPROVE = "event.approve"
    EVENT_CANCEL = "event.cancel"
    STOP_ALL = "stop_all"
    IMAGE_UPLOAD = "image.upload"
    IMAGE_RELEASE = "image.release"
    IMAGE_READ = "image.read"
    CAMPAIGN_CREATE = "campaign.create"
    CAMPAIGN_APPROVE = "campaign.approve"
    CAMPAIGN_PAUSE = "campaign.pause"
    CAMPAIGN_ABORT = "campaign.abort"
    CAMPAIGN_RESUME = "campaign.resume"
    JOB_READ = "job.read"
    JOB_EXECUTE = "job.execute"
    FLEET_SEARCH = "fleet.search"
    FLEET_EXPORT = "fleet.export"
    FLEET_READ = "fleet.read"
    """Figures of the whole: no thing, no person."""
    PRINCIPAL_READ = "principal.read"
    PRINCIPAL_WRITE = "principal.write"
    ROLE_GRANT = "role.grant"
    SIGNING_KEY_WRITE = "signing_key.write"
    REVOKE_ALL = "revoke_all"
    APPROVAL_READ = "approval.read"
    APPROVAL_WRITE = "approval.write"
    AUDIT_READ = "audit.read"
    AUDIT_VERIFY = "audit.verify"
    SELF_MANAGE = "self.manage"
    """One's own password, second factor and logins."""


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


@dataclass(frozen=True, slots=True)
class Target:
    """The facts about what is acted on. What is left out is not the case: no fact, no right."""

    thing: str = ""
    gateways: frozenset[str] = frozenset()
    """Those that may speak for the thing now."""
    account: str = ""
    """Whose it is, in the current ownership."""
    premises: str = ""
    enrolled: bool = False
    bound: bool = False
    """The utility deals with it: it is registered for an account, takes part, or is the utility's own."""
    customers: bool = False
    """It is a customer's property."""
    liftable: bool = False
    """Nobody has suspended it, or a customer has: it is in no quarantine."""
    since_ms: int = 0
    """When the current ownership began: who stands to the target by its account sees nothing older."""


NO_TARGET: Final = Target()
"""For actions that are not about one thing: only ANY covers it."""

_R = Role
_S = Scope
_THING: Final = {_R.DEVICE: _S.SELF, _R.GATEWAY: _S.SELF, _R.RELAY: _S.ATTACHED}
_VISIT: Final = {_R.CUSTOMER: _S.ACCOUNT, _R.REP: _S.CASE, _R.INSTALLER: _S.ORDER}
_CASE: Final = {_R.CUSTOMER: _S.ACCOUNT, _R.REP: _S.CASE}
_OPERATOR: Final = {_R.OPERATOR: _S.ANY}
_SECURITY: Final = {_R.SECURITY: _S.ANY}
_SYSTEM: Final = {_R.SYSTEM: _S.ANY}
_STAND_IN: Final = {_R.STAND_IN: _S.ANY}
_PEOPLE: Final = (_R.CUSTOMER, _R.REP, _R.INSTALLER, _R.OPERATOR, _R.SECURITY, _R.AUDITOR)

_READ: Final = _THING | _VISIT | {_R.OPERATOR: _S.ENROLLED, _R.VEN: _S.ACCOUNT} | _SYSTEM | _STAND_IN
_ON_SITE: Final = {_R.REP: _S.CASE, _R.INSTALLER: _S.ORDER, _R.OPERATOR: _S.ANY}

# The one table of actions: who, standing how to the target. What has no row is nobody's.
GRANTS: Final[Mapping[Action, Mapping[Role, Scope]]] = MappingProxyType(
    {
        Action.THING_READ: _READ,
        Action.SHADOW_READ: _READ,
        Action.SHADOW_HISTORY: {_R.CUSTOMER: _S.ACCOUNT, _R.OPERATOR: _S.ENROLLED} | _SYSTEM,
        Action.SHADOW_REPORT: _THING | _SYSTEM | _STAND_IN,
        Action.SHADOW_DESIRE: _THING
        | {_R.CUSTOMER: _S.ACCOUNT, _R.INSTALLER: _S.ORDER, _R.OPERATOR: _S.ENROLLED}
        | _SYSTEM
        | _STAND_IN,
        Action.SHADOW_DELETE: _THING | {_R.CUSTOMER: _S.ACCOUNT} | _STAND_IN,
        Action.CERTIFICATE_ENROL: {_R.DEVICE: _S.SELF, _R.GATEWAY: _S.SELF},
        Action.CERTIFICATE_READ: _VISIT | _SECURITY,
        Action.CERTIFICATE_REVOKE: _VISIT | {_R.CUSTOMER: _S.OWN} | _SECURITY,
        Action.VOUCHER_CREATE: _VISIT | _SECURITY,
        Action.INSTALL_CODE_WRITE: _SECURITY,
        Action.THING_REGISTER: _VISIT | _SECURITY | _STAND_IN,
        Action.THING_REMOVE: {_R.CUSTOMER: _S.OWN} | _SECURITY | _STAND_IN,
        Action.THING_SUSPEND: {_R.CUSTOMER: _S.OWN} | _OPERATOR | _SECURITY,
        Action.THING_RESUME: {_R.CUSTOMER: _S.OWN_STOP} | _OPERATOR | _SECURITY,
        Action.ATTACHMENT_WRITE: _VISIT | _SECURITY,
        Action.THING_DETACH: _VISIT | {_R.CUSTOMER: _S.OWN} | _SECURITY,
        Action.HOME_READ: {_R.CUSTOMER: _S.ACCOUNT},
        Action.HOME_WRITE: {_R.CUSTOMER: _S.ACCOUNT},
        Action.DEVICE_READ: {
            _R.CUSTOMER: _S.ACCOUNT,
            _R.REP: _S.CASE_BOUND,
            _R.INSTALLER: _S.ORDER_BOUND,
            _R.OPERATOR: _S.ENROLLED,
        }
        | _SYSTEM,
        Action.DEVICE_WRITE: _VISIT,
        Action.DEVICE_RETIRE: _VISIT | {_R.CUSTOMER: _S.OWN} | _SECURITY,
        Action.MODEL_READ: dict.fromkeys(_PEOPLE, _S.ANY) | {_R.CCS: _S.ANY} | _SYSTEM,
        Action.MODEL_WRITE: _OPERATOR | _SYSTEM,
        Action.GATEWAY_WRITE: {_R.INSTALLER: _S.ORDER, _R.OPERATOR: _S.ENROLLED} | _SYSTEM,
        Action.METER_READ: _VISIT | {_R.OPERATOR: _S.ENROLLED, _R.CCS: _S.ANY} | _SYSTEM,
        Action.METER_WRITE: _OPERATOR | {_R.CCS: _S.ANY} | _SYSTEM,
        Action.ACCOUNT_READ: _CASE | {_R.CCS: _S.ANY} | _SYSTEM,
        Action.ACCOUNT_WRITE: {_R.CCS: _S.ANY} | _SYSTEM,
        Action.PREMISES_READ: _VISIT | {_R.CCS: _S.ANY} | _SYSTEM,
        Action.PREMISES_WRITE: {_R.CCS: _S.ANY} | _SYSTEM,
        Action.CUSTOMER_FIND: {_R.REP: _S.ANY},
        Action.VERIFICATION_CREATE: {_R.REP: _S.ANY},
        Action.WORK_ORDER_WRITE: _OPERATOR | {_R.CCS: _S.ANY},
        Action.SESSION_READ: _VISIT | _OPERATOR,
        Action.SESSION_WORK: _VISIT,
        Action.SESSION_CONFIRM: _CASE,
        Action.SESSION_ABORT: _ON_SITE,
        Action.SESSION_TAKE_OVER: _ON_SITE,
        Action.METER_EXCHANGE: _ON_SITE | {_R.CCS: _S.ANY},
        Action.ENROLMENT_READ: _VISIT | {_R.OPERATOR: _S.ENROLLED} | _SYSTEM,
        Action.CONSENT_READ: _CASE | _SYSTEM,
        Action.ENROLMENT_REQUEST: _CASE,
        Action.CONSENT_GIVE: _CASE,
        Action.CONSENT_WITHDRAW: _CASE,
        Action.MOVE_READ: _VISIT | _OPERATOR | {_R.CCS: _S.ANY},
        Action.HAN_CLEAR: _VISIT | {_R.CUSTOMER: _S.OWN, _R.OPERATOR: _S.ENROLLED},
        Action.OUTBOX_READ: _OPERATOR,
        Action.OUTBOX_RETRY: _OPERATOR,
        Action.EVENT_OPT_OUT: _CASE | {_R.DEVICE: _S.SELF},
        Action.ACCOUNT_EXPORT: {_R.CUSTOMER: _S.ACCOUNT},
        Action.ACCOUNT_ERASE: {_R.CUSTOMER: _S.ACCOUNT, _R.CCS: _S.ANY},
        Action.PROGRAM_READ: dict.fromkeys(_PEOPLE, _S.ANY) | {_R.CCS: _S.ANY, _R.BL: _S.ANY} | _SYSTEM,
        Action.PROGRAM_WRITE: _OPERATOR | {_R.BL: _S.ANY},
        Action.EVENT_CREATE: _OPERATOR | {_R.BL: _S.ANY},
        Action.EVENT_APPROVE: _OPERATOR,
        Action.EVENT_CANCEL: _OPERATOR | _SECURITY | {_R.BL: _S.ACCOUNT},
        Action.STOP_ALL: _OPERATOR | _SECURITY,
        Action.IMAGE_UPLOAD: _OPERATOR | {_R.VENDOR: _S.ACCOUNT},
        Action.IMAGE_RELEASE: _OPERATOR,
        Action.IMAGE_READ: _THING | {_R.INSTALLER: _S.ORDER},
        Action.CAMPAIGN_CREATE: _OPERATOR,
        Action.CAMPAIGN_APPROVE: _OPERATOR,
        Action.CAMPAIGN_PAUSE: _OPERATOR | _SECURITY,
        Action.CAMPAIGN_ABORT: _OPERATOR | _SECURITY,
        Action.CAMPAIGN_RESUME: _OPERATOR,
        Action.JOB_READ: _THING | {_R.INSTALLER: _S.ORDER},
        Action.JOB_EXECUTE: _THING | {_R.INSTALLER: _S.ORDER},
        Action.FLEET_SEARCH: {_R.OPERATOR: _S.ENROLLED},
        Action.FLEET_EXPORT: {_R.OPERATOR: _S.ENROLLED},
        Action.FLEET_READ: _OPERATOR | _SECURITY,
        Action.PRINCIPAL_READ: _SECURITY,
        Action.PRINCIPAL_WRITE: _SECURITY,
        Action.ROLE_GRANT: _SECURITY,
        Action.SIGNING_KEY_WRITE: _SECURITY,
        Action.REVOKE_ALL: _SECURITY,
        Action.APPROVAL_READ: _OPERATOR | _SECURITY,
        Action.APPROVAL_WRITE: _OPERATOR | _SECURITY,
        Action.AUDIT_READ: {_R.AUDITOR: _S.ANY},
        Action.AUDIT_VERIFY: {_R.AUDITOR: _S.ANY},
        Action.SELF_MANAGE: dict.fromkeys(_PEOPLE, _S.ANY),
    }
)

STEP_UP: Final = frozenset(
    {
        (_R.OPERATOR, Action.SHADOW_DESIRE),
        (_R.OPERATOR, Action.EVENT_CREATE),
        (_R.OPERATOR, Action.EVENT_APPROVE),
        (_R.OPERATOR, Action.IMAGE_RELEASE),
        (_R.OPERATOR, Action.CAMPAIGN_APPROVE),
        (_R.OPERATOR, Action.CAMPAIGN_RESUME),
        (_R.OPERATOR, Action.APPROVAL_WRITE),
        (_R.OPERATOR, Action.THING_RESUME),
        (_R.OPERATOR, Action.MODEL_WRITE),
        (_R.SECURITY, Action.THING_RESUME),
        (_R.SECURITY, Action.DEVICE_RETIRE),
        (_R.SECURITY, Action.CERTIFICATE_REVOKE),
        (_R.SECURITY, Action.INSTALL_CODE_WRITE),
        (_R.SECURITY, Action.PRINCIPAL_WRITE),
        (_R.SECURITY, Action.ROLE_GRANT),
        (_R.SECURITY, Action.SIGNING_KEY_WRITE),
        (_R.SECURITY, Action.REVOKE_ALL),
        (_R.SECURITY, Action.APPROVAL_WRITE),
        (_R.CUSTOMER, Action.ACCOUNT_EXPORT),
        (_R.CUSTOMER, Action.ACCOUNT_ERASE),
    }
)
"""What needs a second factor that was shown a moment ago, for exactly this act."""

TWO_PERSONS: Final = frozenset(
    {
        (_R.OPERATOR, Action.PROGRAM_WRITE),
        (_R.OPERATOR, Action.EVENT_APPROVE),
        (_R.OPERATOR, Action.IMAGE_RELEASE),
        (_R.OPERATOR, Action.CAMPAIGN_APPROVE),
        (_R.SECURITY, Action.PRINCIPAL_WRITE),
        (_R.SECURITY, Action.ROLE_GRANT),
        (_R.SECURITY, Action.SIGNING_KEY_WRITE),
        (_R.SECURITY, Action.REVOKE_ALL),
    }
)
"""What is held until a second person approves. Stopping never needs one; resuming a campaign needs one only
after an automatic pause, which its own service knows."""


def may(principal: Principal, action: Action, target: Target = NO_TARGET) -> bool:
    """Tell whether this principal may do this to this target."""
    scope = scope_of(principal.role, action)
    return scope is not None and covers(scope, principal, target)


def may_at_all(role: Role, action: Action) -> bool:
    """Tell whether a role has any scope for an action: if not, nothing needs to be looked up."""
    return scope_of(role, action) is not None


def needs_step_up(role: Role, action: Action) -> bool:
    """Tell whether a fresh second factor is needed for this act."""
    return (role, action) in STEP_UP


def needs_second_person(role: Role, action: Action) -> bool:
    """Tell whether what this role asks for is held until somebody else approves it."""
    return (role, action) in TWO_PERSONS


def speaker(principal: Principal, thing: str) -> Principal:
    """Return in which role somebody acts on this thing: a gateway that acts for another is its relay."""
    if principal.role is Role.GATEWAY and principal.name != thing:
        return replace(principal, role=Role.RELAY)
    return principal


def scope_of(role: Role, action: Action) -> Scope | None:
    """Return how this role must stand to the target of an action, None if it may not at all."""
    return GRANTS.get(action, {}).get(role)


def covers(scope: Scope, principal: Principal, target: Target) -> bool:
    """Tell whether the principal stands to the target as the scope says."""
    match scope:
        case Scope.SELF:
            return target.thing != "" and principal.name == target.thing
        case Scope.ATTACHED:
            return target.thing != "" and principal.name in target.gateways
        case Scope.ACCOUNT:
            return _is_own(principal, target)
        case Scope.OWN:
            return _is_own(principal, target) and target.customers
        case Scope.OWN_STOP:
            return _is_own(principal, target) and target.customers and target.liftable
        case Scope.CASE:
            return _is_in_case(principal, target)
        case Scope.CASE_BOUND:
            return _is_in_case(principal, target) and target.bound
        case Scope.ORDER:
            return _is_ordered(principal, target)
        case Scope.ORDER_BOUND:
            return _is_ordered(principal, target) and target.bound
        case Scope.ENROLLED:
            return target.enrolled
        case Scope.ANY:
            return True


def _is_own(principal: Principal, target: Target) -> bool:
    return target.account != "" and principal.account == target.account


def _is_in_case(principal: Principal, target: Target) -> bool:
    return target.account != "" and target.account in principal.reach


def _is_ordered(principal: Principal, target: Target) -> bool:
    return target.premises != "" and target.premises in principal.reach


# ---------------------------------------------------------------------------- shadows


class Section(StrEnum):
    """The two halves of a shadow."""

    DESIRED = "desired"
    REPORTED = "reported"


class Access(StrEnum):
    """What can be done to a shadow."""

    READ = "read"
    DELETE = "delete"
    DESIRE = "desire"
    REPORT = "report"
    CLEAR_DESIRED = "clear_desired"
    """Write a patch of nothing but nulls into ``desired``: to withdraw a finished entry."""
    CLEAR_REPORTED = "clear_reported"


CLASSIC: Final = ""
FREE: Final = "*"
"""Stands in the table for every name that has no meaning of ours; no shadow can be called so."""

THINGS: Final = frozenset({Role.DEVICE, Role.GATEWAY, Role.RELAY})
"""Roles in which a thing speaks, itself or by its gateway: the history says what they did, not the audit."""
_READERS: Final = THINGS | {
    Role.CUSTOMER,
    Role.REP,
    Role.INSTALLER,
    Role.OPERATOR,
    Role.VEN,
    Role.STAND_IN,
    Role.SYSTEM,
}
_AS_A_THING: Final = frozenset({Role.STAND_IN})
_OURSELVES: Final = frozenset({Role.SYSTEM})
_ITSELF: Final = frozenset({Role.GATEWAY})
_NOBODY: Final = frozenset[Role]()

# An access without a row, and a shadow without a row, is nobody's. What may be written may also be cleared;
# the CLEAR rows name who may *only* clear.
SHADOWS: Final[Mapping[str, Mapping[Access, frozenset[Role]]]] = MappingProxyType(
    {
        CLASSIC: {
            Access.READ: _READERS,
            Access.DELETE: THINGS | {Role.CUSTOMER} | _AS_A_THING,
            Access.DESIRE: THINGS | {Role.CUSTOMER, Role.INSTALLER, Role.OPERATOR} | _AS_A_THING,
            Access.REPORT: THINGS | _AS_A_THING,
        },
        "program": {
            Access.READ: _READERS,
            Access.DESIRE: _OURSELVES,
            Access.REPORT: THINGS,
            Access.CLEAR_REPORTED: _OURSELVES,
        },
        "firmware": {
            Access.READ: _READERS,
            Access.DESIRE: _NOBODY,
            Access.REPORT: THINGS,
            Access.CLEAR_REPORTED: _OURSELVES,
        },
        "config": {
            Access.READ: _READERS,
            Access.DESIRE: _AS_A_THING | _OURSELVES | {Role.OPERATOR},
            Access.REPORT: THINGS,
            Access.CLEAR_REPORTED: _OURSELVES,
        },
        "han": {
            Access.READ: _ITSELF | {Role.CUSTOMER} | _OURSELVES,
            Access.DESIRE: _OURSELVES,
            Access.REPORT: _ITSELF,
            Access.CLEAR_REPORTED: _OURSELVES,
        },
        FREE: {
            Access.READ: _READERS,
            Access.DELETE: THINGS | _AS_A_THING,
            Access.DESIRE: THINGS | _AS_A_THING,
            Access.REPORT: THINGS | _AS_A_THING,
        },
    }
)

_CLEARING: Final = {Access.CLEAR_DESIRED: Access.DESIRE, Access.CLEAR_REPORTED: Access.REPORT}
_WRITING: Final = {Section.DESIRED: Access.DESIRE, Section.REPORTED: Access.REPORT}
_EMPTYING: Final = {Section.DESIRED: Access.CLEAR_DESIRED, Section.REPORTED: Access.CLEAR_REPORTED}


def _allowed(shadow: str, access: Access) -> frozenset[Role]:
    rows = SHADOWS[shadow]
    allowed = rows.get(access, _NOBODY)
    wider = _CLEARING.get(access)
    return allowed if wider is None else allowed | rows.get(wider, _NOBODY)


_NAMES: Final = {shadow: shadow for shadow in SHADOWS if shadow != FREE}
_MAY: Final = frozenset(
    (role, access, shadow) for shadow in SHADOWS for access in Access for role in _allowed(shadow, access)
)


def may_access(role: Role, access: Access, shadow_name: str) -> bool:
    """Tell whether this role may do this to a shadow of this name (``""`` = classic)."""
    # Asked for every update of every device: one look-up for the name, one for the answer.
    return (role, access, _NAMES.get(shadow_name, FREE)) in _MAY


def may_read(role: Role, shadow_name: str) -> bool:
    """Tell whether this role may read the shadow and its history."""
    return may_access(role, Access.READ, shadow_name)


def may_delete(role: Role, shadow_name: str) -> bool:
    """Tell whether this role may delete the shadow."""
    return may_access(role, Access.DELETE, shadow_name)


def may_write(role: Role, shadow_name: str, section: Section, *, nulls_only: bool = False) -> bool:
    """Tell whether this role may write this section.

    ``nulls_only`` says that the patch does nothing but delete fields; who forgets to say so is judged as if
    it wrote values.
    """
    if nulls_only:
        return may_access(role, _EMPTYING[section], shadow_name)
    return may_access(role, _WRITING[section], shadow_name)
