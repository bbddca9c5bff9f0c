"""The MongoDB store: for production, with several processes.

It uses only what any MongoDB keeps: reads by ``_id`` or by one indexed field, updates filtered on
(``_id``, revision), upserts, single-field indexes. No transaction, no server-side date, no compound
index. A document is

    {_id, r: revision, b: body, w: [ids of the last writes], x_<field>: index key}

with revision 0 for one that is gone: so *must not exist yet* is a revision like any other, and a
deletion can be told apart from a stranger's. Documents are written first, then log rows, which do
nothing when written twice. A document keeps the rows of a write until they are in their logs: who dies in
between leaves it to the next process that opens the store, and who could not reach the server in between does
it before the next write. Where the owner of a document tells the rows again by itself (shadows do, and they
are many), it is spared that.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Collection as SizedIterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern

from infra.documents import cursors, mongo_client, mongo_format
from infra.documents.checks import NUMBER_MAX, Layout
from infra.documents.mongo_format import Stored
from infra.documents.mongo_settle import PROMPT_S, Fate, Seen, fates
from infra.documents.port import (
    Collection,
    Cut,
    Document,
    Entry,
    EntryPage,
    IndexValue,
    Page,
    StoreUnavailableError,
    Write,
)
from infra.ids import Ids, RandomIds

ANSWER_TIMEOUT_S: Final = 1.7
"""A store that is silent for longer is as good as gone: the caller has to answer within 2 s."""
OPEN_TIMEOUT_S: Final = 10.0
"""Making indexes may take longer than an answer may."""
SETTLE_ROUNDS_MAX: Final = 3
OWING_PAGE: Final = 100
"""Documents with owed rows that are looked at together."""
OWING_PAGES_MAX: Final = 1_000
RANGES_MAX: Final = 100
"""Values one query asks for: each is a range of an index."""
T = TypeVar("T")
_DUPLICATE_KEY: Final = 11_000


class MongoStore:
    """Documents and logs in one database of a MongoDB deployment."""

    @classmethod
    async def open(cls, url: str, collections: Sequence[Collection], logs: Sequence[str]) -> "MongoStore":
        """Connect, make the indexes; refuse a URL that asks for less than a durable majority."""
        layout = Layout.of(collections, logs)
        client, database = mongo_client.connect(url)
        store = cls(client, database, layout, RandomIds())
        try:
            async with _bounded(OPEN_TIMEOUT_S):
                await store._prepare()
                await store._pay()
        except BaseException:
            await client.close()
            raise
        return store

    def __init__(self, client: AsyncMongoClient[Stored], database: str, layout: Layout, ids: Ids) -> None:
        self._client = client
        self._database = client[database]
        self._layout = layout
        self._ids = ids
        self._server = "MongoDB"
        self._writing: set[asyncio.Task[Any]] = set()
        self._owing = False

    @property
    def exclusive(self) -> bool:
        return False

    @property
    def description(self) -> str:
        return f"{self._server}, database {self._database.name}"

    async def get(self, collection: str, ids: SizedIterable[str]) -> dict[str, Document]:
        self._layout.check_ids(collection, ids)
        if not ids:
            return {}
        async with _bounded():
            found = await self._documents(collection).find({"_id": {"$in": list(ids)}}).to_list()
        fields = self._layout.fields[collection]
        return {one["_id"]: mongo_format.document_of(one, fields) for one in found if one["r"]}

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        self._layout.check_writes(writes)
        return await self._to_the_end(self._commit(writes))

    async def append(self, entries: Sequence[Entry]) -> None:
        self._layout.check_entries(entries)
        await self._to_the_end(self._append(entries))

    async def find(
        self,
        collection: str,
        field: str,
        low: IndexValue,
        high: IndexValue,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        self._layout.check_find(collection, field, low, high, limit)
        asked = (collection, field, low, high)
        start = {"$gte": mongo_format.lowest(low)}
        if cursor is not None:
            start = {"$gt": mongo_format.index_key(*cursors.after_document(cursor, asked))}
        query = {f"x_{field}": start | {"$lt": mongo_format.beyond(high)}}
        async with _bounded():
            found = await self._query(collection, field, query, limit + 1)
        if len(found) <= limit:
            return Page(tuple(found), None)
        last = found[limit - 1]
        return Page(tuple(found[:limit]), cursors.make(asked, (last.index[field], last.id)))

    async def count(
        self, collection: str, field: str, low: IndexValue, high: IndexValue, *, at_most: int
    ) -> int:
        self._layout.check_count(collection, field, low, high, at_most)
        query = {f"x_{field}": {"$gte": mongo_format.lowest(low), "$lt": mongo_format.beyond(high)}}
        async with _bounded():
            return await self._documents(collection).count_documents(query, limit=at_most)

    async def find_in(
        self, collection: str, field: str, values: SizedIterable[IndexValue], *, limit: int
    ) -> list[Document]:
        self._layout.check_find_in(collection, field, values, limit)
        ranges = [
            {f"x_{field}": {"$gte": mongo_format.lowest(value), "$lt": mongo_format.beyond(value)}}
            for value in sorted(set(values), key=mongo_format.lowest)
        ]
        found: list[Document] = []
        async with _bounded():
            for start in range(0, len(ranges), RANGES_MAX):
                some = {"$or": ranges[start : start + RANGES_MAX]}
                found += await self._query(collection, field, some, limit - len(found))
                if len(found) == limit:
                    break
        return found

    async def read(
        self, log: str, key: str, first: int, last: int, *, limit: int, newest_first: bool = False
    ) -> list[Entry]:
        self._layout.check_log(log, limit)
        first, last = max(first, 0), min(last, NUMBER_MAX)
        if first > last:
            return []
        # The ids of another key may lie between those of this one: "a" and "a:0000000001".
        query = {
            "_id": {"$gte": mongo_format.row_id(key, first), "$lte": mongo_format.row_id(key, last)},
            "k": key,
        }
        async with _bounded():
            rows = self._log(log).find(query).sort("_id", -1 if newest_first else 1).limit(limit)
            return [mongo_format.entry_of(row, log) for row in await rows.to_list()]

    async def scan(
        self, log: str, from_ms: int, to_ms: int, *, limit: int, cursor: str | None = None
    ) -> EntryPage:
        self._layout.check_log(log, limit)
        asked = (log, from_ms, to_ms)
        start = {"$gte": mongo_format.time_start(from_ms)}
        if cursor is not None:
            start = {"$gt": mongo_format.row_time(*cursors.after_entry(cursor, asked))}
        query = {"t": start | {"$lt": mongo_format.time_start(to_ms + 1)}}
        async with _bounded():
            rows = await self._log(log).find(query).sort("t", 1).limit(limit + 1).to_list()
        found = [mongo_format.entry_of(row, log) for row in rows[:limit]]
        if len(rows) <= limit:
            return EntryPage(tuple(found), None)
        last = found[-1]
        return EntryPage(tuple(found), cursors.make(asked, (last.at_ms, last.key, last.number)))

    async def close(self) -> None:
        await asyncio.gather(*self._writing, return_exceptions=True)  # each has its time-out
        await self._client.close()

    async def _prepare(self) -> None:
        for collection, fields in self._layout.fields.items():
            for field in fields:
                await self._documents(collection).create_index(f"x_{field}", name=f"{collection}_x_{field}")
            await self._documents(collection).create_index("p", name=f"{collection}_p")
        for log in sorted(self._layout.logs):
            await self._log(log).create_index("t", name=f"{log}_t")
        version = (await self._client.server_info()).get("version", "of an unknown version")
        self._server = f"MongoDB {version}"

    async def _query(
        self, collection: str, field: str, query: Mapping[str, Any], limit: int
    ) -> list[Document]:
        rows = self._documents(collection).find(query).sort(f"x_{field}", 1).limit(limit)
        fields = self._layout.fields[collection]
        return [mongo_format.document_of(row, fields) for row in await rows.to_list()]

    async def _commit(self, writes: Sequence[Write]) -> frozenset[int]:
        async with _bounded():
            await self._pay_what_is_owed()
            try:
                won = await self._commit_documents(writes)
                winners = [write for write in writes if (write.collection, write.id) in won]
                await self._write_entries(entry for write in winners for entry in write.entries)
            except BaseException:
                # A document may keep rows that nobody else knows of.
                self._owing = self._owing or any(map(mongo_format.owes, writes))
                raise
            await self._forget_owed([write for write in winners if mongo_format.owes(write)], won)
            await self._write_cuts(cut for write in winners for cut in write.cuts)
            await self._remove_deleted(winners)
        return frozenset(
            position for position, write in enumerate(writes) if (write.collection, write.id) not in won
        )

    async def _commit_documents(self, writes: Sequence[Write]) -> dict[tuple[str, str], int]:
        """Write the documents; return those that won, each with the id of its write."""
        won: dict[tuple[str, str], int] = {}
        for collection in dict.fromkeys(write.collection for write in writes):
            its_writes = [write for write in writes if write.collection == collection]
            won |= {
                (collection, id): number
                for id, number in (await self._commit_to(collection, its_writes)).items()
            }
        return won

    async def _append(self, entries: Sequence[Entry]) -> None:
        async with _bounded():
            await self._pay_what_is_owed()
            await self._write_entries(entries)

    async def _pay_what_is_owed(self) -> None:
        if self._owing:
            self._owing = False
            try:
                await self._pay()
            except BaseException:
                self._owing = True
                raise

    async def _pay(self) -> None:
        """Write the rows that documents still keep, whoever wrote these, and have them forget the rows."""
        for collection in self._layout.fields:
            documents = self._documents(collection)
            for _ in range(OWING_PAGES_MAX):
                page = await documents.find(mongo_format.owing()).limit(OWING_PAGE).to_list()
                if not page:
                    break
                owed = {one["_id"]: mongo_format.owed_of(one) for one in page}
                await self._write_entries(row for of in owed.values() for rows in of.values() for row in rows)
                paid = [mongo_format.payment_of(id, number) for id, of in owed.items() for number in of]
                await documents.bulk_write(paid, ordered=False)

    async def _forget_owed(self, writes: Sequence[Write], numbers: Mapping[tuple[str, str], int]) -> None:
        by_collection: dict[str, list[UpdateOne]] = {}
        for write in writes:
            payment = mongo_format.payment_of(write.id, numbers[write.collection, write.id])
            by_collection.setdefault(write.collection, []).append(payment)
        for collection, updates in by_collection.items():
            await self._documents(collection).bulk_write(updates, ordered=False)

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Let a write go on when its caller stops waiting, or a document may lack its log rows."""
        task = asyncio.get_running_loop().create_task(work, name="mongo-write")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _commit_to(self, collection: str, writes: Sequence[Write]) -> dict[str, int]:
        """Write the documents of one collection; return which won, with the ids of their writes."""
        waiting = {write.id: (write, self._ids.number()) for write in writes}
        won: dict[str, int] = {}
        error: PyMongoError | None = None
        for _ in range(SETTLE_ROUNDS_MAX):
            judged, error = await self._try(collection, waiting)
            won |= {id: waiting[id][1] for id, fate in judged.items() if fate is Fate.WON}
            if Fate.UNKNOWN in judged.values():
                break
            waiting = {id: waiting[id] for id, fate in judged.items() if fate is Fate.OPEN}
            if not waiting:
                return won
        reason = error or "it took too long"
        raise StoreUnavailableError(f"MongoDB did not tell whether it wrote: {reason}") from error

    async def _try(
        self, collection: str, asked: Mapping[str, tuple[Write, int]]
    ) -> tuple[dict[str, Fate], PyMongoError | None]:
        """Send a bulk once and find out what became of each of its writes."""
        documents = self._documents(collection)
        fields = self._layout.fields[collection]
        updates = [mongo_format.update_of(write, id, fields) for write, id in asked.values()]
        expected = {id: (write.expected, write_id) for id, (write, write_id) in asked.items()}
        failure: PyMongoError | None = None
        now = asyncio.get_running_loop().time
        start = now()
        try:
            result = await documents.bulk_write(updates, ordered=False)
            if result.matched_count + result.upserted_count == len(asked):
                return dict.fromkeys(asked, Fate.WON), None
        except PyMongoError as error:
            # One that must not exist yet, and does, is a duplicate: the race lost in the normal way.
            failure = None if _only_lost_races(error) else error
        # A reply that never came leaves even open who is primary now: ask the one that surely is.
        concern = ReadConcern("majority" if failure is None else "linearizable")
        seen = await self._read_back(documents, list(asked), concern)
        promptly = failure is None and now() - start < PROMPT_S
        return fates(expected, seen, promptly=promptly), failure

    async def _read_back(
        self, documents: AsyncCollection[Stored], ids: Sequence[str], concern: ReadConcern
    ) -> dict[str, Seen]:
        known = documents.with_options(read_concern=concern)
        if concern.level == "linearizable":  # holds for a single document only
            found = [await known.find_one({"_id": id}, {"r": 1, "w": 1}) for id in ids]
        else:
            found = list(await known.find({"_id": {"$in": list(ids)}}, {"r": 1, "w": 1}).to_list())
        return {one["_id"]: Seen(one["r"], tuple(one["w"])) for one in found if one is not None}

    async def _write_entries(self, entries: Iterable[Entry]) -> None:
        by_log: dict[str, dict[tuple[str, int], Entry]] = {}
        for entry in entries:  # the last one of a number counts, in whatever order the server works
            by_log.setdefault(entry.log, {})[entry.key, entry.number] = entry
        for log, rows in by_log.items():
            await self._log(log).bulk_write(
                [mongo_format.upsert_of(row) for row in rows.values()], ordered=False
            )

    async def _write_cuts(self, cuts: Iterable[Cut]) -> None:
        by_log: dict[str, list[Cut]] = {}
        for cut in cuts:
            if cut.below:
                by_log.setdefault(cut.log, []).append(cut)
        for log, its_cuts in by_log.items():
            deletions = [mongo_format.deletion_of(cut) for cut in its_cuts]
            await self._log(log).bulk_write(deletions, ordered=False)

    async def _remove_deleted(self, winners: Sequence[Write]) -> None:
        """Take away what is at revision 0. What a crash leaves behind reads as absent all the same."""
        by_collection: dict[str, list[str]] = {}
        for write in winners:
            if write.body is None:
                by_collection.setdefault(write.collection, []).append(write.id)
        for collection, ids in by_collection.items():
            # One that keeps rows of somebody who died stays until they are in their logs.
            gone = [one for id in ids for one in mongo_format.removals_of(id)]
            await self._documents(collection).bulk_write(gone, ordered=False)

    def _documents(self, collection: str) -> AsyncCollection[Stored]:
        return self._database[f"d_{collection}"]

    def _log(self, log: str) -> AsyncCollection[Stored]:
        return self._database[f"l_{log}"]


def _only_lost_races(error: PyMongoError) -> bool:
    if not isinstance(error, BulkWriteError):
        return False
    details = error.details or {}
    return not details.get("writeConcernErrors") and all(
        one.get("code") == _DUPLICATE_KEY for one in details.get("writeErrors", [])
    )


@asynccontextmanager
async def _bounded(seconds: float = ANSWER_TIMEOUT_S) -> AsyncIterator[None]:
    """Turn the driver's errors and its silence into the port's error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise StoreUnavailableError(f"MongoDB did not answer within {seconds} s") from None
    except PyMongoError as error:
        raise StoreUnavailableError(f"MongoDB could not do it: {error}") from error
