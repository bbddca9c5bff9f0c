"""What the port of the document store promises, sentence by sentence, of every adapter."""

import asyncio
import itertools
import random

import pytest

from infra.documents.checks import BODY_BYTES_MAX, COMMIT_WRITES_MAX, NUMBER_MAX, TEXT_CHARS_MAX
from infra.documents.opening import open_store
from infra.documents.port import (
    COUNT_MAX,
    CUT_SPAN_MAX,
    IDS_MAX,
    PAGE_MAX,
    Cut,
    Document,
    Entry,
    InvalidCursorError,
    StoreError,
    StoreUnavailableError,
    Write,
)

WON: frozenset[int] = frozenset()
AT = 1_790_000_000_000
WRITERS = 50


def create(id, body=b"1", collection="things", **index):
    return Write(collection, id, 0, body, index)


def entry(number, key="a", at_ms=AT, body=b"row", log="history"):
    return Entry(log, key, number, at_ms, body)


async def put(store, *writes):
    assert await store.commit(writes) == WON


async def numbers(store, key="a", first=0, last=NUMBER_MAX, limit=PAGE_MAX, **options):
    rows = await store.read("history", key, first, last, limit=limit, **options)
    return [row.number for row in rows]


async def pages(store, field, low, high, limit):
    cursor = None
    while True:
        page = await store.find("things", field, low, high, limit=limit, cursor=cursor)
        yield [document.id for document in page.documents]
        cursor = page.next
        if cursor is None:
            break


async def everything(store, field, low, high, limit):
    return [id async for page in pages(store, field, low, high, limit) for id in page]


# Documents


async def test_a_document_is_found_as_it_was_written(store):
    await put(store, create("a", b"\0\xff\x00{}", kind="valve", room=7))
    assert await store.get("things", ["a"]) == {
        "a": Document("a", 1, b"\0\xff\x00{}", {"kind": "valve", "room": 7})
    }


async def test_get_returns_the_documents_that_exist(store):
    await put(store, create("a"), create("b"))
    assert set(await store.get("things", ["a", "b", "c"])) == {"a", "b"}
    assert await store.get("things", []) == {}
    assert await store.get("plain", ["a"]) == {}


@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * 1_000, bytes(range(256)), "ü€😀".encode()])
async def test_a_body_is_bytes_of_any_kind(store, body):
    await put(store, create("a", body))
    await put(store, create("b"))
    assert (await store.get("things", ["a"]))["a"].body == body


@pytest.mark.parametrize(
    "id", ["a:b/c_d-e", "a/b", ":", "_", "-", "%", "'", '"', "$a.b", "ü€😀", "\1\2", "1"]
)
async def test_an_id_is_text_of_any_kind(store, id):
    write = Write("things", id, 0, b"1", {"kind": id}, [entry(3, id)])
    await put(store, write)
    await put(store, create("other"))
    assert (await store.get("things", [id]))[id].index == {"kind": id}
    assert [one.id for one in (await store.find("things", "kind", id, id, limit=9)).documents] == [id]
    assert await numbers(store, id) == [3]


async def test_revisions_rise_by_one_with_every_write(store):
    await put(store, create("a"))
    for revision in range(1, 6):
        await put(store, Write("things", "a", revision, b"%d" % revision))
        assert (await store.get("things", ["a"]))["a"].revision == revision + 1


async def test_collections_do_not_share_ids(store):
    await put(store, create("a", b"1"), create("a", b"2", "plain"))
    assert (await store.get("plain", ["a"]))["a"].body == b"2"


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
async def test_a_write_on_another_revision_loses_and_changes_nothing(store, expected):
    await put(store, create("a"), create("b"))
    await put(store, Write("things", "a", 1, b"2", {"kind": "valve"}))
    before = await store.get("things", ["a"])
    lost = Write("things", "a", expected, b"lost", {"kind": "lost"}, [entry(1)], [Cut("history", "b", 9)])
    assert await store.commit([lost]) == {0}
    assert await store.get("things", ["a"]) == before
    assert (await store.find("things", "kind", "lost", "lost", limit=9)).documents == ()
    assert await numbers(store) == []


async def test_a_write_on_a_document_that_is_not_there_loses(store):
    assert await store.commit([Write("things", "a", 1, b"1")]) == {0}
    assert await store.get("things", ["a"]) == {}


