"""The audit chain: entries in blocks, each entry linked to all before it. Pure: bytes in, a verdict out.

    h(i) = SHA-256(h(i-1) || the bytes of entry i as they were stored)        h(0) = GENESIS

The links run through all blocks; a block begins with the link its predecessor ended with::

    {"format":1,"number":7,"prev":"…","before":4210,"count":2,"from_ms":…,"to_ms":…,"upto_ms":…,"hash":"…"}
    <h(4211), 64 hex digits> <entry 4211, JSON>
    <h(4212)> <entry 4212>

Each line keeps its own link, so that a verification names the first position that is not what it was.
Whoever can write all blocks can also link them anew: that is found by the heads that were published
(:mod:`security.heads`). What is checked, in this order:

    C1 the header can be read            C5 each line: its link follows from the one before and its entry
    C2 the block has its number          C6 as many lines as the header says, and the last one is whole
    C3 it begins where the last ended    C7 the header says what follows from the lines, byte for byte
    C4 each line can be read             C8 a head of this number was published: it is this one
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

FORMAT: Final = 1
GENESIS: Final = hashlib.sha256(b"gnomon audit chain 1").digest()
"""What the first entry of all is linked to."""
ENTRIES_MAX: Final = 1_000
"""Entries of one block."""
BLOCK_BYTES_MAX: Final = 2**20
"""Bytes of one block, unless its only entry is larger."""
HEADER_BYTES_MAX: Final = 1_024
_LINK_CHARS: Final = 64
LINE_BYTES: Final = _LINK_CHARS + 2
"""What a line adds to its entry."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: its last block, the link that stands for everything up to there."""

    number: int
    link: bytes
    entries: int
    """Entries of the whole chain."""
    upto_ms: int
    """The highest time of an entry so far."""

    @property
    def hash(self) -> str:
        return self.link.hex()


EMPTY: Final = Head(0, GENESIS, 0, 0)
"""The head of a chain without blocks."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a block. ``hash`` is the link of its last entry."""

    format: int
    number: int
    prev: str
    before: int
    count: int
    from_ms: int
    to_ms: int
    upto_ms: int
    hash: str

    @property
    def head(self) -> Head:
        """Where a chain ends that ends with this block, if the header is true."""
        return Head(self.number, bytes.fromhex(self.hash), self.before + self.count, self.upto_ms)


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it lies there; nothing is verified but that it can be read."""

    header: Header
    entries: tuple[bytes, ...]


class BadPositionError(Exception):
    """The first position of a chain that is not what it was."""

    def __init__(self, block: int, index: int, problem: str, entry: str = "") -> None:
        """``index`` counts the entries of the block from 1; 0 is its header. ``entry`` is the entry's id."""
        place = f"block {block}, " + (f"entry {index}" if index else "header")
        super().__init__(f"{place}{f' ({entry})' if entry else ''}: {problem}")
        self.block = block
        self.index = index
        self.entry = entry
        self.problem = problem


class _Known(msgspec.Struct):
    """What the chain has to know of an entry."""

    id: str
    at_ms: int


_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
_header: Final = msgspec.json.Decoder(Header).decode
_known: Final = msgspec.json.Decoder(_Known).decode
_encode: Final = msgspec.json.Encoder().encode


def link_after(link: bytes, entry: bytes) -> bytes:
    """Return h(i) for h(i-1) and the bytes of entry i."""
    return hashlib.sha256(link + entry).digest()


def make(head: Head, entries: Sequence[bytes]) -> tuple[bytes, Head]:
    """Return the body of the block that follows ``head``, and the head after it."""
    assert entries, "a block has an entry"
    written: list[bytes] = []
    link = head.link
    for entry in entries:
        link = link_after(link, entry)
        written.append(link.hex().encode() + b" " + entry)
    times = [_known(entry).at_ms for entry in entries]
    header = _header_after(head, link, times)
    return b"\n".join((_encode(header), *written, b"")), header.head


def sealable(entry: bytes) -> bool:
    """Tell whether a block can hold this: it is an entry, on one line, and not larger than a block may be."""
    if len(entry) > BLOCK_BYTES_MAX or b"\n" in entry:
        return False
    try:
        _known(entry)
    except _UNREADABLE:
        return False
    return True


