"""A customer care system over HTTP on its bad days, and how it is reached: against a real server."""

import ssl
from collections.abc import Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from infra.outbox import OutboxItem
from infra.settings import CareSettings, SettingsError, load
from infra.states import ItemState
from provisioning import care_demo, care_http
from provisioning.care import CareRefusedError, CareUnavailableError, SearchBy
from provisioning.care_http import (
    ANSWER_BYTES_MAX,
    FIELDS,
    TITLE_CHARS_MAX,
    CareSetupError,
    HttpCare,
    connect,
    field_names,
    pick,
    text,
)
from tests import certificates
from tests.care_server import TOKEN, CareServer, serving
from tests.fakes import NOW_MS, FakeClock

ADA = care_demo.customers()[0]
ITEM = OutboxItem(
    "key-1", "pr-0001", 1, "han.device.registered", b'{"device":"th-1"}', NOW_MS, ItemState.SENDING
)


@pytest.fixture
def server() -> Iterator[CareServer]:
    with serving(CareServer([ADA], token="")) as running:
        yield running


@asynccontextmanager
async def asking(url: str, **settings):
    care = connect(CareSettings(adapter="http", url=url, **settings), FakeClock())
    try:
        yield care
    finally:
        await care.close()


# What its answers mean


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_system_that_is_busy_is_asked_again(server, status):
    server.status = status
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError) as busy:
            await care.deliver(ITEM)
        assert str(status) in str(busy.value)
        assert busy.value.retry_after_s is None
        with pytest.raises(CareUnavailableError):
            await care.search(SearchBy.PHONE, ADA.phone, 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 301, 307])
async def test_a_record_that_is_refused_is_not_sent_again_by_itself(server, status):
    server.status = status
    server.headers = {"Location": server.url + "/elsewhere"}
    async with asking(server.url) as care:
        with pytest.raises(CareRefusedError) as refused:
            await care.deliver(ITEM)
        assert refused.value.status == status
        # Where a redirect leads nobody vouches for.
        assert server.heard == [("POST", "/care/records")]


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (formatdate(NOW_MS / 1_000 + 90, usegmt=True), 90.0),
        ("soon", None),
        ("-5", None),
    ],
)
async def test_what_it_asks_for_is_told_on(server, field, seconds):
    server.status, server.headers = 503, {"Retry-After": field}
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError) as busy:
            await care.deliver(ITEM)
        assert busy.value.retry_after_s == (None if seconds is None else pytest.approx(seconds, abs=1))


@pytest.mark.parametrize(
    "said", [b"", b"hello", b"[]", b"null", b'{"customers":{}}', b'{"customers":[7]}', b'{"customers":[{}]}']
)
async def test_an_answer_that_cannot_be_read_is_none(server, said):
    server.said = said or b" "
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError):
            await care.search(SearchBy.PHONE, ADA.phone, 5)


@pytest.mark.parametrize(
    "said",
    [
        b'{"ref":"c"}',
        b'{"ref":"","accounts":[]}',
        b'{"ref":true,"accounts":[]}',
        b'{"ref":"c","accounts":[{"number":"1"}]}',
        b'{"ref":"c","accounts":[' + b",".join([b'{"id":"a"}'] * 51) + b"]}",
    ],
)
async def test_a_customer_without_what_we_need_is_none(server, said):
    server.said = said
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError):
            await care.customer(ADA.ref)


async def test_what_we_need_not_may_be_missing_and_too_much_is_cut(server):
    server.said = b'{"ref":17,"name":"' + b"x" * 1_000 + b'","accounts":[{"id":"a","number":42}]}'
    async with asking(server.url) as care:
        found = await care.customer(ADA.ref)
    assert found is not None
    assert (found.ref, len(found.name), found.phone, found.accounts[0].number) == ("17", 500, "", "42")


