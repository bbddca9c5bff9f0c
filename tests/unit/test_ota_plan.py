"""What is planned for a campaign: as text, by the specification's vectors, and as laws."""

import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import campaign as acts
from ota import pace
from ota.calendar import Window, is_open
from ota.campaign import Criterion, Failure, Thresholds, Wave, wave_ends
from ota.executions import moved
from ota.models import ATTEMPTS_MAX
from ota.plan import Around, Seen, gate_opens_ms, plan, zones_ms
from ota.states import (
    ACTIVE,
    AFTER_GO,
    BAD,
    EXECUTION,
    FINAL,
    OFFERED,
    WAITING,
    CampaignState,
    ExecutionState,
    ExecutionTrigger,
)
from ota.steps import acted, carried_out
from tests.ota_campaigns import START_MS, campaign, targets, text, thing

X, S = ExecutionTrigger, ExecutionState
GOLDEN = Path(__file__).parent.parent / "vectors" / "ota" / "plans"
WELL = Around()


class Everybody(dict[str, Seen]):
    """All devices are here, and fit."""

    def get(self, key, default=None):
        return super().get(key, SEEN)


SEEN = Seen()
HERE = Everybody()


def utc(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


def after(one, found, planned, now_ms):
    """Return a campaign and its targets once a plan is carried out."""
    places = {each.thing: place for place, each in enumerate(found)}
    found = list(found)
    for move in planned.moves:
        done = carried_out(move, found[places[move.thing]], now_ms)
        assert done is not None, f"{move} does nothing"
        found[places[move.thing]] = done
    return acted(one, planned.campaign, planned.offers, now_ms), found


def ended(found, first, state, count, at_ms=START_MS, **changes):
    """Return targets of which some have ended, by what the table allows."""
    trigger = {
        S.SUCCEEDED: X.SUCCEED,
        S.FAILED: X.FAIL,
        S.TIMED_OUT: X.TIME_OUT,
        S.ROLLED_BACK: X.ROLL_BACK,
        S.REJECTED: X.REJECT,
    }[state]
    found = list(found)
    for place in range(first, first + count):
        one = found[place]
        for step in (X.OFFER, X.START, trigger):
            one = moved(one, step, at_ms)
        found[place] = replace(one, **changes)
    return found


# As text


def golden():
    """Yield the plans that are kept as text."""
    one = campaign(30, waves=(Wave(3), Wave(percent=50), Wave(percent=100)))
    found = targets(one)
    yield "canary", START_MS, one, found, HERE, WELL
    done = ended(found, 0, S.SUCCEEDED, 3, START_MS + 60_000)
    yield "soaking", START_MS + 100_000, one, done, HERE, WELL
    yield "next_wave", START_MS + 960_000, one, done, HERE, WELL
    failed = ended(found, 0, S.FAILED, 1, reason="self_test")
    failed[1] = moved(failed[1], X.OFFER, START_MS)
    yield "canary_failed", START_MS + 1_000, one, failed, HERE, WELL
    silent = [moved(each, X.OFFER, START_MS) if each.place < 3 else each for each in found]
    yield "recalled", START_MS + 120_000, one, silent, HERE, WELL
    slow = list(found)
    for trigger in (X.OFFER, X.START):
        slow[0] = moved(slow[0], trigger, START_MS)
    at_last = replace(one, wave=2)
    yield "in_time", START_MS + 300_000, at_last, slow[:1] + done[1:3], {}, WELL
    yield "timed_out", START_MS + 300_001, at_last, slow[:1] + done[1:3], {}, WELL
    yield "withdrawn", START_MS, one, silent, HERE, Around(unfit="release_withdrawn")
    aborted = acts.abort(one, "ann stops it", "ann", START_MS)
    yield "aborted", START_MS, aborted, slow[:1] + silent[1:], HERE, WELL
    yield "completed", START_MS + 1_000_000, at_last, done[:3], HERE, WELL
    unfit = {thing(0): Seen(unfit="NOT_ENROLLED"), thing(1): Seen(busy=True), thing(2): Seen(quiet=True)}
    yield "unfit", START_MS, one, found, unfit, WELL
    later = campaign(3, CampaignState.APPROVED, start_at_ms=START_MS + 60_000)
    yield "scheduled", START_MS, later, targets(later), HERE, WELL
    night = campaign(3, windows=(Window(22 * 60, 6 * 60),), time_zone="Europe/Berlin")
    yield "outside_window", START_MS, night, targets(night), HERE, WELL


@pytest.mark.parametrize("case", [*golden()], ids=lambda case: case[0])
def test_a_plan_is_this_text(case):
    name, now_ms, one, found, devices, around = case
    assert text(plan(now_ms, one, found, devices, around)) == (GOLDEN / f"{name}.txt").read_text()


# Vectors of the specification


@pytest.mark.parametrize(
    ("over", "bad", "state"),
    [
        (19, 19, CampaignState.RUNNING),
        (20, 1, CampaignState.PAUSED),
        (199, 5, CampaignState.RUNNING),
        (200, 6, CampaignState.PAUSED),
        (200, 20, CampaignState.ABORTED),
    ],
)
def test_the_ladder_of_thresholds(over, bad, state):
    one = replace(campaign(1_000), wave=4)
    found = ended(targets(one), 0, S.FAILED, bad, reason="manifest_field")
    found = ended(found, bad, S.SUCCEEDED, over - bad)
    planned = plan(START_MS, one, found, HERE, WELL)
    assert acted(one, planned.campaign, planned.offers, START_MS).state is state


def test_what_ends_badly_while_it_is_paused_aborts_it_too():
    for bad, state in ((19, CampaignState.PAUSED), (20, CampaignState.ABORTED)):
        one = acts.pause(replace(campaign(1_000), wave=4), "a look", "ann", START_MS, automatic=False)
        found = ended(targets(one), 0, S.ROLLED_BACK, bad, reason="boot_loop")
        found = ended(found, bad, S.SUCCEEDED, 200 - bad)
        planned = plan(START_MS, one, found, HERE, WELL)
        after = acted(one, planned.campaign, 0, START_MS)
        assert after.state is state
        assert bool(planned.moves) is (state is CampaignState.ABORTED), "what was not let go on is stopped"


def test_rejections_pause_from_a_fifth_of_twenty_on():
    one = replace(campaign(1_000), wave=4)
    for rejected, actions in ((3, 0), (4, 1)):
        found = ended(targets(one), 0, S.REJECTED, rejected)
        found = ended(found, rejected, S.SUCCEEDED, 20 - rejected)
        assert len(plan(START_MS, one, found, HERE, WELL).campaign) == actions


def test_criteria_that_came_from_elsewhere_abort_too():
    extra = Thresholds(extras=(Criterion(Failure.TIMED_OUT, 50, 2),))
    one = campaign(100, thresholds=extra)
    found = ended(targets(one), 0, S.TIMED_OUT, 2)
    planned = plan(START_MS, one, found, HERE, WELL)
    assert acted(one, planned.campaign, 0, START_MS).state is CampaignState.ABORTED


def test_what_is_tried_again_counts_as_it_ended():
    one = replace(campaign(1_000), wave=4)
    found = ended(targets(one), 0, S.FAILED, 20, reason="self_test")
    found = [moved(each, X.RETRY, START_MS) if each.state is S.FAILED else each for each in found]
    planned = plan(START_MS, one, found, HERE, WELL)
    assert acted(one, planned.campaign, 0, START_MS).state is CampaignState.ABORTED


def test_a_campaign_that_people_let_go_on_is_not_stopped_by_what_they_know():
    one = campaign(100)
    found = ended(targets(one), 0, S.FAILED, 1, reason="self_test")
    stopped, found = after(one, found, plan(START_MS, one, found, HERE, WELL), START_MS)
    assert (stopped.state, stopped.stop.reason) == (CampaignState.PAUSED, "canary_bad")
    going = acts.resume(stopped, "a broken device", "bob", START_MS + 1)
    planned = plan(START_MS + 1, going, found, HERE, WELL)
    assert planned.campaign == ()
    assert planned.offers


def test_what_failed_while_a_person_had_paused_it_still_stops_it():
    one = acts.pause(campaign(100), "a look first", "ann", START_MS, automatic=False)
    found = ended(targets(one), 0, S.FAILED, 1, reason="self_test")
    going = acts.resume(one, "looked", "ann", START_MS + 1)
    stopped, _ = after(going, found, plan(START_MS + 1, going, found, HERE, WELL), START_MS + 1)
    assert (stopped.state, stopped.stop.reason) == (CampaignState.PAUSED, "canary_bad")


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        ({"reason": "self_test"}, True),
        ({"reason": "manifest_signature"}, False),
        ({"reason": "key_unknown"}, False),
        ({"reason": "preserve_failed"}, False),
        ({"attempt": 3}, False),
    ],
)
def test_what_is_tried_again(changes, tried):
    one = replace(campaign(1_000), wave=4)
    found = ended(targets(one), 0, S.FAILED, 1, **changes)
    moves = plan(START_MS, one, found, {}, WELL).moves
    assert any(move.trigger is X.RETRY for move in moves) is tried


