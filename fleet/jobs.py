"""Jobs and streams as a device maker reads them: topics, and the few members that a device needs.

Written from the protocol's description and not shared with the service, like `topics`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import cbor2
import msgspec
from msgspec import Meta

from fleet.topics import Answer, Route, parse_answer

NEXT: Final = "$next"
BLOCK_EVENTS: Final = ("data", "rejected")


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """A message about jobs. ``job`` is empty where the topic names none, ``outcome`` for a push."""

    thing: str
    job: str
    operation: str
    outcome: str


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """A message about a stream: a block, or a refusal."""

    thing: str
    stream: str
    event: str


# ---------------------------------------------------------------------------- topics

_JOB_FILTERS: Final = ("notify-next", "start-next/+", "+/get/+", "+/update/+")
_STREAM_FILTERS: Final = tuple(f"+/{event}/+" for event in BLOCK_EVENTS)


def own_firmware_filters(thing: str) -> tuple[str, ...]:
    """Return what a thing with its own certificate subscribes to for its firmware."""
    return _filters(f"$aws/things/{thing}")


def relayed_firmware_filters(gateway: str) -> tuple[str, ...]:
    """Return what a gateway subscribes to for the firmware of whatever is attached to it."""
    return _filters(f"gnomon/gateways/{gateway}/down/things/+")


def job_topic(route: Route, job: str, operation: str) -> str:
    """Return where to ask about a job; without one for ``start-next``."""
    middle = f"{job}/" if job else ""
    return f"{_base(route)}/jobs/{middle}{operation}"


def stream_topic(route: Route, stream: str) -> str:
    """Return where to ask for blocks."""
    return f"{_base(route)}/streams/{stream}/get/cbor"


def parse_firmware_answer(topic: str) -> JobAnswer | StreamAnswer | None:
    """Return what ``topic`` says about jobs or streams, or None."""
    match topic.split("/"):
        case ["$aws", "things", thing, "jobs" | "streams" as kind, *rest]:
            pass
        case ["gnomon", "gateways", _, "down", "things", thing, "jobs" | "streams" as kind, *rest]:
            pass
        case _:
            return None
    match kind, rest:
        case "streams", [stream, event, "cbor"] if event in BLOCK_EVENTS:
            return StreamAnswer(thing, stream, event)
        case "jobs", ["notify-next"]:
            return JobAnswer(thing, "", "notify-next", "")
        case "jobs", ["start-next", outcome]:
            return JobAnswer(thing, "", "start-next", outcome)
        case "jobs", [job, "get" | "update" as operation, outcome]:
            return JobAnswer(thing, job, operation, outcome)
        case _:
            return None


def parse_any(topic: str) -> Answer | JobAnswer | StreamAnswer | None:
    """Return what ``topic`` speaks of, or None for what a device does not understand."""
    return parse_answer(topic) or parse_firmware_answer(topic)


def _base(route: Route) -> str:
    return route.requests.removesuffix("/shadow")


def _filters(base: str) -> tuple[str, ...]:
    jobs = (f"{base}/jobs/{one}" for one in _JOB_FILTERS)
    streams = (f"{base}/streams/{one}" for one in _STREAM_FILTERS)
    return (*jobs, *streams)


# ---------------------------------------------------------------------------- what is said


# Some of this goes into the record, into a topic or into a timer: it must be of a size that they can hold.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[int, Meta(ge=0, le=86_400)]
JobId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
StreamId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,44}\Z")]


class Advice(msgspec.Struct, frozen=True):
    """The member ``gnomon`` of a job document. Signed are only the first three; the rest is advice."""

    manifest: bytes
    order: bytes
    proof: bytes
    deadline_s: Seconds = 300
    confirm_s: Seconds = 60
    prestage: bool = False
    activate_at: Count = 0
    keys: Count = 0
    """Number of the key list that the signatures need."""
    jitter_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    http: str = ""


class FreeRtos(msgspec.Struct, frozen=True):
    """The member ``afr_ota``: of it we need the stream."""

    streamname: StreamId = ""


class JobDocument(msgspec.Struct, frozen=True):
    """What to do."""

    gnomon: Advice
    afr_ota: FreeRtos = FreeRtos()


class Execution(msgspec.Struct, frozen=True, rename="camel"):
    """One job as the service describes it."""

    job_id: JobId
    status: str = ""
    version_number: Count = 0
    execution_number: Count = 1
    job_document: msgspec.Raw = msgspec.Raw()


class ExecutionState(msgspec.Struct, frozen=True, rename="camel"):
    """Where a job is, after an update or a refusal."""

    status: str = ""
    status_details: dict[str, str] = {}
    version_number: Count = 0


class JobMessage(msgspec.Struct, frozen=True, rename="camel"):
    """Any answer or push about jobs."""

    client_token: str = ""
    timestamp: Count = 0
    execution: Execution | None = None
    execution_state: ExecutionState | None = None
    code: str = ""
    message: str = ""
    retry_after: Annotated[float, Meta(ge=0)] = 0


class Block(msgspec.Struct, frozen=True):
    """One block of a file."""

    f: int
    i: int
    p: bytes


read_message: Final = msgspec.json.Decoder(JobMessage).decode
read_document: Final = msgspec.json.Decoder(JobDocument).decode
write_json: Final = msgspec.json.Encoder().encode


def read_block(payload: bytes) -> Block | None:
    """Return the block in a message; None for what is none."""
    try:
        found = cbor2.loads(payload)
        block = Block(found["f"], found["i"], found["p"])
    except (cbor2.CBORDecodeError, TypeError, ValueError, LookupError):
        return None
    fits = isinstance(block.f, int) and isinstance(block.i, int) and isinstance(block.p, bytes)
    return block if fits else None


def read_refusal(payload: bytes) -> str:
    """Return the code with which a request for blocks was refused; empty for what is no refusal."""
    try:
        code = cbor2.loads(payload)["o"]
    except (cbor2.CBORDecodeError, TypeError, ValueError, LookupError):
        return ""
    return code if isinstance(code, str) else ""


def write_get(request: dict[str, Any]) -> bytes:
    """Return the bytes of a request for blocks."""
    return cbor2.dumps(request)
