"""The service levels of firmware: what is set, and beside it what was measured."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from api.operations import Answer, Content, Operation, Route
from api.reading import HttpRequest, query
from api.replies import Reply, json_reply
from api.services import ApiServices
from infra.clock import MS_PER_S
from ota.service_levels import ServiceLevels
from security.policy import Action


class ServiceLevelsDocument(Struct):
    """Over all campaigns that are under way, or ended within the last 60 minutes."""

    device_limit_s: Annotated[float, Meta(description="A device may take so long: setting `ota.deadline_s`")]
    longest_s: Annotated[float | None, Meta(description="The device that took longest; null: none is done")]
    over: Annotated[int, Meta(description="Devices that took longer, or whose time ran out")]
    devices_per_hour: Annotated[
        int, Meta(description="So many are to be done in an hour: setting `ota.devices_per_hour`")
    ]
    done_last_hour: int
    in_flight: int
    campaigns: int

    @classmethod
    def of(cls, levels: ServiceLevels) -> "ServiceLevelsDocument":
        return cls(
            device_limit_s=levels.limit_ms / MS_PER_S,
            longest_s=None if levels.longest_ms is None else levels.longest_ms / MS_PER_S,
            over=levels.over,
            devices_per_hour=levels.per_hour,
            done_last_hour=levels.last_hour,
            in_flight=levels.in_flight,
            campaigns=levels.campaigns,
        )


class ServiceLevelRoutes:
    """Handler of ``/v1/ota/service-levels``."""

    def __init__(self, services: ApiServices) -> None:
        self._campaigns = services.ota.campaigns

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/v1/ota/service-levels", GET_SERVICE_LEVELS, self.read),)

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(ServiceLevelsDocument.of(await self._campaigns.service_levels()))


GET_SERVICE_LEVELS: Final = Operation(
    id="getServiceLevels",
    tag="Firmware reports",
    summary="See how the fleet stands to what is set: time of a device, devices of an hour",
    description="Over all campaigns that are under way, or ended within the last 60 minutes.",
    action=Action.FLEET_READ,
    answers={
        200: Answer(
            "The service levels",
            Content(
                "application/json",
                ServiceLevelsDocument,
                {
                    "device_limit_s": 300.0,
                    "longest_s": 92.3,
                    "over": 0,
                    "devices_per_hour": 10_000,
                    "done_last_hour": 1_998,
                    "in_flight": 800,
                    "campaigns": 1,
                },
            ),
        )
    },
)
