"""Topics ⇄ addresses: one table, read in both directions. Pure.

A *tree* is where requests about a thing come from and where answers go. There are two: a thing's own
(``$aws/things/…``, spec shadow 1) and, for things attached to a gateway, the gateway's (E8). What is asked
for below it is a shadow, a job or a block of a file (spec ota, 4 and 5). From the same rows come the
parsers, the answer topics, what the bridge subscribes to and which topics the broker lets a device use, so
these four cannot drift apart.

Nothing here decides whether somebody *may*: a parsed gateway is a claim to be held against the
registry, and ``None`` says that a topic is no request of ours, for whatever reason. The names of jobs,
streams and formats are taken as they come: who asks for an impossible one is told so.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache
from itertools import product
from types import MappingProxyType
from typing import Final

from ota.job_requests import JobOperation
from registry.rules import RESERVED_PREFIX
from security.policy import GRANTS, Action
from shadow.document import ShadowId

THING_CHARS_MAX: Final = 128
SHADOW_CHARS_MAX: Final = 64
CACHED_TOPICS_MAX: Final = 32_768
"""Topics whose address is remembered: two per shadow of 10,000 busy things fit, in about 15 MB."""

_ALPHABET = "[a-zA-Z0-9:_-]"  # AWS also allows `$` in shadow names; we refuse it (spec shadow 1)


class Operation(StrEnum):
    """What a request about a shadow asks for; the word stands in the topic."""

    GET = "get"
    UPDATE = "update"
    DELETE = "delete"


class StreamOperation(Enum):
    """What a request about a stream asks for; the word stands in the topic."""

    DESCRIBE = "describe"
    GET = "get"


@dataclass(frozen=True, slots=True)
class Request:
    """The address of a request. ``gateway`` is who speaks when it is not the thing itself."""

    operation: Operation
    id: ShadowId
    gateway: str | None = None

    @property
    def thing(self) -> str:
        """Return whom it is about."""
        return self.id.thing

    @property
    def key(self) -> str:
        """Return what it is about."""
        return self.id.key


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The address of a request about jobs; ``job`` is as the topic has it, and empty where it has none."""

    operation: JobOperation
    thing: str
    job: str = ""
    gateway: str | None = None

    @property
    def key(self) -> str:
        """Return what is asked about what; no shadow's key has a space."""
        return f"{self.thing} {self.operation.value} {self.job}"

    @property
    def answers(self) -> str:
        """Return where it is answered, without the last level."""
        base = jobs_base(self.thing, self.gateway)
        if self.operation is JobOperation.LIST:
            return f"{base}/get"
        return f"{base}/{self.job}/{self.operation.value}" if self.job else f"{base}/{self.operation.value}"


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The address of a request for a file; stream and format are as the topic has them."""

    operation: StreamOperation
    thing: str
    stream: str
    format: str
    gateway: str | None = None

    @property
    def base(self) -> str:
        """Return Q: answers are below it, under the same format."""
        return f"{answers_base(self.thing, self.gateway)}/streams/{self.stream}"


FirmwareRequest = JobRequest | StreamRequest
AnyRequest = Request | FirmwareRequest


_AnyOperation = Operation | JobOperation | StreamOperation


@dataclass(frozen=True, slots=True)
class _Tree:
    """Where requests about a thing come from, where answers go, and what is left of it in a filter."""

    requests: str
    answers: str
    subscription: tuple[str, ...]
    permissions: tuple[str, ...]
    actions: Mapping[_AnyOperation, Action]
    """What each request is in the words of the permission table."""


class UnguardedTopicError(RuntimeError):
    """A topic that does not say what is done on it would be a hole; the process does not start with one."""


_ACTIONS: Final[Mapping[_AnyOperation, Action]] = MappingProxyType(
    {
        Operation.GET: Action.SHADOW_READ,
        # Which sections it may write is asked for each update, of the table of shadows.
        Operation.UPDATE: Action.SHADOW_REPORT,
        Operation.DELETE: Action.SHADOW_DELETE,
        JobOperation.LIST: Action.JOB_READ,
        JobOperation.START_NEXT: Action.JOB_EXECUTE,
        JobOperation.GET: Action.JOB_READ,
        JobOperation.UPDATE: Action.JOB_EXECUTE,
        # Which files it may have is asked for each request, of the jobs that it has now.
        StreamOperation.DESCRIBE: Action.IMAGE_READ,
        StreamOperation.GET: Action.IMAGE_READ,
    }
)
_OPERATIONS = tuple(operation.value for operation in Operation)
_SHADOW = "/shadow"
_NAMED = "/shadow/name/{name}"
_JOBS = ("/jobs/get", "/jobs/start-next", "/jobs/{job}/get", "/jobs/{job}/update")
_PUSHES = ("/jobs/notify", "/jobs/notify-next")
_STREAM = "/streams/{stream}"
_STREAM_REQUESTS = (f"{_STREAM}/describe/{{format}}", f"{_STREAM}/get/{{format}}")
_STREAM_ANSWERS = tuple(f"{_STREAM}/{word}/{{format}}" for word in ("data", "description", "rejected"))

_THING = "$aws/things/{thing}"
_UP = "gnomon/gateways/{gateway}/up"
_DOWN = "gnomon/gateways/{gateway}/down"
_ATTACHED = "/things/{thing}"


def _own_permissions() -> Iterator[str]:
    # Requests are only written and answers only read: nobody can forge an answer to itself.
    for prefix in (_THING + _SHADOW, _THING + _NAMED):
        yield from (f"write {prefix}/{operation}" for operation in _OPERATIONS)
        yield from (f"read {prefix}/{operation}/+" for operation in _OPERATIONS)


def _firmware_permissions() -> Iterator[str]:
    # Blocks first: the broker looks through the lines in this order, and there are most of them.
    yield from (f"read {_THING}{topic}" for topic in _STREAM_ANSWERS)
    yield from (f"write {_THING}{topic}" for topic in (*_STREAM_REQUESTS, *_JOBS))
    yield from (f"read {_THING}{topic}/+" for topic in _JOBS)
    yield from (f"read {_THING}{topic}" for topic in _PUSHES)


OWN: Final = _Tree(
    requests=_THING,
    answers=_THING,
    subscription=(
        *(f"{_THING}{shadow}/{operation}" for shadow in (_SHADOW, _NAMED) for operation in _OPERATIONS),
        *(f"{_THING}{topic}" for topic in (*_JOBS, *_STREAM_REQUESTS)),
    ),
    permissions=tuple(_own_permissions()),
    actions=_ACTIONS,
)
GATEWAY: Final = _Tree(
    requests=_UP + _ATTACHED,
    answers=_DOWN + _ATTACHED,
    subscription=(_UP + "/#",),
    permissions=(f"write {_UP}/#", f"read {_DOWN}/#"),
    actions=_ACTIONS,
)
TREES: Final = (OWN, GATEWAY)


def action_of(request: AnyRequest) -> Action:
    """Return what a request is in the words of the permission table."""
    return (OWN if request.gateway is None else GATEWAY).actions[request.operation]


def refuse_unguarded(trees: Iterable[_Tree] = TREES) -> None:
    """Raise unless every row of the table names an action that somebody is granted."""
    for tree, operation in product(trees, (*Operation, *JobOperation, *StreamOperation)):
        if tree.actions.get(operation) not in GRANTS:
            raise UnguardedTopicError(f"{tree.requests} … {operation}: name an action of policy.GRANTS")


def parse(topic: str) -> Request | None:
    """Return the request about a shadow that is made on ``topic``, or None when none can be."""
    # Before the cache, so that what it holds is bounded in bytes too, and is about shadows only.
    return _parse(topic) if len(topic) <= TOPIC_CHARS_MAX and _SHADOW in topic else None


def parse_firmware(topic: str) -> FirmwareRequest | None:
    """Return the request about a job or a file that is made on ``topic``, or None when none can be."""
    if len(topic) > TOPIC_CHARS_MAX or (found := _FIRMWARE_PATTERN.fullmatch(topic)) is None:
        return None
    gateway, attached, own, rest = found.groups()
    thing = own or attached
    match rest.split("/"):
        case ["jobs", "get"]:
            return JobRequest(JobOperation.LIST, thing, gateway=gateway)
        case ["jobs", "start-next"]:
            return JobRequest(JobOperation.START_NEXT, thing, gateway=gateway)
        case ["jobs", job, ("get" | "update") as word] if job:
            return JobRequest(JobOperation(word), thing, job, gateway)
        case ["streams", stream, ("get" | "describe") as word, format] if stream and format:
            return StreamRequest(StreamOperation(word), thing, stream, format, gateway)
        case _:
            return None


def answer_base(id: ShadowId, gateway: str | None = None) -> str:
    """Return P of the shadow, or its like in the tree of ``gateway``; answers are below it."""
    # Written out, as this runs three times an update; a test holds it to the table.
    if gateway is None:
        base = f"$aws/things/{id.thing}/shadow"
    else:
        base = f"gnomon/gateways/{gateway}/down/things/{id.thing}/shadow"
    return f"{base}/name/{id.name}" if id.name else base


def answers_base(thing: str, gateway: str | None = None) -> str:
    """Return what answers about a thing lie below, in its own tree or in that of ``gateway``."""
    # Written out, as this runs for each request for blocks; a test holds it to the table.
    return f"$aws/things/{thing}" if gateway is None else f"gnomon/gateways/{gateway}/down/things/{thing}"


def jobs_base(thing: str, gateway: str | None = None) -> str:
    """Return P of the thing's jobs, or its like in the tree of ``gateway``."""
    return f"{answers_base(thing, gateway)}/jobs"


