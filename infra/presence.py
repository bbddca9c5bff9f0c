"""Who is connected to the broker, as far as this process has heard: a hint, never a permission.

Whoever needs it to be true in several processes keeps what follows from it in a document. After a start
nobody is here until they give a sign.
"""

from collections.abc import Callable, Collection
from typing import Final

CONNECTED_MAX: Final = 1_000_000
"""Of more than these it is not known whether they are here."""

Listener = Callable[[str], None]
"""Is told who came or went. Must not raise or wait."""


class Presence:
    """Notes who comes and goes."""

    def __init__(self) -> None:
        self._here: set[str] = set()
        self.listeners: list[Listener] = []

    def came(self, name: str) -> None:
        """Note that somebody is connected."""
        if name not in self._here and len(self._here) < CONNECTED_MAX:
            self._here.add(name)
            self._tell(name)

    def went(self, name: str) -> None:
        """Note that somebody is not connected any more."""
        if name in self._here:
            self._here.discard(name)
            self._tell(name)

    def begin(self, here: Collection[str]) -> None:
        """Begin anew: these are here, and nobody else."""
        for name in self._here - set(here):
            self.went(name)
        for name in here:
            self.came(name)

    def is_here(self, name: str) -> bool:
        """Tell whether somebody is connected."""
        return name in self._here

    def _tell(self, name: str) -> None:
        for listener in self.listeners:
            listener(name)
