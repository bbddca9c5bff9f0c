"""Enrolments with real shadows, registry and consents: made, answered, failed, paused, left and ended."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.port import StoreUnavailableError
from infra.machines import IllegalTransitionError
from programs.advance import (
    ACTIVATED_MS_MAX,
    COUNTED_MS_MAX,
    ENDING_MS_MAX,
    PENDING_MS_MAX,
    READY_MS_MAX,
    RECHECK_MS,
)
from programs.errors import EnrolmentNotFoundError, IneligibleError, InvalidEntryError, ProgramNotFoundError
from programs.models import Capacity, Program, ProgramType, Shape, ShapeKind
from registry.errors import DeviceNotFoundError
from registry.models import Location
from registry.states import DeviceTrigger
from shadow.document import ShadowId
from shadow.errors import UnavailableError
from tests.covers import covers
from tests.faulty_store import EVERYTHING, Crash
from tests.programs_rig import ACCOUNT, ANNA, HALL, HOME, RITA, TOOL, open_rig, rig
from tests.shadow_rig import running

T7 = {
    "schema": "tou/1",
    "rev": 1,
    "currency": "EUR",
    "unit": "KWH",
    "tz": "Europe/Madrid",
    "periods": [["1-5", 54_000, 75_600, "0.31", "peak"]],
    "otherwise": "0.12",
}
OTHER = "th-0001-attic"


@pytest.fixture
async def here():
    async with rig() as made:
        yield made


async def _nothing():
    """Let a commit go on."""


def _die(here):
    async def die():
        here.store.crash = Crash.BEFORE_COMMIT

    return die


# Making


@covers("3.2/12", "O3")
async def test_an_enrolment_is_told_to_its_device_with_tariff_and_parameters(here):
    made = await here.enrol("cpp-27", params={"maxOffset": 20})
    assert (made.id, made.state, made.rev, made.period) == (f"enr-{HALL}-cpp-27", "PROVISIONING", 1, 1)
    desired, reported = await here.sections()
    assert desired == {
        "enrolments": {
            "cpp-27": {
                "rev": 1,
                "state": "on",
                "from": 1_790_000_000,
                "tariff": "t7",
                "params": {"maxOffset": 20},
            }
        },
        "tariffs": {"t7": T7},
    }
    assert reported == {}
    assert await here.taking_part()
    assert await here.audited("enrolment") == [("rita", "enrolment.request", f"enrolment/{made.id}")]


@covers("3.2/13")
async def test_two_answers_make_it_ready_and_leave_no_delta(here):
    made = await here.enrol("cpp-27")
    await here.obey()
    await here.ack(HALL, "cpp-27", activated=1)
    assert [one.state for one in await here.enrolments.reconcile(HALL)] == ["ACTIVATED"]
    here.clock.advance(5)
    await here.ack(HALL, "cpp-27", ready=1)
    (ready,) = await here.enrolments.reconcile(HALL)
    assert (ready.state, ready.ready_at_ms) == ("READY", here.clock.now_ms())
    assert await here.delta() == {}
    assert [(one.before, one.after, one.actor) for one in ready.transitions] == [
        ("", "PROVISIONING", "rita"),
        ("PROVISIONING", "ACTIVATED", HALL),
        ("ACTIVATED", "READY", HALL),
    ]
    assert ready.id == made.id


async def test_a_device_that_says_both_at_once_is_ready_at_once(here):
    await here.enrol("cpp-27")
    await here.ack(HALL, "cpp-27", ready=1)
    (one,) = await here.enrolments.reconcile(HALL)
    assert [step.after for step in one.transitions] == ["PROVISIONING", "ACTIVATED", "READY"]


async def test_enrolling_again_changes_nothing(here):
    first = await here.enrol("cpp-27")
    version = (await here.shadows.view(ShadowId(HALL, "program"))).version
    again = await here.enrol("cpp-27")
    assert (again.rev, again.period, again.since_ms) == (first.rev, first.period, first.since_ms)
    assert (await here.shadows.view(ShadowId(HALL, "program"))).version == version
    assert len(await here.audited("enrolment")) == 1


async def test_what_is_asked_for_twice_at_once_is_made_once_and_refused_to_nobody(here, monkeypatch):
    appraise = here.enrolments.appraisal.facts

    async def overtaken(*asked, **more):
        monkeypatch.undo()
        await here.enrol("cpp-27")  # another look at the same session is faster
        return await appraise(*asked, **more)

    await here.say_yes("cpp-27")
    monkeypatch.setattr(here.enrolments.appraisal, "facts", overtaken)
    late = await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)
    assert (late.state, late.period, late.rev) == ("PROVISIONING", 1, 1)
    assert len(await here.audited("enrolment")) == 1


@covers("O3")
@pytest.mark.parametrize("lifecycle", ["DISCOVERED", "AUTHENTICATED", "DEREGISTERED"])
async def test_there_is_no_enrolment_of_a_device_that_is_not_registered(here, lifecycle):
    for trigger in {
        "DISCOVERED": ["deregister", "seen"],
        "AUTHENTICATED": ["deregister", "seen", "proved"],
        "DEREGISTERED": ["deregister"],
    }[lifecycle]:
        await here.devices.apply(HALL, DeviceTrigger(trigger), TOOL)
    assert (await here.devices.device(HALL)).lifecycle == lifecycle
    await here.say_yes("cpp-27")
    with pytest.raises(IneligibleError) as refused:
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)
    assert "NOT_REGISTERED" in refused.value.reasons
    assert await here.enrolments.of_device(HALL) == ()
    assert await here.sections() == ({}, {})


@covers("S1.4f")
async def test_a_pair_that_does_not_fit_is_refused_with_every_reason_and_nothing_is_made(here):
    await here.enrol("tou-res")
    with pytest.raises(IneligibleError) as refused:
        await here.enrolments.enrol(HALL, "dlc-ac", ACCOUNT, HOME, RITA)
    assert refused.value.reasons == ("CAPABILITY:load.duty|load.percent", "NO_CONSENT")
    with pytest.raises(IneligibleError) as refused:
        await here.enrol("rtp")
    assert refused.value.reasons == ("EXCLUSIVE_WITH:tou-res",)
    assert await here.states() == {"tou-res": "PROVISIONING"}


async def test_what_is_not_there_or_not_theirs_is_refused(here):
    await here.say_yes("cpp-27")
    with pytest.raises(ProgramNotFoundError):
        await here.enrolments.enrol(HALL, "none", ACCOUNT, HOME, RITA)
    with pytest.raises(DeviceNotFoundError):
        await here.enrolments.enrol("nobody", "cpp-27", ACCOUNT, HOME, RITA)
    with pytest.raises(InvalidEntryError):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA, params={"maxOffset": 99})
    with pytest.raises(IneligibleError, match="NOT_REGISTERED:here"):
        await here.enrolments.enrol(HALL, "cpp-27", "a-2", HOME, RITA)
    with pytest.raises(IneligibleError, match="NOT_REGISTERED:here"):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, "pr-0002", RITA)
    with pytest.raises(EnrolmentNotFoundError):
        await here.enrolments.leave("enr-none", ANNA)
    assert await here.enrolments.of_device(HALL) == ()


@covers("S1.4b", "3.2/11")
async def test_options_tell_for_each_program_on_offer_what_keeps_the_device_out(here):
    told = {id: [str(one) for one in why] for id, why in (await here.enrolments.options(HALL)).items()}
    assert told["cpp-27"] == ["NO_CONSENT"]
    assert told["dlc-ac"] == ["CAPABILITY:load.duty|load.percent", "NO_CONSENT"]
    await here.enrol("tou-res")
    told = {id: [str(one) for one in why] for id, why in (await here.enrolments.options(HALL)).items()}
    assert told["tou-res"] == ["ALREADY_ENROLLED"]
    assert told["rtp"] == ["EXCLUSIVE_WITH:tou-res", "NO_CONSENT"]


@covers("3.2/11")
async def test_programs_chosen_together_are_weighed_together(here):
    device = await here.devices.device(HALL)
    told = await here.enrolments.appraisal.weigh(device, {"cpp-27": {}, "tou-res": {}, "info-display": {}})
    assert {id: [str(one) for one in why] for id, why in told.items()} == {
        "cpp-27": ["EXCLUSIVE_WITH:tou-res", "NO_CONSENT"],
        "tou-res": ["EXCLUSIVE_WITH:cpp-27", "NO_CONSENT"],
        "info-display": ["NO_CONSENT"],
    }


async def test_of_many_who_enrol_a_device_in_exclusive_programs_at_once_one_wins(here):
    for program in ("tou-res", "rtp", "cpp-27"):
        await here.say_yes(program)
    other = open_rig(here.store, here.clock)
    async with running(other.shadows):
        tries = [
            one.enrolments.enrol(HALL, program, ACCOUNT, HOME, RITA)
            for one in (here, other)
            for program in ("tou-res", "rtp", "cpp-27")
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
    made = {one.program for one in results if not isinstance(one, BaseException)}
    assert all(isinstance(one, IneligibleError) for one in results if isinstance(one, BaseException)), results
    assert len(made) == 1
    assert (await here.states()).keys() == made
    assert (await here.sections())[0]["enrolments"].keys() == made


async def test_who_enrols_while_somebody_else_does_is_told_what_excludes_it(here):
    """Both have looked, and seen nothing; the one who writes second looks again."""
    for program in ("tou-res", "rtp"):
        await here.say_yes(program)
    other = open_rig(here.store, here.clock)
    async with running(other.shadows):
        here.store.before_commit = [
            lambda: other.enrolments.enrol(HALL, "rtp", ACCOUNT, HOME, RITA),
        ]
        with pytest.raises(IneligibleError, match="EXCLUSIVE_WITH:rtp"):
            await here.enrolments.enrol(HALL, "tou-res", ACCOUNT, HOME, RITA)
    assert await here.states() == {"rtp": "PROVISIONING"}


async def test_what_somebody_died_over_holds_nobody_up_for_long(here):
    for program in ("tou-res", "rtp"):
        await here.say_yes(program)
    here.store.before_commit = [_nothing, _die(here)]
    with pytest.raises(StoreUnavailableError):
        await here.enrolments.enrol(HALL, "tou-res", ACCOUNT, HOME, RITA)
    with pytest.raises(IneligibleError, match="EXCLUSIVE_WITH:tou-res"):
        await here.enrolments.enrol(HALL, "rtp", ACCOUNT, HOME, RITA)
    here.clock.advance(60)
    assert (await here.enrolments.enrol(HALL, "rtp", ACCOUNT, HOME, RITA)).state == "PROVISIONING"


async def test_who_left_a_program_is_not_kept_out_of_the_one_that_excluded_it(here):
    tou = await here.ready("tou-res")
    await here.enrolments.leave(tou.id, ANNA)
    rtp = await here.enrol("rtp")
    assert rtp.state == "PROVISIONING"
    desired, _ = await here.sections()
    assert {id: one["state"] for id, one in desired["enrolments"].items()} == {"tou-res": "off", "rtp": "on"}


async def test_a_program_that_is_full_takes_nobody_and_one_place_that_is_free_takes_one(here):
    small = Program(
        id="small", name="Small", type=ProgramType.DLC, capacity=Capacity(devices=1, per_feeder=1)
    )
    await here.catalogue.put(small, TOOL)
    await here.catalogue.publish("small", TOOL)
    await here.registry.describe_premises(HOME, Location("N3", "F12", ""), TOOL)
    await here.settle_in(OTHER)
    first = await here.enrol("small")
    assert first.feeder == "F12"
    await here.say_yes("small", OTHER)
    with pytest.raises(IneligibleError) as refused:
        await here.enrolments.enrol(OTHER, "small", ACCOUNT, HOME, RITA)
    assert refused.value.reasons == ("PROGRAM_FULL", "FEEDER_FULL")
    await here.enrolments.leave(first.id, ANNA)
    assert (await here.enrol("small", OTHER)).state == "PROVISIONING"


async def test_who_takes_part_is_counted_without_reading_enrolments(here):
    first = await here.enrol("cpp-27")
    others = [replace(first, id=f"{first.id}-{n}") for n in range(2_499)]
    await here.enrolments.records.put([(one, 0, ()) for one in others])
    here.store.refuses, count = ("get", "find"), here.enrolments.records.count
    assert await count("program", "cpp-27", 1_000_000) == 2_500
    assert [await count("program", "cpp-27", most) for most in (0, 1, 2_500)] == [0, 1, 2_500]
    assert await count("program", "cpp-28", 10) == 0


async def test_what_would_not_fit_the_shadow_is_refused_before_it_is_sent(here):
    bulky = {"type": "object", "properties": {"text": {"type": "string"}}}
    await here.catalogue.put_shape(Shape("bulky/1", ShapeKind.TARIFF, bulky), TOOL)
    await here.catalogue.put_tariff("t-bulky", "bulky/1", {"text": "x" * 6_500}, TOOL)
    program = Program(id="bulky", name="Bulky", type=ProgramType.INFO, tariff_ref="t-bulky")
    await here.catalogue.put(program, TOOL)
    await here.catalogue.publish("bulky", TOOL)
    with pytest.raises(IneligibleError) as refused:
        await here.enrol("bulky")
    assert refused.value.reasons == ("SHADOW_BUDGET",)


# Consent


@covers("3.2/9", "S1.4f")
async def test_without_consent_nothing_is_made_unless_it_is_to_wait_for_it(here):
    with pytest.raises(IneligibleError, match="NO_CONSENT"):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)
    waiting = await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA, waiting_for_consent=True)
    assert waiting.state == "PENDING_CONSENT"
    assert await here.sections() == ({}, {}), "the device is told nothing"
    assert not await here.taking_part()
    consent = await here.say_yes("cpp-27")
    await here.worker.round()
    (one,) = await here.enrolments.of_device(HALL)
    assert (one.state, one.consent) == ("PROVISIONING", consent.id)
    assert await here.taking_part()


async def test_a_consent_to_another_text_is_none(here):
    await here.say_yes("cpp-27")
    program = await here.catalogue.program("cpp-27")
    await here.catalogue.put(replace(program, consent_text_version="2"), TOOL)
    with pytest.raises(IneligibleError, match="NO_CONSENT"):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)


async def test_a_consent_of_somebody_else_is_none(here):
    await here.say_yes("cpp-27", account="a-2")
    with pytest.raises(IneligibleError, match="NO_CONSENT"):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)


async def test_what_waits_for_consent_lapses_when_it_no_longer_fits_or_after_thirty_days(here):
    await here.enrolments.enrol(HALL, "rtp", ACCOUNT, HOME, RITA, waiting_for_consent=True)
    await here.enrolments.enrol(
        HALL, "cpp-27", ACCOUNT, HOME, RITA, waiting_for_consent=True
    ) if False else None
    here.clock.advance(PENDING_MS_MAX / 1_000 - 1)
    await here.worker.round()
    assert await here.states() == {"rtp": "PENDING_CONSENT"}
    here.clock.advance(1)
    await here.worker.round()
    assert await here.states() == {"rtp": "ENDED"}
    await here.enrolments.enrol(HALL, "info-display", ACCOUNT, HOME, RITA, waiting_for_consent=True)
    model = await here.models.model("acme-pct-2")
    await here.models.put(replace(model, capabilities=frozenset({"price"})), TOOL)
    await here.say_yes("info-display")
    await here.worker.round()
    assert (await here.states())["info-display"] == "ENDED"
    assert await here.sections() == ({}, {})


@covers("3.2/9")
async def test_withdrawing_consent_ends_the_enrolment(here):
    await here.ready("cpp-27")
    await here.consents.withdraw(HALL, "cpp-27", ANNA)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "ENDING"}
    assert (await here.delta()) == {"enrolments": {"cpp-27": {"state": "off"}}}
    assert not await here.taking_part()


async def test_consent_to_firmware_makes_a_device_visible_and_its_end_hides_it(here):
    await here.say_yes("ota")
    await here.worker.round()
    assert await here.taking_part()
    assert await here.enrolments.of_device(HALL) == ()
    await here.consents.withdraw(HALL, "ota", ANNA)
    await here.worker.round()
    assert not await here.taking_part()
    assert await here.consents.unsettled() == []


# Failing


@covers("3.2/13")
async def test_a_failed_answer_fails_it_and_retry_tells_the_device_once_more(here):
    made = await here.enrol("cpp-27")
    await here.obey()
    await here.ack(HALL, "cpp-27", activated=1)
    await here.ack(HALL, "cpp-27", "STORAGE", failed=1)
    (failed,) = await here.enrolments.reconcile(HALL)
    assert (failed.state, failed.failure) == ("PROVISION_FAILED", "STORAGE")
    again = await here.enrolments.retry(made.id, RITA)
    assert (again.state, again.rev, again.failure) == ("PROVISIONING", 2, "")
    assert (await here.delta())["enrolments"] == {"cpp-27": {"rev": 2}}
    assert (await here.enrolments.retry(made.id, RITA)).rev == 2, "one that is under way is left alone"
    await here.ack(HALL, "cpp-27", activated=2, ready=2)
    (ready,) = await here.enrolments.reconcile(HALL)
    assert ready.state == "READY", "what it said of an earlier rev counts for nothing"


@pytest.mark.parametrize(
    "ack",
    [
        {"activated": {"rev": 0}},
        {"activated": {"rev": 2}, "ready": {"rev": 2}},
        {"activated": {"rev": True}},
        {"activated": {"rev": "1"}},
        {"activated": {}},
        {"activated": 1},
        {"ready": [1]},
        {"failed": {"rev": 0, "code": "STORAGE"}},
        [],
        "ready",
    ],
    ids=str,
)
async def test_what_is_no_answer_to_this_rev_moves_nothing(here, ack):
    await here.enrol("cpp-27")
    await here.report({"ack": {"cpp-27": ack}})
    assert [one.state for one in await here.enrolments.reconcile(HALL)] == ["PROVISIONING"]


async def test_a_code_that_no_device_may_answer_is_internal(here):
    await here.enrol("cpp-27")
    await here.ack(HALL, "cpp-27", "<script>", failed=1)
    (one,) = await here.enrolments.reconcile(HALL)
    assert one.failure == "INTERNAL"


@covers("3.2/13")
@pytest.mark.parametrize(("says", "limit_ms"), [((), ACTIVATED_MS_MAX), (("activated",), READY_MS_MAX)])
async def test_a_device_that_can_be_reached_and_does_not_answer_in_time_has_failed(here, says, limit_ms):
    await here.enrol("cpp-27")
    await here.worker.round()
    for kind in says:
        await here.ack(HALL, "cpp-27", **{kind: 1})
    for _ in range(limit_ms // 10_000 - 1):
        here.clock.advance(10)
        await here.worker.round()
    assert (await here.enrolments.of_device(HALL))[0].state == ("ACTIVATED" if says else "PROVISIONING")
    here.clock.advance(10)
    await here.worker.round()
    here.clock.advance(1)
    await here.worker.round()
    (one,) = await here.enrolments.of_device(HALL)
    assert (one.state, one.failure) == ("PROVISION_FAILED", "LIMIT")


@covers("3.2/12", "3.2/13")
async def test_a_device_that_is_away_is_late_and_not_failed(here):
    here.presence.away.add(HALL)
    await here.enrol("cpp-27")
    for _ in range(200):
        here.clock.advance(600)
        await here.worker.round()
    assert await here.states() == {"cpp-27": "PROVISIONING"}
    here.presence.away.clear()
    await here.obey()
    await here.ack(HALL, "cpp-27", activated=1, ready=1)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "READY"}


async def test_while_nobody_looks_no_device_fails(here):
    """The service was away for a day: that is not the device's fault."""
    await here.enrol("cpp-27")
    await here.worker.round()
    here.clock.advance(86_400)
    again = open_rig(here.store, here.clock, presence=here.presence)
    async with running(again.shadows):
        await again.worker.round()
        assert await again.states() == {"cpp-27": "PROVISIONING"}
        assert COUNTED_MS_MAX < ACTIVATED_MS_MAX