async def test_more_answers_than_asked_for_are_left_out(server):
    server.said = b'{"customers":[' + b",".join([b'{"ref":"c","accounts":[]}'] * 9) + b"]}"
    async with asking(server.url) as care:
        assert len(await care.search(SearchBy.PHONE, ADA.phone, 5)) == 5


async def test_an_answer_without_end_is_not_read_to_its_end(server):
    server.said = b" " * (ANSWER_BYTES_MAX + 1)
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError, match="more than"):
            await care.customer(ADA.ref)


async def test_nobody_waits_for_longer_than_the_bound(server, monkeypatch):
    monkeypatch.setattr(care_http, "ANSWER_S_MAX", 0.1)
    server.slow_s = 0.5
    async with asking(server.url) as care:
        with pytest.raises(CareUnavailableError, match="did not answer"):
            await care.customer(ADA.ref)


async def test_nobody_there_is_a_system_that_is_down():
    with serving(CareServer([])) as gone:
        url = gone.url
    async with asking(url) as care:
        with pytest.raises(CareUnavailableError, match="cannot be reached"):
            await care.customer(ADA.ref)


async def test_a_record_whose_answer_was_lost_is_sent_again_and_kept_once(server):
    async with asking(server.url) as care:
        server.deaf = True
        with pytest.raises(CareUnavailableError):
            await care.deliver(ITEM)
        server.deaf = False
        await care.deliver(ITEM)
    assert list(server.records) == [ITEM.idempotency_key]
    assert server.order == [("pr-0001", 1)]


async def test_a_receipt_that_cannot_be_read_is_a_receipt_all_the_same(server):
    server.said = b"thank you"
    async with asking(server.url) as care:
        assert (await care.deliver(ITEM)).reference == ""


async def test_a_certificate_that_is_refused_late_is_a_system_that_cannot_be_reached():
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise ssl.SSLError("certificate required")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="https://care") as http:
        with pytest.raises(CareUnavailableError, match="cannot be reached"):
            await HttpCare(http, FIELDS, FakeClock()).customer(ADA.ref)


# What remains of what it says


async def test_of_a_refusal_the_title_remains_and_nothing_is_logged(server):
    server.status = 422
    server.said = b'{"title":"No such\\nplace","detail":"Ada Example, 1 Gnomon Way","name":"Ada"}'
    with capture_logs() as said:
        async with asking(server.url) as care:
            with pytest.raises(CareRefusedError) as refused:
                await care.deliver(ITEM)
    assert str(refused.value) == "422 No such place"
    assert said == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"Ada Example", "Unprocessable Entity"),
        (b'{"title":7}', "Unprocessable Entity"),
        (b'["title"]', "Unprocessable Entity"),
        (b'{"title":"' + b"t" * 1_000 + b'"}', "t" * TITLE_CHARS_MAX),
    ],
)
async def test_a_refusal_without_a_title_is_told_by_its_number(server, said, shown):
    server.status, server.said = 422, said
    async with asking(server.url) as care:
        with pytest.raises(CareRefusedError) as refused:
            await care.deliver(ITEM)
    assert refused.value.text == shown


async def test_no_name_address_or_number_is_in_an_address_that_is_asked(server):
    async with asking(server.url) as care:
        await care.search(SearchBy.ADDRESS, ADA.accounts[0].address, 5)
        await care.search(SearchBy.PHONE, ADA.phone, 5)
        await care.customer(ADA.ref)
    assert server.heard == [
        ("POST", "/care/customer-searches"),
        ("POST", "/care/customer-searches"),
        ("GET", "/care/customers/cust-0001"),
    ]


# How it is reached


async def test_without_the_token_nothing_is_learned():
    with serving(CareServer([ADA])) as server:
        async with asking(server.url) as care:
            with pytest.raises(CareRefusedError) as refused:
                await care.customer(ADA.ref)
            assert refused.value.status == 401


