"""What a device needs of several releases, and equipment that nobody has made a device of. Values mostly."""

from dataclasses import replace
from typing import Any

import pytest

from ota.campaign import Selector
from ota.equipment import Kind
from ota.manifest import Manifest, version_of
from ota.needs import DeviceFacts, Need, Reason, outlook
from ota.reports import Report
from registry.catalogue import Ota
from registry.lifecycle import Device
from registry.models import NewThing, Owner, Standing, Thing, ThingKind
from tests.campaign_rig import OLD, SYSTEM, world
from tests.covers import covers
from tests.release_rig import MANIFEST, MODEL

METER = "m:1"


def facts(**report: Any) -> DeviceFacts:
    said: dict[str, Any] = {"version": "1.0.0.0", "counter": 1, "hw": MANIFEST.hw[0], "schema": 5} | report
    thing = Thing(METER, ThingKind.GATEWAY, MODEL.id, "home-1", True, 0, owner=Owner.UTILITY)
    return DeviceFacts(
        device=Device(id=METER, model=MODEL.id, owner=Owner.UTILITY),
        standing=Standing(thing, frozenset()),
        model=MODEL,
        report=Report(**said),
    )


def need(version: str, counter: int, min_from: str = "") -> tuple[str, Need]:
    least = version_of(min_from) if min_from else 0
    of: Manifest = replace(
        MANIFEST, version=version_of(version), counter=counter, min_from=least, sha256=f"{counter:064}"
    )
    return version, Need(manifest=of, model=MODEL.id)


V2, V3, V4 = need("2.0.0.0", 2), need("3.0.0.0", 3, "2.0.0.0"), need("4.0.0.0", 4, "3.0.0.0")


@pytest.mark.parametrize(
    ("released", "runs", "found"),
    [
        ([], "1.0.0.0", ("", None)),
        ([V2], "1.0.0.0", ("2.0.0.0", None)),
        ([V4, V3, V2], "1.0.0.0", ("2.0.0.0", None)),
        ([V4, V3], "1.0.0.0", ("", Reason.FROM_TOO_OLD)),
        ([V4, V2], "2.0.0.0", ("", Reason.FROM_TOO_OLD)),
        ([V2], "2.0.0.0", ("", None)),
    ],
)
def test_the_newest_release_that_may_be_installed_is_needed_and_what_hinders_is_told(released, runs, found):
    counter = int(runs[0])
    assert outlook(facts(version=runs, counter=counter), released) == found


def test_what_a_campaign_is_about_to_bring_is_needed_still():
    assert outlook(replace(facts(), other=frozenset({"c"})), [V2]) == ("2.0.0.0", None)


def test_a_release_of_other_hardware_hinders_nothing():
    id, other = V3
    foreign = replace(other, manifest=replace(other.manifest, hw=("af179d9c-8992-5ca4-ac1c-1d2eb7edae0b",)))
    assert outlook(facts(), [(id, foreign)]) == ("", None)


def test_what_takes_no_firmware_is_known_to_be_outdated():
    none = replace(facts(), model=replace(MODEL, ota=Ota.NONE))
    assert outlook(none, [V2]) == ("", Reason.OTA_NONE)


@covers("I3FR7", "I3FR6.1")
async def test_a_meter_that_was_only_registered_is_found_and_brought_its_firmware(tmp_path):
    async with world(tmp_path, devices=1) as one:
        meter = NewThing(METER, ThingKind.GATEWAY, MODEL.id, "home-m", owner=Owner.UTILITY)
        await one.processes[0].registry.register(meter, SYSTEM)
        one.processes[0].presence.came(METER)
        await one.runs([METER], OLD, hw=MANIFEST.hw[0])
        needs = await one.ota.needs.needs(one.release)
        assert [(row.thing, row.kind) for row in needs.rows if row.reason is None] == [
            ("han-00000", Kind.DEVICE),
            (METER, Kind.GATEWAY),
        ]
        for selector in (Selector(), Selector(things=(METER,))):
            draft = await one.ota.campaigns.create(
                one.ota.campaigns.terms(release=one.release, selector=selector), SYSTEM
            )
            assert (await one.ota.campaigns.dry_run(draft.id, SYSTEM)).included == 2 - len(selector.things)
        campaign = await one.running(selector=Selector(things=(METER,)))
        assert [one.status for one in await one.targets(campaign.id)] == ["QUEUED"]


async def test_a_device_and_its_thing_are_one(tmp_path):
    async with world(tmp_path, devices=3) as one:
        assert len((await one.ota.needs.needs(one.release)).rows) == 3