async def test_commit_returns_the_positions_of_the_lost_and_keeps_the_others(store):
    await put(store, *(create(str(i)) for i in range(0, 10, 2)))
    writes = [create(str(i), b"new") for i in range(10)]
    assert await store.commit(writes) == {0, 2, 4, 6, 8}
    found = await store.get("things", [str(i) for i in range(10)])
    assert [found[str(i)].body for i in range(10)] == [b"1", b"new"] * 5


async def test_a_commit_that_is_repeated_loses_and_changes_nothing(store):
    await put(store, create("a"))
    again = Write("things", "a", 1, b"2", entries=[entry(2)])
    await put(store, again)
    assert await store.commit([again]) == {0}
    assert (await store.get("things", ["a"]))["a"].revision == 2
    assert await numbers(store) == [2]


async def test_a_commit_of_nothing_does_nothing(store):
    assert await store.commit([]) == WON
    await store.append([])


async def test_a_delete_makes_the_document_absent(store):
    await put(store, create("a", kind="valve"), create("b", kind="valve"))
    await put(store, Write("things", "a", 1, None))
    assert set(await store.get("things", ["a", "b"])) == {"b"}
    assert await everything(store, "kind", "valve", "valve", 9) == ["b"]
    assert await store.commit([Write("things", "a", 1, b"2"), Write("things", "a2", 2, None)]) == {0, 1}


async def test_a_delete_on_another_revision_loses(store):
    await put(store, create("a"))
    assert await store.commit([Write("things", "a", 2, None)]) == {0}
    assert set(await store.get("things", ["a"])) == {"a"}


async def test_a_deleted_document_can_be_created_again(store):
    for body in (b"1", b"2", b"3"):
        await put(store, create("a", body, kind=body.decode()))
        assert (await store.get("things", ["a"]))["a"] == Document("a", 1, body, {"kind": body.decode()})
        await put(store, Write("things", "a", 1, None))


# Races


async def test_fifty_writers_on_one_document_lose_no_increment(store):
    await put(store, create("a", b"0"))

    async def increment():
        for attempt in itertools.count(1):
            before = (await store.get("things", ["a"]))["a"]
            value = int(before.body)
            await asyncio.sleep(0)  # where the others get in between
            write = Write("things", "a", before.revision, b"%d" % (value + 1), {}, [entry(value)])
            if not await store.commit([write]):
                return attempt
        return 0

    attempts = await asyncio.gather(*(increment() for _ in range(WRITERS)))
    assert (await store.get("things", ["a"]))["a"] == Document("a", WRITERS + 1, b"%d" % WRITERS)
    assert await numbers(store) == list(range(WRITERS))
    assert sum(attempts) > WRITERS, "nobody raced"


async def test_of_two_batches_that_overlap_each_document_is_won_once(store):
    ids = [f"{i:02d}" for i in range(40)]
    await put(store, *(create(id) for id in ids))
    batches = [
        [Write("things", id, 1, b"%d" % who, {}, [entry(who, id)]) for id in ids[who * 5 : who * 5 + 25]]
        for who in range(4)
    ]
    lost = await asyncio.gather(*(store.commit(batch) for batch in batches))
    won = [
        {write.id for position, write in enumerate(batch) if position not in its_lost}
        for batch, its_lost in zip(batches, lost, strict=True)
    ]
    assert sorted(id for ids in won for id in ids) == ids
    found = await store.get("things", ids)
    for who, ids_won in enumerate(won):
        for id in ids_won:
            assert (found[id].revision, found[id].body) == (2, b"%d" % who)
            assert await numbers(store, id) == [who]


async def test_one_of_many_creators_wins(store):
    lost = await asyncio.gather(*(store.commit([create("a", b"%d" % who)]) for who in range(WRITERS)))
    (winner,) = [who for who, positions in enumerate(lost) if not positions]
    assert (await store.get("things", ["a"]))["a"].body == b"%d" % winner


