"""What a run left behind, as the checker reads it: flashes, the service's records, logs and samples.

Nothing here imports what is judged: neither the devices' boot loader nor the service's rules. Bytes are read
by their form alone, which ``fleet/flash.py``, ``fleet/boot.py`` and ``ota/models.py`` describe.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from infra.documents.opening import open_store
from infra.documents.port import Collection, DocumentStore
from tests.chaos.evidence import copy_store
from tests.chaos_ota.cast import Cast, Group, read_cast
from tests.chaos_ota.written import ACTS, FLASHES, LOG, RUN, SAMPLES, Act, Dump, Flashed, Run, Sample

EXECUTIONS: Final = Collection("ota_executions", ("campaign", "thing", "open", "pending", "touched"))
CAMPAIGNS: Final = Collection("ota_campaigns", ("listed", "state", "release", "at_work"))
PAGE: Final = 500
T = TypeVar("T")
SEQUENCE_BYTES, CRC_BYTES = 8, 4


class Image(msgspec.Struct, frozen=True, array_like=True):
    """What a record says of an image."""

    sha256: str
    size: int
    block: int
    version: int
    label: str
    counter: int
    schema: int
    manifest: str
    issued: int = 0


class Record(msgspec.Struct, frozen=True, array_like=True):
    """The record ``ota`` of a flash, as far as it is judged."""

    running: str
    images: dict[str, Image | None]
    counter: int
    floor: int
    boots: int
    state: int
    reason: str
    job: str
    attempt: int
    end: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device as it lies there, without power."""

    record: Record | None
    """None: no page of it is whole."""
    sha256: Mapping[str, str]
    """Of the bytes in each slot, as many as its image has; empty where the record knows of no image."""
    config: Mapping[str, Any]
    """Of the slot that runs."""


class Line(msgspec.Struct, frozen=True):
    """A line of what devices wrote down."""

    t: int
    thing: str
    event: str
    state: int = 0
    runs: str = ""
    candidate: str = ""
    manifest: str = ""
    trials: int = 0
    reason: str = ""
    end: str = ""
    job: str = ""
    how: str = ""
    name: str = ""
    count: int = 0


class Attempt(msgspec.Struct, frozen=True):
    """A try that is over."""

    number: int
    state: str
    reason: str = ""
    go_at_ms: int = 0
    ended_at_ms: int = 0


class Execution(msgspec.Struct, frozen=True):
    """One target as the service keeps it."""

    campaign: str
    thing: str
    state: str
    attempt: int = 1
    go_at_ms: int = 0
    ended_at_ms: int = 0
    reason: str = ""
    how: str = ""
    late: bool = False
    past: list[Attempt] = []

    @property
    def had_go(self) -> bool:
        """Whether it was ever let go on."""
        return bool(self.go_at_ms) or any(one.go_at_ms for one in self.past)


class Campaign(msgspec.Struct, frozen=True):
    """One campaign as the service keeps it."""

    id: str
    state: str
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is judged."""

    run: Run
    cast: Cast
    devices: Mapping[str, Device]
    lines: Sequence[Line]
    acts: Sequence[Act]
    samples: Sequence[Sample]
    executions: Sequence[Execution]
    campaigns: Mapping[str, Campaign]
    miscounts: int = 0
    """How often the service itself found that it had counted wrong."""

    def campaign_of(self, group: Group) -> str:
        """Return the id of a group's campaign; empty if it was never begun."""
        return next((one.campaign for one in self.acts if (one.act, one.group) == ("begin", group)), "")


async def read_evidence(directory: Path, scratch: Path) -> Evidence:
    """Read all that a run left in its directory."""
    store = await open_store(
        f"sqlite:{copy_store(directory / 'var' / 'gnomon.db', scratch)}", [EXECUTIONS, CAMPAIGNS], []
    )
    try:
        acts = _lines(directory / ACTS, Act)
        ids = [one.campaign for one in acts if one.act == "begin"]
        executions = [one for id in ids for one in await _executions(store, id)]
        found = await store.get(CAMPAIGNS.name, ids)
    finally:
        await store.close()
    dump = msgspec.msgpack.decode((directory / FLASHES).read_bytes(), type=Dump)
    return Evidence(
        run=msgspec.json.decode((directory / RUN).read_bytes(), type=Run),
        cast=read_cast(directory),
        devices={thing: read_device(flash, dump.blocks) for thing, flash in dump.flashes.items()},
        lines=_lines(directory / LOG, Line),
        acts=acts,
        samples=_lines(directory / SAMPLES, Sample),
        executions=executions,
        campaigns={id: msgspec.json.decode(one.body, type=Campaign) for id, one in found.items()},
        miscounts=(directory / "log").read_bytes().count(b'"event":"campaign_miscounted"'),
    )


async def _executions(store: DocumentStore, campaign: str) -> list[Execution]:
    found: list[Execution] = []
    cursor: str | None = None
    while True:
        page = await store.find(EXECUTIONS.name, "campaign", campaign, campaign, limit=PAGE, cursor=cursor)
        found += [msgspec.json.decode(one.body, type=Execution) for one in page.documents]
        cursor = page.next
        if cursor is None:
            return found


def _lines(file: Path, type: type[T]) -> list[T]:
    decode = msgspec.json.Decoder(type).decode
    return [decode(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


# ---------------------------------------------------------------------------- a flash


def read_device(flash: Flashed, blocks: Mapping[str, bytes]) -> Device:
    """Read a flash as a bench would that solders it out."""
    data = last_whole(flash.record)
    if data is None:
        return Device(None, {}, {})
    record = msgspec.msgpack.decode(data, type=Record)
    sha256 = {
        slot: _hash(flash.slots[slot], image, blocks) if image is not None else ""
        for slot, image in record.images.items()
    }
    config = last_whole(flash.configs[record.running])
    return Device(record, sha256, msgspec.json.decode(config) if config else {})


def last_whole(pages: Sequence[bytes]) -> bytes | None:
    """Return what the page says that was written last and whole."""
    best, found = 0, None
    for page in pages:
        body, crc = page[:-CRC_BYTES], page[-CRC_BYTES:]
        if len(body) < SEQUENCE_BYTES or zlib.crc32(body).to_bytes(CRC_BYTES) != crc:
            continue
        number = int.from_bytes(body[:SEQUENCE_BYTES])
        if number > best:
            best, found = number, body[SEQUENCE_BYTES:]
    return found


def _hash(slot: Mapping[int, str], image: Image, blocks: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for index in range(-(-image.size // image.block)):
        data = blocks[slot[index]] if index in slot else b""
        assert index not in slot or hashlib.sha256(data).hexdigest() == slot[index], "the dump is whole"
        digest.update(data)
    return digest.hexdigest()
