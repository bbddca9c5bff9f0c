"""A simulated gateway's network and a device's programs, between a stand-in service and a moved clock."""

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fleet.appliances import BroadbandGateway, Display
from fleet.device import Device, Publish, Surroundings
from fleet.link_keys import crc, link_key, printed
from fleet.network import SEEN_MAX, SUITE, Network, grant_info
from fleet.plan import Boxed
from fleet.program import Behaviour, Programs
from fleet.statistics import Statistics
from fleet.topics import own_route
from tests.covers import covers
from tests.shadow_stand_in import StandIn

EPOCH_S = 1_790_000_000
HALL = Boxed(
    eui64="00124B0014B5D2A1",
    maker="Acme",
    model="PCT-2",
    hw=3,
    fw="1.4.0",
    categories=1,
    capabilities=("price", "load.offset"),
    kind="thermostat",
    code=printed(bytes(range(16))),
)
SENSOR = replace(HALL, eui64="00124B0014B5D2A2", model="DS-1", kind=None, categories=0, capabilities=())


class Bench:
    """One thing, its service, and the time."""

    def __init__(self, *, network: Network | None = None, programs: Programs | None = None, service=None):
        self.now = 0.0
        self.service = service or StandIn()
        self.statistics = Statistics()
        around = Surroundings(self.statistics, 1, since_s=EPOCH_S)
        appliance = Display(random.Random(1)) if network is None else BroadbandGateway(random.Random(1))
        self.device = Device("x-1", appliance, around, random.Random(5), network, programs)
        self._out(self.device.connected(0, own_route("x-1")))

    def wish(self, shadow, desired):
        for topic, payload in self.service.wish("x-1", desired, shadow):
            self._out(self.device.message(self.now, topic, payload))
        self.pass_time(0)

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.1)
            self._out(self.device.tick(self.now))
        self._out(self.device.tick(self.now))

    def reported(self, shadow):
        return self.service.document("x-1", shadow).reported

    @property
    def taking_part(self):
        assert self.device.programs is not None
        return self.device.programs.taking_part

    def _out(self, outputs):
        for output in outputs:
            if isinstance(output, Publish):
                for topic, payload in self.service.handle(output.topic, output.payload):
                    self._out(self.device.message(self.now, topic, payload))


class House:
    """A gateway, what is in sight of it, and whom it was told to speak for."""

    def __init__(self, *boxed, **options):
        self.moves: list[tuple[str, str, bool]] = []
        self.network = Network(boxed, moved=lambda *move: self.moves.append(move), **options)
        self.bench = Bench(network=self.network)
        self.seq = 0

    def open(self, seconds=600):
        self.seq += 1
        until = EPOCH_S + int(self.bench.now) + seconds
        self.bench.wish("han", {"permitJoin": {"seq": self.seq, "until": until, "mode": "grants"}})
        return until

    def grant(self, boxed, code, until, id="g-1"):
        point = urlsafe_b64decode(self.han["permitJoin"]["sealKey"] + "==")
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        sealed = SUITE.encrypt(link_key(code), key, info=grant_info(id, boxed.eui64, until))
        grant = {"id": id, "proof": "install_code", "until": until}
        grant["sealed"] = urlsafe_b64encode(sealed).decode().rstrip("=")
        self.bench.wish("han", {"grants": {boxed.eui64: grant}})
        self.bench.pass_time(1)

    @property
    def han(self):
        return self.bench.reported("han")


def test_a_label_s_code_and_its_key_are_those_of_the_standard():
    code = bytes.fromhex("83FED3407A939723A5C639B26916D505")
    assert crc(b"123456789").hex() == "6e90"
    assert printed(code).endswith("C3B5")
    assert link_key(printed(code)).hex().upper() == "66B6900981E1EE3CA4206B6B861C02BB"
    assert link_key(printed(code[:6])).hex().upper() == "CD4FA064773F46941EC986C09963D1A8"


