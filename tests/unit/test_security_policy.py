"""Who may do what to which shadow: the golden matrix, and what must never be in it."""

import pytest

from security.policy import (
    FREE,
    RESERVED,
    TABLE,
    Action,
    Principal,
    Role,
    Section,
    may,
    may_delete,
    may_read,
    may_write,
    stand_in,
)
from tests.vectors import make_authz_matrix

# Written by hand, from the specification and not from the table: regenerating the matrix cannot open a hole
# unseen. "others" after "but" are the only ones who may. `free` is any name without a meaning of ours.
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
anyone but gateway system never read han
device never read han
relay never read han
operator never read han
stand_in never read han
""".strip().splitlines()
NAMES = {"classic": "", "free": "my-own_shadow:1"}


def parse(sentence: str) -> tuple[set[Role], Action, str]:
    who, _, what = sentence.partition(" never ")
    action, shadow = what.split()
    first, *rest = who.split()
    roles = {Role(first)} if first != "anyone" else set(Role) - {Role(role) for role in rest[1:]}
    return roles, Action(action), NAMES.get(shadow, shadow)


@pytest.mark.parametrize("sentence", NEVER)
def test_what_must_never_be(sentence: str):
    roles, action, shadow = parse(sentence)
    assert roles
    assert {role for role in roles if may(role, action, shadow)} == set()


def test_there_are_enough_never_sentences_and_none_twice():
    assert len(set(NEVER)) == len(NEVER) >= 60


def test_the_matrix_is_the_committed_one():
    assert make_authz_matrix.PATH.read_text() == make_authz_matrix.render(), (
        "a permission has changed: run `python tests/vectors/make_authz_matrix.py` and read the diff"
    )


def test_every_reserved_shadow_has_its_rows_and_nothing_else_has():
    assert set(TABLE) == {"", FREE, *RESERVED}


@pytest.mark.parametrize("role", Role)
def test_the_mark_for_free_names_gives_nothing_to_a_name_that_looks_like_it(role: Role):
    assert [may(role, action, FREE) for action in Action] == [may(role, action, "x") for action in Action]


@pytest.mark.parametrize("odd", ["Program", "PROGRAM", " program", "program ", "prograM", "han\n"])
def test_a_name_like_a_reserved_one_is_free_not_reserved(odd: str):
    assert may_delete(Role.DEVICE, odd)
    assert not may_write(Role.SYSTEM, odd, Section.DESIRED)


@pytest.mark.parametrize("shadow", ["", "program", "config", "x"])
def test_an_unknown_role_may_nothing(shadow: str):
    stranger: Role = "admin"  # type: ignore[assignment]  # what a parse error could let through
    assert not any(may(stranger, action, shadow) for action in Action)


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


@pytest.mark.parametrize("name", ["", "config", "schedule"])
def test_an_operator_desires_controls_settings_and_free_shadows(name: str):
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


def test_the_operator_stands_in_for_the_thing_and_keeps_the_name():
    assert stand_in(Principal("anna", Role.OPERATOR)) == Principal("anna", Role.STAND_IN)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_nobody_else_becomes_somebody_else(role: Role):
    assert stand_in(Principal("x", role)) == Principal("x", role)


def test_a_stand_in_may_all_that_the_operator_may():
    for name in ("", *RESERVED, "x"):
        for action in Action:
            if may(Role.OPERATOR, action, name):
                assert may(Role.STAND_IN, action, name), (action, name)


@pytest.mark.parametrize("name", ["", "x"])
def test_a_stand_in_reports_where_nothing_is_reserved(name: str):
    assert may_write(Role.STAND_IN, name, Section.REPORTED)
