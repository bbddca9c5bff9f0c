"""What is exchanged in the use case, by whom and at which step; what each message holds, its types say.

A row names where its message travels: an operation of the API, a part of a shadow, a record for the customer
care system, a call of a port. What is named and does not exist fails ``tests/unit/test_docs_exchange.py``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from api import est, images, pins, signing_keys
from api.openapi import resolve
from api.operations import Operation
from broker_bridge.topics import answer_base, jobs_base
from infra.lanes import OutboxItem
from ota import job_requests, key_list
from ota.job_requests import JobOperation
from ota.models import FIRMWARE, job_id
from ota.reports import Report
from programs import shadow as program
from programs.catalogue import builtin
from programs.models import Tariff
from programs.records import Enrolment
from programs.states import EnrolmentState
from provisioning import han, records
from provisioning.care import CustomerCare
from provisioning.session import Progress, Record, Session, SessionDevice, ToldRemedy
from provisioning.states import DeviceState, RemedyState, SessionState
from shadow.document import ShadowId, Tree

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "tests" / "vectors" / "openapi.json"
"""The API as its code describes it; a test holds the two together."""
PROTOCOL: Final = ROOT / "docs" / "protocol.md"
"""Shows a whole ``han`` document, and a ``program`` one."""

PROGRAM_ID: Final = "<program>"
TARIFF_ID: Final = "<tariff>"
EUI64: Final = "00124B0014B5D2A1"
THING: Final = "dev-7f3"
CAMPAIGN: Final = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
PLAIN: Final = b'{"status":"IN_PROGRESS"}'
"""The least that a device says of its job."""


class UnknownError(Exception):
    """A row names what does not exist."""


class Way(NamedTuple):
    """How a message travels, and what is in it."""

    by: str
    holds: str


# ---------------------------------------------------------------------------- REST


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(DOCUMENT.read_bytes())
    return found


def rest(id: str, *, answer: bool = False) -> Way:
    """Return an operation of the API with the fields of its body, or of its answer, or of both."""
    for path, item in _document()["paths"].items():
        for method, operation in item.items():
            if operation["operationId"] == id:
                return Way(f"`{method.upper()} {path}`", _both(operation, answer=answer))
    raise UnknownError(id)


def _both(operation: Mapping[str, Any], *, answer: bool) -> str:
    asked = _content(operation.get("requestBody", {}))
    answers = (
        resolve(_document(), one) for status, one in operation["responses"].items() if status[0] == "2"
    )
    told = next(map(_content, answers), "")
    return f"{asked} → {told}" if asked and answer else asked or told


def _content(part: Mapping[str, Any]) -> str:
    content = next(iter(part.get("content", {}).items()), None)
    if content is None:
        return ""
    media, schema = content[0], _resolved(content[1]["schema"])
    if media == "text/event-stream":
        return "the same, as it changes"
    items = schema.get("properties", {}).get("items")
    return _listed(_resolved(_resolved(items)["items"]) if items else schema)


def _listed(schema: Mapping[str, Any], *, within: bool = False) -> str:
    """Return the fields of a schema, those of objects within it in brackets."""
    return ", ".join(
        name if within else name + _inner(field) for name, field in schema.get("properties", {}).items()
    )


def _inner(field: Mapping[str, Any]) -> str:
    schema = _resolved(field)
    schema = _resolved(schema.get("items", schema) or {})
    fields = _listed(schema, within=True)
    return f" ({fields})" if fields else ""


def _resolved(part: Any) -> Mapping[str, Any]:  # noqa: ANN401 - `items` may be false
    if not isinstance(part, Mapping):
        return {}
    if "$ref" not in part:
        return part
    found: Mapping[str, Any] = _document()["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return found


def joining(path: str, operation: Operation) -> Way:
    """Return an operation of the devices' own listener."""
    types = [*operation.bodies, *(one.content for one in operation.answers.values() if one.content)]
    shown = [
        ", ".join(field.name for field in msgspec.structs.fields(one.schema))
        if isinstance(one.schema, type)
        else one.media
        for one in types
    ]
    return Way(f"`POST {path}`", " → ".join(shown))


def loaded(operation: Operation, path: str) -> Way:
    """Return what devices load from their own listener, as it is."""
    (media,) = {one.content.media for one in operation.answers.values() if one.content}
    return Way(
        f"`GET {path.replace(':str', '')}`", f"{media}: {operation.summary[0].lower()}{operation.summary[1:]}"
    )


# ---------------------------------------------------------------------------- shadows


def asked_of_han(part: str, patch: Tree) -> Way:
    """Return what is desired in a gateway's ``han`` shadow."""
    found = patch["desired"][part]
    return _shadow("gateway", han.SHADOW, f"desired.{part}", _names(found))


