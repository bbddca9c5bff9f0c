"""Who may do what: the golden matrix, and what must never be in it."""

from dataclasses import replace
from itertools import product

import pytest

from security.policy import (
    FREE,
    GRANTS,
    NO_TARGET,
    SHADOWS,
    STEP_UP,
    TWO_PERSONS,
    Access,
    Action,
    Principal,
    Role,
    Scope,
    Section,
    Target,
    may,
    may_access,
    may_at_all,
    may_delete,
    may_read,
    may_write,
    needs_second_person,
    needs_step_up,
    scope_of,
    speaker,
)
from tests.vectors import make_authz_matrix
from tests.vectors.make_authz_matrix import RELATIONS, principal

RESERVED = ("program", "firmware", "config", "han")

# Written by hand, from the specification and not from the table. "anyone" is every role;
# "others" after "but" are the only ones who may.
NEVER_DO = """
anyone but operator bl never event.create
anyone but operator never event.approve
anyone but operator security bl never event.cancel
anyone but operator security never stop_all
anyone but operator security never campaign.pause
anyone but operator security never campaign.abort
anyone but operator never campaign.resume
anyone but operator never campaign.create
anyone but operator never campaign.approve
anyone but operator vendor never image.upload
anyone but operator never image.release
anyone but operator bl never program.write
anyone but security never principal.write
anyone but security never principal.read
anyone but security never role.grant
anyone but security never signing_key.write
anyone but security never revoke_all
anyone but security operator never approval.write
anyone but security operator never approval.read
anyone but auditor never audit.read
anyone but auditor never audit.verify
anyone but security never install_code.write
anyone but device gateway never certificate.enrol
anyone but customer rep installer security never certificate.revoke
anyone but customer rep installer security never voucher.create
anyone but customer rep installer security stand_in never thing.register
anyone but customer rep installer security never attachment.write
anyone but customer rep installer security never thing.detach
anyone but customer security stand_in never thing.remove
anyone but customer operator security never thing.suspend
anyone but customer operator security never thing.resume
anyone but ccs system never premises.write
anyone but customer rep installer ccs system never premises.read
anyone but rep never customer.find
anyone but rep never verification.create
anyone but operator ccs never work_order.write
anyone but customer rep installer operator never session.read
anyone but customer rep installer never session.work
anyone but customer rep never session.confirm
anyone but customer rep installer operator ccs never move.read
anyone but customer rep installer operator never han.clear
anyone but operator never outbox.read
anyone but operator never outbox.retry
anyone but rep installer operator never session.abort
anyone but rep installer operator never session.take_over
anyone but rep installer operator ccs never meter.exchange
anyone but customer rep never consent.give
anyone but customer rep never consent.withdraw
anyone but customer rep never enrolment.request
anyone but customer rep installer operator system never enrolment.read
anyone but customer rep system never consent.read
anyone but customer rep installer operator security auditor ccs bl system never program.read
operator never enrolment.request
operator never consent.read
installer never consent.read
installer never enrolment.request
anyone but device customer rep never event.opt_out
anyone but customer never account.export
anyone but customer ccs never account.erase
anyone but operator never fleet.search
anyone but operator never fleet.export
anyone but operator security never fleet.read
anyone but device gateway relay installer never job.read
anyone but device gateway relay installer never job.execute
anyone but device gateway relay installer never image.read
anyone but device gateway relay system stand_in never shadow.report
anyone but customer operator system never shadow.history
anyone but customer never home.read
anyone but customer never home.write
rep never home.write
anyone but customer rep installer operator system never device.read
anyone but customer rep installer never device.write
anyone but customer rep installer security never device.retire
anyone but operator system never model.write
anyone but installer operator system never gateway.write
anyone but customer rep installer operator ccs system never meter.read
anyone but operator ccs system never meter.write
anyone but customer rep ccs system never account.read
anyone but ccs system never account.write
security never device.read
auditor never device.read
ccs never device.read
device never device.read
gateway never device.read
operator never device.write
operator never account.read
installer never account.read
operator never consent.give
operator never shadow.report
operator never shadow.delete
operator never role.grant
operator never signing_key.write
operator never audit.read
operator never certificate.revoke
operator never thing.register
security never event.create
security never event.approve
security never campaign.create
security never image.release
security never thing.read
security never shadow.read
security never shadow.desire
security never audit.read
rep never shadow.desire
rep never shadow.history
installer never session.confirm
installer never shadow.history
installer never consent.give
auditor never thing.read
auditor never shadow.read
auditor never principal.write
ccs never thing.read
ccs never shadow.read
bl never thing.read
bl never event.approve
ven never shadow.desire
vendor never image.release
vendor never campaign.create
vendor never thing.read
meterdata never thing.read
system never event.create
system never event.approve
system never role.grant
anyone never open
""".strip().splitlines()
# What two rights together would make of one person. "and" names both; nobody has the pair.
NEVER_BOTH = """
event.create and role.grant
event.create and principal.write
event.approve and role.grant
campaign.approve and signing_key.write
image.release and signing_key.write
image.upload and signing_key.write
certificate.revoke and event.create
thing.register and event.create
audit.read and principal.write
audit.read and event.create
audit.verify and stop_all
premises.write and thing.read
premises.write and shadow.desire
premises.write and device.read
account.write and device.read
device.write and fleet.export
customer.find and shadow.desire
consent.give and fleet.export
consent.give and event.create
install_code.write and thing.read
""".strip().splitlines()
EVERYBODY = frozenset(Role)