def _pattern(tree: _Tree) -> re.Pattern[str]:
    thing = f"(?P<thing>{_ALPHABET}{{1,{THING_CHARS_MAX}}})"
    gateway = f"(?P<gateway>{_ALPHABET}{{1,{THING_CHARS_MAX}}})"
    name = f"(?P<name>{_ALPHABET}{{1,{SHADOW_CHARS_MAX}}})"
    prefix = re.escape(tree.requests).replace(r"\{thing\}", thing).replace(r"\{gateway\}", gateway)
    return re.compile(f"{prefix}/shadow(?:/name/{name})?/(?P<operation>{'|'.join(_OPERATIONS)})", re.ASCII)


def _firmware_pattern() -> re.Pattern[str]:
    name = f"({_ALPHABET}{{1,{THING_CHARS_MAX}}})"
    own = re.escape(OWN.requests).replace(r"\{thing\}", name)
    relayed = re.escape(GATEWAY.requests).replace(r"\{gateway\}", name).replace(r"\{thing\}", name)
    return re.compile(f"(?:{relayed}|{own})/((?:jobs|streams)/.+)", re.ASCII)


_PATTERNS = tuple(_pattern(tree) for tree in TREES)
_FIRMWARE_PATTERN = _firmware_pattern()
TOPIC_CHARS_MAX: Final = len((GATEWAY.requests + _NAMED).format(thing="", gateway="", name="")) + (
    2 * THING_CHARS_MAX + SHADOW_CHARS_MAX + len("/update")
)