def test_one_that_rolled_back_is_tried_again_only_if_the_campaign_says_so():
    for wish in (False, True):
        one = replace(campaign(1_000, retry_rolled_back=wish), wave=4)
        found = ended(targets(one), 0, S.ROLLED_BACK, 1, reason="boot_loop")
        assert bool(plan(START_MS, one, found, {}, WELL).moves) is wish


def test_waves_are_shares_of_all_and_the_last_one_holds_all():
    assert wave_ends(campaign(10_000).terms, 10_000) == (10, 100, 1_000, 5_000, 10_000)
    assert wave_ends(campaign(5).terms, 5) == (5, 5, 5, 5, 5)
    assert wave_ends(campaign(300).terms, 300) == (10, 10, 30, 150, 300)


@pytest.mark.parametrize(("again", "wave"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("steps", [(), (X.OFFER, X.START)])
def test_devices_that_are_tried_again_hold_up_the_next_wave_only_if_they_are_many(again, wave, steps):
    lenient = Thresholds(pause_percent=100, abort_percent=100)
    one = campaign(1_000, waves=(Wave(10), Wave(110), Wave(percent=100)), thresholds=lenient)
    one = replace(one, wave=1)
    found = ended(targets(one), 0, S.SUCCEEDED, 110 - again)
    found = ended(found, 110 - again, S.FAILED, again, reason="self_test")
    found = [moved(each, X.RETRY, START_MS) if each.state is S.FAILED else each for each in found]
    for step in steps:
        found[109] = moved(found[109], step, START_MS + 900_000)
    planned = plan(START_MS + 900_001, one, found, {}, WELL)
    assert acted(one, planned.campaign, 0, START_MS + 900_001).wave == wave


@pytest.mark.parametrize(
    ("offered", "per_min"), [(0, 50), (999, 50), (1_000, 100), (2_000, 200), (3_999, 400)]
)
def test_a_pace_grows_as_that_of_aws_rollouts(offered, per_min):
    assert pace.pace(1_000_000, pace.Ramp(), offered) == per_min * 60
    assert pace.pace(1_200, pace.Ramp(), offered) == 1_200


def test_while_we_are_not_well_nothing_is_offered_and_after_five_minutes_it_pauses():
    one, since = campaign(3), Around(unhealthy_since_ms=START_MS)
    waiting = plan(START_MS + 299_999, one, targets(one), HERE, since)
    assert (waiting.campaign, waiting.moves) == ((), ())
    planned = plan(START_MS + 300_000, one, targets(one), HERE, since)
    stopped = acted(one, planned.campaign, planned.offers, START_MS + 300_000)
    assert (stopped.state, stopped.stop and stopped.stop.reason) == (CampaignState.PAUSED, "service_health")


def test_the_next_wave_opens_once_95_percent_are_over_and_were_watched_from_then_on():
    one = campaign(1_000, waves=(Wave(100), Wave(percent=100)), deadline_s=3_600)
    begun = [moved(moved(each, X.OFFER, START_MS), X.START, START_MS) for each in targets(one)[:100]]
    found = begun + targets(one)[100:]
    early = ended(targets(one), 0, S.SUCCEEDED, 94, START_MS)[:94] + found[94:]
    assert plan(START_MS + 2_000_000, one, early, {}, WELL).campaign == (), "94 of 100 are over"
    last = ended(targets(one), 94, S.SUCCEEDED, 1, START_MS + 100_000)[94:95]
    enough = [*early[:94], *last, *found[95:]]
    soaked = START_MS + 100_000 + one.terms.soak_s * 1_000
    for now_ms, wave in ((soaked - 1, 0), (soaked, 1)):
        planned = plan(now_ms, one, enough, {}, WELL)
        assert acted(one, planned.campaign, 0, now_ms).wave == wave


def test_a_wave_that_showed_nothing_lets_nothing_follow_by_itself():
    one = campaign(20, waves=(Wave(3), Wave(percent=100)), soak_s=0)
    found = [moved(each, X.SKIP, START_MS) if each.place < 3 else each for each in targets(one)]
    planned = plan(START_MS + 1_000, one, found, HERE, WELL)
    stopped = acted(one, planned.campaign, planned.offers, START_MS + 1_000)
    assert (stopped.state, stopped.stop and stopped.stop.reason) == (CampaignState.PAUSED, "wave_not_good")
    going = acts.resume(stopped, "we know these", "bob", START_MS + 2_000)
    assert plan(START_MS + 2_000, going, found, HERE, WELL).offers


def test_what_is_offered_and_not_begun_has_its_place_in_flight():
    one = campaign(20, max_in_flight=5, waves=(Wave(percent=100),))
    found = [moved(each, X.OFFER, START_MS) if each.place < 4 else each for each in targets(one)]
    found = [moved(each, X.START, START_MS) if each.place < 3 else each for each in found]
    assert plan(START_MS + 1_000, one, found, HERE, WELL).offers == 1


def test_one_that_has_the_image_after_all_is_not_tried_again():
    one = replace(campaign(1_000), wave=4)
    for late in (False, True):
        found = ended(targets(one), 0, S.TIMED_OUT, 1, late=late)
        assert bool(plan(START_MS, one, found, {}, WELL).moves) is not late


@pytest.mark.parametrize("stop", ["pause", "abort"])
def test_clocks_run_also_while_a_campaign_stands_still(stop):
    one = campaign(3)
    found = [
        moved(moved(moved(each, X.OFFER, START_MS), X.START, START_MS), X.GO, START_MS)
        for each in targets(one)
    ]
    if stop == "pause":
        one = acts.pause(one, "a look", "ann", START_MS, automatic=False)
    else:
        one = acts.abort(one, "enough", "ann", START_MS)
    assert plan(START_MS + 300_000, one, found, HERE, WELL).moves == ()
    moves = plan(START_MS + 300_001, one, found, HERE, WELL).moves
    assert [move.trigger for move in moves] == [X.TIME_OUT] * 3


def test_devices_that_load_ahead_activate_in_hours_of_their_own():
    night, noon = Window(22 * 60, 6 * 60), Window(12 * 60, 13 * 60)
    one = campaign(1, windows=(noon,), activation=(night,), prestage=True)
    assert gate_opens_ms(START_MS, one.terms, "") == utc("2026-09-21T22:00")
    both = campaign(1, windows=(noon,), prestage=True)
    assert gate_opens_ms(utc("2026-09-21T15:00"), both.terms, "") == utc("2026-09-21T15:00")


# Laws


@st.composite
def worlds(draw):
    chance = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 60))
    one = campaign(
        count,
        waves=draw(st.sampled_from([(Wave(3), Wave(percent=50), Wave(percent=100)), (Wave(percent=100),)])),
        per_hour=draw(st.sampled_from([60, 720, 3_600, 100_000])),
        max_in_flight=draw(st.integers(1, 40)),
        windows=draw(st.sampled_from([(), (Window(22 * 60, 6 * 60),), (Window(13 * 60, 15 * 60),)])),
        soak_s=draw(st.sampled_from([0, 60])),
        retries=draw(st.integers(0, 2)),
        prestage=draw(st.booleans()),
    )
    state = draw(
        st.sampled_from(
            [CampaignState.RUNNING, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.ABORTED]
        )
    )
    if state is CampaignState.PAUSED:
        one = acts.pause(one, "why", "ann", START_MS, automatic=False)
    elif state is CampaignState.ABORTED:
        one = acts.abort(one, "why", "ann", START_MS)
    found = [wandered(chance, each) for each in targets(one)]
    devices = {
        each.thing: Seen(
            here=chance.random() < 0.8,
            unfit="NOT_ENROLLED" if chance.random() < 0.1 else "",
            busy=chance.random() < 0.1,
            quiet=chance.random() < 0.1,
        )
        for each in found
        if chance.random() < 0.9
    }
    return START_MS + draw(st.integers(0, 500_000)), one, found, devices


