"""A device's firmware: what it runs, what it was asked to take, what was done on site, what it was before."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from api import problems
from api.desk import path_thing
from api.gate import Gate, unseen_before_ms
from api.logins import json_body, read
from api.operations import IDEMPOTENCY_KEY, NAME, THING, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.reading import HttpRequest, idempotency_key, ms_of, query, rfc3339, via_of
from api.replies import PiecesReply, Reply, json_reply
from api.schemas import Name, Sha256, Time
from api.services import ApiServices
from infra.clock import MS_PER_S
from ota import bundle as bundles
from ota import reports
from ota.campaign_ports import ReleaseView
from ota.installed import Installed, Result
from ota.manifest import version_text
from ota.models import FIRMWARE, NEVER, Execution, job_id
from ota.needs import Reason
from ota.reports import Report
from ota.snapshot import Snapshot, Why, derived_id
from ota.snapshots import RESTORABLE, SnapshotNotFoundError
from ota.states import ExecutionState
from security.policy import Action, Principal
from shadow.document import ShadowId
from shadow.errors import NoShadowError

SNAPSHOT: Final = "snapshot"
CAMPAIGN: Final = "campaign"
EXECUTIONS_SHOWN_MAX: Final = 50
KEY_BITS: Final = 120

Instant = Annotated[datetime, Meta(tz=True)]


class RunningDocument(Struct, omit_defaults=True):
    """What a device says of its firmware: the fact, where a job is only the order."""

    sha256: str = ""
    version: str = ""
    label: str = ""
    counter: int = 0
    confirmed: bool = False
    healthy: bool = False
    hw: Annotated[str, Meta(description="Its hardware class")] = ""
    schema: Annotated[int, Meta(description="Of its configuration")] = 0
    slot: str = ""
    boot: int = 0
    status: Annotated[int, Meta(description="File status of IEEE 2030.5; 1 is loading, 8 activated")] = 0
    percent: int = 0

    @classmethod
    def of(cls, report: Report) -> "RunningDocument":
        return cls(
            report.sha256,
            report.version,
            report.label,
            report.counter,
            report.confirmed,
            report.healthy,
            report.hw,
            report.schema,
            report.slot,
            report.boot,
            report.status,
            report.percent,
        )


class JobDocument(Struct, omit_defaults=True):
    """What became of one campaign at this device."""

    job: str
    campaign: str
    state: ExecutionState
    attempt: int
    queued_at: Time | None = None
    started_at: Time | None = None
    go_at: Time | None = None
    ended_at: Time | None = None
    reason: str = ""
    how: Annotated[str, Meta(description="`late`, `on_site`, `elsewhere`; absent: by this job")] = ""
    late: bool = False
    snapshot: str = ""

    @classmethod
    def of(cls, execution: Execution) -> "JobDocument":
        return cls(
            execution.job,
            execution.campaign,
            execution.state,
            execution.attempt,
            _time(execution.queued_at_ms),
            _time(execution.started_at_ms),
            _time(execution.go_at_ms),
            _time(execution.ended_at_ms),
            execution.reason,
            execution.how,
            execution.late,
            execution.snapshot,
        )


class InstalledBody(Struct, forbid_unknown_fields=True):
    """One installation on site, as a field tool tells of it; the times are of its own clock."""

    order: Annotated[Sha256, Meta(description="SHA-256 of the utility's order")]
    manifest: Annotated[Sha256, Meta(description="SHA-256 of the vendor's manifest")]
    sha256: Annotated[Sha256, Meta(description="Of the image")]
    started_at: Instant
    finished_at: Instant
    result: Result
    operator: Annotated[str, Meta(min_length=1, max_length=128)]

    def of_thing(self, thing: str) -> Installed:
        return Installed(
            thing=thing,
            order=self.order,
            manifest=self.manifest,
            sha256=self.sha256,
            started_at=ms_of(self.started_at) // MS_PER_S,
            finished_at=ms_of(self.finished_at) // MS_PER_S,
            result=self.result,
            operator=self.operator,
        )


class InstalledDocument(Struct):
    """What we were told of an installation on site."""

    order: str
    manifest: str
    sha256: str
    started_at: Annotated[Time, Meta(description="By the field tool's clock")]
    finished_at: Annotated[Time, Meta(description="By the field tool's clock")]
    result: Result
    operator: str
    noted_at: Annotated[Time, Meta(description="By our clock")]

    @classmethod
    def of(cls, note: Installed) -> "InstalledDocument":
        return cls(
            note.order,
            note.manifest,
            note.sha256,
            rfc3339(note.started_at * MS_PER_S),
            rfc3339(note.finished_at * MS_PER_S),
            note.result,
            note.operator,
            rfc3339(note.noted_at_ms),
        )


class ReleasedDocument(Struct, omit_defaults=True):
    """A release of the device's model."""

    release: str
    label: str
    version: str
    counter: int
    reason: Annotated[str, Meta(description="Why the device does not need it; absent: it needs it")] = ""

    @classmethod
    def of(cls, view: ReleaseView, reason: Reason | None) -> "ReleasedDocument":
        said = view.manifest
        return cls(view.id, said.label, version_text(said.version), said.counter, reason or "")


