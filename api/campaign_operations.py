"""What the routes of firmware campaigns declare about themselves."""

from enum import StrEnum
from typing import Any, Final

from api import problems
from api.campaign_schemas import (
    ApproveBody,
    CampaignBody,
    CampaignDocument,
    CampaignList,
    DryRunDocument,
    ExecutionDocument,
    ExecutionList,
    NoteBody,
    RemarkBody,
)
from api.logins import json_body
from api.operations import (
    CURSOR,
    EXPECTED,
    IDEMPOTENCY_KEY,
    LIMIT,
    NAME,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    in_header,
    in_path,
    in_query,
)
from api.replies import MERGE_PATCH
from ota.states import CampaignState, ExecutionState
from security.policy import Action

TAG: Final = "Firmware"
_ID: Final = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
_RELEASE: Final = "0b7a3c1e-6f52-4a0e-8b1d-9c2f5d7e1a34"
_AT: Final = "2026-09-21T12:00:00.000Z"
CAMPAIGN: Final = in_path(
    "campaign", "Id of a campaign", {"type": "string", "pattern": "^[0-9a-f-]{36}$"}, _ID
)
_TARGET: Final = in_path("target", "Name of a thing that is a target", NAME, "hall-thermostat")
LAST_EVENT_ID: Final = in_header("Last-Event-ID", "The `id` had last", {"type": "string"}, "5f0c1e8d2b7a4c3f")
SEEN: Final = (
    in_header(
        "If-Match",
        "Only if it is this version still",
        {"type": "string", "pattern": '^"[0-9]{1,16}"$'},
        '"2"',
    ),
)
_BODY: Final = {"release": _RELEASE, "data": "preserve", "waves": [{"devices": 10}, {"percent": 100}]}
_COUNTS: Final = {"waiting": 7_200, "active": 800, "SUCCEEDED": 1_998, "FAILED": 2}
_CLOCKS: Final = {
    "p50_s": 41.2,
    "p95_s": 60.5,
    "p99_s": 74.0,
    "max_s": 92.3,
    "limit_s": 300.0,
    "over": 0,
    "per_hour": 1_998,
    "per_hour_aim": 10_000,
    "in_flight": 800,
}
_CAMPAIGN: Final[dict[str, Any]] = {
    "state": "RUNNING",
    "wave": 2,
    "targets": 10_000,
    "counts": _COUNTS,
    "clocks": _CLOCKS,
    "id": _ID,
    "version": 5,
    "job": f"c-{_ID.replace('-', '')}",
    "release": _RELEASE,
    "selector": {"things": [], "premises": [], "owner": None, "pinned": []},
    "path": "remote",
    "data": "preserve",
    "waves": [{"devices": 10}, {"percent": 100}],
    "per_hour": 10_000,
    "max_in_flight": 833,
    "time_zone": "Europe/Zurich",
    "blackout": True,
    "thresholds": {
        "pause_percent": 3,
        "abort_percent": 10,
        "rejected_percent": 20,
        "least": 20,
        "extras": [],
    },
    "prestage": False,
    "deadline_s": 300,
    "soak_s": 900,
    "retries": 2,
    "retry_rolled_back": False,
    "author": "p-abcdefghij234567",
    "approver": "p-bcdefghijk234567",
    "revision": 1,
    "excluded": {"NOT_ENROLLED": 41, "ALREADY_CURRENT": 12},
    "warnings": {},
}
_EXECUTION: Final = {
    "thing": "hall-thermostat",
    "campaign": _ID,
    "state": "SUCCEEDED",
    "wave": 2,
    "attempt": 1,
    "started_at": _AT,
    "ended_at": "2026-09-21T12:00:41.200Z",
    "seconds": 41.2,
}
_SUMMARY: Final = {
    "id": _ID,
    "state": "RUNNING",
    "release": _RELEASE,
    "path": "remote",
    "data": "preserve",
    "targets": 10_000,
    "done": 2_000,
    "author": "p-abcdefghij234567",
    "approver": "p-bcdefghijk234567",
    "started_at": _AT,
}
_PATCH: Final = {"type": "object", "description": "Any members of a CampaignBody"}
_NOTE: Final = {"note": "customers report that it beeps"}
_WHOLE: Final = {
    200: Answer("The campaign", Content("application/json", CampaignDocument, _CAMPAIGN), ("ETag",))
}
_ONE_TARGET: Final = {200: Answer("The target", Content("application/json", ExecutionDocument, _EXECUTION))}
_STEP: Final = (problems.CAMPAIGN_NOT_FOUND, problems.ILLEGAL_TRANSITION)
_JSON: Final = (*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE)


def _words(states: type[StrEnum]) -> dict[str, Any]:
    return {"type": "string", "enum": [state.value for state in states]}