async def test_an_answer_after_the_limit_still_counts(here):
    await here.enrol("cpp-27")
    for _ in range(5):
        here.clock.advance(60)
        await here.worker.round()
    assert await here.states() == {"cpp-27": "PROVISION_FAILED"}
    await here.ack(HALL, "cpp-27", activated=1)
    (one,) = await here.enrolments.reconcile(HALL)
    assert (one.state, one.failure) == ("ACTIVATED", "")
    await here.ack(HALL, "cpp-27", ready=1)
    (one,) = await here.enrolments.reconcile(HALL)
    assert one.state == "READY"


async def test_what_does_not_fit_the_shadow_after_all_fails_and_is_taken_back(here):
    first = await here.ready("info-display")
    await here.report({"notes": "x" * 15_900})
    before = await here.sections()
    await here.say_yes("tou-res")
    here.enrolments.appraisal._shadow_bytes_max = 10**6
    made = await here.enrolments.enrol(HALL, "tou-res", ACCOUNT, HOME, RITA)
    assert (made.state, made.failure) == ("PROVISION_FAILED", "SHADOW_BUDGET")
    assert await here.sections() == before
    await here.report({"notes": None})
    assert (await here.enrolments.retry(made.id, RITA)).state == "PROVISIONING"
    assert (await here.sections())[0]["enrolments"].keys() == {"info-display", "tou-res"}
    assert (await here.enrolments.enrolment(first.id)).state == "READY"


