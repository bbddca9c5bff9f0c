"""What may become of things and attachments, without a store."""

import pytest

from registry import rules
from registry.errors import (
    AttachmentNotFoundError,
    InvalidModelError,
    InvalidPremisesError,
    InvalidThingNameError,
    NotAGatewayError,
    PremisesFullError,
    PremisesMismatchError,
    QuarantinedError,
    ReservedNameError,
    ThingExistsError,
    ThingNotFoundError,
)
from registry.models import NewThing, Standing, Thing, ThingKind
from registry.rules import (
    CERTIFIED_NAME_CHARS_MAX,
    MODEL_CHARS_MAX,
    NAME_CHARS_MAX,
    PREMISES_CHARS_MAX,
    RESERVED_PREFIX,
    THINGS_PER_PREMISES_MAX,
    ThingRecord,
)
from security.policy import Role

NEW = NewThing("hall", ThingKind.DEVICE, "acme-pct-2", "home-1")
AT = 1_000


def thing(name: str = "hall", **fields: object) -> Thing:
    values = {
        "kind": ThingKind.DEVICE, "model": "m", "premises": "home-1", "has_certificate": True,
        "registered_at_ms": AT,
    }  # fmt: skip
    return Thing(name, **(values | fields))  # type: ignore[arg-type]  # fields by name, as the tests need them


def gateway(name: str = "meter", **fields: object) -> Thing:
    return thing(name, kind=ThingKind.GATEWAY, **fields)


def new(**fields: object) -> NewThing:
    values = {"name": "hall", "kind": ThingKind.DEVICE, "model": "m", "premises": "home-1"}
    return NewThing(**(values | fields))  # type: ignore[arg-type]  # as above


# New things


@pytest.mark.parametrize(
    "name", ["a", "A:b_c-9", "x" * CERTIFIED_NAME_CHARS_MAX, "-", ":", "_"], ids=lambda name: name[:8]
)
def test_names_of_the_shadow_alphabet_are_taken(name: str):
    rules.check(new(name=name))


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a/b", "a.b", "a+", "#", "$a", "ä", "a\n", "a\0", "x" * (CERTIFIED_NAME_CHARS_MAX + 1)],
    ids=ascii,
)
def test_other_names_are_not(name: str):
    with pytest.raises(InvalidThingNameError, match=f"1 to {CERTIFIED_NAME_CHARS_MAX} of"):
        rules.check(new(name=name))


def test_a_name_without_certificate_may_be_twice_as_long():
    rules.check(new(name="x" * NAME_CHARS_MAX, has_certificate=False))
    with pytest.raises(InvalidThingNameError, match=f"1 to {NAME_CHARS_MAX} of"):
        rules.check(new(name="x" * (NAME_CHARS_MAX + 1), has_certificate=False))


@pytest.mark.parametrize("premises", ["", "home 1", "home/1", "ä", "x" * (PREMISES_CHARS_MAX + 1)], ids=ascii)
def test_premises_have_an_id_not_an_address(premises: str):
    with pytest.raises(InvalidPremisesError):
        rules.check(new(premises=premises))


@pytest.mark.parametrize(
    "model", ["compat", "Acme PCT 2", "acme-pct-2", "A+", "E3 (rev.B)", "9", "x" * MODEL_CHARS_MAX], ids=ascii
)
def test_models_keep_their_makers_spelling(model: str):
    rules.check(new(model=model, premises="x" * PREMISES_CHARS_MAX))


@pytest.mark.parametrize(
    "model", ["", " a", "a ", "<b>", "a\nb", "ä", "a\0", "-a", "x" * (MODEL_CHARS_MAX + 1)], ids=ascii
)
def test_a_model_that_would_need_escaping_is_not_taken(model: str):
    with pytest.raises(InvalidModelError):
        rules.check(new(model=model))


def test_a_new_thing_is_its_first_registration():
    record = rules.register(None, NEW, AT, there=0)
    assert record == ThingRecord(
        Thing("hall", ThingKind.DEVICE, "acme-pct-2", "home-1", True, AT, None, registration=1)
    )


def test_a_live_name_is_taken_also_by_a_revoked_thing():
    for before in (thing(), thing(revoked_at_ms=AT)):
        with pytest.raises(ThingExistsError):
            rules.register(ThingRecord(before), NEW, AT, there=0)


