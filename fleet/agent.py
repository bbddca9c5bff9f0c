r"""The reference device agent: how a device keeps its shadow in step. Copy this file; it needs nothing else.

It uses Python's standard library and paho-mqtt (2.x), and none of our own code. Read it from top to bottom:
first the device you would replace by yours, then the agent, then the command line. Every step that
the protocol asks for is marked with a number:

    1  connect with the device's certificate; leave a last will
    2  subscribe to the answers, THEN get the shadow: what changed while we were away
    3  obey the delta, if it is not older than one already seen
    4  report what was taken over, at the same place, with the same value: that closes the delta
    5  report what was measured, when it changed enough or when it is time
    6  keep a request until `accepted` or `rejected`; until then repeat THE SAME BYTES, after random waits
    7  number the reports, so that one that comes late never overwrites a newer one
    8  reconnect after random waits; say goodbye when stopped

    python -m fleet.agent --thing th-0001-hall --host 127.0.0.1 --port 8883 \
        --ca ca.crt --cert th-0001-hall.crt --key th-0001-hall.key
"""

import argparse
import json
import logging
import os
import random
import signal
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

# How long to wait for an answer, and between tries. The wait before try n is random(0, min(cap, base * 2^n)):
# "full jitter". Without it, all devices of a town that lost power together come back together, for ever.
ANSWER_S = 10.0
RETRY_BASE_S, RETRY_CAP_S = 1.0, 60.0
REFUSED_PAUSE_S = 60.0  # after a refusal that repeating will not change
KEEP_ALIVE_S = 60
REPORT_EVERY_S = 300.0  # a sign of life
MEASURE_EVERY_S = 10.0
GOODBYE_S = 3.0

NOT_FOUND, CONFLICT = 404, 409
NOT_NOW = (429, 500, 503)  # too many requests, or trouble on the other side: the same bytes again, later

log = logging.getLogger("agent")

WHY = "If that repeats: the certificate is revoked, has ended, or is not from an authority of this server."
WHY_CONNECTED = "If that repeats: the thing is suspended, or --thing is not the name in its certificate."


HEAT_C_MIN, HEAT_C_MAX = 5, 30


class Thermostat:
    """The device. Replace it by yours: three methods are all that the agent needs.

    What others may wish (settings) and what only the device knows (readings) live side by side
    in `reported`. Do not use one name for both.
    """

    def __init__(self) -> None:
        self.mode = "heat"
        self.heat_c = 20.5
        self.temperature_c = 19.0

    def take(self, name: str, value: Any) -> bool:  # noqa: ANN401 - a wish may be anything that JSON can say
        """Obey one wish. Return False if you cannot: then change nothing.

        Check as strictly as you would at a keypad. In Python, beware: True is an int.
        """
        if name == "mode" and value in ("off", "heat"):
            self.mode = value
        elif name == "heat_c" and type(value) in (int, float) and HEAT_C_MIN <= value <= HEAT_C_MAX:
            # Keep the value as it came: reported 21 closes a wish for 21, and 20.999 never would.
            self.heat_c = value
        else:
            return False
        return True

    def state(self) -> dict[str, Any]:
        """Everything the device has to say: settings and readings. Round readings, or they never rest."""
        heating = self.mode == "heat" and self.temperature_c < self.heat_c
        return {
            "mode": self.mode,
            "heat_c": self.heat_c,
            "temperature_c": round(self.temperature_c, 1),
            "hvac": "heating" if heating else "off",
        }

    def measure(self) -> None:
        """Read the sensors (here: pretend to)."""
        heating = self.mode == "heat" and self.temperature_c < self.heat_c
        self.temperature_c += random.uniform(0.0, 0.2) if heating else random.uniform(-0.1, 0.0)

    # How much a reading must change to be worth a message. Names that are not here: any change.
    NOTICEABLE = {"temperature_c": 0.3}  # noqa: RUF012 - a constant


@dataclass
class Request:
    """A message that waits for its answer (6)."""

    topic: str
    token: str
    payload: bytes  # made once: a repeat must be the same bytes, or it would count as a new request
    names: set[str] = field(default_factory=set)  # what it reports
    tries: int = 0
    due_at: float = 0.0


