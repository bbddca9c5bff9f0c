"""What a session becomes on what is observed: each step of scenarios 3.2 and 3.3, one fact at a time."""

from dataclasses import replace
from typing import Any

import pytest

from infra.machines import Transition
from programs.states import EnrolmentState
from provisioning.effects import (
    Alarm,
    AttachDevice,
    CopyRecords,
    DetachDevice,
    EndEnrolment,
    Enrol,
    GiveConsent,
    GiveGrant,
    KeepKey,
    PatchHan,
    RegisterDevice,
    ReleasePremises,
    RetryEnrolment,
    TakePremises,
    TellLeftOut,
    TellProved,
    TellSeen,
)
from provisioning.observed import Enrolled
from provisioning.session import Cause, Expected, GrantState, Proof, SessionDevice, ToldRemedy, pair
from provisioning.states import DeviceState, RemedyState, SessionState, SessionTrigger, WindowState
from provisioning.tidying import NOTES_MS, PURGE_MS
from registry.gateways import GatewayKind
from registry.states import Lifecycle
from tests.covers import covers
from tests.fakes import NOW_MS
from tests.homes import (
    KEY,
    METER_GATEWAY,
    PCT,
    PCT_MODEL,
    SENSOR,
    SWITCH,
    consent,
    grant,
    joined,
    known,
    look,
    observed,
    route,
    seen,
    session,
    settle,
    wanted,
    window,
)

S, D, W = SessionState, DeviceState, WindowState
ABORTED = Transition(NOW_MS, "rosa", "Grace calls again", S.OPEN, SessionTrigger.ABORT, S.ABORTED)
SEQ = NOW_MS // 1_000
MINUTE_MS = 60_000
OPEN = {"permitJoin": {"seq": SEQ, "until": SEQ + 600, "mode": "grants"}}


def the_window(one):
    assert one.window is not None
    return one.window


def discovering(**fields):
    return session(S.DISCOVERING, **{"window": window(), **fields})


def device(state, eui64=PCT, **fields):
    fields = {"model_id": "acme-pct-2", "thing": eui64, "gateways": (METER_GATEWAY,), **fields}
    return {eui64: SessionDevice(eui64=eui64, state=state, **fields)}


# ---------------------------------------------------------------------------- opening


def test_a_session_opens_once_the_premises_are_its_own():
    assert wanted(look(session(S.OPENING), observed(holder="")), TakePremises)
    assert look(session(S.OPENING), observed()).session.state is S.OPEN


def test_a_session_that_finds_the_premises_taken_was_never_open():
    assert look(session(S.OPENING), observed(holder="ps-2")).session.state is S.ABORTED


# ---------------------------------------------------------------------------- the window


@covers("O10")
def test_a_window_is_asked_for_only_after_its_number_is_durable():
    first = look(discovering(), observed(route()))
    assert the_window(first.session).state is W.REQUESTED
    assert the_window(first.session).seq == SEQ
    assert wanted(first, PatchHan) == []
    second = look(first.session, observed(route()))
    (patch,) = wanted(second, PatchHan)
    assert patch.patch["desired"]["permitJoin"] == OPEN["permitJoin"]
    asked = look(second.session, observed(route(OPEN)))
    assert asked.effects == ()
    assert asked.session.due_ms == NOW_MS + 600_000


def test_a_newer_window_supersedes_whatever_number_the_gateway_knows():
    late = route(reported={**joined(), "permitJoin": {"seq": SEQ + 5, "state": "closed"}})
    assert the_window(look(discovering(), observed(late)).session).seq == SEQ + 6


@covers("O10")
def test_a_window_waits_for_its_time():
    later = discovering(window=window(not_before_ms=NOW_MS + MINUTE_MS))
    after = look(later, observed(route()))
    assert the_window(after.session).state is W.SCHEDULED
    assert after.session.due_ms == NOW_MS + MINUTE_MS
    assert the_window(look(later, observed(route()), NOW_MS + MINUTE_MS).session).state is W.REQUESTED


