"""A run: campaigns for the whole fleet, while service and broker are killed. It judges nothing.

That is the checker's, in a process of its own, after everything has ended. Devices run in a process of their
own as well, and outlive every kill.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from tests.chaos_ota import plants
from tests.chaos_ota.cast import ABORTED, LOSS, MANGLED, Cast, Group, new_cast
from tests.chaos_ota.operators import OVER, Operators
from tests.chaos_ota.prepare import prepare
from tests.chaos_ota.written import ACTS, RUN, SAMPLES, Act, Run, Sample
from tests.system.child import ROOT, Gnomon

SETTINGS: Final = {
    "logs.format": "json",
    # Messages get lost: what waits for one that does not come is tried again soon.
    "ota.start_grace_s": 40,
    "ota.confirm_s": 90,
    "ota.health_s": 120,
    "ota.devices_per_hour_max": 1_000_000,
}
HURRIED: Final = {"ota.start_grace_s": 10, "ota.confirm_s": 20, "ota.health_s": 20}
COME_S_MAX: Final = 300.0
PLANTED_COME_S: Final = 30.0
START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 60.0
KILL_EVERY_S: Final = (12.0, 24.0)
HURRIED_KILL_EVERY_S: Final = (3.0, 6.0)
SERVICE, BROKER = "service", "broker"
SAMPLE_S: Final = 0.5
ORDER: Final = (Group.SICK, Group.KEEP, Group.TRAP, Group.WIPE, Group.STOP, Group.CUT)
"""Who takes longest comes first."""
BUSY_SHARE: Final = 0.05
"""So many devices are at work when service or broker are killed."""
ABORT_SHARE: Final = 0.3
"""A campaign is aborted when so many of its devices have begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large a run is, and how long it may take."""

    devices: int = 1_000
    seed: int = 1
    kills: int = 8
    image_bytes: int = 128 * 1_024
    loss: float = LOSS
    mangled: float = MANGLED
    hurry: bool = False
    planted: str = ""
    run_s_max: float = 1_500.0
    settle_s_max: float = 240.0


@dataclass(slots=True)
class Under:
    """A campaign that was begun."""

    group: Group
    id: str
    number: int
    targets: int
    state: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    resuming: threading.Thread | None = None

    @property
    def begun(self) -> int:
        """How many targets are at work, or were."""
        return self.targets - self.counts.get("waiting", self.targets)


class Devices:
    """The process of the devices, and the last that it said of itself."""

    def __init__(self, directory: Path, port: int, plan: Plan) -> None:
        command = ["-m", "tests.chaos_ota.devices", "--directory", str(directory), "--port", str(port)]
        command += ["--hurry"] if plan.hurry else []
        command += ["--plant", plan.planted] if plan.planted in plants.DEVICE_BUGS else []
        self._log = (directory / "devices.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self.last: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, name="devices", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S_MAX)
        self._reader.join(STOP_S_MAX)
        assert code == 0, f"the devices ended with {code}"

    def close(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_S_MAX)
        self._reader.join(STOP_S_MAX)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)


class Supervisor:
    """One run in one directory."""

    def __init__(self, directory: Path, plan: Plan, out: IO[str] = sys.stdout) -> None:
        self._directory, self._plan, self._out = directory, plan, out
        self._chance = random.Random(plan.seed)
        self._cast: Cast = new_cast(plan.devices, plan.seed, plan.loss, plan.mangled)
        if plan.hurry:
            plants.hurry_codes()
        settings = {**SETTINGS, **(HURRIED if plan.hurry else {})}
        faults = [plants.fault(plants.lies)]
        faults += [plants.fault(plants.hurry)] if plan.hurry else []
        if plan.planted in plants.SERVICE_BUGS:
            faults.append(plants.fault(plants.SERVICE_BUGS[plan.planted]))
        self._gnomon = Gnomon(directory, settings, faults)
        self._acts: IO[bytes] = (directory / ACTS).open("wb")
        self._samples: IO[bytes] = (directory / SAMPLES).open("wb")
        self._under: dict[Group, Under] = {}
        self._began_s = time.monotonic()
        self._kill_at_s = 0.0
        self._kills: list[str] = []

    def run(self) -> None:
        """Run to the end, and stop in good order; what is left is for the checker."""
        run = prepare(self._directory, self._gnomon.var, self._cast, self._plan.image_bytes)
        self._say("prepared", devices=run.devices)
        with self._running():
            devices = Devices(self._directory, self._gnomon.device_port, self._plan)
            try:
                operators = Operators(self._gnomon.accounts, hurry=self._plan.hurry)
                self._gather(operators, run)
                self._begin(operators, run)
                self._watch(operators, devices)
                self._settle(operators, devices)
                devices.stop()
            finally:
                devices.close()
        kept = msgspec.structs.replace(run, kills=tuple(self._kills), planted=self._plan.planted)
        (self._directory / RUN).write_bytes(msgspec.json.encode(kept))

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            self._gnomon.start()
            yield
            self._gnomon.stop()
        finally:
            self._gnomon.close()
            self._acts.close()
            self._samples.close()

    def _gather(self, operators: Operators, run: Run) -> None:
        """Wait until all devices have told what they run; where a bug is planted, not all may ever."""
        seconds = PLANTED_COME_S if self._plan.planted in plants.DEVICE_BUGS else COME_S_MAX
        with suppress(AssertionError) if self._plan.planted else nullcontext():
            self._until(lambda: operators.dry_run(run.release) >= run.devices, "all came", seconds)
        self._say("came")

    # ------------------------------------------------------------------ campaigns

    def _begin(self, operators: Operators, run: Run) -> None:
        """Have each group's campaign made and approved."""
        for number, group in enumerate(ORDER):
            things = [part.thing for part in self._cast.of(group)]
            id = operators.start(number, group, run.release, things)
            self._under[group] = Under(group, id, number, len(things))
            self._note(Act(_now_ms(), "begin", group, id))

    def _watch(self, operators: Operators, devices: Devices) -> None:
        """Kill, abort and resume until every campaign is over."""
        ends_s = time.monotonic() + self._plan.run_s_max
        self._next_kill()
        while not all(one.state in OVER for one in self._under.values()):
            assert devices.process.poll() is None, "the devices ended: see devices.log"
            if time.monotonic() > ends_s:
                self._say(
                    "out of time", left=[one.group for one in self._under.values() if one.state not in OVER]
                )
                return
            self._look(operators)
            self._abort(operators)
            self._kill()
            time.sleep(SAMPLE_S)

    def _look(self, operators: Operators) -> None:
        for one in self._under.values():
            seen = operators.look(one.id)
            if seen is None:
                continue
            one.state, one.counts = seen["state"], seen["counts"]
            sample = Sample(_now_ms(), one.group, one.state, seen["targets"], one.counts)
            self._samples.write(msgspec.json.encode(sample) + b"\n")
            if one.state == "PAUSED" and (one.resuming is None or not one.resuming.is_alive()):
                self._resume(operators, one)

    def _resume(self, operators: Operators, one: Under) -> None:
        """Have somebody resume it; a code takes its time, and nobody waits for it."""

        def resume() -> None:
            with suppress(Exception):  # it may have ended meanwhile; if not, it is tried again
                operators.resume(one.number, one.id)
                self._note(Act(_now_ms(), "resume", one.group, one.id))

        one.resuming = threading.Thread(target=resume, name=f"resume {one.group}", daemon=True)
        one.resuming.start()

    def _abort(self, operators: Operators) -> None:
        for group in ABORTED:
            one = self._under[group]
            if one.state != "RUNNING" or one.begun < one.targets * ABORT_SHARE:
                continue
            began_ms = _now_ms()
            operators.abort(one.id)
            until_ms = _now_ms()
            if group is Group.CUT:
                self._kill_service()
                self._gnomon.start()
            self._note(Act(began_ms, "abort", group, one.id, until_ms))
            one.state = ""

    # ------------------------------------------------------------------ kills

    def _next_kill(self) -> None:
        every_s = HURRIED_KILL_EVERY_S if self._plan.hurry else KILL_EVERY_S
        self._kill_at_s = time.monotonic() + self._chance.uniform(*every_s)

    def _kill(self) -> None:
        """Kill service or broker, in turns, if it is time to, and in the middle of something."""
        done, busy = len(self._kills), self._active() >= self._plan.devices * BUSY_SHARE
        if done >= self._plan.kills or time.monotonic() < self._kill_at_s or not busy:
            return
        if done % 2 == 0:
            self._kill_service()
            self._gnomon.start()
        else:
            killed = self._gnomon.kill_broker()
            self._kills.append(BROKER)
            self._note(Act(_now_ms(), "kill", note=BROKER, active=self._active()))
            self._until(lambda: self._gnomon.has_broker(other_than=killed), "a new broker", START_S_MAX)
        self._next_kill()

    def _kill_service(self) -> None:
        process = self._gnomon.process
        assert process is not None, "it was started"
        self._note(Act(_now_ms(), "kill", note=SERVICE, active=self._active()))
        self._kills.append(SERVICE)
        process.kill()
        process.wait(STOP_S_MAX)

    def _active(self) -> int:
        return sum(one.counts.get("active", 0) for one in self._under.values())

    # ------------------------------------------------------------------ the end

    def _settle(self, operators: Operators, devices: Devices) -> None:
        """Let devices come to rest, and the service write what they say; then note it all once more."""
        ends_s = time.monotonic() + self._plan.settle_s_max
        while devices.last.get("unsettled") and time.monotonic() < ends_s:
            self._look(operators)
            time.sleep(SAMPLE_S)
        self._say("settled", unsettled=devices.last.get("unsettled"))
        time.sleep(2)
        self._look(operators)

    # ------------------------------------------------------------------ details

    def _note(self, act: Act) -> None:
        self._acts.write(msgspec.json.encode(act) + b"\n")
        self._acts.flush()
        said = {"group": act.group, "note": act.note, "active": act.active}
        self._say(act.act, **{name: value for name, value in said.items() if value})

    def _until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        ends_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < ends_s, f"not within {timeout_s:.0f} s: {what}"
            time.sleep(SAMPLE_S)

    def _say(self, what: str, **figures: object) -> None:
        line = {"s": round(time.monotonic() - self._began_s, 1), "what": what, **figures}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
