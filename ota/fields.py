"""Takes the members of a signed payload, each by its rule; the first that breaks one is named. Pure.

Members 1 to 31 that a reader does not know are refused, because they may change what the others mean; from
32 on they are ignored. (spec: ota, 2.2, V6)
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

from ota.envelope import UINT64_MAX, Plain
from ota.errors import FieldError

SCHEMA: Final = 1
UINT32_MAX: Final = 2**32 - 1
TIME_MAX: Final = 253_402_300_799
"""The last second of the year 9999: what comes after cannot be shown as a date."""
OPEN_KEYS: Final = 32
"""Members from here on may be ignored."""
UUID_BYTES: Final = 16
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Fields:
    """The members of one payload."""

    __slots__ = ("_payload",)

    def __init__(self, payload: Mapping[Plain, Plain], known: Collection[int]) -> None:
        """Refuse members that are not known and may not be ignored."""
        for key in payload:
            if type(key) is not int:
                raise FieldError(0, "a key is a number")
            if key < OPEN_KEYS and key not in known:
                raise FieldError(max(key, 0), "there is no such key")
        self._payload = payload

    def __contains__(self, key: int) -> bool:
        return key in self._payload

    def uint(self, key: int, least: int = 0, most: int = UINT64_MAX) -> int:
        """Return a number within bounds."""
        return checked_uint(key, self._given(key), least, most)

    def text(self, key: int, chars_max: int) -> str:
        """Return a text of at least one character, all of which can be shown."""
        return checked_text(key, self._given(key), chars_max)

    def octets(self, key: int, size: int) -> bytes:
        """Return bytes of exactly this number."""
        return checked_octets(key, self._given(key), size)

    def array(self, key: int, most: int) -> list[Plain]:
        """Return what is in an array of at least one member."""
        value = self._given(key)
        if type(value) is not list or not 1 <= len(value) <= most:
            raise FieldError(key, f"not an array of 1 to {most}")
        return value

    def map(self, key: int, most: int) -> dict[Plain, Plain]:
        """Return what is in a map of at least one member."""
        value = self._given(key)
        if type(value) is not dict or not 1 <= len(value) <= most:
            raise FieldError(key, f"not a map of 1 to {most}")
        return value

    def _given(self, key: int) -> Plain:
        if key not in self._payload:
            raise FieldError(key, "it is missing")
        return self._payload[key]


def checked_uint(key: int, value: Plain, least: int = 0, most: int = UINT64_MAX) -> int:
    """Return a number if it is one within bounds."""
    if type(value) is not int or not least <= value <= most:
        raise FieldError(key, f"not a whole number from {least} to {most}")
    return value


def checked_text(key: int, value: Plain, chars_max: int) -> str:
    """Return a text if it is one that can be shown; what moves a cursor is not."""
    if type(value) is not str or not 1 <= len(value) <= chars_max or not value.isprintable():
        raise FieldError(key, f"not a text of 1 to {chars_max} characters")
    return value


def checked_octets(key: int, value: Plain, size: int) -> bytes:
    """Return bytes if they are so many."""
    if type(value) is not bytes or len(value) != size:
        raise FieldError(key, f"not {size} bytes")
    return value


def uuid_text(data: bytes) -> str:
    """Spell the 16 bytes of a UUID."""
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def uuid_bytes(text: str) -> bytes:
    """Return the 16 bytes of a UUID in small letters; raises :class:`ValueError` for another text."""
    if not _UUID.fullmatch(text):
        raise ValueError(f"{text!r} is no UUID in small letters")
    return bytes.fromhex(text.replace("-", ""))
