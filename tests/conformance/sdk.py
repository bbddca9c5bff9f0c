"""The unmodified AWS IoT Device SDK for Python, connected to our broker (spec: shadow, 13, the recipe).

Everything here only calls the SDK: where it has two names for one thing, of a classic and of a named shadow,
one method picks the right one, so that a case can be written once.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from awscrt import mqtt, mqtt5, mqtt_request_response
from awsiot import (
    ServiceStreamOptions,
    V2ServiceException,
    iotshadow,
    mqtt5_client_builder,
    mqtt_connection_builder,
)

from tests.conformance.cases import WAIT_S, MissedError
from tests.enrolling import enrol_from
from tests.system.child import Gnomon

if TYPE_CHECKING:
    from concurrent.futures import Future

MQTT_311: Final = "MQTT 3.1.1"
MQTT_5: Final = "MQTT 5"
REQUEST_SUBSCRIPTIONS: Final = 8
STREAMS: Final = 8
OPERATION_S: Final = 5
SILENCE_S: Final = 0.5

Connection: TypeAlias = mqtt.Connection | mqtt5.Client


class Listener(Protocol):
    """Where a device connects to, and which authority it believes."""

    @property
    def device_port(self) -> int: ...
    @property
    def root_certificate(self) -> Path: ...


Identity: TypeAlias = tuple[Path, Path]
"""The files with a certificate and its key."""


@contextmanager
def connection(gnomon: Gnomon, thing: str, protocol: str) -> Iterator[Connection]:
    """Connect as a thing, by its certificate, for the length of the block."""
    with connected(gnomon, identity(gnomon, thing), thing, protocol) as opened:
        yield opened


@contextmanager
def connected(listener: Listener, identity: Identity, thing: str, protocol: str) -> Iterator[Connection]:
    """Connect with a certificate for the length of the block."""
    if protocol == MQTT_5:
        up, down = threading.Event(), threading.Event()
        client = _open_5(listener, identity, thing, up, down)
        try:
            yield client
        finally:
            client.stop(mqtt5.DisconnectPacket())
            down.wait(WAIT_S)
    else:
        opened = _open_311(listener, identity, thing)
        try:
            yield opened
        finally:
            opened.disconnect().result(WAIT_S)


def identity(gnomon: Gnomon, thing: str) -> Identity:
    """Return certificate and key of a thing; it joins when it is first asked for, as any device does."""
    number = int(thing.rpartition("-")[2])
    return enrol_from(f"127.0.1.{number}", gnomon, thing)


def _open_311(listener: Listener, identity: Identity, thing: str) -> mqtt.Connection:
    certificate, key = identity
    opened = mqtt_connection_builder.mtls_from_path(
        str(certificate),
        str(key),
        endpoint="localhost",
        port=listener.device_port,
        ca_filepath=str(listener.root_certificate),
        client_id=thing,
        clean_session=True,
    )
    opened.connect().result(WAIT_S)
    return opened


def _open_5(
    listener: Listener, identity: Identity, thing: str, up: threading.Event, down: threading.Event
) -> mqtt5.Client:
    certificate, key = identity
    client = mqtt5_client_builder.mtls_from_path(
        str(certificate),
        str(key),
        endpoint="127.0.0.1",
        port=listener.device_port,
        ca_filepath=str(listener.root_certificate),
        client_id=thing,
        on_lifecycle_connection_success=lambda _data: up.set(),
        on_lifecycle_stopped=lambda _data: down.set(),
    )
    client.start()
    if not up.wait(WAIT_S):
        raise MissedError("the MQTT 5 client did not connect")
    return client


class Heard:
    """What callbacks were given, in the order of arrival."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()

    def on(self, kind: str) -> Callable[[Any], None]:
        """Return a callback that notes its argument under ``kind``."""
        return lambda event: self._events.put((kind, event))

    def next(self) -> tuple[str, Any]:
        try:
            return self._events.get(timeout=WAIT_S)
        except queue.Empty:
            raise MissedError("nothing came") from None

    def expect(self, kind: str) -> Any:
        """Return the next event, which must be of this kind."""
        came, event = self.next()
        if came != kind:
            raise MissedError(f"{came} came where {kind} was due")
        return event

    def expect_nothing(self) -> None:
        try:
            kind, _ = self._events.get(timeout=SILENCE_S)
        except queue.Empty:
            return
        raise MissedError(f"{kind} came where nothing was due")


