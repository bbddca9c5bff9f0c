"""Opaque files under the SHA-256 of what they hold: stored once, never parsed, never changed.

What comes is written to a file of its own; only when all of it is on the disk, and hashes there to its name,
does it get that name. A cut leaves what came so far, and the sender goes on from there. What is read is
mapped into memory once a process, and its hash is computed again then: a disk may forget.

In the directory::

    6e97d8601cb1…       whole, read only
    coming/6e97d8601cb1…       what has come of it so far; locked by whoever writes it
    coming/6e97d8601cb1….acme  the same, by a sender who is to know of no other
"""

import asyncio
import fcntl
import hashlib
import mmap
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1_048_576
"""What is read at once to be hashed."""
COMING_MAX: Final = 16
"""Files that are on their way; a further one takes the place of the one that was touched longest ago."""
COMING_S_MAX: Final = 86_400
"""What nobody goes on with for so long is forgotten."""
MAPPED_MAX: Final = 64
"""Files that stay mapped; the one that was asked for longest ago goes when its last reader does."""
SPARE_BYTES: Final = 268_435_456
"""Disk space that is left for everything else: documents, logs."""
DIRECTORY_MODE: Final = 0o700
COMING_MODE: Final = 0o600
STORED_MODE: Final = 0o400
_COMING: Final = "coming"
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_SENDER: Final = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)


class BlobError(Exception):
    """A file cannot be stored or had."""


class InvalidBlobNameError(BlobError):
    """Only a SHA-256 is a name."""

    def __init__(self) -> None:
        super().__init__("a file is named by its SHA-256: 64 of 0-9 a-f")


class BlobMissingError(BlobError):
    """There is no such file, or not all of it has come."""


class DamagedBlobError(BlobError):
    """What lies on the disk is not what its name says any more."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the file {sha256} is damaged on the disk: put back a copy of it")
        self.sha256 = sha256


class BlobTooLargeError(BlobError):
    """More than one file may have."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a file may have {bytes_max} bytes")
        self.bytes_max = bytes_max


class DigestMismatchError(BlobError):
    """All has come, and it is not what its name says; what came is gone."""

    def __init__(self) -> None:
        super().__init__("what came does not hash to the name it was sent to: send all of it again")


