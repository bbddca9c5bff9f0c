"""What a block costs the service beside the broker, and how long one device takes for 512 KiB.

    python -m bench.blocks [--seconds 6] [--devices 500] [--blocks 4096 16384] [--windows 1 8]

Devices (another process, MQTT over TCP without TLS) ask for windows of blocks, each for the next one when it
has the last. They are answered by the whole bridge with the stream service behind it, and, in the same run,
by a responder that knows its answer already and writes it: that is what broker and session can do at most.
CPU is that of whole processes, from the kernel's accounts, service and broker in the same seconds.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import cbor2
import mqtt5
import uvloop

from bench.report import ROOT, emit, say
from broker_bridge.fairness import Pace
from broker_bridge.mosquitto import Mosquitto
from broker_bridge.topics import StreamRequest
from infra.logs import configure
from infra.settings import LogSettings
from ota.blocks import BlockCache, FileKey
from ota.streams import Format, data_head
from tests.stream_rig import Loader, make_files, numbered
from tests.streams_live import Served, a_broker, a_device, serving

STREAM = "fw-bench"
SIZE = 512 * 1024
UNPACED = Pace(bytes_per_s=2**40, burst_bytes=2**40)
"""What a device may have a second is not the question here."""
WARM_UP_S = 1.5
HOME_THINGS_MAX = 50
RUNS = 9
ALONE = "bench-alone"
HEAD = data_head("rdy", Format.CBOR)


# ---------------------------------------------------------------------- the devices' process


class Asking(asyncio.Protocol):
    """Asks for a window, and for the next one when it has all of that; looks at nothing it gets."""

    def __init__(self, name: str, block: int, window: int) -> None:
        self._name = name
        self._topic = f"$aws/things/{name}/streams/{STREAM}/get/cbor"
        end = SIZE // block
        self._asks = [
            mqtt5.PublishPacket(
                self._topic, cbor2.dumps({"c": "rdy", "s": 1, "f": 0, "l": block, "o": first, "n": window})
            ).write()
            for first in range(0, end, window)
        ]
        self._window_bytes = window * block
        self._next = 0
        self._left = 0
        self._started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's has no common class
        self._write(mqtt5.ConnectPacket(self._name, username=self._name, clean_start=True).write())
        filter = mqtt5.TopicFilter(f"$aws/things/{self._name}/streams/+/data/+")
        self._write(mqtt5.SubscribePacket(1, [filter]).write())

    def data_received(self, data: bytes) -> None:
        # Only bytes are counted: to decode them here would be half the load of the machine.
        if not self._started:
            self._started = True
            asyncio.get_running_loop().call_later(0.2, self._ask)
            return
        self._left -= len(data)
        if self._left <= 0:
            self._ask()

    def _ask(self) -> None:
        # A window's messages are at least as long as its blocks.
        self._left = self._window_bytes
        self._write(self._asks[self._next])
        self._next = (self._next + 1) % len(self._asks)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


async def be_devices(port: int, count: int, block: int, window: int) -> None:
    for number in range(count):
        device = partial(Asking, f"bench-{number}", block, window)
        await asyncio.get_running_loop().create_connection(device, "127.0.0.1", port)
    await asyncio.sleep(3_600)


@contextmanager
def devices(port: int | None, count: int, block: int, window: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.blocks", "--port", str(port), "--devices", str(count)]
    child = subprocess.Popen([*command, "--blocks", str(block), "--windows", str(window)], cwd=ROOT)
    try:
        yield
    finally:
        child.terminate()
        child.wait()


# ---------------------------------------------------------------------- measuring


class Ready:
    """Stands in for the desk and answers what it knows already: what is left is session and broker."""

    def __init__(self, served: Served, block: int, window: int) -> None:
        content = served.files.shelf.streams[STREAM].files[0]
        ids = range(SIZE // block)
        self._tails = BlockCache().tails(FileKey(STREAM, 0, block, Format.CBOR), content, ids)
        self._window = window
        self._first = 0
        self._session = served.bridge.session
        self.blocks = self.answered = 0

    def received(self, request: StreamRequest, _packet: mqtt5.PublishPacket, _connection: int) -> None:
        tails = self._tails[self._first : self._first + self._window]
        self._first = (self._first + self._window) % len(self._tails)
        self._session.send(f"{request.base}/data/cbor", HEAD, tails)
        self._session.flush()
        self.blocks += len(tails)
        self.answered += 1

    def disconnected(self) -> None:
        pass


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_load(
    served: Served, options: argparse.Namespace, block: int, window: int, figure: str
) -> None:
    """Emit what blocks and requests cost while many devices load as fast as they can."""
    desk, broker = cast("Any", served.bridge.streams), served.broker
    assert broker.pid is not None
    with devices(broker.plain_port, options.devices, block, window):
        await asyncio.sleep(WARM_UP_S)
        blocks, requests, began_s = desk.blocks, desk.answered, time.monotonic()
        own, theirs = sum(os.times()[:2]), cpu_s(broker.pid)
        await asyncio.sleep(options.seconds)
        blocks, requests = desk.blocks - blocks, desk.answered - requests
        own, theirs = sum(os.times()[:2]) - own, cpu_s(broker.pid) - theirs
        wall_s = time.monotonic() - began_s
    how = {"block": block, "window": window, "devices": options.devices, "tls": False}
    emit(f"{figure}.blocks_per_s", blocks / wall_s, "1/s", blocks, **how)
    emit(f"{figure}.blocks_per_broker_core_s", blocks / theirs, "1/s", blocks, **how)
    emit(f"{figure}.service_us_per_block", own / blocks * 1e6, "us", blocks, **how, aim=15)
    emit(f"{figure}.service_us_per_request", own / requests * 1e6, "us", requests, **how, aim=150)
    emit(f"{figure}.broker_us_per_block", theirs / blocks * 1e6, "us", blocks, **how)


async def measure_device(served: Served, window: int) -> None:
    """Emit how long one device takes for 512 KiB in blocks of 4 KiB."""
    taken_s = []
    async with a_device(served.broker, ALONE, f"$aws/things/{ALONE}/streams/+/data/+") as device:
        for _ in range(RUNS):
            loader, began_s = Loader(SIZE, 4_096, window), time.monotonic()
            await device.load(ALONE, STREAM, loader)
            taken_s.append(time.monotonic() - began_s)
            assert loader.content == numbered(SIZE)
    aim = {"aim": 0.2} if window > 1 else {}
    emit("blocks.512_kib_s", statistics.median(taken_s), "s", RUNS, block=4_096, window=window, **aim)


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with a_broker(Path(folder)) as broker:
            await measure_on(broker, Path(folder), options)


async def measure_on(broker: Mosquitto, folder: Path, options: argparse.Namespace) -> None:
    files = make_files()
    files.add(STREAM, f0=numbered(SIZE))
    async with serving(folder, broker, files, UNPACED) as served:
        for number in range(options.devices):
            name = f"bench-{number}"
            await served.register(name, home=f"home-{number // HOME_THINGS_MAX}")
            files.allow(name, STREAM)
        await served.register(ALONE)
        served.files.allow(ALONE, STREAM)
        for window in options.windows:
            await measure_device(served, window)
        desk: Any = served.bridge.streams
        for block in options.blocks:
            for window in options.windows:
                say(f"blocks: {options.devices} devices, {block} bytes, {window} a request")
                await measure_load(served, options, block, window, "blocks")
                served.bridge.streams = cast("Any", Ready(served, block, window))
                await measure_load(served, options, block, window, "blocks_limit")
                served.bridge.streams = desk


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=float, default=6)
    arguments.add_argument("--devices", type=int, default=500)
    arguments.add_argument("--blocks", type=int, nargs="*", default=[4_096, 16_384])
    arguments.add_argument("--windows", type=int, nargs="*", default=[1, 8])
    arguments.add_argument("--port", type=int, help="be the devices, of the broker on this port")
    options = arguments.parse_args()
    configure(LogSettings(level="warning"))  # figures alone go to standard output
    if options.port:
        uvloop.run(be_devices(options.port, options.devices, options.blocks[0], options.windows[0]))
    else:
        uvloop.run(measure(options))


if __name__ == "__main__":
    main()
