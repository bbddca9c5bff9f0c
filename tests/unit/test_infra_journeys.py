import random
import subprocess
import sys
import tracemalloc

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.settings import TelemetrySettings
from infra.telemetry import Journeys, open_journeys
from infra.telemetry.journeys import OPEN_MAX
from infra.telemetry.span_lines import FileSpanExporter
from infra.telemetry.spans import ATTRIBUTE_CHARS_MAX, Spans
from tests.fakes import NOW_MS, FakeClock

KEY, ACT = (1, 1), "act"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def journeys(clock, exporter):
    return Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)


def legs(exporter):
    """(name, start, duration) in ms since the start of the test."""
    return {
        span.name: (span.start_time // 10**6 - NOW_MS, (span.end_time - span.start_time) // 10**6)
        for span in exporter.get_finished_spans()
    }


def test_a_journey_shows_how_long_a_request_waited_was_committed_and_was_published(journeys, clock, exporter):
    journeys.received(KEY, {"operation": "update"})
    clock.advance(0.010)
    journeys.taken([KEY])
    journeys.became([(KEY, ACT)])
    clock.advance(0.003)
    journeys.committed([ACT])
    clock.advance(0.001)
    journeys.ended([KEY])
    assert legs(exporter) == {"request": (0, 14), "queue": (0, 10), "commit": (10, 3), "publish": (13, 1)}
    root = next(span for span in exporter.get_finished_spans() if span.name == "request")
    assert root.attributes == {"operation": "update"}
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {root.context.trace_id}


def test_a_request_that_changed_nothing_has_an_answer_instead_of_a_commit(journeys, clock, exporter):
    journeys.received(KEY, {})
    journeys.taken([KEY])
    clock.advance(0.002)
    journeys.committed(["another"])
    journeys.ended([KEY])
    assert legs(exporter) == {"request": (0, 2), "queue": (0, 0), "answer": (0, 2)}


def test_the_commit_of_another_act_is_not_its_commit(journeys, clock, exporter):
    journeys.received(KEY, {})
    journeys.committed([None, ACT])
    journeys.taken([KEY])
    journeys.became([(KEY, ACT), ("strange", "strange")])
    journeys.committed(["another"])
    clock.advance(0.001)
    journeys.committed([ACT])
    journeys.ended([KEY])
    assert legs(exporter)["commit"] == (0, 1)


def test_a_jump_of_the_wall_clock_does_not_bend_a_journey(journeys, clock, exporter):
    journeys.received(KEY, {})
    clock.jump(-3_600)
    clock.advance(0.005)
    journeys.taken([KEY])
    journeys.ended([KEY])
    assert legs(exporter)["queue"][1] == 5


def test_only_a_share_of_the_requests_is_traced(clock, exporter):
    journeys = Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=0.1)
    for number in range(1_000):
        journeys.received(number, {})
        journeys.ended([number])
    assert 70 <= len(exporter.get_finished_spans()) <= 130


def test_journeys_under_way_are_bounded(journeys):
    for number in range(OPEN_MAX + 1):
        journeys.received(number, {})
    assert len(journeys.open) == OPEN_MAX


def test_a_journey_that_ended_is_forgotten_and_a_strange_key_is_no_error(journeys):
    journeys.received(KEY, {})
    journeys.taken(["strange"])
    journeys.ended([KEY, "strange"])
    assert not journeys.open


def test_off_is_off_and_the_hot_path_allocates_nothing(tmp_path, clock):
    journeys = open_journeys(TelemetrySettings(), tmp_path, clock, random.Random(1))

    def hot_path(times):
        for _ in range(times):
            if journeys.on:
                journeys.received(KEY, {})
            if journeys.open:
                journeys.taken([KEY])

    hot_path(10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        hot_path(10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 512
    assert not journeys.open


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_ratio_of_nothing_is_off_too(tmp_path, clock, ratio):
    settings = TelemetrySettings(traces="file", sample_ratio=ratio)
    journeys = open_journeys(settings, tmp_path, clock, random.Random(1))
    assert journeys.on is (ratio > 0)
    journeys.close()


def test_spans_reach_the_file_before_the_end(tmp_path, clock):
    settings = TelemetrySettings(traces="file", sample_ratio=1.0)
    journeys = open_journeys(settings, tmp_path, clock, random.Random(1))
    journeys.received(KEY, {})
    journeys.ended([KEY])
    journeys.close()
    lines = (tmp_path / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert '"name": "request"' in lines[0]


def test_the_file_does_not_grow_without_end(tmp_path, clock):
    exporter = FileSpanExporter(tmp_path / "traces.jsonl", bytes_max=2_000)
    journeys = Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)
    for number in range(50):
        journeys.received(number, {})
        journeys.ended([number])
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) <= 2
    assert max(sizes) < 4_000


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path, clock):
    exporter = FileSpanExporter(tmp_path / "no such folder" / "traces.jsonl")
    journeys = Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)
    journeys.received(KEY, {})
    journeys.ended([KEY])
    assert not journeys.open


def test_a_request_that_was_let_go_is_not_traced(journeys, exporter):
    journeys.received(KEY, {})
    journeys.forget([KEY, "strange"])
    journeys.ended([KEY])
    assert not journeys.open
    assert not exporter.get_finished_spans()


def test_what_fails_in_the_recorder_is_the_recorders_affair(clock):
    class Broken:
        def record(self, _attributes, _legs):
            raise ZeroDivisionError

        def close(self):
            pass

    journeys = Journeys(clock, random.Random(1), Broken(), sample_ratio=1.0)
    journeys.received(KEY, {})
    journeys.ended([KEY])
    assert not journeys.open


def test_variables_of_the_environment_change_neither_what_is_sampled_nor_what_is_kept(
    clock, exporter, monkeypatch
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "not a number")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")
    journeys = Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)
    journeys.received(KEY, {"operation": "update", "thing": "x" * 1_000})
    journeys.ended([KEY])
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {"operation": "update", "thing": "x" * ATTRIBUTE_CHARS_MAX}
    assert span.resource.attributes == {"service.name": "gnomon"}


def test_spans_for_eyes_go_to_standard_error(tmp_path, clock, capsys):
    settings = TelemetrySettings(traces="console", sample_ratio=1.0)
    journeys = open_journeys(settings, tmp_path, clock, random.Random(1))
    journeys.received(KEY, {})
    journeys.ended([KEY])
    journeys.close()
    printed = capsys.readouterr()
    assert '"name": "request"' in printed.err
    assert '"name"' not in printed.out


def test_nobody_but_its_owner_reads_the_file(tmp_path, clock):
    exporter = FileSpanExporter(tmp_path / "traces.jsonl")
    journeys = Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)
    journeys.received(KEY, {})
    journeys.ended([KEY])
    assert (tmp_path / "traces.jsonl").stat().st_mode & 0o777 == 0o600


def test_whoever_does_not_trace_does_not_load_the_sdk():
    program = (
        "import sys, gnomon.cli, infra.telemetry;"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry.sdk')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