# Pausing


async def test_a_paused_enrolment_waits_and_goes_on(here):
    made = await here.ready("cpp-27")
    paused = await here.enrolments.pause(made.id, ANNA)
    assert paused.state == "SUSPENDED"
    assert await here.taking_part()
    assert (await here.enrolments.lift(made.id, ANNA)).state == "READY"
    assert await here.delta() == {}


async def test_a_suspended_device_pauses_its_enrolments_until_both_holds_are_gone(here):
    made = await here.ready("cpp-27")
    await here.enrolments.pause(made.id, ANNA)
    await here.devices.apply(HALL, DeviceTrigger.SUSPEND, TOOL)
    await here.enrolments.lift(made.id, ANNA)
    assert await here.states() == {"cpp-27": "SUSPENDED"}
    await here.devices.apply(HALL, DeviceTrigger.LIFT, TOOL)
    await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "READY"}


async def test_a_suspension_that_nobody_told_of_is_noticed_later(here):
    await here.ready("cpp-27")
    await here.worker.round()
    await here.devices.apply(HALL, DeviceTrigger.SUSPEND, TOOL)
    here.clock.advance(RECHECK_MS / 1_000)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "SUSPENDED"}


# Ending


@covers("O3")
async def test_leaving_tells_the_device_keeps_the_registration_and_leaves_nothing_behind(here):
    made = await here.ready("cpp-27")
    left = await here.enrolments.leave(made.id, ANNA)
    assert left.state == "ENDING"
    assert await here.delta() == {"enrolments": {"cpp-27": {"state": "off"}}}
    assert not await here.taking_part()
    await here.obey()
    (ended,) = await here.enrolments.reconcile(HALL)
    assert ended.state == "ENDED"
    assert await here.sections() == ({}, {})
    assert (await here.devices.device(HALL)).lifecycle == "REGISTERED"
    assert (await here.consents.standing(HALL)).consents == {}, "who comes back is asked again"
    here.clock.advance(6)
    await here.worker.round()
    assert (await here.enrolments.enrolment(made.id)).due_ms is None
    assert (await here.enrolments.leave(made.id, ANNA)).state == "ENDED"