class FirmwareDocument(Struct):
    """All that is known of a device's firmware."""

    thing: str
    reported: RunningDocument
    needs: Annotated[list[ReleasedDocument], Meta(description="What is released for it, the newest first")]
    executions: Annotated[list[JobDocument], Meta(description="The newest first")]
    installed: Annotated[list[InstalledDocument], Meta(description="On site, the newest first")]


class SnapshotDocument(Struct, omit_defaults=True):
    """A device as it was. ``versions`` are those of its shadows, the classic one under ``classic``."""

    id: str
    at: Time
    why: Why
    by: str
    versions: dict[str, int]
    job: str = ""
    model: str = ""
    schema: int = 0

    @classmethod
    def of(cls, snapshot: Snapshot) -> "SnapshotDocument":
        return cls(
            snapshot.id,
            rfc3339(snapshot.at_ms),
            snapshot.why,
            snapshot.by,
            {name or "classic": copy.version for name, copy in sorted(snapshot.shadows.items())},
            snapshot.job,
            snapshot.model,
            snapshot.schema,
        )


class SnapshotList(Struct):
    """The last few of a device, the newest first."""

    items: list[SnapshotDocument]


class GiveBackBody(Struct, forbid_unknown_fields=True):
    """To which device a snapshot is given back, and what of it."""

    parts: Annotated[list[Literal["classic", "config"]], Meta(min_length=1, max_length=len(RESTORABLE))]
    to: Annotated[Name, Meta(description="Its successor; default: the device itself")] | None = None


class RestoredDocument(Struct):
    """What was given back, as JSON pointers below the parts, and what the device there does not know."""

    written: tuple[str, ...]
    dropped: tuple[str, ...]


