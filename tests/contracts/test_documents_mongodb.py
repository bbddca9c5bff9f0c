"""What only the MongoDB store promises: durable settings, lost replies settled, bounded waits."""

import asyncio
import contextlib
import gc
import time

import pytest
from pymongo.errors import AutoReconnect, BulkWriteError

from infra.documents.mongo import MongoStore
from infra.documents.mongo_settle import WRITE_IDS_KEPT, Fate, Seen, fate
from infra.documents.opening import open_store
from infra.documents.port import Collection, Document, Entry, StoreError, StoreUnavailableError, Write
from tests.backends import servers

COLLECTIONS = (Collection("things", ("kind",)),)
LOGS = ("history",)
driver_leaves_sockets = pytest.mark.filterwarnings(
    # The driver does not close the socket of a connection that could not be made.
    r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def store(mongodb_url):
    opened = await open_store(mongodb_url, COLLECTIONS, LOGS)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    "option",
    [
        "w=1",
        "w=0",
        "w=2",
        "journal=false",
        "readConcernLevel=local",
        "readPreference=secondary",
        "retryWrites=false",
    ],
)
async def test_a_url_that_asks_for_less_than_a_durable_majority_is_refused(option):
    with pytest.raises(StoreError, match=f"sets {option.partition('=')[0]}="):
        await open_store(f"mongodb://127.0.0.1:1/gnomon?{option}", COLLECTIONS, LOGS)


@pytest.mark.parametrize(
    ("url", "words"),
    [("mongodb://127.0.0.1:1", "names no database"), ("mongodb://a:b:c@x/gnomon", "cannot be read")],
)
async def test_a_url_that_cannot_be_used_is_refused_with_the_reason(url, words):
    with pytest.raises(StoreError, match=words):
        await open_store(url, COLLECTIONS, LOGS)


@driver_leaves_sockets
async def test_a_server_that_is_not_there_is_unavailable_within_two_seconds():
    begin = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await open_store("mongodb://127.0.0.1:1/gnomon", COLLECTIONS, LOGS)
    assert time.monotonic() - begin < 2
    gc.collect()


async def test_the_write_concern_is_majority_and_journal(store):
    collection = store._documents("things")
    assert collection.write_concern.document == {"w": "majority", "j": True}
    assert collection.read_concern.level == "majority"
    assert store._client.options.retry_writes


@driver_leaves_sockets
async def test_a_frozen_server_is_unavailable_within_two_seconds_and_heals(request, tmp_path):
    if request.config.getoption("--backends") not in {"auto", "process"}:
        pytest.skip("freezes a server of its own, which is a process")
    server = servers.spawn_emulator(tmp_path)
    store = await open_store(f"mongodb://127.0.0.1:{server.port}/gnomon", COLLECTIONS, LOGS)
    try:
        await store.commit([Write("things", "a", 0, b"1")])
        server.freeze()
        for asked in (store.get("things", ["a"]), store.commit([Write("things", "a", 1, b"2")])):
            begin = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                await asked
            assert time.monotonic() - begin < 2
        server.thaw()
        async with asyncio.timeout(5):
            while True:
                try:
                    found = await store.get("things", ["a"])
                    break
                except StoreUnavailableError:
                    continue
        # The write was a maybe: it is there once or not at all.
        assert found["a"] in (Document("a", 1, b"1"), Document("a", 2, b"2"))
        assert await store.commit([Write("things", "b", 0, b"1")]) == frozenset()
    finally:
        await store.close()
        server.stop()
        gc.collect()


# Rows that a crash kept from their logs


class DiedError(BaseException):
    """As a kill, it passes every handler."""


@pytest.fixture
def dies_before_rows(monkeypatch):
    """Let the next write of rows of any store die."""
    honest = MongoStore._write_entries

    async def die(_store, entries):
        list(entries)
        monkeypatch.setattr(MongoStore, "_write_entries", honest)
        raise DiedError

    def plant():
        monkeypatch.setattr(MongoStore, "_write_entries", die)

    return plant


def row(number: int, key: str = "a") -> Entry:
    return Entry("history", key, number, number, b"row")


async def numbers(store, key: str = "a") -> list[int]:
    return [one.number for one in await store.read("history", key, 0, 99, limit=99)]


async def owing(store) -> int:
    return len(await store._documents("things").find({"p": 1}).to_list())


