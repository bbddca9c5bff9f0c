"""Finds the request that kills the process, so that it is not tried for ever.

In normal operation this costs nothing. Only after an unclean end does it write down which redelivered
requests are in hand, a batch at a time. Should the process die again, those and only those are tried
one by one, until one of them has had its tries and becomes a dead letter; the innocent are served on
the way. (spec: shadow, section 8; reliability, rule 3.6)
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from broker_bridge.inbox import Message, R

RUNNING_FILE: Final = "running"
IN_HAND_FILE: Final = "in-hand.json"

_tries = msgspec.json.Decoder(dict[str, int])
_log = structlog.get_logger(__name__)


class Suspects:
    """Which requests were in hand when the process died, and how often."""

    def __init__(self, directory: Path, tries_max: int) -> None:
        self._running = directory / RUNNING_FILE
        self._in_hand = directory / IN_HAND_FILE
        self._tries_max = tries_max
        self._tries: dict[str, int] = {}
        self.careful = False

    def begin(self) -> None:
        """Start: look whether the last run ended cleanly, and mark this one as running."""
        self._running.parent.mkdir(parents=True, exist_ok=True)
        self.careful = self._running.exists()
        if self.careful:
            self._tries = self._read()
            _log.warning("last_run_ended_unclean", requests_suspected=len(self._tries))
        self._running.touch()

    def end(self) -> None:
        """End in good order: nothing is in hand any more."""
        self._in_hand.unlink(missing_ok=True)
        self._running.unlink(missing_ok=True)

    def portions(self, batch: Sequence[Message[R]]) -> Iterator[Sequence[Message[R]]]:
        """Split a batch so that each suspect is alone; order is kept."""
        together: list[Message[R]] = []
        for message in batch:
            if self.tries(message) == 0:
                together.append(message)
                continue
            if together:
                yield together
                together = []
            yield [message]
        if together:
            yield together

    def tries(self, message: Message[Any]) -> int:
        """How often the process died with these bytes in hand."""
        return self._tries.get(_digest(message), 0)

    def condemned(self, message: Message[Any]) -> bool:
        """Tell whether a request has had all its tries."""
        return self.tries(message) >= self._tries_max

    def take(self, portion: Sequence[Message[R]]) -> None:
        """Write down what is in hand from now on."""
        in_hand = self._tries | {_digest(message): self.tries(message) + 1 for message in portion}
        scratch = self._in_hand.with_suffix(".new")
        try:
            scratch.write_bytes(msgspec.json.encode(in_hand))
            scratch.replace(self._in_hand)
        except OSError as error:
            # A full disk must not be what ends the process: then nobody is suspected, and all are served.
            _log.warning("suspects_not_written", reason=error.strerror)

    def release(self, portion: Sequence[Message[R]]) -> None:
        """The portion was served: none of it is the killer."""
        for message in portion:
            self._tries.pop(_digest(message), None)

    def relax(self) -> None:
        """What was redelivered has been served: stop writing things down.

        Unless something was condemned: its sender, or the broker, may have more copies of it, and to
        forget it would be to die of it three times more.
        """
        self._tries = {digest: tries for digest, tries in self._tries.items() if tries >= self._tries_max}
        self.careful = bool(self._tries)
        if not self.careful:
            self._in_hand.unlink(missing_ok=True)

    def _read(self) -> dict[str, int]:
        try:
            return _tries.decode(self._in_hand.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("suspects_unreadable", reason=str(error))  # then all are innocent once more
            return {}


def _digest(message: Message[Any]) -> str:
    return hashlib.sha256(message.request.key.encode() + b"\0" + message.payload).hexdigest()
