"""The bounds of the REST API, each with its name and with what happens above it."""

from dataclasses import dataclass
from typing import Final

PAGE_MAX: Final = 100
"""Items of one page, at most and by default."""

QUERY_FIELDS_MAX: Final = 20
QUERY_BYTES_MAX: Final = 2_048
"""A longer query is refused before it is parsed: 400."""

PATH_PART_CHARS_MAX: Final = 256
"""Of what a path names; a longer part is refused before anything is looked up: 400."""

IDEMPOTENCY_KEY_BYTES_MAX: Final = 64

RETRY_AFTER_S: Final = 1
"""What a 429 or 503 tells the caller to wait; it should add a random part of its own."""


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What one process takes on; tests bring smaller numbers."""

    requests_max: int = 1_000
    """Requests being answered at once, streams included; above it 503."""
    streams_max: int = 200
    """Open event streams; above it 503. Well below ``requests_max``: streams never crowd out requests."""
    connections_max: int = 4_000
    """Open connections of a listener; above it the next is answered 503 or, where TLS is spoken, closed."""
    connections_per_address_max: int = 500
    """Those of one address where TLS is spoken; above it the next is closed."""
    body_bytes_max: int = 16_384
    """Body of a request about anything but a shadow; above it 413."""
    head_bytes_max: int = 16_384
    """Request line and headers that may wait to be completed; above it 431 and the connection is closed."""
    head_timeout_s: float = 10
    """A connection that has not sent a whole request head by then is closed."""
    body_timeout_s: float = 10
    """A request whose body has not come by then is answered 408."""
    keep_alive_s: int = 30
    """An idle connection is closed after this."""
    heartbeat_s: float = 15
    """A silent event stream says that it is alive, and looks whether another process wrote."""
    rights_check_s: float = 5
    """How often an open event stream looks whether its reader still may; it ends when not."""
    send_timeout_s: float = 30
    """A stream whose reader takes nothing for this long is ended."""
    stop_s: int = 2
    """Requests that are still being answered this long after the stop are cut off."""
    check_timeout_s: float = 2
    """A readiness check that has not answered by then counts as failed."""
