"""``gnomon voucher``: a code with which one device joins, for whoever may let it in."""

import http.client
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import click
import msgspec

from gnomon.commands.options import telling
from infra.settings.model import is_loopback
from security.secret import Secret

URL: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 65_536
_OK, _CREATED = 200, 201


class _Thing(msgspec.Struct):
    """What a voucher repeats of a thing."""

    premises: str
    kind: str


class _Voucher(msgspec.Struct):
    """What is shown once."""

    id: str
    code: str


class _Problem(msgspec.Struct):
    """Why not."""

    title: str
    detail: str = ""


@click.command()
@click.argument("thing")
@click.option("--url", default=URL, show_default=True, help="Where the service is.")
@click.option(
    "--token",
    "token_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    required=True,
    help="File with your access token; `-`: standard input, as from `gnomon token`.",
)
def voucher(thing: str, url: str, token_file: Path) -> None:
    """Make a voucher for THING, which is registered, and print it as `gnomon enrol --code-file` takes it.

    It is good for a day and one key, and it is shown now only.
    """
    with telling():
        text = sys.stdin.readline() if str(token_file) == "-" else token_file.read_text(encoding="utf-8")
        token = Secret(text.strip())
        path = f"/v1/things/{quote(thing, safe='')}"
        known = msgspec.json.decode(_ask(url, token, "GET", path, None), type=_Thing)
        wanted = {"thing": thing, "premises": known.premises, "kind": known.kind}
        made = msgspec.json.decode(_ask(url, token, "POST", "/v1/vouchers", wanted), type=_Voucher)
    click.echo(f"{made.id}:{made.code}")


def _ask(url: str, token: Secret, method: str, path: str, body: dict[str, str] | None) -> bytes:
    """Return the answer's body, or say why there is none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise click.ClickException("write the address as https://…: a token does not travel in the open")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, parts.port, timeout=TIMEOUT_S)
    fields = {"Authorization": f"Bearer {token.reveal()}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else msgspec.json.encode(body), fields)
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise click.ClickException(f"{url} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status not in {_OK, _CREATED}:
        raise click.ClickException(_refusal(answer.status, data))
    return data


def _refusal(status: int, data: bytes) -> str:
    try:
        problem = msgspec.json.decode(data, type=_Problem)
    except msgspec.DecodeError:
        return f"refused with {status}"
    return f"refused with {status}: {problem.detail or problem.title}"