async def test_what_ends_leaves_the_others_alone(here):
    cpp = await here.ready("cpp-27")
    await here.ready("info-display")
    await here.report({"events": {"e-1": {"code": 1}}})
    await here.enrolments.leave(cpp.id, ANNA)
    await here.obey()
    await here.enrolments.reconcile(HALL)
    desired, reported = await here.sections()
    assert desired["enrolments"].keys() == reported["enrolments"].keys() == {"info-display"}
    assert reported["ack"].keys() == {"info-display"}
    assert "tariffs" not in desired
    assert "tariffs" not in reported
    assert reported["events"] == {"e-1": {"code": 1}}
    assert await here.delta() == {}
    assert await here.taking_part()


async def test_an_off_of_an_earlier_rev_ends_nothing(here):
    made = await here.ready("cpp-27")
    await here.report({"enrolments": {"cpp-27": {"state": "off", "rev": 0}}})
    await here.enrolments.leave(made.id, ANNA)
    assert await here.states() == {"cpp-27": "ENDING"}


async def test_leaving_with_a_date_ends_it_then(here):
    made = await here.ready("cpp-27")
    later_ms = here.clock.now_ms() + 86_400_000
    assert (await here.enrolments.leave(made.id, ANNA, at_ms=later_ms)).state == "READY"
    here.clock.advance(86_399)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "READY"}
    here.clock.advance(1)
    await here.worker.round()
    (one,) = await here.enrolments.of_device(HALL)
    assert (one.state, one.transitions[-1].actor) == ("ENDING", "anna")


