"""The port to events of the utility: until there are any, nobody has one."""

from collections.abc import Collection
from typing import Protocol


class Events(Protocol):
    """Knows which devices an upgrade must not disturb now."""

    async def quiet(self, things: Collection[str], now_ms: int) -> Collection[str]:
        """Return those that have an event running, starting within 900 s, or that had one 300 s ago."""
        ...


class NoEvents:
    """There are none."""

    async def quiet(self, things: Collection[str], now_ms: int) -> Collection[str]:  # noqa: ARG002 - of the port
        return ()
