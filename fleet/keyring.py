"""Whose signatures a device believes: what the last key list says that a root vouches for.

A job names the number of the list that its signatures need. A device that holds an older one asks for that
list first, as a file of the stream ``keys-`` and the number, and keeps it in flash: none with a lower number
takes its place. The number is not signed: where there is no such list, or no good one, what is held counts.
"""

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509

from fleet.flash import Pages
from ota.errors import KeyListError
from ota.key_list import KeyList, read, verify
from ota.verification import BLOCK_FAILURES_MAX, Keys

STREAM: Final = "keys-"
LIST_FILE: Final = 0
LIST_BYTES_MAX: Final = 131_072
"""A list fits into one block."""
ANSWER_S, ANSWER_S_MAX = 10.0, 60.0
TRIES_MAX: Final = 5
NONE: Final[Keys] = MappingProxyType({})
LISTS_PARSED: Final = 4
"""A fleet in one process holds the same list thousands of times."""


def read_roots(file: Path) -> list[x509.Certificate]:
    """Return the certificates of a file: the roots that a device leaves the factory with."""
    return x509.load_pem_x509_certificates(file.read_bytes())


class Keyring:
    """The list that one device holds, and the one it asks for. Without roots it is told its keys."""

    __slots__ = ("_bad", "_chance", "_due_at", "_number", "_pages", "_roots", "_told", "_tries")

    def __init__(
        self, pages: Pages, told: Keys, roots: Sequence[x509.Certificate], chance: random.Random
    ) -> None:
        self._pages, self._told, self._roots, self._chance = pages, told, roots, chance
        self._number = self._tries = self._bad = 0
        self._due_at = math.inf

    def keys(self, now_s: int) -> Keys:
        """Return the keys that count now: none of a list that has ended."""
        if not self._roots:
            return self._told
        held = self._held
        return NONE if held is None or now_s >= held.expires else held.by_kid()

    @property
    def number(self) -> int:
        """Return the number of the list that is held; 0 for none."""
        return 0 if self._held is None else self._held.number

    @property
    def stream(self) -> str:
        """Return what is asked for; empty while nothing is."""
        return f"{STREAM}{self._number}" if self._number else ""

    @property
    def wake_at(self) -> float:
        """Return when ``ask`` has something to say if nothing comes."""
        return self._due_at

    def wants(self, number: int, now: float) -> bool:
        """Ask for the list that a job names, if it is newer than what is held; False: go on with that."""
        if not self._roots or number <= self.number:
            self.stop()
            return False
        if number != self._number:
            self._number, self._due_at, self._tries, self._bad = number, now, 0, 0
        return True

    def ask(self, now: float) -> dict[str, Any] | None:
        """Return the next request, if it is time for one."""
        if now < self._due_at:
            return None
        self._tries += 1
        longest = min(ANSWER_S_MAX, ANSWER_S * 2 ** (self._tries - 1))
        self._due_at = now + self._chance.uniform(ANSWER_S, longest)
        return {"f": LIST_FILE, "l": LIST_BYTES_MAX, "o": 0, "n": 1}

    def take(self, data: bytes, now_s: int) -> bool:
        """Judge what came, and keep it if it is good; True: nothing more is waited for."""
        try:
            verify(data, self._roots, now_s, self.number)
        except KeyListError:
            self._bad += 1
            if self._bad < BLOCK_FAILURES_MAX:
                self._due_at = now_s
                return False
        else:
            self._pages.write(data)
        self.stop()
        return True

    def refused(self, *, is_missing: bool) -> bool:
        """Go on without it if there is none, else ask again later; True: nothing more is waited for."""
        if is_missing:
            self.stop()
        return is_missing

    def given_up(self, now: float) -> bool:
        """Tell whether so often nothing came that it is not waited for any more."""
        if self._tries < TRIES_MAX or now < self._due_at:
            return False
        self.stop()
        return True

    def again(self, now: float) -> None:
        """Ask at once: whatever was asked for went down with a connection."""
        if self._number:
            self._due_at = now

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._number, self._due_at = 0, math.inf

    @property
    def _held(self) -> KeyList | None:
        data = self._pages.read() if self._roots else None
        return None if data is None else _parsed(data)


@lru_cache(LISTS_PARSED)
def _parsed(data: bytes) -> KeyList:
    return read(data)