def wandered(chance, one):
    """Return a target after a few steps that the table allows."""
    for _ in range(chance.randrange(7)):
        triggers = [x for x in X if EXECUTION.takes(one.state, x) and x not in {X.REMOVE, X.REPLACE}]
        if not triggers or (one.attempt >= ATTEMPTS_MAX and one.state in FINAL):
            break
        one = moved(one, chance.choice(triggers), START_MS + chance.randrange(1_000))
    return one


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(world):
    now_ms, one, found, devices = world
    planned = plan(now_ms, one, found, devices, WELL)
    assert plan(now_ms, one, found, devices, WELL) == planned
    one, found = after(one, found, planned, now_ms)
    again = plan(now_ms, one, found, devices, WELL)
    assert (again.campaign, again.moves) == ((), ())
    assert again.next_wake_ms is None or again.next_wake_ms > now_ms


def test_hours_are_those_of_each_targets_premises():
    one = campaign(4, windows=(Window(22 * 60, 6 * 60),), time_zone="Europe/Berlin")
    places = ("Asia/Tokyo", "", "America/New_York", "Asia/Tokyo")
    found = [replace(each, time_zone=zone) for each, zone in zip(targets(one), places, strict=True)]
    planned = plan(START_MS, one, found, HERE, WELL)
    assert [move.thing for move in planned.moves] == [thing(0), thing(3)], "it is a quarter past eleven there"
    assert zones_ms(START_MS, one.terms, found) == {
        "Asia/Tokyo": START_MS,
        "": utc("2026-09-21T20:00"),
        "America/New_York": utc("2026-09-22T02:00"),
    }
    assert plan(START_MS, one, found[1:3], HERE, WELL).next_wake_ms == utc("2026-09-21T20:00")


