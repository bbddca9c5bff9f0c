"""The reference agent takes new firmware: by blocks over MQTT, or the whole image over HTTPS."""

import argparse
import asyncio
import http.server
import ssl
import threading
from contextlib import asynccontextmanager, contextmanager

import pytest

from fleet.agent import Thermostat
from fleet.boot import FileStatus
from fleet.firmware import Setting
from fleet.makes import MAKES
from fleet.upgrading_agent import UpgradingAgent
from infra.clock import SystemClock
from tests.firmware_bench import TRUSTED, job, release
from tests.fleet_broker import Broker, served, until
from tests.ota_stand_in import OtaStandIn

pytestmark = pytest.mark.integration

THING = "th-1-wifi"
MODEL = "norland-t1-wifi"


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.issue(THING)
    broker.start()
    yield broker
    broker.stop()


@asynccontextmanager
async def running(broker, images=None):
    directory = broker.certificates
    options = argparse.Namespace(
        thing=THING, host="localhost", port=broker.port, ca=str(directory / "ca.crt"),
        cert=str(directory / f"{THING}.crt"), key=str(directory / f"{THING}.key"), plain=False, mqtt="5",
        state=None, model=MODEL, images=images,
    )  # fmt: skip
    setting = Setting(keys=TRUSTED, epoch=SystemClock().now_ms() // 1_000, by_http=images is not None)
    agent = UpgradingAgent(options, Thermostat(), setting)
    thread = threading.Thread(target=agent.run)
    async with served(broker, OtaStandIn()) as service:
        thread.start()
        try:
            yield agent, service
        finally:
            agent.stop()
            await asyncio.to_thread(thread.join)


def wanted(**advice):
    now_s = SystemClock().now_ms() // 1_000
    of = release(size=100_000, schema=6, make=MAKES[MODEL], now_s=now_s // 3_600 * 3_600)
    return of, job(of, thing=THING, now_s=now_s, **advice)


async def upgraded(agent, service, offered):
    stand_in = service.stand_in
    await until(lambda: (THING, "firmware") in stand_in.documents)
    service.send(stand_in.offer(THING, offered))
    await until(lambda: offered.status == "SUCCEEDED", 30)
    await until(lambda: stand_in.document(THING, "firmware").reported["fw"]["confirmed"])
    assert agent.computer.firmware.state is FileStatus.ACTIVATED
    assert stand_in.document(THING).reported["online"]  # and its own shadow goes on


async def test_the_agent_loads_by_mqtt(broker):
    _, offered = wanted()
    async with running(broker) as (agent, service):
        await upgraded(agent, service, offered)


@contextmanager
def image_server(broker, image):
    """Serve an image by ranges to who has a certificate; the first answer is cut half way."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            asked.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(image) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(image) - 1}/{len(image)}")
            self.end_headers()
            self.wfile.write(image[start : len(image) // 2] if not start else image[start:])
            self.close_connection = True

        def log_message(self, *_):
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(broker.directory / "server.crt", broker.directory / "server.key")
    context.load_verify_locations(broker.authority.authorities_path)
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}/image", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_the_agent_loads_by_https_and_goes_on_where_it_was_cut(broker, tmp_path):
    of, _ = wanted()
    with image_server(broker, of.image) as (url, asked):
        _, offered = wanted(http=url)
        async with running(broker, tmp_path) as (agent, service):
            await upgraded(agent, service, offered)
            files = [topic for topic, _ in service.requests if "/streams/" in topic]
    assert asked == [0, 50_000]
    assert len(files) == 1  # the leaf list
    assert not list(tmp_path.glob("*.part"))