# By hand as well: regenerating the matrix cannot open a hole
# unseen. `free` is any name without a meaning of ours.
NEVER = """
anyone but system never desire program
device never desire program
gateway never desire program
relay never desire program
operator never desire program
stand_in never desire program
anyone but system never desire han
device never desire han
gateway never desire han
relay never desire han
operator never desire han
stand_in never desire han
anyone never desire firmware
system never desire firmware
device never desire firmware
gateway never desire firmware
relay never desire firmware
operator never desire firmware
stand_in never desire firmware
anyone never clear_desired firmware
anyone but operator stand_in system never desire config
customer never desire config
customer never desire program
customer never desire han
customer never desire free
customer never delete free
customer never report classic
customer never clear_reported classic
installer never desire config
installer never delete classic
rep never desire classic
rep never read han
installer never read han
ven never read han
ven never desire classic
operator never desire free
operator never delete classic
operator never delete free
security never read classic
auditor never read classic
device never desire config
gateway never desire config
relay never desire config
anyone never delete program
anyone never delete firmware
anyone never delete config
anyone never delete han
system never delete program
system never delete firmware
system never delete config
system never delete han
operator never delete program
operator never delete firmware
operator never delete config
operator never delete han
stand_in never delete program
stand_in never delete firmware
stand_in never delete config
stand_in never delete han
system never delete classic
system never delete free
operator never report classic
operator never report program
operator never report firmware
operator never report config
operator never report han
operator never report free
operator never clear_reported classic
operator never clear_reported program
operator never clear_reported firmware
operator never clear_reported config
operator never clear_reported han
stand_in never report program
stand_in never report firmware
stand_in never report config
stand_in never report han
stand_in never clear_reported program
stand_in never clear_reported firmware
stand_in never clear_reported config
stand_in never clear_reported han
system never report classic
system never report program
system never report firmware
system never report config
system never report han
system never report free
system never desire classic
system never desire free
system never clear_reported classic
system never clear_reported free
anyone but gateway never report han
device never report han
relay never report han
anyone but gateway customer system never read han
device never read han
relay never read han
operator never read han
stand_in never read han
""".strip().splitlines()
NAMES = {"classic": "", "free": "my-own_shadow:1"}


def roles_of(who: str) -> set[Role]:
    first, *rest = who.split()
    return {Role(first)} if first != "anyone" else set(EVERYBODY) - {Role(role) for role in rest[1:]}


@pytest.mark.parametrize("sentence", NEVER_DO)
def test_what_nobody_else_may_ever_do(sentence: str):
    who, _, action = sentence.partition(" never ")
    roles = roles_of(who)
    assert roles
    assert {role for role in roles if may_at_all(role, Action(action))} == set()


@pytest.mark.parametrize("pair", NEVER_BOTH)
def test_what_nobody_may_both(pair: str):
    one, _, other = pair.partition(" and ")
    both = {role for role in EVERYBODY if may_at_all(role, Action(one)) and may_at_all(role, Action(other))}
    assert both - {Role.SYSTEM} == set(), "system acts in process only and holds no token"