def test_a_device_activates_in_the_hours_of_its_premises():
    one = campaign(1, windows=(Window(22 * 60, 6 * 60),))
    assert gate_opens_ms(START_MS, one.terms, "Asia/Tokyo") == START_MS
    assert gate_opens_ms(START_MS, one.terms, "") == utc("2026-09-21T22:00")
    assert gate_opens_ms(START_MS, one.terms, "America/New_York") == utc("2026-09-22T02:00")


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_no_plan_goes_over_a_bound(world):
    now_ms, one, before, devices = world
    planned = plan(now_ms, one, before, devices, WELL)
    later, found = after(one, before, planned, now_ms)
    offers = {move.thing for move in planned.moves if move.trigger is X.OFFER}
    assert len(offers) <= pace.capacity(one.terms.per_hour)
    flying = sum(1 for each in found if each.state in ACTIVE | OFFERED)
    flew = sum(1 for each in before if each.state in ACTIVE | OFFERED)
    assert flying <= max(one.terms.max_in_flight, flew)
    if offers:
        assert one.state is CampaignState.RUNNING
        assert is_open(one.terms.windows, ZoneInfo("UTC"), now_ms)
    for each in found:
        if each.thing in offers:
            seen = devices[each.thing]
            assert seen.here
            assert (seen.busy, seen.quiet, seen.unfit) == (False, False, "")
            assert each.wave <= later.wave
    assert all(
        a.state == b.state
        for a, b in zip(before, found, strict=True)
        if a.state in AFTER_GO and b.state in AFTER_GO
    )
    if one.state is CampaignState.ABORTED:
        assert not [each for each in found if each.state in WAITING or each.state in ACTIVE - AFTER_GO]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([60, 720, 10_000]))
