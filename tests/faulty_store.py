"""A document store that fails when told so, around any real one, and two services' worth of races."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from infra.documents.port import Document, DocumentStore, Entry, StoreUnavailableError, Write

EVERYTHING = ("get", "commit", "find", "count", "read", "append")

Hook = Callable[[], Awaitable[object]]


class Crash(StrEnum):
    """When the next commit dies."""

    BEFORE_COMMIT = "before the commit"
    BEFORE_ROWS = "after the documents, before the rows of the logs"
    AFTER_COMMIT = "after the commit, before its reply"


class FaultyStore:
    """Passes everything on to ``inner``, but for what was planted."""

    def __init__(self, inner: DocumentStore, *, exclusive: bool | None = None) -> None:
        self.inner = inner
        self.refuses: Collection[str] = ()
        """Methods that answer nothing; :data:`EVERYTHING` for a store that is down."""
        self.crash: Crash | None = None
        """Planted for one commit."""
        self.crash_with: BaseException = StoreUnavailableError("the reply never came")
        self.before_commit: list[Hook] = []
        """Each is awaited once, right before the next commit goes on."""
        self.before_get: list[Hook] = []
        self.after_get: list[Hook] = []
        """Awaited once, when the store has answered and the caller does not know yet."""
        self.commits: list[Sequence[Write]] = []
        self.gets = 0
        self._exclusive = exclusive

    @property
    def exclusive(self) -> bool:
        return self.inner.exclusive if self._exclusive is None else self._exclusive

    async def get(self, collection: str, ids: Collection[str]) -> dict[str, Document]:
        self._check("get")
        self.gets += 1
        await _next(self.before_get)
        found = await self.inner.get(collection, ids)
        await _next(self.after_get)
        return found

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        self._check("commit")
        await _next(self.before_commit)
        crash, self.crash = self.crash, None
        if crash is Crash.BEFORE_COMMIT:
            raise self.crash_with
        if crash is Crash.BEFORE_ROWS:
            writes = [replace(write, entries=(), cuts=()) for write in writes]
        lost = await self.inner.commit(writes)
        self.commits.append(writes)
        if crash is not None:
            raise self.crash_with
        return lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def find(self, *args: Any, **options: Any) -> Any:
        self._check("find")
        return await self.inner.find(*args, **options)

    async def count(self, *args: Any, **options: Any) -> int:
        self._check("count")
        return await self.inner.count(*args, **options)

    async def read(self, *args: Any, **options: Any) -> Any:
        self._check("read")
        return await self.inner.read(*args, **options)

    async def append(self, entries: Sequence[Entry]) -> None:
        self._check("append")
        await self.inner.append(entries)

    def _check(self, method: str) -> None:
        if method in self.refuses:
            raise StoreUnavailableError("down")


async def _next(hooks: list[Hook]) -> None:
    if hooks:
        await hooks.pop(0)()
