"""An MQTT client that a test holds in its hands: a thing on the device listener, on paho-mqtt.

It sends exactly what it is told, right or wrong, and keeps all that it is sent, in order of arrival.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.system.child import Gnomon

ANSWER_S_MAX = 10.0
QUIET_S = 0.4
"""How long nothing must come to say that nothing comes; far above any answer time on loopback."""
SESSION_S = 3_600
V311 = MQTTProtocolVersion.MQTTv311
V5 = MQTTProtocolVersion.MQTTv5
_tokens = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrived."""

    topic: str
    payload: bytes
    at_s: float
    retain: bool = False

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.payload)


def shadow_topic(thing: str, shadow: str = "") -> str:
    """Return the prefix of a shadow's topics."""
    base = f"$aws/things/{thing}/shadow"
    return f"{base}/name/{shadow}" if shadow else base


def tree_topic(gateway: str, direction: str, thing: str, shadow: str = "") -> str:
    """Return the prefix of a shadow's topics in a gateway's tree; ``direction`` is up or down."""
    base = f"gnomon/gateways/{gateway}/{direction}/things/{thing}/shadow"
    return f"{base}/name/{shadow}" if shadow else base


def answers(prefix: str) -> list[str]:
    """Return the filters under which a client hears all about one shadow."""
    return [f"{prefix}/{operation}/+" for operation in ("get", "update", "delete")]