def test_in_any_window_there_are_no_more_offers_than_the_pace_allows(seed, per_hour):
    chance, now_ms, offers = random.Random(seed), START_MS, list[int]()
    one = campaign(400, per_hour=per_hour, waves=(Wave(percent=100),))
    found = targets(one)
    for _ in range(200):
        planned = plan(now_ms, one, found, HERE, WELL)
        offers += [now_ms] * planned.offers
        one, found = after(one, found, planned, now_ms)
        found = [
            moved(moved(each, X.START, now_ms), X.SUCCEED, now_ms) if each.state in OFFERED else each
            for each in found
        ]
        now_ms += chance.choice([10, 500, 1_000, 5_000, 30_000])
    for first in range(len(offers)):
        for last in range(first, len(offers)):
            allowed = pace.capacity(per_hour) + per_hour * (offers[last] - offers[first]) / 3_600_000
            assert last - first + 1 <= allowed + 1e-9


def test_a_whole_campaign_ends_with_each_target_in_one_bucket():
    chance, now_ms = random.Random(7), START_MS
    one = campaign(300, soak_s=60, retries=1)
    found = targets(one)
    for _ in range(20_000):
        one, found = after(one, found, plan(now_ms, one, found, HERE, WELL), now_ms)
        if one.is_over:
            break
        found = [lived(chance, each, now_ms) for each in found]
        if one.state is CampaignState.PAUSED:
            one = acts.resume(one, "known", "bob", now_ms)
        now_ms += 1_000
    assert one.state is CampaignState.COMPLETED
    assert all(each.state in FINAL for each in found)
    assert {each.state for each in found} <= {S.SUCCEEDED} | BAD


def lived(chance, one, now_ms):
    if one.state in OFFERED:
        return moved(one, X.START, now_ms)
    if one.state in ACTIVE and chance.random() < 0.1:
        return moved(one, X.SUCCEED if chance.random() < 0.97 else X.FAIL, now_ms)
    return one


def test_planning_for_twenty_thousand_costs_little():
    one = replace(campaign(20_000), wave=4)
    found = ended(targets(one), 0, S.SUCCEEDED, 9_000)
    found = [
        moved(moved(each, X.OFFER, START_MS), X.START, START_MS) if 9_000 <= each.place < 9_800 else each
        for each in found
    ]
    began = time.process_time()
    for second in range(10):
        plan(START_MS + second * 1_000, one, found, {}, WELL)
    assert (time.process_time() - began) / 10 < 0.1, "a tenth of one core for planning alone"