@covers("3.3/6.1", "O9")
def test_a_han_that_is_not_normal_within_a_minute_is_a_cause_and_no_error():
    pending = observed(route(reported={"net": {"state": "FIND_PENDING"}}))
    waiting = look(discovering(), pending)
    assert (the_window(waiting.session).state, waiting.session.due_ms) == (W.SCHEDULED, NOW_MS + MINUTE_MS)
    after = settle(waiting.session, pending, NOW_MS + MINUTE_MS).session
    assert (after.state, after.cause) == (S.NOT_RECOGNIZED, Cause.HAN_NOT_READY)
    assert settle(waiting.session, observed(route()), NOW_MS + MINUTE_MS - 1).session.state is S.DISCOVERING


@covers("3.3/6.1")
def test_premises_without_a_route_are_not_recognised():
    after = settle(session(S.DISCOVERING), observed()).session
    assert (after.state, after.cause) == (S.NOT_RECOGNIZED, Cause.NO_HAN_ROUTE)


def test_a_gateway_that_comes_back_too_late_had_no_window():
    asked = discovering(window=window(W.REQUESTED))
    after = settle(asked, observed(route(OPEN)), NOW_MS + 600_000)
    assert (the_window(after.session).state, after.session.cause) == (W.EXPIRED, Cause.HAN_NOT_READY)
    assert wanted(after, PatchHan)[0].patch == {"desired": {"permitJoin": None, "grants": None}}
    late = observed(route(OPEN, joined(seen())))
    assert the_window(settle(asked, late, NOW_MS + 600_000).session).state is W.EXPIRED


@covers("O10")
def test_a_window_that_is_left_open_is_an_alarm_said_once():
    closed = session(S.DISCOVERED, window=window(W.CLOSED))
    left = observed(route(reported=joined()))
    assert look(closed, left, NOW_MS + 600_000).session.due_ms == NOW_MS + 660_000
    first = look(closed, left, NOW_MS + 660_000)
    assert wanted(first, Alarm) == [Alarm(METER_GATEWAY)]
    assert wanted(look(first.session, left, NOW_MS + 660_000), Alarm) == []


# ---------------------------------------------------------------------------- what is seen


@covers("3.2/7")
def test_what_is_seen_is_recognised_and_told_to_the_registry():
    after = settle(discovering(window=window(W.REQUESTED)), observed(route(OPEN, joined(seen()))))
    (found,) = after.session.devices.values()
    assert (found.state, found.model_id, found.thing) == (D.RECOGNIZED, "acme-pct-2", PCT)
    assert [one.device.eui64 for one in wanted(after, TellSeen)] == [PCT]


@covers("A3")
def test_a_door_sensor_is_a_number_and_nothing_else():
    sensor = seen(SENSOR, maker="Knock", model="DS-1", caps=[], cat=0)
    after = settle(discovering(window=window(W.OPEN)), observed(route(OPEN, joined(seen(), sensor))))
    assert (list(after.session.devices), after.session.others) == ([PCT], 1)


@covers("3.3/6.1")
@pytest.mark.parametrize(
    ("reported", "expected", "cause"),
    [
        ([], (), Cause.NOTHING_SEEN),
        ([seen(model="PCT-9")], (), Cause.UNKNOWN_MODEL),
        ([seen(SENSOR, maker="K", model="D", caps=[])], (), Cause.NOTHING_SEEN),
        ([], (Expected("Zed", "T"),), Cause.WRONG_TECHNOLOGY),
        ([], (Expected("No", "Body"),), Cause.UNKNOWN_MODEL),
        ([seen(maker="Zed", model="T", hw=0)], (), Cause.WRONG_TECHNOLOGY),
    ],
    ids=["nothing", "unknown", "others only", "expected elsewhere", "expected unknown", "wrong technology"],
)
def test_why_nothing_was_recognised(reported, expected, cause):
    wave = replace(PCT_MODEL, id="zed-t", technologies=frozenset({"zwave"}))
    facts = observed(route(OPEN, joined(*reported)), models={KEY: PCT_MODEL, ("Zed", "T", 0): wave})
    open_one = discovering(window=window(W.OPEN), expected=expected)
    after = settle(settle(open_one, facts).session, facts, NOW_MS + 600_000).session
    assert (after.state, after.cause) == (S.NOT_RECOGNIZED, cause)


def test_what_was_registered_before_is_no_discovery_where_new_equipment_is_not_recognised():
    here = {SWITCH: known(Lifecycle.REGISTERED, SWITCH, attached=frozenset({METER_GATEWAY}))}
    facts = observed(route(OPEN, joined(seen(model="PCT-9"))), devices=here)
    open_one = discovering(window=window(W.OPEN))
    after = settle(settle(open_one, facts).session, facts, NOW_MS + 600_000).session
    assert (after.state, after.devices[SWITCH].state) == (S.NOT_RECOGNIZED, D.AUTH_OK)
    alone = observed(route(OPEN, joined()), devices=here)
    assert settle(open_one, alone, NOW_MS + 600_000).session.state is S.DISCOVERED


