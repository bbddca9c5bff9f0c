"""The load: bodies, figures, history, and a worker between a broker and its clock."""

import json
import random
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history import History
from fleet.load import arrivals
from fleet.shapes import SHAPES, Mode, body_maker
from fleet.statistics import Histogram
from fleet.worker import ANSWER_S, BACKLOG_MAX, RETRY_CAP_S, Order, Run, Worker
from tests.fakes import FakeClock

P = "$aws/things/ld/shadow/update"


@pytest.mark.parametrize("mode", [Mode.REPORTED, Mode.DESIRED])
@pytest.mark.parametrize("shape", sorted(SHAPES))
@given(n=st.integers(1, 10**9))
def test_every_body_is_the_json_it_is_meant_to_be_and_always_the_same(mode, shape, n):
    make = body_maker(mode, SHAPES[shape], "run-7-", 5)
    request = json.loads(make(n))
    assert list(request["state"]) == [mode.value]
    assert request["state"][mode.value]
    assert request["clientToken"] == f"run-7-{n}"
    assert request.get("sequence") == ({"epoch": 5, "number": n} if mode is Mode.REPORTED else None)
    assert make(n) == make(n) != make(n + 1)


def test_a_get_carries_its_token_only():
    assert json.loads(body_maker(Mode.GET, SHAPES["large"], "r-", 5)(3)) == {"clientToken": "r-3"}