@pytest.mark.parametrize("sentence", NEVER)
def test_what_must_never_be_done_to_a_shadow(sentence: str):
    who, _, what = sentence.partition(" never ")
    access, shadow = what.split()
    name, roles = NAMES.get(shadow, shadow), roles_of(who)
    assert roles
    assert {role for role in roles if may_access(role, Access(access), name)} == set()


def test_there_are_enough_never_sentences_and_none_twice():
    assert len(set(NEVER_DO)) == len(NEVER_DO) >= 60
    assert len(set(NEVER)) == len(NEVER) >= 60
    assert len(set(NEVER_BOTH)) == len(NEVER_BOTH)


def test_the_matrix_is_the_committed_one():
    assert make_authz_matrix.PATH.read_text() == make_authz_matrix.render(), (
        "a permission has changed: run `python tests/vectors/make_authz_matrix.py` and read the diff"
    )


def test_every_reserved_shadow_has_its_rows_and_nothing_else_has():
    assert set(SHADOWS) == {"", FREE, *RESERVED}


@pytest.mark.parametrize("role", Role)
def test_the_mark_for_free_names_gives_nothing_to_a_name_that_looks_like_it(role: Role):
    assert [may_access(role, access, FREE) for access in Access] == [
        may_access(role, access, "x") for access in Access
    ]


@pytest.mark.parametrize("odd", ["Program", "PROGRAM", " program", "program ", "prograM", "han\n"])
def test_a_name_like_a_reserved_one_is_free_not_reserved(odd: str):
    assert may_delete(Role.DEVICE, odd)
    assert not may_write(Role.SYSTEM, odd, Section.DESIRED)


@pytest.mark.parametrize("shadow", ["", "program", "config", "x"])
def test_an_unknown_role_may_nothing(shadow: str):
    stranger: Role = "admin"  # type: ignore[assignment]  # what a parse error could let through
    assert not any(may_access(stranger, access, shadow) for access in Access)
    assert not any(may(Principal("x", stranger), action) for action in Action)


@pytest.mark.parametrize("role", [Role.DEVICE, Role.GATEWAY, Role.RELAY])
def test_a_thing_and_its_gateway_write_both_sections_of_classic_and_free_shadows(role: Role):
    for name in ("", "schedule"):
        assert all(may_write(role, name, section) for section in Section)
        assert may_delete(role, name)
        assert may_read(role, name)


@pytest.mark.parametrize("role", [Role.DEVICE, Role.GATEWAY, Role.RELAY])
@pytest.mark.parametrize("name", ["program", "firmware", "config"])
def test_a_thing_only_reports_what_the_utility_desires(role: Role, name: str):
    assert may_write(role, name, Section.REPORTED)
    assert not may_write(role, name, Section.DESIRED)


@pytest.mark.parametrize("name", ["", "config"])
def test_an_operator_desires_controls_and_settings(name: str):
    assert may_write(Role.OPERATOR, name, Section.DESIRED)
    assert may_read(Role.OPERATOR, name)


@pytest.mark.parametrize("name", RESERVED)
def test_system_clears_finished_entries_but_writes_no_report(name: str):
    assert may_write(Role.SYSTEM, name, Section.REPORTED, nulls_only=True)
    assert not may_write(Role.SYSTEM, name, Section.REPORTED)


def test_who_may_write_may_also_clear():
    for role in Role:
        for name in ("", *RESERVED, "x"):
            for section in Section:
                if may_write(role, name, section):
                    assert may_write(role, name, section, nulls_only=True), (role, name, section)


def test_a_gateway_that_acts_for_another_is_its_relay_and_keeps_its_name():
    gateway = Principal("gw", Role.GATEWAY)
    assert speaker(gateway, "gw") == gateway
    assert speaker(gateway, "meter") == Principal("gw", Role.RELAY)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.GATEWAY])
def test_nobody_else_becomes_somebody_else(role: Role):
    assert speaker(Principal("x", role), "meter") == Principal("x", role)


@pytest.mark.parametrize("name", ["", "x"])
def test_a_stand_in_reports_where_nothing_is_reserved(name: str):
    assert may_write(Role.STAND_IN, name, Section.REPORTED)


# ---------------------------------------------------------------------------- actions


def test_every_action_but_the_open_one_has_a_row_and_nobody_is_left_without_one():
    assert set(GRANTS) == set(Action) - {Action.OPEN}
    assert all(GRANTS.values())
    assert set().union(*GRANTS.values()) == set(Role) - {Role.METERDATA}, "its routes come with metering"


