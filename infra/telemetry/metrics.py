"""What is counted, in one object that constructors hand on; Prometheus reads it when it asks.

Counting is on the way of every update, so it is an addition to a number of ours (the client library's
counters cost ten times that). Labels are only what is bounded: codes and reasons, never a thing.
Everything here belongs to the event loop's thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MS_PER_S: Final = 1_000
COMMIT_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONVERGENCE_SECONDS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300, 900, 3_600, 14_400, 86_400)
LABELS_MAX: Final = 64
"""Different values of one label; what comes later is counted as "other"."""
OTHER: Final = "other"


_log = structlog.get_logger(__name__)


class DuplicateMetricError(Exception):
    """Two parts of the program want to show different things under one name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a metric gnomon_{name} already: give this one another name")
        self.name = name


class Count:
    """A number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by


class Counts:
    """A number for each value of one label."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def inc(self, label: str) -> None:
        if label not in self.values and len(self.values) >= LABELS_MAX:
            label = OTHER
        self.values[label] = self.values.get(label, 0) + 1


class Histogram:
    """How many values fell at or below each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return (bound, how many at or below it), as Prometheus spells it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


class Metrics(Collector):
    """Everything this process counts about shadows, and what others let it read."""

    def __init__(self) -> None:
        self.accepted = Count()
        self.replays = Count()
        self.store_errors = Count()
        self.dead_letters = Count()
        self.catch_ups = Count()
        self.rejections = Counts()
        self.drops = Counts()
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.batch_updates = Histogram(BATCH_SIZES)
        self.convergence_seconds = Histogram(CONVERGENCE_SECONDS)
        self._read: dict[
            str, tuple[type[CounterMetricFamily | GaugeMetricFamily], str, Callable[[], float]]
        ] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def changed(self, converged_after_ms: int | None) -> None:
        """Count an accepted update or deletion; if it closed a delta, also how long that was open."""
        self.accepted.inc()
        if converged_after_ms is not None:
            # A clock that was set back between the two must not make the sum fall.
            self.convergence_seconds.observe(max(0, converged_after_ms) / MS_PER_S)

    def rejected(self, code: int | str) -> None:
        """Count a refusal by its code."""
        self.rejections.inc(str(code))

    def dropped(self, reason: str) -> None:
        """Count what is answered by nothing, by reason."""
        self.drops.inc(reason)

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show a value that goes up and down; ``read`` is called when Prometheus asks.

        Raises:
            DuplicateMetricError: the name is taken.
        """
        self._add(name, GaugeMetricFamily, meaning, read)

    def counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show a number that only rises and that somebody else keeps; raises as :meth:`gauge`."""
        self._add(name, CounterMetricFamily, meaning, read)

    def _add(
        self,
        name: str,
        family: type[CounterMetricFamily | GaugeMetricFamily],
        meaning: str,
        read: Callable[[], float],
    ) -> None:
        if name in self._read or f"gnomon_{name}" in {metric.name for metric in self._counted()}:
            raise DuplicateMetricError(name)
        self._read[name] = (family, meaning, read)

    def render(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as Prometheus wants them."""
        yield from self._counted()
        for name, (family, meaning, read) in self._read.items():
            metric = family(f"gnomon_{name}", meaning)
            try:
                metric.add_metric((), read())
            except Exception as error:  # noqa: BLE001 - one that cannot be read must not hide the others
                _log.warning("metric_unreadable", metric=name, reason=str(error))
            yield metric

    def _counted(self) -> Iterator[Metric]:
        yield _count("gnomon_updates_accepted", "Updates and deletions made durable", self.accepted)
        yield _counts("gnomon_requests_rejected", "Refusals by code", "code", self.rejections)
        yield _count("gnomon_updates_replayed", "Repeated requests answered as the first time", self.replays)
        yield _counts("gnomon_messages_dropped", "Messages answered by nothing", "reason", self.drops)
        yield _count(
            "gnomon_dead_letters", "Requests kept aside because they failed or killed", self.dead_letters
        )
        yield _count("gnomon_catch_ups", "Deltas sent unasked to things that came back", self.catch_ups)
        yield _count("gnomon_store_errors", "Batches that the store did not take", self.store_errors)
        yield _histogram("gnomon_commit_seconds", "Time of one durable commit", self.commit_seconds)
        yield _histogram("gnomon_batch_updates", "Commands decided together", self.batch_updates)
        yield _histogram(
            "gnomon_convergence_seconds",
            "From desired to reported: how long a delta was open",
            self.convergence_seconds,
        )


def _count(name: str, meaning: str, count: Count) -> Metric:
    return CounterMetricFamily(name, meaning, value=count.value)


def _counts(name: str, meaning: str, label: str, counts: Counts) -> Metric:
    metric = CounterMetricFamily(name, meaning, labels=(label,))
    for value, count in counts.values.items():
        metric.add_metric((value,), count)
    return metric


def _histogram(name: str, meaning: str, histogram: Histogram) -> Metric:
    metric = HistogramMetricFamily(name, meaning)
    metric.add_metric((), histogram.buckets(), histogram.sum)
    return metric