def test_shapes_differ_in_size_as_their_names_say():
    sizes = [
        len(body_maker(Mode.REPORTED, SHAPES[name], "r-", None)(1))
        for name in ("switch", "thermostat", "large")
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 8_192


def test_arrivals_are_planned_at_the_rate_and_repeat_with_the_seed():
    planned = list(arrivals(100, 50, random.Random(3)))
    assert planned == list(arrivals(100, 50, random.Random(3)))
    assert planned == sorted(planned)
    assert 4_700 <= len(planned) <= 5_300


@given(st.lists(st.floats(1e-6, 1_000), min_size=1, max_size=200), st.sampled_from((0.5, 0.9, 0.99, 1.0)))
def test_a_share_of_a_histogram_is_never_below_the_true_one_and_at_most_4_percent_above(values, share):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    assert true - 1e-6 <= histogram.at_share(share) <= true * 1.04 + 2e-6


def test_histograms_add_up_and_an_empty_one_says_zero():
    one, other = Histogram(), Histogram()
    assert one.at_share(0.99) == 0
    for value in (0.001, 0.002):
        one.add(value)
    other.add(5)
    one.merge(other)
    assert (one.count, one.max_s) == (3, 5)
    assert one.at_share(0.5) == pytest.approx(0.002, rel=0.04)
    one.add(1e12)
    assert one.at_share(1) <= one.max_s


class Wire:
    """In the place of a connection: keeps what is sent."""

    def __init__(self):
        self.sent: list[bytes] = []
        self.subscribed: tuple[str, ...] = ()
        self.is_stopped = False

    def subscribe(self, filters):
        self.subscribed = filters

    def publish(self, topic, payload):
        assert topic == P
        self.sent.append(payload)
        return True

    def stop(self):
        self.is_stopped = True


class Bench:
    def __init__(self, tmp_path=None, **order):
        self.clock = FakeClock()
        self.path: Any = tmp_path and tmp_path / "history.jsonl"
        self.history: Any = tmp_path and History(self.path, self.clock)
        told = Order(**{"seconds": 10, "rate": 10, "window": 2} | order)
        self.run = Run(told, "run", self.clock, self.history)
        self.worker = Worker("ld", 0, self.run)
        self.wire = Wire()
        self.worker.connection = self.wire

    def answer(self, number, code=None, version=1):
        body = {"code": code} if code else {"version": version}
        topic = f"{P}/rejected" if code else f"{P}/accepted"
        self.worker.message(topic, json.dumps({**body, "clientToken": f"run-0-{number}"}).encode())

    def lines(self):
        self.worker.give_up()
        self.history.__exit__()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def test_latency_counts_from_the_planned_moment_also_while_the_window_is_full():
    bench = Bench(window=1)
    bench.worker.connected()
    for _ in range(2):
        bench.worker.offer(bench.clock.elapsed_s())
    assert len(bench.wire.sent) == 1
    bench.clock.advance(3)
    bench.answer(1)
    bench.clock.advance(2)
    bench.answer(2)
    assert bench.run.statistics.latency.max_s == pytest.approx(5)
    assert bench.run.statistics.accepted == 2


def test_what_is_planned_while_nobody_is_connected_is_asked_on_connecting():
    bench = Bench()
    bench.worker.offer(0)
    assert bench.wire.sent == []
    bench.worker.connected()
    assert bench.wire.subscribed == (f"{P}/accepted", f"{P}/rejected")
    assert len(bench.wire.sent) == 1


def test_a_backlog_has_an_end_and_what_is_shed_is_counted():
    bench = Bench()
    for _ in range(BACKLOG_MAX + 1):
        bench.worker.offer(0)
    assert len(bench.worker.backlog) == BACKLOG_MAX
    assert bench.run.shed == 1


def test_a_closed_loop_keeps_its_window_full_until_it_is_told_to_stop():
    bench = Bench(rate=None, window=3)
    bench.run.is_asking = True
    bench.worker.connected()
    assert len(bench.wire.sent) == 3
    bench.answer(2)
    assert len(bench.wire.sent) == 4
    bench.run.is_asking = False
    bench.answer(1)
    assert len(bench.wire.sent) == 4


def test_unanswered_requests_are_repeated_with_the_same_bytes_when_overdue_and_on_reconnecting():
    bench = Bench()
    bench.worker.connected()
    bench.worker.offer(0)
    bench.worker.repeat_overdue(ANSWER_S - 0.1)
    assert len(bench.wire.sent) == 1
    bench.worker.repeat_overdue(ANSWER_S + 0.1)
    bench.worker.disconnected()
    bench.worker.repeat_overdue(1_000)
    assert len(bench.wire.sent) == 2
    bench.worker.connected()
    assert bench.wire.sent == [bench.wire.sent[0]] * 3
    assert bench.run.statistics.repeated == 2


@pytest.mark.parametrize("code", [429, 500, 503])
def test_not_yet_is_asked_again(code):
    bench = Bench()
    bench.worker.connected()
    bench.worker.offer(0)
    bench.answer(1, code=code)
    bench.worker.repeat_overdue(RETRY_CAP_S)
    assert bench.wire.sent == [bench.wire.sent[0]] * 2
    assert bench.run.statistics.rejected == {code: 1}


@pytest.mark.parametrize("code", [400, 403, 404, 409, 413])
def test_no_is_no(code):
    bench = Bench()
    bench.worker.connected()
    bench.worker.offer(0)
    bench.answer(1, code=code)
    bench.worker.repeat_overdue(1_000)
    assert len(bench.wire.sent) == 1
    assert not bench.worker.pending


def test_an_answer_to_somebody_else_or_a_second_one_is_counted_and_changes_nothing():
    bench = Bench()
    bench.worker.connected()
    bench.worker.offer(0)
    bench.worker.message(f"{P}/accepted", b'{"version":1,"clientToken":"other-0-1"}')
    assert len(bench.worker.pending) == 1
    bench.answer(1)
    bench.answer(1)
    assert bench.run.statistics.accepted == 1
    assert bench.run.statistics.errors == {"answer without our token": 1, "answered twice": 1}


def test_the_history_tells_each_step_so_that_a_checker_needs_nothing_else(tmp_path):
    bench = Bench(tmp_path, window=9)
    bench.worker.connected()
    for _ in range(4):
        bench.worker.offer(0)
    bench.answer(1, version=7)
    bench.answer(2, code=413)
    bench.answer(3, code=503)
    lines = bench.lines()
    told = [(line["phase"], line["token"]) for line in lines]
    assert told[:4] == [("invoke", f"run-0-{n}") for n in (1, 2, 3, 4)]
    assert told[4:7] == [("ok", "run-0-1"), ("fail", "run-0-2"), ("maybe", "run-0-3")]
    assert set(told[7:]) == {("maybe", "run-0-3"), ("maybe", "run-0-4")}
    ok = lines[4]
    assert ok["version"] == 7
    assert ok["body_sha256"] == lines[0]["body_sha256"] == sha256(bench.wire.sent[0]).hexdigest()
    assert ok["answer_sha256"] == sha256(b'{"version": 7, "clientToken": "run-0-1"}').hexdigest()
    assert (ok["thing"], ok["shadow"], ok["op"], ok["worker"]) == ("ld", "", "update", "run-0")
    assert ok["t"] == bench.clock.now_ms()
    assert lines[5]["code"] == 413


def test_a_second_answer_stands_in_the_history_too(tmp_path):
    bench = Bench(tmp_path)
    bench.worker.connected()
    bench.worker.offer(0)
    bench.answer(1, version=7)
    bench.answer(1, version=8)
    assert [(line["phase"], line.get("version")) for line in bench.lines()] == [
        ("invoke", None),
        ("ok", 7),
        ("ok", 8),
    ]


@pytest.mark.parametrize("order", [{"window": 0}, {"seconds": 0}, {"rate": 0}])
def test_an_order_that_asks_for_nothing_is_refused(order):
    with pytest.raises(ValueError, match="a load needs"):
        Order(**{"seconds": 1} | order)
