"""The judge of upgrades under chaos, shown runs that are wrong in one way each: it must see every one."""

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fleet.flash import Fuse, Pages
from tests.chaos_ota import judge as rules
from tests.chaos_ota.cast import ABORTED, Cast, Group, Lie, Part
from tests.chaos_ota.evidence import (
    Campaign,
    Device,
    Evidence,
    Execution,
    Image,
    Line,
    Record,
    last_whole,
)
from tests.chaos_ota.judge import WANTED, judge
from tests.chaos_ota.written import Act, Run, Sample

OLD, NEW, MANIFEST = "01" * 32, "02" * 32, "03" * 32
FACTORY = {"set": {"day": 21.5, "night": 18}, "lang": "en"}
ABORTED_MS = 100_000
RUN = Run(
    devices=6,
    seed=1,
    factory_sha256=OLD,
    image_sha256=NEW,
    manifest_sha256=MANIFEST,
    counter=2,
    factory_config=FACTORY,
    release="r",
)
PARTS = {
    group: Part(thing=group, group=group, night=12, lie=Lie.OLD_COUNTER if group is Group.TRAP else None)
    for group in Group
}
OLD_IMAGE = Image(OLD, 10, 4, 1, "1", 1, 5, "")
NEW_IMAGE = Image(NEW, 10, 4, 2, "2", 2, 5, MANIFEST)
ENDS = {
    Group.KEEP: ("SUCCEEDED", ""),
    Group.WIPE: ("SUCCEEDED", ""),
    Group.SICK: ("ROLLED_BACK", "boot_loop"),
    Group.TRAP: ("REJECTED", "downgrade"),
    Group.STOP: ("CANCELED", "campaign_aborted"),
    Group.CUT: ("CANCELED", "campaign_aborted"),
}
UPGRADED = (Group.KEEP, Group.WIPE)


def config(night: int = 12) -> dict[str, Any]:
    return FACTORY | {"set": {"day": 21.5, "night": night}}


def device(group: Group) -> Device:
    images: dict[str, Image | None] = {"a": OLD_IMAGE, "b": NEW_IMAGE}
    new = group in UPGRADED
    record = Record("b" if new else "a", images, 2 if new else 1, 0, 3, 8 if new else 0, "", "c", 1, "")
    return Device(record, {"a": OLD, "b": NEW}, FACTORY if group is Group.WIPE else config())


def execution(group: Group) -> Execution:
    state, reason = ENDS[group]
    go_ms = 1_000 if group in (*UPGRADED, Group.SICK) else 0
    ended_ms = ABORTED_MS + 900 if group in ABORTED else 2_000
    return Execution(group, group, state, go_at_ms=go_ms, ended_at_ms=ended_ms, reason=reason)


def samples(**counts: int) -> list[Sample]:
    return [
        Sample(number, group, "RUNNING", 1, {"waiting": 0, ENDS[group][0]: 1} | counts)
        for number in range(2)
        for group in Group
    ]


def whole(**changes: Any) -> Evidence:
    """Return a run in which everything struck, and all is well."""
    lines = [Line(1, "", "struck", name=name, count=3) for name in WANTED if not name.startswith("lie")]
    lines += [Line(1, "", "struck", name=f"lie.{lie}", count=1) for lie in Lie]
    acts = [Act(1, "begin", group, group) for group in Group]
    acts += [Act(ABORTED_MS - 10, "abort", group, group, ABORTED_MS) for group in ABORTED]
    acts += [Act(1, "kill", note=note, active=4) for note in ("service", "broker")]
    usual: dict[str, Any] = {
        "run": RUN,
        "cast": Cast(1, tuple(PARTS.values())),
        "devices": {group: device(group) for group in Group},
        "lines": lines,
        "acts": acts,
        "samples": samples(),
        "executions": [execution(group) for group in Group],
        "campaigns": {
            group: Campaign(group, "ABORTED" if group in ABORTED else "COMPLETED", True) for group in Group
        },
    }
    return Evidence(**(usual | changes))


def with_device(group: Group, **changes: Any) -> Evidence:
    found = whole()
    return replace(found, devices={**found.devices, group: replace(found.devices[group], **changes)})


def with_record(group: Group, **changes: Any) -> Evidence:
    record = device(group).record
    assert record is not None
    return with_device(group, record=msgspec.structs.replace(record, **changes))


def with_execution(group: Group, **changes: Any) -> Evidence:
    executions = [
        msgspec.structs.replace(one, **changes) if one.thing == group else one for one in whole().executions
    ]
    return whole(executions=executions)


