"""The kill test: `gnomon up` under load, killed at random moments, restarted, and judged afterwards.

The supervisor starts, kills and waits. It judges nothing: that is the checker's, in a process of its own,
after everything has ended. Loads run in processes of their own and outlive every kill.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.chaos.evidence import keys_of, read_lines
from tests.chaos.manifest import MANIFEST, LoadKind, Manifest
from tests.system.child import ROOT, Gnomon

GNOMON, BROKER = "gnomon", "broker"
BEFORE_KILL_S = (0.3, 2.0)
SECOND_KILL_SHARE = 0.25
"""How often gnomon is killed once more, while it is still coming up."""
SECOND_KILL_S = (0.05, 0.8)
RECOVERY_S_MAX = 30.0
SWEEP_S = 1
STOP_S_MAX = 60.0
POLL_S = 0.05
MIRRORS, CONVERGING = 8, "mirror-%03d"
PLAIN = LoadKind("load-%03d", connections=16, rate=250, is_sequenced=False)
SEQUENCED = LoadKind("sequence-%03d", connections=8, rate=60, is_sequenced=True)
SETTINGS = {
    "limits.history_versions_max": 1_000_000,  # the checker needs every version
    "limits.outbox_sweep_s": SWEEP_S,
    "logs.format": "json",
    "api.compat_http": "true",  # the wishers write shadows that are no person's to write
}


@dataclass(slots=True)
class Load:
    """A load process and the file it writes."""

    process: "subprocess.Popen[bytes]"
    history: Path
    read_bytes: int = 0
    accepted: int = 0

    def count(self) -> int:
        """Return how many acceptances it has noted so far."""
        with self.history.open("rb") as file:
            file.seek(self.read_bytes)
            news = file.read()
        whole = news[: news.rfind(b"\n") + 1]
        self.read_bytes += len(whole)
        self.accepted += whole.count(b'"phase":"ok"')
        return self.accepted


class Supervisor:
    """One run in one directory."""

    def __init__(
        self,
        directory: Path,
        cycles: int,
        seed: int,
        out: IO[str] = sys.stdout,
        faults: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._cycles = cycles
        self._chance = random.Random(seed)
        self._seed = seed
        self._out = out
        self._gnomon = Gnomon(directory, SETTINGS, faults)
        self._loads: list[Load] = []

    def run(self) -> None:
        """Run all cycles and stop in good order; what is left is for the checker."""
        try:
            self._gnomon.start()
            self._prepare()
            self._start_loads()
            self._until_progress("the loads began")
            for number in range(1, self._cycles + 1):
                self._cycle(number)
            self._settle()
        finally:
            for load in self._loads:
                _end(load.process)
            self._gnomon.close()

    # ------------------------------------------------------------------ before

    def _prepare(self) -> None:
        things = [name for kind in (PLAIN, SEQUENCED) for name in kind.things]
        self._gnomon.register(*things, *(CONVERGING % number for number in range(MIRRORS)))

    def _start_loads(self) -> None:
        certificates = self._directory / "things"
        for number, kind in enumerate((PLAIN, SEQUENCED)):
            history = self._directory / f"history-{number}.jsonl"
            self._spawn(kind.command(self._gnomon.device_port, certificates, history, self._seed), history)
        history = self._directory / "history-mirrors.jsonl"
        command = [
            *("-m", "tests.chaos.load", "--port", self._gnomon.device_port, "--api", self._gnomon.api_url),
            *("--certificates", certificates),
            *("--history", history, "--things", CONVERGING, "--mirrors", MIRRORS, "--seed", self._seed),
        ]
        self._spawn(command, history)
        manifest = Manifest((PLAIN, SEQUENCED), CONVERGING.partition("%")[0], self._cycles, self._seed)
        (self._directory / MANIFEST).write_bytes(manifest.encode())

    def _spawn(self, command: Sequence[object], history: Path) -> None:
        history.touch()
        with history.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._loads.append(Load(process, history))

    # ------------------------------------------------------------------ a cycle

    def _cycle(self, number: int) -> None:
        target = (GNOMON, BROKER)[(number - 1) % 2]
        after_s = self._chance.uniform(*BEFORE_KILL_S)
        time.sleep(after_s)
        accepted = self._accepted()
        killed = time.monotonic()
        kills = self._kill_gnomon() if target == GNOMON else self._kill_broker()
        self._until_progress(f"recovery of cycle {number}")
        self._say(
            cycle=number,
            target=target,
            kills=kills,
            after_s=round(after_s, 3),
            down_s=round(time.monotonic() - killed, 3),
            accepted=accepted,
        )

    def _kill_gnomon(self) -> int:
        """Kill it, leaving to it what is left of its broker, and start it; sometimes kill it in between."""
        _kill(self._process)
        kills = 1
        if self._chance.random() < SECOND_KILL_SHARE:
            self._gnomon.launch()
            time.sleep(self._chance.uniform(*SECOND_KILL_S))
            _kill(self._process)
            kills = 2
        self._gnomon.start()
        return kills

    def _kill_broker(self) -> int:
        killed = self._gnomon.kill_broker()
        self._wait(lambda: self._gnomon.has_broker(other_than=killed), "a new broker")
        return 1

    def _until_progress(self, what: str) -> None:
        """Wait until every load has had something accepted since now."""
        before = [load.count() for load in self._loads]
        self._wait(
            lambda: all(load.count() > count for load, count in zip(self._loads, before, strict=True)), what
        )

    # ------------------------------------------------------------------ after

    def _settle(self) -> None:
        """End the loads, let everything that is under way arrive, note what REST shows, and stop."""
        for load in self._loads:
            load.process.send_signal(signal.SIGTERM)
        for load in self._loads:
            code = load.process.wait(STOP_S_MAX)
            assert code == 0, f"a load ended with {code}: see {load.history.with_suffix('.log')}"
        time.sleep(2 * SWEEP_S + 1)  # outboxes are swept when their shadow has been quiet for a while
        self._note_finals()
        seconds = self._gnomon.stop()
        self._say(stopped_s=round(seconds, 3), code=self._process.returncode)
        assert self._gnomon.broker_pid is None, "the broker outlived the service"

    def _note_finals(self) -> None:
        lines = read_lines([load.history for load in self._loads])
        with (self._directory / "finals.jsonl").open("wb") as file:
            for final in self._finals(keys_of(lines)):
                file.write(json.dumps(final).encode() + b"\n")

    def _finals(self, keys: Iterator[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        for thing, shadow in keys:
            answer = self._gnomon.http.get(f"/v1/things/{thing}/shadows/{shadow or '@classic'}")
            assert answer.status_code in {200, 404}, answer.text
            content: dict[str, Any] = {"version": 0, "state": {}, "metadata": {}}
            if answer.status_code == 200:
                content = answer.json()
            yield {
                "thing": thing,
                "shadow": shadow,
                **{name: content[name] for name in ("version", "state", "metadata")},
            }

    # ------------------------------------------------------------------ details

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self._gnomon.process is not None
        return self._gnomon.process

    def _accepted(self) -> int:
        return sum(load.count() for load in self._loads)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + RECOVERY_S_MAX
        while not condition():
            for load in self._loads:
                assert load.process.poll() is None, f"a load ended: see {load.history.with_suffix('.log')}"
            assert self._process.poll() is None, f"gnomon ended: see {self._gnomon.log}"
            assert time.monotonic() < deadline, f"not within {RECOVERY_S_MAX:.0f} s: {what}"
            time.sleep(POLL_S)

    def _say(self, **figures: object) -> None:
        self._out.write(json.dumps(figures) + "\n")
        self._out.flush()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(STOP_S_MAX)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(STOP_S_MAX)
