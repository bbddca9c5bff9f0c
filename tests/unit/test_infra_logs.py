import io
import logging
from urllib.parse import quote

import msgspec
import pytest
import structlog

from infra import logs
from infra.settings import LogSettings

CANARY = "canary-9f2c4e6a/8b0d=1f35"


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    monkeypatch.setattr(logs, "_canaries", logs.Canaries())
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


# Canaries


class Telling:
    def __repr__(self):
        return f"<Telling {CANARY}>"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_concealed_value_is_struck_out_wherever_it_stands(format):
    log, out = logger(format=format)
    logs.conceal(CANARY)
    said = f"joined {CANARY}"
    log.info(said, reason=f"user:{CANARY}@host", **{f"n_{CANARY}": 1})
    log.info("nested", a=[{"b": {"c": (CANARY, f"x{CANARY}y")}}], odd={CANARY: 1}, error=ValueError(CANARY))
    log.info("objects", thing=Telling(), things=[Telling()], encoded=f"/?p={quote(CANARY, safe='')}")
    try:
        fail(CANARY)
    except ValueError:
        log.exception("failed")
    logging.getLogger("some.library").warning("cannot use %s", CANARY)
    try:
        fail(CANARY)
    except ValueError:
        logging.getLogger("some.library").exception("raised")
    assert out.getvalue().count("***") >= 10
    assert CANARY not in out.getvalue()
    assert quote(CANARY, safe="") not in out.getvalue()


def test_of_two_concealed_values_one_of_which_begins_with_the_other_nothing_is_left():
    log, out = logger(format="json")
    logs.conceal("hunter2-hunter2", "hunter2-hunter2-and-more")
    log.info("something", reason="hunter2-hunter2-and-more hunter2-hunter2")
    assert event(out)["reason"] == "*** ***"


def test_a_value_too_short_to_be_a_secret_conceals_nothing():
    log, out = logger(format="json")
    logs.conceal("", "e", "x" * (logs.CANARY_CHARS_MIN - 1))
    log.info("something", reason="seen, and xxxxxxx")
    assert event(out)["reason"] == "seen, and xxxxxxx"


def test_concealed_values_are_bounded_and_the_newest_stay():
    log, out = logger(format="json")
    logs.conceal(*(f"value-{number:06d}" for number in range(logs.CANARIES_MAX + 1)))
    log.info("something", first="value-000000", last=f"value-{logs.CANARIES_MAX:06d}")
    assert (event(out)["first"], event(out)["last"]) == ("value-000000", "***")


def test_what_is_concealed_changes_nothing_else():
    log, out = logger(format="json")
    logs.conceal(CANARY)
    log.info("something", number=3, truth=True, nothing=None, ratio=0.5, text="seen")
    assert event(out) | {"at": ""} == {
        "event": "something", "level": "info", "number": 3, "truth": True, "nothing": None, "ratio": 0.5,
        "text": "seen", "at": "",
    }  # fmt: skip
