"""Connecting over mutual TLS: how fast, and what a herd that comes back does to those who use the API.

    python -m bench.connect [--things 2000] [--at-once 64]

First every thing connects, ``--at-once`` at a time: a full handshake each, with two certificates, no resumed
session. The same is done without TLS in the same run, so that the ratio says what TLS costs. Then all are
cut off and come back in the same moment, while somebody reads a shadow over REST at a fixed pace: each read
is counted from the moment it was planned for, so a stall shows in full.
"""

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httptools
import mqtt5
import uvloop

from bench.report import ROOT, emit, say, scratch
from bench.rest import request_of
from bench.served import NAME
from fleet.connection import mutual_tls

HOST = "127.0.0.1"
CONNECT_S_MAX = 60.0
READS_PER_S = 100
CALM_S = 5.0
AFTER_S = 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Served:
    """A Gnomon that serves."""

    bridge: int
    broker: int
    port: int
    plain: int
    certificates: str
    api: int
    bearer: str


@contextmanager
def served(things: int) -> Iterator[Served]:
    """Run a Gnomon until the end of the block."""
    with scratch() as folder:
        command = [
            *(sys.executable, "-m", "bench.served", "--directory", f"{folder}/served"),
            *("--things", str(things), "--both"),
        ]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield Served(**json.loads(process.stdout.readline()))
            finally:
                process.terminate()


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


class Reader(asyncio.Protocol):
    """Reads the same shadow at a fixed pace over one connection, and notes how long each read took."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._planned_s: list[float] = []
        self.taken_s: list[float] = []

    def connection_made(self, transport) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self._parser.get_status_code() == 200, self._parser.get_status_code()
        self.taken_s.append(time.perf_counter() - self._planned_s.pop(0))
        if self._planned_s:
            self._transport.write(self._request)

    async def read(self) -> None:
        """Read until cancelled; a read whose turn has come waits until the one before is answered."""
        due_s = time.perf_counter()
        while True:
            due_s += 1 / READS_PER_S
            await asyncio.sleep(due_s - time.perf_counter())
            self._planned_s.append(due_s)
            if len(self._planned_s) == 1:
                self._transport.write(self._request)

    def take(self) -> list[float]:
        taken, self.taken_s = self.taken_s, []
        return taken


def quantile_ms(taken_s: Sequence[float], share: float) -> float:
    return statistics.quantiles(taken_s, n=1000, method="inclusive")[round(share * 1000) - 1] * 1_000


async def herd(gnomon: Served, contexts: Sequence[ssl.SSLContext], devices: Sequence[Device]) -> None:
    """Cut all off, let all come back in one moment, and see what a reader of the API notices."""
    path = f"/v1/things/{NAME % 0}/shadows/@classic"
    _, reader = await asyncio.get_running_loop().create_connection(
        lambda: Reader(request_of(path, gnomon.bearer)), HOST, gnomon.api
    )
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(reader.read())
        await asyncio.sleep(CALM_S)
        calm = reader.take()
        await cut_off(devices)
        reader.take()
        bridge_s = cpu_s(gnomon.bridge)
        back, herd_s = await connect_all(gnomon.port, contexts, at_once=len(contexts))
        stormy = reader.take()
        bridge_s = cpu_s(gnomon.bridge) - bridge_s
        await asyncio.sleep(AFTER_S)
        reading.cancel()
    things = len(contexts)
    emit("herd_all_back", herd_s, "s", things, bridge_cpu_s=round(bridge_s, 2))
    for name, taken in (("calm", calm), ("herd", stormy)):
        emit(
            f"api_read_{name}_p99",
            quantile_ms(taken, 0.99),
            "ms",
            len(taken),
            p50=round(quantile_ms(taken, 0.5), 2),
        )
    await cut_off(back)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def measure(gnomon: Served, things: int, at_once: int) -> None:
    folder = Path(gnomon.certificates)
    names = [NAME % number for number in range(things)]
    contexts = [
        mutual_tls(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key") for name in names
    ]
    for figure, port, given in (
        ("connects_plain", gnomon.plain, [None] * things),
        ("connects_mutual_tls", gnomon.port, contexts),
    ):
        say(f"{figure}: {things} things, {at_once} at once")
        before_s = cpu_s(gnomon.broker)
        devices, took_s = await connect_all(port, given, at_once)
        broker_s = cpu_s(gnomon.broker) - before_s
        emit(figure, things / took_s, "1/s", things, broker_cpu_ms=round(broker_s / things * 1_000, 3))
        if port == gnomon.plain:
            await cut_off(devices)
    say(f"herd: all {things} are cut off and come back in one moment")
    await herd(gnomon, contexts, devices)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--things", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=64)
    given = parser.parse_args()
    with served(given.things) as gnomon:
        uvloop.run(measure(gnomon, given.things, given.at_once))


if __name__ == "__main__":
    main()