async def test_rows_of_a_write_that_died_are_written_by_who_opens_the_store_next(
    store, mongodb_url, dies_before_rows
):
    dies_before_rows()
    with pytest.raises(DiedError):
        await store.commit([Write("things", "a", 0, b"1", {}, [row(1)])])
    assert (await numbers(store), await owing(store)) == ([], 1)
    other = await open_store(mongodb_url, COLLECTIONS, LOGS)
    assert (await numbers(other), await owing(other)) == ([1], 0)
    assert await other.get("things", ["a"]) == {"a": Document("a", 1, b"1")}
    await other.close()


@pytest.mark.parametrize("body", [b"2", None], ids=["changed", "deleted"])
async def test_rows_that_are_owed_survive_what_others_do_to_the_document(
    store, mongodb_url, dies_before_rows, body
):
    dies_before_rows()
    with pytest.raises(DiedError):
        await store.commit([Write("things", "a", 0, b"1", {}, [row(1)])])
    store._owing = False  # another process, which knows of nothing
    assert await store.commit([Write("things", "a", 1, body, {}, [row(2)])]) == frozenset()
    assert (await numbers(store), await owing(store)) == ([2], 1)
    other = await open_store(mongodb_url, COLLECTIONS, LOGS)
    assert (await numbers(other), await owing(other)) == ([1, 2], 0)
    if body is None:
        assert await other.get("things", ["a"]) == {}
        assert await other.commit([Write("things", "a", 0, b"3")]) == frozenset()
    await other.close()


@pytest.mark.parametrize("by", ["commit", "append"])
async def test_who_lives_on_writes_the_rows_before_anything_else(store, dies_before_rows, by):
    dies_before_rows()
    with pytest.raises(DiedError):
        await store.commit([Write("things", "a", 0, b"1", {}, [row(1)]), Write("things", "b", 0, b"1")])
    if by == "commit":
        await store.commit([Write("things", "c", 0, b"1")])
    else:
        await store.append([row(7, "z")])
    assert (await numbers(store), await owing(store), store._owing) == ([1], 0, False)


async def test_a_write_that_goes_well_leaves_nothing_owed(store):
    for revision in range(3):
        await store.commit([Write("things", "a", revision, b"1", {}, [row(revision)])])
    assert (await numbers(store), await owing(store)) == ([0, 1, 2], 0)
    (document,) = await store._documents("things").find({"_id": "a"}).to_list()
    assert not [name for name in document if name.startswith("o_")]


async def test_a_write_that_lost_owes_nothing(store):
    await store.commit([Write("things", "a", 0, b"1")])
    assert await store.commit([Write("things", "a", 0, b"2", {}, [row(1)])]) == {0}
    assert (await numbers(store), await owing(store)) == ([], 0)


async def test_what_the_owner_tells_again_is_not_kept_in_the_document(store, dies_before_rows):
    dies_before_rows()
    with pytest.raises(DiedError):
        await store.commit([Write("things", "a", 0, b"1", {}, [row(1)], retells=True)])
    assert await owing(store) == 0


# Lost replies: the server works, and what it says does not arrive


class Mute:
    """A collection whose replies to bulks are lost, ``times`` times."""

    def __init__(self, collection, times, *, sends=True, meanwhile=None):
        self._collection = collection
        self._times = times
        self._sends = sends
        self._meanwhile = meanwhile

    def __getattr__(self, name):
        return getattr(self._collection, name)

    async def bulk_write(self, requests, **options):
        if not self._times:
            return await self._collection.bulk_write(requests, **options)
        self._times -= 1
        if self._sends:
            with contextlib.suppress(BulkWriteError):
                await self._collection.bulk_write(requests, **options)
        if self._meanwhile:
            await self._meanwhile()
        raise AutoReconnect("connection closed")


def mute(store, monkeypatch, times=1, **options):
    muted = Mute(store._documents("things"), times, **options)
    monkeypatch.setattr(store, "_documents", lambda _collection: muted)


async def test_a_lost_reply_is_settled_by_reading_back(store, monkeypatch):
    await store.commit([Write("things", id, 0, b"1") for id in "ab"])
    await store.commit([Write("things", "b", 1, b"2")])
    mute(store, monkeypatch)
    entries = [Entry("history", "a", 2, 1, b"")]
    writes = [
        Write("things", "a", 1, b"3", {}, entries),
        Write("things", "b", 1, b"3"),
        Write("things", "c", 0, b"3"),
    ]
    assert await store.commit(writes) == {1}
    found = await store.get("things", "abc")
    assert {id: (one.revision, one.body) for id, one in found.items()} == {
        "a": (2, b"3"),
        "b": (2, b"2"),
        "c": (1, b"3"),
    }
    assert len(await store.read("history", "a", 0, 9, limit=9)) == 1