class Thing:
    """One connection with a certificate."""

    def __init__(
        self,
        gnomon: Gnomon,
        name: str,
        *,
        protocol: MQTTProtocolVersion = V5,
        clean: bool = True,
        will: tuple[str, bytes] | None = None,
        client_id: str | None = None,
    ) -> None:
        self.name = name
        self._gnomon = gnomon
        self._protocol = protocol
        self._clean = clean
        self.received: list[Message] = []
        self._news = threading.Condition()
        self._client = self._new_client(client_id or name)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1)
        self._connected: queue.Queue[ReasonCode] = queue.Queue()
        self._granted: queue.Queue[int] = queue.Queue()
        self._acknowledged: dict[int, ReasonCode] = {}
        self.is_connected = False
        self.connections = 0
        """How often it was let in: more than once says that it was thrown off and came back."""

    # ------------------------------------------------------------------ connection

    def connect(self) -> "Thing":
        options: dict[str, Any] = {"keepalive": 60}
        if self._protocol == V5:
            options["clean_start"] = self._clean
            if not self._clean:
                options["properties"] = Properties(PacketTypes.CONNECT)
                options["properties"].SessionExpiryInterval = SESSION_S
        self._client.connect("127.0.0.1", self._gnomon.device_port, **options)
        self._client.loop_start()
        reason = self._connected.get(timeout=ANSWER_S_MAX)
        assert not reason.is_failure, f"{self.name} was refused: {reason}"
        return self

    def disconnect(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop_stop()

    def break_off(self) -> None:
        """Lose the connection as a power cut would: the will is spoken."""
        self._client.loop_stop()
        connection = self._client.socket()
        if connection is not None:
            connection.close()
        self.is_connected = False

    def wait_connected(self, wanted: bool = True, timeout_s: float = ANSWER_S_MAX) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.is_connected is wanted, timeout_s), (
                f"{self.name} did not {'re' if wanted else 'dis'}connect in time"
            )

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """What is done meanwhile ends its connection: return once it has a new one, however soon."""
        before = self.connections
        yield
        with self._news:
            came_back = self._news.wait_for(
                lambda: self.is_connected and self.connections > before, ANSWER_S_MAX
            )
        assert came_back, f"{self.name} did not come back in time"

    # ------------------------------------------------------------------ packets

    def subscribe(self, *filters: str) -> "Thing":
        """Subscribe with QoS 1; return once the broker has granted it."""
        self._client.subscribe([(one, 1) for one in filters])
        self._granted.get(timeout=ANSWER_S_MAX)
        return self

    def listen(self, shadow: str = "") -> "Thing":
        """Subscribe to all that its own shadow may say."""
        return self.subscribe(*answers(shadow_topic(self.name, shadow)))

    def send(self, topic: str, payload: bytes | str, *, retain: bool = False, qos: int = 1) -> int:
        """Hand a message over; return its packet id."""
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> ReasonCode:
        """Send and return the reason code of the broker's PUBACK."""
        id = self.send(topic, payload, retain=retain)
        with self._news:
            assert self._news.wait_for(lambda: id in self._acknowledged, ANSWER_S_MAX), "no PUBACK came"
            return self._acknowledged.pop(id)

    def publish_all(self, messages: Iterable[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Send many at once, and return when the broker has acknowledged each."""
        ids = {self.send(topic, payload, retain=retain) for topic, payload in messages}
        with self._news:
            assert self._news.wait_for(lambda: ids <= self._acknowledged.keys(), ANSWER_S_MAX), (
                "no PUBACK came"
            )
            for id in ids:
                del self._acknowledged[id]

    # ------------------------------------------------------------------ what it was sent

    def wait_for(
        self, wanted: Callable[[Message], bool], *, since: int = 0, timeout_s: float = ANSWER_S_MAX
    ) -> Message:
        """Return the first message that is ``wanted``, among those after the first ``since``."""
        with self._news:
            assert self._news.wait_for(lambda: any(map(wanted, self.received[since:])), timeout_s), (
                f"{self.name} did not get it; it got {[one.topic for one in self.received[since:]]}"
            )
            return next(filter(wanted, self.received[since:]))

    def wait_on(self, topic: str, *, since: int = 0, timeout_s: float = ANSWER_S_MAX) -> Message:
        return self.wait_for(lambda one: one.topic == topic, since=since, timeout_s=timeout_s)

    def wait_count(self, topic: str, count: int, timeout_s: float = ANSWER_S_MAX) -> list[Message]:
        """Return all messages on a topic once there are ``count`` of them."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._on(topic)) >= count, timeout_s), (
                f"{len(self._on(topic))} of {count} came on {topic}"
            )
            return self._on(topic)

    def wait_answers(self, topic: str, count: int, timeout_s: float = ANSWER_S_MAX) -> None:
        """Return once ``count`` requests on a topic are answered, accepted or rejected."""
        ends = {f"{topic}/accepted", f"{topic}/rejected"}

        def answered() -> int:
            return sum(1 for one in self.received if one.topic in ends)

        with self._news:
            assert self._news.wait_for(lambda: answered() >= count, timeout_s), (
                f"{answered()} of {count} are answered"
            )

    def stays_silent(self, topic_ending: str = "", *, since: int = 0, for_s: float = QUIET_S) -> bool:
        """Tell whether nothing with this ending comes for a while."""
        time.sleep(for_s)
        return not [one for one in self.received[since:] if one.topic.endswith(topic_ending)]

    def topics(self, since: int = 0) -> list[str]:
        return [one.topic for one in self.received[since:]]

    def forget(self) -> None:
        with self._news:
            self.received.clear()

    # ------------------------------------------------------------------ requests

    def ask(
        self, operation: str, body: Any = None, *, shadow: str = "", tree: str | None = None, thing: str = ""
    ) -> Message:
        """Send a request with a token of its own and return its answer, accepted or rejected.

        With ``tree`` it is asked in the tree of that gateway, for ``thing``.
        """
        token = f"token-{next(_tokens)}"
        payload = msgspec.json.encode({**(body or {}), "clientToken": token})
        return self.ask_bytes(operation, payload, token, shadow=shadow, tree=tree, thing=thing)

    def ask_bytes(
        self,
        operation: str,
        payload: bytes,
        token: str | None,
        *,
        shadow: str = "",
        tree: str | None = None,
        thing: str = "",
    ) -> Message:
        asked = shadow_topic(thing or self.name, shadow)
        answered = asked
        if tree is not None:
            asked, answered = (tree_topic(tree, way, thing, shadow) for way in ("up", "down"))
        since = len(self.received)
        self.send(f"{asked}/{operation}", payload)
        topics = {f"{answered}/{operation}/{end}" for end in ("accepted", "rejected")}
        return self.wait_for(
            lambda one: one.topic in topics and (token is None or one.json.get("clientToken") == token),
            since=since,
        )

    def update(self, state: Any, shadow: str = "", **members: Any) -> Any:
        """Update its own shadow; return the body of ``accepted``."""
        answer = self.ask("update", {"state": state, **members}, shadow=shadow)
        assert answer.topic.endswith("/accepted"), answer.payload
        return answer.json

    def report(self, fields: Any, shadow: str = "", **members: Any) -> Any:
        return self.update({"reported": fields}, shadow, **members)

    # ------------------------------------------------------------------ paho

    def _new_client(self, client_id: str) -> Client:
        clean = None if self._protocol == V5 else self._clean
        client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=self._protocol)
        self._prove_identity(client)
        client.max_inflight_messages_set(0)  # else each PUBACK scans all outstanding messages
        client.reconnect_delay_set(1, 2)
        client.on_connect = lambda _client, _data, _flags, reason, _more: self._on_connect(reason)
        client.on_disconnect = lambda *_event: self._on_disconnect()
        client.on_subscribe = lambda _client, _data, id, _reasons, _more: self._granted.put(id)
        client.on_publish = lambda _client, _data, id, reason, _more: self._on_puback(id, reason)
        client.on_message = lambda _client, _data, message: self._on_message(message)
        return client

    def _prove_identity(self, client: Client) -> None:
        certificate, key = self._gnomon.certificate(self.name)
        client.tls_set(str(self._gnomon.root_certificate), str(certificate), str(key))

    def _on_connect(self, reason: ReasonCode) -> None:
        with self._news:
            self.is_connected = not reason.is_failure
            self.connections += self.is_connected
            self._news.notify_all()
        self._connected.put(reason)

    def _on_disconnect(self) -> None:
        with self._news:
            self.is_connected = False
            self._news.notify_all()

    def _on_puback(self, id: int, reason: ReasonCode) -> None:
        with self._news:
            self._acknowledged[id] = reason
            self._news.notify_all()

    def _on_message(self, message: MQTTMessage) -> None:
        with self._news:
            self.received.append(
                Message(message.topic, bytes(message.payload), time.monotonic(), message.retain)
            )
            self._news.notify_all()

    def _on(self, topic: str) -> list[Message]:
        return [one for one in self.received if one.topic == topic]


@contextmanager
def connected(gnomon: Gnomon, name: str, **options: Any) -> Iterator[Thing]:
    """Connect a registered thing for the length of the block."""
    thing = Thing(gnomon, name, **options).connect()
    try:
        yield thing
    finally:
        thing.disconnect()


def until(condition: Callable[[], bool], what: str, timeout_s: float = ANSWER_S_MAX) -> None:
    """Wait until a condition holds, or fail with what did not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
