"""What the permission table hears of devices."""

import pytest

from registry.lifecycle import Device
from registry.models import Owner, Premises, Standing, Thing, ThingKind
from registry.reach import device_target
from registry.states import Lifecycle
from security.policy import Action, Principal, Role, Target, may
from tests.covers import covers

HOME = Premises("home", "anna", 2, 1_000)
ANNA = Principal("p-a", Role.CUSTOMER, "anna")
REP = Principal("p-r", Role.REP, reach=frozenset({"anna"}))
FITTER = Principal("p-f", Role.INSTALLER, reach=frozenset({"home"}))
OPERATOR = Principal("p-o", Role.OPERATOR)


def device(owner: Owner = Owner.CUSTOMER, epoch: int = 2, state: Lifecycle = Lifecycle.REGISTERED) -> Device:
    return Device(id="d", premises="home", premises_epoch=epoch, owner=owner, lifecycle=state)


def readers(target: Target) -> set[Role]:
    everybody = (ANNA, REP, FITTER, OPERATOR)
    return {one.role for one in everybody if may(one, Action.DEVICE_READ, target)}


def standing(taking_part: bool) -> Standing:
    thing = Thing("d", ThingKind.DEVICE, "m", "home", True, 1, taking_part=taking_part)
    return Standing(thing, frozenset({"gw"}), HOME)


def test_a_registered_device_is_seen_by_whose_it_is_and_by_who_works_for_them():
    assert readers(device_target(device(), HOME, standing(False))) == {
        Role.CUSTOMER,
        Role.REP,
        Role.INSTALLER,
    }


def test_what_takes_part_is_seen_by_the_operator_as_well():
    assert Role.OPERATOR in readers(device_target(device(), HOME, standing(True)))


@covers("O1", "3.2/2")
@pytest.mark.parametrize(
    "state",
    sorted(set(Lifecycle) - {Lifecycle.REGISTERED, Lifecycle.SUSPENDED}),
    ids=lambda state: state.value,
)
def test_what_is_not_registered_is_seen_by_its_customer_alone(state: Lifecycle):
    assert readers(device_target(device(state=state), HOME, None)) == {Role.CUSTOMER}


def test_what_came_under_an_earlier_ownership_is_nobodys_but_the_utilitys_own_stays():
    assert readers(device_target(device(epoch=1), HOME, standing(False))) == set()
    ours = device_target(device(Owner.UTILITY, epoch=1), HOME, standing(False))
    assert readers(ours) == {Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR}
    assert not ours.customers


def test_of_a_device_at_premises_that_nobody_knows_no_customer_hears():
    assert readers(device_target(device(), None, None)) == set()


def test_a_quarantine_is_not_the_customers_to_lift():
    assert device_target(device(), HOME, standing(False)).liftable
    assert not device_target(device(), HOME, None).liftable
