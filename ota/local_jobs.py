"""The jobs of a bundle, as a field tool offers them to devices on its own link. Pure.

The same protocol as everywhere, on one campaign that is a file: a device cannot tell the difference. What the
tool says at the gate is no more than what the order allows, which the device has checked itself.
(spec: ota, 10)
"""

import base64
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from infra.clock import MS_PER_S
from ota.bundle import Opened
from ota.executions import ThingJobs, moved
from ota.job_ports import Go, Hold, Never, Permit
from ota.job_requests import InvalidJobRequestError, JobOperation, Update, parse
from ota.jobs import GateAsk, Held, JobError, answer, grant, state_of
from ota.models import Execution
from ota.states import ExecutionState, ExecutionTrigger, JobStatus

NOT_YET: Final = "window"
"""Why the gate holds a device before the order begins."""
RETRY_S_MAX: Final = 3_600
RETRY_S: Final = 60
DEADLINE_S: Final = 3_600
"""A crew waits: what matters remotely does not here."""
CONFIRM_S: Final = 3_600
"""The new image has to reach the service, and the network may be what the crew has come for."""
WINDOW: Final = 8
OK, CONFLICT = 200, 409
REFUSED: Final = {
    "ResourceNotFound": 404,
    "InvalidJson": 400,
    "InvalidRequest": 400,
    "InvalidTopic": 400,
    "RequestThrottled": 429,
}
"""HTTP status by code; any other refusal is a conflict with what is known."""


class NotMeantError(Exception):
    """This thing is not in the bundle."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"{thing} is not in this bundle: its order does not name it")
        self.thing = thing


@dataclass(frozen=True, slots=True)
class Answered:
    """What a device is told, and what its target has become; None: nothing has changed."""

    status: int
    body: dict[str, Any]
    after: Execution | None = None


def offered(bundle: Opened, thing: str, now_ms: int) -> Execution:
    """Return the target of a thing that has just asked for its job. Raises :class:`NotMeantError`."""
    if thing not in bundle.bundle.proofs:
        raise NotMeantError(thing)
    planned = Execution(
        campaign=bundle.order.campaign,
        thing=thing,
        wave=0,
        place=0,
        proof_index=0,
        state=ExecutionState.PLANNED,
    )
    return moved(planned, ExecutionTrigger.OFFER, now_ms)


def document(bundle: Opened, thing: str, base_url: str) -> dict[str, Any]:
    """Return the job document of a thing; ``base_url`` is the tool's own. Raises :class:`NotMeantError`."""
    proof = bundle.bundle.proofs.get(thing)
    if proof is None:
        raise NotMeantError(thing)
    url = f"{base_url}/v1/ota/images/{bundle.manifest.sha256}"
    return {
        "afr_ota": {
            "protocols": ["HTTP"],
            "files": [
                {
                    "filepath": "/fw",
                    "filesize": bundle.manifest.size,
                    "fileid": 0,
                    "certfile": "",
                    "fileType": 0,
                    "update_data_url": url,
                    "auth_scheme": "",
                }
            ],
        },
        "gnomon": {
            "v": 1,
            "job": bundle.job,
            "manifest": _text(bundle.bundle.manifest),
            "order": _text(bundle.bundle.order),
            "proof": _text(proof),
            # A device that has an older list of keys, or none, fetches ours first.
            "keys": 0 if bundle.keys is None else bundle.keys.number,
            "deadline_s": DEADLINE_S,
            "confirm_s": CONFIRM_S,
            "prestage": False,
            "activate_at": 0,
            "block": bundle.manifest.block,
            "window": WINDOW,
            "jitter_s": 0,
            "http": url,
        },
    }


def updated(bundle: Opened, execution: Execution, payload: bytes, now_ms: int) -> Answered:
    """Return what becomes of a device's update of its job: the body of the protocol's update topic."""
    jobs = ThingJobs(execution.thing).after([execution])
    try:
        ask = parse(JobOperation.UPDATE, bundle.job, payload)
    except InvalidJobRequestError as error:
        return _refused(error.code, error.message, error.token, now_ms)
    assert isinstance(ask, Update), "an update was parsed"
    try:
        asked = answer(ask, jobs, now_ms)
        decided = grant(ask, _permit(bundle, now_ms), jobs, now_ms) if isinstance(asked, GateAsk) else asked
    except JobError as error:
        return _of_error(error, ask.token, now_ms)
    after = next(iter(decided.executions), None)
    if isinstance(decided, Held):
        return replace(_of_error(decided.error, ask.token, now_ms), after=after)
    if decided.replay:
        return Answered(OK, msgspec.json.decode(decided.replay))
    return Answered(OK, _stamped(dict(decided.members), ask.token, now_ms), after)


def is_over(execution: Execution) -> bool:
    """Tell whether a device has said how it ended."""
    return execution.status not in {None, JobStatus.QUEUED, JobStatus.IN_PROGRESS}


def _permit(bundle: Opened, now_ms: int) -> Permit:
    """Return what the order allows now: the tool's clock is one more that has to agree."""
    now_s = now_ms // MS_PER_S
    if now_s >= bundle.order.not_after:
        return Never()
    if now_s < bundle.order.not_before:
        return Hold(NOT_YET, max(RETRY_S, min(RETRY_S_MAX, bundle.order.not_before - now_s)))
    return Go()


def _of_error(error: JobError, token: str | None, now_ms: int) -> Answered:
    refused = _refused(error.code, error.message, token, now_ms)
    if error.retry_after_s is not None:
        refused.body["retryAfter"] = error.retry_after_s
    if error.execution is not None:
        refused.body["executionState"] = state_of(error.execution)
    return refused


def _refused(code: str, message: str, token: str | None, now_ms: int) -> Answered:
    body = {"code": str(code), "message": message}
    return Answered(REFUSED.get(str(code), CONFLICT), _stamped(body, token, now_ms))


def _stamped(members: dict[str, Any], token: str | None, now_ms: int) -> dict[str, Any]:
    members["timestamp"] = now_ms // MS_PER_S
    if token is not None:
        members["clientToken"] = token
    return members


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
