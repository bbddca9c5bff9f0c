"""Spans as lines of JSON in a file that cannot grow without end."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FILE_BYTES_MAX: Final = 67_108_864
"""Above it the file becomes ``….1`` in place of the one before, and a new one is begun."""

_log = structlog.get_logger(__name__)


def one_line(span: ReadableSpan) -> str:
    """Return a span as one line of JSON."""
    return str(span.to_json(indent=None)) + "\n"


class FileSpanExporter(SpanExporter):
    """Appends spans to a file, on the span processor's thread; what cannot be written is lost."""

    def __init__(self, file: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._file = file
        self._bytes_max = bytes_max

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            with open(self._file, "a", encoding="utf-8", opener=_private) as opened:
                opened.writelines(map(one_line, spans))
                full = opened.tell() >= self._bytes_max
            if full:
                self._file.replace(self._file.with_name(self._file.name + ".1"))
        except OSError as error:
            _log.warning("traces_lost", spans=len(spans), reason=error.strerror)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def _private(path: str, flags: int) -> int:
    # Names of things are nobody else's business.
    return os.open(path, flags, 0o600)
