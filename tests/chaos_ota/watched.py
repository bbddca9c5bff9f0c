"""A flash that loses its power where a part says so, and writes down by itself what is written to it.

That log is independent of everything that is said over the network: it is what the device did.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from fleet.boot import Record
from fleet.flash import PAGES, Flash, Fuse, Pages
from tests.chaos_ota.cast import Countdown, Cut, How, State

_record = msgspec.msgpack.Decoder(Record).decode


class Log:
    """Lines of JSON about what devices did; ``struck`` counts what befell them."""

    def __init__(self, file: Path) -> None:
        self._file: IO[bytes] = file.open("wb")
        self.struck: Counter[str] = Counter()

    def write(self, thing: str, event: str, **more: Any) -> None:
        line = {"t": time.time_ns() // 1_000_000, "thing": thing, "event": event, **more}
        self._file.write(msgspec.json.encode(line) + b"\n")

    def cut(self, thing: str, cut: Cut) -> None:
        """Write down that the power went."""
        self.struck[f"power.{cut.name}"] += 1
        self.write(thing, "power", state=int(cut.state), how=cut.how)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Write down the totals."""
        for name, count in sorted(self.struck.items()):
            self.write("", "struck", name=name, count=count)
        self._file.close()


class ChaosFuse(Fuse):
    """Lets the power go in the states that were chosen, each once."""

    __slots__ = ("_countdown", "_on_cut", "_state")

    def __init__(
        self, chance: random.Random, cuts: tuple[Cut, ...], on_cut: Callable[[Cut], None], **options: Any
    ) -> None:
        super().__init__(chance, **options)
        self._countdown = Countdown(cuts, How.WRITE)
        self._on_cut = on_cut
        self._state: Callable[[], State] | None = None

    def arm(self, state: Callable[[], State]) -> None:
        """Begin: what the factory wrote does not count."""
        self._state = state

    def blows(self) -> bool:
        blown = super().blows()
        if self._state is None or not self._countdown:
            return blown
        cut = self._countdown.came(self._state())
        if cut is None:
            return blown
        self._on_cut(cut)
        return True


class WatchedPages(Pages):
    """The pages of the record ``ota``: each change of what matters is logged once it stands there."""

    __slots__ = ("_log", "_seen", "_thing")

    def __init__(self, fuse: Fuse, pages: list[bytes], thing: str, log: Log) -> None:
        super().__init__(fuse)
        self.pages = pages
        self._thing, self._log = thing, log
        self._seen: tuple[Any, ...] = ()

    def write(self, data: bytes) -> None:
        super().write(data)
        record = _record(data)
        candidate = record.candidate
        seen = (record.state, record.running, record.boots, record.trials, record.reason, record.end)
        if seen != self._seen:
            self._seen = seen
            self._log.write(
                self._thing,
                "record",
                state=int(record.state),
                runs=record.image.sha256,
                candidate="" if candidate is None else candidate.sha256,
                manifest="" if candidate is None else candidate.manifest,
                boots=record.boots,
                trials=record.trials,
                reason=record.reason,
                end=record.end,
                job=record.job,
            )


def watch(flash: Flash, thing: str, log: Log) -> None:
    """Have a flash that has left the factory logged, and its fuse armed."""
    assert len(flash.record.pages) == PAGES
    flash.record = WatchedPages(flash.fuse, flash.record.pages, thing, log)

    def state() -> State:
        data = flash.record.read()
        return State.NONE if data is None else State(int(_record(data).state))

    fuse = flash.fuse
    assert isinstance(fuse, ChaosFuse)
    fuse.arm(state)