class Firmware:
    """Handlers of what concerns the firmware of one thing."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._lane = services.ota.lane
        self._snapshots = services.ota.snapshots
        self._installed = services.ota.installed
        self._needs = services.ota.needs
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/things/{thing:str}"
        restore = f"{one}/snapshots/{{{SNAPSHOT}:str}}/restore"
        return (
            Route("GET", f"{one}/firmware", GET_FIRMWARE, self.read),
            Route("PUT", f"{one}/installed", PUT_INSTALLED, self.note),
            Route("GET", f"{one}/snapshots", LIST_SNAPSHOTS, self.list),
            Route("POST", f"{one}/snapshots", TAKE_SNAPSHOT, self.take),
            Route("POST", restore, RESTORE_SNAPSHOT, self.restore),
            Route("GET", f"/v1/ota/campaigns/{{{CAMPAIGN}:str}}/bundle", GET_BUNDLE, self.bundle),
        )

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        thing, since_ms = path_thing(request.scope), _since_ms(request)
        page = await self._lane.of_thing(thing, EXECUTIONS_SHOWN_MAX)
        mine = [one for one in page.executions if one.updated_at_ms >= since_ms]
        mine.sort(key=lambda one: one.updated_at_ms, reverse=True)
        notes = [one for one in await self._installed.of_thing(thing) if one.noted_at_ms >= since_ms]
        return json_reply(
            FirmwareDocument(
                thing,
                RunningDocument.of(await self._reported(thing)),
                [ReleasedDocument.of(*one) for one in await self._needs.of_thing(thing)],
                [JobDocument.of(one) for one in mine],
                [InstalledDocument.of(one) for one in notes],
            )
        )

    async def note(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, InstalledBody)
        note = body.of_thing(path_thing(request.scope))
        kept = await self._installed.note(note, request.scope["user"], via_of(request.scope))
        return json_reply(InstalledDocument.of(kept))

    async def list(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        since_ms = _since_ms(request)
        found = await self._snapshots.of_thing(path_thing(request.scope))
        return json_reply(SnapshotList([SnapshotDocument.of(one) for one in found if one.at_ms >= since_ms]))

    async def take(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        by: Principal = request.scope["user"]
        thing = path_thing(request.scope)
        await self._services.registry.thing(thing)
        key = idempotency_key(request.scope) or self._services.ids.token(KEY_BITS)
        id = derived_id("person", by.name, thing, key)
        return json_reply(
            SnapshotDocument.of(await self._snapshots.take(thing, id, by, via_of(request.scope))), status=201
        )

    async def restore(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, GiveBackBody)
        by: Principal = request.scope["user"]
        thing, id = path_thing(request.scope), request.scope["path_params"][SNAPSHOT]
        to = thing if body.to is None else body.to
        target = await self._gate.require_thing(by, Action.SHADOW_DESIRE, thing)
        await self._gate.require_thing(by, Action.SHADOW_DESIRE, to)
        if (await self._snapshots.snapshot(thing, id)).at_ms < unseen_before_ms(by, target):
            raise SnapshotNotFoundError(thing, id)
        done = await self._snapshots.restore(thing, id, to, body.parts, by, via_of(request.scope))
        return json_reply(RestoredDocument(done.written, done.dropped))

    async def bundle(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        campaign = request.scope["path_params"][CAMPAIGN]
        bundle = await self._services.ota.packing.bundle(campaign)
        name = b'attachment; filename="%s.bundle"' % job_id(campaign).encode()
        fields = [
            (b"content-type", bundles.MEDIA.encode()),
            (b"content-length", b"%d" % bundles.size(bundle)),
            (b"content-disposition", name),
            (b"cache-control", b"no-store"),
        ]
        return PiecesReply(200, fields, bundles.write(bundle), self._services.limits.send_timeout_s)

    async def _reported(self, thing: str) -> Report:
        try:
            shadow = await self._services.shadows.view(ShadowId(thing, FIRMWARE))
        except NoShadowError:
            return reports.NOTHING
        return reports.read(shadow.reported.state)


def _since_ms(request: HttpRequest) -> int:
    """Return the time before which the past of the thing is not the caller's to see."""
    return unseen_before_ms(request.scope["user"], request.scope["state"]["target"])


def _time(ms: int) -> Time | None:
    return None if ms == NEVER else rfc3339(ms)


TAG: Final = "Firmware"
_ID: Final = "s-5a4cf26a6d0cc6a1c23f"
_HASH: Final = "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd"
_JOB: Final = "c-6f1c7a520d5e4c5b9d1e2f8f6a1b3c4d"
_NOTE: Final[dict[str, Any]] = {
    "order": "6391ef19445f1c5b78c0f74378642666e71c5eed67cf319f8bddade548b0eb88",
    "manifest": "5a4cf26a6d0cc6a1c23fde15563d431104e99c26a2682948a882313332a205ca",
    "sha256": _HASH,
    "started_at": "2026-09-21T12:00:00Z",
    "finished_at": "2026-09-21T12:03:20Z",
    "result": "SUCCEEDED",
    "operator": "ines",
}
_NOTED: Final = _NOTE | {
    "started_at": "2026-09-21T12:00:00.000Z",
    "finished_at": "2026-09-21T12:03:20.000Z",
    "noted_at": "2026-09-22T07:30:00.000Z",
}
_SNAPSHOT: Final[dict[str, Any]] = {
    "id": _ID,
    "at": "2026-09-21T12:02:00.000Z",
    "why": "gate",
    "by": "firmware",
    "job": _JOB,
    "model": "acme-pct-2",
    "schema": 5,
    "versions": {"classic": 41, "config": 3, "firmware": 12, "program": 7},
}
_SNAPSHOT_CONTENT: Final = Content("application/json", SnapshotDocument, _SNAPSHOT)
_BODY: Final = (*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.THING_NOT_FOUND)