def test_more_devices_than_a_session_holds_are_counted():
    many = [seen(f"00124B00000000{number:02X}") for number in range(34)]
    after = settle(discovering(window=window(W.OPEN)), observed(route(OPEN, joined(*many)))).session
    assert (len(after.devices), after.others) == (32, 2)


def test_a_device_with_a_wan_of_its_own_is_discovered_by_its_certificate():
    own = {"th-1": known(Lifecycle.AUTHENTICATED, "th-1", has_wan=True)}
    after = settle(session(S.DISCOVERING), observed(devices=own)).session
    assert (after.state, after.devices["th-1"].state, after.devices["th-1"].gateways) == (
        S.DISCOVERED,
        D.AUTH_OK,
        (),
    )


@pytest.mark.parametrize(
    ("fact", "code"),
    [
        (known(Lifecycle.REGISTERED, premises="pr-0002"), "IN_USE"),
        (known(Lifecycle.REPLACED), "REPLACED"),
        (known(Lifecycle.SUSPENDED), "SUSPENDED"),
    ],
)
def test_a_device_that_cannot_take_part_says_why(fact, code):
    facts = observed(route(OPEN, joined(seen())), devices={PCT: fact})
    found = settle(discovering(window=window(W.OPEN)), facts).session.devices[PCT]
    assert (found.state, found.code) == (D.UNRECOGNIZED, code)


# ---------------------------------------------------------------------------- proofs


def with_grant(auth="", given=True, **fields):
    grants = {PCT: {"id": "g-A1"}} if given else {}
    wants = {**OPEN, "grants": grants}
    entry = seen(auth=auth) if auth else seen()
    return observed(route(wants, joined(entry)), **fields)


def test_a_grant_is_given_once_the_window_is_open_and_its_key_known():
    before = discovering(window=window(W.REQUESTED), grants=(grant(),))
    assert wanted(look(before, observed(route(OPEN))), GiveGrant) == []
    (given,) = wanted(settle(before, with_grant(given=False)), GiveGrant)
    assert (given.grant.eui64, given.seal_key, given.until_s) == (PCT, "BKx2", SEQ + 600)
    assert wanted(settle(before, with_grant()), GiveGrant) == []


def test_a_good_proof_is_told_and_its_key_is_kept():
    before = discovering(window=window(W.OPEN), grants=(grant(),))
    seen_before = {PCT: known(Lifecycle.DISCOVERED)}
    after = settle(before, with_grant("ok", devices=seen_before))
    assert after.session.devices[PCT].state is D.AUTH_OK
    assert wanted(after, TellProved) == [TellProved(PCT)]
    assert wanted(after, KeepKey) == [KeepKey(PCT, "c2VhbGVk")]
    kept = {PCT: known(Lifecycle.AUTHENTICATED, kept_key="c2VhbGVk")}
    settled = settle(after.session, with_grant("ok", devices=kept))
    assert settled.session.grants[0].sealed_key == ""
    assert [one.patch for one in wanted(settled, PatchHan)] == [{"desired": {"grants": {PCT: None}}}]


@covers("3.2/7")
def test_a_bad_proof_is_a_result_of_the_device_and_not_of_the_session():
    before = discovering(window=window(W.OPEN), grants=(grant(),))
    after = settle(before, with_grant("failed")).session
    assert (after.state, after.devices[PCT].state, after.devices[PCT].code) == (
        S.DISCOVERING,
        D.AUTH_FAILED,
        "PROOF_FAILED",
    )
    assert after.grants[0] == replace(grant(), state=GrantState.ANSWERED, sealed_key="")
    again = replace(after, grants=(*after.grants, grant(id="g-new")))
    assert settle(again, with_grant("failed", given=False)).session.devices[PCT].state is D.AUTH_PENDING


def test_a_gateway_alone_makes_no_device_genuine():
    after = settle(discovering(window=window(W.OPEN)), with_grant("ok", given=False)).session
    assert after.devices[PCT].state is D.RECOGNIZED