def portions(entries: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield from where to where entries go into one block."""
    first = size = 0
    for position, entry in enumerate(entries):
        more = LINE_BYTES + len(entry)
        full = position - first == ENTRIES_MAX or size + more > BLOCK_BYTES_MAX - HEADER_BYTES_MAX
        if full and position > first:
            yield first, position
            first, size = position, 0
        size += more
    if len(entries) > first:
        yield first, len(entries)


def parse(number: int, body: bytes) -> Block:
    """Read a block without verifying it; ``number`` is where it was found."""
    top, rest = _lines(body)
    return Block(_header_of(number, top), tuple(entry for _, entry in _split(number, rest)))


def lines(number: int, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what the lines of a block say, without verifying it: link and entry."""
    for link, entry in _split(number, _lines(body)[1]):
        yield link.decode("ascii", errors="replace"), entry


def header_of(number: int, body: bytes) -> Header:
    """Read the first line alone."""
    return _header_of(number, body[: body.find(b"\n")])


def verify(head: Head, body: bytes) -> Head:
    """Return the head after the block that follows ``head``; raise :class:`BadPositionError`."""
    number = head.number + 1
    top, rest = _lines(body)
    header = _header_of(number, top)  # C1
    if (header.format, header.number) != (FORMAT, number):  # C2
        raise BadPositionError(number, 0, f"is block {header.number} of format {header.format}")
    if (header.prev, header.before) != (head.hash, head.entries):  # C3
        raise BadPositionError(number, 0, f"does not follow block {head.number} as that one ends now")
    link = head.link
    times: list[int] = []
    for index, (said, entry) in enumerate(_split(number, rest), 1):  # C4
        link = link_after(link, entry)
        if said != link.hex().encode():  # C5
            raise BadPositionError(number, index, "does not follow from what is before it", _id_of(entry))
        times.append(_read(number, index, entry).at_ms)
    if not body.endswith(b"\n"):  # C6
        raise BadPositionError(number, len(times), "does not end as a line does")
    if header.hash != link.hex() and header.count > len(times):
        raise BadPositionError(number, len(times) + 1, f"is missing: the block had {header.count}")
    if header.hash != link.hex() and header.count < len(times):
        raise BadPositionError(number, header.count + 1, f"is one too many: the block had {header.count}")
    true = _header_after(head, link, times)
    if top != _encode(true):  # C7
        raise BadPositionError(number, 0, "does not say what follows from the entries")
    return true.head


@dataclass(slots=True)
class Verification:
    """Verifies a chain block by block, against the heads that were published, by block number."""

    published: Mapping[int, Head]
    head: Head = EMPTY
    agreed: int = 0
    """The last block whose published head agreed."""

    def take(self, body: bytes | None) -> None:
        """Verify the next block; None = it is not there, though later ones are."""
        number = self.head.number + 1
        if body is None:
            raise BadPositionError(number, 0, "is missing")
        head = verify(self.head, body)
        self._compare(head)  # C8
        self.head = head

    def end(self) -> None:
        """Say that there are no more blocks."""
        later = [number for number in self.published if number > self.head.number]
        if later:
            raise BadPositionError(
                self.head.number + 1, 0, f"is missing: the head of block {max(later)} was published"
            )

    def _compare(self, head: Head) -> None:
        said = self.published.get(head.number)
        if said is None:
            return
        if (said.link, said.entries) != (head.link, head.entries):
            raise BadPositionError(
                head.number,
                0,
                f"is not what was published: the chain was made anew somewhere after block {self.agreed}",
            )
        self.agreed = head.number


def _header_after(head: Head, link: bytes, times: Sequence[int]) -> Header:
    return Header(
        format=FORMAT,
        number=head.number + 1,
        prev=head.hash,
        before=head.entries,
        count=len(times),
        from_ms=min(times, default=0),
        to_ms=max(times, default=0),
        upto_ms=max(head.upto_ms, *times) if times else head.upto_ms,
        hash=link.hex(),
    )


def _lines(body: bytes) -> tuple[bytes, list[bytes]]:
    """Return the first line and the others; what was torn off in its middle is a line all the same."""
    top, *rest = body.split(b"\n")
    if rest and not rest[-1]:
        rest.pop()
    return top, rest


def _header_of(number: int, top: bytes) -> Header:
    try:
        header = _header(top)
        _ = header.head
    except _UNREADABLE as error:
        raise BadPositionError(number, 0, f"cannot be read: {error}") from error
    return header


def _split(number: int, rest: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for index, line in enumerate(rest, 1):
        if line[_LINK_CHARS : _LINK_CHARS + 1] != b" ":
            raise BadPositionError(number, index, "cannot be read: no link in front")
        yield line[:_LINK_CHARS], line[_LINK_CHARS + 1 :]


def _read(number: int, index: int, entry: bytes) -> _Known:
    try:
        return _known(entry)
    except _UNREADABLE as error:
        raise BadPositionError(number, index, f"cannot be read: {error}") from error


def _id_of(entry: bytes) -> str:
    try:
        return _known(entry).id
    except _UNREADABLE:
        return ""