def with_line(thing: str, **members: Any) -> Evidence:
    found = whole()
    return replace(found, lines=[*found.lines, Line(ABORTED_MS + 10, thing, **members)])


TRIAL = {"event": "record", "state": 7, "trials": 1, "candidate": NEW, "manifest": MANIFEST}


def test_a_run_in_which_all_is_well_has_no_findings():
    verdict = judge(whole())
    assert [str(one) for one in verdict.findings] == []
    assert verdict.cancels_ms == {"stop": 900, "cut": 900}
    assert verdict.ends["keep"] == {"SUCCEEDED": 1}


@pytest.mark.parametrize(
    ("kind", "evidence"),
    [
        (rules.BRICKED, with_device(Group.KEEP, record=None)),
        (rules.BRICKED, with_device(Group.KEEP, sha256={"a": OLD, "b": "09" * 32})),
        (rules.BRICKED, with_line(Group.SICK, event="dead")),
        (rules.BRICKED, with_line(Group.SICK, **{**TRIAL, "trials": 4})),
        (rules.WRONG_INSTALL, with_line(Group.TRAP, **TRIAL)),
        (rules.WRONG_INSTALL, with_line(Group.KEEP, **{**TRIAL, "manifest": "04" * 32})),
        (rules.WRONG_INSTALL, with_record(Group.TRAP, running="b", counter=2)),
        (rules.WRONG_INSTALL, with_execution(Group.KEEP, go_at_ms=0)),
        (rules.WRONG_INSTALL, with_record(Group.SICK, counter=2)),
        (rules.MISCOUNTED, whole(samples=samples(SKIPPED=1))),
        (rules.MISCOUNTED, whole(samples=[*samples(), *[Sample(9, "keep", "RUNNING", 1, {"active": 1})]])),
        (rules.MISCOUNTED, whole(executions=whole().executions[1:])),
        (rules.MISCOUNTED, whole(executions=[*whole().executions, execution(Group.KEEP)])),
        (rules.MISCOUNTED, with_execution(Group.KEEP, state="FAILED")),
        (rules.MISCOUNTED, whole(miscounts=1)),
        (rules.UNTRUE, with_execution(Group.SICK, state="SUCCEEDED")),
        (rules.UNTRUE, with_execution(Group.KEEP, state="TIMED_OUT")),
        (rules.UNTRUE, with_execution(Group.TRAP, reason="class_mismatch")),
        (rules.UNTRUE, with_execution(Group.SICK, state="FAILED", reason="key_unknown")),
        (rules.UNFINISHED, with_execution(Group.KEEP, state="LOADING")),
        (rules.UNFINISHED, with_record(Group.KEEP, state=7)),
        (rules.UNFINISHED, whole(campaigns={})),
        (rules.ABORT_IGNORED, with_execution(Group.STOP, ended_at_ms=ABORTED_MS + 1_001)),
        (rules.ABORT_IGNORED, with_execution(Group.STOP, go_at_ms=ABORTED_MS + 1_001)),
        (rules.ABORT_IGNORED, with_execution(Group.STOP, state="FAILED", ended_at_ms=ABORTED_MS + 9_000)),
        (rules.ABORT_IGNORED, with_line(Group.CUT, event="record", state=7)),
        (rules.DATA_LOST, with_device(Group.KEEP, config=FACTORY)),
        (rules.DATA_LOST, with_device(Group.WIPE, config=config())),
        (rules.DATA_LOST, with_device(Group.SICK, config={})),
        (rules.DID_NOT_STRIKE, whole(lines=whole().lines[1:])),
        (rules.DID_NOT_STRIKE, whole(samples=samples()[:3])),
    ],
)
def test_it_sees(kind, evidence):
    assert judge(evidence).count(kind) >= 1


def test_an_upgrade_that_came_late_is_no_untruth():
    late = with_execution(Group.KEEP, state="TIMED_OUT", late=True)
    assert judge(late).count(rules.UNTRUE) == 0


def test_kills_count_only_while_devices_were_at_work():
    idle = [act if act.act != "kill" else Act(1, "kill", note=act.note) for act in whole().acts]
    lines = [line for line in whole().lines if not line.name.startswith("kill")]
    assert judge(whole(acts=idle, lines=lines)).count(rules.DID_NOT_STRIKE) == 2


def test_the_last_whole_page_counts():
    pages = Pages(Fuse(random.Random(1)))
    for text in (b"one", b"two", b"three"):
        pages.write(text)
        assert last_whole(pages.pages) == text
    torn = [page[:-1] if page.find(b"three") >= 0 else page for page in pages.pages]
    assert last_whole(torn) == b"two"
    assert last_whole([b"", b"x" * 30]) is None
