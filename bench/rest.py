"""Reading a shadow over REST, with authentication, beside a bare Litestar handler.

    python -m bench.rest [--seconds 2] [--rounds 3]

Both are served by uvicorn on uvloop and httptools, each in a process of its own, and answer the same bytes.
The bare handler has a fixed path and returns bytes that are ready: the least that Litestar can do. Rounds
alternate, so that a noisy neighbour disturbs both. CPU is that of the serving process, from the kernel.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httptools
import uvicorn
import uvloop
from litestar import Litestar, MediaType, get

from api.server import listen, serve
from bench.report import ROOT, emit, say
from infra.clock import SystemClock
from infra.telemetry import Metrics
from tests.api.rig import api

CONNECTIONS = 16
WARM_UP_S = 0.5
SHADOW = "/v1/things/bench/shadows/@classic"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A serving child."""

    name: str
    pid: int
    port: int
    request: bytes

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


# ------------------------------------------------------------------ the children


async def serve_bare(body: bytes) -> None:
    @get("/bare", media_type=MediaType.JSON)
    async def bare() -> bytes:
        return body

    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    app = Litestar([bare], openapi_config=None, logging_config=None)
    config = uvicorn.Config(
        app, http="httptools", loop="none", ws="none", lifespan="off", log_config=None, access_log=False
    )
    await uvicorn.Server(config).serve(sockets=[listener])


async def serve_api(directory: Path) -> None:
    async with api(directory, things=("bench",)) as rig:
        wish = {"set": 21.5, "mode": "eco", "hours": {"from": 6, "to": 18}}
        await rig.desire(wish, SHADOW)
        await rig.report("bench", wish | {"set": 20})
        listener = listen("127.0.0.1", 0)
        size = len((await rig.http.get(SHADOW)).content)
        print(listener.getsockname()[1], rig.token, size, flush=True)
        services = replace(rig.services, clock=SystemClock(), metrics=Metrics())
        await serve(services, listener, asyncio.Event())


@contextmanager
def child(*arguments: str) -> Iterator[tuple[int, list[str]]]:
    """Run a serving child until the end of the block; yield its id and the line it prints when it serves."""
    command = [sys.executable, "-m", "bench.rest", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().split()
        finally:
            process.kill()


# ------------------------------------------------------------------ the load


class Caller(asyncio.Protocol):
    """Sends the same request again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0
        self.going = True

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self.parser.get_status_code() == 200
        self.answers += 1
        if self.going:
            self.transport.write(self.request)


async def hammer(server: Server, seconds: float) -> tuple[int, float]:
    """Return how many requests were answered, and the CPU seconds they took."""
    loop = asyncio.get_running_loop()
    callers = [Caller(server.request) for _ in range(CONNECTIONS)]
    connections = [
        await loop.create_connection(partial(_same, caller), "127.0.0.1", server.port) for caller in callers
    ]
    await asyncio.sleep(WARM_UP_S)
    answers, cpu_s = sum(caller.answers for caller in callers), server.cpu_s()
    await asyncio.sleep(seconds)
    answers, cpu_s = sum(caller.answers for caller in callers) - answers, server.cpu_s() - cpu_s
    for caller, (transport, _) in zip(callers, connections, strict=True):
        caller.going = False
        transport.close()
    return answers, cpu_s


def _same(caller: Caller) -> Caller:
    return caller


async def compare(servers: list[Server], rounds: int, seconds: float) -> dict[str, tuple[int, float]]:
    """Return answers and CPU seconds of each server, over alternating rounds."""
    sums = {server.name: (0, 0.0) for server in servers}
    for number in range(rounds):
        for server in servers:
            answers, cpu_s = await hammer(server, seconds)
            say(f"round {number + 1}, {server.name}: {answers / cpu_s:,.0f} requests per CPU second")
            sums[server.name] = (sums[server.name][0] + answers, sums[server.name][1] + cpu_s)
    return sums


def request_of(path: str, token: str | None = None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept: */*", "User-Agent: bench"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def measure(rounds: int, seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        child("--serve-api", folder) as (api_pid, (port, token, size)),
        child("--serve-bare", size) as (bare_pid, (bare_port,)),
    ):
        api = Server("api", api_pid, int(port), request_of(SHADOW, token))
        bare = Server("bare", bare_pid, int(bare_port), request_of("/bare"))
        sums = uvloop.run(compare([bare, api], rounds, seconds))
    rates = {name: answers / cpu_s for name, (answers, cpu_s) in sums.items()}
    body = {"body_bytes": int(size)}
    emit("rest_bare", rates["bare"], "requests/CPU-s", sums["bare"][0], **body)
    emit("rest_get_shadow", rates["api"], "requests/CPU-s", sums["api"][0], **body)
    emit("rest_get_shadow_to_bare", rates["api"] / rates["bare"], "ratio", sums["api"][0], aim=0.6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve-api", type=Path)
    parser.add_argument("--serve-bare", type=int)
    given = parser.parse_args()
    if given.serve_api is not None:
        uvloop.run(serve_api(given.serve_api))
    elif given.serve_bare is not None:
        uvloop.run(serve_bare(b"x" * given.serve_bare))
    else:
        measure(given.rounds, given.seconds)


if __name__ == "__main__":
    main()
