"""What is said of credential files that are none, and of a service that says no or nothing."""

import socket
import ssl
import threading
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from api.problems import KINDS
from gnomon.access import Access
from gnomon.cli import main
from gnomon.credentials import KEYS, Credentials, read_credentials
from gnomon.refusals import AccessError, NotProvedError, UnreachableError, refusal, span, unreachable
from security import private_files
from tests.fakes import FakeClock

CANARY = "K7ZQcanary24ahnCANARYxyz"
SEED = "JBSWY3DPEHPK3PXP" * 2
AWAY = 'url = "http://127.0.0.1:1"\n'
FILES = {
    "a bare secret": CANARY,
    "a secret and an end of line": f"{CANARY}\n{CANARY}\n",
    "a broken string": f'{AWAY}login = "ann"\npassword = "{CANARY}\n',
    "a secret that is a key": f'{CANARY} = "x"\n',
    "a table twice": f"[{CANARY}]\n[{CANARY}]\n",
    "no address": f'login = "ann"\npassword = "{CANARY}"\n',
    "an address that is none": f'url = "{CANARY}"\nlogin = "ann"\n',
    "an address with a password": f'url = "http://ann:{CANARY}@127.0.0.1:1"\nlogin = "ann"\n',
    "an address with a strange port": f'url = "http://127.0.0.1:{CANARY}"\nlogin = "ann"\n',
    "an address with a line end": f'url = "http://127.0.0.1:1\\n{CANARY}"\nlogin = "ann"\n',
    "a service that is away": f'{AWAY}login = "ann"\npassword = "{CANARY}"\ntotp_seed = "{SEED}"\n',
    "a seed that is none": f'{AWAY}login = "ann"\npassword = "x"\ntotp_seed = "{CANARY}!"\n',
    "a client's secret": f'{AWAY}client_id = "c-a"\nclient_secret = "{CANARY}\\r\\nX: y"\n',
    "a number": f"{AWAY}login = 'ann'\npassword = ['{CANARY}']\n",
    "other keys": f'{AWAY}login = "ann"\npasword = "{CANARY}"\n',
}
COMMANDS = [
    ("token", "FILE"),
    ("person", "list", "--as", "FILE"),
    ("person", "add", "ann", "rep", "--as", "FILE"),
    ("voucher", "hall", "--as", "FILE"),
    ("enrol", "hall", "--url", "https://127.0.0.1:1", "--root-sha256", "00", "--code-file", "FILE"),
]


def _file(tmp_path: Path, text: str) -> Path:
    private_files.create(file := tmp_path / "ann.toml", text.encode())
    return file


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_no_command_ever_shows_what_a_secret_file_holds(tmp_path: Path, command: tuple[str, ...], text: str):
    file = _file(tmp_path, text)
    done = CliRunner().invoke(main, [str(file) if one == "FILE" else one for one in command])
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert CANARY not in done.output


def test_a_token_in_a_session_file_that_is_no_header_is_not_shown(tmp_path: Path):
    file = _file(tmp_path, f'{AWAY}login = "ann"\npassword = "x"\n')
    session = {"access_token": f"{CANARY}\nx", "ends_ms": 1 << 50}
    private_files.create(file.with_name("ann.toml.session"), msgspec.json.encode(session))
    done = CliRunner().invoke(main, ["person", "list", "--as", str(file)])
    assert done.exit_code == 1
    assert CANARY not in done.output


def test_a_misspelt_key_is_refused_and_the_keys_are_named(tmp_path: Path):
    with pytest.raises(AccessError) as refused:
        read_credentials(_file(tmp_path, f'{AWAY}login = "ann"\npasword = "x"\n'))
    assert "did you mean password?" in str(refused.value)
    assert all(key in str(refused.value) for key in KEYS)


def test_a_seed_may_stand_there_as_it_was_shown_to_be_typed(tmp_path: Path):
    text = f'{AWAY}login = "ann"\ntotp_seed = "jbsw y3dp ehpk 3pxp jbsw y3dp ehpk 3pxp"\n'
    seed = read_credentials(_file(tmp_path, text)).totp_seed
    assert seed is not None
    assert seed.reveal() == SEED


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.slug)
def test_every_refusal_is_told_with_its_reason_and_with_what_to_do(kind):
    body = {
        "type": f"/docs/problems#{kind.slug}",
        "title": kind.title,
        "detail": "so it is",
        "requestId": "r-1",
    }
    told = str(refusal(httpx.Response(kind.status, json=body)))
    assert f"({kind.status})" in told
    assert f"{kind.title}: so it is" in told
    assert kind.remedy in told
    assert ("r-1" in told) is (kind.slug == "internal-failure")


def test_what_says_the_same_twice_is_told_once():
    body = {"type": "x#login-taken", "title": "Taken", "detail": "taken: choose another one"}
    assert str(refusal(httpx.Response(409, json=body))).startswith(
        "refused (409): taken: choose another one\n"
    )


def test_of_a_proof_that_failed_the_command_says_what_to_do():
    unauthorized = {"type": "/docs/problems#unauthorized", "title": "Unauthorized"}
    told = refusal(httpx.Response(401, json=unauthorized), "wait for the next code")
    assert isinstance(told, NotProvedError)
    assert str(told) == "refused (401): Unauthorized\nwait for the next code"
    assert "wait" not in str(
        refusal(httpx.Response(403, json={"type": "#forbidden"}), "wait for the next code")
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [("21022799", "244 days"), ("90000", "2 days"), ("86400", "24 hours"), ("61", "2 minutes"), ("9", "9 s")],
)
def test_how_long_to_wait_is_told_as_a_person_says_it(seconds: str, said: str):
    answer = httpx.Response(429, json={"title": "Too many tries"}, headers={"Retry-After": seconds})
    assert str(refusal(answer)) == f"refused (429): Too many tries (wait {said})"
    assert span("") == "a while"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"title": 7}', b"\xff"])
def test_what_is_no_problem_document_is_a_refusal_all_the_same(content: bytes):
    assert str(refusal(httpx.Response(502, content=content))) == "refused (502): no reason given"
    assert isinstance(refusal(httpx.Response(503, content=content)), UnreachableError)


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        (
            "https://a",
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate"),
            "--root",
        ),
        (
            "https://a",
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, not valid for 'a'"),
            "broker.hosts",
        ),
        ("https://a", httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER]"), "http://"),
        ("http://a", httpx.RemoteProtocolError("Server disconnected"), "https://"),
        ("http://a", httpx.ReadError(""), "https://"),
        ("http://a", httpx.ConnectTimeout(""), "ConnectTimeout"),
    ],
)
def test_a_connection_that_fails_says_what_may_be_wrong_with_the_address(
    url: str, error: httpx.HTTPError, said: str
):
    assert said in str(unreachable(url, error))


def test_http_to_a_service_that_speaks_tls_says_to_write_https():
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def serve() -> None:
            connection, _ = server.accept()
            with pytest.raises(ssl.SSLError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        access = Access(Credentials(url, "ann"), FakeClock(), lambda _: "x")
        with pytest.raises(UnreachableError, match="https://"):
            access.token()
        access.close()
        thread.join()