async def test_a_device_that_never_says_so_is_let_go_after_thirty_days(here):
    made = await here.ready("cpp-27")
    here.presence.away.add(HALL)
    await here.enrolments.leave(made.id, ANNA)
    here.clock.advance(ENDING_MS_MAX / 1_000)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "ENDED"}
    assert await here.sections() == ({}, {})


@covers("O3")
async def test_deregistering_ends_every_enrolment_first(here):
    for program in ("cpp-27", "info-display"):
        await here.ready(program)
    ended = await here.enrolments.end_all(HALL, TOOL, reason="move-out")
    assert {one.state for one in ended} == {"ENDING"}
    assert {one.transitions[-1].reason for one in ended} == {"move-out"}
    await here.devices.apply(HALL, DeviceTrigger.DEREGISTER, TOOL)
    await here.obey()
    await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "ENDED", "info-display": "ENDED"}


@covers("O3")
async def test_an_enrolment_that_slipped_in_while_its_device_was_deregistered_ends_by_itself(here):
    await here.ready("cpp-27")
    await here.devices.apply(HALL, DeviceTrigger.DEREGISTER, TOOL)
    await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "ENDING"}


async def test_an_enrolment_ends_when_its_device_has_come_to_another_account(here):
    await here.ready("cpp-27")
    for trigger in (DeviceTrigger.DEREGISTER, DeviceTrigger.SEEN, DeviceTrigger.PROVED):
        await here.devices.apply(HALL, trigger, TOOL)
    await here.devices.apply(
        HALL, DeviceTrigger.REGISTER, TOOL, change=lambda one: replace(one, account="a-2", premises=HOME)
    )
    await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "ENDING"}


