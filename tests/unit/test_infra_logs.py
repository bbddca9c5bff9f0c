import io
import logging

import msgspec
import pytest
import structlog

from infra import logs
from infra.settings import LogSettings


@pytest.fixture(autouse=True)
def put_back():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def logger(**settings):
    out = io.StringIO()
    logs.configure(LogSettings(**settings), out)
    return structlog.get_logger(), out


def fail(reason):
    twice = reason * 2
    raise ValueError(reason, len(twice))


def event(out):
    return msgspec.json.decode(out.getvalue())


def test_an_event_is_one_json_object_a_line_with_time_and_level():
    log, out = logger(format="json")
    log.info("shadow_updated", thing="hall", version=3)
    assert event(out) | {"at": ""} == {
        "event": "shadow_updated", "level": "info", "thing": "hall", "version": 3, "at": "",
    }  # fmt: skip
    assert event(out)["at"].endswith("Z")


@pytest.mark.parametrize(
    "name",
    [
        "token", "clientToken", "client_token", "tokens", "password", "db_password", "payload", "private_key",
        "privateKey", "private_key_pem", "secret", "clientSecret", "authorization", "Authorization",
        "cookie", "credentials", "body", "API_KEY", "X-Api-Key",
    ],
)  # fmt: skip
def test_a_field_with_a_telling_name_is_hidden(name):
    log, out = logger(format="json")
    log.info("something", **{name: "hunter2"}, nested=[{name: {"deep": "hunter2"}}])
    assert event(out)[name] == "***"
    assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize(
    "name", ["key", "thing", "version", "code", "reason", "shadow", "monkey", "tokenizer"]
)
def test_other_fields_are_shown(name):
    log, out = logger(format="json")
    log.info("something", **{name: "seen"})
    assert event(out)[name] == "seen"


def test_bytes_are_shown_by_their_number_only():
    log, out = logger(format="json")
    log.info("something", data=b"hunter2", more=[bytearray(3)])
    assert (event(out)["data"], event(out)["more"]) == ("7 bytes", ["3 bytes"])


def test_what_is_nested_too_deep_to_search_is_hidden():
    log, out = logger(format="json")
    deep: object = "hunter2"
    for _ in range(logs.DEPTH_MAX + 1):
        deep = {"a": deep}
    log.info("something", deep=deep)
    assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_url_loses_its_credentials_in_values_in_tracebacks_and_in_what_libraries_say(format):
    log, out = logger(format=format)
    url = "mongodb://user:hunter2@host/db"
    log.info("opened", store=url)
    try:
        fail(url)
    except ValueError:
        log.exception("failed")
    logging.getLogger("some.library").warning("cannot reach %s", url)
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("mongodb://***@host/db") == 3


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_does_not_show_local_variables(format):
    log, out = logger(format=format)
    try:
        fail("hunter")
    except ValueError:
        log.exception("failed")
    assert "in fail" in out.getvalue()
    assert "hunterhunter" not in out.getvalue()


def test_events_below_the_level_are_not_shown():
    log, out = logger(level="warning")
    log.info("quiet")
    log.warning("loud")
    assert "quiet" not in out.getvalue()
    assert "loud" in out.getvalue()


def test_a_value_that_json_does_not_know_is_spelled_not_lost():
    log, out = logger(format="json")
    log.info("something", error=ValueError("why"))
    assert event(out)["error"] == "why"
