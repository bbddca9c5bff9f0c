"""Devices: what a home has that takes part, could take part, or has done so."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from api import problems
from api.gate import DEVICE, Gate
from api.han_schemas import DeviceDocument, DeviceLabelBody, DeviceList, ReasonBody
from api.listing import seen_page
from api.logins import json_body, read
from api.operations import (
    CURSOR,
    LIMIT,
    NAME,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_path,
    in_query,
)
from api.program_schemas import OptionDocument, OptionList
from api.reading import HttpRequest, a_name, invalid, page_limit, query, via_of
from api.replies import Reply, json_reply, no_content
from api.services import ApiServices
from infra.documents.port import StoreUnavailableError
from registry.devices import Device, DevicePage
from registry.states import DeviceTrigger
from security.policy import Action, Principal, may, scope_of
from shadow.errors import ShadowError

ReadPage = Callable[[int, str | None], Awaitable[DevicePage]]


class Devices:
    """Handlers of ``/v1/devices`` and ``/v1/me/devices``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._devices = services.devices
        self._programs = services.programs
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/devices/{device:str}"
        return (
            Route("GET", "/v1/devices", LIST_DEVICES, self.at),
            Route("GET", one, GET_DEVICE, self.read),
            Route("PUT", f"{one}/label", LABEL_DEVICE, self.label),
            Route("POST", f"{one}/suspend", SUSPEND_DEVICE, self.suspend),
            Route("POST", f"{one}/lift", LIFT_DEVICE, self.lift),
            Route("POST", f"{one}/retire", RETIRE_DEVICE, self.retire),
            Route("GET", f"{one}/options", GET_OPTIONS, self.options),
            Route("GET", "/v1/me/devices", LIST_MY_DEVICES, self.mine),
        )

    async def at(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("premises", "limit", "cursor"))
        premises = a_name(fields, "premises")
        if premises is None:
            raise invalid("say where: premises=…")
        return await self._page(request, fields, partial(self._devices.at, premises))

    async def mine(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        by: Principal = request.scope["user"]
        return await self._page(request, fields, partial(self._devices.of_account, by.account))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return await self._shown(request, await self._devices.device(device_id(request)))

    async def label(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, DeviceLabelBody)

        def change(before: Device) -> Device:
            return replace(before, name=body.name, location=body.location)

        by, via = request.scope["user"], via_of(request.scope)
        return await self._shown(request, await self._devices.amend(device_id(request), change, by, via))

    async def suspend(self, request: HttpRequest) -> Reply:
        return await self._step(request, DeviceTrigger.SUSPEND)

    async def lift(self, request: HttpRequest) -> Reply:
        return await self._step(request, DeviceTrigger.LIFT)

    async def retire(self, request: HttpRequest) -> Reply:
        return await self._step(request, DeviceTrigger.RETIRE)

    async def options(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        found = await self._programs.enrolments.options(device_id(request))
        programs = await self._programs.catalogue.programs_of(found)
        items = [OptionDocument.of(programs[id], found[id]) for id in sorted(found) if id in programs]
        return json_reply(OptionList(items))

    async def _step(self, request: HttpRequest, trigger: DeviceTrigger) -> Reply:
        body = await read(request, self._services, ReasonBody)
        by, via = request.scope["user"], via_of(request.scope)
        id = device_id(request)
        if trigger is DeviceTrigger.RETIRE:
            await self._programs.enrolments.end_all(id, by, via, reason="retired")
        device = await self._devices.apply(id, trigger, by, via, reason=body.reason)
        # What is not done now, the worker does: what is enrolled is looked at again and again.
        with suppress(StoreUnavailableError, ShadowError):
            await self._programs.enrolments.reconcile(id)
        return await self._shown(request, device)

    async def _page(self, request: HttpRequest, fields: Mapping[str, str], read: ReadPage) -> Reply:
        """Answer with those of a list which the caller may see."""
        by: Principal = request.scope["user"]

        async def fetch(limit: int, cursor: str | None) -> tuple[Sequence[Device], str | None]:
            page = await read(limit, cursor)
            return page.devices, page.next

        async def pick(devices: Sequence[Device]) -> Sequence[Device]:
            seen = await self._gate.open_devices(by, [one.id for one in devices])
            return [one for one in devices if one.id in seen]

        devices, following = await seen_page(fetch, pick, page_limit(fields), fields.get("cursor"))
        return json_reply(DeviceList(await self._documents(by, devices), following))

    async def _shown(self, request: HttpRequest, device: Device) -> Reply:
        """Return a device to who may see it; others are told that it is done, and nothing of it."""
        by: Principal = request.scope["user"]
        if not may(by, Action.DEVICE_READ, request.scope["state"]["target"]):
            return no_content()
        (document,) = await self._documents(by, [device])
        return json_reply(document)

    async def _documents(self, by: Principal, devices: Collection[Device]) -> list[DeviceDocument]:
        models = await self._services.models.models({one.model for one in devices if one.model})
        scope = scope_of(by.role, Action.DEVICE_READ)
        return [DeviceDocument.of(one, models.get(one.model), scope) for one in devices]


def device_id(request: HttpRequest) -> str:
    """Return the device in the path."""
    id: str = request.scope["path_params"][DEVICE]
    return id


TAG: Final = "Devices"
DEVICE_PART: Final = in_path(DEVICE, "Id of a device", NAME, "hall-thermostat")
EXAMPLE: Final[dict[str, Any]] = {
    "id": "hall-thermostat",
    "model": "acme-pct-2",
    "owner": "customer",
    "premises": "home-7",
    "lifecycle": "REGISTERED",
    "since": "2026-09-21T12:00:00.000Z",
    "model_name": "Acme thermostat 2",
    "capabilities": ["load.offset", "price"],
    "categories": [0],
    "validated": True,
    "fw": "1.4.0",
    "name": "Thermostat",
    "location": "hall",
    "eui64": "00124B0014B5D2A1",
    "account": "account-7",
}
_DEVICE: Final = Content("application/json", DeviceDocument, EXAMPLE)
_CHANGED: Final = {200: Answer("The device", _DEVICE), 204: Answer("Done; the device is not yours to read")}
_STEP: Final = (
    *WITH_BODY,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.DEVICE_NOT_FOUND,
    problems.ILLEGAL_TRANSITION,
)
_REASON: Final = json_body(ReasonBody, {"reason": "lost"})
_PAGE: Final = {
    200: Answer("A page of devices", Content("application/json", DeviceList, {"items": [EXAMPLE]}))
}

LIST_DEVICES: Final = Operation(
    id="listDevices",
    tag=TAG,
    summary="List the devices at premises",
    description="Those you may see, and no word of others: an operator sees what is the utility's or takes"
    " part, under a name that says nothing; staff on a case or a work order what is registered; a customer"
    " all that is theirs. A page may hold fewer than `limit` and still have a `next`.",
    action=Action.DEVICE_READ,
    parameters=(in_query("premises", "Where", NAME, "home-7"), LIMIT, CURSOR),
    answers=_PAGE,
    refusals=(problems.INVALID_CURSOR,),
)
LIST_MY_DEVICES: Final = Operation(
    id="listMyDevices",
    tag="Own home",
    summary="List the devices that take part by one's account",
    action=Action.HOME_READ,
    parameters=(LIMIT, CURSOR),
    answers=_PAGE,
    refusals=(problems.INVALID_CURSOR,),
)
GET_DEVICE: Final = Operation(
    id="getDevice",
    tag=TAG,
    summary="Read a device",
    action=Action.DEVICE_READ,
    parameters=(DEVICE_PART,),
    answers={200: Answer("The device", _DEVICE)},
    refusals=(problems.DEVICE_NOT_FOUND,),
)
GET_OPTIONS: Final = Operation(
    id="getDeviceOptions",
    tag=TAG,
    summary="See which programs a device fits, and everything that keeps it out of the others",
    description="A device is never refused for its brand. A warning keeps nobody out.",
    action=Action.DEVICE_READ,
    parameters=(DEVICE_PART,),
    answers={
        200: Answer(
            "Every program on offer",
            Content(
                "application/json",
                OptionList,
                {
                    "items": [
                        {
                            "program": "cpp-27",
                            "name": "Critical peaks",
                            "eligible": False,
                            "reasons": [{"code": "CAPABILITY", "detail": "load.offset"}],
                            "consent_text_version": "1",
                        }
                    ]
                },
            ),
        )
    },
    refusals=(problems.DEVICE_NOT_FOUND,),
)
LABEL_DEVICE: Final = Operation(
    id="labelDevice",
    tag=TAG,
    summary="Say what a device is called, and in which room it is",
    description="The customer's own words. They go when the customer moves out.",
    action=Action.DEVICE_WRITE,
    parameters=(DEVICE_PART,),
    bodies=json_body(DeviceLabelBody, {"name": "Thermostat", "location": "hall"}),
    answers={200: Answer("The device", _DEVICE)},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.DEVICE_NOT_FOUND),
)
SUSPEND_DEVICE: Final = Operation(
    id="suspendDevice",
    tag=TAG,
    summary="Hold a device for the time being",
    description="It loses its access at once, and its enrolments pause. Again is no error.",
    action=Action.THING_SUSPEND,
    parameters=(DEVICE_PART,),
    bodies=_REASON,
    answers=_CHANGED,
    refusals=_STEP,
)
LIFT_DEVICE: Final = Operation(
    id="liftDevice",
    tag=TAG,
    summary="Let a device that was held go on",
    description="A customer lifts what a customer suspended. Again is no error.",
    action=Action.THING_RESUME,
    parameters=(DEVICE_PART,),
    bodies=_REASON,
    answers=_CHANGED,
    refusals=_STEP,
)
RETIRE_DEVICE: Final = Operation(
    id="retireDevice",
    tag=TAG,
    summary="Take a device out of service for good: it is lost, broken or tampered with",
    description="Its enrolments end, and its certificates let nobody in any more. Again is no error.",
    action=Action.DEVICE_RETIRE,
    parameters=(DEVICE_PART,),
    bodies=_REASON,
    answers=_CHANGED,
    refusals=_STEP,
)
