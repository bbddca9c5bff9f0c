"""How this process is: alive, ready, its figures, its metrics."""

import asyncio
from typing import Final

from api.operations import Answer, Content, Operation, Route
from api.reading import HttpRequest
from api.replies import Reply, bytes_reply, json_reply
from api.schemas import Alive, FleetStatus, Health
from api.services import ApiServices
from infra.documents.port import StoreError
from security.policy import Action

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Status:
    """Handlers of ``/healthz``, ``/v1/health``, ``/v1/status`` and ``/v1/metrics``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/healthz", GET_LIVENESS, self.alive),
            Route("GET", "/v1/health", GET_HEALTH, self.health),
            Route("GET", "/v1/status", GET_STATUS, self.status),
            Route("GET", "/v1/metrics", GET_METRICS, self.metrics),
        )

    async def alive(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return json_reply(Alive("alive"))

    async def health(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        reasons = await self._reasons()
        health = Health(ready=not reasons, reasons=list(reasons))
        return json_reply(health, status=200 if health.ready else 503)

    async def status(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        figures = await self._services.figures()
        return json_reply(FleetStatus(self._services.version, dict(figures)))

    async def metrics(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return bytes_reply(self._services.metrics.render(), media=PROMETHEUS.encode())

    async def _reasons(self) -> tuple[str, ...]:
        timeout_s = self._services.limits.check_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._services.readiness()
        except TimeoutError:
            return (f"the checks did not answer within {timeout_s:g} s",)
        except StoreError as error:
            return (str(error),)


TAG: Final = "Operations"

GET_LIVENESS: Final = Operation(
    id="getLiveness",
    tag=TAG,
    summary="Whether the loop turns; nothing else",
    action=Action.OPEN,
    answers={200: Answer("It does", Content("application/json", Alive, {"status": "alive"}))},
)
GET_HEALTH: Final = Operation(
    id="getHealth",
    tag=TAG,
    summary="Whether this process can do its work, and if not why",
    action=Action.FLEET_READ,
    answers={
        200: Answer("It can", Content("application/json", Health, {"ready": True, "reasons": []})),
        503: Answer(
            "It cannot",
            Content(
                "application/json",
                Health,
                {"ready": False, "reasons": ["the store took no write within 5 s"]},
            ),
        ),
    },
)
GET_STATUS: Final = Operation(
    id="getStatus",
    tag=TAG,
    summary="Figures of the fleet",
    action=Action.FLEET_READ,
    answers={
        200: Answer(
            "The figures",
            Content("application/json", FleetStatus, {"version": "0.1.0", "figures": {"things": 200}}),
        )
    },
)
GET_METRICS: Final = Operation(
    id="getMetrics",
    tag=TAG,
    summary="Metrics for Prometheus",
    action=Action.FLEET_READ,
    answers={200: Answer("The metrics", Content(PROMETHEUS, {"type": "string"}, "# HELP …"))},
)
