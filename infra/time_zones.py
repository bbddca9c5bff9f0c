"""Which names of time zones mean anything here: those that the IANA database of this machine knows."""

from typing import Final
from zoneinfo import ZoneInfo

NAME_CHARS_MAX: Final = 64
"""The longest that there is has half of it."""


def is_time_zone(name: str) -> bool:
    """Tell whether there is a time zone of this name."""
    if len(name) > NAME_CHARS_MAX or not name.isascii() or not name.isprintable():
        return False
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown; a folder of the database; no name at all
        return False
    return True
