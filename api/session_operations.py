"""What the operations of provisioning sessions declare.

(spec: han, 5.2 and 5.3)
"""

from collections.abc import Mapping
from typing import Any, Final

from api import problems
from api.operations import IDEMPOTENCY_KEY, WITH_BODY, Answer, Content, Operation, in_header, in_path
from api.problems import Kind
from api.session_schemas import (
    AbortBody,
    ConfirmBody,
    DiscoveryBody,
    GrantBody,
    NewSessionBody,
    ProgramsBody,
    RecordList,
    RemedyDoneBody,
    RemedyList,
    RemedyNoticeBody,
    RetryBody,
    SelectionBody,
    SessionConsentBody,
    SessionDeviceList,
    SessionDocument,
    SessionOptionList,
    VerificationOfSessionBody,
)
from security.policy import Action

TAG: Final = "Provisioning"
_ID: Final = "ps-abcdefghij234567abcdefgh"
_EUI64: Final = "00124B0014B5D2A1"
_CODE: Final = "83FED3407A939723A5C639B26916D505C3B5"
_AT: Final = "2026-09-21T12:00:00.000Z"
SESSION: Final = in_path(
    "session",
    "Id of a provisioning session",
    {"type": "string", "pattern": "^[a-zA-Z0-9-]{1,64}$"},
    _ID,
)
IF_MATCH: Final = in_header(
    "If-Match",
    "The `ETag` of what you have read",
    {"type": "string", "pattern": '^"[0-9]{1,15}"$'},
    '"7"',
    required=True,
)
_SESSION: Final = Content(
    "application/json",
    SessionDocument,
    {
        "id": _ID,
        "state": "OPEN",
        "premises": "home-7",
        "opened_at": _AT,
        "others": 0,
        "devices": 0,
        "steps": [{"at": _AT, "to": "OPENING", "trigger": "opened"}],
        "account": "account-7",
        "case": "c-1001",
    },
)
_DEVICE: Final = {
    "id": _EUI64,
    "state": "AUTH_OK",
    "changed_at": _AT,
    "maker": "Acme",
    "model": "PCT-2",
    "model_id": "acme-pct-2",
    "capabilities": ["price", "load.offset"],
}
_READ: Final = (problems.SESSION_NOT_FOUND, problems.VERIFICATION_EXPIRED)
_CHANGE: Final = (
    *_READ,
    problems.PRECONDITION_REQUIRED,
    problems.PRECONDITION_FAILED,
    problems.IDEMPOTENCY_MISMATCH,
    problems.ILLEGAL_TRANSITION,
)


def _json(type: type, example: Mapping[str, Any]) -> tuple[Content, ...]:
    return (Content("application/json", type, example),)


def _reading(
    id: str, path_of: type, summary: str, example: Mapping[str, Any], description: str = ""
) -> Operation:
    return Operation(
        id=id,
        tag=TAG,
        summary=summary,
        description=description,
        action=Action.SESSION_READ,
        parameters=(SESSION,),
        answers={200: Answer("As it is now", Content("application/json", path_of, example))},
        refusals=_READ,
        own_check=True,
    )


def _changing(
    id: str,
    action: Action,
    summary: str,
    *refusals: Kind,
    bodies: tuple[Content, ...] = (),
    status: int = 200,
    description: str = "",
) -> Operation:
    with_body = (*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE) if bodies else ()
    return Operation(
        id=id,
        tag=TAG,
        summary=summary,
        description=description,
        action=action,
        parameters=(SESSION, IF_MATCH, IDEMPOTENCY_KEY),
        bodies=bodies,
        answers={status: Answer("The session after it", _SESSION, ("ETag",))},
        refusals=(*with_body, *_CHANGE, *refusals),
        own_check=True,
    )


