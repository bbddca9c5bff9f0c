"""One campaign for a whole fleet over mutual TLS: how long until all run new firmware, and what it costs.

    python -m bench.ota [--devices 1000 3000 10000] [--per-hour 150000]

Everything is real: service, broker and simulated devices are processes of their own, each device has its
certificate, its flash and two signatures to check, and loads 512 KiB in blocks of 4 KiB. An operator makes
the campaign over REST, a second one approves it; the clock runs from that approval until every target has
succeeded. How long each device took is what the campaign says: from its first word of the job to the
healthy report of the new image. Meanwhile other things send updates at a fixed pace, as they did while the
devices were connected and nobody was upgraded; what the broker alone can do in blocks is measured too.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench.bridge import Served, cpu_s, rss_mb, served
from bench.report import ROOT, emit, say, scratch
from bench.served import IMAGE_BYTES, KEYS_FILE
from fleet.makes import BLOCK
from gnomon.rollout import Rollout
from ota.states import FINAL, CampaignState, ExecutionState
from security.policy import Role
from tests.system.accounts import Accounts
from tests.upgradable import MODEL

BESIDE: Final = 50
"""Things that send updates meanwhile."""
BESIDE_PER_S: Final = 50
CALM_S: Final = 10.0
CONNECT_S_MAX: Final = 300.0
CAMPAIGN_S_MAX: Final = 1_800.0
LOOK_S: Final = 2.0
TOLD_MAX: Final = 3
STOP_S_MAX: Final = 60.0
LIMIT_S: Final = 300.0
GOING_ON: Final = frozenset({CampaignState.APPROVED, CampaignState.RUNNING})
BLOCKS: Final = IMAGE_BYTES // BLOCK


class Lines:
    """A process that prints a line of JSON about itself each second; the last is kept."""

    def __init__(self, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.last: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)

    def ended(self, *, stop: bool) -> dict[str, Any]:
        """Return the last line of all, once it has ended or was told to."""
        if stop:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_S_MAX)
        self._reader.join(STOP_S_MAX)
        return self.last


@contextmanager
def running(module: str, *arguments: object) -> Iterator[Lines]:
    """Run a process for the block."""
    lines = Lines(module, *arguments)
    try:
        yield lines
    finally:
        if lines.process.poll() is None:
            lines.process.kill()
            lines.process.wait(STOP_S_MAX)


@dataclass
class Usage:
    """CPU seconds since it was made, and the most memory that was seen, of each process."""

    pids: dict[str, int]
    began_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began_s = {name: cpu_s(pid) for name, pid in self.pids.items()}

    def look(self) -> None:
        for name, pid in self.pids.items():
            self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), rss_mb(pid))

    def used_s(self) -> dict[str, float]:
        return {name: cpu_s(pid) - self.began_s[name] for name, pid in self.pids.items()}


def load_beside(gnomon: Served, first: int, seconds: float) -> AbstractContextManager[Lines]:
    """Return a load of shadow updates by things that get no firmware."""
    where = ("--port", gnomon.port, "--host", "localhost", "--certificates", gnomon.certificates)
    how = ("--connections", BESIDE, "--rate", BESIDE_PER_S, "--seconds", seconds)
    return running("fleet.load", *where, "--first", first, *how)


def upgrading(gnomon: Served, devices: int) -> AbstractContextManager[Lines]:
    """Return the devices that are to be upgraded."""
    keys = Path(gnomon.directory) / KEYS_FILE
    where = ("--port", gnomon.port, "--host", "localhost", "--certificates", gnomon.certificates)
    what = ("--count", devices, "--model", MODEL, "--keys", keys)
    return running("fleet.upgrades", *where, *what, "--seconds", CONNECT_S_MAX + CAMPAIGN_S_MAX)


class Operators:
    """One makes the campaign, the other approves it; both look at nothing but what the API tells."""

    def __init__(self, gnomon: Served) -> None:
        accounts = Accounts(Path(gnomon.directory))
        self.first, self.second = (Rollout(accounts.access(Role.OPERATOR, number)) for number in (1, 2))

    def draft(self, release: str, per_hour: int, in_flight: int) -> str:
        terms = {"waves": [{"percent": 100}], "per_hour": per_hour, "max_in_flight": in_flight, "soak_s": 0}
        made: str = self.first.create({"release": release, **terms})["id"]
        return made

    def wait_until_all_need_it(self, campaign: str, devices: int) -> None:
        """Return when every device has reported what it runs."""
        ends_s = time.monotonic() + CONNECT_S_MAX
        while (found := self.first.dry_run(campaign))["included"] < devices:
            if time.monotonic() > ends_s:
                raise SystemExit(f"not all devices came: {found}")
            time.sleep(LOOK_S)

    def tell_what_went_wrong(self, campaign: str) -> None:
        """Say for some of those that failed why."""
        for state in sorted(FINAL - {ExecutionState.SUCCEEDED}):
            for one in islice(self.first.executions(campaign, state=state), TOLD_MAX):
                say(f"  {one}")

    def begin(self, campaign: str) -> None:
        self.first.submit(campaign)
        self.second.approve(campaign)


def watch(operators: Operators, campaign: str, usage: Usage) -> dict[str, Any]:
    """Return the campaign as it is when it has ended."""
    ends_s = time.monotonic() + CAMPAIGN_S_MAX
    while True:
        seen: dict[str, Any] = operators.first.campaign(campaign)
        usage.look()
        say(f"  {seen['state']}: {seen['counts']}")
        if seen["state"] not in GOING_ON or time.monotonic() > ends_s:
            return seen
        time.sleep(LOOK_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one campaign came to; CPU from the approval on, and from when the devices began to connect."""

    devices: int
    per_hour: int
    campaign: dict[str, Any]
    wall_s: float
    used_s: dict[str, float]
    all_s: dict[str, float]
    peak_mb: dict[str, float]
    calm: dict[str, Any]
    beside: dict[str, Any]

    @property
    def missed(self) -> int:
        """How many do not run what they should."""
        return self.devices - int(self.campaign["counts"]["SUCCEEDED"])


