"""Opening the document store that a URL names."""

from collections.abc import Sequence
from pathlib import Path

from infra.documents.memory import MemoryStore
from infra.documents.port import Collection, DocumentStore, StoreError
from infra.documents.sqlite import SqliteStore


async def open_store(
    url: str, collections: Sequence[Collection], logs: Sequence[str], *, testing: bool = False
) -> DocumentStore:
    """Open ``sqlite:<path>``, ``mongodb://…/<database>``, or in tests ``memory:``."""
    scheme, _, place = url.partition(":")
    match scheme:
        case "sqlite" if place:
            return await SqliteStore.open(Path(place), collections, logs)
        case "mongodb" | "mongodb+srv":
            # Here, so that the embedded default does not load the driver (50 ms).
            from infra.documents.mongo import MongoStore  # noqa: PLC0415 - see above

            return await MongoStore.open(url, collections, logs)
        case "memory" if testing:
            return MemoryStore(collections, logs)
        case "memory":
            raise StoreError("the memory store forgets everything: name a store with sqlite:<path>")
        case _:
            raise StoreError(f"no store is called {scheme}: use sqlite:<path> or mongodb://<host>/<database>")
