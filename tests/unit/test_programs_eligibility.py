"""Why a device does not fit a program: every reason, and all of them at once."""

from dataclasses import dataclass, replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs.eligibility import (
    CURED_BY_SESSION,
    NOT_ENROLLED,
    Code,
    Counters,
    Enrolled,
    Reason,
    blocking,
    exclusive_pairs,
    is_below,
    reasons,
)
from programs.models import PROGRAMS_PER_DEVICE_MAX, Capacity, Program, ProgramType
from programs.states import ProgramState
from tests.covers import covers
from tests.fakes import NOW_MS

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Device:
    id: str = "th-1"
    model: str = "acme-pct-2"
    fw: str = "1.4.0"
    lifecycle: str = "REGISTERED"
    account: str = "a-1"
    premises: str = "pr-1"


@dataclass(frozen=True)
class Model:
    categories: frozenset[int] = frozenset({0})
    capabilities: frozenset[str] = frozenset({"price", "load.offset"})
    validated: bool = True
    fw_min: str = ""


@dataclass(frozen=True)
class Account:
    tariff: str = "t7"


@dataclass(frozen=True)
class Place:
    zone: str = "N3"
    feeder: str = "F12"


NOBODY_YET = Counters()
CPP = Program(
    id="cpp-27",
    name="Critical peak price",
    type=ProgramType.CPP,
    requires=(("price",), ("load.offset", "load.setpoint")),
    categories=(0, 15),
    account_tariffs=("t7",),
    zones=("N3", "N4"),
    capacity=Capacity(100, 10),
    fw_min="1.4",
    lockout_days=30,
    exclusive_with=("rtp",),
    state=ProgramState.PUBLISHED,
)
RTP = Program(id="rtp", name="Hourly price", type=ProgramType.RTP, state=ProgramState.PUBLISHED)


def told(
    device=Device(),
    model=Model(),
    account=Account(),
    place=Place(),
    program=CPP,
    enrolments=NOT_ENROLLED,
    counters=NOBODY_YET,
    consent=True,
):
    found = reasons(device, model, account, place, program, enrolments, counters, NOW_MS, consent=consent)
    return [str(one) for one in found]


def test_what_fits_has_no_reason():
    assert told() == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": Model(capabilities=frozenset({"load.setpoint"}))}, ["CAPABILITY:price"]),
        ({"model": Model(capabilities=frozenset({"price"}))}, ["CAPABILITY:load.offset|load.setpoint"]),
        ({"model": Model(categories=frozenset({13}))}, ["CATEGORY"]),
        ({"model": Model(validated=False)}, ["MODEL_NOT_VALIDATED"]),
        ({"device": Device(fw="1.3.9")}, ["FIRMWARE_BELOW:1.4"]),
        ({"device": Device(fw="")}, ["FIRMWARE_BELOW:1.4"]),
        ({"model": Model(fw_min="1.5.0")}, ["FIRMWARE_BELOW:1.5.0"]),
        ({"model": Model(fw_min="1.2.0"), "device": Device(fw="1.3")}, ["FIRMWARE_BELOW:1.4"]),
        ({"model": Model(fw_min="1.4.1"), "program": replace(CPP, fw_min="")}, ["FIRMWARE_BELOW:1.4.1"]),
        ({"device": Device(lifecycle="AUTHENTICATED")}, ["NOT_REGISTERED"]),
        ({"device": Device(lifecycle="DEREGISTERED")}, ["NOT_REGISTERED"]),
        ({"device": Device(lifecycle="SUSPENDED")}, ["SUSPENDED"]),
        ({"account": Account("t1")}, ["TARIFF"]),
        ({"account": None}, ["TARIFF"]),
        ({"place": Place(zone="S1")}, ["ZONE"]),
        ({"place": None}, ["ZONE"]),
        ({"enrolments": Enrolled({"rtp": RTP}, {})}, ["EXCLUSIVE_WITH:rtp"]),
        ({"enrolments": Enrolled({"cpp-27": CPP}, {})}, ["ALREADY_ENROLLED"]),
        ({"program": replace(CPP, state=ProgramState.CLOSED)}, ["PROGRAM_CLOSED"]),
        ({"program": replace(CPP, state=ProgramState.DRAFT)}, ["PROGRAM_CLOSED"]),
        ({"counters": Counters(devices=100)}, ["PROGRAM_FULL"]),
        ({"counters": Counters(feeder_devices=10)}, ["FEEDER_FULL"]),
        ({"counters": Counters(feeder_devices=10), "place": Place(feeder="")}, []),
        ({"counters": Counters(99, 9)}, []),
        ({"counters": Counters(shadow_fits=False)}, ["SHADOW_BUDGET"]),
        ({"enrolments": Enrolled({}, {"cpp-27": NOW_MS - DAY_MS})}, ["LOCKED_OUT_UNTIL:2026-10-20"]),
        ({"enrolments": Enrolled({}, {"cpp-27": NOW_MS - 30 * DAY_MS})}, []),
        ({"enrolments": Enrolled({}, {"rtp": NOW_MS})}, []),
        ({"consent": False}, ["NO_CONSENT"]),
    ],
    ids=map(str, count(1)),  # not what is given: each process writes a set in another order
)
def test_each_reason_is_told_alone(given, expected):
    assert told(**given) == expected


