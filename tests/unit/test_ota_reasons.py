"""Who needs a release: each reason alone, and which of two is told."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from ota.campaign import Path
from ota.data import RESET
from ota.manifest import version_of
from ota.needs import DeviceFacts, Need, Reason, why_not
from ota.reports import Report
from registry.catalogue import Ota
from registry.lifecycle import Device
from registry.models import Owner, Standing, Thing, ThingKind
from registry.states import Lifecycle
from tests.covers import covers
from tests.release_rig import FIRMWARE, MANIFEST, MODEL

REPORT = Report(
    sha256="01" * 32,
    version="2.3.0.0",
    counter=2,
    healthy=True,
    hw=MANIFEST.hw[0],
    schema=5,
    components={"bootloader": 3},
)
FAULTS: dict[Reason, dict[str, dict[str, Any]]] = {
    Reason.NOT_ENROLLED: {"thing": {"taking_part": False}},
    Reason.RETIRED: {"device": {"lifecycle": Lifecycle.REPLACED}},
    Reason.SUSPENDED: {"thing": {"suspended_at_ms": 1}},
    Reason.MODEL: {"device": {"model": "another"}},
    Reason.HW_CLASS: {"report": {"hw": "00000000-0000-4000-8000-000000000000"}},
    Reason.OTA_NONE: {"model": {"ota": Ota.NONE}},
    Reason.LOCAL_ONLY: {"model": {"ota": Ota.LOCAL}},
    Reason.REMOTE_ONLY: {"model": {"ota": Ota.REMOTE}, "need": {"path": Path.LOCAL}},
    Reason.UNKNOWN_FIRMWARE: {"report": {"version": ""}},
    Reason.ALREADY_CURRENT: {"report": {"sha256": MANIFEST.sha256}},
    Reason.NEWER: {"report": {"version": "2.4.0.0", "counter": 3}},
    Reason.COUNTER: {"report": {"counter": 4}},
    Reason.FROM_TOO_OLD: {"manifest": {"min_from": version_of("2.3.0.1")}},
    Reason.DEPENDENCY: {"manifest": {"requires": {"bootloader": 4}}},
    Reason.SCHEMA: {"report": {"schema": MANIFEST.config_schema + 1}},
    Reason.TOO_LARGE: {"manifest": {"size": FIRMWARE.slot_bytes + 1}},
    Reason.PINNED: {"need": {"pinned": frozenset({"hall"})}},
    Reason.OTHER_CAMPAIGN: {"facts": {"other": frozenset({"c-2"})}},
}


def found(*reasons: Reason, **more: dict[str, Any]) -> Reason | None:
    """Return what is told of a device that needs the release but for these reasons."""
    changes: dict[str, dict[str, Any]] = {}
    for fault in (*(FAULTS[one] for one in reasons), more):
        for part, fields in fault.items():
            changes[part] = changes.get(part, {}) | fields
    device = Device(id="hall", model=MODEL.id, hw=2, owner=Owner.CUSTOMER, lifecycle=Lifecycle.REGISTERED)
    thing = Thing("hall", ThingKind.DEVICE, MODEL.id, "home-7", True, 0, taking_part=True)
    manifest = replace(MANIFEST, **changes.get("manifest", {}))
    need = replace(Need(manifest=manifest, model=MODEL.id), **changes.get("need", {}))
    facts = DeviceFacts(
        device=replace(device, **changes.get("device", {})),
        standing=Standing(replace(thing, **changes.get("thing", {})), frozenset()),
        model=replace(MODEL, **changes.get("model", {})),
        report=replace(REPORT, **changes.get("report", {})),
    )
    return why_not(
        replace(facts, **changes.get("facts", {})), replace(need, **changes.get("need", {})), "c-1"
    )


def together(one: Reason, other: Reason) -> bool:
    """Tell whether both can hold of one device."""
    fields = [
        {(part, name) for part, changed in FAULTS[each].items() for name in changed} for each in (one, other)
    ]
    return not fields[0] & fields[1]


@covers("I3FR7")
def test_a_device_without_any_reason_needs_it():
    assert list(FAULTS) == list(Reason), "in the order in which they are looked for"
    assert found() is None
    assert found(facts={"other": frozenset({"c-1"})}) is None, "other targets of this campaign are no reason"


@covers("I3FR7")
@pytest.mark.parametrize("reason", Reason)
def test_each_reason_alone_is_told(reason):
    assert found(reason) is reason


@pytest.mark.parametrize(("first", "second"), [pair for pair in combinations(Reason, 2) if together(*pair)])
def test_of_two_reasons_the_first_in_order_is_told(first, second):
    assert found(second, first) is first


def test_what_is_just_so_is_enough():
    assert found(manifest={"min_from": version_of("2.3.0.0"), "requires": {"bootloader": 3}}) is None
    assert found(manifest={"size": FIRMWARE.slot_bytes}) is None
    assert found(Reason.SCHEMA, need={"data": RESET}) is None, "a reset may go to an older schema"


def test_what_is_the_utilitys_needs_nobodys_consent():
    assert found(Reason.NOT_ENROLLED, device={"owner": Owner.UTILITY}) is None