def told_by_han(*parts: str) -> Way:
    """Return what a gateway reports there: what the code reads of the report that its maker is shown."""
    reported = _shown("A gateway's home area network")["reported"]
    shown = [f"{part}: {_names(_kept(reported, part))}" if len(parts) > 1 else _names(_kept(reported, part))
             for part in parts]  # fmt: skip
    return _shadow("gateway", han.SHADOW, " ".join(f"reported.{part}" for part in parts), "; ".join(shown))


def _shown(heading: str) -> dict[str, Any]:
    """Return the document that a section of the page for makers shows."""
    text = PROTOCOL.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    found: dict[str, Any] = msgspec.json.decode(text.partition("```json\n")[2].partition("```")[0])
    return found


def _kept(reported: Tree, part: str) -> Tree:
    """Return the part without what makes no difference to us."""
    whole = reported.get(part, {})
    keyed = bool(whole) and all(isinstance(one, dict) for one in whole.values())
    entries = whole if keyed else {"": whole}

    def read(name: str, field: str) -> bool:
        less = {key: value for key, value in entries[name].items() if key != field}
        without = {name: less} if keyed else less
        return han.read({}, {part: without}) != han.read({}, {part: whole})

    kept = {
        name: {field: value for field, value in entry.items() if read(name, field)}
        for name, entry in entries.items()
    }
    if not any(kept.values()):
        raise UnknownError(f"han reported.{part}")
    return kept if keyed else kept[""]


def asked_by_program(part: str, *, fields: Iterable[str] = ()) -> Way:
    """Return what is desired in the ``program`` shadow of a device."""
    enrolment = Enrolment(
        id="", device=THING, program=PROGRAM_ID, account="", premises="", state=EnrolmentState.PROVISIONING,
        state_ms=0, since_ms=0, params={"": 0}, tariff=TARIFF_ID,
    )  # fmt: skip
    tariff = Tariff(TARIFF_ID, "tou/1", dict.fromkeys(fields))
    wanted = program.wanted([enrolment], {TARIFF_ID: tariff})
    ((name, entry),) = wanted[part].items()
    return _shadow("thing", program.SHADOW, f"desired.{part}.{name}", ", ".join(entry))


def shape(id: str) -> tuple[str, ...]:
    """Return the fields of a shape that comes with the system."""
    (found,) = (one for one in builtin().shapes if one.id == id)
    return tuple(found.schema["properties"])


def told_of_program(ack: str, *fields: str) -> Way:
    """Return an answer of a device there; ``fields`` are such as its maker is shown no example of."""
    said = {program.ACK: {PROGRAM_ID: {ack: {"rev": 1}}}}
    if program.answer(said, PROGRAM_ID, 1) == program.answer({}, PROGRAM_ID, 1):
        raise UnknownError(f"program reported.ack.{ack}")
    (shown,) = _shown("Programs that a device takes part in")["reported"][program.ACK].values()
    names = _names(shown.get(ack, shown["ready"]))
    where = f"reported.{program.ACK}.{PROGRAM_ID}.{ack}"
    return _shadow("thing", program.SHADOW, where, ", ".join([names, *fields]))


def told_of_job() -> Way:
    """Return what a device says of its job; the answer to it holds the offer where it asks for that."""
    said = {
        "status": "IN_PROGRESS",
        "statusDetails": {"fs": "5"},
        "expectedVersion": 2,
        "executionNumber": 1,
        "includeJobExecutionState": True,
        "includeJobDocument": True,
        "stepTimeoutInMinutes": 5,
        "clientToken": "t",
    }
    body = msgspec.json.encode(said)
    ask, plain = (job_requests.parse(JobOperation.UPDATE, job_id(CAMPAIGN), one) for one in (body, PLAIN))
    read = [one for one in type(plain).__slots__ if getattr(ask, one) != getattr(plain, one)]
    if len(read) != len(said):  # the status is the same in both, and the digest differs for it
        raise UnknownError(f"a job's update: {read}")
    return Way(f"`{jobs_base('<thing>')}/<job>`", ", ".join(said))


def told_of_firmware() -> Way:
    """Return what a device reports of the firmware it runs: all that the code reads of it."""
    return _shadow("thing", FIRMWARE, "reported", ", ".join(field.name for field in fields(Report)))


def classic(section: str) -> Way:
    """Return a device's own shadow."""
    return Way(
        f"`{answer_base(ShadowId('<thing>', ''))}` {section}", "what the model has: set point, mode, …"
    )


