"""What can be seen of a running service from outside: metrics of an update, and its journey."""

import json
from typing import Any

import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import connected

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def var(tmp_path_factory):
    """A service that traced everything, after one wish, one report, one refusal, and its end."""
    directory = tmp_path_factory.mktemp("telemetry")
    settings = {"telemetry.traces": "file", "telemetry.sample_ratio": 1.0}
    with Gnomon(directory, settings) as gnomon:
        gnomon.register("hall")
        with connected(gnomon, "hall") as hall:
            hall.listen()
            hall.update({"desired": {"secret_c": 21}})
            hall.report({"secret_c": 21})
            hall.ask("update", {"state": {"reported": {"secret_c": 22}}, "version": 99})
        metrics = gnomon.http.get("/v1/metrics").text
        gnomon.stop()
    (gnomon.var / "metrics").write_text(metrics, encoding="utf-8")
    return gnomon.var


def spans(var):
    lines = (var / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    traces: dict[str, dict[str, Any]] = {}
    for span in map(json.loads, lines):
        traces.setdefault(span["context"]["trace_id"], {})[span["name"]] = span
    return list(traces.values())


def test_an_update_is_seen_queued_committed_and_published_in_this_order(var):
    updates = [trace for trace in spans(var) if trace["request"]["attributes"]["operation"] == "update"]
    accepted = [trace for trace in updates if "commit" in trace]
    assert len(accepted) == 2
    for trace in accepted:
        stamps = [
            trace[leg][end] for leg in ("queue", "commit", "publish") for end in ("start_time", "end_time")
        ]
        assert stamps == sorted(stamps)
        assert (trace["request"]["start_time"], trace["request"]["end_time"]) == (stamps[0], stamps[-1])


def test_a_refused_update_was_never_committed(var):
    refused = [trace for trace in spans(var) if "commit" not in trace]
    assert [trace["request"]["attributes"]["thing"] for trace in refused] == ["hall"]
    assert "answer" in refused[0]


def test_a_trace_tells_whose_shadow_it_is_and_nothing_of_what_is_in_it(var):
    text = (var / "traces.jsonl").read_text(encoding="utf-8")
    assert '"thing": "hall"' in text
    assert "secret_c" not in text


def test_metrics_count_the_accepted_the_refused_and_the_time_from_desired_to_reported(var):
    metrics = (var / "metrics").read_text(encoding="utf-8").splitlines()
    assert "gnomon_updates_accepted_total 2.0" in metrics
    assert 'gnomon_requests_rejected_total{code="409"} 1.0' in metrics
    assert "gnomon_convergence_seconds_count 1.0" in metrics
    assert "gnomon_publishes_total 6.0" in metrics  # a delta, twice documents and accepted, a refusal
    assert "gnomon_things_present 0.0" in metrics or "gnomon_things_present 1.0" in metrics