@covers("3.2/7", "X4", "X6")
def test_a_window_opens_by_a_higher_number_and_shows_what_is_in_sight():
    house = House(HALL, SENSOR)
    house.open()
    house.bench.pass_time(1)
    window = house.han["permitJoin"]
    assert (window["seq"], window["state"]) == (1, "open")
    assert len(urlsafe_b64decode(window["sealKey"] + "==")) == 65
    assert house.han["seen"].keys() == {HALL.eui64, SENSOR.eui64}
    assert house.han["seen"][HALL.eui64]["caps"] == ["price", "load.offset"]


@covers("O10")
def test_a_window_closes_by_the_gateway_s_own_clock_and_takes_its_key_and_what_was_seen_along():
    house = House(HALL)
    house.open(seconds=30)
    house.bench.pass_time(29)
    assert house.han["permitJoin"]["state"] == "open"
    house.bench.pass_time(2)
    assert house.han["permitJoin"]["state"] == "closed"
    assert "sealKey" not in house.han["permitJoin"]
    assert "seen" not in house.han


def test_a_window_that_is_heard_of_too_late_does_not_open():
    house = House(HALL)
    house.bench.pass_time(100)
    house.open(seconds=-1)
    house.bench.pass_time(1)
    assert house.han["permitJoin"]["state"] == "closed"
    assert not house.network.is_open


def test_a_new_window_has_a_new_key():
    house = House(HALL)
    house.open()
    first = house.han["permitJoin"]["sealKey"]
    house.open()
    assert house.han["permitJoin"]["sealKey"] != first


def test_a_window_can_be_taken_back():
    house = House(HALL)
    house.open()
    house.bench.wish("han", {"permitJoin": {"seq": 1, "until": EPOCH_S, "mode": "grants"}})
    assert house.han["permitJoin"]["state"] == "closed"


@covers("X5", "A11")
@pytest.mark.parametrize(("code", "auth"), [(HALL.code, "ok"), (printed(bytes(16)), "failed")])
def test_a_grant_with_the_right_code_lets_a_device_in_and_another_does_not(code, auth):
    house = House(HALL)
    until = house.open()
    house.bench.pass_time(1)
    assert "auth" not in house.han["seen"][HALL.eui64]
    house.grant(HALL, code, until)
    assert house.han["seen"][HALL.eui64]["auth"] == auth


def test_a_second_code_is_tried_after_a_wrong_one_in_the_same_window():
    house = House(HALL)
    until = house.open()
    house.bench.pass_time(1)
    house.grant(HALL, printed(bytes(16)), until, id="g-1")
    assert house.han["seen"][HALL.eui64]["auth"] == "failed"
    house.grant(HALL, HALL.code, until, id="g-2")
    house.bench.pass_time(10)
    assert house.han["seen"][HALL.eui64]["auth"] == "ok"


def test_a_grant_sealed_for_another_moment_is_worth_nothing():
    house = House(HALL)
    until = house.open()
    house.bench.pass_time(1)
    house.grant(HALL, HALL.code, until, id="g-1")
    assert house.han["seen"][HALL.eui64]["auth"] == "ok"
    again = House(HALL)
    until = again.open()
    again.bench.pass_time(1)
    again.bench.wish(
        "han",
        {"grants": {HALL.eui64: {"id": "g-2", "proof": "install_code", "until": until, "sealed": "AAAA"}}},
    )
    again.bench.pass_time(1)
    assert again.han["seen"][HALL.eui64]["auth"] == "failed"


def test_no_more_than_sixteen_are_in_sight_and_the_oldest_leaves_first():
    many = [
        replace(HALL, eui64=f"00124B00000000{number:02X}", appears_s=0.1 * number)
        for number in range(SEEN_MAX + 2)
    ]
    house = House(*many)
    house.open()
    house.bench.pass_time(5)
    assert set(house.han["seen"]) == {one.eui64 for one in many[2:]}


