"""Sends an image to the service: after a cut it goes on where it broke off, in this run and in the next.

How much has come is the service's to say: it is asked before each try. Tries are counted since anything came.
"""

import hashlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

from gnomon.access import Access
from gnomon.refusals import UnreachableError, refusal

TRIES_MAX: Final = 6
"""Tries with nothing more to show for them."""
WAIT_S: Final = 1.0
"""Before the second try; before each further one twice as long."""
PIECE_BYTES: Final = 65_536
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that another look mends: a cut that the service sees late moves the place to go on from."""

Sent = Callable[[int], None]
"""Is told how many bytes of the image are there."""


def send(access: Access, file: Path, sent: Sent) -> bool:
    """See that the service has the image in ``file``; False: it had it before.

    Raises:
        AccessError: it was refused, or nothing comes through any more.
    """
    path = f"/v1/ota/images/{_sha256(file)}"
    came = _arrived(access, path)
    if came is None:
        sent(file.stat().st_size)
        return False
    furthest, tries = came, 1
    while True:
        try:
            if (came := _arrived(access, path)) is not None:
                _send_rest(access, path, file, came, sent)
        except UnreachableError:
            if came is not None and came > furthest:
                furthest, tries = came, 1
            if tries >= TRIES_MAX:
                raise
            access.wait(WAIT_S * 2 ** (tries - 1))
            tries += 1
        else:
            return True


def _arrived(access: Access, path: str) -> int | None:
    """Return how much the service has of an image; None: all of it."""
    answer = access.look(path)
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        raise refusal(answer)
    # Whatever else is wrong is told with its reason once something is sent.
    return None if answer.status_code == HTTPStatus.OK else int(answer.headers.get("upload-offset", "0"))


def _send_rest(access: Access, path: str, file: Path, first: int, sent: Sent) -> None:
    size = file.stat().st_size
    fields = {"Content-Length": str(size - first)}
    if first:
        fields["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
    answer = access.put(path, _pieces(file, first, sent), fields)
    if answer.status_code in _AGAIN:
        raise UnreachableError(str(refusal(answer)))
    if not answer.is_success:
        raise refusal(answer)


def _pieces(file: Path, first: int, sent: Sent) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(first)
        sent(first)
        while piece := opened.read(PIECE_BYTES):
            yield piece
            sent(opened.tell())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
