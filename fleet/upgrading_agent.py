r"""The reference agent, and how it takes new firmware: the example for makers whose device has a file system.

`agent` keeps the shadow in step; here the state machine of `firmware` is put beside it. The machine does no
I/O: this file hands it messages and time, and sends what it says. Four places are all there is to it:

    1  after connecting: subscribe for jobs and streams, tell the machine
    2  a message about jobs, streams or its shadows: hand it over
    3  whenever time has passed: let it do and say what is due; fetch the image over HTTP if it asks
    4  it goes dark: close the connection, start it again, connect again

    python -m fleet.upgrading_agent --thing gw-0001-home --model hearth-hub-2 \
        --ca ca.crt --cert gw.crt --key gw.key --images var/images
"""

import argparse
import logging
import random
import signal
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fleet.agent import Agent, Thermostat, make_parser, read_options
from fleet.firmware import CONFIG, FIRMWARE, Download, Setting
from fleet.hardware import Computer, new_hardware
from fleet.http_update import DownloadError, download, https
from fleet.jobs import own_firmware_filters, parse_any
from fleet.keyring import read_roots
from fleet.keys import read_keys
from fleet.makes import MAKES
from fleet.topics import Answer, own_filters, own_route
from fleet.trees import Tree
from infra.clock import MS_PER_S, SystemClock

log = logging.getLogger("agent")
AGAIN_S = (
    10.0,
    60.0,
)  # after a download that failed: somewhere between, so that a crowd does not return as one
DARK_S = 0.2  # how often it is looked whether it runs again


class UpgradingAgent(Agent):
    """An agent with firmware that can be replaced."""

    def __init__(self, options: argparse.Namespace, device: Thermostat, setting: Setting) -> None:
        super().__init__(options, device)
        self.clock = SystemClock()
        self.settings: Tree = {}
        chance = random.Random()
        hardware = new_hardware(MAKES[options.model], setting, chance)
        self.computer = Computer(options.thing, hardware, self, chance)
        self.computer.switch_on(self.now())
        self.beside = ThreadPoolExecutor(max_workers=1)
        self.fetching: tuple[Download, Future[bytes]] | None = None
        self.fetch_at = 0.0

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.clock.now_ms() / MS_PER_S

    # ---- what the machine asks of the device ---------------------------------------------------------------

    def config(self) -> Tree:
        """Return the configuration; a real device reads its own."""
        return self.settings

    def load(self, config: Tree) -> None:
        """Work by this configuration."""
        self.settings = config

    def may_restart(self) -> bool:
        """Say no while a demand-response event runs, or is about to."""
        return True

    # ---- (1) to (4) ----------------------------------------------------------------------------------------

    def on_connect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        """(1) Subscribe, then tell the machine."""
        super().on_connect(client, userdata, flags, reason, properties)
        if not reason.is_failure:
            thing = self.options.thing
            filters = own_filters(thing, (FIRMWARE, CONFIG)) + own_firmware_filters(thing)
            client.subscribe([(one, 1) for one in filters])
            self.computer.connected(self.now(), own_route(thing))

    def on_disconnect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        """Tell the machine."""
        super().on_disconnect(client, userdata, flags, reason, properties)
        self.computer.disconnected()

    def on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        """(2) The classic shadow, which has no name, is the agent's, everything else the machine's."""
        answer = parse_any(message.topic)
        if answer is None or (isinstance(answer, Answer) and not answer.shadow):
            super().on_message(client, userdata, message)
        else:
            self.computer.take(self.now(), answer, bytes(message.payload))

    def tick(self, now: float) -> None:
        """(3) Let the machine do what is due, and say it."""
        super().tick(now)
        wall = self.now()
        if self.computer.is_dark:
            self.go_dark(wall)
            return
        self.computer.tick(wall)
        if self.is_connected:
            for topic, payload in self.computer.due(wall):
                self.client.publish(topic, payload, qos=1)
        if not self.computer.is_dark and (wanted := self.computer.firmware.download) is not None:
            self.fetch(wanted, wall)

    def go_dark(self, wall: float) -> None:
        """(4) The new image must find its own way to the service: a kept connection proves nothing."""
        if self.is_connected:
            log.info("starting again")
            self.client.disconnect()
        self.computer.switch_on(wall)

    def connect(self) -> None:
        """Connect, but only when it runs."""
        while self.computer.is_dark and not self.stopping:
            self.rest(DARK_S)
        super().connect()

    def fetch(self, wanted: Download, wall: float) -> None:
        """Fetch the image beside, and hand it over: every block is judged, as if it had come by MQTT."""
        if self.fetching is None:
            if wall >= self.fetch_at:
                self.fetching = wanted, self.beside.submit(self.fetched, wanted)
            return
        fetched, coming = self.fetching
        if not coming.done():
            return
        self.fetching = None
        try:
            image = coming.result()
        except (DownloadError, OSError) as error:
            log.warning("no image: %s", error)
            self.fetch_at = wall + random.uniform(*AGAIN_S)
        else:
            self.computer.feed(wall, fetched, image)

    def fetched(self, wanted: Download) -> bytes:
        """Return the image; what came before a power cut is not fetched again."""
        options = self.options
        file = options.images / f"{wanted.sha256}.part"
        context = ssl.create_default_context(cafile=options.ca)
        context.load_cert_chain(options.cert, options.key)
        with https(wanted.url, context) as transport:
            download(wanted, file, transport)
        image: bytes = file.read_bytes()
        file.unlink()
        return image


def main() -> None:
    """Run the agent until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = make_parser("fleet.upgrading_agent")
    parser.add_argument("--model", choices=sorted(MAKES), required=True)
    parser.add_argument(
        "--keys", type=Path, help="JSON: whose signatures it believes, in place of the CA's key lists"
    )
    parser.add_argument("--images", type=Path, help="directory for downloads; without it by MQTT only")
    options = read_options(parser)
    seconds = SystemClock().now_ms() // MS_PER_S
    keys = {} if options.keys is None else read_keys(options.keys)
    roots = read_roots(Path(options.ca)) if options.keys is None and options.ca else ()
    setting = Setting(keys=keys, roots=roots, epoch=seconds, by_http=options.images is not None)
    agent = UpgradingAgent(options, Thermostat(), setting)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()


if __name__ == "__main__":
    main()
