"""Finished journeys as spans of OpenTelemetry. Loads the SDK, so it is imported only when traces are on.

Everything is said here and nothing left to ``OTEL_*`` variables: what a trace costs and holds is decided by
our settings. (``OTEL_SDK_DISABLED`` is the one that the SDK obeys all the same.)
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import set_span_in_context

from infra.telemetry.journeys import Leg
from infra.telemetry.span_lines import FileSpanExporter, one_line

FILE_NAME: Final = "traces.jsonl"
WAITING_SPANS_MAX: Final = 2_048
"""Spans that wait for the exporter; one more is lost."""
BATCH_SPANS_MAX: Final = 512
EXPORT_EVERY_MS: Final = 1_000
EXPORT_MS_MAX: Final = 10_000
CLOSE_MS_MAX: Final = 1_000
ATTRIBUTES_MAX: Final = 16
ATTRIBUTE_CHARS_MAX: Final = 256


class Spans:
    """Makes a span of each leg and hands it to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is sampled was decided before anything was kept
            resource=Resource({SERVICE_NAME: "gnomon"}),
            span_limits=SpanLimits(
                max_attributes=ATTRIBUTES_MAX,
                max_span_attributes=ATTRIBUTES_MAX,
                max_event_attributes=0,
                max_link_attributes=0,
                max_events=0,
                max_links=0,
                max_attribute_length=ATTRIBUTE_CHARS_MAX,
                max_span_attribute_length=ATTRIBUTE_CHARS_MAX,
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gnomon")

    def record(self, attributes: Mapping[str, str], legs: Sequence[Leg]) -> None:
        """Make a trace: the first leg is the whole journey, the others are its parts."""
        whole, *parts = legs
        root = self._tracer.start_span(whole.name, start_time=whole.from_ns, attributes=attributes)
        inside = set_span_in_context(root)
        for part in parts:
            span = self._tracer.start_span(part.name, context=inside, start_time=part.from_ns)
            span.end(part.to_ns)
        root.end(whole.to_ns)

    def close(self) -> None:
        """Hand over what waits; a slow exporter is not waited for any longer than a second."""
        self._provider.force_flush(CLOSE_MS_MAX)
        self._provider.shutdown()


def open_spans(to: Literal["console", "file"], directory: Path) -> Spans:
    """Return spans that go to standard error or to a file in ``directory``."""
    exporter: SpanExporter = (
        # Standard output is for people and pipes.
        ConsoleSpanExporter(out=sys.stderr, formatter=one_line)
        if to == "console"
        else FileSpanExporter(directory / FILE_NAME)
    )
    return Spans(
        BatchSpanProcessor(
            exporter,
            max_queue_size=WAITING_SPANS_MAX,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=BATCH_SPANS_MAX,
            export_timeout_millis=EXPORT_MS_MAX,
        )
    )
