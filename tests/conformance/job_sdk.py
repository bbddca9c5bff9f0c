"""The jobs clients of the unmodified AWS IoT Device SDK for Python, of both generations."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from awscrt import mqtt, mqtt_request_response
from awsiot import ServiceStreamOptions, V2ServiceException, iotjobs

from tests.conformance.cases import WAIT_S, MissedError
from tests.conformance.sdk import OPERATION_S, REQUEST_SUBSCRIPTIONS, STREAMS, Connection, Heard

OPERATIONS: Final = {
    "list": "get_pending_job_executions",
    "start": "start_next_pending_job_execution",
    "describe": "describe_job_execution",
    "update": "update_job_execution",
}
PUSHES: Final = {"notify": "job_executions_changed", "notify-next": "next_job_execution_changed"}
OF_A_JOB: Final = frozenset({"describe", "update"})


class _Kept:
    """What was heard, answers in their order, and pushes beside them as each kind comes."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._pushes: dict[str, deque[Any]] = {short: deque() for short in PUSHES}

    def next(self, wanted: str) -> Any:
        if self._pushes.get(wanted):
            return self._pushes[wanted].popleft()
        while True:
            kind, event = self.heard.next()
            if kind == wanted:
                return event
            if kind not in PUSHES:
                raise MissedError(f"{kind} came where {wanted} was due: {vars(event)}")
            self._pushes[kind].append(event)


class JobsV1:
    """The V1 client of one thing."""

    def __init__(self, connection: Connection, thing: str) -> None:
        self._client = iotjobs.IotJobsClient(connection)
        self._thing = thing
        self._kept = _Kept()

    def subscribe(self, job: str) -> None:
        """Subscribe to all that the client can hear and wait for the broker's word on each."""
        for short, operation in OPERATIONS.items():
            names = {"thing_name": self._thing} | ({"job_id": job} if short in OF_A_JOB else {})
            for end in ("accepted", "rejected"):
                request = _class(f"{operation}_subscription_request")(**names)
                self._subscribe(f"{operation}_{end}", request, f"{short} {end}")
        for short, push in PUSHES.items():
            request = _class(f"{push}_subscription_request")(thing_name=self._thing)
            self._subscribe(f"{push}_events", request, short)

    def publish(self, short: str, **fields: Any) -> None:
        """Publish a request and wait for the broker's PUBACK."""
        operation = OPERATIONS[short]
        request = _class(f"{operation}_request")(thing_name=self._thing, **fields)
        getattr(self._client, f"publish_{operation}")(request, mqtt.QoS.AT_LEAST_ONCE).result(WAIT_S)

    def call(self, short: str, **fields: Any) -> Any:
        """Publish a request and return its answer, which must be the next but for pushes."""
        self.publish(short, **fields)
        return self.next(f"{short} accepted")

    def refusal(self, short: str, **fields: Any) -> Any:
        self.publish(short, **fields)
        return self.next(f"{short} rejected")

    def next(self, wanted: str) -> Any:
        """Return the next that comes of this kind; pushes are kept until they are asked for."""
        return self._kept.next(wanted)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _subscribe(self, name: str, request: Any, kind: str) -> None:
        subscribe = getattr(self._client, f"subscribe_to_{name}")
        granted, _ = subscribe(request, mqtt.QoS.AT_LEAST_ONCE, callback=self._kept.heard.on(kind))
        granted.result(WAIT_S)


class JobsV2:
    """The V2 client of one thing: requests and their answers, and streams of pushes."""

    def __init__(self, connection: Connection, thing: str) -> None:
        options = mqtt_request_response.ClientOptions(REQUEST_SUBSCRIPTIONS, STREAMS, OPERATION_S)
        self._client = iotjobs.IotJobsClientV2(connection, options)
        self._thing = thing
        self._streams: list[Any] = []
        self._kept = _Kept()

    def subscribe(self, _job: str) -> None:
        """Open the streams of pushes and wait until they are established."""
        for short, push in PUSHES.items():
            self._open(short, push)

    def call(self, short: str, **fields: Any) -> Any:
        operation = OPERATIONS[short]
        request = _class(f"{operation}_request")(thing_name=self._thing, **fields)
        return getattr(self._client, operation)(request).result(WAIT_S)

    def refusal(self, short: str, **fields: Any) -> Any:
        """Return the modeled error of a call that must be refused."""
        try:
            self.call(short, **fields)
        except V2ServiceException as refused:
            if refused.modeled_error is None:
                raise MissedError(f"the refusal cannot be read: {refused.inner_error}") from refused
            return refused.modeled_error
        raise MissedError(f"{short} was accepted")

    def next(self, wanted: str) -> Any:
        """Return the next push of this kind; others are kept until they are asked for."""
        return self._kept.next(wanted)

    def close(self) -> None:
        """Let go of the streams while there is a connection."""
        self._streams.clear()
        del self._client

    def _open(self, short: str, push: str) -> None:
        established = threading.Event()

        def on_status(event: Any) -> None:
            if event.type == mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED:
                established.set()

        stream = getattr(self._client, f"create_{push}_stream")(
            _class(f"{push}_subscription_request")(thing_name=self._thing),
            ServiceStreamOptions(
                incoming_event_listener=self._kept.heard.on(short),
                subscription_status_listener=on_status,
                deserialization_failure_listener=self._kept.heard.on("deserialization failure"),
            ),
        )
        self._streams.append(stream)
        stream.open()
        if not established.wait(WAIT_S):
            raise MissedError(f"the stream of {short} was not established")


JobsClient = JobsV1 | JobsV2


def _class(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(iotjobs, "".join(part.capitalize() for part in name.split("_")))
    return found
