"""Connecting over mutual TLS: how fast, and what a herd that comes back does to those who use the API.

    python -m bench.connect [--things 2000] [--at-once 64]

First every thing connects, ``--at-once`` at a time: a full handshake each, with two certificates, no resumed
session. The same is done without TLS in the same run, so that the ratio says what TLS costs. Then all are
cut off and come back in the same moment, while somebody reads a shadow over REST at a fixed pace: each read
is counted from the moment it was planned for, so a stall shows in full.
"""

import argparse
import asyncio
import http.client
import json
import signal
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import mqtt5
import uvloop

from bench.bridge import Served, cpu_s, served
from bench.names import NAME
from bench.report import ROOT, emit, say, scratch
from fleet.connection import mutual_tls
from security.policy import Role
from tests.system.accounts import Accounts

HOST = "127.0.0.1"
CONNECT_S_MAX = 60.0
READS_PER_S = 100
CALM_S = 5.0
AFTER_S = 2.0


class Device(asyncio.Protocol):
    """Logs in and stays."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_service = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(
            mqtt5.ConnectPacket(self.name, username=self.name, clean_start=True, keep_alive=600).write()
        )

    def data_received(self, data: bytes) -> None:
        reply, _ = mqtt5.read(memoryview(data))
        assert isinstance(reply, mqtt5.ConnAckPacket), reply
        assert reply.reason_code is mqtt5.ConnAckReasonCode.SUCCESS, reply
        self.in_service.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.in_service.done():
            self.in_service.set_exception(exc or ConnectionError("cut off"))


async def connect_all(
    port: int, contexts: Sequence[ssl.SSLContext | None], at_once: int
) -> tuple[list[Device], float]:
    """Connect one device for each context; return them and the seconds it took."""
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(at_once)
    devices: list[Device] = []

    async def connect(number: int, context: ssl.SSLContext | None) -> None:
        async with room:
            device = Device(NAME % number)
            await loop.create_connection(
                lambda: device, HOST, port, ssl=context, server_hostname="localhost" if context else None
            )
            await device.in_service
            devices.append(device)

    began_s = time.perf_counter()
    async with asyncio.timeout(CONNECT_S_MAX), asyncio.TaskGroup() as group:
        for number, context in enumerate(contexts):
            group.create_task(connect(number, context))
    return devices, time.perf_counter() - began_s


async def cut_off(devices: Sequence[Device]) -> None:
    for device in devices:
        device.transport.abort()
    await asyncio.sleep(1.0)


# ------------------------------------------------------------------ who uses the API meanwhile


def read(api: str, path: str, token: str) -> None:
    """Read at a fixed pace until SIGTERM; print when each read was planned and how long it took from then.

    In a process of its own: connecting a herd keeps ours busy.
    """
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=CONNECT_S_MAX)
    reads: list[tuple[float, float]] = []
    planned_s = time.perf_counter()
    while not stopped:
        planned_s += 1 / READS_PER_S
        time.sleep(max(0.0, planned_s - time.perf_counter()))
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        reads.append((planned_s, time.perf_counter() - planned_s))
    print(json.dumps(reads), flush=True)


class Reader:
    """Somebody who reads the same shadow all the time."""

    def __init__(self, gnomon: Served) -> None:
        token = Accounts(Path(gnomon.directory)).token(Role.CUSTOMER)
        path = f"/v1/things/{NAME % 0}/shadows/@classic"
        command = [sys.executable, "-m", "bench.connect", "--read", gnomon.api, path]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{token}\n")  # not as an argument, which others can see
        self._process.stdin.flush()

    def end(self) -> list[tuple[float, float]]:
        """Return what was read: when it was planned, and the seconds from then."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=CONNECT_S_MAX)
        return [(planned_s, took_s) for planned_s, took_s in json.loads(said)]


def quantile_ms(taken_s: Sequence[float], share: float) -> float:
    return statistics.quantiles(taken_s, n=1000, method="inclusive")[round(share * 1000) - 1] * 1_000


async def herd(gnomon: Served, contexts: Sequence[ssl.SSLContext], devices: Sequence[Device]) -> None:
    """Cut all off, let all come back in one moment, and see what a reader of the API notices."""
    reader = Reader(gnomon)
    await asyncio.sleep(CALM_S)
    cut_s = time.perf_counter()
    await cut_off(devices)
    bridge_s, began_s = cpu_s(gnomon.bridge), time.perf_counter()
    back, herd_s = await connect_all(gnomon.port, contexts, at_once=len(contexts))
    bridge_s = cpu_s(gnomon.bridge) - bridge_s
    await asyncio.sleep(AFTER_S)
    reads = reader.end()
    emit("herd_all_back", herd_s, "s", len(contexts), bridge_cpu_s=round(bridge_s, 2))
    calm = [took_s for planned_s, took_s in reads if cut_s - CALM_S / 2 < planned_s < cut_s]
    stormy = [took_s for planned_s, took_s in reads if began_s < planned_s < began_s + herd_s]
    for name, taken in (("calm", calm), ("herd", stormy)):
        p50, p99 = (quantile_ms(taken, share) for share in (0.5, 0.99))
        emit(
            f"api_read_{name}_p99", p99, "ms", len(taken), p50=round(p50, 2), max=round(max(taken) * 1_000, 1)
        )
    await cut_off(back)


async def measure(gnomon: Served, things: int, at_once: int) -> None:
    folder, rates = Path(gnomon.certificates), dict[str, float]()
    names = [NAME % number for number in range(things)]
    contexts = [
        mutual_tls(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key") for name in names
    ]
    for figure, port, given in (
        ("connects_plain", gnomon.plain_port, [None] * things),
        ("connects_mutual_tls", gnomon.port, contexts),
    ):
        assert port is not None
        say(f"{figure}: {things} things, {at_once} at once")
        before_s = cpu_s(gnomon.broker)
        devices, took_s = await connect_all(port, given, at_once)
        broker_s = cpu_s(gnomon.broker) - before_s
        emit(figure, things / took_s, "1/s", things, broker_cpu_ms=round(broker_s / things * 1_000, 3))
        await cut_off(devices)
        rates[figure] = things / took_s
    emit(
        "connects_mutual_tls_to_plain",
        rates["connects_mutual_tls"] / rates["connects_plain"],
        "ratio",
        things,
    )
    say(f"herd: all {things} are cut off and come back in one moment")
    devices, _ = await connect_all(gnomon.port, contexts, at_once)
    await herd(gnomon, contexts, devices)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--things", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read is not None:
        api, path = given.read
        read(api, path, sys.stdin.readline().strip())
        return
    with scratch() as folder, served(Path(folder) / "var", given.things, plain=True) as gnomon:
        uvloop.run(measure(gnomon, given.things, given.at_once))


if __name__ == "__main__":
    main()
