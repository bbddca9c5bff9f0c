"""What a load did, one JSON line a step, for a checker that runs afterwards and trusts nobody.

invoke  asked for the first time (repeats send the same bytes and are not told again)
ok      accepted, with the version and the digest of the answer; twice if answered twice
fail    refused: had no effect, whatever comes later under the same token
maybe   unknown: answered 500 or 503, or the run ended first; the effect is there 0 or 1 times
"""

from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import msgspec

from infra.clock import Clock

LINES_MAX: Final = 1_000  # in memory, before they are written


class Step(msgspec.Struct, omit_defaults=True):
    """One line."""

    t: int
    worker: str
    op: str
    phase: str
    thing: str
    shadow: str
    token: str
    body_sha256: str
    version: int | None = None
    answer_sha256: str | None = None
    code: int | None = None


class History:
    """Appends steps to a file that only this process writes; leaving its ``with`` writes the last ones."""

    __slots__ = ("_clock", "_encode", "_file", "_lines")

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []

    def add(
        self,
        phase: str,
        source: tuple[str, str, str, str],
        token: str,
        body: bytes,
        *,
        version: int | None = None,
        answer: bytes | None = None,
        code: int | None = None,
    ) -> None:
        """Add a step of ``source`` = (worker, op, thing, shadow)."""
        worker, op, thing, shadow = source
        step = Step(
            t=self._clock.now_ms(),
            worker=worker,
            op=op,
            phase=phase,
            thing=thing,
            shadow=shadow,
            token=token,
            body_sha256=sha256(body).hexdigest(),
            version=version,
            answer_sha256=None if answer is None else sha256(answer).hexdigest(),
            code=code,
        )
        self._lines.append(self._encode(step))
        if len(self._lines) >= LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what waits, whole lines only."""
        if self._lines:
            self._file.write(b"\n".join(self._lines) + b"\n")
            self._lines.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._file.close()
