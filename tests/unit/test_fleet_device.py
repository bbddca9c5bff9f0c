"""A device between a service that may lose, double and reorder, and a clock that tests move."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.appliances import Display, LoadSwitch, Thermostat
from fleet.device import STEP_S, Device, Publish, Subscribe, Surroundings
from fleet.keeper import ANSWER_S, REFUSAL_PAUSE_S, RETRY_CAP_S
from fleet.network import Network
from fleet.physics import Climate
from fleet.statistics import Statistics
from fleet.topics import own_route, relayed_route
from tests.shadow_stand_in import StandIn, say

HALL = "th-0001-hall"
P = f"$aws/things/{HALL}/shadow"


class Bench:
    """One device, the stand-in service, and the wire between them."""

    def __init__(self, appliance=None, *, epoch=1, service=None, name=HALL, route=None):
        self.now = 0.0
        self.service = service or StandIn()
        self.statistics = Statistics()
        surroundings = Surroundings(self.statistics, epoch)
        appliance = appliance or Thermostat(random.Random(3), Climate())
        self.device = Device(name, appliance, surroundings, random.Random(5))
        self.route = route or own_route(name)
        self.sent: list[Publish] = []
        self.subscribed: list[str] = []
        self.is_deaf = False  # requests go nowhere
        self.is_mute = False  # requests take effect, answers get lost
        self.mute_operation = ""  # the same for one operation only

    def connect(self):
        self._out(self.device.connected(self.now, self.route))
        return self

    def pass_time(self, seconds):
        for _ in range(round(seconds)):
            self.now += 1
            self._out(self.device.tick(self.now))

    def wish(self, desired, shadow=""):
        self.deliver(self.service.wish(self.device.name, desired, shadow))

    def deliver(self, messages):
        for topic, payload in messages:
            if topic.startswith(self.route.answers):
                self._out(self.device.message(self.now, topic, payload))

    def reported(self, shadow=""):
        return self.service.document(self.device.name, shadow).reported

    def updates(self, shadow=""):
        tail = f"/name/{shadow}/update" if shadow else "shadow/update"
        return [one.payload for one in self.sent if one.topic.endswith(tail)]

    def _out(self, outputs):
        for output in outputs:
            if isinstance(output, Subscribe):
                self.subscribed += output.filters
                continue
            self.sent.append(output)
            if self.is_deaf:
                continue
            answers = self.service.handle(output.topic, output.payload)
            if not self.is_mute and not output.topic.endswith(f"/{self.mute_operation}"):
                self.deliver(answers)


def state_of(payload: bytes) -> dict[str, Any]:
    reported: dict[str, Any] = json.loads(payload)["state"]["reported"]
    return reported


def test_after_connecting_it_subscribes_then_gets_then_reports_what_it_is():
    bench = Bench().connect()
    assert f"{P}/update/delta" in bench.subscribed
    assert not any("#" in one or "documents" in one for one in bench.subscribed)
    assert bench.sent[0].topic == f"{P}/get"
    assert bench.reported()["mode"] == bench.device.appliance.settings["mode"]
    assert bench.reported()["online"] is True
    assert bench.reported("config") == {"reportEvery": 300, "lang": "en"}
    assert bench.device.in_step


def test_it_never_writes_desired_nor_deletes():
    bench = Bench().connect()
    bench.wish({"heat_c": 22})
    bench.wish({"reportEvery": 60}, "config")
    bench.pass_time(600)
    assert {one.topic.rsplit("/", 1)[1] for one in bench.sent} == {"get", "update"}
    assert all(
        set(json.loads(one)["state"]) == {"reported"} for one in bench.updates() + bench.updates("config")
    )


def test_the_report_closes_the_delta():
    bench = Bench().connect()
    bench.wish({"heat_c": 22.5, "mode": "heat"})
    assert bench.reported()["heat_c"] == 22.5
    assert bench.device.appliance.settings["mode"] == "heat"
    assert bench.device.in_step
    assert bench.statistics.convergence.count == 1


def test_a_nested_wish_is_reported_at_the_same_path():
    bench = Bench(Display(random.Random(1)), name="dp-1").connect()
    bench.wish({"message": {"text": "Peak at five"}})
    assert bench.reported()["message"] == {"text": "Peak at five", "priority": 0}


def test_an_older_delta_is_ignored_and_an_equal_one_is_not():
    bench = Bench().connect()
    old = bench.service.wish(HALL, {"heat_c": 16})
    bench.wish({"heat_c": 23})
    before = len(bench.sent)
    bench.deliver(old)
    assert bench.device.appliance.settings["heat_c"] == 23
    assert len(bench.sent) == before
    assert bench.statistics.outdated == 1
    again = say(state={"heat_c": 17}, version=bench.service.document(HALL).version)
    bench.deliver([(f"{P}/update/delta", again)])
    assert state_of(bench.updates()[-2])["heat_c"] == 17  # until the service says 23 once more


def test_a_lost_answer_is_asked_for_with_the_same_bytes_until_it_comes():
    bench = Bench().connect()
    bench.is_mute = True
    bench.wish({"heat_c": 22})  # arrives, since only answers to requests get lost
    bench.deliver(bench.service.wish(HALL, {"heat_c": 22}))
    first = bench.updates()[-1]
    bench.pass_time(ANSWER_S + RETRY_CAP_S)
    repeats = [one for one in bench.updates() if one == first]
    assert len(repeats) >= 2
    bench.is_mute = False
    bench.pass_time(ANSWER_S + RETRY_CAP_S)
    assert bench.device.in_step
    numbers = [one["sequence"]["number"] for one in bench.service.applied]
    assert len(set(map(str, bench.service.applied))) == len(numbers)  # applied once each


def test_a_request_lost_on_the_way_is_repeated_after_reconnecting_at_once():
    bench = Bench().connect()
    bench.is_deaf = True
    bench.wish({"heat_c": 22})
    first = bench.updates()[-1]
    bench.device.disconnected()
    bench.pass_time(5)
    bench.is_deaf = False
    bench.connect()
    assert bench.updates()[-1] == first
    assert bench.reported()["heat_c"] == 22


def test_nothing_is_sent_while_disconnected():
    bench = Bench().connect()
    bench.device.disconnected()
    before = len(bench.sent)
    bench.pass_time(1_000)
    assert len(bench.sent) == before


def test_the_will_is_overruled_after_reconnecting():
    bench = Bench().connect()
    bench.device.disconnected()
    will = bench.device.will()
    bench.service.handle(will.topic, will.payload)
    assert bench.reported()["online"] is False
    bench.connect()
    assert bench.reported()["online"] is True


def test_a_replay_answered_after_the_will_does_not_hide_the_will():
    bench = Bench()
    bench.mute_operation = "update"
    bench.connect()
    assert state_of(bench.updates()[-1])["online"] is True
    bench.device.disconnected()
    will = bench.device.will()
    bench.service.handle(will.topic, will.payload)
    bench.mute_operation = ""
    bench.connect()  # the document says offline, then comes the stored answer of the older report
    assert bench.reported()["online"] is True


def test_a_document_that_a_delta_has_overtaken_does_not_undo_the_delta():
    bench = Bench()
    bench.service.wish(HALL, {"heat_c": 16})
    bench.is_mute = True
    bench.connect()
    [late] = bench.service.handle(bench.sent[0].topic, bench.sent[0].payload)
    bench.wish({"heat_c": 23})
    bench.is_mute = False
    bench.deliver([late])
    assert bench.reported()["heat_c"] == 23
    assert all(state_of(one).get("heat_c") != 16 for one in bench.updates())


def test_a_power_cut_in_mid_update_ends_in_step_with_what_is_desired():
    first = Bench().connect()
    first.is_mute = True
    first.wish({"heat_c": 22})
    first.deliver(first.service.wish(HALL, {"mode": "cool", "heat_c": 18}))
    # Power cut: settings, outbox and versions are gone; a new life with a higher epoch.
    second = Bench(epoch=2, service=first.service).connect()
    assert second.device.appliance.settings["mode"] == "cool"
    assert second.reported()["heat_c"] == 18
    assert second.device.in_step


def test_after_a_power_cut_what_was_obeyed_before_is_taken_from_the_document_without_a_detour():
    first = Bench().connect()
    first.wish({"heat_c": 17.5})
    second = Bench(epoch=2, service=first.service).connect()
    assert second.device.appliance.settings["heat_c"] == 17.5
    assert all("heat_c" not in state_of(one) for one in second.updates())


def test_a_device_that_lost_its_epoch_begins_one_above_the_stored_pair():
    first = Bench(epoch=9).connect()
    second = Bench(epoch=1, service=first.service).connect()
    second.wish({"heat_c": 22})
    assert second.reported()["heat_c"] == 22
    assert second.service.document(HALL).sequence[0] == 10
    assert second.statistics.rejected[409] >= 1


def test_what_it_no_longer_has_it_removes_with_null():
    bench = Bench().connect()
    bench.device.appliance.fault = "filter"
    bench.pass_time(STEP_S)
    assert bench.reported()["fault"] == "filter"
    bench.device.appliance.fault = None
    bench.pass_time(STEP_S)
    assert "fault" not in bench.reported()
    assert state_of(bench.updates()[-1])["fault"] is None


def test_what_a_former_life_reported_is_removed_too():
    service = StandIn()
    service.handle(f"{P}/update", say(state={"reported": {"old": {"fw": 1}, "mode": "off"}}))
    bench = Bench(service=service).connect()
    assert "fw" not in bench.reported().get("old", {})
    assert bench.reported()["mode"] == bench.device.appliance.settings["mode"]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"mode": "warp"}, "range"),
        ({"heat_c": True}, "range"),
        ({"heat_c": 99}, "range"),
        ({"colour": 1}, "unknown"),
    ],
)
def test_an_impossible_wish_stays_in_the_delta_and_is_answered_once(wish, why):
    bench = Bench().connect()
    settings = dict(bench.device.appliance.settings)
    bench.wish(wish)
    bench.pass_time(5)
    assert bench.device.appliance.settings == settings
    assert bench.reported()["rejected"] == dict.fromkeys(wish, why)
    assert len(bench.updates()) == 2
    bench.wish(dict.fromkeys(wish, None))
    bench.wish({"heat_c": 21.25})
    assert "rejected" not in bench.reported()


def test_an_impossible_wish_taken_back_is_no_longer_answered():
    bench = Bench().connect()
    held = bench.device.appliance.settings["mode"]
    bench.wish({"mode": "warp"})
    bench.wish({"mode": held})  # equals what is reported: no delta tells the device
    bench.pass_time(700)
    assert "rejected" not in bench.reported()


def test_a_load_switch_tells_true_from_one():
    bench = Bench(LoadSwitch(random.Random(1)), name="ls-1").connect()
    bench.wish({"on": 1})
    assert bench.reported()["rejected"] == {"on": "range"}
    bench.wish({"on": False})
    assert bench.reported()["on"] is False
    assert bench.reported()["power_w"] == 0


def test_readings_are_reported_when_they_changed_noticeably_or_when_it_is_time():
    bench = Bench().connect()
    bench.wish({"mode": "off"})
    before = len(bench.updates())
    bench.wish({"reportEvery": 100}, "config")
    bench.pass_time(1_000)
    reports = bench.updates()[before:]
    assert 5 <= len(reports) <= 20
    assert all("temperature_c" in state_of(one) for one in reports)


def test_a_busy_service_is_asked_again_with_the_same_bytes():
    bench = Bench().connect()
    bench.is_deaf = True
    bench.wish({"heat_c": 22})
    body = bench.updates()[-1]
    token = json.loads(body)["clientToken"]
    bench.deliver([(f"{P}/update/rejected", say(code=503, clientToken=token))])
    bench.is_deaf = False
    bench.pass_time(10)
    assert bench.updates()[-1] == body
    assert bench.reported()["heat_c"] == 22


def test_a_refusal_for_good_is_forgotten_and_not_repeated_at_once():
    bench = Bench().connect()
    bench.is_deaf = True
    bench.wish({"heat_c": 22})
    token = json.loads(bench.updates()[-1])["clientToken"]
    bench.deliver([(f"{P}/update/rejected", say(code=403, clientToken=token))])
    before = len(bench.updates())
    bench.pass_time(REFUSAL_PAUSE_S - 2)
    assert len(bench.updates()) == before
    bench.is_deaf = False
    bench.pass_time(REFUSAL_PAUSE_S)
    assert bench.reported()["heat_c"] == 22


def test_a_thing_removed_and_made_anew_is_followed_into_its_new_history():
    bench = Bench().connect()
    for heat_c in (17, 18, 19):
        bench.wish({"heat_c": heat_c})
    bench.service.documents.clear()
    bench.pass_time(400)  # its next report lands in version 1
    bench.wish({"heat_c": 24})
    assert bench.device.appliance.settings["heat_c"] == 24
    assert bench.reported()["heat_c"] == 24


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"version": "x"}', b'{"state": 3}'])
def test_a_message_that_makes_no_sense_changes_nothing(payload):
    bench = Bench().connect()
    before = len(bench.sent)
    bench.deliver([(f"{P}/update/delta", payload), (f"{P}/update/accepted", payload)])
    assert len(bench.sent) == before
    assert bench.statistics.errors["undecodable message"] == 2


def test_a_message_for_another_thing_is_not_taken():
    bench = Bench().connect()
    before = len(bench.sent)
    body = say(state={"heat_c": 29}, version=99)
    assert bench.device.message(0, "$aws/things/other/shadow/update/delta", body) == []
    assert bench.device.message(0, f"{P}/update/documents", body) == []
    assert bench.device.appliance.settings["heat_c"] != 29
    assert len(bench.sent) == before


def test_a_spoken_for_device_asks_in_its_gateways_tree_and_takes_wishes_from_any_route():
    route = relayed_route("gw-1", HALL)
    bench = Bench(service=StandIn({HALL: ("gw-1", "gw-2")}), route=route).connect()
    assert bench.subscribed == []
    assert bench.sent[0].topic == f"gnomon/gateways/gw-1/up/things/{HALL}/shadow/get"
    assert "online" not in bench.reported()
    wishes = bench.service.wish(HALL, {"heat_c": 22})
    through_second = [one for one in wishes if "/gw-2/" in one[0]]
    for topic, payload in through_second:
        bench._out(bench.device.message(bench.now, topic, payload))
    assert bench.reported()["heat_c"] == 22
    assert bench.sent[-1].topic.startswith("gnomon/gateways/gw-1/up/")


def test_after_a_fail_over_it_goes_on_in_the_other_gateways_tree():
    service = StandIn({HALL: ("gw-1", "gw-2")})
    bench = Bench(service=service, route=relayed_route("gw-1", HALL)).connect()
    bench.is_deaf = True
    bench.wish({"heat_c": 22})
    lost = bench.updates()[-1]
    bench.device.disconnected()
    bench.is_deaf, bench.route = False, relayed_route("gw-2", HALL)
    bench.connect()
    assert bench.updates()[-1] == lost
    assert bench.sent[-1].topic.startswith("gnomon/gateways/gw-2/up/")
    assert bench.reported()["heat_c"] == 22


def test_a_gateway_subscribes_for_itself_and_for_all_attached_to_it_and_tells_its_network():
    service = StandIn()
    network = Network(moved=lambda *_: None, attached=3)
    device = Device(
        "gw-1", Display(random.Random(1)), Surroundings(Statistics(), 1), random.Random(1), network
    )
    outputs = device.connected(0, own_route("gw-1"))
    subscribe = outputs[0]
    assert isinstance(subscribe, Subscribe)
    assert "gnomon/gateways/gw-1/down/things/+/shadow/update/delta" in subscribe.filters
    assert "$aws/things/gw-1/shadow/name/han/update/delta" in subscribe.filters
    waiting = [one for one in outputs if isinstance(one, Publish)]
    while waiting:
        request = waiting.pop()
        for topic, payload in service.handle(request.topic, request.payload):
            waiting += [one for one in device.message(0, topic, payload) if isinstance(one, Publish)]
    assert service.document("gw-1", "han").reported["capacity"]["used"] == 3
    assert service.document("gw-1", "han").desired == {}


def test_it_asks_to_be_woken_for_physics_and_for_what_is_due():
    bench = Bench()
    assert bench.device.wake_at() <= 0
    bench.pass_time(1)
    assert bench.device.wake_at() == 1 + STEP_S
    bench.is_deaf = True
    bench.connect()
    bench.now += ANSWER_S - 1
    assert bench.device.wake_at() <= bench.now + 3


wishes = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "heat_c": st.integers(10, 25),
            "mode": st.sampled_from(("off", "heat", "cool")),
            "fan": st.sampled_from(("on", "auto")),
        },
    ),
    min_size=1,
    max_size=8,
)


@given(wishes, st.randoms(use_true_random=False))
def test_in_whatever_order_and_number_deltas_come_the_device_ends_at_the_newest(wished, chance):
    bench = Bench().connect()
    messages = [one for wish in wished for one in bench.service.wish(HALL, wish)]
    messages += chance.choices(messages, k=len(messages)) if messages else []
    chance.shuffle(messages)
    bench.deliver(messages)
    bench.pass_time(ANSWER_S + RETRY_CAP_S)
    desired = bench.service.document(HALL).desired
    assert {name: bench.device.appliance.settings[name] for name in desired} == desired
    assert {name: bench.reported()[name] for name in desired} == desired
    assert bench.device.in_step


@given(
    st.lists(st.sampled_from(["wish", "deaf", "mute", "clear", "drop", "time"]), max_size=25),
    st.integers(0, 99),
)
def test_whatever_gets_lost_device_and_service_agree_once_faults_stop(story, seed):
    chance = random.Random(seed)
    bench = Bench().connect()
    for event in story:
        match event:
            case "wish":
                bench.wish({"heat_c": chance.randint(10, 25), "mode": chance.choice(("off", "heat"))})
            case "deaf":
                bench.is_deaf = True
            case "mute":
                bench.is_mute = True
            case "clear":
                bench.is_deaf = bench.is_mute = False
            case "drop":
                bench.device.disconnected()
                bench.connect()
            case _:
                bench.pass_time(chance.choice((1, 15, 40)))
    bench.is_deaf = bench.is_mute = False
    bench.device.disconnected()
    bench.connect()
    bench.pass_time(2 * (ANSWER_S + RETRY_CAP_S))
    desired = bench.service.document(HALL).desired
    assert {name: bench.reported().get(name) for name in desired} == desired
    applied = [json.dumps(one) for one in bench.service.applied if "clientToken" in one]
    assert len(applied) == len(set(applied))