class V1:
    """The V1 shadow client, about one shadow."""

    TOPICS: Final = (
        "get_accepted",
        "get_rejected",
        "update_accepted",
        "update_rejected",
        "delete_accepted",
        "delete_rejected",
        "delta",
        "documents",
    )

    def __init__(self, connection: Connection, thing: str, shadow: str) -> None:
        self._client = iotshadow.IotShadowClient(connection)
        self.thing = thing
        self._names = {"thing_name": thing} | ({"shadow_name": shadow} if shadow else {})
        self._kind = "named_shadow" if shadow else "shadow"
        self.heard = Heard()

    def subscribe(self, *topics: str) -> None:
        """Subscribe to some of :data:`TOPICS` and wait for the broker's word on each."""
        for topic in topics:
            subscribe, request = self._subscription(topic)
            granted, _ = subscribe(
                request(**self._names), mqtt.QoS.AT_LEAST_ONCE, callback=self.heard.on(topic)
            )
            granted.result(WAIT_S)

    def publish(self, operation: str, **fields: Any) -> None:
        """Publish a request and wait for the broker's PUBACK."""
        request = _class(f"{operation}_{self._kind}_request")(**self._names, **fields)
        publish = getattr(self._client, f"publish_{operation}_{self._kind}")
        publish(request, mqtt.QoS.AT_LEAST_ONCE).result(WAIT_S)

    def _subscription(self, topic: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        if topic in {"delta", "documents"}:
            name = f"{self._kind}_delta_updated" if topic == "delta" else f"{self._kind}_updated"
            return (
                getattr(self._client, f"subscribe_to_{name}_events"),
                _class(f"{name}_subscription_request"),
            )
        operation, _, end = topic.partition("_")
        return (
            getattr(self._client, f"subscribe_to_{operation}_{self._kind}_{end}"),
            _class(f"{operation}_{self._kind}_subscription_request"),
        )


class V2:
    """The V2 shadow client, about one shadow."""

    def __init__(
        self, connection: Connection, thing: str, shadow: str, operation_s: int = OPERATION_S
    ) -> None:
        options = mqtt_request_response.ClientOptions(REQUEST_SUBSCRIPTIONS, STREAMS, operation_s)
        self._client = iotshadow.IotShadowClientV2(connection, options)
        self._names = {"thing_name": thing} | ({"shadow_name": shadow} if shadow else {})
        self._kind = "named_shadow" if shadow else "shadow"
        self._streams: list[Any] = []
        self.heard = Heard()

    def begin(self, operation: str, **fields: Any) -> "Future[Any]":
        """Send a request; the future has its answer."""
        request = _class(f"{operation}_{self._kind}_request")(**self._names, **fields)
        future: Future[Any] = getattr(self._client, f"{operation}_{self._kind}")(request)
        return future

    def call(self, operation: str, **fields: Any) -> Any:
        return self.begin(operation, **fields).result(WAIT_S)

    def refusal(self, operation: str, **fields: Any) -> Any:
        """Return the modeled error of a call that must be refused."""
        try:
            answer = self.call(operation, **fields)
        except V2ServiceException as refused:
            if refused.modeled_error is None:
                raise MissedError(f"the refusal cannot be read: {refused.inner_error}") from refused
            return refused.modeled_error
        raise MissedError(f"{operation} was accepted at version {answer.version}")

    def open_stream(self, kind: str) -> None:
        """Open the stream of ``delta`` or of ``documents`` and wait until it is established."""
        name = f"{self._kind}_delta_updated" if kind == "delta" else f"{self._kind}_updated"
        established = threading.Event()

        def on_status(event: Any) -> None:
            if event.type == mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED:
                established.set()

        stream = getattr(self._client, f"create_{name}_stream")(
            _class(f"{name}_subscription_request")(**self._names),
            ServiceStreamOptions(
                incoming_event_listener=self.heard.on(kind),
                subscription_status_listener=on_status,
                deserialization_failure_listener=self.heard.on("deserialization failure"),
            ),
        )
        self._streams.append(stream)
        stream.open()
        if not established.wait(WAIT_S):
            raise MissedError(f"the stream of {kind} was not established")


def state(**sections: Any) -> iotshadow.ShadowState:
    """Return a state with these sections; a section that is None is sent as null."""
    nullable = {f"{name}_is_nullable": True for name, section in sections.items() if section is None}
    return iotshadow.ShadowState(**sections, **nullable)


def _class(name: str) -> Callable[..., Any]:
    """Return the SDK's class for a name in lower case with underscores."""
    found: Callable[..., Any] = getattr(iotshadow, "".join(part.capitalize() for part in name.split("_")))
    return found
