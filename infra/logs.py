"""Structured events on standard error, configured once per process.

Events, not prose: ``log.info("shadow_updated", thing=…, version=…)``. What a field with a telling name holds
(a payload, a token, a key) is replaced before anybody sees it, at any depth: fields are known by their
names, so name them well. What must never be seen wherever it stands, in a message of a library or a
traceback, is known by itself: :func:`conceal` it. Off the hot path: an event a failure or a batch, never one
a message.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final, TextIO
from urllib.parse import quote

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from infra.settings import LogSettings, mask

HIDDEN = "***"
SECRET_WORDS = frozenset(
    {"authorization", "body", "cookie", "credential", "password", "payload", "pem", "secret", "token"}
)
"""A field is hidden when one of the words of its name is one of these, also in the plural."""
SECRET_PAIRS = frozenset({("private", "key"), ("api", "key")})
"""… or when two neighbouring words are one of these."""
DEPTH_MAX = 6
"""What lies deeper is hidden without being searched."""

CANARIES_MAX: Final = 1_000
"""Concealed values that are remembered; the oldest make room, so conceal what lives long."""
CANARY_CHARS_MIN: Final = 8
"""A shorter value would blot out what has nothing to do with it."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog, and let the standard library's loggers speak through it."""
    stream = stream or sys.stderr
    level = _LEVELS[settings.level]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*before, _renderer(settings, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings, stream),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


class Canaries:
    """Values that are struck out of every text, wherever they stand, also percent-encoded."""

    def __init__(self) -> None:
        self._values: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, values: Iterable[str]) -> None:
        """Remember values; too short ones are not."""
        for value in values:
            if len(value) >= CANARY_CHARS_MIN:
                self._values.pop(value, None)
                self._values[value] = None
        while len(self._values) > CANARIES_MAX:
            del self._values[next(iter(self._values))]
        spellings = {spelling for value in self._values for spelling in (value, quote(value, safe=""))}
        # The longest first, or what one value begins with would leave the rest of it to be read.
        ordered = sorted(spellings, key=lambda one: (-len(one), one))
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def strike(self, text: str) -> str:
        """Return the text without them."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


_canaries: Final = Canaries()


def conceal(*values: str) -> None:
    """Strike these values out of everything that is logged from now on: secrets that live in this process."""
    _canaries.add(values)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what must not be seen; a processor for structlog."""
    return {
        _canaries.strike(name): HIDDEN if is_secret(name) else _clean(value, 1)
        for name, value in event.items()
    }


def is_secret(name: str) -> bool:
    """Whether a field of this name is hidden: ``clientToken``, ``private_key_pem``, but not ``key``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(
        word in SECRET_WORDS or word.removesuffix("s") in SECRET_WORDS for word in words
    ) or not SECRET_PAIRS.isdisjoint(pairwise(words))


def _clean(value: object, depth: int) -> object:
    match value:
        case str():
            return _canaries.strike(mask(value))
        case bytes() | bytearray() | memoryview():
            return f"{len(value)} bytes"
        case Mapping() | list() | tuple() | set() | frozenset() if depth > DEPTH_MAX:
            return HIDDEN
        case Mapping():
            return {
                _canaries.strike(str(key)): HIDDEN if is_secret(str(key)) else _clean(one, depth + 1)
                for key, one in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(one, depth + 1) for one in value]
        case bool() | int() | float() | None:
            return value
        case _:
            # Spelled here and not by the renderer, or what it says would not be looked at.
            return _clean(str(value), depth)


def _renderer(settings: LogSettings, stream: TextIO) -> Processor:
    if settings.format == "json":
        return structlog.processors.JSONRenderer(serializer=_encode)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )


def _encode(event: EventDict, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