def test_what_proved_itself_to_another_home_has_proved_nothing_here():
    elsewhere = {PCT: known(Lifecycle.AUTHENTICATED, premises="pr-0002")}
    after = settle(discovering(window=window(W.OPEN)), with_grant(given=False, devices=elsewhere)).session
    assert after.devices[PCT].state is D.RECOGNIZED


def test_a_pin_or_certificate_is_accepted_by_the_trust_center():
    before = discovering(window=window(W.OPEN), grants=(grant(proof=Proof.PIN, sealed_key=""),))
    pending = settle(before, with_grant(given=False, devices={PCT: known(Lifecycle.DISCOVERED)}))
    assert pending.session.devices[PCT].state is D.AUTH_PENDING
    proved = with_grant(given=False, devices={PCT: known(Lifecycle.AUTHENTICATED)})
    assert settle(pending.session, proved).session.devices[PCT].state is D.AUTH_OK


def test_a_grant_without_an_answer_ends_with_its_window_and_its_key_is_forgotten():
    before = settle(discovering(window=window(W.OPEN), grants=(grant(),)), with_grant()).session
    after = settle(before, with_grant(), NOW_MS + 600_000).session
    assert (after.state, after.devices[PCT].code) == (S.DISCOVERED, "NO_ANSWER")
    assert (after.grants[0].state, after.grants[0].sealed_key) == (GrantState.ENDED, "")


# ---------------------------------------------------------------------------- remedies


@covers("3.3/6.3")
def test_a_session_goes_on_by_itself_when_a_bridge_comes_on_line():
    told = ToldRemedy("bridge-zwave", "bridge", 4_900, "EUR", 3, RemedyState.ORDERED)
    waiting = session(S.AWAITING_REMEDY, remedies=(told,), routes_before=(METER_GATEWAY,))
    bridge: dict[str, Any] = {
        "gateway": "gw-0001-bridge",
        "kind": GatewayKind.BRIDGE,
        "technologies": frozenset({"zwave"}),
    }
    assert look(waiting, observed(route())).session.state is S.AWAITING_REMEDY
    away = observed(route(), route(**bridge, online=False))
    assert look(waiting, away).session.state is S.AWAITING_REMEDY
    after = look(waiting, observed(route(), route(**bridge))).session
    assert (after.state, after.remedies[0].state) == (S.OPEN, RemedyState.DONE)


# ---------------------------------------------------------------------------- step 12


def provisioning(state=S.PROVISIONING, devices=None, **fields):
    devices = device(D.ATTACHING, programs={"cpp-27": {}}) if devices is None else devices
    fields = {"consents": {pair(PCT, "cpp-27"): consent()}, "provision_until_ms": NOW_MS + 600_000, **fields}
    return session(state, devices=devices, window=window(W.CLOSED), **fields)


def attached(state="on", said="on"):
    entry = {"eui64": PCT, "state": state, "active": True, "epoch": 1}
    reported = {} if said == "" else {"attach": {PCT: {**entry, "state": said}}}
    return route({"attach": {PCT: entry}}, {**joined(state="closed"), **reported})


ON_GATEWAY = frozenset({METER_GATEWAY})


def enrolled(state, rev=1, code=""):
    return {pair(PCT, "cpp-27"): Enrolled("enr-1", state, rev, code)}


def registered(state=None, rev=1, code="", **fields):
    facts = {
        "devices": {PCT: known(Lifecycle.REGISTERED, attached=ON_GATEWAY)},
        "consents": frozenset({pair(PCT, "cpp-27")}),
        "enrolments": {} if state is None else enrolled(state, rev, code),
        **fields,
    }
    return observed(attached(), **facts)


@covers("3.2/12")
def test_step_12_goes_in_its_order_and_skips_nothing():
    proved = {PCT: known(Lifecycle.AUTHENTICATED)}
    first = settle(provisioning(), observed(route(), devices=proved))
    assert [type(effect) for effect in first.effects] == [AttachDevice]
    unsaid = {PCT: known(Lifecycle.AUTHENTICATED, attached=ON_GATEWAY)}
    assert settle(provisioning(), observed(attached(said=""), devices=unsaid)).effects == ()
    said = settle(provisioning(), observed(attached(), devices=unsaid))
    assert [type(effect) for effect in said.effects] == [RegisterDevice]
    consented = settle(provisioning(), registered(consents=frozenset()))
    assert [type(effect) for effect in consented.effects] == [GiveConsent]
    enrol = settle(provisioning(), registered())
    assert [type(effect) for effect in enrol.effects] == [Enrol]
    assert enrol.session.devices[PCT].state is D.ATTACHING
    sent = settle(provisioning(), registered(EnrolmentState.PROVISIONING))
    assert sent.session.devices[PCT].state is D.SENT