def _act(id: str, summary: str, action: Action, **more: Any) -> Operation:  # noqa: ANN401 - fields of an operation
    return Operation(
        id=id,
        tag=TAG,
        summary=summary,
        action=action,
        parameters=(CAMPAIGN,),
        bodies=json_body(NoteBody, _NOTE),
        answers=_WHOLE,
        refusals=(*_STEP, *_JSON, *more.pop("refusals", ())),
        own_check=True,
        **more,
    )


LIST_CAMPAIGNS: Final = Operation(
    id="listCampaigns",
    tag=TAG,
    summary="List the campaigns",
    action=Action.FLEET_READ,
    parameters=(
        LIMIT,
        CURSOR,
        in_query(
            "state", "Only in this state", {"type": "string", "enum": [one.value for one in CampaignState]}
        ),
    ),
    answers={200: Answer("A page", Content("application/json", CampaignList, {"items": [_SUMMARY]}))},
    refusals=(problems.INVALID_CURSOR,),
)
CREATE_CAMPAIGN: Final = Operation(
    id="createCampaign",
    tag=TAG,
    summary="Make a draft of a campaign",
    description="Nothing goes to a device before it is submitted, and approved by another person.",
    action=Action.CAMPAIGN_CREATE,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=json_body(CampaignBody, _BODY),
    answers={
        201: Answer(
            "The draft", Content("application/json", CampaignDocument, _CAMPAIGN), ("Location", "ETag")
        )
    },
    refusals=(*_JSON, problems.INVALID_CAMPAIGN, problems.RELEASE_NOT_FOUND, problems.IDEMPOTENCY_MISMATCH),
)
GET_CAMPAIGN: Final = Operation(
    id="getCampaign",
    tag=TAG,
    summary="Read a campaign with its counts and clocks",
    action=Action.FLEET_READ,
    parameters=(CAMPAIGN,),
    answers=_WHOLE,
    refusals=(problems.CAMPAIGN_NOT_FOUND,),
    own_check=True,
)
EDIT_CAMPAIGN: Final = Operation(
    id="editCampaign",
    tag=TAG,
    summary="Change a draft",
    description="A merge patch (RFC 7396) of what `createCampaign` takes: what it does not name stays, and"
    " null is what the settings say. What was submitted is a draft again, and has to be submitted anew.",
    action=Action.CAMPAIGN_CREATE,
    parameters=(CAMPAIGN, *EXPECTED[:1]),
    bodies=(Content(MERGE_PATCH.decode(), _PATCH, {"per_hour": 5_000}),),
    answers=_WHOLE,
    refusals=(
        *_STEP,
        *_JSON,
        problems.INVALID_CAMPAIGN,
        problems.RELEASE_NOT_FOUND,
        problems.PRECONDITION_FAILED,
        problems.PRECONDITION_REQUIRED,
    ),
    own_check=True,
)
DELETE_CAMPAIGN: Final = Operation(
    id="deleteCampaign",
    tag=TAG,
    summary="Delete a draft",
    action=Action.CAMPAIGN_CREATE,
    parameters=(CAMPAIGN,),
    answers={204: Answer("It is gone")},
    refusals=_STEP,
    own_check=True,
)
DRY_RUN_CAMPAIGN: Final = Operation(
    id="dryRunCampaign",
    tag=TAG,
    summary="Find who would get it, who would not and why, and how long it would take",
    description="Every device that was looked at is counted once: as included, or under one reason.",
    action=Action.CAMPAIGN_CREATE,
    parameters=(CAMPAIGN,),
    answers={
        200: Answer(
            "What was found",
            Content(
                "application/json",
                DryRunDocument,
                {
                    "included": 10_000,
                    "replaced": 0,
                    "excluded": {"NOT_ENROLLED": 41},
                    "waves": [10, 100, 10_000],
                    "warnings": {},
                },
            ),
        )
    },
    refusals=(problems.CAMPAIGN_NOT_FOUND, problems.RELEASE_NOT_FOUND, problems.CAMPAIGN_UNFIT),
    own_check=True,
)
SUBMIT_CAMPAIGN: Final = Operation(
    id="submitCampaign",
    tag=TAG,
    summary="Freeze the targets and the order, for another person to approve",
    action=Action.CAMPAIGN_CREATE,
    parameters=(CAMPAIGN, *SEEN),
    bodies=json_body(RemarkBody, {"note": "as asked for by the makers"}),
    body_required=False,
    answers=_WHOLE,
    refusals=(
        *_STEP,
        *_JSON,
        problems.RELEASE_NOT_FOUND,
        problems.CAMPAIGN_UNFIT,
        problems.PRECONDITION_FAILED,
    ),
    own_check=True,
)
APPROVE_CAMPAIGN: Final = Operation(
    id="approveCampaign",
    tag=TAG,
    summary="Approve what another person has submitted",
    description="The order is signed with it: by the key of the service, or as it comes in the body. With"
    " `If-Match` only what you have seen is approved.",
    action=Action.CAMPAIGN_APPROVE,
    parameters=(CAMPAIGN, *SEEN),
    bodies=json_body(ApproveBody, {}),
    answers=_WHOLE,
    refusals=(
        *_STEP,
        *_JSON,
        problems.SAME_PERSON,
        problems.CAMPAIGN_UNFIT,
        problems.TOO_MANY_CAMPAIGNS,
        problems.PRECONDITION_FAILED,
    ),
    own_check=True,
    held=True,
)
PAUSE_CAMPAIGN: Final = _act(
    "pauseCampaign",
    "Hold back what was not begun, and whoever waits to activate",
    Action.CAMPAIGN_PAUSE,
)
RESUME_CAMPAIGN: Final = _act(
    "resumeCampaign",
    "Go on after a pause",
    Action.CAMPAIGN_RESUME,
    refusals=(problems.SAME_PERSON, problems.CAMPAIGN_UNFIT),
    description="After a pause that no person made it takes another person than who wrote it. What would have"
    " to stop again at once does not go on: its release was withdrawn or is over, a key was revoked, its"
    " order is over.",
)
ABORT_CAMPAIGN: Final = _act(
    "abortCampaign",
    "End it for good",
    Action.CAMPAIGN_ABORT,
    description="Who has not activated yet keeps what it runs; who is activating comes to an end.",
)
WATCH_CAMPAIGN: Final = Operation(
    id="watchCampaign",
    tag=TAG,
    summary="Watch how far it is",
    description="Server-sent events `progress`: counts and clocks, when they change, once a second at most."
    " Who comes back with `Last-Event-ID` is told nothing twice.",
    action=Action.FLEET_READ,
    parameters=(CAMPAIGN, LAST_EVENT_ID),
    answers={200: Answer("Events", Content("text/event-stream", {"type": "string"}))},
    refusals=(problems.CAMPAIGN_NOT_FOUND, problems.TOO_MANY_STREAMS),
    stream=True,
    own_check=True,
)
LIST_EXECUTIONS: Final = Operation(
    id="listExecutions",
    tag=TAG,
    summary="List the targets of a campaign with what became of each",
    description="Equipment that takes part no more is counted in the campaign and not named here, so a page"
    " may hold fewer than `limit` and still have a `next`.",
    action=Action.FLEET_READ,
    parameters=(
        CAMPAIGN,
        LIMIT,
        CURSOR,
        in_query(
            "state", "Only in this state", {"type": "string", "enum": [one.value for one in ExecutionState]}
        ),
        in_query("wave", "Only of this wave", {"type": "integer", "minimum": 0}),
        in_query("reason", "Only with this reason", {"type": "string", "maxLength": 64}),
    ),
    answers={200: Answer("A page", Content("application/json", ExecutionList, {"items": [_EXECUTION]}))},
    refusals=(problems.CAMPAIGN_NOT_FOUND, problems.INVALID_CURSOR),
    own_check=True,
)
GET_EXECUTION: Final = Operation(
    id="getExecution",
    tag=TAG,
    summary="Read one target with all its attempts",
    action=Action.FLEET_READ,
    parameters=(CAMPAIGN, _TARGET),
    answers=_ONE_TARGET,
    refusals=(problems.CAMPAIGN_NOT_FOUND, problems.TARGET_NOT_FOUND),
    own_check=True,
)
CANCEL_EXECUTION: Final = Operation(
    id="cancelExecution",
    tag=TAG,
    summary="Take one target out, unless it is activating already",
    action=Action.CAMPAIGN_ABORT,
    parameters=(CAMPAIGN, _TARGET),
    bodies=json_body(RemarkBody, {"note": "it stands in a cellar without signal"}),
    body_required=False,
    answers=_ONE_TARGET,
    refusals=(*_STEP, *_JSON, problems.TARGET_NOT_FOUND),
    own_check=True,
)
RETRY_EXECUTION: Final = Operation(
    id="retryExecution",
    tag=TAG,
    summary="Give one target that failed another try",
    action=Action.CAMPAIGN_CREATE,
    parameters=(CAMPAIGN, _TARGET),
    bodies=json_body(RemarkBody, {"note": "it stands in a cellar without signal"}),
    body_required=False,
    answers=_ONE_TARGET,
    refusals=(*_STEP, *_JSON, problems.TARGET_NOT_FOUND),
    own_check=True,
)
