"""Who may call what: one guard, a table, and the default is no."""

import asyncio
import re
from itertools import product
from pathlib import Path

import pytest
from litestar import Litestar

from api import guards
from api.app import all_routes
from api.guards import ByToken, Guard, UnguardedRouteError, refuse_unguarded
from api.operations import Answer, Operation, Route
from api.reading import HttpRequest
from api.replies import Reply, no_content
from security import policy
from security.policy import GRANTS, TWO_PERSONS, Action, Role, Scope, may_at_all
from tests.api.rig import AWS, SHADOW, Rig, api

OPEN = {
    "/",
    "/docs",
    "/docs/problems",
    "/docs/openapi.json",
    "/healthz",
    "/.well-known/jwks.json",
    "/.well-known/gnomon/keys",
}
PROVING = {
    "/v1/login",
    "/v1/logout",
    "/v1/token",
    "/v1/token/refresh",
    "/v1/invitations/accept",
    "/v1/people/first",
}
"""Where somebody without a token proves who they are: what they send is looked at first."""
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260921/local/iotdata/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=00"
)


def _paths(rig: Rig) -> list[tuple[str, str, bool]]:
    return [
        (
            route.method,
            route.path.replace("{thing:str}", "hall")
            .replace("{gateway:str}", "gw")
            .replace("{shadow:str}", "@classic")
            .replace("{version:str}", "1"),
            route.operation.aws,
        )
        for route in all_routes(rig.services)
    ]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer gnomon_op_" + "a" * 52,
        "Bearer " + "x" * 10_000,
        "Bearer \xff",
        "Basic b3BlcmF0b3I6eA==",
        SIGNED,
    ],
)
async def test_without_the_token_every_route_but_the_open_ones_is_401_with_one_fixed_body(
    rig: Rig, authorization: str | None
):
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    bodies: dict[bool, set[bytes]] = {True: set(), False: set()}
    for method, path, aws in _paths(rig):
        answer = await rig.stranger.request(method, path, headers=headers)
        if path in PROVING:
            assert answer.status_code in {400, 401, 415}, path
            continue
        if path in OPEN:
            assert answer.status_code < 400, path
            continue
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == 'Bearer realm="gnomon"'
        if method != "HEAD":  # whose answer has no body
            bodies[aws].add(answer.content)
        if aws:
            assert answer.headers["x-amzn-errortype"] == "UnauthorizedException"
    assert [len(found) for found in bodies.values()] == [1, 1]
    assert await rig.store.get("shadows", ["hall/"]) == {}


async def test_the_token_opens_whatever_the_scheme_is_spelled_like(rig: Rig):
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await rig.stranger.get("/v1/things", headers={"Authorization": f"{scheme} {rig.token}"})
        assert answer.status_code == 200


