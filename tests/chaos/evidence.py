"""What a run left behind, as the checker reads it: steps, rows of history, documents, final shadows.

Nothing here imports ``shadow``: who judges must not share the rules of whom is judged. The stored bodies
are read by their form alone, which ``shadow/records.py`` describes.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fleet.history import Step
from infra.documents.opening import open_store
from infra.documents.port import Collection, DocumentStore

LOG = "history"
DEAD_LETTERS = "dead_letters"
SHADOWS = Collection("shadows", indexed=("thing", "pending"))
PAGE = 1_000
EVER_MS = 2**62

Key = tuple[str, str]
"""(thing, shadow)."""
Tree = dict[str, Any]
SECTIONS = ("desired", "reported")


class Line(Step):
    """A step, with the body where the load does not make it from a number."""

    body: str | None = None


class Full(msgspec.Struct, frozen=True):
    """The whole document as some rows hold it."""

    exists: bool
    desired: Tree = {}
    desired_stamps: Tree = {}
    reported: Tree = {}
    reported_stamps: Tree = {}


class Row(msgspec.Struct, frozen=True):
    """One version in the history."""

    version: int
    at_ms: int
    operation: str
    state: Tree | None = None
    token: str | None = None
    full: Full | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A shadow as it is stored, or as REST shows it: state and metadata by section, empty ones left out."""

    version: int
    exists: bool
    state: Tree = field(default_factory=dict)
    metadata: Tree = field(default_factory=dict)
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is judged."""

    lines: Sequence[Line]
    rows: Mapping[Key, Sequence[Row]]
    documents: Mapping[Key, Document]
    finals: Mapping[Key, Document]
    dead_letters: int = 0


class Final(msgspec.Struct):
    """A line of the file of final shadows; ``version`` 0 stands for 404."""

    thing: str
    shadow: str
    version: int
    state: Tree = {}
    metadata: Tree = {}


def read_lines(files: Sequence[Path]) -> list[Line]:
    """Return the steps of several histories in order of time; a line that was cut off is left out."""
    decode = msgspec.json.Decoder(Line).decode
    lines = [
        decode(text)
        for file in files
        for text in file.read_bytes().splitlines(keepends=True)
        if text.endswith(b"\n")
    ]
    return sorted(lines, key=lambda line: line.t)


def read_finals(file: Path) -> dict[Key, Document]:
    """Return the shadows as REST showed them at the end."""
    decode = msgspec.json.Decoder(Final).decode
    return {
        (final.thing, final.shadow): Document(
            final.version, final.version > 0, _sections(final.state), _sections(final.metadata)
        )
        for final in map(decode, file.read_bytes().splitlines())
    }


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store holds."""

    rows: dict[Key, list[Row]]
    documents: dict[Key, Document]
    dead_letters: int


def copy_store(database: Path, scratch: Path) -> Path:
    """Copy a store that nobody has open, to be read: evidence is not touched."""
    scratch.mkdir(parents=True, exist_ok=True)
    for file in database.parent.glob(database.name + "*"):
        shutil.copyfile(file, scratch / file.name)
    return scratch / database.name


async def read_store(copy: Path) -> Stored:
    """Read all of a store."""
    store = await open_store(f"sqlite:{copy}", [SHADOWS], [LOG, DEAD_LETTERS])
    try:
        rows: dict[Key, list[Row]] = {}
        async for key, body in _entries(store, LOG):
            rows.setdefault(_key(key), []).append(msgspec.json.decode(body, type=Row))
        for one in rows.values():
            one.sort(key=lambda row: row.version)
        dead_letters = 0
        async for _ in _entries(store, DEAD_LETTERS):
            dead_letters += 1
        return Stored(rows, await _documents(store, rows), dead_letters)
    finally:
        await store.close()


async def _entries(store: DocumentStore, log: str) -> Any:
    cursor: str | None = None
    while True:
        page = await store.scan(log, 0, EVER_MS, limit=PAGE, cursor=cursor)
        for entry in page.entries:
            yield entry.key, entry.body
        cursor = page.next
        if cursor is None:
            return


async def _documents(store: DocumentStore, keys: Mapping[Key, object]) -> dict[Key, Document]:
    found: dict[Key, Document] = {}
    ids = ["/".join(key) for key in keys]
    for first in range(0, len(ids), PAGE):
        documents = await store.get(SHADOWS.name, ids[first : first + PAGE])
        found |= {_key(id): _document(document.body) for id, document in documents.items()}
    return found


def _document(body: bytes) -> Document:
    """Read a stored shadow: an array of msgpack with JSON texts in it."""
    record = msgspec.msgpack.decode(body)
    _, version, _, exists, *parts, _, _, outbox, _, _ = record
    desired, desired_stamps, reported, reported_stamps = map(msgspec.json.decode, parts)
    return Document(
        version,
        exists,
        _sections({"desired": desired, "reported": reported}),
        _sections({"desired": desired_stamps, "reported": reported_stamps}),
        len(outbox),
    )


def document_of(row: Row) -> Document:
    """Return the whole document that a row holds."""
    full = row.full
    assert full is not None
    return Document(
        row.version,
        full.exists,
        _sections({"desired": full.desired, "reported": full.reported}),
        _sections({"desired": full.desired_stamps, "reported": full.reported_stamps}),
    )


def _sections(tree: Tree) -> Tree:
    """Return the two sections, without an empty one and without a delta."""
    return {name: tree[name] for name in SECTIONS if tree.get(name)}


def _key(id: str) -> Key:
    thing, _, shadow = id.partition("/")
    return thing, shadow


def keys_of(lines: Sequence[Line]) -> Iterator[Key]:
    """Yield each shadow that was written to, once."""
    yield from dict.fromkeys((line.thing, line.shadow) for line in lines)