async def test_both_sides_show_a_certificate(tmp_path):
    authority = certificates.open_authority(tmp_path / "theirs")
    other = certificates.open_authority(tmp_path / "another")
    shown = certificates.issue_server(authority)
    pem = tmp_path / "server.pem"
    pem.write_bytes(shown.certificate_pem + shown.private_key_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.authorities_path)
    ours = certificates.issue_service(authority, "gnomon")
    certificate, key = tmp_path / "gnomon.crt", tmp_path / "gnomon.key"
    certificate.write_bytes(ours.certificate_pem)
    key.write_bytes(ours.private_key_pem)
    key.chmod(0o600)
    files = {"certificate_file": str(certificate), "key_file": str(key)}
    with serving(CareServer([ADA], token=""), tls) as server:
        async with asking(server.url, authorities_file=str(authority.root_pem_path), **files) as care:
            assert await care.customer(ADA.ref) == ADA
        for wrong in (
            {"authorities_file": str(authority.root_pem_path)},
            {"authorities_file": str(other.root_pem_path), **files},
            files,
        ):
            async with asking(server.url, **wrong) as care:
                with pytest.raises(CareUnavailableError):
                    await care.customer(ADA.ref)


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (TOKEN, 0o644, "others than its owner"),
        ("", 0o600, "holds no token"),
        ("zwölf", 0o600, "holds no token"),
        ("two\nlines", 0o600, "holds no token"),
        (None, 0o600, "holds no token"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_named(tmp_path, content, mode, problem):
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(CareSetupError, match=problem) as refused:
        connect(CareSettings(url="https://care.example", token_file=str(file)), FakeClock())
    assert refused.value.key == "care.token_file"
    assert TOKEN not in str(refused.value)


def test_files_that_cannot_be_used_are_named(tmp_path):
    nothing = str(tmp_path / "none.pem")
    key = tmp_path / "open.key"
    key.write_text("key")
    key.chmod(0o644)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"authorities_file": nothing}, "care.authorities_file"),
        ({"certificate_file": nothing, "key_file": nothing}, "care.key_file"),
        ({"certificate_file": nothing, "key_file": str(key)}, "care.key_file"),
    )
    for settings, named in cases:
        with pytest.raises(CareSetupError) as refused:
            connect(CareSettings(url="https://care.example", **settings), FakeClock())
        assert refused.value.key == named


@pytest.mark.parametrize(
    "url", ["", "http://care.example", "ftp://care.example", "care.example", "https://", "http://10.0.0.1"]
)
def test_names_and_addresses_do_not_travel_where_others_listen(url):
    with pytest.raises(SettingsError) as refused:
        load(environ={"GNOMON_CARE_ADAPTER": "http", "GNOMON_CARE_URL": url})
    assert refused.value.key == "care.url"


@pytest.mark.parametrize("url", ["https://care.example/v1", "http://127.0.0.1:8000", "http://[::1]:80/x"])
def test_a_private_way_is_taken(url):
    assert load(environ={"GNOMON_CARE_ADAPTER": "http", "GNOMON_CARE_URL": url}).care.url == url


def test_a_certificate_needs_its_key():
    with pytest.raises(SettingsError) as refused:
        load(environ={"GNOMON_CARE_CERTIFICATE_FILE": "a.crt"})
    assert refused.value.key == "care.key_file"


# Its words for our fields


def test_a_field_that_is_none_of_ours_is_named():
    assert field_names(["name=a.b", "account.id=nr"]) == {**FIELDS, "name": "a.b", "account.id": "nr"}
    with pytest.raises(CareSetupError, match="birthday"):
        field_names(["birthday=dob"])
    with pytest.raises(SettingsError):
        load(environ={"GNOMON_CARE_FIELDS": "name"})


def test_what_is_not_there_is_empty():
    tree = {"a": {"b": "x", "n": 7, "t": True, "l": ["y"], "empty": ""}}
    assert pick(tree, "a.b.c") is None
    assert [text(tree, path) for path in ("a.b", "a.n", "a.t", "a.l", "a", "z", "a.b+a.empty+a.n")] == [
        "x",
        "7",
        "",
        "",
        "",
        "",
        "x 7",
    ]
