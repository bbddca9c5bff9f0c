"""What only the SQLite store promises: durability that can be shown, one process, bounds on the disk."""

import asyncio
import itertools
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from infra.documents import sqlite, sqlite_files, sqlite_writer
from infra.documents.opening import open_store
from infra.documents.port import (
    Collection,
    Entry,
    StoreBrokenError,
    StoreError,
    StoreUnavailableError,
    Write,
)

ROOT = Path(__file__).parent.parent.parent
COLLECTIONS = (Collection("things", ("kind",)),)
LOGS = ("history",)
BODY = b"x" * 600
KILLS = 8
FSYNCS = 60


def open_at(path):
    return open_store(f"sqlite:{path}", COLLECTIONS, LOGS)


def write(id, expected=0, body=BODY, number=None):
    entries = () if number is None else (Entry("history", id, number, 1, body),)
    return Write("things", id, expected, body, {"kind": "x"}, entries)


def wal_bytes(path):
    return Path(f"{path}-wal").stat().st_size


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gnomon.db"


@pytest.fixture
async def store(path):
    opened = await open_at(path)
    yield opened
    await opened.close()


@pytest.fixture
def strace(request):
    found = shutil.which("strace")
    if found is None:
        (pytest.fail if request.config.getoption("--strict-backends") else pytest.skip)(
            "NOT RUN: install the Debian package strace"
        )
    return found