async def test_a_thing_that_was_removed_is_told_nothing(here):
    await here.ready("cpp-27")
    await here.registry.remove(HALL, TOOL)
    await here.shadows.forget(HALL)
    await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "ENDED"}
    assert await here.sections() == ({}, {}), "no shadow without a thing"


async def test_a_program_that_closes_ends_all_its_enrolments(here):
    others = [f"th-{number}" for number in range(5)]
    await here.settle_in(*others)
    for device in (HALL, *others):
        await here.ready("tou-res", device)
    await here.catalogue.close("tou-res", TOOL)
    while await here.worker.round():
        pass
    for device in (HALL, *others):
        assert await here.states(device) == {"tou-res": "ENDING"}
    assert await here.catalogue.to_spread() == ()


async def test_a_changed_tariff_is_one_write_a_device_and_moves_no_enrolment(here):
    await here.ready("cpp-27")
    before = (await here.shadows.view(ShadowId(HALL, "program"))).version
    body = {name: value for name, value in T7.items() if name not in ("schema", "rev", "tz")}
    await here.catalogue.put_tariff("t7", "tou/1", body | {"tz": "Europe/Lisbon", "otherwise": "0.13"}, TOOL)
    while await here.worker.round():
        pass
    assert (await here.delta()) == {"tariffs": {"t7": {"rev": 2, "tz": "Europe/Lisbon", "otherwise": "0.13"}}}
    assert (await here.shadows.view(ShadowId(HALL, "program"))).version == before + 1
    assert await here.states() == {"cpp-27": "READY"}
    for _ in range(3):
        await here.worker.round()
        await here.enrolments.reconcile(HALL)
    assert (await here.shadows.view(ShadowId(HALL, "program"))).version == before + 1


