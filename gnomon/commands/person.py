"""``gnomon person`` and ``gnomon token``: accounts of people, over the API, with a credential file.

Passwords and codes are asked for and not shown; none is taken from the command line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx

from gnomon.access import (
    SESSION_SUFFIX,
    Access,
    AccessError,
    check_url,
    read_credentials,
    trust,
    write_credentials,
)
from gnomon.commands.options import telling
from infra.clock import SystemClock
from security.people.persons import PERSON_ROLES
from security.policy import Action

URL: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 30.0
ROLES: Final = sorted(role.value for role in PERSON_ROLES)

_as_option = click.option(
    "--as",
    "credentials",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Your credential file.",
)
_url_option = click.option("--url", default=URL, show_default=True, help="Where the service is.")
_root_option = click.option(
    "--root",
    default="",
    metavar="FILE",
    help="The root that signs for the service, as in var/ca/root.crt. Default: the public ones.",
)
_into_option = click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a credential file with address and login name here. It holds no password.",
)


@click.command()
@click.argument("credentials", type=click.Path(path_type=Path, dir_okay=False))
def token(credentials: Path) -> None:
    """Print an access token for the account in the file CREDENTIALS.

    Logs in, or goes on with the session that is kept in a private file beside it.
    """
    with _access(credentials) as access:
        click.echo(access.token())


@click.group()
def person() -> None:
    """People: the first officer, new accounts, roles, and what is stopped."""


@person.command()
@click.argument("login")
@_url_option
@_root_option
@_into_option
def first(login: str, url: str, root: str, into: Path | None) -> None:
    """Become the first security officer as LOGIN, with the secret that the first start printed.

    Shows the second factor once: put it into an authenticator app, and the recovery codes into a safe.
    """
    secret = _ask("secret that the service printed")
    body = {"secret": secret, "login": login, "password": _new_password()}
    _begin(_Place(url, root), "/v1/people/first", body, login, into)


@person.command()
@click.argument("login")
@_url_option
@_root_option
@_into_option
def accept(login: str, url: str, root: str, into: Path | None) -> None:
    """Accept an invitation as LOGIN: choose a password, and get a second factor."""
    invitation = _ask("invitation")
    body = {"invitation": invitation, "password": _new_password()}
    _begin(_Place(url, root), "/v1/invitations/accept", body, login, into)


@person.command()
@click.argument("login")
@click.argument("role", type=click.Choice(ROLES))
@click.option("--account", default="", help="A customer's account.")
@_as_option
def add(credentials: Path, login: str, role: str, account: str) -> None:
    """Make an account LOGIN with ROLE. It waits until a second security officer has approved it."""
    body = {"login": login, "role": role, "account": account}
    with _access(credentials) as access:
        made = access.request("POST", "/v1/people", body, confirms=Action.PRINCIPAL_WRITE)
    click.echo(f"{made['person']['id']}  {made['person']['state']}")
    click.echo(f"invitation  {made['invitation']}")
    click.echo("            shown only now: hand it to its owner, for `gnomon person accept`")
    _tell_approval(made)


@person.command(name="list")
@_as_option
def list_(credentials: Path) -> None:
    """List all people."""
    with _access(credentials) as access:
        for one in _all(access, "/v1/people"):
            click.echo(f"{one['id']}  {one['role']:<10} {one['state']:<9} {one['login']}")


@person.command()
@click.argument("id")
@click.argument("role", type=click.Choice(ROLES))
@click.option("--account", default="", help="A customer's account.")
@_as_option
def role(credentials: Path, id: str, role: str, account: str) -> None:
    """Ask for ROLE for the person ID. It waits until a second security officer has approved it."""
    body = {"role": role, "account": account}
    with _access(credentials) as access:
        _tell_approval(access.request("PUT", f"/v1/people/{id}/role", body, confirms=Action.ROLE_GRANT))


@person.command()
@click.argument("id")
@_as_option
def reset(credentials: Path, id: str) -> None:
    """Let the person ID, who lost a factor, begin anew. It waits for a second security officer."""
    with _access(credentials) as access:
        made = access.request("POST", f"/v1/people/{id}/reset", confirms=Action.PRINCIPAL_WRITE)
    click.echo(f"invitation  {made['invitation']}")
    _tell_approval(made)


@person.command()
@click.argument("id")
@_as_option
def disable(credentials: Path, id: str) -> None:
    """Let nobody log in as ID any more, and end what is open."""
    with _access(credentials) as access:
        done = access.request("POST", f"/v1/people/{id}/disable", confirms=Action.PRINCIPAL_WRITE)
        click.echo(f"{done['id']}  {done['state']}")


@person.command()
@click.argument("id", required=False)
@click.option("--everybody", is_flag=True, help="All people and systems: each has to log in again.")
@_as_option
def revoke(credentials: Path, id: str | None, everybody: bool) -> None:
    """End all sessions of the person ID within seconds, or those of everybody."""
    if everybody is (id is not None):
        raise click.UsageError("say whose: ID, or --everybody")
    with _access(credentials) as access:
        if id is not None:
            access.request("POST", f"/v1/people/{id}/revoke", confirms=Action.PRINCIPAL_WRITE)
            click.echo("ended")
        else:
            done = access.request("POST", "/v1/revoke-all", confirms=Action.REVOKE_ALL)
            click.echo("ended" if done["done"] else "not ended yet")
            _tell_approval(done)


@person.command()
@_as_option
def approvals(credentials: Path) -> None:
    """List what waits for a second person, and you may approve."""
    with _access(credentials) as access:
        for one in _all(access, "/v1/approvals"):
            facts = " ".join(f"{name}={value}" for name, value in one["facts"].items())
            click.echo(f"{one['id']}  {one['act']:<18} {one['target']}  {facts}  by {one['by']}")


@person.command()
@click.argument("id")
@click.option("--refuse", is_flag=True, help="Decide against it, or withdraw what you asked for.")
@_as_option
def approve(credentials: Path, id: str, refuse: bool) -> None:
    """Approve the act ID that somebody else asked for."""
    verb = "refuse" if refuse else "approve"
    with _access(credentials) as access:
        done = access.request("POST", f"/v1/approvals/{id}/{verb}", confirms=Action.APPROVAL_WRITE)
        click.echo(f"{done['id']}  {done['decision']}")


@contextmanager
def _access(path: Path) -> Iterator[Access]:
    with _told():
        session = path.with_name(path.name + SESSION_SUFFIX)
        access = Access(read_credentials(path), SystemClock(), _ask, session_file=session)
        try:
            yield access
        finally:
            access.close()


@contextmanager
def _told() -> Iterator[None]:
    with telling():
        try:
            yield
        except AccessError as error:
            raise click.ClickException(str(error)) from error


def _ask(what: str) -> str:
    text: str = click.prompt(what, hide_input=True, default="", show_default=False, err=True)
    return text


def _new_password() -> str:
    text: str = click.prompt("new password", hide_input=True, confirmation_prompt=True, err=True)
    return text


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the service is, and the file of the root that signs for it."""

    url: str
    root: str

    @property
    def fields(self) -> dict[str, str]:
        """As a credential file says it."""
        return {"url": self.url} | ({"root": str(Path(self.root).absolute())} if self.root else {})