def test_a_removed_name_is_free_and_counts_on():
    before = ThingRecord(thing(registration=4, revoked_at_ms=AT), removed=True)
    record = rules.register(before, NEW, AT, there=0)
    assert (record.removed, record.thing.registration, record.thing.revoked_at_ms) == (False, 5, None)


def test_premises_have_room_for_so_many_things_and_no_more():
    rules.register(None, NEW, AT, there=THINGS_PER_PREMISES_MAX - 1)
    with pytest.raises(PremisesFullError, match="remove one"):
        rules.register(None, NEW, AT, there=THINGS_PER_PREMISES_MAX)


def test_a_taken_name_is_said_to_be_taken_also_where_there_is_no_room():
    with pytest.raises(ThingExistsError):
        rules.register(ThingRecord(thing()), NEW, AT, there=THINGS_PER_PREMISES_MAX)


def test_what_has_taken_the_name_of_a_withdrawn_thing_stays():
    mine, theirs = thing(registration=4), thing(registration=5)
    assert rules.withdraw(mine, ThingRecord(mine)).removed
    assert rules.withdraw(mine, ThingRecord(theirs)) == ThingRecord(theirs)


# The end of things


def test_the_names_of_our_canaries_are_nobody_elses():
    with pytest.raises(ReservedNameError, match="choose another"):
        rules.check(new(name=RESERVED_PREFIX + "9"))


def test_a_suspended_thing_keeps_the_date_of_the_first_time_and_goes_on_without_one():
    record = rules.suspend("hall", ThingRecord(thing()), AT, Role.CUSTOMER)
    assert record.thing.suspended_at_ms == AT
    assert rules.suspend("hall", record, AT + 1, Role.CUSTOMER) == record
    assert rules.resume("hall", record, Role.CUSTOMER) == ThingRecord(thing())


@pytest.mark.parametrize("role", [Role.SYSTEM, Role.SECURITY, Role.OPERATOR])
def test_a_customer_lifts_no_suspension_of_others_also_not_one_that_came_upon_theirs(role: Role):
    theirs = rules.suspend("hall", ThingRecord(thing()), AT, Role.CUSTOMER)
    for before in (theirs, ThingRecord(thing())):
        held = rules.suspend("hall", before, AT + 1, role)
        again = rules.suspend("hall", held, AT + 2, Role.CUSTOMER)
        assert again == held != theirs
        with pytest.raises(QuarantinedError):
            rules.resume("hall", held, Role.CUSTOMER)
        assert rules.resume("hall", held, Role.SECURITY) == ThingRecord(thing())


def test_what_was_suspended_before_it_was_known_by_whom_is_no_customers_to_lift():
    with pytest.raises(QuarantinedError):
        rules.resume("hall", ThingRecord(thing(suspended_at_ms=AT)), Role.CUSTOMER)


@pytest.mark.parametrize(
    ("fields", "barred"),
    [({}, False), ({"revoked_at_ms": AT}, True), ({"suspended_at_ms": AT}, True)],
    ids=["sound", "revoked", "suspended"],
)
def test_what_is_revoked_or_suspended_is_barred(fields, barred):
    assert thing(**fields).barred is barred


def test_a_revoked_thing_keeps_the_date_of_the_first_revocation():
    record = rules.revoke("hall", ThingRecord(thing()), AT)
    assert record.thing.revoked_at_ms == AT
    assert rules.revoke("hall", record, AT + 1) == record


@pytest.mark.parametrize("before", [None, ThingRecord(thing(), removed=True)], ids=["never", "removed"])
def test_what_is_not_there_can_neither_be_found_revoked_nor_removed(before: ThingRecord | None):
    with pytest.raises(ThingNotFoundError):
        rules.live("hall", before)
    with pytest.raises(ThingNotFoundError):
        rules.revoke("hall", before, AT)
    with pytest.raises(ThingNotFoundError):
        rules.suspend("hall", before, AT, Role.CUSTOMER)
    with pytest.raises(ThingNotFoundError):
        rules.resume("hall", before, Role.CUSTOMER)
    with pytest.raises(ThingNotFoundError):
        rules.remove("hall", before)