async def test_a_field_that_left_the_tariff_leaves_the_shadow(here):
    await here.catalogue.put_shape(Shape("loose/1", ShapeKind.TARIFF, {"type": "object"}), TOOL)
    await here.catalogue.put_tariff("t-loose", "loose/1", {"a": {"b": 1, "c": 2}}, TOOL)
    await here.catalogue.put(
        Program(id="loose", name="Loose", type=ProgramType.INFO, tariff_ref="t-loose"), TOOL
    )
    await here.catalogue.publish("loose", TOOL)
    await here.ready("loose")
    await here.catalogue.put_tariff("t-loose", "loose/1", {"a": {"c": 2}}, TOOL)
    await here.worker.round()
    assert (await here.sections())[0]["tariffs"]["t-loose"] == {"schema": "loose/1", "rev": 2, "a": {"c": 2}}


async def test_the_next_period_has_the_next_rev_so_that_old_answers_count_for_nothing(here):
    made = await here.ready("cpp-27")
    await here.enrolments.leave(made.id, ANNA)
    await here.obey()
    await here.enrolments.reconcile(HALL)
    here.clock.advance(10)
    again = await here.enrol("cpp-27")
    assert (again.period, again.rev, again.state) == (2, 2, "PROVISIONING")
    await here.ack(HALL, "cpp-27", activated=1, ready=1)
    assert [one.state for one in await here.enrolments.reconcile(HALL)] == ["PROVISIONING"]


async def test_who_left_and_comes_back_before_the_device_has_heard_of_it_goes_on(here):
    made = await here.ready("cpp-27")
    await here.enrolments.leave(made.id, ANNA)
    here.clock.advance(10)
    again = await here.enrol("cpp-27")
    assert (again.period, again.rev, again.state) == (2, 2, "PROVISIONING")
    assert (await here.sections())[0]["enrolments"]["cpp-27"]["state"] == "on"
    await here.enrolments.leave(made.id, ANNA)
    with pytest.raises(IllegalTransitionError):
        await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA, waiting_for_consent=True)


