"""Changes to what is in: a meter or a device is exchanged, a customer moves out, a gateway is cleared.

Each is begun by a request and seen through afterwards; ``/v1/moves/{move}`` says how far it is.
(spec: han, 7)
"""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from api import problems
from api.asks import ask
from api.devices import device_id
from api.gate import DEVICE, PREMISES, Gate, OutOfReachError
from api.meters import METER, NOWHERE
from api.operations import (
    GATEWAY,
    IDEMPOTENCY_KEY,
    NAME,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_path,
)
from api.problems import DEVICE_NOT_FOUND, FORBIDDEN, METER_NOT_FOUND, MOVE_NOT_FOUND, ApiError
from api.reading import HttpRequest, T, decode, invalid, ms_of, query, read_body, require_json, rfc3339
from api.replies import Reply, json_reply, no_content
from api.schemas import Name, Time
from api.services import ApiServices
from provisioning.asking import Ask
from provisioning.moves import Move, MoveKind, MoveNotFoundError, MoveState
from registry.errors import MeterNotFoundError
from registry.meters import Meter
from security.policy import Action, Principal, Target, may

MOVE: Final = "move"
AWAY_MS_MAX: Final = 400 * 86_400_000

Instant = Annotated[datetime, Meta(tz=True)]


class ExchangeBody(Struct, forbid_unknown_fields=True):
    """Which meter came in the place of another, and when."""

    new_meter: Annotated[Name, Meta(description="Known already, at the same premises")]
    at: Annotated[Instant | None, Meta(description="Default: now")] = None
    work_order: Annotated[str, Meta(max_length=64)] = ""


class ReplacementBody(Struct, forbid_unknown_fields=True):
    """Which device takes the place of another: one that has proved itself, at the same premises."""

    new_device: Name


class MoveOutBody(Struct, forbid_unknown_fields=True):
    """Who leaves premises, and when."""

    account: Name
    at: Annotated[Instant | None, Meta(description="Default: now")] = None


class ClearBody(Struct, forbid_unknown_fields=True):
    """What is to be taken away from a gateway."""

    scope: Literal["one", "all"]
    thing: Annotated[str, Meta(pattern="^[a-zA-Z0-9:_-]{0,128}$", description="Which, with `one`")] = ""
    confirm: Annotated[
        str, Meta(max_length=128, description="With `all`: the name of the gateway once more.")
    ] = ""


class MoveDocument(Struct, omit_defaults=True):
    """A change and how far it is."""

    id: str
    kind: MoveKind
    state: MoveState
    premises: str
    made_at: Time
    at: Time
    old: Annotated[str, Meta(description="The meter or device that goes")] = ""
    new: Annotated[str, Meta(description="The one that comes")] = ""
    devices: Annotated[int, Meta(description="How many go along")] = 0
    missing: Annotated[tuple[str, ...], Meta(description="What has not come along (yet)")] = ()

    @classmethod
    def of(cls, move: Move) -> "MoveDocument":
        # Who moves out is for the customer care system to know.
        leaves = move.kind is MoveKind.MOVE_OUT
        return cls(
            move.id,
            move.kind,
            move.state,
            move.premises,
            rfc3339(move.made_at_ms),
            rfc3339(move.at_ms),
            "" if leaves else move.old,
            "" if leaves else move.new,
            len(move.things),
            move.missing,
        )


