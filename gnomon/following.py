"""The other end of the service's event streams: followed across cuts, restarts and logins that ran out."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from gnomon.access import Access
from gnomon.refusals import NotProvedError, UnreachableError
from gnomon.told import harmless

TRIES_MAX: Final = 150
"""Tries in a row that nobody answers: five minutes of a service that is away."""
RETRY_S: Final = 2.0
SILENCE_S: Final = 45.0
"""Three signs of life of the service were missed."""


def follow(access: Access, path: str) -> Iterator[Any]:
    """Yield what the events of a stream say, until the caller has seen enough.

    After a cut it goes on with what the service had told last; nothing is told twice, and of what changed
    meanwhile the last is told.

    Raises:
        AccessError: it was refused, or the service stays away.
    """
    seen, tries, is_renewed = "", 0, False
    while True:
        tries += 1
        try:
            fields = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen} if seen else {})
            with access.stream(path, fields, silence_s=SILENCE_S) as answer:
                tries, is_renewed = 0, False
                for id, data in events(answer.iter_lines()):
                    seen = id or seen
                    yield harmless(msgspec.json.decode(data))
        except UnreachableError:
            if tries >= TRIES_MAX:
                raise
        except NotProvedError:
            if is_renewed:
                raise
            is_renewed = True
            access.forget()
            continue
        access.wait(RETRY_S)


def events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the id and the data of each event; what was not sent to its end is none."""
    id, data = "", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            id = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            yield id, "\n".join(data)
            data = []