@covers("3.2/13")
def test_two_answers_make_a_device_ready_and_all_ready_make_the_records():
    first = settle(provisioning(), registered(EnrolmentState.ACTIVATED)).session
    assert (first.state, first.devices[PCT].state) == (S.PROVISIONING, D.ACTIVATED)
    ready = look(first, registered(EnrolmentState.READY))
    assert ready.session.state is S.ACKED
    (copy,) = wanted(ready, CopyRecords)
    assert [one.kind for one in copy.records] == ["han.device.registered", "han.enrolment.changed"]
    recorded = look(ready.session, registered(EnrolmentState.READY))
    assert recorded.session.state is S.RECORDED
    keys = frozenset(one.key for one in copy.records)
    copied = settle(recorded.session, registered(EnrolmentState.READY, copied=keys)).session
    assert [one.body for one in copied.records] == ["", ""]


def test_a_device_without_programs_is_ready_once_it_is_registered():
    bare = provisioning(devices=device(D.ATTACHING), consents={})
    assert settle(bare, registered()).session.state is S.RECORDED


@covers("3.2/13")
def test_what_is_late_makes_the_session_partial_and_can_still_become_ready():
    after = settle(provisioning(), registered(EnrolmentState.ACTIVATED), NOW_MS + 600_000).session
    assert (after.state, after.devices[PCT].state) == (S.PARTIAL, D.ACTIVATED)
    assert look(after, registered(EnrolmentState.READY), NOW_MS + 86_400_000).session.state is S.ACKED


def test_a_device_whose_gateway_is_away_is_late_and_is_brought_in_when_it_returns():
    away = observed(attached(said=""), devices={PCT: known(Lifecycle.AUTHENTICATED, attached=ON_GATEWAY)})
    late = settle(provisioning(), away, NOW_MS + 600_000).session
    assert (late.state, late.devices[PCT].state) == (S.PARTIAL, D.LATE)
    back = replace(away, routes=(attached(),))
    assert wanted(settle(late, back, NOW_MS + 700_000), RegisterDevice)


def test_a_failed_device_does_not_stop_the_others_and_is_retried_by_revision():
    failed = registered(EnrolmentState.PROVISION_FAILED, 1, "CLOCK")
    after = settle(provisioning(), failed).session
    assert (after.state, after.devices[PCT].state, after.devices[PCT].code) == (S.PARTIAL, D.FAILED, "CLOCK")
    again = replace(
        after,
        state=S.PROVISIONING,
        devices={PCT: replace(after.devices[PCT], state=D.ATTACHING, retried={"cpp-27": 1})},
    )
    assert wanted(settle(again, failed), RetryEnrolment) == [RetryEnrolment("enr-1")]
    still = registered(EnrolmentState.PROVISION_FAILED, 2, "CLOCK")
    assert settle(again, still).session.devices[PCT].state is D.FAILED


def test_a_device_that_will_never_go_says_why():
    after = settle(provisioning(), registered(refused={PCT: "GATEWAY_FULL"})).session
    assert (after.state, after.devices[PCT].code) == (S.PARTIAL, "GATEWAY_FULL")


def test_an_enrolment_that_ended_before_is_made_anew_and_one_that_ends_meanwhile_is_a_failure():
    assert wanted(settle(provisioning(), registered(EnrolmentState.ENDED)), Enrol)
    begun = settle(provisioning(), registered(EnrolmentState.PROVISIONING)).session
    after = settle(begun, registered(EnrolmentState.ENDING)).session
    assert after.devices[PCT].code == "ENDED"


# ---------------------------------------------------------------------------- the end


