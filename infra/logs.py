"""Structured events on standard error, configured once per process.

Events, not prose: ``log.info("shadow_updated", thing=…, version=…)``. What a field with a telling name holds
(a payload, a token, a key) is replaced before anybody sees it, at any depth: fields are known by their
names, so name them well. Off the hot path: an event a failure or a batch, never one a message.
"""

import logging
import re
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import TextIO

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


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what must not be seen; a processor for structlog."""
    return {name: HIDDEN if is_secret(name) else _clean(value, 1) for name, value in event.items()}


def is_secret(name: str) -> bool:
    """Whether a field of this name is hidden: ``clientToken``, ``private_key_pem``, but not ``key``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(
        word in SECRET_WORDS or word.removesuffix("s") in SECRET_WORDS for word in words
    ) or not SECRET_PAIRS.isdisjoint(pairwise(words))


def _clean(value: object, depth: int) -> object:
    match value:
        case str():
            return mask(value)
        case bytes() | bytearray() | memoryview():
            return f"{len(value)} bytes"
        case Mapping() | list() | tuple() | set() | frozenset() if depth > DEPTH_MAX:
            return HIDDEN
        case Mapping():
            return {
                key: HIDDEN if is_secret(str(key)) else _clean(one, depth + 1) for key, one in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(one, depth + 1) for one in value]
        case _:
            return value


def _renderer(settings: LogSettings, stream: TextIO) -> Processor:
    if settings.format == "json":
        return structlog.processors.JSONRenderer(serializer=_encode)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )


def _encode(event: EventDict, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
