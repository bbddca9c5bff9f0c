"""Long random runs of every adapter against the simplest thing that could be right: two dicts.

It shares no code with the adapters. The overlays of the SQLite store are made small and of changing
size, so that everything is met in the journal, half folded and in the tables, and after a restart.
"""

import random

import pytest

from infra.documents import sqlite_writer
from infra.documents.opening import open_store
from infra.documents.port import Cut, Document, Entry, Page, Write

IDS = [f"{kind}:{i}" for kind in "ab" for i in range(4)]
KEYS = [f"{id}{end}" for id in IDS for end in ("", ":0000000001")]
"""The ids of one key's rows lie between those of the other."""
VALUES = ["", "x", "x\1", "y", 0, -3, 7]
STEPS = {"memory": 300, "sqlite": 150, "sqlite-folding": 150, "mongodb": 60}


class Model:
    def __init__(self):
        self.documents = {}
        self.rows = {}

    def commit(self, writes):
        lost = set()
        for position, write in enumerate(writes):
            before = self.documents.get((write.collection, write.id))
            if write.expected != (before.revision if before else 0):
                lost.add(position)
                continue
            if write.body is None:
                del self.documents[write.collection, write.id]
            else:
                document = Document(write.id, write.expected + 1, write.body, write.index)
                self.documents[write.collection, write.id] = document
            self.append(write.entries)
            for cut in write.cuts:
                span = range(cut.first, cut.below)
                for place in [p for p in self.rows if p[:2] == (cut.log, cut.key) and p[2] in span]:
                    del self.rows[place]
        return lost

    def append(self, entries):
        for entry in entries:
            self.rows[entry.log, entry.key, entry.number] = entry

    def find(self, collection, field, wanted):
        found = [
            document
            for (name, _), document in self.documents.items()
            if name == collection and field in document.index and wanted(document.index[field])
        ]
        return sorted(found, key=lambda one: (isinstance(one.index[field], str), one.index[field], one.id))

    def read(self, log, key, first, last):
        rows = [row for row in self.rows.values() if (row.log, row.key) == (log, key)]
        return sorted((row for row in rows if first <= row.number <= last), key=lambda row: row.number)

    def scan(self, log, from_ms, to_ms):
        rows = [row for row in self.rows.values() if row.log == log and from_ms <= row.at_ms <= to_ms]
        return sorted(rows, key=lambda row: (row.at_ms, row.key, row.number))


def some_entries(chance, keys):
    return [
        Entry(
            chance.choice(["history", "audit"]),
            chance.choice(keys),
            chance.randrange(12),
            chance.randrange(5),
            chance.randbytes(4),
        )
        for _ in range(chance.choice([0, 0, 1, 1, 2, 9]))
    ]


def some_cut(chance, key):
    first = chance.choice([0, 0, chance.randrange(12)])
    return Cut("history", key, chance.randrange(first, 13), first)


def some_writes(chance, model):
    writes = []
    for id in chance.sample(IDS, chance.choice([1, 1, 2, 5, len(IDS)])):
        before = model.documents.get(("things", id))
        expected = before.revision if before and chance.random() < 0.9 else chance.choice([0, 1, 2])
        deletes = expected and chance.random() < 0.15
        index = {name: chance.choice(VALUES) for name in ("kind", "room") if chance.random() < 0.7}
        # A log key belongs to one document: between the writes of a commit there is no order.
        keys = [id, f"{id}:0000000001"]
        cuts = [some_cut(chance, chance.choice(keys)) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
        body = None if deletes else chance.randbytes(chance.choice([0, 3, 3_000]))
        writes.append(Write("things", id, expected, body, index, some_entries(chance, keys), cuts))
    return writes


async def in_pages(search, limit):
    found: list[Document | Entry] = []
    cursor = None
    while True:
        page = await search(limit=limit, cursor=cursor)
        found += page.documents if isinstance(page, Page) else page.entries
        cursor = page.next
        if cursor is None:
            return found


async def compare(store, model, chance):
    ids = chance.sample(IDS, 5)
    assert await store.get("things", ids) == {
        id: model.documents["things", id] for id in ids if ("things", id) in model.documents
    }
    field, limit = chance.choice(["kind", "room"]), chance.choice([1, 2, 3, 100])
    kind = chance.choice([str, int])
    low, high = (chance.choice([one for one in VALUES if isinstance(one, kind)]) for _ in range(2))
    assert await in_pages(lambda **page: store.find("things", field, low, high, **page), limit) == model.find(
        "things", field, lambda value: isinstance(value, kind) and low <= value <= high
    )
    there = len(model.find("things", field, lambda value: isinstance(value, kind) and low <= value <= high))
    assert await store.count("things", field, low, high, at_most=limit) == min(there, limit)
    values = chance.sample(VALUES, 3)
    assert (
        await store.find_in("things", field, values, limit=limit)
        == model.find("things", field, lambda value: value in values)[:limit]
    )
    log, key = chance.choice(["history", "audit"]), chance.choice(KEYS)
    first, last = chance.randrange(12), chance.randrange(12)
    rows = model.read(log, key, first, last)
    assert await store.read(log, key, first, last, limit=limit) == rows[:limit]
    assert await store.read(log, key, first, last, limit=limit, newest_first=True) == rows[::-1][:limit]
    early, late = chance.randrange(5), chance.randrange(5)
    assert await in_pages(lambda **page: store.scan(log, early, late, **page), limit) == model.scan(
        log, early, late
    )


@pytest.mark.parametrize("seed", range(4))
async def test_any_history_reads_as_in_the_model(
    seed, store_url, store_collections, store_logs, request, monkeypatch
):
    chance = random.Random(seed)
    model = Model()
    steps = STEPS[request.node.callspec.params["store_url"]]
    while steps > 0:
        store = await open_store(store_url, store_collections, store_logs, testing=True)
        life = min(steps, chance.randrange(1, 40)) if "memory" not in store_url else steps
        steps -= life
        try:
            for _ in range(life):
                if "sqlite" in store_url:
                    size = chance.choice([1, 500, 5_000, 50_000])
                    monkeypatch.setattr(sqlite_writer, "OVERLAY_BYTES_MAX", size)
                    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", chance.choice([1, 10, 1_000]))
                await change(store, model, chance)
                await compare(store, model, chance)
        finally:
            await store.close()


async def change(store, model, chance):
    if chance.random() < 0.7:
        writes = some_writes(chance, model)
        assert await store.commit(writes) == model.commit(writes)
    else:
        entries = some_entries(chance, KEYS)
        await store.append(entries)
        model.append(entries)