def test_an_aborted_session_takes_back_what_never_took_part_and_frees_the_premises():
    ended = session(
        S.ABORTED,
        window=window(W.OPEN),
        grants=(grant(),),
        transitions=(ABORTED,),
        devices={
            **device(D.SENT, progress={"cpp-27": object()}),
            **device(D.AUTH_OK, SWITCH),
        },
    )
    facts = observed(
        route({**OPEN, "grants": {PCT: {"id": "g-A1"}}}, joined()),
        devices={
            PCT: known(Lifecycle.REGISTERED, attached=ON_GATEWAY),
            SWITCH: known(Lifecycle.AUTHENTICATED, SWITCH, attached=ON_GATEWAY),
        },
        enrolments=enrolled(EnrolmentState.PROVISIONING),
    )
    after = settle(ended, facts)
    assert the_window(after.session).state is W.CLOSED
    assert after.session.grants[0].sealed_key == ""
    assert wanted(after, EndEnrolment) == [EndEnrolment("enr-1")]
    assert wanted(after, TellLeftOut) == [TellLeftOut(SWITCH)]
    assert wanted(after, DetachDevice) == [DetachDevice(SWITCH, METER_GATEWAY)]
    assert wanted(after, ReleasePremises)
    assert not after.session.released
    tidied = observed(route(), holder="", devices={SWITCH: known(Lifecycle.COMMISSIONED, SWITCH)})
    done = settle(after.session, tidied)
    assert (done.session.released, done.effects) == (True, ())
    assert done.session.due_ms == NOW_MS + PURGE_MS


@covers("A3")
def test_a_day_after_the_end_only_what_has_a_part_is_left_and_after_ninety_no_note():
    devices = {
        **device(D.READY),
        **device(D.LEFT_OUT, SWITCH),
        **device(D.UNRECOGNIZED, SENSOR),
    }
    ended = session(
        S.ABORTED,
        released=True,
        transitions=(ABORTED,),
        note="gate code 4711",
        expected=(Expected("Acme", "PCT-2"),),
        grants=(grant(state=GrantState.ENDED, sealed_key=""),),
        devices=devices,
        consents={pair(PCT, "cpp-27"): consent(), pair(SWITCH, "cpp-27"): replace(consent(), device=SWITCH)},
    )
    facts = observed(
        route(),
        holder="",
        devices={PCT: known(Lifecycle.REGISTERED), SWITCH: known(Lifecycle.COMMISSIONED, SWITCH)},
    )
    early = settle(ended, facts, NOW_MS + PURGE_MS - 1)
    assert (early.session.devices, early.session.due_ms) == (devices, NOW_MS + PURGE_MS)
    later = settle(ended, facts, NOW_MS + PURGE_MS).session
    assert (list(later.devices), list(later.consents)) == ([PCT], [pair(PCT, "cpp-27")])
    assert (later.grants, later.expected) == ((), ())
    assert (later.note, later.due_ms) == ("gate code 4711", NOW_MS + NOTES_MS)
    at_last = settle(later, facts, NOW_MS + NOTES_MS).session
    assert (at_last.note, at_last.transitions[0].reason, at_last.due_ms) == ("", "", 0)


def test_a_day_after_the_end_nothing_is_left_of_what_was_sent_and_came_to_nothing():
    ended = session(S.EXPIRED, released=True, transitions=(ABORTED,), devices=device(D.ATTACHING))
    facts = observed(route(), holder="", devices={PCT: known(Lifecycle.COMMISSIONED)})
    assert settle(ended, facts, NOW_MS + PURGE_MS).session.devices == {}


def test_what_is_ready_stays_when_the_session_is_aborted():
    ended = session(S.ABORTED, devices=device(D.READY, progress={"cpp-27": object()}))
    after = settle(ended, registered(EnrolmentState.READY))
    assert wanted(after, EndEnrolment) == []
    assert wanted(after, TellLeftOut) == []


def test_a_session_that_nobody_touches_expires_and_one_that_is_recorded_does_not():
    idle = session(S.OPEN)
    assert look(idle, observed(), idle.expires_at_ms - 1).session.state is S.OPEN
    assert look(idle, observed(), idle.expires_at_ms).session.state is S.EXPIRED
    recorded = session(S.RECORDED, expires_at_ms=0)
    assert look(recorded, observed(), NOW_MS + 10**12).session.state is S.RECORDED


def test_looking_again_at_the_same_facts_changes_nothing_and_wants_the_same():
    facts = with_grant(given=False)
    first = settle(discovering(window=window(W.REQUESTED), grants=(grant(),)), facts)
    second = look(first.session, facts, NOW_MS + 1)
    assert second.session == first.session
    assert second.effects == first.effects