OPEN_SESSION: Final = Operation(
    id="openProvisioningSession",
    tag=TAG,
    summary="Open a session for premises",
    description="By a live verification, or by an open work order; a customer opens one for their own. There"
    " is one at a time: the loser is told `session`, and may go on with it or take it over.",
    action=Action.SESSION_WORK,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=_json(
        NewSessionBody,
        {
            "premises": "home-7",
            "account": "account-7",
            "verification": "vf-abcdefghij234567abcdefgh",
            "case": "c-1001",
        },
    ),
    answers={201: Answer("The session", _SESSION, ("Location", "ETag"))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.PREMISES_NOT_FOUND,
        problems.SESSION_NOT_FOUND,
        problems.VERIFICATION_MISSING,
        problems.VERIFICATION_EXPIRED,
        problems.WORK_ORDER_MISSING,
        problems.POLICY_OFF,
        problems.NOT_READY,
        problems.SESSION_EXISTS,
        problems.TOO_MANY_SESSIONS,
        problems.IDEMPOTENCY_MISMATCH,
    ),
    own_check=True,
)
GET_SESSION: Final = Operation(
    id="getProvisioningSession",
    tag=TAG,
    summary="Read a session",
    description="Field staff are shown nothing of the customer, operators nothing in the customer's words.",
    action=Action.SESSION_READ,
    parameters=(SESSION,),
    answers={200: Answer("The session", _SESSION, ("ETag",))},
    refusals=_READ,
    own_check=True,
)
LIST_SESSION_DEVICES: Final = _reading(
    "listDevicesOfSession",
    SessionDeviceList,
    "List the devices of a session, each with its state and why",
    {"items": [_DEVICE], "others": 1},
    "What can do nothing for any program is counted in `others`, and nothing else is told of it. So is, for"
    " staff who do not work in it or once it is over, all that was sent nothing; a day later it is gone.",
)
WATCH_SESSION: Final = Operation(
    id="watchProvisioningSession",
    tag=TAG,
    summary="Follow a session, live",
    description="Server-sent events: `session` with the session, `device` with one of its devices, whenever"
    " one is not as it was told. Come back with `Last-Event-ID` to be told only what is different since.",
    action=Action.SESSION_READ,
    parameters=(
        SESSION,
        in_header("Last-Event-ID", "The `id` had last", {"type": "string"}, "5f0c1e8d2b7a4c3f9e6d1a20"),
    ),
    answers={200: Answer("Events without end", Content("text/event-stream", {"type": "string"}))},
    refusals=(*_READ, problems.TOO_MANY_STREAMS),
    own_check=True,
    stream=True,
)
LIST_OPTIONS: Final = _reading(
    "listOptionsOfSession",
    SessionOptionList,
    "List which device fits which program, with all that speaks against it",
    {"items": [{"device": _EUI64, "program": "cpp-27", "eligible": False, "reasons": ["TARIFF"]}]},
)
LIST_RECORDS: Final = _reading(
    "listRecordsOfSession",
    RecordList,
    "List what the customer care system is told of a session, and whether it has it",
    {
        "items": [
            {
                "key": f"{_ID}~t-1~registered",
                "kind": "han.device.registered",
                "made_at": _AT,
                "state": "delivered",
                "attempts": 1,
                "receipt": "r-1",
            }
        ]
    },
)
LIST_REMEDIES: Final = _reading(
    "listRemediesOfSession",
    RemedyList,
    "List what would help where nothing is recognised",
    {
        "items": [
            {
                "id": "new-meter",
                "kind": "new_meter",
                "available": True,
                "lead_days": 10,
                "why": "nothing at these premises connects a home area network",
                "price_minor": 9900,
                "currency": "EUR",
            }
        ]
    },
    "Field staff are told no prices.",
)
START_DISCOVERY: Final = _changing(
    "startDiscovery",
    Action.SESSION_WORK,
    "Open a join window and see what there is",
    problems.GATEWAY_CAPACITY,
    problems.WINDOW_OPEN,
    problems.INSTALL_CODE_CRC,
    problems.PIN_CHECKSUM,
    problems.CREDENTIAL_LOCKED,
    bodies=_json(
        DiscoveryBody,
        {"priority": "normal", "grants": [{"eui64": _EUI64, "proof": "install_code", "value": _CODE}]},
    ),
    status=202,
    description="The devices come one by one: follow `…/notices`. Without a gateway that has a HAN nothing is"
    " recognised, and `…/remedies` says what would help. A repeat under the same key is known by all but the"
    " codes.",
)
STOP_DISCOVERY: Final = _changing(
    "stopDiscovery",
    Action.SESSION_WORK,
    "Close the join window now",
    problems.WINDOW_CLOSED,
    status=202,
)
ADD_GRANT: Final = _changing(
    "addGrant",
    Action.SESSION_WORK,
    "Let one more device in while the window is open",
    problems.WINDOW_CLOSED,
    problems.GATEWAY_CAPACITY,
    problems.INSTALL_CODE_CRC,
    problems.PIN_CHECKSUM,
    problems.CREDENTIAL_LOCKED,
    bodies=_json(GrantBody, {"eui64": _EUI64, "proof": "install_code", "value": _CODE}),
    status=202,
)
SELECT_DEVICES: Final = _changing(
    "selectDevices",
    Action.SESSION_WORK,
    "Note which devices shall take part, and what they are called",
    problems.AUTH_NOT_OK,
    bodies=_json(
        SelectionBody,
        {"devices": [{"device": _EUI64, "take_part": True, "name": "Hall", "location": "hall"}]},
    ),
    description="Needs no consent, and may be changed until it is sent.",
)
RECORD_CONSENT: Final = _changing(
    "recordConsent",
    Action.CONSENT_GIVE,
    "Record what the customer says yes to",
    problems.VERIFICATION_MISSING,
    bodies=_json(
        SessionConsentBody,
        {
            "given_by": "cust-0007",
            "relation": "holder",
            "channel": "phone",
            "for": [{"device": _EUI64, "program": "cpp-27", "text_version": "1"}],
        },
    ),
    description="One record for each device and program, at any time before it is sent.",
)
CHOOSE_PROGRAMS: Final = _changing(
    "chooseProgramsOfSession",
    Action.SESSION_WORK,
    "Choose programs for devices",
    problems.AUTH_NOT_OK,
    problems.INELIGIBLE,
    problems.EXCLUSIVE_PROGRAMS,
    bodies=_json(ProgramsBody, {"assignments": [{"device": _EUI64, "program": "cpp-27"}]}),
    description="Where one pair does not fit, all bad ones are told and nothing is kept.",
)
RENEW_VERIFICATION: Final = _changing(
    "renewVerification",
    Action.SESSION_WORK,
    "Go on under another verification, days later",
    problems.VERIFICATION_MISSING,
    bodies=_json(VerificationOfSessionBody, {"verification": "vf-abcdefghij234567abcdefgh"}),
)
PROVISION: Final = _changing(
    "provision",
    Action.SESSION_WORK,
    "Register the devices and send them their programs",
    problems.CONSENT_MISSING,
    problems.NOTHING_TO_RETRY,
    status=202,
    description="Each device acknowledges twice: activated, ready. One that is away is late, not failed.",
)
RETRY: Final = _changing(
    "retryProvisioning",
    Action.SESSION_WORK,
    "Try again what failed or is late",
    problems.NOTHING_TO_RETRY,
    bodies=_json(RetryBody, {"devices": [_EUI64]}),
    status=202,
)
ACCEPT_PARTIAL: Final = _changing(
    "acceptPartial",
    Action.SESSION_CONFIRM,
    "Let those devices that are ready be all, for now",
)
CONFIRM: Final = _changing(
    "confirmProvisioning",
    Action.SESSION_CONFIRM,
    "Say that the customer was told",
    problems.NOT_RECORDED,
    bodies=_json(ConfirmBody, {"method": "phone"}),
    description="The session ends, and the customer is notified.",
)
ABORT: Final = _changing(
    "abortProvisioning",
    Action.SESSION_ABORT,
    "End a session before its time",
    bodies=_json(AbortBody, {"reason": "the customer will call again"}),
    description="What is ready stays, and is recorded.",
)
TELL_REMEDIES: Final = _changing(
    "tellRemedies",
    Action.SESSION_CONFIRM,
    "Record that the customer was told what would help, and what they said",
    problems.REMEDY_NOT_OFFERED,
    bodies=_json(RemedyNoticeBody, {"remedies": ["new-meter"], "answer": "accepted", "chosen": "new-meter"}),
    description="Kept with the prices of today. `undecided`: the session waits.",
)
REMEDY_DONE: Final = _changing(
    "remedyDone",
    Action.SESSION_WORK,
    "Say that a remedy is in place",
    problems.REMEDY_NOT_OFFERED,
    bodies=_json(RemedyDoneBody, {"remedy": "new-meter", "evidence": "photo of the meter"}),
    description="By itself it goes on when the meter is exchanged or the bridge comes online.",
)
