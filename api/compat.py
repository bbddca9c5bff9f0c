"""Making and removing things as AWS does (spec: shadow, 9.1, *compat only*): for suites made for the cloud.

The routes exist only where ``compat_http`` is on, which start-up refuses on anything but loopback.
"""

import hashlib
from contextlib import suppress
from typing import Final

from api.gate import Gate
from api.operations import THING, WITH_BODY, Answer, Content, Operation, Route
from api.problems import FORBIDDEN, ApiError
from api.reading import HttpRequest, read_body, via_of
from api.removal import remove_thing
from api.replies import Reply, json_reply
from api.services import ApiServices
from registry.errors import ThingExistsError, ThingNotFoundError
from registry.models import NewThing, Owner, ThingKind
from security.policy import Action, Principal
from shadow.commands import parse_id

MODEL: Final = "compat"
PREMISES: Final = "compat"


class CompatThings:
    """Handlers of the AWS-shaped thing routes."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/things/{thing:str}", CREATE_THING, self.create),
            Route("DELETE", "/things/{thing:str}", DELETE_THING, self.delete),
        )

    async def create(self, request: HttpRequest) -> Reply:
        """Register a thing; one that is there already is no error, as with AWS."""
        name = parse_id(request.scope["path_params"]["thing"]).thing
        limits = self._services.limits
        await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        by: Principal = request.scope["user"]
        await self._gate.require_premises(by, Action.THING_REGISTER, PREMISES)
        thing = NewThing(name, ThingKind.DEVICE, MODEL, PREMISES, owner=Owner.UTILITY)
        with suppress(ThingExistsError):
            await self._services.registry.register(thing, by, via_of(request.scope))
        return json_reply(_described(name))

    async def delete(self, request: HttpRequest) -> Reply:
        """Remove a thing with its shadows; one that is not there is no error, as with AWS."""
        name = parse_id(request.scope["path_params"]["thing"]).thing
        by: Principal = request.scope["user"]
        try:
            await self._gate.require_thing(by, Action.THING_REMOVE, name)
        except ApiError as error:
            if error.kind is FORBIDDEN:
                raise
            return json_reply({})
        with suppress(ThingNotFoundError):
            await remove_thing(self._services, name, by, via_of(request.scope))
        return json_reply({})


def _described(name: str) -> dict[str, str]:
    number = hashlib.sha256(name.encode()).hexdigest()
    parts = (number[:8], number[8:12], number[12:16], number[16:20], number[20:32])
    return {
        "thingName": name,
        "thingArn": f"arn:aws:iot:local:000000000000:thing/{name}",
        "thingId": "-".join(parts),
    }


CREATE_THING: Final = Operation(
    id="awsCreateThing",
    tag="AWS-shaped",
    summary="Make a thing (compat only)",
    action=Action.THING_REGISTER,
    parameters=(THING,),
    bodies=(Content("application/json", {"type": "object"}, {}),),
    body_required=False,
    answers={200: Answer("The thing", Content("application/json", {"type": "object"}))},
    refusals=WITH_BODY,
    aws=True,
    own_check=True,
)
DELETE_THING: Final = Operation(
    id="awsDeleteThing",
    tag="AWS-shaped",
    summary="Remove a thing (compat only)",
    action=Action.THING_REMOVE,
    parameters=(THING,),
    answers={200: Answer("It is gone", Content("application/json", {"type": "object"}))},
    aws=True,
    own_check=True,
)
