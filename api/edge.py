"""The outermost layer: a request id, a bound on requests at once, counts. Before routing, around everything.

It knows no route and no rule. It is written for the path of every request, so it allocates little.
"""

from collections.abc import Iterable
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.problems import OVERLOADED, Problem, aws_reply, is_aws, problem_reply
from api.services import ApiServices

UNMATCHED: Final = "(none)"
"""Stands for all paths that no route has, in the metrics: their number is bounded."""
ID_BITS: Final = 64


class Counts(Collector):
    """Requests by route, method and status, and the time they took. Read when Prometheus asks, not before."""

    def __init__(self, listener: str = "http") -> None:
        self._prefix = f"gnomon_{listener}"
        self.requests: dict[tuple[str, str, int], int] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self.in_flight = 0

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        key = (route, method, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[key[:2]] = self.seconds.get(key[:2], 0.0) + seconds

    def collect(self) -> Iterable[Metric]:
        """Return the counts as Prometheus wants them."""
        requests = CounterMetricFamily(
            f"{self._prefix}_requests", "Requests answered", labels=("route", "method", "status")
        )
        for (route, method, status), count in self.requests.items():
            requests.add_metric((route, method, str(status)), count)
        seconds = CounterMetricFamily(
            f"{self._prefix}_request_seconds",
            "Time that requests took, streams included",
            labels=("route", "method"),
        )
        for labels, spent in self.seconds.items():
            seconds.add_metric(labels, spent)
        in_flight = GaugeMetricFamily(f"{self._prefix}_requests_in_flight", "Requests being answered")
        in_flight.add_metric((), self.in_flight)
        return requests, seconds, in_flight


class Edge:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, services: ApiServices, counts: Counts) -> None:
        self._app = app
        self._clock = services.clock
        self._requests_max = services.limits.requests_max
        self._counts = counts
        # Unique and cheap: a random prefix for this process, then a number.
        self._prefix = services.ids.token(ID_BITS)
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        assert scope["type"] == ScopeType.HTTP, "no WebSocket route, and the server has none switched on"
        self._number += 1
        request_id = f"{self._prefix}-{self._number}"
        scope["state"]["request_id"] = request_id
        field = (b"x-request-id", request_id.encode())
        counts, status = self._counts, 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], field]
            await send(message)

        started_s = self._clock.elapsed_s()
        counts.in_flight += 1
        try:
            if counts.in_flight > self._requests_max:
                await _overloaded(scope, request_id)(scope, receive, tell)
            else:
                await self._app(scope, receive, tell)
        finally:
            counts.in_flight -= 1
            route = scope.get("path_template") or UNMATCHED
            counts.add(route, scope["method"], status, self._clock.elapsed_s() - started_s)


def _overloaded(scope: Scope, request_id: str) -> ASGIApp:
    problem = Problem(OVERLOADED, OVERLOADED.title)
    return aws_reply(problem) if is_aws(scope) else problem_reply(problem, request_id)