@lru_cache(CACHED_TOPICS_MAX)
def _parse(topic: str) -> Request | None:
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(topic):
            part = found.groupdict()
            id = ShadowId(part["thing"], part["name"] or "")
            return Request(Operation(part["operation"]), id, part.get("gateway"))
    return None


def _filter(topic: str) -> str:
    return topic.format(thing="+", gateway="+", name="+", job="+", stream="+", format="+")


def _line(permission: str) -> str:
    # %u is who holds the certificate: the thing in its own tree, the gateway in a gateway's.
    place = permission.format(thing="%u", gateway="%u", name="+", job="+", stream="+", format="+")
    return f"pattern {place}"


SUBSCRIPTIONS: Final = tuple(_filter(topic) for tree in TREES for topic in tree.subscription)
"""All requests of all things and gateways: the bridge's topic filters."""

_PERMISSIONS: Final = (*OWN.permissions, *GATEWAY.permissions, *_firmware_permissions())
"""Shadows first: the broker looks through the lines one by one, for each message."""

DEVICE_ACL: Final = tuple(_line(permission) for permission in _PERMISSIONS)
"""The lines that let a device use its own topics and no others; no line ever names a thing."""

_MIRROR = {"write": "read", "read": "write"}  # what a device may write the bridge reads, and the reverse


def _bridge_line(permission: str) -> str:
    access, topic = permission.split(" ", 1)
    return f"topic {_MIRROR[access]} {_filter(topic)}"


BRIDGE_ACL: Final = tuple(_bridge_line(permission) for permission in _PERMISSIONS)
"""The lines that let the bridge read all requests and write all answers."""

LOG_OF_SUBSCRIPTIONS: Final = "$SYS/broker/log/M/subscribe"

PRESENCE_SUBSCRIPTIONS: Final = ("$SYS/broker/log/N", "$SYS/broker/log/E", LOG_OF_SUBSCRIPTIONS)
"""Where the broker says who connects, whose connection another one took over (it calls that an error) and
who subscribes to what (spec shadow, E2 and 13)."""

PRESENCE_ACL: Final = tuple(f"topic read {filter}" for filter in PRESENCE_SUBSCRIPTIONS)

CONTROL_TOPIC: Final = "$CONTROL/dynamic-security/v1"
"""Where the broker's plugin is asked."""

CONTROL_ANSWERS: Final = f"{CONTROL_TOPIC}/response"

CONTROL_ACL: Final = (f"topic write {CONTROL_TOPIC}", f"topic read {CONTROL_ANSWERS}")

CANARIES: Final = (f"{RESERVED_PREFIX}1", f"{RESERVED_PREFIX}2")
"""Things of ours that try what no thing may do."""

REVOKED_CANARY: Final = f"{RESERVED_PREFIX}0"

VOICE_TOPICS: Final = tuple(
    f"{answer_base(ShadowId(CANARIES[1]), gateway)}/get/accepted" for gateway in (None, CANARIES[1])
)
"""Where something is said to the second canary, which the first one must not hear."""

VOICE_ACL: Final = tuple(f"topic write {topic}" for topic in VOICE_TOPICS)