# Attachments


def test_attaching_makes_a_record_of_both_registrations():
    record = rules.attach(None, gateway(registration=2), thing(registration=3), AT)
    assert (record.attached, record.gateway_registration, record.thing_registration) == (True, 2, 3)
    assert (record.attachment.epoch, record.attachment.since_ms) == (1, AT)


def test_what_is_attached_stays_as_it_is():
    record = rules.attach(None, gateway(), thing(), AT)
    assert rules.attach(record, gateway(), thing(), AT + 1) is record


def test_the_epoch_rises_at_every_attach_for_ever():
    record = rules.attach(None, gateway(), thing(), AT)
    for epoch in range(2, 6):
        record = rules.attach(rules.detach("meter", "hall", record), gateway(), thing(), AT + epoch)
        assert (record.attachment.epoch, record.attachment.since_ms) == (epoch, AT + epoch)


def test_a_row_of_an_earlier_registration_is_no_attachment_but_its_epoch_counts():
    left_behind = rules.attach(None, gateway(), thing(), AT)
    record = rules.attach(left_behind, gateway(), thing(registration=2), AT)
    assert (record.attachment.epoch, record.thing_registration) == (2, 2)


def test_only_a_gateway_speaks_for_others():
    with pytest.raises(NotAGatewayError, match="kind gateway"):
        rules.attach(None, thing("other"), thing(), AT)


def test_a_gateway_is_not_attached_to_itself():
    with pytest.raises(NotAGatewayError, match="itself"):
        rules.attach(None, gateway(), gateway(), AT)


def test_a_gateway_may_be_attached_to_another_one():
    assert rules.attach(None, gateway("meter"), gateway("bridge"), AT).attached


def test_no_gateway_is_given_a_thing_of_other_premises():
    with pytest.raises(PremisesMismatchError):
        rules.attach(None, gateway(premises="home-2"), thing(), AT)


def test_what_is_not_attached_cannot_be_detached():
    ended = rules.detach("meter", "hall", rules.attach(None, gateway(), thing(), AT))
    for before in (None, ended):
        with pytest.raises(AttachmentNotFoundError):
            rules.detach("meter", "hall", before)


@pytest.mark.parametrize(
    ("of_gateway", "of_thing"),
    [
        (None, thing()),
        (gateway(), None),
        (gateway(registration=2), thing()),
        (gateway(), thing(registration=2)),
        (gateway(premises="home-2"), thing()),
    ],
    ids=["gateway gone", "thing gone", "another gateway", "another thing", "moved"],
)
def test_an_attachment_counts_only_between_the_two_it_was_made_for(
    of_gateway: Thing | None, of_thing: Thing | None
):
    record = rules.attach(None, gateway(), thing(), AT)
    assert rules.counts(record, gateway(), thing())
    assert not rules.counts(record, of_gateway, of_thing)
    assert not rules.counts(rules.detach("meter", "hall", record), gateway(), thing())


# Standings


def test_a_standing_names_the_gateways_that_count():
    record = rules.attach(None, gateway("meter"), thing(), AT)
    other = rules.attach(None, gateway("box"), thing(), AT)
    found = {"meter": gateway("meter"), "box": gateway("box", registration=2)}
    assert rules.standing(thing(), [record, other], found) == Standing(thing(), frozenset({"meter"}))


def test_a_suspended_gateway_speaks_for_nobody():
    record = rules.attach(None, gateway(), thing(), AT)
    suspended = {"meter": gateway(suspended_at_ms=AT)}
    assert rules.standing(thing(), [record], suspended).gateways == frozenset()


def test_a_revoked_gateway_speaks_for_nobody():
    record = rules.attach(None, gateway(), thing(), AT)
    revoked = {"meter": gateway(revoked_at_ms=AT)}
    assert rules.standing(thing(), [record], revoked).gateways == frozenset()


def test_a_gateway_that_is_not_registered_speaks_for_nobody():
    record = rules.attach(None, gateway(), thing(), AT)
    assert rules.standing(thing(), [record], {}).gateways == frozenset()


def test_a_revoked_thing_stands_as_revoked():
    assert rules.standing(thing(revoked_at_ms=AT), [], {}).thing.revoked_at_ms == AT
