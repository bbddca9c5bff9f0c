"""Traces of an update's journey: received → taken from the queue → committed → published.

    request ├────────────────────────────────────────┤
    queue   ├────────┤
    commit           ├──────────────┤
    publish                         ├────────────────┤

A journey that is sampled is remembered under the key of its request; each station stamps those that it
sees, and the spans are made at the end, after the fact, from the stamps. When traces are off the hot path
tests one attribute (``on``, ``open``) and nothing is called, made or kept. Bounded: what finds no room, or
overtakes the exporter, is not traced. Telemetry fails soft.
"""

import random
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Final

import structlog
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, set_span_in_context

from infra.clock import Clock
from infra.settings import TelemetrySettings
from infra.telemetry.span_lines import FileSpanExporter, one_line

OPEN_MAX: Final = 1_000
"""Journeys under way that are traced; one more is not."""
FLUSH_MS_MAX: Final = 1_000
FILE_NAME: Final = "traces.jsonl"
NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000

_log = structlog.get_logger(__name__)


class _Journey:
    """The stamps of one request, in elapsed seconds."""

    __slots__ = ("attributes", "committed_s", "received_s", "subject", "taken_s")

    def __init__(self, received_s: float, subject: Hashable, attributes: Mapping[str, str]) -> None:
        self.received_s = received_s
        self.subject = subject
        self.attributes = attributes
        self.taken_s: float | None = None
        self.committed_s: float | None = None


class Journeys:
    """The journeys under way. Callers ask ``on`` before the first station and ``open`` before the others."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        processor: SpanProcessor | None = None,
        sample_ratio: float = 0.0,
    ) -> None:
        self.on = processor is not None and sample_ratio > 0
        self.open: dict[Hashable, _Journey] = {}
        self._clock = clock
        self._rng = rng
        self._sample_ratio = sample_ratio
        self._provider: TracerProvider | None = None
        if processor is not None:
            self._provider = TracerProvider(
                resource=Resource({SERVICE_NAME: "gnomon"}), shutdown_on_exit=False
            )
            self._provider.add_span_processor(processor)

    def received(self, key: Hashable, subject: Hashable, attributes: Mapping[str, str]) -> None:
        """Begin a journey, if this request is one of the sampled."""
        if self._rng.random() < self._sample_ratio and len(self.open) < OPEN_MAX:
            self.open[key] = _Journey(self._clock.elapsed_s(), subject, attributes)

    def taken(self, keys: Iterable[Hashable]) -> None:
        """Stamp the requests that left the queue."""
        now_s = self._clock.elapsed_s()
        for key in keys:
            journey = self.open.get(key)
            if journey is not None:
                journey.taken_s = now_s

    def committed(self, subjects: Iterable[Hashable]) -> None:
        """Stamp the requests in hand whose subjects were made durable."""
        now_s = self._clock.elapsed_s()
        durable = set(subjects)
        for journey in self.open.values():
            if journey.taken_s is not None and journey.committed_s is None and journey.subject in durable:
                journey.committed_s = now_s

    def ended(self, keys: Iterable[Hashable]) -> None:
        """Make the spans of requests whose answers are written."""
        now_s = self._clock.elapsed_s()
        for key in keys:
            journey = self.open.pop(key, None)
            if journey is not None:
                self._export(journey, now_s)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Drop the requests that were let go and begin anew."""
        for key in keys:
            self.open.pop(key, None)

    def close(self) -> None:
        """Hand over what waits; a slow exporter is not waited for any longer than a second."""
        self.on = False
        self.open.clear()
        if self._provider is not None:
            self._provider.force_flush(FLUSH_MS_MAX)
            self._provider.shutdown()

    def _export(self, journey: _Journey, ended_s: float) -> None:
        assert self._provider is not None, "only what is on begins a journey"
        # Elapsed time does not jump, so wall time is asked once and the stamps count back from it.
        wall_ns = self._clock.now_ms() * NS_PER_MS

        def at_ns(stamp_s: float) -> int:
            return wall_ns - round((ended_s - stamp_s) * NS_PER_S)

        tracer = self._provider.get_tracer("gnomon")
        root = tracer.start_span(
            "request", start_time=at_ns(journey.received_s), attributes=journey.attributes
        )
        inside = set_span_in_context(root)
        for name, from_s, to_s in _legs(journey, ended_s):
            leg: Span = tracer.start_span(name, context=inside, start_time=at_ns(from_s))
            leg.end(at_ns(to_s))
        root.end(at_ns(ended_s))


def _legs(journey: _Journey, ended_s: float) -> list[tuple[str, float, float]]:
    """Return the parts of a journey; what was refused or only read was never committed."""
    if journey.taken_s is None:
        return []
    queue = ("queue", journey.received_s, journey.taken_s)
    if journey.committed_s is None:
        return [queue, ("answer", journey.taken_s, ended_s)]
    return [
        queue,
        ("commit", journey.taken_s, journey.committed_s),
        ("publish", journey.committed_s, ended_s),
    ]


def open_journeys(settings: TelemetrySettings, directory: Path, clock: Clock, rng: random.Random) -> Journeys:
    """Return journeys that go where the settings say."""
    if settings.traces == "off":
        return Journeys(clock, rng)
    exporter: SpanExporter = (
        ConsoleSpanExporter(out=sys.stderr, formatter=one_line)
        if settings.traces == "console"
        else FileSpanExporter(directory / FILE_NAME)
    )
    _log.info("traces_on", to=settings.traces, sample_ratio=settings.sample_ratio)
    return Journeys(clock, rng, BatchSpanProcessor(exporter), settings.sample_ratio)
