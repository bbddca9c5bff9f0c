"""Fetch an image over HTTPS, as a Linux gateway does: resumed where it was cut, believed only when it hashes.

    offset = what is there already
    GET, Range: bytes=<offset>-, If-Range: "<sha256>"
        206  append                         200  begin again: the server sends all of it
        416  there is nothing after that    404  the job is no longer ours
    until the size is reached; then SHA-256 of the whole file

The transport is a port, so that tests cut it where they like. What size and hash are comes from the signed
manifest, never from the server.
"""

import hashlib
import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from fleet.firmware import Download

CHUNK_BYTES: Final = 65_536
TRIES_MAX: Final = 50
"""Cuts in one download; each must have brought something."""
ANSWER_S: Final = 30.0
ALL, PART, NOT_FOUND, BEYOND = 200, 206, 404, 416


class DownloadError(Exception):
    """There is no such image for us, or what came is not it; what had come of it was removed."""


class Response(Protocol):
    """One answer of a server, as far as it is read here."""

    @property
    def status(self) -> int: ...

    def getheader(self, name: str) -> str | None: ...

    def read(self, amount: int) -> bytes: ...


class Transport(Protocol):
    """Sends one GET."""

    def get(self, headers: Mapping[str, str]) -> Response: ...


def download(wanted: Download, file: Path, transport: Transport) -> None:
    """Fetch the image into ``file``; what is there from an earlier try is gone on from.

    Raises :class:`OSError` if nothing comes now: what is there stays, and is gone on from another time.
    """
    for _ in range(TRIES_MAX):
        have = _size(file)
        if have >= wanted.size:
            break
        problem: Exception | str = "an empty answer"
        try:
            _fetch_rest(wanted, file, have, transport)
        except (OSError, http.client.HTTPException) as error:
            problem = error  # cut: ask for the rest
        if _size(file) == have:
            raise OSError(f"nothing comes: {problem}")
    if _size(file) < wanted.size:
        raise OSError("cut too often")
    if _size(file) != wanted.size or _digest(file) != wanted.sha256:
        file.unlink()
        raise DownloadError("what came is not the image that was signed")


def _fetch_rest(wanted: Download, file: Path, have: int, transport: Transport) -> None:
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{wanted.sha256}"'} if have else {}
    response = transport.get(headers)
    if response.status == NOT_FOUND:
        file.unlink(missing_ok=True)
        raise DownloadError("no such image for us: the job may be over")
    if response.status == BEYOND or (response.status == PART and not _begins_at(response, have)):
        file.unlink(missing_ok=True)
        return
    if response.status not in {ALL, PART}:
        raise OSError(f"the server answered {response.status}")
    with file.open("ab" if response.status == PART else "wb") as sink:
        left = wanted.size - (have if response.status == PART else 0)
        # Never more than was signed for: a server that goes on for ever does not fill the disk.
        while left > 0 and (data := response.read(min(CHUNK_BYTES, left))):
            sink.write(data)
            left -= len(data)


def _begins_at(response: Response, offset: int) -> bool:
    return (response.getheader("Content-Range") or "").startswith(f"bytes {offset}-")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


class _Https:
    """One connection that is kept as long as it works."""

    def __init__(self, host: str, port: int, path: str, context: ssl.SSLContext) -> None:
        self._path = path
        self._connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=context)

    def get(self, headers: Mapping[str, str]) -> Response:
        self._connection.close()  # what is left of an answer that was cut must not be read as the next one
        self._connection.request("GET", self._path, headers=dict(headers))
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def https(url: str, context: ssl.SSLContext) -> Iterator[Transport]:
    """Open a transport to an address of a job document; the context shows the gateway's certificate."""
    try:
        parts = urlsplit(url)
        port = parts.port or http.client.HTTPS_PORT
    except ValueError as error:
        raise DownloadError(f"no address: {error}") from error
    if parts.scheme != "https" or parts.hostname is None:
        raise DownloadError("an image comes over https or not at all")
    transport = _Https(parts.hostname, port, parts.path, context)
    try:
        yield transport
    finally:
        transport.close()