def measure(devices: int, per_hour: int) -> Run:
    """Upgrade a fleet."""
    say(f"ota: {devices} devices, mutual TLS, {IMAGE_BYTES // 1024} KiB")
    with (
        scratch() as folder,
        served(Path(folder) / "var", devices + BESIDE, plain=False, upgrading=devices) as gnomon,
        upgrading(gnomon, devices) as fleet,
    ):
        whole = Usage({"service": gnomon.bridge, "broker": gnomon.broker, "fleet": fleet.process.pid})
        operators = Operators(gnomon)
        assert gnomon.release is not None
        campaign = operators.draft(gnomon.release, per_hour, devices)
        operators.wait_until_all_need_it(campaign, devices)
        whole_s = whole.used_s()
        with load_beside(gnomon, devices, CALM_S) as calm:
            quiet = calm.ended(stop=False)
        with load_beside(gnomon, devices, CAMPAIGN_S_MAX) as load:
            usage = Usage(whole.pids)
            began_s = time.monotonic()
            operators.begin(campaign)
            seen = watch(operators, campaign, usage)
            wall_s = time.monotonic() - began_s
            operators.tell_what_went_wrong(campaign)
            used_s = usage.used_s()
            beside = load.ended(stop=True)
        fleet.ended(stop=True)
    return Run(
        devices=devices,
        per_hour=per_hour,
        campaign=seen,
        wall_s=wall_s,
        used_s=used_s,
        all_s={name: whole_s[name] + seconds for name, seconds in used_s.items()},
        peak_mb=usage.peak_mb,
        calm=quiet,
        beside=beside,
    )


def report(run: Run, limit_per_s: float) -> None:
    """Emit the figures of a run."""
    n, clocks = run.devices, run.campaign["clocks"]
    succeeded = run.campaign["counts"]["SUCCEEDED"]
    how = {"devices": n, "per_hour": run.per_hour}
    emit("ota.succeeded", succeeded, "devices", n, state=run.campaign["state"], aim=n, **how)
    emit("ota.wall", run.wall_s, "s", n, aim=LIMIT_S, floor=1_200, **how)
    shares = {share: clocks[f"{share}_s"] for share in ("p50", "p95", "p99")}
    emit("ota.device_max", clocks["max_s"] or 0.0, "s", succeeded, aim=LIMIT_S, **shares, **how)
    for figure, used in (("ota.cpu_ms_per_device", run.used_s), ("ota.cpu_ms_with_connecting", run.all_s)):
        each = {name: round(seconds / n * 1_000, 2) for name, seconds in used.items()}
        emit(figure, sum(each.values()), "ms", n, **each, aim=60, **how)
    peaks = {name: round(mb) for name, mb in run.peak_mb.items()}
    emit("ota.memory", sum(peaks.values()), "MB", n, **peaks, **how)
    blocks_per_s = succeeded * BLOCKS / run.wall_s
    more = {"limit_per_s": round(limit_per_s), "block": BLOCK}
    emit("ota.blocks_per_s", blocks_per_s, "1/s", succeeded * BLOCKS, **more, **how)
    emit("ota.blocks_of_the_brokers_limit", blocks_per_s / limit_per_s, "ratio", n, **how)
    quiet, loaded = (one["latency"]["p99_ms"] for one in (run.calm, run.beside))
    emit("ota.shadow_p99_beside", loaded, "ms", run.beside["accepted"], quiet=quiet, **how)
    emit("ota.shadow_p99_beside_to_quiet", loaded / quiet, "ratio", n, aim=2.0, **how)


def brokers_limit_per_s() -> float:
    """Return how many blocks a second the broker delivers where nothing else is done, by `bench.blocks`."""
    say("ota: what the broker alone can do")
    command = ["-m", "bench.blocks", "--blocks", str(BLOCK), "--windows", "8"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (limit,) = (line["value"] for line in lines if line["figure"] == "blocks_limit.blocks_per_s")
    return float(limit)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, nargs="*", default=[1_000, 3_000, 10_000])
    parser.add_argument("--per-hour", type=int, default=150_000, help="pace of the campaign")
    options = parser.parse_args()
    limit_per_s = brokers_limit_per_s()
    missed = 0
    for devices in options.devices:
        run = measure(devices, options.per_hour)
        report(run, limit_per_s)
        missed += run.missed
    if missed:
        raise SystemExit(f"{missed} devices do not run their new firmware")


if __name__ == "__main__":
    main()
