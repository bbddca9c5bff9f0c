"""Cursors: where a search goes on. Opaque text that tells which search made it. Pure.

A cursor is not a secret and not signed: a changed one can only start the same search elsewhere.
"""

import base64
import binascii
from collections.abc import Sequence

import msgspec

from infra.documents.port import IndexValue, InvalidCursorError

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[str | int], list[str | int]]).decode


def make(search: Sequence[IndexValue], position: Sequence[IndexValue]) -> str:
    """Return the cursor of ``search`` that goes on after ``position``."""
    return base64.urlsafe_b64encode(_encode((list(search), list(position)))).decode().rstrip("=")


def after_document(cursor: str, search: Sequence[IndexValue]) -> tuple[IndexValue, str]:
    """Return the (value, id) after which ``search`` goes on."""
    match position(cursor, search):
        case [value, str(id)] if type(value) is type(search[-1]):
            return value, id
        case _:
            raise InvalidCursorError(_WORDS)


def after_entry(cursor: str, search: Sequence[IndexValue]) -> tuple[int, str, int]:
    """Return the (at_ms, key, number) after which ``search`` goes on."""
    match position(cursor, search):
        case [int(at_ms), str(key), int(number)]:
            return at_ms, key, number
        case _:
            raise InvalidCursorError(_WORDS)


_WORDS = "the cursor was not made by this search: start the search again without one"


def position(cursor: str, search: Sequence[IndexValue]) -> list[IndexValue]:
    """Return the position that :func:`make` put into a cursor of ``search``."""
    try:
        made_by, found = _decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidCursorError(_WORDS) from error
    if made_by != list(search):
        raise InvalidCursorError(_WORDS)
    return found