def _shadow(whose: str, name: str, where: str, holds: str) -> Way:
    parts = " ".join(f"`{one}`" for one in where.split())
    return Way(f"`{answer_base(ShadowId(f'<{whose}>', name))}` {parts}", holds)


def _names(tree: Tree) -> str:
    """Return the names of the fields; where entries have keys, those of one entry."""
    if tree and all(isinstance(one, dict) for one in tree.values()):
        return _names(next(iter(tree.values())))
    return ", ".join(tree)


# ---------------------------------------------------------------------------- other systems


def call(port: Callable[..., Any]) -> Way:
    """Return a call of a port."""
    taken = [name for name in inspect.signature(port).parameters if name != "self"]
    return Way(f"`{port.__qualname__}`", ", ".join(taken))


def told_to_care(*kinds: str) -> Way:
    """Return records for the customer care system, which reach it by the outbox."""
    samples = {one.kind: msgspec.json.decode(one.body) for one in _samples()}
    shown = [f"`{kind}`" + (f": {', '.join(samples[kind])}" if kind in samples else "") for kind in kinds]
    return Way(f"outbox → `{CustomerCare.deliver.__qualname__}`", "; ".join(shown))


def outbox() -> Way:
    """Return what an item of the outbox has besides its body."""
    told = [name for name in OutboxItem.__slots__ if name in ("key", "lane", "seq", "kind", "made_at_ms")]
    return Way("each of these with", ", ".join([*told, "idempotency_key"]))


def _samples() -> tuple[Record, ...]:
    """Return one record of each kind that a session makes."""
    device = SessionDevice(
        eui64=EUI64, state=DeviceState.READY, thing=THING, lfdi="0", programs={PROGRAM_ID: {}},
        progress={PROGRAM_ID: Progress("", 1)},
    )  # fmt: skip
    session = Session(
        id="", premises="", account="", state=SessionState.PROVISIONING, opened_by="", opened_at_ms=0,
        devices={EUI64: device},
    )  # fmt: skip
    remedy = ToldRemedy("", "", 0, "", 0, RemedyState.OFFERED)
    return (
        *records.of_part(session, 0),
        *records.of_confirmation(session, {}, 0),
        *records.of_remedy(session, remedy, 0),
    )


# ---------------------------------------------------------------------------- the rows


@dataclass(frozen=True, slots=True)
class Exchange:
    """A row: what goes from whom to whom, and how. Without a way it is planned."""

    id: str
    step: str
    message: str
    ends: str
    ways: tuple[Way, ...] = ()


