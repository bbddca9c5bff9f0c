"""The stream protocol (AWS IoT file delivery over MQTT), bytes in, bytes out; no file is needed. Pure.

Read here are requests for blocks, and written are answers, both as JSON and as CBOR. A request is refused
with the first code that fits, in the order of :class:`Code`. What a thing may have, and where the bytes are,
is :mod:`ota.stream_service`. (spec: ota, 5)
"""

import io
import re
from binascii import Error as HexError
from binascii import b2a_base64, unhexlify
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Final, Never

import cbor2
import msgspec

STREAM_CHARS_MAX: Final = 44
REQUEST_BYTES_MAX: Final = 32_768
"""The largest bitmap as hex, and room for the rest."""
TOKEN_BYTES_MAX: Final = 64
FILE_MAX: Final = 255
BLOCK_BYTES_MIN: Final = 256
BLOCK_BYTES_MAX: Final = 131_072
BLOCKS_MAX: Final = 98_304
"""Blocks of a file, so also the largest offset and count."""
BITMAP_BYTES_MAX: Final = 12_287
ANSWER_BYTES_MAX: Final = 131_072
"""Of the file, per request; the rest is to be asked again."""
FILE_BYTES_MAX: Final = 25_165_824
"""98,304 blocks of the smallest size; a larger image goes by HTTP only."""
VERSION: Final = 1
"""Of every stream: it never changes, a new image is a new stream."""

_DEPTH_MAX: Final = 8
_NOT_A_BITMAP: Final = b"MQ=="
"""A widely used client library always puts these bytes where the bitmap belongs. Who means them as one loses
nothing when they are passed over: their first bit is set, so that each answer still holds a wanted block."""

_STREAM = re.compile(f"[a-zA-Z0-9_-]{{1,{STREAM_CHARS_MAX}}}", re.ASCII)
_SET = re.compile(rb"[^\x00]")
_BITS: Final = tuple(tuple(k for k in range(8) if byte >> k & 1) for byte in range(256))


class Format(StrEnum):
    """How a request and its answers are spelled; the word stands in the topic."""

    JSON = "json"
    CBOR = "cbor"


class Code(StrEnum):
    """Why a request is refused, in the order in which it is looked at."""

    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_CBOR = "InvalidCbor"
    INVALID_REQUEST = "InvalidRequest"
    BLOCK_SIZE = "BlockSizeOutOfBounds"
    OFFSET = "OffsetOutOfBounds"
    """Looked at twice: whether it can be an offset at all, and last whether anything of the file is left."""
    BLOCK_COUNT = "BlockCountLimitExceeded"
    BITMAP = "BlockBitmapLimitExceeded"
    NOT_FOUND = "ResourceNotFound"
    VERSION = "VersionMismatch"
    INTERNAL = "InternalError"
    FORBIDDEN = "Forbidden"
    """In a gateway's tree only: the thing is not attached to it, or there is none."""


