"""Which blocks of which file a thing gets: requests in, answers out, and nothing is written.

A thing gets the files of an image for as long as one of its jobs is about that image; who may not have a file
and who asks for one that is not there hear the same. The list of signing keys is for every thing.
A request for blocks asks the store for nothing: what a thing may have is kept in memory by those who carry
out jobs, files are mapped, and whether a stream may still be given is asked now and then. (spec: ota, 5, 12)
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from ota.blocks import BlockCache, FileKey
from ota.streams import (
    VERSION,
    BlocksAsked,
    Code,
    Format,
    StreamError,
    block_ids,
    check_topic,
    data_head,
    description,
    parse_describe,
    parse_get,
    rejected,
)

IMAGE_FILE: Final = 0
LEAVES_FILE: Final = 1
MANIFEST_FILE: Final = 2
STREAMS_OPEN_MAX: Final = 64
"""Streams whose files are at hand; as many releases are under way in the largest installation."""
LOOK_AGAIN_S: Final = 10.0
"""After so long a stream at hand is looked for anew: another process may have withdrawn its release."""
KEY_LIST_PREFIX: Final = "keys-"

DATA: Final = "data"
DESCRIPTION: Final = "description"
REJECTED: Final = "rejected"


@dataclass(frozen=True, slots=True)
class Stream:
    """Files that belong together. It never changes."""

    description: str
    files: Mapping[int, memoryview] = field(repr=False)


class Library(Protocol):
    """Knows the streams there are: released images, and lists of signing keys."""

    async def stream(self, id: str) -> Stream | None:
        """Return the stream of this name; None: there is none."""
        ...


class Entitlements(Protocol):
    """Knows what the jobs of things are about."""

    async def streams_of(self, thing: str) -> frozenset[str]:
        """Return the streams that the thing's active executions use."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request: messages on one topic, each ``head`` and one of ``tails``."""

    word: str
    """The level of the topic that says what it is."""
    tails: list[bytes]
    head: bytes = b""
    code: Code | None = None
    """Of a refusal."""

    @property
    def size_bytes(self) -> int:
        """How much is sent, roughly."""
        return sum(map(len, self.tails))


class StreamService:
    """Answers requests for files."""

    def __init__(
        self, jobs: Entitlements, library: Library, cache: BlockCache, elapsed_s: Callable[[], float]
    ) -> None:
        self._jobs = jobs
        self._library = library
        self._cache = cache
        self._elapsed_s = elapsed_s
        self._open: OrderedDict[str, tuple[Stream, float]] = OrderedDict()
        """With the time when each was looked for."""

    async def get(self, thing: str, stream: str, format: str, payload: bytes) -> Answer:
        """Return the blocks that are asked for, or a refusal."""
        try:
            spelled = check_topic(stream, format)
            asked = parse_get(payload, spelled)
            return await self._blocks(thing, stream, spelled, asked)
        except StreamError as error:
            return refusal(error, format)

    async def describe(self, thing: str, stream: str, format: str, payload: bytes) -> Answer:
        """Return which files there are, or a refusal."""
        try:
            spelled = check_topic(stream, format)
            token = parse_describe(payload, spelled)
            found = await self._find(thing, stream, token)
            sizes = {file: len(content) for file, content in found.files.items()}
            return Answer(DESCRIPTION, [description(token, found.description, sizes, spelled)])
        except StreamError as error:
            return refusal(error, format)

    async def _blocks(self, thing: str, id: str, format: Format, asked: BlocksAsked) -> Answer:
        stream = await self._find(thing, id, asked.token)
        content = stream.files.get(asked.file)
        if content is None:
            raise _not_found(asked.token)
        if asked.version not in (None, VERSION):
            raise StreamError(Code.VERSION, f"the version of every stream is {VERSION}", asked.token)
        ids = block_ids(asked, len(content))
        if not ids:
            raise StreamError(Code.OFFSET, "nothing of the file is left there", asked.token)
        tails = self._cache.tails(FileKey(id, asked.file, asked.length, format), content, ids)
        return Answer(DATA, tails, data_head(asked.token, format))

    async def _find(self, thing: str, id: str, token: str | None) -> Stream:
        # Asked for each request: a campaign that is stopped stops its downloads.
        if not id.startswith(KEY_LIST_PREFIX) and id not in await self._jobs.streams_of(thing):
            raise _not_found(token)
        now_s = self._elapsed_s()
        if id in self._open:
            self._open.move_to_end(id)
            opened, looked_s = self._open[id]
            if now_s - looked_s < LOOK_AGAIN_S:
                return opened
            self._open[id] = (opened, now_s)  # one looks, the others go on
        found = await self._library.stream(id)
        if found is None:
            self._open.pop(id, None)
            raise _not_found(token)
        self._open[id] = (found, now_s)
        if len(self._open) > STREAMS_OPEN_MAX:
            self._open.popitem(last=False)
        return found


def refusal(error: StreamError, format: str) -> Answer:
    """Return a refusal, in JSON when the format is none that we know."""
    spelled = Format.CBOR if format == Format.CBOR else Format.JSON
    return Answer(REJECTED, [rejected(error, spelled)], code=error.code)


def _not_found(token: str | None) -> StreamError:
    return StreamError(Code.NOT_FOUND, "there is no such file for you", token)