async def test_a_request_that_never_arrived_is_sent_again(store, monkeypatch):
    await store.commit([Write("things", "a", 0, b"1")])
    mute(store, monkeypatch, times=2, sends=False)
    assert await store.commit([Write("things", "a", 1, b"2"), Write("things", "b", 0, b"2")]) == frozenset()
    assert (await store.get("things", ["a"]))["a"] == Document("a", 2, b"2")


async def test_a_server_that_never_answers_is_not_asked_for_ever(store, monkeypatch):
    mute(store, monkeypatch, times=99, sends=False)
    with pytest.raises(StoreUnavailableError, match="connection closed"):
        await store.commit([Write("things", "a", 0, b"1")])


async def test_a_write_that_won_and_was_written_over_before_it_could_be_read_back_has_won(store, monkeypatch):
    await store.commit([Write("things", "a", 0, b"1")])
    other = await open_store(_url_of(store), COLLECTIONS, LOGS)

    async def overwrite():
        for revision in range(2, 2 + WRITE_IDS_KEPT - 1):
            assert await other.commit([Write("things", "a", revision, b"other")]) == frozenset()

    mute(store, monkeypatch, meanwhile=overwrite)
    assert await store.commit([Write("things", "a", 1, b"2")]) == frozenset()
    await other.close()


async def test_a_write_that_may_have_been_written_over_too_often_is_a_maybe(store, monkeypatch):
    await store.commit([Write("things", "a", 0, b"1")])
    other = await open_store(_url_of(store), COLLECTIONS, LOGS)

    async def overwrite():
        for revision in range(2, 2 + WRITE_IDS_KEPT):
            assert await other.commit([Write("things", "a", revision, b"other")]) == frozenset()

    mute(store, monkeypatch, meanwhile=overwrite)
    with pytest.raises(StoreUnavailableError):
        await store.commit([Write("things", "a", 1, b"2")])
    await other.close()


async def test_what_a_deletion_left_behind_in_a_crash_reads_as_absent(store):
    await store.commit([Write("things", "a", 0, b"1", {"kind": "x"})])
    store._remove_deleted = _nothing
    assert await store.commit([Write("things", "a", 1, None)]) == frozenset()
    assert await store._documents("things").count_documents({}) == 1
    assert await store.get("things", ["a"]) == {}
    assert (await store.find("things", "kind", "x", "x", limit=9)).documents == ()
    assert await store.commit([Write("things", "a", 1, b"2")]) == {0}
    assert await store.commit([Write("things", "a", 0, b"2", {"kind": "y"})]) == frozenset()
    assert (await store.get("things", ["a"]))["a"] == Document("a", 1, b"2", {"kind": "y"})


async def _nothing(_winners):
    return None


def _url_of(store):
    host, port = next(iter(store._client.nodes))
    return f"mongodb://{host}:{port}/{store._database.name}"


@pytest.mark.parametrize(
    ("expected", "seen", "promptly", "verdict"),
    [
        (4, Seen(5, (1, 9)), True, Fate.WON),
        (4, Seen(7, (9, 2, 3)), False, Fate.WON),
        (4, Seen(5, (1, 2)), True, Fate.LOST),
        (4, Seen(5, (1, 2)), False, Fate.LOST),
        (4, Seen(4, (1,)), True, Fate.LOST),
        (4, Seen(4, (1,)), False, Fate.OPEN),
        (4, Seen(4 + WRITE_IDS_KEPT, (1,)), False, Fate.LOST),
        (4, Seen(5 + WRITE_IDS_KEPT, (1,)), False, Fate.UNKNOWN),
        (4, Seen(5 + WRITE_IDS_KEPT, (1,)), True, Fate.LOST),
        (4, None, True, Fate.LOST),
        (4, None, False, Fate.UNKNOWN),
        (4, Seen(2, (1,)), False, Fate.UNKNOWN),
        (0, None, False, Fate.OPEN),
        (0, Seen(1, (1,)), False, Fate.LOST),
        (0, Seen(1, (9,)), False, Fate.WON),
    ],
)
def test_what_is_read_back_tells_the_fate_of_a_write(expected, seen, promptly, verdict):
    assert fate(expected, 9, seen, promptly=promptly) is verdict