WRITER = """
    import asyncio, os, sys
    from infra.documents.opening import open_store
    from infra.documents.port import *
    from infra.documents import sqlite_writer

    async def main(path, count):
        sqlite_writer.OVERLAY_BYTES_MAX = 20_000
        sqlite_writer.CHECKPOINT_PAGES = 20
        store = await open_store(f"sqlite:{path}", [Collection("things", ("kind",))], ["history"])
        os.write(1, b"open\\n")
        for number in range(1, count + 1):
            body = b"%d" % number
            entry = Entry("history", "all", number, number, body)
            write = Write("things", f"t{number % 7}", (number - 1) // 7, body, {"kind": "x"}, [entry])
            try:
                lost = await store.commit([write])
            except StoreError as error:
                os.write(1, f"{type(error).__name__} {number}\\n".encode())
                continue
            os.write(1, b"ack %d\\n" % number if not lost else b"lost %d\\n" % number)
        await store.close()

    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def writer(path, count, before=()):
    return subprocess.Popen(
        [*before, sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


async def acknowledged_are_there(path, numbers):
    store = await open_at(path)
    rows = {row.number for row in await store.read("history", "all", 0, 10**6, limit=1_000)}
    documents = await store.get("things", [f"t{i}" for i in range(7)])
    await store.close()
    assert numbers <= rows
    assert len(rows) - len(numbers) <= 1, "more than the one commit that was under way"
    assert {int(one.body) for one in documents.values()} == {
        max(number for number in rows if number % 7 == i) for i in {number % 7 for number in rows}
    }, "each document is as its newest row says"


async def test_every_acknowledged_commit_outlives_sigkill(tmp_path):
    for kill in range(KILLS):
        place = tmp_path / f"{kill}" / "gnomon.db"
        with writer(place, 900) as child:
            lines = list(itertools.islice(child.stdout, 2 + 97 * kill))
            child.send_signal(signal.SIGKILL)
            lines += child.stdout
        await acknowledged_are_there(place, {int(line[4:]) for line in lines if line.startswith(b"ack")})


def test_each_acknowledgement_comes_after_the_fsync_of_its_commit(path, strace, tmp_path):
    trace = tmp_path / "trace"
    calls = "trace=pwrite64,write,fdatasync,fsync"
    child = writer(path, FSYNCS, before=[strace, "-f", "-y", "-e", calls, "-o", trace])
    assert child.communicate()[0].count(b"ack") == FSYNCS
    unsynced, acks, running = False, 0, {}
    for line in trace.read_text().splitlines():
        task, _, call = line.partition(" ")
        if "<unfinished" in call:
            running[task] = call
            continue
        call = running.pop(task, "") + call
        if "pwrite64(" in call and "-wal>" in call:
            unsynced = True
        elif re.search(r"f(data)?sync\(\d+<[^>]*-wal>", call) and call.rstrip().endswith("= 0"):
            unsynced = False
        elif '"ack ' in call:
            acks += 1
            assert not unsynced, f"acknowledged before the fsync: {line}"
    assert acks == FSYNCS


async def test_after_a_failed_fsync_nothing_is_accepted_any_more(path, strace):
    # The connection opens with a few fsyncs of its own; the 20th is one of a commit or a checkpoint.
    fault = "inject=fdatasync:error=EIO:when=20+"
    child = writer(
        path, 60, before=[strace, "-f", "-qq", "-e", "trace=fdatasync", "-e", fault, "-o", "/dev/null"]
    )
    lines = child.communicate()[0].decode().split("\n")
    words = [line.partition(" ")[0] for line in lines if line]
    broken = words.index("StoreBrokenError")
    assert set(words[:broken]) == {"open", "ack"}
    assert set(words[broken:]) == {"StoreBrokenError"}
    assert len(words) == 61
    await acknowledged_are_there(path, {int(line.split()[1]) for line in lines if line.startswith("ack")})


async def test_a_failed_fsync_breaks_reads_too(store):
    await store.commit([write("a")])
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    store._writer._failure(error)
    for asked in (
        store.get("things", ["a"]),
        store.commit([write("b")]),
        store.read("history", "a", 0, 1, limit=1),
    ):
        with pytest.raises(StoreBrokenError, match="fsync failed"):
            await asked


async def test_a_store_that_would_not_fsync_is_refused(path, monkeypatch):
    connect = sqlite_files._connect

    def careless(path, cache_bytes):
        connection = connect(path, cache_bytes)

        class Careless:
            close = connection.close

            def execute(self, sql, *values):
                return connection.execute(sql.replace("= FULL", "= OFF"), *values)

        return Careless()

    monkeypatch.setattr(sqlite_files, "_connect", careless)
    with pytest.raises(StoreError, match="would not survive power loss"):
        await open_at(path)


async def test_a_second_opener_is_refused_and_told_who_has_the_file(path, store):
    with pytest.raises(StoreUnavailableError, match=r"in use by process \d+ \(.*\): stop that process"):
        await open_at(path)
    await store.commit([write("a")])


async def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(path):
    with writer(path, 10**6) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreUnavailableError, match=f"in use by process {child.pid} "):
            await open_at(path)
        child.kill()
    await (await open_at(path)).close()


async def test_the_file_is_for_its_owner_only(path):
    await (await open_at(path)).close()
    assert path.stat().st_mode & 0o077 == 0


async def test_a_database_of_another_program_is_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.close()
    with pytest.raises(StoreError, match="of another program"):
        await open_at(path)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreBrokenError, match="damaged"):
        await open_at(path)
    assert path.read_bytes() == b"no database at all" * 100


async def test_a_file_of_a_newer_gnomon_is_refused(path):
    await (await open_at(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {sqlite_files.LAYOUT + 1}")
    connection.close()
    with pytest.raises(StoreError, match="upgrade it"):
        await open_at(path)


async def test_opening_with_fewer_collections_and_fields_loses_nothing(path, monkeypatch):
    store = await open_at(path)
    await store.commit([write("a", number=1)])
    await store.close()
    monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", 1)
    for collections in ((), (Collection("others"),), (Collection("things"), Collection("others"))):
        store = await open_store(f"sqlite:{path}", collections, ["other"])
        if collections:
            await store.commit([Write("others", f"{len(collections)}", 0, b"1")])
        await store.close()
    store = await open_at(path)
    assert [one.id for one in (await store.find("things", "kind", "x", "x", limit=9)).documents] == ["a"]
    assert len(await store.read("history", "a", 0, 9, limit=9)) == 1
    await store.close()


# Trouble with the disk


def set_pages_max(store, pages):
    store._writer._connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_refuses_and_heals_when_space_returns(store, path):
    await store.commit([write("kept", number=1)])
    set_pages_max(store, 60)
    accepted = set()
    reasons = set()
    for number in range(200):
        try:
            await store.commit([write(f"d{number:03d}", body=b"x" * 10_000, number=number)])
            accepted.add(f"d{number:03d}")
        except StoreUnavailableError as error:
            reasons.add(str(error))
    assert accepted
    assert reasons == {"SQLite could not do it: database or disk is full (SQLITE_FULL)"}
    assert set(await store.get("things", [f"d{n:03d}" for n in range(200)])) == accepted
    set_pages_max(store, 10**6)
    assert await store.commit([write("healed")]) == frozenset()
    await store.close()
    again = await open_at(path)
    found = await again.get("things", [f"d{n:03d}" for n in range(200)])
    assert set(found) == accepted
    assert set(await again.get("things", ["kept", "healed"])) == {"kept", "healed"}
    await again.close()


async def test_a_disk_that_fills_up_while_folding_loses_nothing(path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", 100_000)
    store = await open_at(path)
    accepted = set()
    for number in range(60):
        await store.commit([write(f"d{number:03d}", body=b"x" * 3_000, number=number)])
        accepted.add(f"d{number:03d}")
    set_pages_max(store, 70)
    for number in range(60, 160):
        try:
            await store.commit([write(f"d{number:03d}", body=b"x" * 3_000, number=number)])
            accepted.add(f"d{number:03d}")
        except StoreUnavailableError:
            pass
    assert len(accepted) < 160
    set_pages_max(store, 10**6)
    for number in range(160, 260):
        await store.commit([write(f"d{number:03d}", body=b"x" * 3_000, number=number)])
        accepted.add(f"d{number:03d}")
    everybody = [f"d{n:03d}" for n in range(260)]
    assert set(await store.get("things", everybody)) == accepted
    await store.close()
    store = await open_at(path)
    assert set(await store.get("things", everybody)) == accepted
    assert len((await store.scan("history", 0, 9, limit=1_000)).entries) == len(accepted)
    await store.close()


async def test_a_file_that_a_stranger_locks_is_unavailable_within_two_seconds(store, path):
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.commit([write("a")])
    assert time.monotonic() - begin < 2
    assert await store.get("things", ["a"]) == {}, "reads go on"
    stranger.execute("ROLLBACK")
    stranger.close()
    assert await store.commit([write("a")]) == frozenset()


async def test_a_silent_disk_is_unavailable_within_two_seconds(store, monkeypatch):
    monkeypatch.setattr(sqlite, "ANSWER_TIMEOUT_S", 0.2)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    write_really = store._writer._write

    def hang(decision):
        asyncio.run_coroutine_threadsafe(stop.wait(), loop).result()
        write_really(decision)

    monkeypatch.setattr(store._writer, "_write", hang)
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        await store.commit([write("a")])
    assert await store.get("things", ["a"]) == {}, "reads go on"
    stop.set()
    assert await store.commit([write("b")]) == frozenset()


async def test_a_full_queue_refuses_at_once(store, path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "QUEUE_BYTES_MAX", 5_000)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    tasks = [asyncio.ensure_future(store.commit([write(f"q{i}")])) for i in range(50)]
    await asyncio.sleep(0.1)
    refused = [task for task in tasks if task.done()]
    assert 40 <= len(refused) < 50
    for task in refused:
        with pytest.raises(StoreUnavailableError, match="QUEUE_BYTES_MAX"):
            task.result()
    assert time.monotonic() - begin < 0.5
    stranger.execute("ROLLBACK")
    stranger.close()
    waited = [task for task in tasks if task not in refused]
    assert await asyncio.gather(*waited) == [frozenset()] * len(waited)


async def test_the_reads_that_may_wait_are_bounded(store, monkeypatch):
    monkeypatch.setattr(sqlite, "READS_WAITING_MAX", 3)
    answers = await asyncio.gather(*(store.get("things", [f"{i}"]) for i in range(9)), return_exceptions=True)
    assert [type(one) for one in answers] == [dict] * 3 + [StoreUnavailableError] * 6
    assert await store.get("things", ["a"]) == {}


async def test_the_write_ahead_log_and_the_journal_stay_bounded(path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", 200_000)
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", 100)
    store = await open_at(path)
    log_bytes_max = 0
    for number in range(600):
        await store.commit([write(f"h{i}", number, number=number) for i in range(20)])
        log_bytes_max = max(log_bytes_max, wal_bytes(path))
    (records,) = store._writer._connection.execute("SELECT sum(length(record)) FROM journal").fetchone()
    assert records < 2.2 * 200_000
    assert log_bytes_max < 3 * 100 * sqlite_files.PAGE_BYTES
    assert len(store._writer.layers) <= 2
    await store.close()


async def test_a_fault_of_ours_in_the_writer_leaves_nobody_waiting(path, monkeypatch):
    store = await open_at(path)

    def fault() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(store._writer, "_turn_over", fault)
    await store.commit([write("a")])
    async with asyncio.timeout(5):
        while True:
            try:
                await store.commit([write("b")])
            except StoreBrokenError:
                break
    await store.close()


async def test_a_reader_that_holds_on_does_not_let_the_write_ahead_log_grow_for_ever(path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", 20)
    store = await open_at(path)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM journal").fetchone()
    for number in range(100):
        await store.commit([write("a", number, body=b"x" * 20_000)])
    held = wal_bytes(path)
    assert held > 100 * 20_000
    reader.close()
    for number in range(100, 400):
        await store.commit([write("a", number, body=b"x" * 20_000)])
    assert wal_bytes(path) < 1.2 * held, "it did not begin anew once the reader was gone"
    await store.close()


# Speed that must not be lost


async def test_commits_that_wait_become_one_transaction(store):
    statements: list[str] = []
    store._writer._connection.set_trace_callback(statements.append)
    await asyncio.gather(*(store.commit([write(f"g{i}")]) for i in range(200)))
    store._writer._connection.set_trace_callback(None)
    assert 1 <= statements.count("COMMIT") < 20


async def test_an_index_is_not_written_when_its_value_stays(path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", 1)
    store = await open_at(path)
    for number in range(4):
        await store.commit([write(f"u{i}", number) for i in range(3)])
    statements: list[str] = []
    store._writer._connection.set_trace_callback(statements.append)
    await store.commit([write(f"u{i}", 4) for i in range(3)])
    store._writer._connection.set_trace_callback(None)
    assert any(one.startswith("UPDATE d_things") for one in statements)
    assert not any(one.startswith("INSERT INTO d_things") for one in statements)
    await store.close()


async def test_a_search_is_answered_from_an_index(store):
    asked: list[str] = []
    store._connection.set_trace_callback(asked.append)
    await store.get("things", ["a"])
    await store.find("things", "kind", "a", "b", limit=5)
    await store.find_in("things", "kind", ["a", "b"], limit=5)
    await store.read("history", "a", 0, 9, limit=5)
    await store.scan("history", 0, 9, limit=5)
    store._connection.set_trace_callback(None)
    plans = [
        step[3] for sql in asked for step in store._connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
    ]
    assert len(asked) == 5
    assert not [
        step
        for step in plans
        if step.startswith("SCAN") and "json_each" not in step and "j VIRTUAL" not in step
    ]