def exchanges() -> tuple[Exchange, ...]:
    """Return all rows; raise :class:`UnknownError` for what does not exist."""
    return (
        Exchange("X1", "3.2/5", "customer search", "Tool → customer care",
                 (rest("searchCustomers", answer=True), call(CustomerCare.search))),
        Exchange("X2", "3.2/5", "verification record", "Representative → registry",
                 (rest("createVerification", answer=True),)),
        Exchange("X3", "3.2/6", "work order, open session",
                 "Operator, customer care → Installer; Representative, Installer, Customer → Tool",
                 (rest("createWorkOrder"), rest("openProvisioningSession"))),
        Exchange("X4", "3.2/7", "permit join", "Tool → gateway",
                 (rest("startDiscovery"), asked_of_han("permitJoin", han.open_window(1, 1, "grants")))),
        Exchange("X5", "3.2/7", "join grant", "Tool, Trust Center → gateway",
                 (rest("addGrant"), asked_of_han("grants", han.grant(EUI64, "", "", "", 1)))),
        Exchange("X6", "3.2/7", "HAN state, capacity, window", "gateway → Tool",
                 (told_by_han("net", "capacity", "permitJoin"),)),
        Exchange("X7", "3.2/7", "device seen", "gateway → Tool", (told_by_han("seen"),)),
        Exchange("X8", "3.2/7", "identity of a device with IP", "device ⇄ Trust Center",
                 (joining(f"{est.BASE}/simpleenroll", est.SIMPLE_ENROLL),
                  joining(f"{est.BASE}/simplereenroll", est.SIMPLE_REENROLL),
                  joining(pins.PATH, pins.PROVE_PIN))),
        Exchange("X9", "3.2/7", "attach, detach, active route", "Tool ⇄ gateway",
                 (asked_of_han("attach", han.attach(THING, EUI64, 1, active=True)), told_by_han("attach"))),
        Exchange("X10", "3.2/7", "device description", "gateway, catalogue → registry",
                 (told_by_han("seen"), rest("putModel"))),
        Exchange("X11", "3.2/7-8", "device list, live", "Tool → Representative",
                 (rest("listDevicesOfSession"), rest("watchProvisioningSession"))),
        Exchange("X12", "3.2/8-10", "selection, consent",
                 "Representative, Installer → Tool; Representative, Customer → Tool",
                 (rest("selectDevices"), rest("recordConsent"))),
        Exchange("X13", "3.2/11", "options, choice", "Tool ⇄ Representative",
                 (rest("listOptionsOfSession"), rest("chooseProgramsOfSession"))),
        Exchange("X14", "3.2/12", "program provisioning and initiation", "programs → device",
                 (asked_by_program("enrolments"),)),
        Exchange("X15", "3.2/12", "tariff", "programs → device, display",
                 (rest("putTariff"), asked_by_program("tariffs", fields=shape("tou/1")))),
        Exchange("X16", "3.2/13", "activation ack", "device → Tool", (told_of_program("activated"),)),
        Exchange("X17", "3.2/13", "readiness ack", "device → Tool",
                 (told_of_program("ready"), told_of_program("failed", "code"))),
        Exchange("X18", "3.2/14", "provisioning record", "Tool → customer care",
                 (told_to_care(records.REGISTERED, records.ENROLMENT_CHANGED, records.PARTIAL), outbox(),
                  rest("listRecordsOfSession"))),
        Exchange("X19", "3.2/15", "confirmation, notice", "Representative → Tool; Tool → Customer",
                 (rest("confirmProvisioning"), told_to_care(records.NOTIFY))),
        Exchange("X20", "3.3/6.1", "not recognised, remedies", "Tool → Representative",
                 (rest("getProvisioningSession"), rest("listRemediesOfSession"))),
        Exchange("X21", "3.3/6.2", "remedy notice", "Representative → Tool; Tool → customer care",
                 (rest("tellRemedies"), told_to_care(records.REMEDY_ORDERED))),
        Exchange("X22", "3.3/6.3", "meter exchanged, bridge on line",
                 "field, customer care → registry; gateway → registry",
                 (rest("exchangeMeter"), rest("remedyDone"), told_by_han("net"),
                  told_to_care(records.METER_EXCHANGED))),
        Exchange("X23", "end", "leave, move out, detach", "Customer, customer care → programs → device",
                 (rest("leaveProgram"), rest("moveOut"), rest("clearGateway"),
                  asked_of_han("attach", han.detach(THING)), told_to_care(records.DEVICE_REMOVED))),
        Exchange("X24", "any", "customer's own control", "Customer ⇄ device",
                 (classic("`desired` and `reported`"), rest("patchShadow"))),
        Exchange("X25", "any", "presence", "broker, gateway → registry",
                 (Way("the broker's log", "thing, connected"), told_by_han("attach"))),
        Exchange("X26", "events", "price", "programs → display, thermostat, energy management"),
        Exchange("X27", "events", "load control", "programs → thermostat, switch"),
        Exchange("X28", "events", "capacity", "programs → energy management, charger, gateway"),
        Exchange("X29", "events", "text, alert", "programs → display"),
        Exchange("X30", "events", "cancel, supersede", "programs → device"),
        Exchange("X31", "events", "participation", "device → programs"),
        Exchange("X32", "events", "opt-out, opt-in", "Customer → programs"),
        Exchange("X33", "events", "shed availability, readings", "device, meter data system → programs"),
        Exchange("X34", "events", "OpenADR program, event, VEN, resource, report",
                 "other utility systems, VENs ⇄ programs"),
        Exchange("X35", "events", "OpenADR notification", "programs → VEN"),
        Exchange("X36", "1/4", "image, manifest", "vendor → ota",
                 (rest("putImage"), rest("createRelease"))),
        Exchange("X37", "1/4", "campaign, signed order", "operator → ota",
                 (rest("createCampaign"), rest("approveCampaign"))),
        Exchange("X38", "1/4", "offer, state of upgrade", "ota ⇄ device", (told_of_job(),)),
        Exchange("X39", "1/4", "image blocks, key list", "ota → device",
                 (loaded(images.GET_OWN_IMAGE, images.PATH),
                  loaded(signing_keys.GET_KEY_LIST, key_list.PATH))),
        Exchange("X40", "1/7", "firmware state", "device → ota", (told_of_firmware(),)),
        Exchange("X41", "1/5", "configuration snapshot, restore", "ota → store → successor",
                 (rest("listSnapshots"), rest("restoreSnapshot", answer=True))),
        Exchange("X42", "3.1", "on-site upgrade", "field tool → device → ota", (rest("putInstalled"),)),
        Exchange("X43", "any", "audit", "every privileged act → audit", (rest("listAuditEntries"),)),
    )  # fmt: skip
