"""The `program` shadow on the page for device makers is the one that the service and a device make."""

from pathlib import Path
from typing import Any

import msgspec

from fleet.program import Programs
from programs import shadow
from programs.catalogue import builtin
from programs.models import Tariff
from programs.records import Enrolment
from programs.shapes import Checker
from programs.states import EnrolmentState
from tests.covers import covers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8").partition("## Programs that a device takes part in\n")[2]
SHOWN: dict[str, Any] = msgspec.json.decode(TEXT.partition("```json\n")[2].partition("```")[0])
DESIRED, REPORTED = SHOWN["desired"], SHOWN["reported"]
((PROGRAM, ENTRY),) = DESIRED["enrolments"].items()
((TARIFF, PRICES),) = DESIRED["tariffs"].items()
BODY = {name: value for name, value in PRICES.items() if name not in ("schema", "rev")}


@covers("X14", "X15", "X16", "X17")
def test_what_makers_are_shown_is_what_the_service_wants_and_reads():
    enrolment = Enrolment(
        id="", device="th-1", program=PROGRAM, account="", premises="", state=EnrolmentState.READY,
        state_ms=0, since_ms=ENTRY["from"] * 1_000, rev=ENTRY["rev"], tariff=TARIFF,
    )  # fmt: skip
    (shape,) = (one for one in builtin().shapes if one.id == PRICES["schema"])
    Checker().check(shape, BODY, "the tariff that is shown")
    tariffs = {TARIFF: Tariff(TARIFF, PRICES["schema"], BODY, PRICES["rev"])}
    assert shadow.wanted([enrolment], tariffs) == DESIRED
    assert shadow.patch([enrolment], tariffs, DESIRED, REPORTED) == {}
    assert shadow.answer(REPORTED, PROGRAM, ENTRY["rev"]) == shadow.Answer(activated=True, ready=True)


def test_a_device_answers_it_with_the_same_fields():
    device = Programs()
    assert device.obey(DESIRED) == {}
    for now in (1.0, 2.0):
        device.pass_time(now)
    said = device.readings() | device.settings
    assert said.keys() == REPORTED.keys()
    assert {name: one.keys() for name, one in said["ack"][PROGRAM].items()} == {
        name: one.keys() for name, one in REPORTED["ack"][PROGRAM].items()
    }


def test_every_code_of_a_failure_is_named():
    assert [code for code in sorted(shadow.FAILURES) if f"`{code}`" not in TEXT] == []