def test_a_fact_that_is_missing_gives_no_right():
    nothing = (Principal("", role) for role in Role)
    for somebody, (action, row) in product(nothing, GRANTS.items()):
        if row.get(somebody.role) is not Scope.ANY:
            assert not may(somebody, action, NO_TARGET), (somebody.role, action)


@pytest.mark.parametrize("action", GRANTS)
@pytest.mark.parametrize("role", Role)
def test_a_right_reaches_as_far_as_its_scope_and_no_further(role: Role, action: Action):
    words = {
        Scope.SELF: {"self"},
        Scope.ATTACHED: {"attached"},
        Scope.ACCOUNT: {"own", "property", "stopped"},
        Scope.OWN: {"property", "stopped"},
        Scope.OWN_STOP: {"stopped"},
        Scope.CASE: {"case", "case-bound"},
        Scope.CASE_BOUND: {"case-bound"},
        Scope.ORDER: {"order", "order-bound"},
        Scope.ORDER_BOUND: {"order-bound"},
        Scope.ENROLLED: {"enrolled"},
        Scope.ANY: set(RELATIONS),
        None: set[str](),
    }
    reached = {name for name, target in RELATIONS.items() if may(principal(role), action, target)}
    assert reached == words[scope_of(role, action)]


def test_an_account_of_one_person_opens_nothing_of_another():
    anna = Principal("anna", Role.CUSTOMER, "a-1")
    assert may(anna, Action.THING_READ, Target("lamp", account="a-1"))
    assert not may(anna, Action.THING_READ, Target("lamp", account="a-2", enrolled=True))


@pytest.mark.parametrize(
    "action",
    [Action.THING_REMOVE, Action.THING_SUSPEND, Action.THING_DETACH, Action.CERTIFICATE_REVOKE],
)
def test_a_customer_never_stops_what_is_the_utilitys(action: Action):
    anna = Principal("anna", Role.CUSTOMER, "a-1")
    meter = Target("meter", account="a-1", enrolled=True, liftable=True)
    assert may(anna, Action.THING_READ, meter)
    assert not may(anna, action, meter)
    assert may(anna, action, Target("lamp", account="a-1", customers=True))


def test_a_customer_never_lifts_a_quarantine_and_staff_only_with_a_fresh_factor():
    anna = Principal("anna", Role.CUSTOMER, "a-1")
    held = Target("lamp", account="a-1", customers=True)
    assert not may(anna, Action.THING_RESUME, held)
    assert may(anna, Action.THING_RESUME, replace(held, liftable=True))
    for role in (Role.OPERATOR, Role.SECURITY):
        assert may(Principal("x", role), Action.THING_RESUME, held)
        assert needs_step_up(role, Action.THING_RESUME)


def test_extra_proof_is_asked_only_of_those_who_have_the_right():
    assert all(may_at_all(role, action) for role, action in STEP_UP | TWO_PERSONS)
    assert needs_step_up(Role.OPERATOR, Action.SHADOW_DESIRE)
    assert not needs_step_up(Role.CUSTOMER, Action.SHADOW_DESIRE)
    assert needs_second_person(Role.SECURITY, Action.ROLE_GRANT)


@pytest.mark.parametrize(
    "action",
    [
        Action.STOP_ALL,
        Action.EVENT_CANCEL,
        Action.CAMPAIGN_PAUSE,
        Action.CAMPAIGN_ABORT,
        Action.THING_SUSPEND,
        Action.CERTIFICATE_REVOKE,
    ],
)
def test_stopping_never_needs_two_persons(action: Action):
    assert not any(needs_second_person(role, action) for role in Role)


def test_who_may_touch_a_shadow_at_all_has_the_action_for_it():
    """The guard asks for the action, the shadow's own table for the section: neither may be wider."""
    for role, name in product(Role, ("", *RESERVED, "x")):
        for access, action in (
            (Access.READ, Action.SHADOW_READ),
            (Access.DELETE, Action.SHADOW_DELETE),
            (Access.DESIRE, Action.SHADOW_DESIRE),
            (Access.REPORT, Action.SHADOW_REPORT),
        ):
            assert not may_access(role, access, name) or may_at_all(role, action), (role, access, name)
    assert set(GRANTS[Action.SHADOW_REPORT]) <= set(GRANTS[Action.SHADOW_DESIRE]), "one route takes both"