def _begin(place: _Place, path: str, body: dict[str, str], login: str, into: Path | None) -> None:
    """Begin an account, show its second factor, and see that it works."""
    with _told():
        check_url(place.url)
        factor = _post(place, path, body)
        if factor.get("totp_uri"):
            click.echo(f"second factor   {factor['totp_uri']}")
            click.echo("recovery codes  " + "\n                ".join(factor["recovery_codes"]))
            click.echo("                shown only now; each of them opens once")
        code = _ask("code of the second factor, to see that it works (empty: none)")
        _post(place, "/v1/login", {"login": login, "password": body["password"], "code": code})
        click.echo("logged in: the account is active")
        if into is not None:
            write_credentials(into, place.fields | {"login": login})


def _post(place: _Place, path: str, body: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON value
    try:
        answer = httpx.post(
            place.url + path, json=body, verify=trust(place.root), timeout=TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as error:
        raise AccessError(f"{place.url} does not answer: {error}") from error
    if not answer.is_success:
        told = answer.json()
        raise AccessError(f"refused: {told.get('detail') or told.get('title')}")
    return answer.json()


def _all(access: Access, path: str) -> Iterator[Any]:
    cursor = ""
    while True:
        page = access.request("GET", f"{path}?cursor={cursor}" if cursor else path)
        yield from page["items"]
        cursor = page.get("next", "")
        if not cursor:
            return


def _tell_approval(made: dict[str, Any]) -> None:
    if "approval" in made:
        click.echo(f"waits for a second security officer: gnomon person approve {made['approval']['id']}")
