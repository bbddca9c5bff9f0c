"""What an update costs the bridge beside the broker, and how long it takes until ``accepted``.

    python -m bench.bridge [--connections 500] [--seconds 8] [--rates 2000 10000] [--plain]

Everything is real: durable SQLite (``synchronous=FULL``), QoS 1 in and out, `accepted`, `delta` and
`documents` for each update, history and ledger written. CPU is that of the whole process, threads
included, from the kernel's accounts. Bridge and broker are measured in the same seconds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import ROOT, emit, say, scratch

WARM_UP_LINES = 2
READY_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running service: its processes, and where its load connects."""

    bridge: int
    broker: int
    port: int
    plain_port: int | None
    certificates: str
    api: str
    directory: str
    release: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One moment of a run."""

    accepted: int
    bridge_s: float
    broker_s: float
    at_s: float


@contextmanager
def served(directory: Path, things: int, plain: bool, upgrading: int = 0) -> Iterator[Served]:
    """Run a service for the block; the first ``upgrading`` things are devices with a release to take."""
    command = [sys.executable, "-m", "bench.served", "--directory", str(directory), "--things", str(things)]
    command += ["--upgrading", str(upgrading)] if upgrading else []
    process = subprocess.Popen(
        [*command, *(["--plain"] if plain else [])], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield Served(**json.loads(process.stdout.readline()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_S_MAX)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the memory a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def run_load(
    service: Served, connections: int, seconds: float, *arguments: str
) -> tuple[Seen, Seen, dict[str, Any]]:
    """Load for a while; return two moments of the steady part, and the load's own summary."""
    plain = service.plain_port is not None
    where = ["--plain"] if plain else ["--certificates", service.certificates, "--host", "localhost"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fleet.load", "--port", str(service.plain_port or service.port), *where),
            *("--connections", str(connections), "--seconds", str(seconds + WARM_UP_LINES + 1)),
            *("--every", "1", *arguments),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    moments: list[Seen] = []
    summary: dict[str, Any] = {}
    assert process.stdout is not None
    for text in process.stdout:
        summary = json.loads(text)
        if not summary.get("final") and summary["accepted"]:
            moments.append(
                Seen(summary["accepted"], cpu_s(service.bridge), cpu_s(service.broker), time.monotonic())
            )
    process.wait(READY_S_MAX)
    last = min(len(moments) - 1, WARM_UP_LINES + round(seconds))
    return moments[WARM_UP_LINES], moments[last], summary


def measure_cost(service: Served, connections: int, seconds: float) -> None:
    """Emit what an update costs, as fast as it goes."""
    before, after, summary = run_load(service, connections, seconds, "--window", "8")
    n = after.accepted - before.accepted
    bridge_us = (after.bridge_s - before.bridge_s) / n * 1e6
    broker_us = (after.broker_s - before.broker_s) / n * 1e6
    how = {"connections": connections, "tls": service.plain_port is None}
    emit("bridge.updates_per_s", n / (after.at_s - before.at_s), "1/s", n, **how)
    emit("bridge.cpu_us_per_update", bridge_us, "us", n, **how)
    emit("broker.cpu_us_per_update", broker_us, "us", n, **how)
    emit("bridge.updates_per_cpu_s", 1e6 / bridge_us, "1/s", n, **how)
    emit("broker.updates_per_cpu_s", 1e6 / broker_us, "1/s", n, **how)
    emit("bridge.cost_over_broker", bridge_us / broker_us, "ratio", n, **how, aim=1.0, floor=1.6)
    emit("bridge.memory", rss_mb(service.bridge), "MB", 1, **how)
    emit(
        "bridge.refused_or_unanswered", sum(summary["rejected"].values()) + summary["unanswered"], "count", n
    )


def measure_latency(service: Served, connections: int, seconds: float, rate: float) -> None:
    """Emit how long an update takes at a rate, counted from when it was planned."""
    *_, summary = run_load(service, connections, seconds, "--rate", str(rate))
    latency, n = summary["latency"], summary["accepted"]
    how = {"rate": rate, "reached_per_s": summary["accepted_per_s"], "tls": service.plain_port is None}
    for share in ("p50", "p99"):
        emit(f"bridge.latency_{share}", latency[f"{share}_ms"], "ms", n, **how)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rates", type=float, nargs="*", default=[2_000, 10_000])
    parser.add_argument("--plain", action="store_true", help="only without TLS: the harder comparison")
    options = parser.parse_args()
    for plain in (True,) if options.plain else (False, True):
        say(f"bridge: {options.connections} connections, {'plain TCP' if plain else 'mutual TLS'}")
        with (
            scratch() as folder,
            served(Path(folder) / "var", options.connections, plain) as service,
        ):
            measure_cost(service, options.connections, options.seconds)
            for rate in options.rates if plain else ():
                measure_latency(service, options.connections, options.seconds, rate)


if __name__ == "__main__":
    main()