@covers("X9")
def test_who_is_attached_leaves_the_sight_is_spoken_for_and_counted_and_goes_again():
    house = House(HALL)
    house.open()
    house.bench.pass_time(1)
    entry = {"eui64": HALL.eui64, "state": "on", "active": True, "epoch": 1}
    house.bench.wish("han", {"attach": {"dev-1": entry}})
    assert house.han["attach"]["dev-1"] == entry | {"online": True}
    assert "seen" not in house.han
    assert house.han["capacity"]["usedLoadControl"] == 1
    assert house.moves[-1] == ("dev-1", HALL.eui64, True)
    house.bench.wish("han", {"attach": {"dev-1": {"state": "gone", "active": False}}})
    assert house.han["attach"]["dev-1"]["state"] == "gone"
    assert house.moves[-1] == ("dev-1", HALL.eui64, False)
    assert house.han["capacity"]["used"] == 0


def enrol(bench, rev=1, **more):
    entry = {"rev": rev, "state": "on", "from": EPOCH_S, "tariff": "t7", **more}
    tariff = {"schema": "tou/1", "rev": 1, "currency": "EUR"}
    bench.wish("program", {"enrolments": {"cpp-27": entry}, "tariffs": {"t7": tariff}})


@covers("3.2/13", "X16", "X17", "A11")
def test_a_device_acknowledges_twice_activated_and_then_ready():
    bench = Bench(programs=Programs(Behaviour(activate_s=5, ready_s=20)))
    enrol(bench)
    assert bench.reported("program")["enrolments"]["cpp-27"]["rev"] == 1
    assert "ack" not in bench.reported("program")
    bench.pass_time(6)
    assert bench.reported("program")["ack"]["cpp-27"] == {"activated": {"rev": 1, "at": EPOCH_S + 5}}
    bench.pass_time(20)
    assert bench.reported("program")["ack"]["cpp-27"]["ready"]["rev"] == 1
    assert bench.taking_part == {"cpp-27"}


def test_a_new_revision_is_acknowledged_anew():
    bench = Bench(programs=Programs())
    enrol(bench)
    bench.pass_time(2)
    enrol(bench, rev=2)
    bench.pass_time(2)
    ack = bench.reported("program")["ack"]["cpp-27"]
    assert (ack["activated"]["rev"], ack["ready"]["rev"]) == (2, 2)


@covers("A11")
def test_what_fails_says_why_and_works_the_second_time():
    bench = Bench(programs=Programs(Behaviour(fails="STORAGE", fails_times=1)))
    enrol(bench)
    bench.pass_time(2)
    ack = bench.reported("program")["ack"]["cpp-27"]
    assert ack["failed"]["code"] == "STORAGE"
    assert "ready" not in ack
    enrol(bench, rev=2)
    bench.pass_time(2)
    ack = bench.reported("program")["ack"]["cpp-27"]
    assert ack["ready"]["rev"] == 2
    assert "failed" not in ack


def test_a_tariff_of_no_shape_it_knows_is_unsupported():
    bench = Bench(programs=Programs())
    bench.wish(
        "program",
        {
            "enrolments": {"x": {"rev": 1, "state": "on", "tariff": "t"}},
            "tariffs": {"t": {"schema": "moon/9", "rev": 1}},
        },
    )
    bench.pass_time(2)
    assert bench.reported("program")["ack"]["x"]["failed"]["code"] == "UNSUPPORTED"


@covers("X23")
def test_leaving_is_a_value_which_the_device_reports_and_takes_part_no_more():
    bench = Bench(programs=Programs())
    enrol(bench)
    bench.pass_time(2)
    bench.wish("program", {"enrolments": {"cpp-27": {"rev": 2, "state": "off"}}})
    assert bench.reported("program")["enrolments"]["cpp-27"]["state"] == "off"
    assert bench.taking_part == frozenset()


def test_what_was_acknowledged_stays_so_after_a_power_cut():
    bench = Bench(programs=Programs())
    enrol(bench)
    bench.pass_time(2)
    before = bench.reported("program")["ack"]
    again = Bench(programs=Programs(), service=bench.service)
    again.pass_time(3)
    assert again.reported("program")["ack"] == before
