"""The OpenAPI document and the pages: current, complete, and nothing from another origin."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.app import all_routes
from api.openapi import resolve
from tests.api.rig import Rig, api
from tests.vectors import make_api

PAGES = ["/docs", "/docs/problems"]


async def _document(rig: Rig) -> dict[str, Any]:
    answer = await rig.stranger.get("/docs/openapi.json")
    document: dict[str, Any] = answer.json()
    return document


async def test_the_golden_document_is_current():
    """A changed interface is a diff somebody can read; `make vectors` makes it anew."""
    assert await make_api.document() == make_api.OPENAPI.read_bytes()


async def test_every_route_is_in_the_document_but_the_pages(rig: Rig):
    document = await _document(rig)
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routes = {(route.method, route.path.replace(":str}", "}")) for route in all_routes(rig.services)}
    assert routes - listed == {("GET", "/"), ("GET", "/docs"), ("GET", "/docs/problems")}
    assert listed <= routes


async def test_operation_ids_are_explicit_and_given_once(rig: Rig):
    ids = [route.operation.id for route in all_routes(rig.services)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", id) for id in ids)


async def test_every_part_of_a_path_is_declared(rig: Rig):
    document = await _document(rig)
    for path, item in document["paths"].items():
        for operation in item.values():
            taken = [resolve(document, one) for one in operation.get("parameters", ())]
            declared = {one["name"] for one in taken if one["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))


def test_no_two_shapes_have_one_name():
    """The document knows a shape by its name alone."""
    names = [
        name
        for source in sorted((Path(__file__).parents[2] / "api").glob("*.py"))
        for name in re.findall(r"^class (\w+)\(Struct", source.read_text(), re.MULTILINE)
    ]
    assert sorted(set(names)) == sorted(names)


async def test_every_reference_leads_somewhere(rig: Rig):
    document = await _document(rig)
    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(document).decode())):
        found: Any = document
        for part in reference.split("/"):
            found = found[part]


async def test_what_several_operations_take_or_answer_stands_once(rig: Rig):
    document = await _document(rig)
    stand = [
        msgspec.json.encode((*status, part), order="sorted")
        for item in document["paths"].values()
        for operation in item.values()
        for status, part in (
            *(((), one) for one in operation.get("parameters", ())),
            *(((status,), one) for status, one in operation["responses"].items()),
        )
        if "$ref" not in part
    ]
    assert stand
    assert len(set(stand)) == len(stand)


PROVING = {"logIn", "refreshTokens", "issueClientToken", "acceptInvitation", "makeFirstOfficer"}
"""Open to all, and refused to whoever proves nothing."""


async def test_whatever_needs_a_proof_says_401_and_what_is_open_does_not(rig: Rig):
    for item in (await _document(rig))["paths"].values():
        for operation in item.values():
            proves = operation.get("security") != [] or operation["operationId"] in PROVING
            assert ("401" in operation["responses"]) is proves


async def test_with_compat_its_routes_are_in_the_document(tmp_path: Path):
    async with api(tmp_path, compat_http=True) as rig:
        assert "/things/{thing}" in (await _document(rig))["paths"]


async def test_the_root_leads_to_the_api_page(rig: Rig):
    answer = await rig.stranger.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_names_no_other_origin_and_runs_nothing(rig: Rig, path: str):
    answer = await rig.stranger.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    links = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
    assert links
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in links)
    assert not re.search(r"https?:|<script|@import|url\(|<link|<img|<iframe|\son\w+=", answer.text)


async def test_every_link_of_a_page_leads_to_a_page(rig: Rig):
    for path in PAGES:
        for link in set(re.findall(r'href="([^"#]+)', (await rig.stranger.get(path)).text)):
            assert (await rig.stranger.get(link)).status_code == 200


async def test_the_page_shows_every_operation(rig: Rig):
    text = (await rig.stranger.get("/docs")).text
    for item in (await _document(rig))["paths"].values():
        for operation in item.values():
            assert f'id="{operation["operationId"]}"' in text


async def test_every_problem_leads_to_its_line(rig: Rig):
    answer = await rig.http.get("/v1/things/nobody")
    page, _, anchor = answer.json()["type"].partition("#")
    assert f'id="{anchor}"' in (await rig.stranger.get(page)).text
