"""The connection to MongoDB: what its URL may say, and what every operation runs under."""

from collections.abc import Mapping
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_uri

from infra.documents.port import StoreError

OPERATION_TIMEOUT_MS: Final = 1_400
"""One operation of the driver with its retry; leaves time to read back."""
POOL_MAX: Final = 32
DURABLE: Final[Mapping[str, Any]] = {
    "w": "majority",
    "journal": True,
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
}
"""What the store needs. A URL may say the same, never something else."""


def connect(url: str) -> tuple[AsyncMongoClient[dict[str, Any]], str]:
    """Return a client, and the name of the database the URL names."""
    database = _database_of(url)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        url,
        timeoutMS=OPERATION_TIMEOUT_MS,
        serverSelectionTimeoutMS=OPERATION_TIMEOUT_MS,
        connectTimeoutMS=OPERATION_TIMEOUT_MS,
        maxPoolSize=POOL_MAX,
        **DURABLE,
    )
    return client, database


def _database_of(url: str) -> str:
    """Return the database a URL names; refuse what is not durable or not ours to choose."""
    try:
        parts = parse_uri(url)
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise StoreError(f"the MongoDB URL cannot be read: {error}") from error
    database = parts["database"]
    if not isinstance(database, str) or not database:
        raise StoreError("the MongoDB URL names no database: write mongodb://<host>/<database>")
    options = parts["options"]
    for name, needed in DURABLE.items():
        given = options.get(name, needed)
        if given != needed:
            raise StoreError(
                f"the MongoDB URL sets {name}={given}; the store needs {name}={needed}: drop it from the URL"
            )
    return database