async def test_an_action_that_is_not_this_roles_is_403_and_audited(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(policy, "GRANTS", {**GRANTS, Action.SHADOW_DESIRE: {Role.SYSTEM: Scope.ANY}})
    answer = await rig.desire({"a": 1})
    assert answer.status_code == 403
    assert (await rig.http.get(SHADOW)).status_code == 404
    refused = [entry for entry in await rig.audit() if entry["decision"] == "refused"]
    assert [(entry["actor"], entry["action"], entry["target"]) for entry in refused] == [
        ("customer", "shadow.desire", "hall/@classic")
    ]


async def test_an_action_without_a_row_is_nobodys(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(policy, "GRANTS", {})
    for method, path, _ in _paths(rig):
        if path not in OPEN | PROVING:
            assert (await rig.http.request(method, path)).status_code == 403, path


async def _handle(request: HttpRequest) -> Reply:
    assert request.method
    return no_content()


def _app(rig: Rig, *handlers: object) -> Litestar:
    guard = Guard(rig.services, ByToken(rig.services.bearer, compat_http=False))
    return Litestar(list(handlers), before_request=guard, openapi_config=None)  # type: ignore[arg-type]


def _route(action: object) -> Route:
    answers = {204: Answer("done")}
    return Route("GET", "/new", Operation("new", "New", "New", action, answers), _handle)  # type: ignore[arg-type]


async def test_a_route_without_an_action_stops_the_start(rig: Rig):
    refuse_unguarded(_app(rig, _route(Action.FLEET_READ).handler()))
    for missing in (None, "fleet.read"):
        with pytest.raises(UnguardedRouteError, match="declare its action"):
            refuse_unguarded(_app(rig, _route(missing).handler()))


async def test_an_action_without_a_row_stops_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guards, "GRANTS", {})
    with pytest.raises(UnguardedRouteError, match=r"give fleet\.read a row"):
        refuse_unguarded(_app(rig, _route(Action.FLEET_READ).handler()))


async def test_a_route_whose_path_names_what_nothing_checks_stops_the_start(rig: Rig):
    answers = {204: Answer("done")}

    for own_check in (False, True):
        operation = Operation("new", "New", "New", Action.FLEET_READ, answers, own_check=own_check)
        app = _app(rig, Route("GET", "/new/{voucher:str}", operation, _handle).handler())
        if own_check:
            refuse_unguarded(app)
        else:
            with pytest.raises(UnguardedRouteError, match=r"nothing checks \['voucher'\]"):
                refuse_unguarded(app)


async def test_a_route_that_takes_two_persons_and_does_not_say_how_stops_the_start(rig: Rig):
    for held, stops in product((False, True), repeat=2):
        answers = {204: Answer("done")}
        operation = Operation("new", "New", "New", Action.ROLE_GRANT, answers, held=held, stops=stops)
        app = _app(rig, Route("POST", "/new", operation, _handle).handler())
        if held is stops:
            with pytest.raises(UnguardedRouteError, match=r"role\.grant takes two persons"):
                refuse_unguarded(app)
        else:
            refuse_unguarded(app)


async def test_every_held_act_is_one_that_takes_two_persons(rig: Rig):
    acts = rig.services.people.approvals._acts.values()
    assert acts
    assert {act.action for act in acts} <= {action for _, action in TWO_PERSONS}


async def test_a_route_that_puts_another_hook_in_the_guards_place_stops_the_start(rig: Rig):
    handler = _route(Action.FLEET_READ).handler()
    handler.before_request = _handle
    with pytest.raises(UnguardedRouteError, match="guard's place"):
        refuse_unguarded(_app(rig, handler))


async def test_an_unchecked_aws_signature_opens_nothing_by_default(rig: Rig):
    assert (await rig.stranger.get(AWS, headers={"Authorization": SIGNED})).status_code == 401


async def test_with_compat_an_aws_signature_opens_the_aws_shaped_routes_and_no_other(tmp_path: Path):
    async with api(tmp_path, compat_http=True) as rig:
        headers = {"Authorization": SIGNED}
        body = {"state": {"reported": {"a": 1}}}
        assert (await rig.stranger.post(AWS, json=body, headers=headers)).status_code == 200
        assert (await rig.stranger.get(AWS, headers=headers)).status_code == 200
        assert (await rig.stranger.get(SHADOW, headers=headers)).status_code == 401
        assert (await rig.stranger.get(AWS)).status_code == 401


async def test_with_compat_things_are_made_and_removed_as_aws_does(tmp_path: Path):
    async with api(tmp_path, compat_http=True) as rig:
        headers = {"Authorization": SIGNED}
        made = await rig.stranger.post("/things/lamp", json={"thingTypeName": "x"}, headers=headers)
        assert made.status_code == 200
        assert made.json()["thingName"] == "lamp"
        assert made.json()["thingArn"].endswith(":thing/lamp")
        assert (await rig.stranger.post("/things/lamp", headers=headers)).json() == made.json()
        assert (await rig.by[Role.OPERATOR].get("/v1/things/lamp")).json()["model"] == "compat"
        for _ in range(2):
            gone = await rig.stranger.delete("/things/lamp", headers=headers)
            assert (gone.status_code, gone.json()) == (200, {})
        assert (await rig.by[Role.OPERATOR].get("/v1/things/lamp")).status_code == 404
        assert (await rig.stranger.post("/things/a%20b", headers=headers)).status_code == 400


@pytest.mark.parametrize("part", ["x%00", "%1b[2J", "a" * 257, "a" * 3_000])
async def test_a_part_of_a_path_that_can_be_no_name_is_refused_before_anything_is_looked_up(
    rig: Rig, part: str
):
    asked = 0
    for route, role in product(all_routes(rig.services), rig.by):
        if "{" in route.path and may_at_all(role, route.operation.action):
            url = re.sub(r"{\w+:str}", part, route.path)
            body = None if route.method in {"GET", "HEAD"} else b"{}"
            answer = await rig.by[role].request(route.method, url, content=body)
            assert answer.status_code in {400, 401, 403, 404, 414, 415}, f"{role} {route.method} {route.path}"
            asked += 1
    assert asked > 100


async def test_requests_without_a_token_are_bounded_in_work(rig: Rig):
    answers = await asyncio.gather(*(rig.stranger.get(SHADOW) for _ in range(200)))
    assert {answer.status_code for answer in answers} == {401}
    assert [entry for entry in await rig.audit() if entry["decision"] == "refused"] == []