class MoveRoutes:
    """Handlers of exchanges, replacements, move-outs and clearing."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._moves = services.provisioning.moves
        self._meters = services.meters
        self._devices = services.devices
        self._registry = services.registry
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/meters/{meter:str}/exchange", EXCHANGE_METER, self.exchange),
            Route("POST", "/v1/devices/{device:str}/replacement", REPLACE_DEVICE, self.replace),
            Route("POST", "/v1/premises/{premises:str}/move-out", MOVE_OUT, self.move_out),
            Route("POST", "/v1/gateways/{gateway:str}/clear", CLEAR_GATEWAY, self.clear),
            Route("GET", "/v1/moves/{move:str}", GET_MOVE, self.read),
        )

    async def exchange(self, request: HttpRequest) -> Reply:
        body, by = await self._asked(request, ExchangeBody)
        old = await self._meter(request)
        new = await self._meters.meter(body.new_meter)
        if new.premises != old.premises:
            raise MeterNotFoundError(body.new_meter)
        at_ms = self._at_ms(body.at)
        return _begun(await self._moves.exchange(old.id, new, at_ms, body.work_order, by))

    async def replace(self, request: HttpRequest) -> Reply:
        body, by = await self._asked(request, ReplacementBody)
        target = (await self._devices.targets([body.new_device])).get(body.new_device)
        if target is None or not may(by.by, Action.SESSION_WORK, target):
            raise OutOfReachError(DEVICE_NOT_FOUND)
        return _begun(await self._moves.replace(device_id(request), body.new_device, by))

    async def move_out(self, request: HttpRequest) -> Reply:
        body, by = await self._asked(request, MoveOutBody)
        premises: str = request.scope["path_params"][PREMISES]
        return _begun(await self._moves.move_out(premises, body.account, self._at_ms(body.at), by))

    async def clear(self, request: HttpRequest) -> Reply:
        body, by = await self._asked(request, ClearBody)
        gateway: str = request.scope["path_params"]["gateway"]
        things = [] if body.scope == "all" else [body.thing]
        for thing in things:
            await self._gate.require_thing(by.by, Action.HAN_CLEAR, thing)
        await self._moves.clear(gateway, things, by, confirmed=body.confirm == gateway)
        return no_content()

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        by: Principal = request.scope["user"]
        try:
            move = await self._moves.move(request.scope["path_params"][MOVE])
        except MoveNotFoundError:
            move = None
        target = await self._registry.place(NOWHERE if move is None else move.premises)
        if move is not None and move.made_at_ms < target.since_ms:
            target = replace(target, account="")
        if move is None or not may(by, Action.MOVE_READ, target):
            raise OutOfReachError(MOVE_NOT_FOUND)
        return json_reply(MoveDocument.of(move))

    async def _meter(self, request: HttpRequest) -> Meter:
        """Return the meter in the path; raise unless the caller may exchange it."""
        by: Principal = request.scope["user"]
        try:
            meter = await self._meters.meter(request.scope["path_params"][METER])
        except MeterNotFoundError:
            meter = None
        place = await self._registry.place(NOWHERE if meter is None else meter.premises)
        target: Target = replace(place, enrolled=True)  # a meter is the utility's
        if meter is None or not may(by, Action.METER_READ, target):
            raise OutOfReachError(METER_NOT_FOUND)
        if not may(by, Action.METER_EXCHANGE, target):
            raise ApiError(FORBIDDEN)
        return meter

    def _at_ms(self, at: datetime | None) -> int:
        """Return when it is to be; a slip of the pen is not kept as a year that nobody meant."""
        now_ms = self._services.clock.now_ms()
        at_ms = now_ms if at is None else ms_of(at)
        if abs(at_ms - now_ms) > AWAY_MS_MAX:
            raise invalid("at: within 400 days from now")
        return at_ms

    async def _asked(self, request: HttpRequest, type: type[T]) -> tuple[T, Ask]:
        query(request.scope, ())
        require_json(request.scope)
        limits = self._services.limits
        sent = await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        return decode(sent, type), ask(request, self._services.ids, sent)


def _begun(move: Move) -> Reply:
    return json_reply(
        MoveDocument.of(move), status=202, fields=((b"location", f"/v1/moves/{move.id}".encode()),)
    )


TAG: Final = "Moves"
_ID: Final = "mx-abcdefghij234567abcdefgh"
_EXAMPLE: Final = {
    "id": _ID,
    "kind": "exchange",
    "state": "working",
    "premises": "home-7",
    "made_at": "2026-09-21T12:00:00.000Z",
    "at": "2026-09-21T11:30:00.000Z",
    "old": "meter-7",
    "new": "meter-8",
    "devices": 2,
}
_MOVE: Final = Content("application/json", MoveDocument, _EXAMPLE)
_BEGUN: Final = {202: Answer("It is begun, and will be seen through", _MOVE, ("Location",))}
_BODY: Final = (*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.IDEMPOTENCY_MISMATCH)

EXCHANGE_METER: Final = Operation(
    id="exchangeMeter",
    tag=TAG,
    summary="Put a meter in the place of another",
    description="The devices of the old one go to the new one's gateway with their keys; what they take part"
    " in stays. The old gateway has no rights from then on.",
    action=Action.METER_EXCHANGE,
    parameters=(in_path(METER, "Id of the meter that goes", NAME, "meter-7"), IDEMPOTENCY_KEY),
    bodies=(Content("application/json", ExchangeBody, {"new_meter": "meter-8", "work_order": "wo-1"}),),
    answers=_BEGUN,
    refusals=(
        *_BODY,
        problems.METER_NOT_FOUND,
        problems.GATEWAY_NOT_FOUND,
        problems.METER_EXCHANGED,
        problems.METER_ELSEWHERE,
        problems.GATEWAY_CAPACITY,
    ),
    own_check=True,
)
REPLACE_DEVICE: Final = Operation(
    id="replaceDevice",
    tag=TAG,
    summary="Let a device take the place of another",
    description="It gets the name, the room and the programs, as far as it fits them; where it can less than"
    " the old one, the customer is asked again.",
    action=Action.SESSION_WORK,
    parameters=(in_path(DEVICE, "Id of the device that goes", NAME, "hall-thermostat"), IDEMPOTENCY_KEY),
    bodies=(Content("application/json", ReplacementBody, {"new_device": "hall-thermostat-2"}),),
    answers=_BEGUN,
    refusals=(*_BODY, problems.DEVICE_NOT_FOUND, problems.NOT_REPLACEABLE),
)
MOVE_OUT: Final = Operation(
    id="moveOut",
    tag=TAG,
    summary="Let a customer leave premises",
    description="All they take part in ends; their devices go with them and the utility's stay, without"
    " anything of theirs. From then on these premises are nobody's.",
    action=Action.PREMISES_WRITE,
    parameters=(in_path(PREMISES, "Id of premises", NAME, "home-7"), IDEMPOTENCY_KEY),
    bodies=(Content("application/json", MoveOutBody, {"account": "account-7"}),),
    answers=_BEGUN,
    refusals=(*_BODY, problems.PREMISES_NOT_FOUND),
)
CLEAR_GATEWAY: Final = Operation(
    id="clearGateway",
    tag=TAG,
    summary="Take a device, or all of them, away from a gateway",
    description="It forgets them as soon as it hears of it. `all` has to be confirmed by the gateway's name.",
    action=Action.HAN_CLEAR,
    parameters=(GATEWAY, IDEMPOTENCY_KEY),
    bodies=(Content("application/json", ClearBody, {"scope": "one", "thing": "hall-thermostat"}),),
    answers={204: Answer("It is wanted, and will be seen through")},
    refusals=(*_BODY, problems.THING_NOT_FOUND, problems.CONFIRMATION_NEEDED),
)
GET_MOVE: Final = Operation(
    id="getMove",
    tag=TAG,
    summary="Read how far a change is",
    description="`partial`: it went as far as it could; `missing` says what did not come along in time.",
    action=Action.MOVE_READ,
    parameters=(in_path(MOVE, "Id of a change", {"type": "string", "pattern": "^[a-zA-Z0-9-]{1,64}$"}, _ID),),
    answers={200: Answer("The change", _MOVE)},
    refusals=(problems.MOVE_NOT_FOUND,),
    own_check=True,
)
