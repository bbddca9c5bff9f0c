"""Campaigns over real services: from a draft to the last device, and all that may come between."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from infra.documents.port import StoreUnavailableError, Write
from infra.machines import IllegalTransitionError
from infra.settings.model import OtaSettings
from infra.versions import OutdatedVersionError
from ota import verification
from ota.actions import Move, Plan
from ota.bundle import opened
from ota.calendar import Window
from ota.campaign import Campaign, Selector, Wave
from ota.campaign import Path as How
from ota.campaign_store import CAMPAIGNS, TARGETS
from ota.campaigns import buckets, order_of
from ota.clocks import Limits
from ota.data import digest
from ota.envelope import Typ, seal
from ota.errors import (
    AuthorApprovesError,
    CampaignNotFoundError,
    CampaignUnfitError,
    ExecutionBusyError,
    InvalidCampaignError,
    OtherRequestError,
    ReleaseNotFoundError,
    TooManyCampaignsError,
)
from ota.execution_store import EXECUTIONS
from ota.executor import _change
from ota.health import Part
from ota.job_requests import JobOperation as Op
from ota.models import Execution, job_id
from ota.order import write
from ota.pace import Ramp, capacity
from ota.packing import NoBundleError
from ota.plan import plan
from ota.states import (
    ACTIVE,
    AFTER_GO,
    FINAL,
    OFFERED,
    WAITING,
    CampaignState,
    ExecutionState,
    ExecutionTrigger,
)
from ota.verification import Offer, Verified
from registry.catalogue import Ota as Takes
from registry.models import Location, NewThing, Owner, ThingKind
from registry.states import Lifecycle
from tests import ota_base as base
from tests import release_rig
from tests.campaign_rig import (
    ANN,
    CONFIG,
    EVE,
    NEW_SHA256,
    OFFICER,
    OTTO,
    SYSTEM,
    World,
    decoded,
    name,
    world,
)
from tests.covers import covers
from tests.faulty_store import Crash

S, X = ExecutionState, ExecutionTrigger
FW = {"sha256": NEW_SHA256, "version": "2.4.0.0", "counter": 3, "confirmed": False}


async def document_of(one: World, thing: str) -> Any:
    answer = await one.ask(thing, Op.START_NEXT)
    assert answer.accepted, answer.body
    return msgspec.json.decode(answer.body)["execution"]


async def upgrade(one: World, thing: str) -> None:
    """Do as a device does, from the offer to its claim."""
    execution = await document_of(one, thing)
    job = execution["jobId"]
    asked = await one.ask(
        thing,
        Op.UPDATE,
        job,
        status="IN_PROGRESS",
        statusDetails={"fs": "5", "gate": "ask"},
        expectedVersion=execution["versionNumber"],
    )
    assert asked.accepted, asked.body
    await one.runs([thing], FW, boot=2, job=job)
    claim = {"fs": "8", "data": "preserve", "config": digest(CONFIG)}
    done = await one.ask(thing, Op.UPDATE, job, status="SUCCEEDED", statusDetails=claim)
    assert done.accepted, done.body
    await one.ota.watcher.look([thing])


async def nothing() -> None:
    """Let a commit be."""


async def about_to_complete(one: World) -> Campaign:
    """Return a campaign whose only target failed, and that a second person had go on."""
    campaign = await one.running(retries=0)
    await one.step(campaign.id, [name(0)], X.START, X.FAIL, reason="manifest_field")
    await one.ota.executor.tick()
    return await one.ota.campaigns.resume(campaign.id, "it was an odd one", EVE)


# A whole campaign


@covers("I3FR7", "I3FR6.1", "S3.1-s", "I3NFR4")
async def test_a_campaign_is_written_by_one_approved_by_another_and_brings_each_device_its_image(tmp_path):
    async with world(tmp_path, devices=5) as one:
        for thing in (name(number) for number in range(5)):
            await one.report(thing, "config", CONFIG)
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        looked = await campaigns.dry_run(draft.id, ANN)
        assert (looked.included, looked.excluded, looked.waves[-1]) == (5, {}, 5)
        await campaigns.submit(draft.id, ANN)
        with pytest.raises(AuthorApprovesError):
            await campaigns.approve(draft.id, ANN)
        await campaigns.approve(draft.id, OTTO, reason="tried in the laboratory")
        for _ in range(3):
            await one.processes[0].tick()
        assert set((await one.states(draft.id)).values()) == {S.QUEUED}
        for number in range(5):
            await upgrade(one, name(number))
            assert sum((await campaigns.counts(draft.id)).values()) == 5
        await one.processes[0].tick()
        done = await campaigns.campaign(draft.id)
        assert (done.state, done.settled) == (CampaignState.COMPLETED, True)
        assert (await campaigns.counts(draft.id))["SUCCEEDED"] == 5
        figures = await campaigns.figures(done)
        assert (figures.over, figures.last_hour, figures.p100_ms) == (0, 5, 0)
        acts = [act for _, act in await one.trail()]
        assert sorted(acts) == [
            "campaign.approve",
            "campaign.complete",
            "campaign.create",
            "campaign.dry_run",
            "campaign.start",
            "campaign.submit",
        ]


async def test_a_device_finds_its_order_signed_and_itself_meant(tmp_path):
    async with world(tmp_path, devices=7) as one:
        await one.running()
        execution = await document_of(one, name(3))
        ours = execution["jobDocument"]["gnomon"]
        offer = Offer(*(decoded(ours[part]) for part in ("manifest", "order", "proof")))
        keys = await one.ota.keys.keys()
        facts = replace(base.DEVICE, thing=name(3), model=release_rig.MANIFEST.model)
        now_s = one.clock.now_ms() // 1_000
        assert isinstance(verification.verify(offer, facts, keys, now_s, 0), Verified)
        with pytest.raises(verification.Refused, match="not_target"):
            verification.verify(offer, replace(facts, thing=name(4)), keys, now_s, 0)
        assert ours["keys"] == await one.ota.keys.number()
        assert ours["http"].endswith(f"/v1/ota/images/{NEW_SHA256}")
        assert len(msgspec.json.encode(execution["jobDocument"])) < 4_096
        assert await one.ota.jobs.uses(name(3), NEW_SHA256)


async def test_an_image_too_large_for_blocks_is_offered_over_https(tmp_path, monkeypatch):
    for size_max, protocol in ((release_rig.MANIFEST.size, "MQTT"), (release_rig.MANIFEST.size - 1, "HTTP")):
        monkeypatch.setattr("ota.job_documents.FILE_BYTES_MAX", size_max)
        async with world(tmp_path / protocol, devices=7) as one:
            await one.running()
            document = (await document_of(one, name(3)))["jobDocument"]
            assert document["afr_ota"]["protocols"] == [protocol]
            (file,) = document["afr_ota"]["files"]
            assert file.get("update_data_url") == (document["gnomon"]["http"] if protocol == "HTTP" else None)
            assert ("auth_scheme" in file) == (protocol == "HTTP")


# Who needs it


@covers("I3FR7")
async def test_each_device_has_exactly_one_reason_and_a_stranger_is_only_a_number(tmp_path):
    async with world(tmp_path, devices=2) as one:
        none = replace(release_rig.MODEL, id="acme-t0", model="T0", ota=Takes.NONE, firmware=None)
        await one.rig.models.put(none, OTTO)
        await one.add(["stranger"], taking_part=False)
        await one.add(["ours"], owner=Owner.UTILITY)
        await one.add(["gone"], lifecycle=Lifecycle.RETIRED)
        await one.add(["held"], lifecycle=Lifecycle.SUSPENDED)
        await one.add(["class"], hw=1)
        await one.add(["other"], model="acme-t0")
        for thing, fw in {
            "silent": {},
            "current": FW,
            "newer": {"version": "2.5.0.0", "counter": 3},
            "counter": {"version": "2.0.0.0", "counter": 4},
        }.items():
            await one.add([thing])
            await one.runs([thing], {"sha256": None, "version": None, "counter": None} | fw)
        await one.add(["schema"])
        await one.runs(["schema"], schema=6)
        await one.add(["pinned", "busy"])
        await one.running(selector=Selector(things=("busy",)))
        campaigns = one.ota.campaigns
        names = [name(0), name(1), "stranger", "ours", "gone", "held", "class", "other", "silent", "current"]
        names += ["newer", "counter", "schema", "pinned", "busy"]
        selector = Selector(things=tuple(names), pinned=("pinned",))
        draft = await campaigns.create(campaigns.terms(release=one.release, selector=selector), ANN)
        found = await campaigns.dry_run(draft.id, ANN)
        assert found.included == 3
        assert found.excluded == {
            "ALREADY_CURRENT": 1,
            "COUNTER": 1,
            "HW_CLASS": 1,
            "MODEL": 1,
            "NEWER": 1,
            "NOT_ENROLLED": 1,
            "OTHER_CAMPAIGN": 1,
            "PINNED": 1,
            "RETIRED": 1,
            "SCHEMA": 1,
            "SUSPENDED": 1,
            "UNKNOWN_FIRMWARE": 1,
        }
        assert found.included + sum(found.excluded.values()) == len(names)
        needs = await one.ota.needs.needs(one.release, selector)
        assert (needs.needed, needs.not_enrolled) == (4, 1)
        assert "stranger" not in {row.thing for row in needs.rows}


@covers("I3FR7")
async def test_the_report_says_what_runs_and_what_of_it_needs_which_release(tmp_path):
    async with world(tmp_path, devices=3) as one:
        await one.runs([name(0)], FW)
        await one.add(["stranger"], taking_part=False)
        report = await one.ota.needs.report(release_rig.MODEL.id)
        assert [(line.version, line.counter, line.devices, line.needs) for line in report.lines] == [
            ("2.3.0.0", 2, 2, one.release),
            ("2.4.0.0", 3, 1, ""),
        ]
        assert (report.needed, report.not_enrolled) == (2, 1)
        assert [(view.id, why) for view, why in await one.ota.needs.of_thing(name(1))] == [
            (one.release, None)
        ]


async def test_equipment_that_takes_no_firmware_is_a_target_at_its_end_and_its_owner_is_told(tmp_path):
    async with world(tmp_path, devices=1) as one:
        none = replace(release_rig.MODEL, ota=Takes.NONE, firmware=None)
        await one.rig.models.put(none, OTTO, expected=1)
        campaign = await one.running()
        (target,) = await one.targets(campaign.id)
        assert (target.state, target.untold) == (S.REPLACEMENT_REQUIRED, 4)
        await one.processes[0].tick()
        assert (await one.ota.campaigns.campaign(campaign.id)).state is CampaignState.COMPLETED


# People


async def test_who_had_a_hand_in_it_does_not_approve_it(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        await campaigns.edit(draft.id, campaigns.terms(release=one.release, retries=0), OTTO)
        await campaigns.submit(draft.id, OTTO)
        for hand in (ANN, OTTO):
            with pytest.raises(AuthorApprovesError):
                await campaigns.approve(draft.id, hand)
        assert (await campaigns.approve(draft.id, EVE)).approver == "eve"


@pytest.mark.parametrize("hand", ["edit", "submit"])
async def test_one_edit_or_one_submission_is_a_hand_in_it(tmp_path, hand):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        if hand == "edit":
            await campaigns.edit(draft.id, campaigns.terms(release=one.release, retries=0), OTTO)
        await campaigns.submit(draft.id, ANN if hand == "edit" else OTTO)
        with pytest.raises(AuthorApprovesError):
            await campaigns.approve(draft.id, OTTO)


async def test_targets_that_were_changed_in_the_store_after_the_submission_are_approved_by_nobody(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        submitted = await campaigns.submit(draft.id, ANN)
        assert submitted.frozen is not None
        part = f"{draft.id}:{submitted.frozen.revision}:0"
        document = (await one.store.get(TARGETS.name, [part]))[part]
        body = document.body.replace(name(1).encode(), b"han-99999")
        await one.store.inner.commit([Write(TARGETS.name, part, document.revision, body)])
        with pytest.raises(CampaignUnfitError, match="not those that were submitted"):
            await campaigns.approve(draft.id, OTTO)


async def test_an_edit_unfreezes_and_what_was_frozen_before_is_not_approved(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        frozen = await campaigns.submit(draft.id, ANN)
        assert frozen.frozen is not None
        edited = await campaigns.edit(draft.id, campaigns.terms(release=one.release, retries=1), ANN)
        assert (edited.state, edited.frozen) == (CampaignState.DRAFT, None)
        with pytest.raises(IllegalTransitionError):
            await campaigns.approve(draft.id, OTTO)
        with pytest.raises(OutdatedVersionError):
            await campaigns.edit(draft.id, edited.terms, ANN, if_match=frozen.version)
        await one.add(["late"])
        again = await campaigns.submit(draft.id, ANN)
        assert again.frozen is not None
        assert (again.frozen.revision, again.frozen.targets) == (2, 3)


async def test_of_two_that_submit_at_once_the_slower_one_leaves_the_names_of_the_other(tmp_path, monkeypatch):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        look = campaigns._look

        async def slow(*given: Any) -> Any:
            found = await look(*given)
            monkeypatch.setattr(campaigns, "_look", look)
            await one.add(["late"])
            await campaigns.submit(draft.id, ANN)
            return found

        monkeypatch.setattr(campaigns, "_look", slow)
        with pytest.raises(OutdatedVersionError):
            await campaigns.submit(draft.id, ANN)
        approved = await campaigns.approve(draft.id, OTTO)
        assert approved.frozen is not None
        assert approved.frozen.targets == 2


async def test_pausing_takes_one_and_after_an_automatic_pause_going_on_takes_another(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaigns, tick = one.ota.campaigns, one.processes[0].tick
        campaign = await one.running(retries=0)
        await campaigns.pause(campaign.id, "a look first", OFFICER)
        await tick()
        assert set((await one.states(campaign.id)).values()) == {S.PLANNED}
        await campaigns.resume(campaign.id, "looked", ANN)
        await tick()
        one.clock.advance(1)
        await one.step(campaign.id, [name(0)], X.START, X.FAIL, reason="self_test")
        await tick()
        paused = await campaigns.campaign(campaign.id)
        assert (paused.state, paused.stop and paused.stop.reason) == (CampaignState.PAUSED, "canary_bad")
        with pytest.raises(AuthorApprovesError):
            await campaigns.resume(campaign.id, "mine is good", ANN)
        await campaigns.resume(campaign.id, "a broken device", EVE)
        await tick()
        assert (await campaigns.campaign(campaign.id)).state is CampaignState.RUNNING


async def test_a_campaign_paused_too_long_is_aborted(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        await one.ota.campaigns.pause(campaign.id, "later", ANN)
        one.clock.advance(86_401)
        for _ in range(3):
            await one.processes[0].tick()
        over = await one.ota.campaigns.campaign(campaign.id)
        assert (over.state, over.settled) == (CampaignState.ABORTED, True)
        assert set((await one.states(campaign.id)).values()) == {S.CANCELED}


async def test_the_same_request_again_is_the_same_draft_and_another_one_is_refused(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        terms = campaigns.terms(release=one.release)
        first = await campaigns.create(terms, ANN, key="k-1")
        assert await campaigns.create(terms, ANN, key="k-1") == first
        assert (await campaigns.create(terms, OTTO, key="k-1")).id != first.id
        with pytest.raises(OtherRequestError):
            await campaigns.create(campaigns.terms(release=one.release, retries=1), ANN, key="k-1")


async def test_a_draft_is_deleted_and_one_that_runs_is_not(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        await campaigns.submit(draft.id, ANN)
        await campaigns.delete(draft.id, ANN)
        with pytest.raises(CampaignNotFoundError):
            await campaigns.campaign(draft.id)
        campaign = await one.running()
        with pytest.raises(IllegalTransitionError):
            await campaigns.delete(campaign.id, ANN)


async def test_nothing_is_left_of_a_draft_that_was_deleted_after_an_edit(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        await campaigns.submit(draft.id, ANN)
        part = f"{draft.id}:1:0"
        assert part in await one.store.get(TARGETS.name, [part])
        await campaigns.edit(draft.id, campaigns.terms(release=one.release, retries=1), ANN)
        await campaigns.delete(draft.id, ANN)
        assert await one.store.get(TARGETS.name, [part]) == {}


async def test_nothing_is_left_of_a_draft_that_was_deleted_while_its_targets_were_frozen(
    tmp_path, monkeypatch
):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        frozen = campaigns._frozen

        async def slow(*given: Any) -> Any:
            await campaigns.delete(draft.id, ANN)
            return await frozen(*given)

        monkeypatch.setattr(campaigns, "_frozen", slow)
        with pytest.raises(CampaignNotFoundError):
            await campaigns.submit(draft.id, ANN)
        assert await one.store.get(TARGETS.name, [f"{draft.id}:1:0"]) == {}


async def test_what_cannot_be_is_told_all_at_once(tmp_path):
    async with world(tmp_path) as one:
        campaigns = one.ota.campaigns
        with pytest.raises(InvalidCampaignError) as wrong:
            await campaigns.create(campaigns.terms(release="", data="x", retries=11), ANN)
        assert len(wrong.value.problems) == 3
        wishes = {"per_hour": 10**6, "max_in_flight": 20_000}
        draft = await campaigns.create(campaigns.terms(release=one.release, **wishes), ANN)
        with pytest.raises(CampaignUnfitError) as unfit:
            await campaigns.submit(draft.id, ANN)
        assert len(unfit.value.checks) == 3


@pytest.mark.parametrize(
    "ramp", [Ramp(factor=10**9), Ramp(factor=math.inf), Ramp(factor=math.nan), Ramp(10**9)]
)
async def test_a_pace_grows_within_bounds(tmp_path, ramp):
    async with world(tmp_path) as one:
        campaigns = one.ota.campaigns
        with pytest.raises(InvalidCampaignError, match="ramp"):
            await campaigns.create(campaigns.terms(release=one.release, ramp=ramp), ANN)


@pytest.mark.parametrize(
    "wish",
    [
        {"time_zone": "Mars/Base"},
        {"time_zone": ""},
        {"start_grace_s": 0},
        {"health_s": -1},
        {"confirm_s": 10**9},
        {"soak_s": -1},
        {"pause_ttl_s": 0},
    ],
    ids=str,
)
async def test_no_campaign_has_times_that_the_settings_could_not_have(tmp_path, wish):
    async with world(tmp_path) as one:
        campaigns = one.ota.campaigns
        with pytest.raises(InvalidCampaignError, match=next(iter(wish))):
            await campaigns.create(campaigns.terms(release=one.release, **wish), ANN)


@pytest.mark.parametrize("member", ["start_at_ms", "activate_at_ms"])
async def test_nothing_is_planned_for_when_its_order_is_over(tmp_path, member):
    async with world(tmp_path, devices=1) as one:
        wishes: dict[str, Any] = {member: one.clock.now_ms() + 91 * 86_400_000}
        with pytest.raises(CampaignUnfitError, match="before its order ends"):
            await one.approved(**wishes)
        wishes = {member: one.clock.now_ms() + 29 * 86_400_000}
        await one.approved(**wishes)


async def test_one_target_is_canceled_and_one_tried_again_by_hand_and_both_are_audited(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaigns = one.ota.campaigns
        campaign = await one.running(retries=0)
        canceled = await campaigns.cancel(campaign.id, name(0), ANN, note="customer asked")
        assert (canceled.state, canceled.reason) == (S.CANCELED, "canceled")
        with pytest.raises(IllegalTransitionError):
            await campaigns.cancel(campaign.id, name(0), ANN)
        await one.step(campaign.id, [name(1)], X.START, X.FAIL, reason="manifest_field")
        assert (await campaigns.retry(campaign.id, name(1), ANN)).attempt == 2
        assert (await one.trail())[-2:] == [
            ("ann", "campaign.cancel_target"),
            ("ann", "campaign.retry_target"),
        ]


@pytest.mark.parametrize("crash", [Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])
async def test_a_target_canceled_by_hand_has_its_row_if_and_only_if_it_was_canceled(tmp_path, crash):
    async with world(tmp_path, devices=1) as one:
        campaign = await one.running()
        one.store.crash = crash
        with pytest.raises(StoreUnavailableError):
            await one.ota.campaigns.cancel(campaign.id, name(0), ANN, note="customer asked")
        rows = [act for _, act in await one.trail() if act == "campaign.cancel_target"]
        canceled = (await one.states(campaign.id))[name(0)] is S.CANCELED
        assert (canceled, len(rows)) == ((True, 1) if crash is Crash.AFTER_COMMIT else (False, 0))


async def test_what_a_campaign_does_at_once_by_itself_has_a_row_each(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await one.approved()
        await one.runs([name(0)], FW | {"confirmed": True})
        await one.ota.executor.tick()  # makes the targets
        await one.ota.watcher.look([name(0)])
        await one.ota.executor.tick()
        assert [act for _, act in await one.trail()][-2:] == ["campaign.start", "campaign.complete"]
        assert (await one.ota.campaigns.campaign(campaign.id)).settled


async def test_a_campaign_does_not_end_while_a_person_has_a_target_of_it_tried_once_more(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await about_to_complete(one)

        async def tick() -> None:
            await one.ota.executor.tick()
            await one.ota.executor.tick()

        one.store.before_commit += [nothing, tick]  # right before the target itself is written
        assert (await one.ota.campaigns.retry(campaign.id, name(0), ANN)).state is S.PLANNED
        assert (await one.ota.campaigns.campaign(campaign.id)).state is CampaignState.RUNNING
        one.clock.advance(60)
        await one.ota.executor.tick()
        assert (await one.states(campaign.id))[name(0)] is S.QUEUED


async def test_a_campaign_that_is_over_has_no_target_tried_once_more(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await about_to_complete(one)
        await one.ota.executor.tick()
        assert (await one.ota.campaigns.campaign(campaign.id)).state is CampaignState.COMPLETED
        with pytest.raises(IllegalTransitionError):
            await one.ota.campaigns.retry(campaign.id, name(0), ANN)
        assert (await one.states(campaign.id))[name(0)] is S.FAILED


async def test_a_target_tried_once_more_is_canceled_with_a_campaign_that_was_ended_meanwhile(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await about_to_complete(one)

        async def end() -> None:
            await one.ota.campaigns.abort(campaign.id, "it melts", ANN)
            await one.ota.executor.tick()
            assert not (await one.ota.campaigns.campaign(campaign.id)).settled

        one.store.before_commit += [nothing, end]
        await one.ota.campaigns.retry(campaign.id, name(0), ANN)
        await one.ota.executor.tick()
        assert (await one.states(campaign.id))[name(0)] is S.CANCELED
        one.clock.advance(60)
        await one.ota.executor.tick()
        assert (await one.ota.campaigns.campaign(campaign.id)).settled


async def test_a_retry_that_comes_too_late_to_hold_its_campaign_open_changes_nothing(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await about_to_complete(one)

        async def wait() -> None:
            one.clock.advance(11)

        one.store.before_commit.append(wait)
        with pytest.raises(ExecutionBusyError):
            await one.ota.campaigns.retry(campaign.id, name(0), ANN)
        assert (await one.states(campaign.id))[name(0)] is S.FAILED


async def test_a_campaign_that_waits_for_its_time_is_one_of_those_that_may_run(tmp_path, monkeypatch):
    monkeypatch.setattr("ota.campaigns.RUNNING_MAX", 1)
    async with world(tmp_path, devices=2) as one:
        later = await one.approved(
            selector=Selector(things=(name(0),)), start_at_ms=one.clock.now_ms() + 3_600_000
        )
        with pytest.raises(TooManyCampaignsError):
            await one.approved(selector=Selector(things=(name(1),)))
        await one.processes[0].tick()
        with pytest.raises(TooManyCampaignsError):
            await one.approved(selector=Selector(things=(name(1),)))
        await one.ota.campaigns.abort(later.id, "not any more", ANN)
        await one.processes[0].tick()
        await one.approved(selector=Selector(things=(name(1),)))


async def test_what_an_approved_campaign_wants_is_read_once(tmp_path, monkeypatch):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release, health_s=30), ANN)
        await campaigns.submit(draft.id, ANN)
        assert await campaigns.wanted([draft.id]) == {}
        await campaigns.approve(draft.id, OTTO)
        wanted = await campaigns.wanted([draft.id, "nobody"])
        assert {id: (each.sha256, each.health_ms) for id, each in wanted.items()} == {
            draft.id: (NEW_SHA256, 30_000)
        }
        monkeypatch.setattr(campaigns.store, "load_all", None)
        assert await campaigns.wanted([draft.id]) == wanted


# Orders


async def test_an_order_that_its_approver_signed_counts_and_any_other_does_not(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaigns = one.ota.campaigns
        draft = await campaigns.create(campaigns.terms(release=one.release), ANN)
        submitted = await campaigns.submit(draft.id, ANN)
        assert submitted.frozen is not None
        order = order_of(submitted, submitted.frozen)
        for wrong, key in (
            (replace(order, per_hour=20_000), base.UTILITY_KEY),
            (replace(order, count=2), base.UTILITY_KEY),
            (order, base.VENDOR_KEY),
        ):
            with pytest.raises(CampaignUnfitError):
                await campaigns.approve(draft.id, OTTO, order=seal(write(wrong), Typ.ORDER, key))
        assert (await campaigns.campaign(draft.id)).state is CampaignState.FROZEN
        signed = seal(write(order), Typ.ORDER, base.UTILITY_KEY)
        assert (await campaigns.approve(draft.id, OTTO, order=signed)).order == signed


async def test_a_release_that_is_withdrawn_pauses_its_campaigns_within_a_tick(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        await one.ota.releases.withdraw(one.release, OTTO, reason="it melts")
        await one.processes[0].tick()
        paused = await one.ota.campaigns.campaign(campaign.id)
        assert (paused.state, paused.stop and paused.stop.reason) == (
            CampaignState.PAUSED,
            "release_withdrawn",
        )
        assert set((await one.states(campaign.id)).values()) == {S.PLANNED}


async def test_a_withdrawal_is_seen_at_the_next_tick_also_while_nothing_is_left_to_offer(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        await one.step(campaign.id, [name(number) for number in range(3)], X.START)
        for _ in range(2):
            await one.processes[0].tick()
        await one.ota.releases.withdraw(one.release, OTTO, reason="it melts")
        await one.processes[0].tick()
        paused = await one.ota.campaigns.campaign(campaign.id)
        assert (paused.state, paused.stop and paused.stop.reason) == (
            CampaignState.PAUSED,
            "release_withdrawn",
        )


async def test_a_campaign_pauses_when_its_order_is_over_also_while_nothing_is_left_to_offer(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running(lasts_ms=100_000)
        await one.step(campaign.id, [name(number) for number in range(3)], X.START)
        states = []
        for seconds in (1, 61, 37, 1):
            one.clock.advance(seconds)
            await one.processes[0].tick()
            states.append((await one.ota.campaigns.campaign(campaign.id)).state)
        assert states == [CampaignState.RUNNING] * 3 + [CampaignState.PAUSED]


async def test_a_key_that_is_revoked_pauses_what_it_signed(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        await one.ota.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
        await one.processes[0].tick()
        paused = await one.ota.campaigns.campaign(campaign.id)
        assert (paused.state, paused.stop and paused.stop.reason) == (CampaignState.PAUSED, "key_revoked")
        with pytest.raises(CampaignUnfitError, match="key_revoked"):
            await one.ota.campaigns.resume(campaign.id, "go on", EVE)


async def test_what_would_stop_again_at_once_does_not_go_on_so_that_nobody_slips_through_the_gate(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await one.running(lasts_ms=100_000)
        await one.step(campaign.id, [name(0)], X.START, X.STAGED)
        await one.ota.campaigns.pause(campaign.id, "a look", ANN)
        await one.ota.releases.withdraw(one.release, OTTO, reason="it melts")
        with pytest.raises(CampaignUnfitError, match="release_withdrawn"):
            await one.ota.campaigns.resume(campaign.id, "go on", ANN)
        assert (await gate(one, campaign.id, name(0)))["message"] == "hold: paused"
        one.clock.advance(100)
        with pytest.raises(CampaignUnfitError, match="order_expired"):
            await one.ota.campaigns.resume(campaign.id, "go on", ANN)


async def test_an_order_that_is_over_is_approved_by_nobody(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        made = await campaigns.create(campaigns.terms(release=one.release, lasts_ms=100_000), ANN)
        await campaigns.submit(made.id, ANN)
        one.clock.advance(100)
        with pytest.raises(CampaignUnfitError, match="submitted too long ago"):
            await campaigns.approve(made.id, OTTO)


async def test_a_release_whose_manifest_is_over_stops_its_campaigns_and_gets_no_other(tmp_path):
    async with world(tmp_path, devices=3) as one:
        left_s = base.MANIFEST.expires - one.clock.now_ms() // 1_000
        one.clock.advance(left_s - 2)
        campaign = await one.running()
        assert campaign.state is CampaignState.RUNNING
        one.clock.advance(2)
        await one.processes[0].tick()
        paused = await one.ota.campaigns.campaign(campaign.id)
        assert (paused.state, paused.stop and paused.stop.reason) == (CampaignState.PAUSED, "release_expired")
        other = await one.ota.campaigns.create(one.ota.campaigns.terms(release=one.release), ANN)
        with pytest.raises(CampaignUnfitError, match="holds no longer"):
            await one.ota.campaigns.submit(other.id, ANN)


# Stopping


@covers("I3NFR5")
async def test_an_abort_stops_within_one_tick_whoever_was_not_let_go_on(tmp_path):
    async with world(tmp_path, devices=30, settings=OtaSettings(devices_per_hour=200_000)) as one:
        campaign = await one.running(per_hour=200_000)
        names = [each.thing for each in await one.targets(campaign.id)]
        await one.step(campaign.id, names[5:30], X.START)
        await one.step(campaign.id, names[10:15], X.STAGED)
        await one.step(campaign.id, names[20:25], X.GO)
        await one.step(campaign.id, names[25:30], X.GO, X.CONFIRM)
        await one.ota.campaigns.abort(campaign.id, "it melts", ANN)
        await one.processes[0].tick()
        states = await one.states(campaign.id)
        assert Counter(states.values()) == {S.CANCELED: 20, S.ACTIVATING: 5, S.CONFIRMING: 5}
        assert not await one.ota.jobs.uses(names[12], NEW_SHA256)
        assert not (await one.ask(names[12], Op.GET, job_id(campaign.id))).accepted
        await one.step(campaign.id, names[20:30], X.SUCCEED)
        for _ in range(2):
            await one.processes[0].tick()
        assert (await one.ota.campaigns.campaign(campaign.id)).settled


async def test_a_device_that_left_the_scope_is_skipped_before_its_offer(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.approved()
        await one.processes[0].registry.set_taking_part(name(0), False, SYSTEM)
        for _ in range(3):
            await one.processes[0].tick()
        states = {each.thing: (each.state, each.reason) for each in await one.targets(campaign.id)}
        assert states == {name(0): (S.SKIPPED, "NOT_ENROLLED"), name(1): (S.QUEUED, "")}


async def test_a_device_that_was_removed_keeps_no_campaign_open_though_nobody_told_of_it(tmp_path):
    async with world(tmp_path, devices=2) as one:
        one.processes[0].presence.went(name(0))
        campaign = await one.running()
        await one.processes[0].registry.remove(name(0), SYSTEM)
        one.clock.advance(61)
        await one.processes[0].tick()
        states = {each.thing: (each.state, each.reason) for each in await one.targets(campaign.id)}
        assert states == {name(0): (S.REMOVED, "thing_removed"), name(1): (S.QUEUED, "")}


@pytest.mark.parametrize("path", How)
async def test_a_device_that_was_replaced_while_it_waited_keeps_no_campaign_open_though_it_never_comes(
    tmp_path, path
):
    async with world(tmp_path) as one:
        await one.add([name(0)], owner=Owner.UTILITY, here=False)
        await one.add([name(1)], here=False)
        await one.add([name(2)], here=False)
        campaign = await one.running(path=path)
        await one.change_device(name(0), lifecycle=Lifecycle.REPLACED)
        await one.processes[0].registry.set_taking_part(name(1), False, SYSTEM)
        one.clock.advance(61)
        await one.processes[0].tick()
        states = {each.thing: (each.state, each.reason) for each in await one.targets(campaign.id)}
        assert states == {
            name(0): (S.SKIPPED, "RETIRED"),
            name(1): (S.SKIPPED, "NOT_ENROLLED"),
            name(2): (S.PLANNED, ""),
        }


async def test_a_device_that_was_replaced_while_it_was_held_at_the_gate_keeps_no_campaign_open(tmp_path):
    async with world(tmp_path) as one:
        await one.add([name(number) for number in range(3)], owner=Owner.UTILITY)
        campaign = await one.running(retries=0)
        things = [name(number) for number in range(3)]
        await one.step(campaign.id, things, X.START, X.STAGED)
        await one.step(campaign.id, things[:2], held_at_ms=one.clock.now_ms())
        for thing in things:
            await one.change_device(thing, lifecycle=Lifecycle.REPLACED)
        for thing in (things[0], things[2]):
            one.processes[0].presence.went(thing)
        one.clock.advance(61)
        await one.processes[0].tick()
        states = {each.thing: (each.state, each.reason) for each in await one.targets(campaign.id)}
        assert states == {
            things[0]: (S.CANCELED, "RETIRED"),
            things[1]: (S.STAGED, ""),
            things[2]: (S.STAGED, ""),
        }, "one that is here is asked by the gate, and the clock of the last one runs"


async def test_absent_devices_are_looked_at_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr("ota.executor.LOOKS_MAX", 2)
    async with world(tmp_path) as one:
        await one.add([name(number) for number in range(5)], here=False)
        campaign = await one.running()
        last = (await one.targets(campaign.id))[-1]
        await one.processes[0].registry.set_taking_part(last.thing, False, SYSTEM)
        for _ in range(3):
            one.clock.advance(61)
            await one.processes[0].tick()
        assert (await one.states(campaign.id))[last.thing] is S.SKIPPED


async def test_an_absent_device_is_offered_nothing_until_it_is_seen(tmp_path):
    async with world(tmp_path, devices=2) as one:
        process = one.processes[0]
        process.presence.went(name(0))
        campaign = await one.running()
        assert (await one.states(campaign.id))[name(0)] is S.PLANNED
        process.presence.went(name(1))
        one.clock.advance(121)
        await process.tick()
        assert set((await one.states(campaign.id)).values()) == {S.PLANNED}
        one.clock.advance(1)
        process.presence.came(name(1))
        await process.tick()
        assert (await one.states(campaign.id)) == {name(0): S.PLANNED, name(1): S.QUEUED}


async def test_a_device_is_reached_when_its_gateway_is_here(tmp_path):
    async with world(tmp_path, devices=1) as one:
        process, thing = one.processes[0], name(0)
        hub = NewThing("hub", ThingKind.GATEWAY, "hub-2", f"home-{thing}")
        await process.registry.register(hub, SYSTEM)
        await process.registry.attach("hub", thing, SYSTEM)
        process.presence.went(thing)
        campaign = await one.running()
        assert (await one.states(campaign.id))[thing] is S.PLANNED
        process.presence.came("hub")
        await process.tick()
        assert (await one.states(campaign.id))[thing] is S.QUEUED


@pytest.mark.parametrize("wishes", [{"path": How.LOCAL}, {"windows": (Window(0, 1),)}])
async def test_while_nothing_may_be_offered_a_campaign_is_not_planned_each_second(
    tmp_path, monkeypatch, wishes
):
    planned: list[int] = []

    def counted(now_ms: int, *given: Any) -> Plan:
        planned.append(now_ms)
        return plan(now_ms, *given)

    async with world(tmp_path, devices=2) as one:
        campaign = await one.running(**wishes)
        monkeypatch.setattr("ota.executor.plan", counted)
        for _ in range(20):
            one.clock.advance(1)
            await one.processes[0].tick()
        assert planned == []
        await one.runs([name(0)], FW)
        await one.ota.watcher.look([name(0)])
        await one.processes[0].tick()
        assert planned, "something has changed"
        assert (await one.states(campaign.id))[name(0)] is S.SUCCEEDED


# The gate


async def gate(one: World, campaign: str, thing: str) -> Any:
    found = await one.ota.lane.load(campaign, thing)
    assert found is not None
    answer = await one.ask(
        thing,
        Op.UPDATE,
        job_id(campaign),
        status="IN_PROGRESS",
        statusDetails={"fs": "5", "gate": "ask"},
        expectedVersion=found.version,
    )
    return msgspec.json.decode(answer.body)


async def test_the_gate_holds_while_paused_and_while_we_are_not_well_and_opens_after(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaigns = one.ota.campaigns
        campaign = await one.running()
        await one.step(campaign.id, [name(0)], X.START, X.STAGED)
        await campaigns.pause(campaign.id, "wait", ANN)
        held = await gate(one, campaign.id, name(0))
        assert (held["code"], held["message"], held["retryAfter"]) == ("RequestThrottled", "hold: paused", 60)
        await campaigns.resume(campaign.id, "go on", ANN)
        one.ota.health.note(Part.BROKER, well=False)
        assert (await gate(one, campaign.id, name(0)))["message"] == "hold: service_health"
        one.ota.health.note(Part.BROKER, well=True)
        one.clock.advance(100)
        gone = await gate(one, campaign.id, name(0))
        assert gone["executionState"]["statusDetails"]["gate"] == "go"
        (target,) = await one.targets(campaign.id)
        assert target.snapshot
        assert target.go_at_ms - target.held_at_ms == 100_000


async def test_of_a_campaign_that_nobody_can_look_after_nobody_is_let_go_on(tmp_path, monkeypatch):
    async with world(tmp_path, devices=2) as one:
        lost, other = [await one.running(selector=Selector(things=(name(number),))) for number in range(2)]
        for number, campaign in enumerate((lost, other)):
            await one.step(campaign.id, [name(number)], X.START, X.STAGED)
        honest = one.ota.executor._around

        async def around(campaign, *more):
            if campaign.id == lost.id:
                raise ReleaseNotFoundError
            return await honest(campaign, *more)

        monkeypatch.setattr(one.ota.executor, "_around", around)
        await one.ota.executor.tick()
        assert (await gate(one, lost.id, name(0)))["message"] == "hold: service_health"
        assert (await gate(one, other.id, name(1)))["executionState"]["statusDetails"]["gate"] == "go"
        monkeypatch.undo()
        await one.ota.executor.tick()
        assert (await gate(one, lost.id, name(0)))["executionState"]["statusDetails"]["gate"] == "go"


class Quiet:
    """There is an event at every device."""

    async def quiet(self, things: Collection[str], now_ms: int) -> Collection[str]:
        return things


async def test_nobody_is_disturbed_around_an_event_unless_the_campaign_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("ota.opening.NoEvents", Quiet)
    for blackout in (True, False):
        async with world(tmp_path / str(blackout), devices=1) as one:
            campaign = await one.running(blackout=blackout)
            offered = (await one.states(campaign.id))[name(0)] is S.QUEUED
            assert offered is not blackout
            if not offered:
                await one.step(campaign.id, [name(0)], X.OFFER)
            await one.step(campaign.id, [name(0)], X.START, X.STAGED)
            said = await gate(one, campaign.id, name(0))
            assert (said.get("message") == "hold: dr_event") is blackout


async def test_a_campaign_that_is_stopped_while_the_snapshot_is_taken_lets_nobody_go_on(
    tmp_path, monkeypatch
):
    async with world(tmp_path, devices=1) as one:
        campaign = await one.running()
        await one.step(campaign.id, [name(0)], X.START, X.STAGED)
        before = one.ota.snapshots.before

        async def slow(executions: Sequence[Execution]) -> Any:
            await one.ota.campaigns.abort(campaign.id, "it melts", ANN)
            return await before(executions)

        monkeypatch.setattr(one.ota.snapshots, "before", slow)
        assert (await gate(one, campaign.id, name(0)))["code"] == "InvalidStateTransition"
        assert (await one.states(campaign.id))[name(0)] is S.STAGED


async def test_the_gate_is_closed_for_good_once_a_campaign_is_over(tmp_path):
    async with world(tmp_path, devices=1) as one:
        campaign = await one.running()
        await one.step(campaign.id, [name(0)], X.START, X.STAGED)
        await one.ota.campaigns.abort(campaign.id, "no more", ANN)
        assert (await gate(one, campaign.id, name(0)))["code"] == "InvalidStateTransition"


async def test_devices_that_load_ahead_activate_at_their_hour_and_have_two_clocks(tmp_path):
    async with world(tmp_path, devices=1) as one:
        at_ms = one.clock.now_ms() + 3_600_000
        campaign = await one.running(prestage=True, activate_at_ms=at_ms)
        await one.step(campaign.id, [name(0)], X.START)
        one.clock.advance(1_000)
        await one.step(campaign.id, [name(0)], X.STAGED)
        held = await gate(one, campaign.id, name(0))
        assert (held["message"], held["retryAfter"]) == ("hold: window", 2_600)
        one.clock.advance(2_600)
        await one.processes[0].tick()
        assert (await gate(one, campaign.id, name(0)))["executionState"]
        one.clock.advance(121)
        await one.processes[0].tick()
        assert (await one.states(campaign.id))[name(0)] is S.TIMED_OUT


async def test_hours_are_meant_in_the_time_zone_of_the_premises(tmp_path):
    async with world(tmp_path, devices=3) as one:
        for number, zone in enumerate(("Asia/Tokyo", "America/New_York")):
            home = f"home-{name(number)}"
            await one.processes[0].registry.describe_premises(home, Location(time_zone=zone), SYSTEM)
        night = Window(22 * 60, 6 * 60)
        campaign = await one.running(windows=(night,), time_zone="Europe/Berlin")
        assert await one.states(campaign.id) == {name(0): S.QUEUED, name(1): S.PLANNED, name(2): S.PLANNED}
        await one.step(campaign.id, [name(0)], X.START, X.STAGED)
        assert (await gate(one, campaign.id, name(0)))["executionState"]["statusDetails"]["gate"] == "go"
        await one.step(campaign.id, [name(0)], X.SUCCEED)
        one.clock.advance(12 * 3_600)
        await one.ota.executor.tick()
        assert (await one.states(campaign.id))[name(1)] is S.QUEUED
        await one.step(campaign.id, [name(1)], X.START, X.STAGED)
        one.clock.advance(12 * 3_600)
        assert (await gate(one, campaign.id, name(1)))["message"] == "hold: window"


async def test_who_is_tried_again_keeps_the_hours_of_its_premises(tmp_path):
    async with world(tmp_path, devices=1) as one:
        home = f"home-{name(0)}"
        await one.processes[0].registry.describe_premises(home, Location(time_zone="Asia/Tokyo"), SYSTEM)
        campaign = await one.running(retries=0)
        await one.step(campaign.id, [name(0)], X.START, X.FAIL, reason="manifest_field")
        assert (await one.ota.campaigns.retry(campaign.id, name(0), ANN)).time_zone == "Asia/Tokyo"


# Time


async def test_a_clock_over_its_time_is_timed_out_but_not_before_a_look_at_what_is_shown(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.running(retries=0)
        names = [name(0), name(1)]
        await one.step(campaign.id, names, X.START, X.STAGED)
        for thing in names:
            await gate(one, campaign.id, thing)
        await one.runs([name(1)], FW, boot=2)
        claim = {"claimed_at_ms": one.clock.now_ms(), "details": {"data": "preserve"}}
        await one.step(campaign.id, [name(1)], X.CONFIRM, **claim)
        one.clock.advance(300)
        await one.processes[0].tick()
        assert (await one.states(campaign.id))[name(0)] is S.ACTIVATING
        one.clock.advance(0.001)
        await one.processes[0].tick()
        states = await one.states(campaign.id)
        assert states == {name(0): S.TIMED_OUT, name(1): S.SUCCEEDED}


# Several processes, and none


async def test_a_process_that_has_just_started_sees_to_what_the_last_one_did_not(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.running()
        await one.step(campaign.id, [name(0)], X.START, X.STAGED, X.GO, boot=1)
        await one.step(campaign.id, [name(0)], X.CONFIRM, claimed_at_ms=one.clock.now_ms())
        one.processes.clear()  # its hints and its timers are gone
        later = await one.open()
        await later.tick()
        await later.ota.watcher.round()
        one.clock.advance(61)
        await later.ota.watcher.round()
        found = await later.ota.lane.load(campaign.id, name(0))
        assert found is not None
        assert (found.state, found.reason) == (S.FAILED, "health_missing")


@pytest.mark.parametrize("path", How)
async def test_an_image_that_came_otherwise_and_woke_nobody_is_found(tmp_path, path):
    async with world(tmp_path) as one:
        await one.add([name(0)], here=False)
        campaign = await one.running(path=path)
        await one.runs([name(0)], FW)
        one.ota.watcher._hints.clear()
        one.clock.advance(61)
        await one.processes[0].tick()
        await one.ota.watcher.round()
        assert (await one.states(campaign.id))[name(0)] is S.SUCCEEDED


async def test_two_executors_offer_no_more_than_one_may(tmp_path):
    async with world(tmp_path, exclusive=False, settings=OtaSettings(devices_per_hour=3_600)) as one:
        await one.open()
        await one.add([name(number) for number in range(40)])
        campaign = await one.running()
        for _ in range(20):
            await asyncio.gather(*(process.tick() for process in one.processes))
            one.clock.advance(1)
        offers = [
            after
            for before, after in one.commits
            if after.state is S.QUEUED and after.campaign == campaign.id
        ]
        assert len(offers) <= capacity(3_600) + 20 + 1
        assert len({after.thing for after in offers}) == len(offers)
        assert len(offers) >= 15


async def two_campaigns(one: World) -> list[str]:
    """Return two campaigns for the same devices, neither of which knew of the other."""
    campaigns, drafts = one.ota.campaigns, []
    for _ in range(2):
        terms = campaigns.terms(release=one.release, waves=(Wave(percent=100),))
        drafts.append((await campaigns.create(terms, ANN)).id)
        await campaigns.submit(drafts[-1], ANN)
    for draft in drafts:
        await campaigns.approve(draft, OTTO)
    for _ in range(2):
        # Targets are made and both have begun; nobody is here yet.
        for process in one.processes:
            await process.tick()
    return sorted(drafts)


def come(one: World, count: int) -> None:
    for process in one.processes:
        for number in range(count):
            process.presence.came(name(number))


async def working(one: World, drafts: list[str]) -> Counter[str]:
    targets = [each for draft in drafts for each in await one.targets(draft)]
    return Counter(each.thing for each in targets if each.state in OFFERED | ACTIVE)


async def test_two_campaigns_never_work_on_one_device_at_once(tmp_path):
    async with world(tmp_path, exclusive=False) as one:
        await one.open()
        await one.add([name(number) for number in range(20)], here=False)
        drafts = await two_campaigns(one)
        come(one, 20)
        for _ in range(15):
            await asyncio.gather(*(process.tick() for process in one.processes))
            one.clock.advance(10)
            assert max((await working(one, drafts)).values(), default=1) == 1
        assert len(await working(one, drafts)) == 20


async def test_an_offer_that_is_on_its_way_is_respected_by_another_campaign_elsewhere(tmp_path, monkeypatch):
    async with world(tmp_path, exclusive=False) as one:
        other = await one.open()
        await one.add([name(number) for number in range(3)], here=False)
        drafts = await two_campaigns(one)
        come(one, 3)
        interrupted: list[int] = []
        commit = one.store.inner.commit

        async def slow(writes: Sequence[Write]) -> frozenset[int]:
            if not interrupted and {write.collection for write in writes} == {EXECUTIONS.name}:
                # The offers of the first are decided and not written: the second goes all its way now.
                interrupted.append(len(writes))
                await other.ota.executor._carry_out(await other.ota.campaigns.store.load(drafts[1]))
            return await commit(writes)

        monkeypatch.setattr(one.store.inner, "commit", slow)
        await one.ota.executor._carry_out(await one.ota.campaigns.store.load(drafts[0]))
        assert interrupted == [3]
        assert await working(one, drafts) == {name(0): 1, name(1): 1, name(2): 1}


async def test_an_action_is_judged_again_on_the_target_as_it_is_then(tmp_path):
    async with world(tmp_path) as one:
        await one.add([name(0)], here=False)
        first, second = await two_campaigns(one)
        now_ms, limits = one.clock.now_ms(), Limits(300_000, 300_000)
        await one.step(first, [name(0)], X.OFFER)

        async def does(campaign: str, trigger: ExecutionTrigger, planned_ms: int = now_ms) -> object:
            move = Move(name(0), 1, trigger, "deadline")
            (did,) = await one.ota.lane.submit([_change(campaign, limits, move, planned_ms)])
            return did

        assert await does(second, X.OFFER) is False, "another campaign has offered it something"
        assert await does(first, X.RECALL) is True
        assert await does(second, X.OFFER, now_ms - 20_001) is False, "the claim on it may be over"
        assert await does(second, X.OFFER, now_ms - 20_000) is True
        await one.step(second, [name(0)], X.START)
        assert await does(second, X.TIME_OUT) is False, "it has begun meanwhile"
        one.clock.advance(301)
        assert await does(second, X.TIME_OUT) is True


async def test_devices_that_others_hold_do_not_stand_in_the_way_of_those_behind_them(tmp_path, monkeypatch):
    monkeypatch.setattr("ota.executor.LOOKS_MAX", 1)
    async with world(tmp_path) as one:
        await one.add([name(number) for number in range(2)], here=False)
        first, second = await two_campaigns(one)
        in_line = [each.thing for each in await one.targets(second)]
        await one.step(first, in_line[:1], X.OFFER, X.START)
        come(one, 2)
        store, executor = one.ota.campaigns.store, one.ota.executor
        for _ in range(2):
            await executor._carry_out(await store.load(second))
        assert await one.states(second) == {in_line[0]: S.PLANNED, in_line[1]: S.QUEUED}


@pytest.mark.parametrize("commit", range(12))
@pytest.mark.parametrize("crash", [Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])
async def test_a_campaign_survives_a_kill_at_any_commit(tmp_path, commit, crash):
    async with world(tmp_path, devices=6) as one:
        campaign = await one.approved()
        seen = 0

        async def plant() -> None:
            nonlocal seen
            if seen == commit:
                one.store.crash = crash
            seen += 1
            one.store.before_commit.append(plant)

        one.store.before_commit.append(plant)
        dead = one.processes[0]
        for _ in range(4):
            try:
                await dead.tick()
            except StoreUnavailableError:
                break
        one.store.before_commit.clear()
        fresh = await one.open()
        for number in range(6):
            fresh.presence.came(name(number))
        for _ in range(4):
            await fresh.tick()
            one.clock.advance(1)
        targets = await one.targets(campaign.id)
        assert sorted(each.thing for each in targets) == [name(number) for number in range(6)]
        assert {each.state for each in targets} == {S.QUEUED}
        assert {each.version for each in targets} == {1}


async def test_a_campaign_that_cannot_be_read_stops_no_other(tmp_path):
    async with world(tmp_path, devices=1) as one:
        await one.store.inner.commit([Write(CAMPAIGNS.name, "odd", 0, b"?", {"at_work": 1})])
        campaign = await one.running()
        assert (await one.states(campaign.id))[name(0)] is S.QUEUED


async def test_kept_and_counted_targets_that_differ_are_an_alarm(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        executor = one.ota.executor
        roll = await executor._rolls.roll(campaign.id)
        one.clock.advance(61)
        await one.processes[0].tick()
        assert executor._miscounts == 0
        roll.counts[S.QUEUED] -= 1
        one.clock.advance(61)
        await one.processes[0].tick()
        assert executor._miscounts == 1


async def test_a_target_whose_document_is_gone_is_an_alarm(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running()
        (gone,) = (await one.store.get(EXECUTIONS.name, [f"{campaign.id}:{name(1)}"])).values()
        await one.store.inner.commit([Write(EXECUTIONS.name, gone.id, gone.revision, None)])
        later = await one.open()
        await later.tick()
        one.clock.advance(61)
        await later.tick()
        assert later.ota.executor._miscounts == 1


async def test_what_another_process_changed_while_documents_were_counted_is_no_alarm(tmp_path, monkeypatch):
    async with world(tmp_path, devices=3, exclusive=False) as one:
        other = await one.open()
        await one.running()
        honest = one.ota.lane.of_campaign

        async def meanwhile(id: str) -> list[Execution]:
            await other.ota.campaigns.cancel(id, name(0), ANN)
            return await honest(id)

        monkeypatch.setattr(one.ota.lane, "of_campaign", meanwhile)
        one.clock.advance(61)
        await one.processes[0].tick()
        assert one.ota.executor._miscounts == 0


async def test_what_is_read_again_and_is_as_it_was_is_no_change(tmp_path):
    async with world(tmp_path, devices=3, exclusive=False) as one:
        campaign = await one.running()
        before = (await one.ota.executor._rolls.roll(campaign.id)).changes
        assert (await one.ota.executor._rolls.roll(campaign.id)).changes == before > 0


# Everything at once


@pytest.mark.parametrize("seed", range(40))
async def test_the_buckets_add_up_at_every_commit_whatever_happens(tmp_path, seed):
    chance = random.Random(seed)
    async with world(tmp_path, devices=12) as one:
        campaign = await one.approved(
            per_hour=chance.choice([720, 10_000, 100_000]),
            max_in_flight=chance.choice([2, 5, 100]),
            waves=chance.choice([(Wave(percent=100),), (Wave(2), Wave(percent=50), Wave(percent=100))]),
            retries=chance.randrange(3),
            soak_s=chance.choice([0, 30]),
        )
        check = _adds_up(one, campaign.id, 12)
        for _ in range(60):
            one.clock.advance(chance.choice([0.5, 1, 5, 60, 400]))
            await one.processes[0].tick()
            await _devices_live(one, campaign.id, chance)
            await _people_act(one, campaign.id, chance)
            await check()
        await _ended(one, campaign.id)
        over = await one.ota.campaigns.campaign(campaign.id)
        assert over.is_over
        counts = await one.ota.campaigns.counts(campaign.id)
        assert (sum(counts.values()), counts["waiting"], counts["active"]) == (12, 0, 0)


def _adds_up(one: World, campaign: str, count: int) -> Callable[[], Awaitable[None]]:
    """Return what compares the commits with each other, with the documents and with what is shown."""
    states: dict[str, ExecutionState] = {}
    seen = 0

    async def check() -> None:
        nonlocal seen
        for before, after in one.commits[seen:]:
            assert states.get(after.thing) == (None if before is None else before.state)
            states[after.thing] = after.state
        seen = len(one.commits)
        assert await one.states(campaign) == states
        shown = await one.ota.campaigns.counts(campaign)
        assert shown == buckets(Counter(states.values()))
        assert sum(shown.values()) == count

    return check


async def _devices_live(one: World, campaign: str, chance: random.Random) -> None:
    for target in await one.targets(campaign):
        if target.state in FINAL or chance.random() < 0.5:
            continue
        if target.state in OFFERED:
            await one.step(campaign, [target.thing], chance.choice([X.START, X.REJECT, X.START, X.START]))
        elif target.state in ACTIVE - AFTER_GO:
            trigger = chance.choice([X.STAGED, X.GO, X.FAIL, X.GO]) if target.state is S.LOADING else X.GO
            await one.step(campaign, [target.thing], trigger)
        elif target.state in AFTER_GO:
            await one.step(campaign, [target.thing], chance.choice([X.SUCCEED, X.SUCCEED, X.ROLL_BACK]))


async def _people_act(one: World, campaign: str, chance: random.Random) -> None:
    campaigns = one.ota.campaigns
    state = (await campaigns.campaign(campaign)).state
    if state is CampaignState.PAUSED and chance.random() < 0.7:
        await campaigns.resume(campaign, "known", EVE)
    elif state is CampaignState.RUNNING and chance.random() < 0.1:
        await campaigns.pause(campaign, "a look", ANN)
    elif state in {CampaignState.RUNNING, CampaignState.PAUSED} and chance.random() < 0.03:
        await campaigns.abort(campaign, "enough", ANN)


async def _ended(one: World, campaign: str) -> None:
    campaigns = one.ota.campaigns
    if not (await campaigns.campaign(campaign)).is_over:
        await campaigns.abort(campaign, "the test ends", ANN)
    for _ in range(3):
        await one.processes[0].tick()
        one.clock.advance(400)


def test_waiting_and_active_are_shown_as_one_number_each():
    counts = Counter({S.PLANNED: 2, S.QUEUED: 1, S.LOADING: 3, S.SUCCEEDED: 4})
    shown = buckets(counts)
    assert (shown["waiting"], shown["active"], shown["SUCCEEDED"]) == (3, 3, 4)
    assert set(shown) == {"waiting", "active"} | {str(state) for state in FINAL}
    assert set(S) == WAITING | ACTIVE | FINAL


async def test_on_site_nothing_is_offered_and_crews_get_the_signed_order(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.running(path=How.LOCAL)
        assert set((await one.states(campaign.id)).values()) == {S.PLANNED}
        contents = await one.ota.campaigns.contents(campaign.id)
        assert contents.names == (name(0), name(1))
        await one.runs([name(0)], FW)
        await one.ota.watcher.look([name(0)])
        assert (await one.targets(campaign.id)) != []
        done = await one.ota.campaigns.execution(campaign.id, name(0))
        assert (done.state, done.how) == (S.SUCCEEDED, "on_site")
        await one.ota.campaigns.abort(campaign.id, "it melts", ANN)
        with pytest.raises(NoBundleError):
            await one.ota.campaigns.contents(campaign.id)


async def test_crews_get_nothing_for_who_was_taken_out_or_takes_no_part_any_more(tmp_path):
    async with world(tmp_path, devices=3) as one:
        campaign = await one.running(path=How.LOCAL)
        everybody = await one.ota.packing.bundle(campaign.id)
        assert set(everybody.proofs) == {name(number) for number in range(3)}
        await one.ota.campaigns.cancel(campaign.id, name(0), ANN)
        await one.processes[0].registry.set_taking_part(name(1), False, SYSTEM)
        rest = await one.ota.packing.bundle(campaign.id)
        assert rest.proofs == {name(2): everybody.proofs[name(2)]}
        assert opened(rest).order == opened(everybody).order


async def test_crews_get_no_bundle_of_a_campaign_while_it_is_paused(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.running(path=How.LOCAL)
        await one.ota.campaigns.pause(campaign.id, "wait", ANN)
        with pytest.raises(NoBundleError):
            await one.ota.campaigns.contents(campaign.id)
        await one.ota.campaigns.resume(campaign.id, "go on", ANN)
        assert (await one.ota.campaigns.contents(campaign.id)).names == (name(0), name(1))


async def test_crews_get_no_bundle_of_a_release_that_was_withdrawn(tmp_path):
    async with world(tmp_path, devices=2) as one:
        campaign = await one.running(path=How.LOCAL)
        await one.ota.releases.withdraw(one.release, OTTO, reason="it melts")
        with pytest.raises(NoBundleError):
            await one.ota.campaigns.contents(campaign.id)
