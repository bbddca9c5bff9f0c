import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.telemetry import Metrics
from infra.telemetry.metrics import LABELS_MAX, DuplicateMetricError


def samples(metrics):
    text = metrics.render().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_is_there_from_the_start_so_that_a_rate_begins_at_zero():
    shown = samples(Metrics())
    for name in (
        "updates_accepted", "updates_replayed", "dead_letters", "catch_ups", "store_errors",
    ):  # fmt: skip
        assert shown[f"gnomon_{name}_total",] == 0
    assert shown["gnomon_commit_seconds_count",] == 0


def test_accepted_rejected_and_dropped_are_counted_apart():
    metrics = Metrics()
    metrics.changed(None)
    metrics.changed(None)
    metrics.rejected(409)
    metrics.dropped("retained")
    shown = samples(metrics)
    assert shown["gnomon_updates_accepted_total",] == 2
    assert shown["gnomon_requests_rejected_total", "409"] == 1
    assert shown["gnomon_messages_dropped_total", "retained"] == 1


@pytest.mark.parametrize(
    ("after_ms", "bucket"),
    [(0, "0.1"), (100, "0.1"), (101, "0.2"), (86_400_000, "86400.0"), (86_400_001, "+Inf")],
)
def test_convergence_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(after_ms, bucket):
    metrics = Metrics()
    metrics.changed(after_ms)
    name = "gnomon_convergence_seconds_bucket"
    first = next(key[1] for key, value in samples(metrics).items() if key[0] == name and value == 1)
    assert first == bucket


def test_a_histogram_adds_up():
    metrics = Metrics()
    for seconds in (0.0005, 0.003, 9.0):
        metrics.commit_seconds.observe(seconds)
    shown = samples(metrics)
    assert shown["gnomon_commit_seconds_bucket", "0.001"] == 1
    assert shown["gnomon_commit_seconds_bucket", "5.0"] == 2
    assert shown["gnomon_commit_seconds_bucket", "+Inf"] == shown["gnomon_commit_seconds_count",] == 3
    assert shown["gnomon_commit_seconds_sum",] == pytest.approx(9.0035)


def test_what_others_keep_is_read_only_when_somebody_asks():
    metrics, reads = Metrics(), iter([7])
    metrics.gauge("inbox_requests", "Waiting", lambda: next(reads))
    metrics.counter("publishes", "Sent", lambda: 12)
    shown = samples(metrics)
    assert (shown["gnomon_inbox_requests",], shown["gnomon_publishes_total",]) == (7, 12)


def test_the_values_of_a_label_are_bounded():
    metrics = Metrics()
    for number in range(LABELS_MAX + 10):
        metrics.dropped(f"reason {number}")
    shown = [key for key in samples(metrics) if key[0] == "gnomon_messages_dropped_total"]
    assert len(shown) == LABELS_MAX + 1
    assert samples(metrics)["gnomon_messages_dropped_total", "other"] == 10


def test_two_objects_count_apart():
    one, other = Metrics(), Metrics()
    one.changed(None)
    assert samples(other)["gnomon_updates_accepted_total",] == 0


def test_a_value_that_cannot_be_read_hides_no_other():
    metrics = Metrics()
    metrics.changed(None)
    metrics.gauge("broken", "Raises", lambda: 1 / 0)
    metrics.gauge("after_it", "Fine", lambda: 3)
    shown = samples(metrics)
    assert ("gnomon_broken",) not in shown
    assert (shown["gnomon_updates_accepted_total",], shown["gnomon_after_it",]) == (1, 3)


@pytest.mark.parametrize("taken", ["inbox_requests", "updates_accepted", "convergence_seconds"])
def test_two_values_under_one_name_are_refused_and_the_first_stays(taken):
    metrics = Metrics()
    metrics.gauge("inbox_requests", "Waiting", lambda: 7)
    before = metrics.render()
    for add in (metrics.gauge, metrics.counter):
        with pytest.raises(DuplicateMetricError, match=taken):
            add(taken, "Another", lambda: 8)
    assert [line for line in metrics.render().split(b"\n") if line.startswith(b"gnomon_")] == [
        line for line in before.split(b"\n") if line.startswith(b"gnomon_")
    ]


def test_a_clock_that_was_set_back_does_not_make_the_sum_of_convergence_fall():
    metrics = Metrics()
    metrics.changed(3_000)
    metrics.changed(-60_000)
    shown = samples(metrics)
    assert shown["gnomon_convergence_seconds_sum",] == 3
    assert shown["gnomon_convergence_seconds_bucket", "0.1"] == 1