class StreamError(Exception):
    """A request is refused; ``token`` is given back if there was a well-formed one."""

    def __init__(self, code: Code, message: str, token: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.token = token


@dataclass(frozen=True, slots=True)
class BlocksAsked:
    """A request for blocks of one file, all of it within bounds."""

    token: str | None
    version: int | None
    file: int
    length: int
    offset: int
    count: int
    bitmap: bytes | None


# ---------------------------------------------------------------------- requests


def check_topic(stream: str, format: str) -> Format:
    """Return the format; raise :class:`StreamError` when the topic names nothing that could be."""
    if _STREAM.fullmatch(stream) is None:
        raise StreamError(Code.INVALID_TOPIC, "the name of the stream is malformed")
    if format not in _FORMATS:
        raise StreamError(Code.INVALID_TOPIC, "a topic ends with json or cbor")
    return _FORMATS[format]


def parse_describe(payload: bytes, format: Format) -> str | None:
    """Return the token of a request that asks what there is."""
    return _token(_fields(payload, format))


def parse_get(payload: bytes, format: Format) -> BlocksAsked:
    """Return what blocks are asked for; raise :class:`StreamError`."""
    fields = _fields(payload, format)
    token = _token(fields)
    try:
        return _blocks(fields, format, token)
    except StreamError as error:
        error.token = token
        raise


def peek_token(payload: bytes, format: str) -> str | None:
    """Return the token of a request that is refused unread; None when it has none that is well-formed."""
    try:
        return _token(_fields(payload, Format(format)))
    except (StreamError, ValueError):
        return None


def _blocks(fields: Mapping[str, Any], format: Format, token: str | None) -> BlocksAsked:
    version, offset, count = (_integer(fields, name) for name in ("s", "o", "n"))
    file, length = (_needed(fields, name) for name in ("f", "l"))
    bitmap = _bitmap(fields.get("b"), format) if "b" in fields else None
    if not 0 <= file <= FILE_MAX:
        raise StreamError(Code.INVALID_REQUEST, f"f is between 0 and {FILE_MAX}")
    if not BLOCK_BYTES_MIN <= length <= BLOCK_BYTES_MAX:
        raise StreamError(Code.BLOCK_SIZE, f"l is between {BLOCK_BYTES_MIN} and {BLOCK_BYTES_MAX}")
    if offset is not None and not 0 <= offset <= BLOCKS_MAX:
        raise StreamError(Code.OFFSET, f"o is between 0 and {BLOCKS_MAX}")
    at_once = ANSWER_BYTES_MAX // length
    if count is not None and not 1 <= count <= BLOCKS_MAX:
        raise StreamError(Code.BLOCK_COUNT, f"n is between 1 and {BLOCKS_MAX}")
    if bitmap is not None and len(bitmap) > BITMAP_BYTES_MAX:
        raise StreamError(Code.BITMAP, f"b has at most {BITMAP_BYTES_MAX} bytes")
    return BlocksAsked(token, version, file, length, offset or 0, min(count or at_once, at_once), bitmap)


def block_ids(asked: BlocksAsked, size: int) -> Sequence[int]:
    """Return which blocks of a file of ``size`` bytes answer a request, rising; none if none is left.

    Bit k of byte j of the bitmap, the least significant first, is block ``offset + 8j + k``.
    """
    end = -(-size // asked.length)
    if asked.bitmap is None:
        return range(asked.offset, min(asked.offset + asked.count, end))
    wanted = (
        asked.offset + 8 * found.start() + bit
        for found in _SET.finditer(asked.bitmap)
        for bit in _BITS[asked.bitmap[found.start()]]
    )
    ids = list(islice(wanted, asked.count))
    return ids if not ids or ids[-1] < end else [id for id in ids if id < end]


def _fields(payload: bytes, format: Format) -> Mapping[str, Any]:
    code = Code.INVALID_JSON if format is Format.JSON else Code.INVALID_CBOR
    if len(payload) > REQUEST_BYTES_MAX:
        raise StreamError(Code.INVALID_REQUEST, f"a request has at most {REQUEST_BYTES_MAX} bytes")
    try:
        value = msgspec.json.decode(payload) if format is Format.JSON else _from_cbor(payload)
    except _UNREADABLE:
        raise StreamError(code, f"the request is not {format.upper()}") from None
    if not isinstance(value, Mapping):
        raise StreamError(code, "the request is not a map")
    return value


def _from_cbor(payload: bytes) -> object:
    stream = io.BytesIO(payload)
    value = cbor2.CBORDecoder(
        stream, semantic_decoders=_REFUSED_TAGS, max_depth=_DEPTH_MAX, strict_hashable_types=True
    ).decode()
    if stream.tell() != len(payload):
        raise cbor2.CBORDecodeError("bytes after the end")
    return value


def _refuse_tag(_decoder: object) -> Never:
    raise cbor2.CBORDecodeError("a tag that no request needs")


_TAGS_DECODED: Final = (
    0,
    1,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43_000,
)
_REFUSED_TAGS: Final = dict.fromkeys(_TAGS_DECODED, _refuse_tag)
"""What the decoder would make something of (dates, patterns, fractions, references) no request holds."""
_UNREADABLE: Final = (cbor2.CBORError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FORMATS: Final = {one.value: one for one in Format}


def _token(fields: Mapping[str, Any]) -> str | None:
    if "c" not in fields:
        return None
    token = fields["c"]
    if not isinstance(token, str) or len(token.encode()) > TOKEN_BYTES_MAX:
        raise StreamError(Code.INVALID_REQUEST, f"c is a text of at most {TOKEN_BYTES_MAX} bytes")
    return token


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    return _needed(fields, name) if name in fields else None


def _needed(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int:  # True is no number here
        raise StreamError(Code.INVALID_REQUEST, f"{name} is an integer")
    return value


def _bitmap(value: object, format: Format) -> bytes | None:
    if value in (_NOT_A_BITMAP, _NOT_A_BITMAP.decode()):
        return None
    if format is Format.CBOR:
        if isinstance(value, bytes):
            return value
        raise StreamError(Code.INVALID_REQUEST, "b is a byte string")
    try:
        if isinstance(value, str):
            return unhexlify(value.removeprefix("0x"))
    except (HexError, ValueError):
        pass
    raise StreamError(Code.INVALID_REQUEST, "b is a text of hexadecimal digits, two for each byte")


# ---------------------------------------------------------------------- answers


def data_head(token: str | None, format: Format) -> bytes:
    """Return how each message of one answer begins; one of :func:`data_tail` follows."""
    if format is Format.JSON:
        return b"{" if token is None else b'{"c":%b,' % msgspec.json.encode(token)
    if token is None:
        return b"\xa4"
    return b"\xa5\x61c" + cbor2.dumps(token)


def data_tail(file: int, id: int, block: memoryview, format: Format) -> bytes:
    """Return what all answers that hold this block end with, whoever asked."""
    length = len(block)
    if format is Format.JSON:
        text = b2a_base64(block, newline=False)
        return b'"f":%d,"l":%d,"i":%d,"p":"%b"}' % (file, length, id, text)
    return b"".join(
        (b"\x61f", _number(0, file), b"\x61l", _number(0, length), b"\x61i", _number(0, id), b"\x61p",
         _number(_BYTE_STRING, length), block)
    )  # fmt: skip


def description(token: str | None, text: str, sizes: Mapping[int, int], format: Format) -> bytes:
    """Return what a stream holds: its files by number, with their sizes."""
    files = [{"f": file, "z": size} for file, size in sorted(sizes.items())]
    return _encoded(_with_token(token) | {"s": VERSION, "d": text, "r": files}, format)


def rejected(error: StreamError, format: Format) -> bytes:
    """Return a refusal."""
    return _encoded({"o": error.code.value, "m": error.message} | _with_token(error.token), format)


def _with_token(token: str | None) -> dict[str, Any]:
    return {} if token is None else {"c": token}


def _encoded(answer: dict[str, Any], format: Format) -> bytes:
    return msgspec.json.encode(answer) if format is Format.JSON else cbor2.dumps(answer)


_BYTE_STRING: Final = 0x40
_INLINE_MAX: Final = 23
_SIZES: Final = ((24, 1), (25, 2), (26, 4))
"""What stands in the head where the number comes in so many bytes behind it."""


def _number(kind: int, value: int) -> bytes:
    """Return the head of a CBOR item: its kind, and a number in the shortest form."""
    if value <= _INLINE_MAX:
        return bytes((kind | value,))
    more, size = next((more, size) for more, size in _SIZES if value < 1 << 8 * size)
    return bytes((kind | more,)) + value.to_bytes(size, "big")