class OffsetMismatchError(BlobError):
    """The sender goes on from another place than where it was."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"{offset} bytes have come: go on from there")
        self.offset = offset


class BlobBusyError(BlobError):
    """Somebody else is sending the same file, or too many are being sent."""

    def __init__(self) -> None:
        super().__init__("this file is being sent already, or too many others are: try again later")


class NoSpaceError(BlobError):
    """The disk is too full to take more."""

    def __init__(self) -> None:
        super().__init__("there is no room for it on the disk")


@dataclass(frozen=True, slots=True)
class Blob:
    """A whole file in memory; ``view`` reads it without copying."""

    sha256: str
    view: memoryview

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.view)


class Upload:
    """One file on its way, held by one sender."""

    def __init__(self, blobs: "Blobs", sha256: str, coming: Path, descriptor: int, offset: int) -> None:
        self._blobs = blobs
        self._coming = coming
        self._descriptor = descriptor
        self.sha256 = sha256
        self.offset = offset

    def write(self, chunk: bytes) -> None:
        """Add what comes next.

        Raises :class:`BlobTooLargeError`, :class:`NoSpaceError`; what came before stays.
        """
        if self.offset + len(chunk) > self._blobs.bytes_max:
            raise BlobTooLargeError(self._blobs.bytes_max)
        self._blobs.require_space(len(chunk))
        rest = memoryview(chunk)
        while rest:
            written = os.write(self._descriptor, rest)
            self.offset += written
            rest = rest[written:]

    async def finish(self) -> bool:
        """Give the file its name once all of it is on the disk; False: it was there before.

        Raises :class:`DigestMismatchError`, and what came is gone.
        """
        return await asyncio.to_thread(self._finish)

    def _finish(self) -> bool:
        if _digest(self._descriptor) != self.sha256:
            self._coming.unlink()
            raise DigestMismatchError
        os.fchmod(self._descriptor, STORED_MODE)
        os.fsync(self._descriptor)
        stored = self._blobs.stored(self.sha256)
        is_new = not stored.exists()
        self._coming.replace(stored)
        _flush(stored.parent)
        return is_new


class Blobs:
    """The files of one directory. Several processes may use it at a time."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self.bytes_max = bytes_max
        self._mapped: dict[str, Blob] = {}
        self._loading = asyncio.Lock()

    def stored(self, sha256: str) -> Path:
        """Return where a whole file lies."""
        if not _NAME.fullmatch(sha256):
            raise InvalidBlobNameError
        return self._directory / sha256

    def coming(self, sha256: str, sender: str = "") -> Path:
        """Return where it lies while it comes from this sender."""
        place = self.stored(sha256).parent / _COMING
        if sender and not _SENDER.fullmatch(sender):
            raise ValueError(f"{sender!r} is the name of no sender")
        return place / (f"{sha256}.{sender}" if sender else sha256)

    # ------------------------------------------------------------------ storing

    def arrived(self, sha256: str, sender: str = "") -> int:
        """Return how much has come from a sender of a file that is not whole yet."""
        try:
            return self.coming(sha256, sender).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def receive(self, sha256: str, offset: int, sender: str = "") -> Iterator[Upload]:
        """Take a file, or go on with one; from 0 it begins anew. What has come by the end of the block stays.

        Each ``sender`` has a file of its own under way, which nobody else learns of or goes on with.

        Raises:
            BlobBusyError: somebody else sends it just now, or too many others are sent.
            OffsetMismatchError: not so much has come, or more.
        """
        path = self.coming(sha256, sender)
        self._make_directories()
        self._make_room(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, COMING_MODE)
        try:
            if not _locked(descriptor) or not _is_still(path, descriptor):
                raise BlobBusyError
            if offset == 0:
                os.ftruncate(descriptor, 0)
            came = os.lseek(descriptor, 0, os.SEEK_END)
            if came != offset:
                raise OffsetMismatchError(came)
            yield Upload(self, sha256, path, descriptor, offset)
        finally:
            os.close(descriptor)

    def require_space(self, more_bytes: int) -> None:
        """Raise :class:`NoSpaceError` if the disk would be too full."""
        if shutil.disk_usage(self._directory).free - more_bytes < SPARE_BYTES:
            raise NoSpaceError

    def sweep(self) -> int:
        """Forget what nobody goes on with; return how many files that were."""
        oldest_s = time.time() - COMING_S_MAX
        return sum(self._forget(path) for path in self._all_coming() if path.stat().st_mtime < oldest_s)

    def _make_directories(self) -> None:
        for directory in (self._directory, self._directory / _COMING):
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def _make_room(self, coming: Path) -> None:
        """See that one more may come, unless it is one that comes already: a sender's own go first."""
        others = [path for path in self._all_coming() if path != coming]
        if len(others) >= COMING_MAX:
            first = sorted(others, key=lambda path: (path.suffix != coming.suffix, path.stat().st_mtime))
            if not any(self._forget(path) for path in first):
                raise BlobBusyError

    def _all_coming(self) -> list[Path]:
        place = self._directory / _COMING
        return list(place.iterdir()) if place.is_dir() else []

    def _forget(self, path: Path) -> bool:
        """Drop what has come of a file, unless somebody is sending it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            if not _locked(descriptor) or not _is_still(path, descriptor):
                return False
            path.unlink()
        finally:
            os.close(descriptor)
        return True

    # ------------------------------------------------------------------ reading

    async def load(self, sha256: str) -> Blob:
        """Return a file; the first time it is mapped and its hash is computed again.

        Raises :class:`BlobMissingError`, :class:`DamagedBlobError`.
        """
        path = self.stored(sha256)
        async with self._loading:
            blob = self._mapped.pop(sha256, None)
            if blob is None:
                blob = await asyncio.to_thread(_map, path)
            self._mapped[sha256] = blob  # the newest stands last
            if len(self._mapped) > MAPPED_MAX:
                del self._mapped[next(iter(self._mapped))]
        return blob

    async def check(self, sha256: str) -> Blob:
        """Return a file whose hash was computed just now, from the disk."""
        async with self._loading:
            self._mapped.pop(sha256, None)
        return await self.load(sha256)


def _map(path: Path) -> Blob:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise BlobMissingError("there is no such file") from error
    except OSError as error:  # a link, or a disk that does not read
        raise DamagedBlobError(path.name) from error
    try:
        size = os.fstat(descriptor).st_size
        if _digest(descriptor) != path.name:
            raise DamagedBlobError(path.name)
        # Nothing cannot be mapped.
        view = memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)) if size else memoryview(b"")
        return Blob(path.name, view)
    except OSError as error:
        raise DamagedBlobError(path.name) from error
    finally:
        os.close(descriptor)


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def _locked(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether an open file has this name still: it may have been finished or dropped meanwhile."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
