"""In-process fan-out of "something changed here": wake-ups, never data.

A watcher that was told goes and reads the truth where it lives. Wake-ups coalesce, so that a slow
watcher needs no queue and holds nobody up: a thousand announcements while it was busy are one.
Everything here runs on the event loop's thread.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

WATCHERS_MAX = 1_000


class TooManyWatchersError(Exception):
    """Every place is taken; the caller is to try again later."""

    def __init__(self, watchers_max: int) -> None:
        super().__init__(
            f"{watchers_max} watchers are here already; close one, or raise the bound, and try again"
        )
        self.watchers_max = watchers_max


class Watcher:
    """One party that waits for announcements on one topic."""

    __slots__ = ("_told", "closed")

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self.closed = False

    async def wait(self) -> None:
        """Return once something was announced since the last wait, or at once when closed."""
        await self._told.wait()
        if not self.closed:
            self._told.clear()

    def wake(self) -> None:
        self._told.set()

    def close(self) -> None:
        self.closed = True
        self._told.set()


class Live:
    """Who watches what. ``close`` ends all watchers, those who come later included."""

    def __init__(self, watchers_max: int = WATCHERS_MAX) -> None:
        self._watchers_max = watchers_max
        self._watchers: dict[str, set[Watcher]] = {}
        self._count = 0
        self._closed = False

    @property
    def watchers(self) -> int:
        return self._count

    def announce(self, topic: str) -> None:
        """Wake whoever watches ``topic``; costs one look-up when nobody does."""
        for watcher in self._watchers.get(topic, ()):
            watcher.wake()

    @contextmanager
    def watch(self, topic: str) -> Iterator[Watcher]:
        """Watch ``topic`` for as long as the block lasts."""
        watcher = self._enter(topic)
        try:
            yield watcher
        finally:
            self._leave(topic, watcher)

    def close(self) -> None:
        self._closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()

    def _enter(self, topic: str) -> Watcher:
        if self._count >= self._watchers_max:
            raise TooManyWatchersError(self._watchers_max)
        watcher = Watcher()
        if self._closed:
            watcher.close()
        self._watchers.setdefault(topic, set()).add(watcher)
        self._count += 1
        return watcher

    def _leave(self, topic: str, watcher: Watcher) -> None:
        watchers = self._watchers[topic]
        watchers.remove(watcher)
        if not watchers:
            del self._watchers[topic]
        self._count -= 1