async def test_a_writer_that_is_cancelled_leaves_all_or_nothing_and_the_store_goes_on(store):
    for number in range(20):
        write = Write("things", f"c{number}", 0, b"1", {"kind": "c"}, [entry(number)])
        task = asyncio.ensure_future(store.commit([write]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await put(store, create("a"))
    ids = [f"c{number}" for number in range(20)]
    async with asyncio.timeout(2):  # what was begun may still be under way
        while True:
            documents = set(await store.get("things", ids))
            indexed = set(await everything(store, "kind", "c", "c", 100))
            if documents == indexed == {f"c{number}" for number in await numbers(store)}:
                break
    assert documents, "none was written: the test cancels too early"


# Entries and cuts


async def test_entries_are_written_with_their_document(store):
    await put(store, Write("things", "a", 0, b"1", {}, [entry(0), entry(1, body=b"\0")]))
    await put(store, create("b"))
    assert await store.read("history", "a", 0, 9, limit=9) == [entry(0), entry(1, body=b"\0")]


async def test_an_entry_that_is_there_already_is_replaced(store):
    await put(store, Write("things", "a", 0, b"1", {}, [entry(5, body=b"old")]))
    await put(store, Write("things", "a", 1, b"1", {}, [entry(5, at_ms=AT + 9, body=b"new")]))
    await put(store, create("b"))
    new = entry(5, at_ms=AT + 9, body=b"new")
    assert await store.read("history", "a", 0, 9, limit=9) == [new]
    assert (await store.scan("history", 0, AT + 99, limit=9)).entries == (new,)


async def test_append_writes_entries_that_belong_to_no_document(store):
    await store.append([entry(1, log="audit"), entry(1)])
    await store.append([entry(2, log="audit"), entry(2, log="audit", body=b"the last one counts")])
    assert [row.number for row in await store.read("audit", "a", 0, 9, limit=9)] == [1, 2]
    assert (await store.read("audit", "a", 2, 2, limit=9))[0].body == b"the last one counts"
    assert await numbers(store) == [1]


async def test_numbers_go_from_0_to_their_maximum(store):
    await store.append([entry(0), entry(NUMBER_MAX), entry(0, "b"), entry(1, "a:0000000000")])
    await store.append([entry(7, "z")])
    assert await numbers(store) == [0, NUMBER_MAX]
    assert await numbers(store, last=2**40) == [0, NUMBER_MAX]
    assert await numbers(store, first=-5, last=0) == [0]
    assert await numbers(store, "b") == [0]
    assert await numbers(store, "a:0000000000") == [1]


async def test_read_returns_a_range_with_both_ends(store):
    await store.append([entry(number) for number in range(0, 100, 10)])
    await store.append([entry(15)])
    assert await numbers(store, first=10, last=30) == [10, 15, 20, 30]
    assert await numbers(store, first=30, last=10) == []
    assert await numbers(store, first=11, last=14) == []
    assert await numbers(store, "unknown") == []


async def test_read_stops_at_the_limit_from_either_end(store):
    await store.append([entry(number) for number in (1, 3, 5, 7)])
    await store.append([entry(number) for number in (2, 4, 6)])
    assert await numbers(store, limit=3) == [1, 2, 3]
    assert await numbers(store, limit=3, newest_first=True) == [7, 6, 5]
    assert await numbers(store, first=2, last=5, limit=9, newest_first=True) == [5, 4, 3, 2]


async def test_a_cut_drops_what_is_below_it_of_one_key(store):
    await store.append(
        [entry(n, key, log=log) for n in range(6) for key in "ab" for log in ("history", "audit")]
    )
    await put(store, create("b"))
    await put(store, Write("things", "a", 0, b"1", {}, [entry(6)], [Cut("history", "a", 4)]))
    await put(store, create("c"))
    assert await numbers(store) == [4, 5, 6]
    assert await numbers(store, "b") == list(range(6))
    assert len(await store.read("audit", "a", 0, 9, limit=9)) == 6
    assert [(one.key, one.number) for one in (await store.scan("history", 0, AT, limit=99)).entries] == [
        *(("a", n) for n in (4, 5, 6)),
        *(("b", n) for n in range(6)),
    ]


async def test_a_cut_may_drop_everything_and_the_key_can_begin_anew(store):
    await store.append([entry(0), entry(NUMBER_MAX)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", NUMBER_MAX + 1)]))
    assert await numbers(store) == []
    await put(store, create("b"))
    assert await numbers(store) == []
    await store.append([entry(1)])
    await store.append([entry(2, "b")])
    assert await numbers(store) == [1]


async def test_an_entry_below_an_earlier_cut_is_kept(store):
    await store.append([entry(1), entry(2), entry(9)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", 5)]))
    await put(store, Write("things", "a", 1, b"1", {}, [entry(4, body=b"the oldest, whole")]))
    assert await numbers(store) == [4, 9]
    await put(store, create("b"))
    await put(store, create("c"))
    assert await numbers(store) == [4, 9]


async def test_in_one_write_the_cuts_come_after_the_entries(store):
    await put(store, Write("things", "a", 0, b"1", {}, [entry(1), entry(5)], [Cut("history", "a", 5)]))
    assert await numbers(store) == [5]


async def test_a_cut_below_nothing_drops_nothing(store):
    await store.append([entry(0)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", 0), Cut("audit", "x", 3)]))
    assert await numbers(store) == [0]


async def test_a_cut_may_drop_a_span_and_keep_what_is_older(store):
    await store.append([entry(n) for n in range(8)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", 5, first=3)]))
    assert await numbers(store) == [0, 1, 2, 5, 6, 7]
    assert await numbers(store, limit=3) == [0, 1, 2]
    assert await numbers(store, limit=4, newest_first=True) == [7, 6, 5, 2]
    await put(store, create("b"))
    await put(store, create("c"))
    assert await numbers(store) == [0, 1, 2, 5, 6, 7]
    assert [one.number for one in (await store.scan("history", 0, AT, limit=99)).entries] == [
        0,
        1,
        2,
        5,
        6,
        7,
    ]


async def test_what_a_span_dropped_may_be_written_again(store):
    await store.append([entry(n) for n in range(4)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", 3, first=1)]))
    await store.append([entry(2)])
    assert await numbers(store) == [0, 2, 3]
    await put(store, create("b"))
    await put(store, create("c"))
    assert await numbers(store) == [0, 2, 3]


async def test_an_empty_span_drops_nothing(store):
    await store.append([entry(n) for n in range(4)])
    await put(store, Write("things", "a", 0, b"1", {}, [], [Cut("history", "a", 2, first=2)]))
    assert await numbers(store) == [0, 1, 2, 3]


async def test_a_delete_may_cut_its_log(store):
    await put(store, Write("things", "a", 0, b"1", {}, [entry(1)]))
    await put(store, Write("things", "a", 1, None, {}, [], [Cut("history", "a", 2)]))
    assert (await numbers(store), await store.get("things", ["a"])) == ([], {})


# Searches


async def test_find_returns_a_range_with_both_ends_in_order_of_value_and_id(store):
    values = {"e": 3, "d": 1, "c": 3, "b": -(2**40), "a": 2, "f": 2**40, "g": 0}
    await put(store, *(create(id, room=value) for id, value in values.items()))
    await put(store, create("h", room=2), create("i", kind="no room"))
    assert await everything(store, "room", -(2**41), 2**41, 100) == ["b", "g", "d", "a", "h", "c", "e", "f"]
    assert await everything(store, "room", 1, 3, 100) == ["d", "a", "h", "c", "e"]
    assert await everything(store, "room", 3, 3, 100) == ["c", "e"]
    assert await everything(store, "room", 3, 1, 100) == []


async def test_find_orders_text_by_code_point(store):
    texts = ["", "a", "a\1", "a\1a", "a!", "aa", "b", "Z", "z", "é", "€", "\uffff", "😀"]
    await put(store, *(create(f"id {i}", kind=text) for i, text in enumerate(texts)))
    await put(store, create("other"))
    page = await store.find("things", "kind", "", "\U0010ffff", limit=100)
    assert [one.index["kind"] for one in page.documents] == sorted(texts)
    for text in texts:
        assert len((await store.find("things", "kind", text, text, limit=9)).documents) == 1


async def test_text_and_numbers_do_not_meet_in_a_range(store):
    await put(
        store, create("a", kind="1"), create("b", kind=1), create("c", kind="0000"), create("d", kind=0)
    )
    assert await everything(store, "kind", 0, 2**62, 9) == ["d", "b"]
    assert await everything(store, "kind", "", "~", 9) == ["c", "a"]
    assert [one.id for one in await store.find_in("things", "kind", ["1", 1], limit=9)] == ["b", "a"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_hold_each_document_once_and_end(store, limit):
    wanted = [(room, f"{i:02d}") for i, room in enumerate(random.Random(limit).choices(range(4), k=21))]
    for start in range(0, 21, 7):
        await put(store, *(create(id, room=room) for room, id in wanted[start : start + 7]))
    found = [page async for page in pages(store, "room", 0, 3, limit)]
    assert [id for page in found for id in page] == [id for _, id in sorted(wanted)]
    assert {len(page) for page in found[:-1]} <= {limit}


async def test_a_change_of_an_index_value_moves_the_document(store):
    await put(store, create("a", kind="x", room=1), create("b", kind="x", room=1))
    await put(store, Write("things", "a", 1, b"2", {"kind": "y"}))
    for _ in range(2):
        assert await everything(store, "kind", "x", "x", 9) == ["b"]
        assert await everything(store, "kind", "y", "y", 9) == ["a"]
        assert await everything(store, "room", 0, 9, 9) == ["b"]
        await put(store, create(f"other {_}"))
    assert (await store.get("things", ["a"]))["a"].index == {"kind": "y"}


async def test_paging_while_others_write_misses_nobody_who_stays(store):
    stays = [f"s{i:03d}" for i in range(60)]
    await put(store, *(create(id, room=1) for id in stays))
    stop = asyncio.Event()

    async def disturb():
        revisions = dict.fromkeys(stays, 1)
        for step in itertools.count():
            if stop.is_set():
                return
            some = [stays[(step * 7 + i) % len(stays)] for i in range(5)]
            writes = [Write("things", id, revisions[id], b"%d" % step, {"room": 1}) for id in some]
            for id in some:
                revisions[id] += 1
            await put(store, *writes, create(f"t{step:03d}", room=1))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(disturb())
        for _ in range(5):
            found = await everything(store, "room", 0, 2, 7)
            assert [id for id in found if id[0] == "s"] == stays
            assert len(set(found)) == len(found)
        stop.set()


async def test_a_count_is_how_many_a_search_finds_and_goes_no_further_than_asked(store):
    await put(store, *(create(f"{i:02d}", kind=f"k{i % 5}", room=i % 3) for i in range(20)))
    moved = Write("things", "05", 1, b"", {"kind": "k4"})
    await put(store, Write("things", "00", 1, None), moved, Write("things", "10", 1, b"2", {"kind": "k0"}))
    for _ in range(2):  # also when what was written has reached the tables
        for kind, there in (("k0", 2), ("k1", 4), ("k4", 5), ("k5", 0)):
            assert await store.count("things", "kind", kind, kind, at_most=100) == there
            assert await store.count("things", "kind", kind, kind, at_most=1) == min(there, 1)
            assert await store.count("things", "kind", kind, kind, at_most=there + 1) == there
        assert await store.count("things", "kind", "", "~", at_most=100) == 19
        assert await store.count("things", "kind", "", "~", at_most=18) == 18
        assert await store.count("things", "room", 0, 0, at_most=100) == 6
        assert await store.count("things", "room", 1, 0, at_most=100) == 0
        await put(store, create(f"other {_}"))


async def test_counting_while_others_write_counts_who_stays_once(store):
    stays = [f"s{i:03d}" for i in range(60)]
    await put(store, *(create(id, room=1) for id in stays))
    stop = asyncio.Event()

    async def disturb():
        revisions = dict.fromkeys(stays, 1)
        for step in itertools.count():
            if stop.is_set():
                return
            some = [stays[(step * 7 + i) % len(stays)] for i in range(5)]
            await put(store, *(Write("things", id, revisions[id], b"%d" % step, {"room": 1}) for id in some))
            revisions |= {id: revisions[id] + 1 for id in some}
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(disturb())
        for _ in range(20):
            assert await store.count("things", "room", 0, 2, at_most=1_000) == len(stays)
        stop.set()


async def test_find_in_returns_what_has_one_of_the_values(store):
    await put(store, *(create(f"{i:02d}", kind=f"k{i % 5}") for i in range(20)))
    await put(store, Write("things", "00", 1, None), Write("things", "01", 1, b"", {"kind": "k4"}))
    found = await store.find_in("things", "kind", ["k0", "k1", "k0", "unknown"], limit=100)
    assert {one.id for one in found} == {"05", "10", "15", "06", "11", "16"}
    assert all(one.index["kind"] in {"k0", "k1"} for one in found)
    assert len(await store.find_in("things", "kind", ["k0", "k1"], limit=4)) == 4
    assert await store.find_in("things", "kind", [], limit=4) == []


async def test_find_in_takes_many_values(store):
    await put(store, *(create(f"{i:03d}", kind=f"k{i}") for i in range(250)))
    await put(store, create("other"))
    found = await store.find_in("things", "kind", [f"k{i}" for i in range(0, 500, 2)], limit=IDS_MAX)
    assert {one.id for one in found} == {f"{i:03d}" for i in range(0, 250, 2)}


async def test_scan_returns_all_keys_in_order_of_time_key_and_number(store):
    rows = [
        (AT + 2, "a", 1),
        (AT + 1, "b", 7),
        (AT + 1, "a", 9),
        (AT + 1, "a", 10),
        (AT + 3, "c", 0),
        (AT, "z", 1),
    ]
    for some in (rows[:3], rows[3:]):
        await store.append([entry(number, key, at) for at, key, number in some])
    await store.append([entry(1, "a", AT, log="audit")])
    page = await store.scan("history", AT, AT + 3, limit=100)
    assert [(one.at_ms, one.key, one.number) for one in page.entries] == sorted(rows)
    assert page.next is None
    page = await store.scan("history", AT + 1, AT + 2, limit=100)
    assert [(one.at_ms, one.key, one.number) for one in page.entries] == sorted(rows)[1:5]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_a_scan_in_pages_holds_each_entry_once(store, limit):
    rows = [(number, f"k{number % 3}", AT + number % 4) for number in range(22)]
    for start in range(0, 22, 11):
        await store.append([entry(*row) for row in rows[start : start + 11]])
    found: list[Entry] = []
    page = await store.scan("history", AT, AT + 9, limit=limit)
    while True:
        found += page.entries
        assert len(page.entries) <= limit
        if page.next is None:
            break
        page = await store.scan("history", AT, AT + 9, limit=limit, cursor=page.next)
    assert found == sorted((entry(*row) for row in rows), key=lambda one: (one.at_ms, one.key, one.number))


# Cursors and bounds


async def test_a_cursor_of_another_search_is_refused(store):
    await put(store, *(create(f"{i}", room=i, kind="x") for i in range(5)))
    cursor = (await store.find("things", "room", 0, 9, limit=2)).next
    assert cursor is not None
    for asked in (("kind", "x", "x"), ("room", 0, 8), ("room", 1, 9)):
        with pytest.raises(InvalidCursorError):
            await store.find("things", *asked, limit=2, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        await store.scan("history", 0, 9, limit=2, cursor=cursor)
    await store.append([entry(number) for number in range(5)])
    cursor = (await store.scan("history", 0, AT, limit=2)).next
    with pytest.raises(InvalidCursorError):
        await store.scan("audit", 0, AT, limit=2, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        await store.find("things", "room", 0, AT, limit=2, cursor=cursor)


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "é", "AAAA", "kpCQ", "A" * 10_000])
async def test_a_made_up_cursor_is_refused(store, cursor):
    with pytest.raises(InvalidCursorError):
        await store.find("things", "room", 0, 9, limit=2, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        await store.scan("history", 0, 9, limit=2, cursor=cursor)


async def test_the_limits_of_a_page_and_a_look_up_are_kept_at_them_and_beyond(store):
    ids = [f"{i:05d}" for i in range(IDS_MAX)]
    assert await store.get("things", ids) == {}
    assert await store.find_in("things", "kind", ids[:200], limit=IDS_MAX) == []
    assert (await store.find("things", "room", 0, 1, limit=PAGE_MAX)).documents == ()
    assert await store.read("history", "a", 0, 1, limit=PAGE_MAX) == []
    assert (await store.scan("history", 0, 1, limit=PAGE_MAX)).entries == ()
    refused = [
        store.get("things", [*ids, "x"]),
        store.find_in("things", "kind", [*ids, "x"], limit=1),
        store.find_in("things", "kind", ["x"], limit=IDS_MAX + 1),
    ]
    refused += [store.count("things", "room", 0, 1, at_most=limit) for limit in (0, -1, COUNT_MAX + 1)]
    assert await store.count("things", "room", 0, 1, at_most=COUNT_MAX) == 0
    for limit in (0, -1, PAGE_MAX + 1):
        refused += [
            store.find("things", "room", 0, 1, limit=limit),
            store.read("history", "a", 0, 1, limit=limit),
            store.scan("history", 0, 1, limit=limit),
        ]
    for one in refused:
        with pytest.raises(ValueError, match=r"limit|look-up"):
            await one


async def test_a_full_page_holds_its_maximum(store):
    for start in range(0, PAGE_MAX + 1, 250):
        count = min(250, PAGE_MAX + 1 - start)
        await put(store, *(create(f"{start + i:05d}", b"", room=1) for i in range(count)))
    page = await store.find("things", "room", 1, 1, limit=PAGE_MAX)
    assert len(page.documents) == PAGE_MAX
    assert page.next is not None
    rest = await store.find("things", "room", 1, 1, limit=PAGE_MAX, cursor=page.next)
    assert [one.id for one in rest.documents] == [f"{PAGE_MAX:05d}"]


MISTAKES = {
    "unknown collection": create("a", collection="unknown"),
    "unknown field": create("a", colour="red"),
    "no value": create("a", kind=None),
    "float": create("a", room=1.5),
    "boolean": create("a", room=True),
    "number beyond 64 bits": create("a", room=2**63),
    "text as body": create("a", "text"),
    "body too long": create("a", b"x" * (BODY_BYTES_MAX + 1)),
    "id too long": create("x" * (TEXT_CHARS_MAX + 1)),
    "NUL in the id": create("a\0b"),
    "surrogate in the id": create("\ud800"),
    "NUL in a value": create("a", kind="a\0"),
    "negative revision": Write("things", "a", -1, b""),
    "deleting what must not exist": Write("things", "a", 0, None),
    "unknown log": Write("things", "a", 0, b"", {}, [entry(1, log="unknown")]),
    "negative number": Write("things", "a", 0, b"", {}, [entry(-1)]),
    "number too high": Write("things", "a", 0, b"", {}, [entry(NUMBER_MAX + 1)]),
    "cut of an unknown log": Write("things", "a", 0, b"", {}, [], [Cut("unknown", "a", 1)]),
    "cut of too much": Write("things", "a", 0, b"", {}, [], [Cut("history", "a", CUT_SPAN_MAX + 2, 1)]),
    "cut that ends before it begins": Write("things", "a", 0, b"", {}, [], [Cut("history", "a", 1, 2)]),
    "cut too high": Write("things", "a", 0, b"", {}, [], [Cut("history", "a", NUMBER_MAX + 2)]),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_mistake_in_one_write_refuses_the_commit_and_spoils_nobody_elses(store, mistake):
    commits = [store.commit([create("good")]), store.commit([create("b"), mistake])]
    good, bad = await asyncio.gather(*commits, return_exceptions=True)
    assert good == WON
    assert isinstance(bad, ValueError), bad
    assert set(await store.get("things", ["good", "b"])) == {"good"}


async def test_a_commit_names_a_document_once(store):
    with pytest.raises(ValueError, match="twice"):
        await store.commit([create("a"), create("a")])
    assert await store.get("things", ["a"]) == {}


async def test_a_commit_has_a_largest_size(store):
    with pytest.raises(ValueError, match="split it"):
        await store.commit([create(str(i)) for i in range(COMMIT_WRITES_MAX + 1)])
    with pytest.raises(ValueError, match="split it"):
        await store.commit([create(str(i), b"x" * BODY_BYTES_MAX) for i in range(9)])
    with pytest.raises(ValueError, match="split them"):
        await store.append([entry(i) for i in range(COMMIT_WRITES_MAX + 1)])


async def test_the_longest_id_value_and_key_are_kept(store):
    long = "ü" * TEXT_CHARS_MAX
    await put(store, Write("things", long, 0, b"1", {"kind": long}, [entry(1, long)]))
    await put(store, create("b"))
    assert await everything(store, "kind", long, long, 9) == [long]
    assert await numbers(store, long) == [1]


async def test_a_search_by_what_is_not_indexed_is_refused(store):
    for search in (
        store.find("things", "colour", "a", "b", limit=1),
        store.find("plain", "kind", "a", "b", limit=1),
        store.find("unknown", "kind", "a", "b", limit=1),
        store.find("things", "kind", "a", 1, limit=1),
        store.find_in("things", "colour", ["a"], limit=1),
        store.count("things", "colour", "a", "b", at_most=1),
        store.count("unknown", "kind", "a", "b", at_most=1),
        store.count("things", "kind", "a", 1, at_most=1),
        store.get("unknown", ["a"]),
        store.read("unknown", "a", 0, 1, limit=1),
        store.scan("unknown", 0, 1, limit=1),
    ):
        with pytest.raises(ValueError, match=r"opened|no index|mixes"):
            await search


# Opening and closing


@pytest.mark.parametrize("store_url", ["sqlite", "sqlite-folding", "mongodb"], indirect=True)
async def test_reopening_finds_everything(store_url, store_collections, store_logs):
    first = await open_store(store_url, store_collections, store_logs)
    await put(first, Write("things", "a", 0, b"1", {"kind": "x", "room": 3}, [entry(1), entry(2)]))
    await put(first, create("b", kind="x"), create("c", kind="x"))
    await first.append([entry(4, log="audit")])
    await put(
        first, Write("things", "c", 1, None), Write("things", "b", 1, b"2", {}, [], [Cut("history", "a", 2)])
    )
    await first.close()
    for _ in range(2):
        store = await open_store(store_url, store_collections, store_logs)
        assert await store.get("things", ["a", "b", "c"]) == {
            "a": Document("a", 1, b"1", {"kind": "x", "room": 3}),
            "b": Document("b", 2, b"2"),
        }
        assert await everything(store, "kind", "x", "x", 9) == ["a"]
        assert await numbers(store) == [2]
        assert len((await store.scan("audit", 0, AT, limit=9)).entries) == 1
        assert await store.commit([create("a")]) == {0}
        await put(store, create(f"more {_}"))
        await store.close()


@pytest.mark.parametrize("store_url", ["sqlite", "sqlite-folding", "mongodb"], indirect=True)
async def test_a_collection_a_field_and_a_log_can_be_added_later(store_url, store_collections, store_logs):
    first = await open_store(store_url, store_collections[:1], store_logs[:1])
    await put(first, create("a", kind="x"))
    await first.close()
    more = [*(type(one)(one.name, (*one.indexed, "floor")) for one in store_collections)]
    store = await open_store(store_url, more, store_logs)
    await put(
        store, Write("things", "a", 1, b"2", {"kind": "x", "floor": 2}), create("p", collection="plain")
    )
    await put(store, create("q", floor=1))
    assert await everything(store, "floor", 0, 9, 9) == ["q", "a"]
    assert await everything(store, "kind", "x", "x", 9) == ["a"]
    await store.close()


async def test_a_closed_store_refuses_and_may_be_closed_again(store):
    await put(store, create("a"))
    await store.close()
    await store.close()
    for one in (store.get("things", ["a"]), store.commit([create("b")]), store.append([entry(1)])):
        with pytest.raises(StoreUnavailableError):
            await one


async def test_the_description_names_the_adapter_and_no_password(store, store_url):
    name = store_url.partition(":")[0]
    assert {"memory": "memory", "sqlite": "SQLite", "mongodb": "MongoDB"}[name] in store.description
    assert "@" not in store.description
    assert store.exclusive is (name != "mongodb")


async def test_the_memory_store_is_for_tests_only():
    with pytest.raises(StoreError, match="forgets everything"):
        await open_store("memory:", (), ())


@pytest.mark.parametrize("url", ["", "sqlite:", "redis://localhost", "/var/lib/gnomon"])
async def test_an_unknown_store_is_refused(url):
    with pytest.raises(StoreError, match="use sqlite"):
        await open_store(url, (), ())


@pytest.mark.parametrize("name", ["", "Things", "a b", "a;drop", "1a", "x" * 41])
async def test_a_name_that_could_be_no_table_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="is no name"):
        await open_store(f"sqlite:{tmp_path / 'x'}", (), (name,))