class Agent:
    """Keeps one classic shadow in step. Single-threaded: all of it runs inside `run`."""

    def __init__(self, options: argparse.Namespace, device: Thermostat) -> None:
        self.options = options
        self.device = device
        # Topics. The name in them is the name in the certificate: the broker allows no other.
        self.base = f"$aws/things/{options.thing}/shadow"
        # (6) The outbox: at most one get and one report are under way. What changes meanwhile is
        # collected in `dirty` and goes into the next report, so the outbox never grows.
        self.get: Request | None = None
        self.update: Request | None = None
        self.dirty: set[str] = set()  # names whose value the service does not know yet
        self.told: dict[str, Any] = {}  # what we reported last
        # (7) Reports carry {epoch, number}. The pair must rise for ever. A device that can write to flash
        # counts its starts; one that cannot takes the time.
        self.epoch = _next_epoch(options.state)
        self.number = 0
        self.version = 0  # highest version seen (3)
        self.is_connected = self.is_known = self.stopping = False
        self.tries = 0
        self.quiet_until = self.report_at = self.measure_at = 0.0
        self.client = self.make_client()

    # ---- (1) connecting ----------------------------------------------------------------------------------

    def make_client(self) -> mqtt.Client:
        """Build the MQTT client: identity, last will, callbacks."""
        options = self.options
        is_v5 = options.mqtt == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.thing,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
            # Begin afresh each time. What was missed comes with the get (2): no session to rely on.
            clean_session=None if is_v5 else True,
        )
        if options.plain:
            client.username_pw_set(options.thing)  # test listeners only: they believe any name
        else:
            # Mutual TLS: we prove who we are with our key and check the server against our CA.
            client.tls_set(options.ca, options.cert, options.key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        # Without this, paho looks through all unacknowledged messages at each acknowledgement.
        client.max_inflight_messages_set(0)
        client.connect_timeout = ANSWER_S
        # The broker says this for us when we vanish. It needs no answer, so it has no token and no number.
        client.will_set(f"{self.base}/update", _encode({"state": {"reported": {"online": False}}}), qos=1)
        client.on_connect = self.on_connect
        client.on_disconnect = self.on_disconnect
        client.on_message = self.on_message
        return client

    def run(self) -> None:
        """(8) Connect, talk until the connection is lost, wait a random time, and again."""
        while not self.stopping:
            try:
                self.connect()
                self.talk()
            except OSError as error:  # refused, unreachable, certificate not accepted …
                log.warning("cannot connect: %s", error)
            if not self.stopping:
                wait_s = _full_jitter_s(self.tries)
                self.tries += 1
                log.info("trying again in %.1f s", wait_s)
                self.rest(wait_s)
        self.goodbye()

    def connect(self) -> None:
        """Open TCP and TLS and send CONNECT; the broker's yes comes to `on_connect`."""
        if self.options.mqtt == "5":
            self.client.connect(self.options.host, self.options.port, KEEP_ALIVE_S, clean_start=True)
        else:
            self.client.connect(self.options.host, self.options.port, KEEP_ALIVE_S)

    def talk(self) -> None:
        """Let paho read and write; in between, do what is due."""
        while not self.stopping:
            if self.client.loop(timeout=0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            self.tick(time.monotonic())

    def on_connect(
        self,
        client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        """(2) Subscribe, then get. In this order, or an answer could come before we listen."""
        if reason.is_failure:
            log.error("the broker does not let us in: %s", reason)
            return
        log.info("connected")
        self.is_connected, self.is_known, self.tries = True, False, 0
        answers = ("get/accepted", "get/rejected", "update/accepted", "update/rejected", "update/delta")
        # Never subscribe to `…/shadow/#`: the service may add topics you do not expect.
        client.subscribe([(f"{self.base}/{answer}", 1) for answer in answers])
        self.ask()
        if self.update is not None:
            self.update.due_at = 0  # asked before the connection broke: ask at once again, same bytes

    def ask(self) -> None:
        """Get the shadow. Always harmless: when in doubt, ask."""
        token = self.token("g")
        self.get = Request(f"{self.base}/get", token, _encode({"clientToken": token}))

    def on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        """Note it; `run` reconnects. What waits for an answer stays where it is."""
        if self.is_known:
            log.info("disconnected: %s", reason)
        else:
            # Nobody says why to somebody who is not let in.
            log.warning(
                "sent away before any answer (%s). %s", reason, WHY_CONNECTED if self.is_connected else WHY
            )
        self.is_connected = False

    # ---- what the service says ---------------------------------------------------------------------------

    def on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        """Sort answers by topic, and by token: an answer without our token is none of ours."""
        kind = message.topic.removeprefix(self.base + "/")
        try:
            body = json.loads(message.payload)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            log.warning("no JSON object on %s", message.topic)
        elif kind == "update/delta":
            self.on_delta(body.get("version", 0), body.get("state", {}))
        elif self.get is not None and _is_answer(body, self.get):
            self.on_get_answer(kind, body)
        elif self.update is not None and _is_answer(body, self.update):
            self.on_update_answer(kind, body, self.update)

    def on_delta(self, version: int, delta: dict[str, Any]) -> None:
        """(3) Obey. A delta holds ALL that differs, so only the newest one counts.

        Equal versions are obeyed: the same delta may come twice, and that does no harm.
        """
        if version < self.version:
            return
        self.version = version
        for name, value in delta.items():
            if self.device.take(name, value):
                self.dirty.add(name)  # (4) it is now as wished: say so
            else:
                # Leave it. It stays in the delta until somebody wishes something sensible.
                log.warning("cannot take over %s", name)

    def on_get_answer(self, kind: str, body: dict[str, Any]) -> None:
        """Learn what the service holds, and find out what to tell it."""
        if kind == "get/rejected" and body["code"] != NOT_FOUND:
            assert self.get is not None
            self.later(self.get, body["code"])
            return
        self.get, self.is_known = None, True
        state = body.get("state") or {}  # 404: there is no shadow yet; our first report makes it
        # An answer to our own get is the truth, also if its version is lower than what we knew:
        # then the thing was removed and made anew.
        self.version = body.get("version", 0)
        self.told = state.get("reported") or {}
        self.on_delta(self.version, state.get("delta") or {})
        current = self.current()
        # What differs must be said; what we no longer have must be taken back (null, see `send_report`).
        self.dirty = {name for name in current | self.told if not _same(current, self.told, name)}

    def on_update_answer(self, kind: str, body: dict[str, Any], update: Request) -> None:
        """The report is settled, one way or the other."""
        if kind == "update/accepted":
            log.info("version %d accepted: %s", body["version"], ", ".join(sorted(update.names)))
            self.update = None
            if body["version"] < self.version:
                self.ask()  # an old answer, or the thing was removed and made anew: look
            self.version = max(self.version, body["version"])
            return
        code = body["code"]
        log.warning("report refused: %d %s", code, body.get("message", ""))
        if code in NOT_NOW:
            self.later(update, code)
            return
        # Repeating would not help: forget the message, but not what it said.
        self.update = None
        self.dirty |= update.names
        current = body.get("currentSequence")
        if code == CONFLICT and current and current["epoch"] >= self.epoch:
            # (7) Our numbers are too low (flash erased, clock set back): go above those stored.
            self.epoch, self.number = current["epoch"] + 1, 0
        else:
            self.quiet_until = time.monotonic() + REFUSED_PAUSE_S

    # ---- what we say -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Measure, report what is worth it, repeat what got no answer."""
        if now >= self.measure_at:
            self.measure_at = now + MEASURE_EVERY_S
            self.device.measure()
            self.dirty |= self.noticed()  # (5)
        if now >= self.report_at:
            self.report_at = now + REPORT_EVERY_S
            self.dirty |= set(self.device.state())
        if not self.is_connected:
            return
        if self.is_known and self.update is None and self.dirty and now >= self.quiet_until:
            self.make_report()
        for request in (self.get, self.update):
            if request is not None and now >= request.due_at:
                self.send(request, now)

    def noticed(self) -> set[str]:
        """Return the names that changed enough since they were reported."""
        names = set()
        for name, value in self.device.state().items():
            told, enough = self.told.get(name), self.device.NOTICEABLE.get(name)
            if enough is not None and type(told) in (int, float):
                changed = abs(value - told) >= enough
            else:
                changed = value != told
            if changed:
                names.add(name)
        return names

    def current(self) -> dict[str, Any]:
        """Return all that `reported` should hold."""
        return {**self.device.state(), "online": not self.stopping}

    def make_report(self) -> None:
        """(4, 5, 7) Put everything that the service does not know into one report."""
        current = self.current()
        # A name that we no longer have is removed by null.
        reported = {name: current.get(name) for name in sorted(self.dirty)}
        self.number += 1
        token = self.token("r")
        payload = _encode(
            {
                "state": {"reported": reported},
                "clientToken": token,
                "sequence": {"epoch": self.epoch, "number": self.number},
            }
        )
        self.update = Request(f"{self.base}/update", token, payload, self.dirty)
        self.told = {**self.told, **reported}
        self.dirty = set()

    def send(self, request: Request, now: float) -> None:
        """(6) Send or repeat. The broker's acknowledgement (QoS 1) is not an answer: a broker may forget."""
        request.due_at = now + ANSWER_S + _full_jitter_s(request.tries)
        request.tries += 1
        self.client.publish(request.topic, request.payload, qos=1)

    def later(self, request: Request, code: int) -> None:
        """Repeat a request that was refused, after a wait."""
        pause_s = _full_jitter_s(request.tries) if code in NOT_NOW else REFUSED_PAUSE_S
        request.due_at = time.monotonic() + pause_s

    def token(self, kind: str) -> str:
        """Return a client token: never used before by this thing, at most 64 bytes."""
        return f"{kind}{self.epoch}-{self.number}-{random.getrandbits(32):08x}"

    # ---- (8) stopping ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask `run` to end; safe in a signal handler."""
        self.stopping = True

    def goodbye(self) -> None:
        """Say that we go. A clean DISCONNECT silences the last will, so we say it ourselves."""
        deadline = time.monotonic() + GOODBYE_S
        self.dirty.add("online")
        while self.is_connected and (self.dirty or self.update) and time.monotonic() < deadline:
            if self.client.loop(timeout=0.05) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
            self.tick(time.monotonic())
        if self.is_connected and not self.dirty and not self.update:
            self.client.disconnect()
            self.client.loop(timeout=0.05)
        # Otherwise we just leave: nobody has heard us, so the last will shall speak.

    def rest(self, seconds: float) -> None:
        """Wait, but notice `stop`."""
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            time.sleep(0.1)
            self.tick(time.monotonic())


def _full_jitter_s(tries: int) -> float:
    return random.uniform(0, min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(tries, 16)))


def _encode(value: dict[str, Any]) -> bytes:
    # NaN is no JSON: better an error here than a refusal there.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _is_answer(body: dict[str, Any], request: Request) -> bool:
    return body.get("clientToken") == request.token


def _same(left: dict[str, Any], right: dict[str, Any], name: str) -> bool:
    # Compare as JSON: Python takes True and 1 for equal, the service does not.
    return name in left and name in right and _encode({"": left[name]}) == _encode({"": right[name]})


def _next_epoch(path: Path | None) -> int:
    if path is None:
        return int(time.time())
    epoch = 1 + (int(path.read_text()) if path.exists() else 0)
    # Written to the side and renamed, so that a power cut leaves the old number or the new one.
    beside = path.with_suffix(".new")
    beside.write_text(str(epoch))
    beside.replace(path)
    return epoch


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return a parser of what every agent needs to know."""
    parser = argparse.ArgumentParser(prog=program, description="Reference device agent.")
    parser.add_argument(
        "--thing", required=True, help="name of the thing: the common name of its certificate"
    )
    parser.add_argument("--host", default="127.0.0.1", help="must stand in the server's certificate")
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--ca", help="certificate of the CA of the server")
    parser.add_argument("--cert", help="certificate of this thing")
    parser.add_argument("--key", help="its private key")
    parser.add_argument(
        "--plain", action="store_true", help="no TLS: for a test listener that believes names"
    )
    parser.add_argument("--mqtt", choices=("5", "3.1.1"), default="5")
    parser.add_argument(
        "--state", type=Path, help="file that counts the starts; without it the time is taken"
    )
    return parser


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; refuse what cannot work before anything is tried."""
    options = parser.parse_args()
    if options.plain:
        return options
    if not (options.ca and options.cert and options.key):
        parser.error("give --ca, --cert and --key, or --plain for a test listener")
    for name in ("ca", "cert", "key"):
        file = getattr(options, name)
        if not os.access(file, os.R_OK):
            parser.error(f"--{name} {file}: there is no such file, or it is not ours to read")
    try:
        ssl.create_default_context(cafile=options.ca).load_cert_chain(options.cert, options.key)
    except ssl.SSLError as error:
        parser.error(f"--ca, --cert and --key are no PEM files that belong together: {error}")
    return options


def main() -> None:
    """Run the agent until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    agent = Agent(read_options(make_parser("fleet.agent")), Thermostat())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()


if __name__ == "__main__":
    main()
