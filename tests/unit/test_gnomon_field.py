"""The field tool: a real server on the loopback, its journal, and what it says to a crew."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from gnomon import cli
from gnomon.commands import field as commands
from gnomon.field import load
from gnomon.journal import Journal, JournalError
from infra.clock import Clock
from ota.bundle import BundleError, write
from tests.bundles import bundle
from tests.covers import covers
from tests.fakes import FakeClock
from tests.key_lists import SEALED
from tests.on_site import field_tool
from tests.ota_base import IMAGE, MANIFEST_COSE, NOW_S, ORDER, ORDER_COSE

SHA256 = hashlib.sha256(IMAGE).hexdigest()
THING = "han-0003"
KEYS = "/.well-known/gnomon/keys"
STATUS = f"/v1/local/status?thing={THING}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "campaign.bundle")


def written(path: Path, **changes: Any) -> Path:
    path.write_bytes(b"".join(bytes(piece) for piece in write(bundle(**changes))))
    return path


def serving(file: Path, journal: Path, clock: Clock | None = None) -> AbstractContextManager[httpx.Client]:
    return field_tool(file, journal, clock or FakeClock(NOW_S * 1_000))


def told(client: httpx.Client, status: str, **details: str) -> httpx.Response:
    return client.post(STATUS, json={"status": status, "statusDetails": details})


def upgraded(client: httpx.Client) -> None:
    """Take a device through its job, as one does that has no network but this one."""
    document = client.get(f"/v1/local/job/{THING}").json()["gnomon"]
    assert base64.b64decode(document["manifest"]) == MANIFEST_COSE
    assert base64.b64decode(document["order"]) == ORDER_COSE
    assert base64.b64decode(document["proof"]) == bundle().proofs[THING]
    assert told(client, "IN_PROGRESS", fs="1").status_code == 200
    assert client.get(document["http"]).content == IMAGE
    assert told(client, "IN_PROGRESS", fs="3").status_code == 200
    gate = told(client, "IN_PROGRESS", fs="5", gate="ask")
    assert gate.json()["executionState"]["statusDetails"]["gate"] == "go"
    assert told(client, "IN_PROGRESS", fs="7").status_code == 200
    done = client.post(
        STATUS,
        json={"status": "SUCCEEDED", "statusDetails": {"fs": "8"}, "includeJobExecutionState": True},
    )
    assert done.json()["executionState"]["status"] == "SUCCEEDED"


@covers("I3FR6.1")
def test_a_device_is_upgraded_without_any_network_and_the_journal_tells_of_it(file, tmp_path):
    journal = tmp_path / "day.jsonl"
    with serving(file, journal) as client:
        upgraded(client)
    (line,) = Journal(journal).last().values()
    assert commands.installed(line) == {
        "order": hashlib.sha256(ORDER_COSE).hexdigest(),
        "manifest": hashlib.sha256(MANIFEST_COSE).hexdigest(),
        "sha256": SHA256,
        "started_at": "2026-09-21T14:15:00Z",
        "finished_at": "2026-09-21T14:15:00Z",
        "result": "SUCCEEDED",
        "operator": "ines",
    }


def test_a_tool_that_was_switched_off_goes_on_where_it_was(file, tmp_path):
    journal = tmp_path / "day.jsonl"
    with serving(file, journal) as client:
        client.get(f"/v1/local/job/{THING}")
        told(client, "IN_PROGRESS", fs="3")
    with journal.open("ab") as torn:
        torn.write(b'{"at_ms":17900001')
    with serving(file, journal) as client:
        back = told(client, "IN_PROGRESS", fs="1")
        assert (back.status_code, back.json()["code"]) == (409, "InvalidStateTransition")
        assert told(client, "IN_PROGRESS", fs="5").status_code == 200
    assert len(list(Journal(journal).lines())) == 3, "what was refused has changed nothing"


@covers("I3FR6.1")
@pytest.mark.parametrize(
    ("now_s", "status", "code"),
    [
        (ORDER.not_before - 1, 429, "RequestThrottled"),
        (ORDER.not_before, 200, None),
        (ORDER.not_after - 1, 200, None),
        (ORDER.not_after, 409, "InvalidStateTransition"),
    ],
)
def test_the_gate_opens_only_inside_the_time_of_the_order(file, tmp_path, now_s, status, code):
    with serving(file, tmp_path / "day.jsonl", FakeClock(now_s * 1_000)) as client:
        client.get(f"/v1/local/job/{THING}")
        told(client, "IN_PROGRESS", fs="1")
        answer = told(client, "IN_PROGRESS", fs="5", gate="ask")
        assert (answer.status_code, answer.json().get("code")) == (status, code)
        assert ("retryAfter" in answer.json()) == (status == 429)


def test_who_is_not_meant_gets_no_job_and_may_say_nothing(file, tmp_path):
    with serving(file, tmp_path / "day.jsonl") as client:
        answer = client.get("/v1/local/job/han-0009")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        said = client.post("/v1/local/status?thing=han-0009", json={"status": "SUCCEEDED"})
        assert said.status_code == 404
        assert client.post("/v1/local/status", json={"status": "SUCCEEDED"}).status_code == 400
        assert client.get("/v1/ota/images/" + "0" * 64).status_code == 404
        assert client.get("/etc/passwd").status_code == 404
    assert not (tmp_path / "day.jsonl").exists()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "InvalidJson"),
        (b"{}", 400, "InvalidRequest"),
        (b'{"status":"DONE"}', 400, "InvalidRequest"),
    ],
)
def test_what_cannot_be_read_is_refused_in_the_words_of_the_protocol(file, tmp_path, body, status, code):
    with serving(file, tmp_path / "day.jsonl") as client:
        answer = client.post(STATUS, content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        large = client.post(STATUS, content=b" " * 40_000)
        assert large.status_code == 413


@covers("I3FR6.1")
def test_an_image_is_resumed_by_ranges(file, tmp_path):
    url = f"/v1/ota/images/{SHA256}"
    with serving(file, tmp_path / "day.jsonl") as client:
        whole = client.get(url)
        assert (whole.status_code, whole.headers["etag"]) == (200, f'"{SHA256}"')
        head = client.head(url)
        assert (head.headers["content-length"], head.content) == ("10000", b"")
        rest = client.get(url, headers={"Range": "bytes=5000-", "If-Range": whole.headers["etag"]})
        assert (rest.status_code, rest.headers["content-range"]) == (206, "bytes 5000-9999/10000")
        assert IMAGE[:5_000] + rest.content == IMAGE
        outside = client.get(url, headers={"Range": "bytes=10000-"})
        assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */10000")
        assert client.get(url, headers={"If-None-Match": f'"{SHA256}"'}).status_code == 304


def test_the_key_list_is_handed_out_as_the_service_does_and_jobs_name_its_number(file, tmp_path):
    with serving(file, tmp_path / "day.jsonl") as client:
        assert client.get(f"/v1/local/job/{THING}").json()["gnomon"]["keys"] == 7
        answer = client.get(KEYS)
        assert (answer.status_code, answer.headers["etag"], answer.content) == (200, '"7"', SEALED)
        assert answer.headers["content-type"] == "application/gnomon-keys+cbor"
        assert client.head(KEYS).headers["content-length"] == str(len(SEALED))
        had = client.get(KEYS, headers={"If-None-Match": '"7"'})
        assert (had.status_code, had.content) == (304, b"")


def test_where_a_bundle_has_no_key_list_there_is_none_to_hand_out(tmp_path):
    old = tmp_path / "old.bundle"
    old.write_bytes(b"".join(bytes(piece) for piece in write(replace(bundle(), keys=b""))))
    with serving(old, tmp_path / "day.jsonl") as client:
        assert client.get(f"/v1/local/job/{THING}").json()["gnomon"]["keys"] == 0
        assert client.get(KEYS).status_code == 204
    assert "keys       no list: devices judge by the one that they hold" in run("show", old).output


def test_a_line_that_is_none_is_named_and_the_file_is_left_alone(tmp_path):
    journal = tmp_path / "day.jsonl"
    journal.write_bytes(b'{"shadow":1}\n')
    with pytest.raises(JournalError, match="line 1"):
        list(Journal(journal).lines())
    assert journal.read_bytes() == b'{"shadow":1}\n'


# ---------------------------------------------------------------------------- the command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.main, ["field", *map(str, arguments)])


def test_it_shows_what_a_bundle_is_for_whom_and_until_when(file):
    said = run("show", file, "--things").output
    assert "acme T1, 2.4.0" in said
    assert "version    2.4.0.0, counter 3" in said
    assert "5 of 5" in said
    assert "keys       list 7, until 2026-09-22 14:15:00 UTC" in said
    assert "until      2026-09-28 14:13:20 UTC" in said
    assert said.splitlines()[-1] == "han-0005"


def test_an_order_that_is_over_is_said_to_be(tmp_path):
    said = run("show", written(tmp_path / "old", not_before=1_000_000_000, not_after=1_000_000_100)).output
    assert "OVER: no device takes it any more; fetch a new bundle" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "the file is empty; fetch the bundle again"), (b"PK\x03\x04", "this is no bundle")],
)
def test_a_file_that_is_no_bundle_is_refused_in_words(tmp_path, content, says):
    path = tmp_path / "x"
    path.write_bytes(content)
    answer = run("show", path)
    assert answer.exit_code == 1
    assert says in answer.output
    with pytest.raises(BundleError):
        load(path)


def test_serving_says_what_is_missing(file):
    answer = run("serve", file, "--operator", "ines")
    assert (answer.exit_code, "--journal" in answer.output) == (2, True)
    answer = run("serve", file, "--operator", "ines", "--journal", "j", "--listen", "8480")
    assert "for example 192.168.7.1:8480" in answer.output


def test_the_journal_is_told_once(file, tmp_path, monkeypatch):
    journal = tmp_path / "day.jsonl"
    with serving(file, journal) as client:
        upgraded(client)
        client.get("/v1/local/job/han-0001")
    assert run("journal", journal).output.splitlines() == [
        "han-0001  QUEUED  2026-09-21 14:15:00 UTC  not over",
        "han-0003  SUCCEEDED  2026-09-21 14:15:00 UTC  not told yet",
    ]
    asked: list[tuple[str, str, Any]] = []

    class Access:
        def request(self, method: str, path: str, body: Any) -> None:
            asked.append((method, path, body))

    @contextmanager
    def opened(_path: Path) -> Iterator[Access]:
        yield Access()

    monkeypatch.setattr(commands, "opened", opened)
    assert run("report", journal, "--as", "crew.toml").output == "han-0003  SUCCEEDED  told\n"
    assert [(method, path) for method, path, _ in asked] == [("PUT", "/v1/things/han-0003/installed")]
    assert msgspec.json.encode(asked[0][2])
    assert run("report", journal, "--as", "crew.toml").output == "there is nothing to tell\n"
    assert run("journal", journal).output.splitlines()[1].endswith("told")
    assert len(asked) == 1


def test_a_bundle_is_fetched_and_checked(file, tmp_path, monkeypatch):
    asked: list[str] = []

    class Access:
        def download(self, path: str, to: Path) -> None:
            asked.append(path)
            to.write_bytes(file.read_bytes())

    @contextmanager
    def opened(_path: Path) -> Iterator[Access]:
        yield Access()

    monkeypatch.setattr(commands, "opened", opened)
    monkeypatch.chdir(tmp_path)
    said = run("fetch", ORDER.campaign, "--as", "crew.toml").output
    assert said == (
        "fetched    c-6f1c7a520d5e4c5b9d1e2f8f6a1b3c4d.bundle, 5 devices, until 2026-09-28 14:13:20 UTC\n"
    )
    assert asked == [f"/v1/ota/campaigns/{ORDER.campaign}/bundle"]
    assert load(tmp_path / "c-6f1c7a520d5e4c5b9d1e2f8f6a1b3c4d.bundle").order == ORDER


def test_a_day_on_which_nothing_was_done(tmp_path):
    empty = tmp_path / "day.jsonl"
    empty.touch()
    assert run("journal", empty).output == "nothing was done yet\n"
    assert run("report", empty, "--as", "crew.toml").output == "there is nothing to tell\n"