async def test_who_leaves_is_kept_out_for_as_long_as_the_program_says(here):
    switch = "ls-0001-heater"
    await here.settle_in(switch, model="acme-lcs-1")
    made = await here.ready("dlc-ac", switch)
    await here.enrolments.leave(made.id, ANNA)
    await here.obey(switch)
    await here.enrolments.reconcile(switch)
    here.clock.advance(86_400)
    with pytest.raises(IneligibleError) as refused:
        await here.enrol("dlc-ac", switch)
    assert refused.value.reasons == ("LOCKED_OUT_UNTIL:2026-10-21",)
    here.clock.advance(29 * 86_400)
    assert (await here.enrol("dlc-ac", switch)).period == 2


# Failures of what is below


async def test_what_cannot_be_done_now_is_done_when_the_store_is_back(here):
    await here.say_yes("cpp-27")
    made = await here.enrolments.enrol(HALL, "cpp-27", ACCOUNT, HOME, RITA)
    here.store.refuses = EVERYTHING
    with pytest.raises(StoreUnavailableError):
        await here.worker.round()
    here.store.refuses = ()
    await here.worker.round()
    assert (await here.enrolments.enrolment(made.id)).state == "PROVISIONING"


async def test_what_was_decided_and_not_done_when_the_process_died_is_done_by_another_one(here):
    """The enrolment has ended in the store; its entries are still in the shadow, and nobody says a word."""
    made = await here.ready("cpp-27")
    await here.enrolments.leave(made.id, ANNA)
    await here.obey()
    here.store.before_commit = [_nothing, _die(here)]
    with pytest.raises(UnavailableError):
        await here.enrolments.reconcile(HALL)
    assert await here.states() == {"cpp-27": "ENDED"}
    assert "enrolments" in (await here.sections())[0]
    other = open_rig(here.store, here.clock)
    async with running(other.shadows):
        here.clock.advance(5)
        await other.worker.round()
        assert await other.sections() == ({}, {})


async def test_a_device_that_cannot_be_looked_at_holds_up_none(here, monkeypatch):
    await here.settle_in(OTHER)
    for device in (HALL, OTHER):
        await here.enrol("cpp-27", device)
    look = here.enrolments._look

    async def broken(device, *args, **options):
        if device == HALL:
            raise ValueError("unreadable")
        return await look(device, *args, **options)

    monkeypatch.setattr(here.enrolments, "_look", broken)
    await here.ack(OTHER, "cpp-27", activated=1, ready=1)
    await here.ack(HALL, "cpp-27", activated=1, ready=1)
    await here.worker.round()
    assert await here.states(OTHER) == {"cpp-27": "READY"}
    monkeypatch.undo()
    await here.worker.round()
    assert await here.states() == {"cpp-27": "PROVISIONING"}, "it is left alone for a while"
    here.clock.advance(61)
    await here.worker.round()
    assert await here.states() == {"cpp-27": "READY"}


async def test_the_worker_hears_of_an_answer_and_looks_at_once(here):
    worker = asyncio.create_task(here.worker.run())
    await here.enrol("cpp-27")
    await here.obey()
    await here.ack(HALL, "cpp-27", activated=1, ready=1)
    for _ in range(200):
        if await here.states() == {"cpp-27": "READY"}:
            break
        await asyncio.sleep(0.01)
    assert await here.states() == {"cpp-27": "READY"}
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


async def test_reconciling_a_device_that_takes_no_part_writes_nothing(here):
    commits = len(here.store.commits)
    assert await here.enrolments.reconcile(HALL) == ()
    assert await here.enrolments.reconcile("nobody") == ()
    assert len(here.store.commits) == commits


async def test_the_lists_hold_what_has_not_ended(here):
    made = await here.ready("cpp-27")
    for page in (
        await here.enrolments.of_account(ACCOUNT, 10),
        await here.enrolments.of_premises(HOME, 10),
    ):
        assert [one.id for one in page.enrolments] == [made.id]
    assert (await here.enrolments.of_account("a-2", 10)).enrolments == ()
    await here.enrolments.leave(made.id, ANNA)
    await here.obey()
    await here.enrolments.reconcile(HALL)
    assert (await here.enrolments.of_account(ACCOUNT, 10)).enrolments == ()
    assert [one.id for one in await here.enrolments.of_device(HALL)] == [made.id]
