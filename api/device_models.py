"""Device models: what each make of device can do. A catalogue that everybody reads and operators keep."""

from typing import Final

from api import problems
from api.han_schemas import ModelBody, ModelDocument, ModelList
from api.logins import json_body, read
from api.operations import CURSOR, EXPECTED, LIMIT, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.reading import HttpRequest, expected_version, is_current, page_limit, query, via_of
from api.replies import Reply, etag, json_reply
from api.services import ApiServices
from registry.catalogue import DeviceModel
from security.policy import Action

MODEL: Final = "model"


class DeviceModels:
    """Handlers of ``/v1/models``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._models = services.models

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/models/{model:str}"
        return (
            Route("GET", "/v1/models", LIST_MODELS, self.list),
            Route("GET", one, GET_MODEL, self.read),
            Route("PUT", one, PUT_MODEL, self.put),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        page = await self._models.page(page_limit(fields), fields.get("cursor"))
        return json_reply(ModelList([ModelDocument.of(one) for one in page.models], page.next))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        model = await self._models.model(_id(request))
        if is_current(request.scope, model.version):
            return Reply(304, [etag(model.version)])
        return _shown(model)

    async def put(self, request: HttpRequest) -> Reply:
        expected = expected_version(request.scope)
        body = await read(request, self._services, ModelBody)
        by, via = request.scope["user"], via_of(request.scope)
        return _shown(await self._models.put(body.model_of(_id(request)), by, via, expected=expected))


def _id(request: HttpRequest) -> str:
    id: str = request.scope["path_params"][MODEL]
    return id


def _shown(model: DeviceModel) -> Reply:
    return json_reply(ModelDocument.of(model), fields=(etag(model.version),))


TAG: Final = "Device models"
_BODY: Final = {
    "maker": "Acme",
    "model": "PCT-2",
    "name": "Acme thermostat 2",
    "hw_min": 1,
    "hw_max": 9,
    "categories": [0],
    "capabilities": ["price", "load.offset"],
    "technologies": ["zigbee-se1"],
    "ota": "both",
    "fw_min": "1.2.0",
    "validated": True,
    "rated_w": 0,
    "limits": {"offset_dc_max": 40},
}
_EXAMPLE: Final = {"id": "acme-pct-2", "version": 1} | _BODY
_MODEL: Final = in_path(
    MODEL,
    "Maker and model, in small letters, with hyphens for all that is neither letter nor digit",
    {"type": "string", "pattern": "^[a-z0-9-]{1,128}$"},
    "acme-pct-2",
)
_CONTENT: Final = Content("application/json", ModelDocument, _EXAMPLE)

LIST_MODELS: Final = Operation(
    id="listModels",
    tag=TAG,
    summary="List the device models that are known, with what each can do",
    description="A model that is not here, or not `validated`, is no reason to turn a device away: programs"
    " say what they ask for.",
    action=Action.MODEL_READ,
    parameters=(LIMIT, CURSOR),
    answers={200: Answer("A page", Content("application/json", ModelList, {"items": [_EXAMPLE]}))},
    refusals=(problems.INVALID_CURSOR,),
)
GET_MODEL: Final = Operation(
    id="getModel",
    tag=TAG,
    summary="Read a device model",
    action=Action.MODEL_READ,
    parameters=(_MODEL,),
    answers={
        200: Answer("The model", _CONTENT, ("ETag",)),
        304: Answer("You have this version", headers=("ETag",)),
    },
    refusals=(problems.MODEL_NOT_FOUND,),
    own_check=True,
)
PUT_MODEL: Final = Operation(
    id="putModel",
    tag=TAG,
    summary="Put a device model into the catalogue, or its next version",
    action=Action.MODEL_WRITE,
    parameters=(_MODEL, *EXPECTED),
    bodies=json_body(ModelBody, _BODY),
    answers={200: Answer("The model", _CONTENT, ("ETag",))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.PRECONDITION_FAILED,
        problems.PRECONDITION_REQUIRED,
    ),
    own_check=True,
)