GET_FIRMWARE: Final = Operation(
    id="getFirmware",
    tag=TAG,
    summary="See what firmware a device runs, and how it came there",
    description="`reported` is the device's own word, `needs` what is released for it; jobs are what it was"
    " asked to do.",
    action=Action.SHADOW_READ,
    parameters=(THING,),
    answers={
        200: Answer(
            "Its firmware",
            Content(
                "application/json",
                FirmwareDocument,
                {
                    "thing": "hall-thermostat",
                    "reported": {"sha256": _HASH, "version": "2.4.0.0", "healthy": True, "schema": 5},
                    "needs": [
                        {
                            "release": "0b7a3c1e-6f52-4a0e-8b1d-9c2f5d7e1a34",
                            "label": "2.5.0",
                            "version": "2.5.0.0",
                            "counter": 3,
                        }
                    ],
                    "executions": [
                        {
                            "job": _JOB,
                            "campaign": "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d",
                            "state": "SUCCEEDED",
                            "attempt": 1,
                            "snapshot": _ID,
                        }
                    ],
                    "installed": [_NOTED],
                },
            ),
        )
    },
    refusals=(problems.THING_NOT_FOUND,),
)
PUT_INSTALLED: Final = Operation(
    id="putInstalled",
    tag=TAG,
    summary="Tell of an installation on site, however late",
    description="It annotates: the device's own report closes what is open. The same installation (`order`"
    " and `started_at`) told again is no error; told differently it is refused.",
    action=Action.JOB_EXECUTE,
    parameters=(THING,),
    bodies=json_body(InstalledBody, _NOTE),
    answers={200: Answer("As it is kept", Content("application/json", InstalledDocument, _NOTED))},
    refusals=(*_BODY, problems.INSTALLATION_TOLD, problems.INSTALLATIONS_FULL),
)
LIST_SNAPSHOTS: Final = Operation(
    id="listSnapshots",
    tag=TAG,
    summary="List what a device was before it was changed",
    description="The last five, for 400 days; none outlives the stay of the customer whose data it holds.",
    action=Action.SHADOW_HISTORY,
    parameters=(THING,),
    answers={200: Answer("Its snapshots", Content("application/json", SnapshotList, {"items": [_SNAPSHOT]}))},
    refusals=(problems.THING_NOT_FOUND,),
)
TAKE_SNAPSHOT: Final = Operation(
    id="takeSnapshot",
    tag=TAG,
    summary="Keep a device as it is now",
    action=Action.SHADOW_DESIRE,
    parameters=(THING, IDEMPOTENCY_KEY),
    answers={201: Answer("The snapshot", _SNAPSHOT_CONTENT)},
    refusals=(problems.THING_NOT_FOUND,),
)
RESTORE_SNAPSHOT: Final = Operation(
    id="restoreSnapshot",
    tag=TAG,
    summary="Desire of a device, or of its successor, what it had reported then",
    description="What the device there does not know is `dropped` and never guessed. A customer gives back"
    " `classic`; `config` is an operator's to give. Again is no error.",
    action=Action.SHADOW_DESIRE,
    parameters=(THING, in_path(SNAPSHOT, "Id of a snapshot", NAME, _ID)),
    bodies=json_body(GiveBackBody, {"parts": ["classic", "config"], "to": "hall-thermostat-2"}),
    answers={
        200: Answer(
            "What was written",
            Content(
                "application/json",
                RestoredDocument,
                {"written": ["/config/set/day"], "dropped": ["/config/lang"]},
            ),
        )
    },
    refusals=(
        *_BODY,
        problems.SNAPSHOT_NOT_FOUND,
        problems.NOT_ITS_SUCCESSOR,
        problems.VERSION_CONFLICT,
        problems.TOO_MANY_REQUESTS,
    ),
    own_check=True,
)
GET_BUNDLE: Final = Operation(
    id="getCampaignBundle",
    tag=TAG,
    summary="Fetch a campaign as one file, for a crew without a network",
    description="A CBOR array of byte strings: manifest, order, proofs, leaf list, image, and the list of"
    " signing keys of the moment (empty while there is none). Devices check it as they check everything;"
    " `gnomon field` serves it to them.",
    action=Action.CAMPAIGN_CREATE,
    parameters=(in_path(CAMPAIGN, "Id of a campaign", NAME, "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"),),
    answers={200: Answer("The file", Content(bundles.MEDIA, {"type": "string", "format": "binary"}))},
    refusals=(problems.BUNDLE_NOT_FOUND, problems.IMAGE_NOT_FOUND),
    own_check=True,
)
