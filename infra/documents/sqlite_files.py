"""The files of the SQLite store: who may open them, connections that are durable, errors told apart."""

import fcntl
import os
import sqlite3
import stat
import sys
from pathlib import Path
from typing import IO, Final

from infra.documents.port import StoreBrokenError, StoreError, StoreUnavailableError

FILE_MODE: Final = 0o600
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
PAGE_BYTES: Final = 8_192
WRITER_CACHE_BYTES: Final = 32 * 2**20
READER_CACHE_BYTES: Final = 16 * 2**20
STATEMENTS_MAX: Final = 256
"""Prepared statements a connection keeps."""
BUSY_TIMEOUT_S: Final = 1.0
"""How long to wait for a stranger (a backup tool, a shell) that holds the file."""
WAL_BYTES_KEPT: Final = 64 * 2**20
"""A write-ahead log that had to grow beyond this is cut back to it."""
APPLICATION_ID: Final = 0x474E4F4D  # "GNOM"
LAYOUT: Final = 1
"""Version of the tables; a file with a higher one was written by a newer Gnomon."""
SYNCHRONOUS_FULL: Final = 2

_FSYNC_FAILED: Final = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
_UNREADABLE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class FileLock:
    """Keeps a second process (or a second store in this one) away from the file.

    A lock of the operating system on a file beside it, so it goes with the process, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = _lock_path(path).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _named(self._file)
            self._file.close()
            raise StoreUnavailableError(
                f"{path} is in use by {holder}: stop that process, or give this one another file"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]})")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def holder(path: Path) -> str | None:
    """Return which process has the file open, None when none has; nothing is changed."""
    try:
        with _lock_path(path).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _named(file)
    except FileNotFoundError:
        pass
    return None


def _lock_path(path: Path) -> Path:
    return Path(f"{path}.lock")


def _named(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read() or "another process"


def make_place(path: Path) -> None:
    """Make the directory, and the file readable for nobody else: also one that a backup tool wrote."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=FILE_MODE, exist_ok=True)
    # What it makes beside it SQLite gives the mode of the file itself.
    for one in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if is_exposed(one):
            one.chmod(FILE_MODE)


def is_exposed(path: Path) -> bool:
    """Tell whether others than its owner may open the file."""
    return path.exists() and bool(path.stat().st_mode & OTHERS)


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the one connection that writes; refuse if its commits would not survive power loss."""
    connection = _connect(path, WRITER_CACHE_BYTES)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that can only read."""
    connection = _connect(path, READER_CACHE_BYTES)
    connection.execute("PRAGMA query_only = ON")
    return connection


def translate(error: sqlite3.Error) -> StoreError:
    """Say what an error of SQLite means to a caller."""
    code = getattr(error, "sqlite_errorcode", 0)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _FSYNC_FAILED:
        return StoreBrokenError(f"an fsync failed ({name}): stop, look at the disk, start again")
    if code & 0xFF in _UNREADABLE:
        return StoreBrokenError(f"the database file is damaged ({name}): restore a backup")
    return StoreUnavailableError(f"SQLite could not do it: {error} ({name})")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Checkpoints are ours: the automatic ones swallow the error of a failed fsync.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    # Deleted content is overwritten where that costs no further page.
    connection.execute("PRAGMA secure_delete = FAST")
    _check_durable(connection)
    _check_layout(connection, path)


def _connect(path: Path, cache_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_MAX,
    )
    connection.execute(f"PRAGMA cache_size = {-cache_bytes // 1024}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _check_durable(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if mode != "wal" or synchronous != SYNCHRONOUS_FULL:
        raise StoreError(
            f"SQLite runs with journal_mode={mode}, synchronous={synchronous} and not with wal, 2 (FULL):"
            " commits would not survive power loss. Put the file on a local disk"
        )


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program: give Gnomon a file of its own")
    if layout > LAYOUT:
        raise StoreError(f"{path} has layout {layout}; this Gnomon knows {LAYOUT}: upgrade it")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {LAYOUT}")
