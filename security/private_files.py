"""Files that hold secrets: readable by their owner only, whole or absent, never half written.

Made under another name, flushed to disk and then given their own: a crash at any moment leaves the old
file or the new one. What a file means is not known here.
"""

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
PUBLIC_MODE: Final = 0o644
FILE_BYTES_MAX: Final = 65_536
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


class ExposedFileError(Exception):
    """Others than the owner may open a file that holds a secret, or write beside it."""

    def __init__(self, path: Path, mode: int, remedy: str = "") -> None:
        super().__init__(
            f"{path} has mode {mode:04o}: others than its owner may use it. Run `chmod go= {path}`; if"
            f" somebody may have, {remedy or 'what it holds is no secret any more: replace that'}"
        )
        self.path = path


class DamagedFileError(Exception):
    """A file of ours does not hold what we wrote there."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path} {problem}: {remedy}")
        self.path = path


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter; refuse an existing one that others may write to."""
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    check_directory(path)


def check_directory(path: Path) -> None:
    """Refuse a directory that others than its owner may write to."""
    # Of a link nobody may say where it leads but who owns us.
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise _linked(path)
    _check_owner(path, found)
    mode = found.st_mode
    if mode & _WRITABLE:
        raise ExposedFileError(path, stat.S_IMODE(mode))


def read(path: Path, remedy: str = "", *, links: bool = False) -> bytes | None:
    """Return what the file holds, None when there is none; refuse one not ours, or that others may open.

    ``remedy`` says what to do if somebody has read it. ``links`` are followed only to what a person names.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _linked(path) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check_owner(path, found)
        if found.st_mode & _OTHERS:
            raise ExposedFileError(path, stat.S_IMODE(found.st_mode), remedy)
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise DamagedFileError(path, f"is larger than {FILE_BYTES_MAX} bytes", "it is not a file of ours")
    return data


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        raise DamagedFileError(path, f"belongs to user {found.st_uid}", "only its owner and root may use it")


def _linked(path: Path) -> DamagedFileError:
    return DamagedFileError(path, "is a symbolic link", "put in its place what it leads to")


def create(path: Path, data: bytes) -> bool:
    """Write a new file, durably; return False, and change nothing, when there is one already."""
    draft = _draft(path, data, FILE_MODE)
    try:
        # Unlike a rename, a link never replaces: of two processes that begin at once one makes the file.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    flush_directory(path.parent)
    return True


def replace(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write a file in place of what is there, durably."""
    draft = _draft(path, data, mode)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink()
        raise
    flush_directory(path.parent)


def _draft(path: Path, data: bytes, mode: int) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def flush_directory(path: Path) -> None:
    """Make it last which files the directory has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