@covers("S1.4b", "3.2/11")
def test_incompatible_model_lists_all_reasons():
    """A device of whatever brand: all that is missing, and not only the first of it."""
    found = told(
        model=Model(frozenset({4}), frozenset(), validated=False),
        device=Device(fw="0.9", lifecycle="DISCOVERED"),
        account=Account("t1"),
        place=Place("S1", "F12"),
        program=replace(CPP, state=ProgramState.CLOSED),
        enrolments=Enrolled({"rtp": RTP}, {"cpp-27": NOW_MS}),
        counters=Counters(100, 10, shadow_fits=False),
        consent=False,
    )
    assert found == [
        "CAPABILITY:price",
        "CAPABILITY:load.offset|load.setpoint",
        "CATEGORY",
        "MODEL_NOT_VALIDATED",
        "FIRMWARE_BELOW:1.4",
        "NOT_REGISTERED",
        "TARIFF",
        "ZONE",
        "EXCLUSIVE_WITH:rtp",
        "LOCKED_OUT_UNTIL:2026-10-21",
        "PROGRAM_CLOSED",
        "PROGRAM_FULL",
        "FEEDER_FULL",
        "SHADOW_BUDGET",
        "NO_CONSENT",
    ]


@covers("S1.4b")
def test_a_model_nobody_knows_is_told_what_it_would_need():
    assert told(model=None) == [
        "CAPABILITY:price",
        "CAPABILITY:load.offset|load.setpoint",
        "CATEGORY",
        "MODEL_NOT_VALIDATED",
    ]


@covers("O12")
def test_a_model_that_nobody_has_validated_is_shown_and_not_forbidden_unless_the_program_insists():
    untried = Model(validated=False)
    found = reasons(
        Device(), untried, Account(), Place(), CPP, NOT_ENROLLED, Counters(), NOW_MS, consent=True
    )
    assert found == (Reason(Code.MODEL_NOT_VALIDATED, warning=True),)
    assert blocking(found) == ()
    insisting = replace(CPP, validated_only=True)
    found = reasons(
        Device(), untried, Account(), Place(), insisting, NOT_ENROLLED, Counters(), NOW_MS, consent=True
    )
    assert blocking(found) == (Reason(Code.MODEL_NOT_VALIDATED),)


@covers("O6")
def test_one_category_in_common_is_enough_and_no_wish_takes_any_device():
    assert told(model=Model(categories=frozenset({15, 3}))) == []
    assert told(model=Model(categories=frozenset()), program=replace(CPP, categories=())) == []


def test_a_session_is_about_to_cure_what_it_cures_and_nothing_else():
    seen = Device(lifecycle="DISCOVERED")
    found = reasons(
        seen, Model(), Account(), Place("S1"), CPP, NOT_ENROLLED, NOBODY_YET, NOW_MS, consent=False
    )
    assert blocking(found, CURED_BY_SESSION) == (Reason(Code.ZONE),)


def test_a_device_is_in_a_bounded_number_of_programs():
    others = {f"p-{number}": replace(RTP, id=f"p-{number}") for number in range(PROGRAMS_PER_DEVICE_MAX)}
    assert told(enrolments=Enrolled(others, {})) == ["TOO_MANY_PROGRAMS:4"]
    others.popitem()
    assert told(enrolments=Enrolled(others, {})) == []


@pytest.mark.parametrize(
    ("version", "least", "below"),
    [
        ("1.4.0", "1.4", False),
        ("1.4", "1.4.0", False),
        ("1.10", "1.9", False),
        ("1.9", "1.10", True),
        ("2", "1.99.99", False),
        ("", "0.1", True),
        ("v1.4.0-rc2", "1.4.0", False),
        ("1.3.9+build7", "1.4", True),
    ],
)
def test_versions_are_compared_as_numbers(version, least, below):
    assert is_below(version, least) is below


programs = st.builds(
    Program,
    id=st.sampled_from(["a", "b", "c", "d"]),
    name=st.just("n"),
    type=st.just(ProgramType.CPP),
    exclusive_with=st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=3).map(tuple),
    state=st.just(ProgramState.PUBLISHED),
)


@covers("3.2/11")
@given(programs, programs)
def test_exclusivity_is_symmetric(one, other):
    if one.id == other.id:
        return
    here = told(program=one, model=None, enrolments=Enrolled({other.id: other}, {}))
    there = told(program=other, model=None, enrolments=Enrolled({one.id: one}, {}))
    assert (f"EXCLUSIVE_WITH:{other.id}" in here) is (f"EXCLUSIVE_WITH:{one.id}" in there)
    pair = tuple(sorted((one.id, other.id)))
    assert exclusive_pairs([one, other]) == exclusive_pairs([other, one])
    assert (exclusive_pairs([one, other]) == (pair,)) is (f"EXCLUSIVE_WITH:{other.id}" in here)
