"""From a request about jobs to what is asked: the checks that need no execution. Pure.

In the order of the specification: InvalidTopic, InvalidJson, InvalidRequest. A refusal still says which
``clientToken`` asked, because a client that does not see its token waits for ever. (spec: ota, 4)
"""

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ota.models import campaign_of
from ota.states import JobStatus

REQUEST_BYTES_MAX: Final = 32_768
TOKEN_BYTES_MAX: Final = 64
DETAILS_MAX: Final = 10
STEP_MIN_MAX: Final = 10_080
CLEAR: Final = -1
"""The step timer that is none."""
WHOLE_MAX: Final = 2**63 - 1
NEXT: Final = "$next"
SETTABLE: Final = frozenset(
    {JobStatus.IN_PROGRESS, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.REJECTED, JobStatus.QUEUED}
)
"""What a device may say; QUEUED is a step back from wherever it is, and refused as one."""

_JOB: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9:_-]{1,128}", re.ASCII)
_VALUE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,1024}")
_DECIMAL: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class JobOperation(Enum):
    """What a request about jobs asks for. No text, or its GET would be that of a shadow."""

    LIST = "list"
    START_NEXT = "start-next"
    GET = "get"
    UPDATE = "update"


class Code(StrEnum):
    """Why a request is refused, in the protocol's words."""

    FORBIDDEN = "Forbidden"
    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_REQUEST = "InvalidRequest"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    TERMINAL_STATE_REACHED = "TerminalStateReached"
    INVALID_STATE_TRANSITION = "InvalidStateTransition"
    VERSION_MISMATCH = "VersionMismatch"
    REQUEST_THROTTLED = "RequestThrottled"
    INTERNAL_ERROR = "InternalError"


class InvalidJobRequestError(Exception):
    """A request that was refused while it was read; ``token`` is to be echoed."""

    def __init__(self, code: Code, message: str, token: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.token = token


@dataclass(frozen=True, slots=True, kw_only=True)
class ListJobs:
    """The summaries of all jobs that are not over."""

    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNext:
    """Begin the next job, or have again the one that was begun."""

    token: str | None = None
    details: MappingProxyType[str, str] | None = None
    step_min: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """One job with its document; campaign None: the next one."""

    campaign: str | None
    token: str | None = None
    number: int | None = None
    document: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What became of a job. ``digest`` tells this request from others with its token."""

    campaign: str
    status: JobStatus
    token: str | None = None
    digest: str = ""
    details: MappingProxyType[str, str] | None = None
    expected_version: int | None = None
    number: int | None = None
    state: bool = False
    document: bool = False
    step_min: int | None = None

    @property
    def asks_the_gate(self) -> bool:
        """Tell whether it asks for leave to activate."""
        details: Any = self.details or {}
        return (
            self.status is JobStatus.IN_PROGRESS and details.get("fs") == "5" and details.get("gate") == "ask"
        )


Ask = ListJobs | StartNext | Describe | Update


def parse(operation: JobOperation, job: str, payload: bytes) -> Ask:
    """Return what is asked; raise :class:`InvalidJobRequestError` with the first failed check."""
    if operation in {JobOperation.GET, JobOperation.UPDATE} and job != NEXT and not _JOB.fullmatch(job):
        raise InvalidJobRequestError(Code.INVALID_TOPIC, "this is no job id", peek_token(payload))
    members = _members(payload)
    token = _token(members)
    try:
        return _ask(_Reader(members), operation, job, token, payload)
    except _InvalidError as bad:
        raise InvalidJobRequestError(Code.INVALID_REQUEST, str(bad), token) from bad


def peek_token(payload: bytes) -> str | None:
    """Return the token to echo when a request is refused before it is read."""
    try:
        return _token(_members(payload))
    except InvalidJobRequestError:
        return None


class _InvalidError(Exception):
    """One member is not as it must be; the text says how it must be."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes members out of a request; null is as if it were not there."""

    members: dict[str, Any] = field(default_factory=dict)

    def flag(self, name: str, default: bool) -> bool:
        value = self.members.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise _InvalidError(f"{name}: true or false")
        return value

    def whole(self, name: str, low: int, high: int = WHOLE_MAX) -> int | None:
        value = self.members.get(name)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise _InvalidError(f"{name}: a whole number from {low} to {high}")
        return value

    def version(self) -> int | None:
        # The C library of the protocol's maker sends it as text.
        value = self.members.get("expectedVersion")
        if type(value) is str and _DECIMAL.fullmatch(value) and int(value) <= WHOLE_MAX:
            return int(value)
        if type(value) is str:
            raise _InvalidError("expectedVersion: a whole number, or one in decimal digits as text")
        return self.whole("expectedVersion", 0)

    def step_min(self) -> int | None:
        value = self.members.get("stepTimeoutInMinutes")
        if type(value) is int and value == CLEAR:
            return CLEAR
        return self.whole("stepTimeoutInMinutes", 1, STEP_MIN_MAX)

    def status(self) -> JobStatus:
        value = self.members.get("status")
        if type(value) is not str or value not in SETTABLE:
            raise _InvalidError("status: IN_PROGRESS, SUCCEEDED, FAILED or REJECTED")
        return JobStatus(value)

    def details(self) -> MappingProxyType[str, str] | None:
        value = self.members.get("statusDetails")
        if value is None:
            return None
        if type(value) is not dict or len(value) > DETAILS_MAX:
            raise _InvalidError(f"statusDetails: an object of at most {DETAILS_MAX} pairs")
        for key, text in value.items():
            if not _KEY.fullmatch(key):
                raise _InvalidError("statusDetails: a key has 1 to 128 of a-z A-Z 0-9 : _ -")
            if type(text) is not str or not _VALUE.fullmatch(text):
                raise _InvalidError("statusDetails: a value is text of 1 to 1024, no control characters")
        return MappingProxyType(value)


def _ask(reader: _Reader, operation: JobOperation, job: str, token: str | None, payload: bytes) -> Ask:
    if token is None and reader.members.get("clientToken") is not None:
        raise _InvalidError(f"clientToken: text of at most {TOKEN_BYTES_MAX} bytes")
    match operation:
        case JobOperation.LIST:
            return ListJobs(token=token)
        case JobOperation.START_NEXT:
            return StartNext(token=token, details=reader.details(), step_min=reader.step_min())
        case JobOperation.GET:
            return Describe(
                campaign=None if job == NEXT else campaign_of(job) or "",
                token=token,
                number=reader.whole("executionNumber", 1),
                document=reader.flag("includeJobDocument", default=True),
            )
        case JobOperation.UPDATE:
            return Update(
                campaign=campaign_of(job) or "",
                status=reader.status(),
                token=token,
                digest=sha256(payload).hexdigest(),
                details=reader.details(),
                expected_version=reader.version(),
                number=reader.whole("executionNumber", 1),
                state=reader.flag("includeJobExecutionState", default=False),
                document=reader.flag("includeJobDocument", default=False),
                step_min=reader.step_min(),
            )


def _members(payload: bytes) -> dict[str, Any]:
    if len(payload) > REQUEST_BYTES_MAX:
        raise InvalidJobRequestError(Code.INVALID_REQUEST, f"a request has at most {REQUEST_BYTES_MAX} bytes")
    if not payload:
        return {}
    try:
        payload.decode()
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as bad:
        raise InvalidJobRequestError(Code.INVALID_JSON, "a request is a JSON object in UTF-8") from bad


def _token(members: dict[str, Any]) -> str | None:
    token = members.get("clientToken")
    return token if type(token) is str and len(token.encode()) <= TOKEN_BYTES_MAX else None
