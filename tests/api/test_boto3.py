"""An unmodified boto3 ``iot-data`` client against the AWS-shaped routes."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.api.rig import HALL
from tests.api.served import served


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("boto3"), compat_http=True, things=(HALL,)) as where:
        client = boto3.client(
            "iot-data",
            endpoint_url=where.url,
            region_name="local",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}),
        )
        yield client
        client.close()


def _update(client: Any, request: dict[str, Any], **named: str) -> dict[str, Any]:
    answer = client.update_thing_shadow(thingName=HALL, payload=json.dumps(request).encode(), **named)
    document: dict[str, Any] = json.loads(answer["payload"].read())
    return document


@pytest.mark.parametrize("named", [{}, {"shadowName": "diag"}], ids=["classic", "named"])
def test_it_updates_reads_and_deletes(client: Any, named: dict[str, str]):
    updated = _update(client, {"state": {"desired": {"set": 21.5}, "reported": {"set": 20}}}, **named)
    shown = json.loads(client.get_thing_shadow(thingName=HALL, **named)["payload"].read())
    assert shown["state"]["delta"] == {"set": 21.5}
    assert shown["version"] == updated["version"]
    deleted = json.loads(client.delete_thing_shadow(thingName=HALL, **named)["payload"].read())
    assert deleted["version"] == updated["version"]
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="No shadow exists with name"):
        client.get_thing_shadow(thingName=HALL, **named)


def test_it_lists_named_shadows_over_pages(client: Any):
    names = [f"cfg-{number}" for number in range(5)]
    for name in names:
        _update(client, {"state": {}}, shadowName=name)
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.list_named_shadows_for_thing(thingName=HALL, pageSize=2, **token)
        found += page["results"]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert found == names


def test_it_knows_our_refusals_as_its_own_errors(client: Any):
    version = _update(client, {"state": {"desired": {"a": 1}}})["version"]
    errors = client.exceptions
    with pytest.raises(errors.ConflictException):
        _update(client, {"state": {"desired": {"a": 2}}, "version": version - 1})
    with pytest.raises(errors.InvalidRequestException):
        _update(client, {"state": 7})
    with pytest.raises(errors.RequestEntityTooLargeException):
        _update(client, {"state": {"desired": {"a": "x" * 9_000}}})
    with pytest.raises(errors.ResourceNotFoundException):
        client.get_thing_shadow(thingName="nobody")
    with pytest.raises(errors.ClientError) as forbidden:
        _update(client, {"state": {"desired": {"a": 1}}}, shadowName="program")
    assert forbidden.value.response["Error"]["Code"] == "ForbiddenException"
    with pytest.raises(errors.UnsupportedDocumentEncodingException):
        client.update_thing_shadow(thingName=HALL, payload='{"state":{}}'.encode("utf-16"))
