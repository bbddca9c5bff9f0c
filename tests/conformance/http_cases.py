"""What boto3's ``iot-data`` client must find on the AWS-shaped HTTP routes (spec: shadow, 9.1)."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import boto3
import msgspec
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conformance.cases import Bench, Catalogue, MissedError, Way, expect
from tests.conformance.sdk import MQTT_5, V1, connection

CATALOGUE: Final = Catalogue()
WAYS: Final = tuple(Way("boto3", "HTTP", shadow) for shadow in ("classic", "named"))
ONCE: Final = Way("boto3", "HTTP")
LISTED: Final = 101
PAGE: Final = 100
RACERS: Final = 8

http_case = CATALOGUE.case(*WAYS)
single_case = CATALOGUE.case(ONCE)


class Shadow:
    """boto3 about one shadow of a fresh thing."""

    def __init__(self, bench: Bench, **options: Any) -> None:
        self.thing = bench.thing()
        self.client = client(bench, **options)
        self.names = {"thingName": self.thing}
        if bench.shadow_name:
            self.names["shadowName"] = bench.shadow_name

    def update(self, body: object) -> Any:
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return _body(self.client.update_thing_shadow(**self.names, payload=payload))

    def get(self) -> Any:
        return _body(self.client.get_thing_shadow(**self.names))

    def delete(self) -> Any:
        return _body(self.client.delete_thing_shadow(**self.names))


def client(bench: Bench, **options: Any) -> Any:
    """Return the unmodified client with another endpoint. It signs; with ``compat_http`` nobody looks."""
    return boto3.client(
        "iot-data",
        region_name="eu-central-1",
        endpoint_url=bench.gnomon.api_url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, **options),
    )


@http_case
def get_and_delete_of_an_absent_shadow_raise_resource_not_found(bench: Bench) -> None:
    shadow = Shadow(bench)
    for call in (shadow.get, shadow.delete):
        error = _refused(call, shadow.client.exceptions.ResourceNotFoundException)
        expect(_status(error), 404, "status")


@http_case
def update_get_and_delete_return_the_documents(bench: Bench) -> None:
    shadow = Shadow(bench)
    state = {"desired": {"on": True}, "reported": {"on": False}}
    updated = shadow.update({"state": state, "clientToken": "h-1"})
    expect((updated["state"], updated["version"]), (state, 1), "answer to update")
    expect(updated["clientToken"], "h-1", "client token")
    document = shadow.get()
    expect(document["state"], {**state, "delta": {"on": True}}, "state")
    stamp = {"timestamp": updated["timestamp"]}
    expect(document["metadata"]["desired"], {"on": stamp}, "metadata")
    deleted = shadow.delete()
    expect((deleted["version"], "state" in deleted), (1, False), "answer to delete")
    _refused(shadow.get, shadow.client.exceptions.ResourceNotFoundException)


@http_case
def another_version_raises_conflict_and_changes_nothing(bench: Bench) -> None:
    shadow = Shadow(bench)
    shadow.update({"state": {"desired": {"n": 1}}})
    stale = {"state": {"desired": {"n": 2}}, "version": 9}
    error = _refused(lambda: shadow.update(stale), shadow.client.exceptions.ConflictException)
    expect((_status(error), _message(error)), (409, "Version conflict"), "refusal")
    expect((shadow.get()["state"]["desired"], shadow.get()["version"]), ({"n": 1}, 1), "shadow")


@http_case
def of_racing_writers_with_one_version_exactly_one_wins(bench: Bench) -> None:
    shadow = Shadow(bench)
    shadow.update({"state": {"desired": {"n": 0}}})
    outcomes: list[str] = []

    def race(number: int) -> None:
        try:
            shadow.update({"state": {"desired": {"n": number}}, "version": 1})
        except shadow.client.exceptions.ConflictException:
            outcomes.append("conflict")
        else:
            outcomes.append("won")

    racers = [threading.Thread(target=race, args=(number,)) for number in range(1, RACERS + 1)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    expect((outcomes.count("won"), outcomes.count("conflict")), (1, RACERS - 1), "won and lost")
    expect(shadow.get()["version"], 2, "version")


@http_case
def a_body_that_is_no_request_raises_invalid_request(bench: Bench) -> None:
    shadow = Shadow(bench)
    invalid = shadow.client.exceptions.InvalidRequestException
    for body, message in (
        (b"not json", "Invalid JSON"),
        (b'{"version": 1}', "Missing required node: state"),
        (b'{"state": {"desired": [1]}}', "Desired node must be an object"),
        (b'{"state": {"delta": {}}}', "State contains an invalid node"),
        (b'{"state": {}, "version": true}', "Invalid version"),
        (
            b'{"state": {"desired": {"1": {"2": {"3": {"4": {"5": {"6": 7}}}}}}}}',
            None,  # six levels are allowed
        ),
        (
            b'{"state": {"desired": {"1": {"2": {"3": {"4": {"5": {"6": {"7": 8}}}}}}}}}',
            "JSON contains too many levels of nesting; maximum is 6",
        ),
    ):
        if message is None:
            shadow.update(body)
            continue
        error = _refused(partial(shadow.update, body), invalid)
        expect((_status(error), _message(error)), (400, message), f"refusal of {body!r}")


@http_case
def a_document_above_the_limit_raises_request_entity_too_large(bench: Bench) -> None:
    shadow = Shadow(bench)
    too_large = shadow.client.exceptions.RequestEntityTooLargeException
    wrapping = len(msgspec.json.encode({"text": ""}))
    shadow.update({"state": {"desired": {"text": "x" * (8_192 - wrapping)}}})
    for size in (8_193, 40_000):
        body = {"state": {"desired": {"text": "x" * (size - wrapping)}}}
        error = _refused(partial(shadow.update, body), too_large)
        message = "The payload exceeds the maximum size allowed"
        expect((_status(error), _message(error)), (413, message), "refusal")
    expect(shadow.get()["version"], 1, "version")


@http_case
def a_body_that_is_not_utf_8_raises_unsupported_document_encoding(bench: Bench) -> None:
    shadow = Shadow(bench)
    error = _refused(
        lambda: shadow.update('{"state":{}}'.encode("utf-16")),
        shadow.client.exceptions.UnsupportedDocumentEncodingException,
    )
    message = "Unsupported documented encoding; supported encoding is UTF-8"
    expect((_status(error), _message(error)), (415, message), "refusal")


@http_case
def a_repeated_request_is_answered_with_the_same_bytes_and_one_version(bench: Bench) -> None:
    shadow = Shadow(bench)
    body = msgspec.json.encode({"state": {"desired": {"n": 1}}, "clientToken": "once"})
    payloads = [
        shadow.client.update_thing_shadow(**shadow.names, payload=body)["payload"].read() for _ in range(2)
    ]
    expect(payloads[0], payloads[1], "second answer")
    expect(shadow.get()["version"], 1, "version")


@single_case
def an_unsigned_request_raises_unauthorized(bench: Bench) -> None:
    shadow = Shadow(bench, signature_version=UNSIGNED)
    error = _refused(shadow.get, shadow.client.exceptions.UnauthorizedException)
    expect(_status(error), 401, "status")


@single_case
def a_section_that_belongs_to_the_utility_raises_forbidden(bench: Bench) -> None:
    shadow = Shadow(bench)
    shadow.names["shadowName"] = "program"
    wish = b'{"state": {"desired": {"enrolments": {}}}}'
    error = _refused(lambda: shadow.update(wish), shadow.client.exceptions.ForbiddenException)
    expect((_status(error), _message(error)), (403, "Forbidden"), "refusal")


@single_case
def a_shadow_of_a_thing_that_is_not_registered_raises_resource_not_found(bench: Bench) -> None:
    shadow = Shadow(bench)
    shadow.names["thingName"] = "nobody"
    error = _refused(lambda: shadow.update({"state": {}}), shadow.client.exceptions.ResourceNotFoundException)
    expect((_status(error), _message(error)), (404, "Thing not found"), "refusal")


@single_case
def names_out_of_the_alphabet_raise_invalid_request(bench: Bench) -> None:
    shadow = Shadow(bench)
    shadow.names["thingName"] = "no such name!"
    error = _refused(shadow.get, shadow.client.exceptions.InvalidRequestException)
    expect((_status(error), _message(error)), (400, "Invalid thing name"), "refusal of a thing's name")
    shadow.names = {"thingName": shadow.thing, "shadowName": "a b"}
    error = _refused(shadow.get, shadow.client.exceptions.InvalidRequestException)
    expect((_status(error), _message(error)), (400, "Invalid shadow name"), "refusal of a shadow's name")


@single_case
def named_shadows_are_listed_in_order_page_by_page(bench: Bench) -> None:
    shadow = Shadow(bench)
    expect(_names(shadow, PAGE), [[]], "names of a thing that has only none")
    shadow.update({"state": {}})
    for number in range(LISTED):
        shadow.names["shadowName"] = f"n{number:03}"
        shadow.update({"state": {}})
        if number == 0:
            expect(_names(shadow, PAGE), [["n000"]], "one name, without the classic shadow")
    names = [f"n{number:03}" for number in range(LISTED)]
    expect(_names(shadow, PAGE), [names[:PAGE], names[PAGE:]], "pages of 101 names")
    shadow.names["shadowName"] = names[-1]
    shadow.delete()
    expect(_names(shadow, PAGE), [names[:PAGE]], "100 names fill one page, without what was deleted")
    expect(len(_names(shadow, None)[0]), 25, "names of a page by default")
    expect([len(page) for page in _names(shadow, 33)], [33, 33, 33, 1], "names of each page")


@single_case
def an_unknown_thing_has_no_named_shadows(bench: Bench) -> None:
    answer = client(bench).list_named_shadows_for_thing(thingName="nobody")
    expect((answer["results"], "nextToken" in answer), ([], False), "answer")


@single_case
def a_next_token_of_no_list_raises_invalid_request(bench: Bench) -> None:
    shadow = Shadow(bench)
    error = _refused(
        lambda: shadow.client.list_named_shadows_for_thing(thingName=shadow.thing, nextToken="%%%"),
        shadow.client.exceptions.InvalidRequestException,
    )
    expect(_status(error), 400, "status")


@single_case
def a_refusal_over_http_is_not_told_over_mqtt(bench: Bench) -> None:
    shadow = Shadow(bench)
    with connection(bench.gnomon, shadow.thing, MQTT_5) as opened:
        listener = V1(opened, shadow.thing, "")
        listener.subscribe(*V1.TOPICS)
        stale = {"state": {"desired": {"n": 2}}, "version": 9}
        _refused(lambda: shadow.update(stale), shadow.client.exceptions.ConflictException)
        listener.heard.expect_nothing()
        shadow.update({"state": {"desired": {"n": 1}}})
        listener.heard.expect("delta")
        listener.heard.expect("documents")
        listener.heard.expect_nothing()


# ---------------------------------------------------------------------- details


def _refused(call: Callable[[], Any], wanted: type[Exception]) -> ClientError:
    try:
        answer = call()
    except ClientError as error:
        if not isinstance(error, wanted):
            raise MissedError(f"{error} was raised, not {wanted.__name__}") from error
        return error
    raise MissedError(f"it was not refused: {answer!r}")


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _message(error: ClientError) -> str:
    """Return AWS's text, wherever this error class keeps it."""
    return str(error.response.get("message") or error.response["Error"]["Message"])


def _body(answer: Any) -> Any:
    return msgspec.json.decode(answer["payload"].read())


def _names(shadow: Shadow, size: int | None) -> list[list[str]]:
    return list(_pages(shadow, {} if size is None else {"pageSize": size}))


def _pages(shadow: Shadow, options: dict[str, Any]) -> Iterator[list[str]]:
    for _ in range(LISTED + 1):
        answer = shadow.client.list_named_shadows_for_thing(thingName=shadow.thing, **options)
        yield answer["results"]
        if "nextToken" not in answer:
            return
        options["nextToken"] = answer["nextToken"]
    raise MissedError("the list does not end")
