"""What a field tool remembers of a day: lines of JSON on its own disk, each written through before it counts.

A tool that is switched off goes on from it; at home it is what is told to the service. A last line that was
cut off by a flat battery is left out, and nothing else is ever rewritten.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ota.models import Execution

LINE_BYTES_MAX: Final = 65_536
JOURNAL_BYTES_MAX: Final = 268_435_456


class JournalError(Exception):
    """A journal cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of one target on site; or, of one that was told to the service, ``told``."""

    at_ms: int
    """By the tool's clock."""
    order: str
    manifest: str
    sha256: str
    operator: str
    execution: Execution
    told: bool = False


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Line).decode


class Journal:
    """One file, written by one tool at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: Line) -> None:
        """Write a line; it is on the disk when this returns."""
        with self.path.open("ab") as file:
            if file.tell() and not self._ends_well():
                file.write(b"\n")
            file.write(_encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> Iterator[Line]:
        """Yield what was written, in order. Raises :class:`JournalError`."""
        if not self.path.exists():
            return
        if self.path.stat().st_size > JOURNAL_BYTES_MAX:
            raise JournalError(f"{self.path} is too large for a journal: begin another one")
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield _decode(text)
                except msgspec.DecodeError as error:
                    if text.endswith(b"\n") and text.strip().endswith(b"}"):
                        raise JournalError(
                            f"{self.path}, line {number}: this is no line of a journal ({error}); give the"
                            " right file, or take that line out"
                        ) from error

    def last(self) -> dict[tuple[str, str], Line]:
        """Return the last line of each target, by order and thing."""
        return {(one.order, one.execution.thing): one for one in self.lines()}

    def _ends_well(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
