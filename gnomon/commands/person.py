"""``gnomon person`` and ``gnomon token``: accounts of people, over the API, with a credential file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from gnomon.access import Access
from gnomon.commands.listing import Group
from gnomon.commands.login import as_option, ask, connected, opened, told
from gnomon.credentials import DEFAULT_URL, Credentials, check_url, session_file, write_credentials
from gnomon.pages import pages
from gnomon.refusals import AccessError
from security import private_files
from security.people import passwords
from security.people.errors import WeakPasswordError
from security.people.first import LIFE_S
from security.people.persons import INVITATION_S, PERSON_ROLES, parse_login
from security.policy import Action
from security.secret import Secret

ROLES: Final = sorted(role.value for role in PERSON_ROLES)
PASSWORDS_MAX: Final = 3
"""So often somebody may type a new password before the command gives up."""
NO_SECRET: Final = (
    f"The secret is wrong or older than {LIFE_S // 60} minutes, or there are officers enough."
    " While there are not, a restart of the service prints another one."
)
NO_INVITATION: Final = (
    f"The invitation is wrong, older than {INVITATION_S // 86_400} days, or somebody has logged in with it:"
    " ask a security officer for another one (gnomon person reset)."
)

_url_option = click.option("--url", default=DEFAULT_URL, show_default=True, help="Where the service is.")
_root_option = click.option(
    "--root",
    default="",
    metavar="FILE",
    help="The root that signs for the service, as in var/ca/root.crt. Default: the public ones.",
)
_into_option = click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a credential file with address and login name here, and the session beside it. It holds no"
    " password.",
)


@click.command()
@click.argument("credentials", type=click.Path(path_type=Path, dir_okay=False))
def token(credentials: Path) -> None:
    """Print an access token for the account in the file CREDENTIALS.

    Logs in, or goes on with the session that is kept in a private file beside it.
    """
    with opened(credentials) as access:
        click.echo(access.token())


@click.group(cls=Group)
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
    with _beginning(login, url, root, into) as access:
        secret = ask("secret that the service printed")
        body = {"secret": secret, "login": login, "password": _new_password(login)}
        _begin(access, "/v1/people/first", body, NO_SECRET)


@person.command()
@click.argument("login")
@_url_option
@_root_option
@_into_option
def accept(login: str, url: str, root: str, into: Path | None) -> None:
    """Accept an invitation as LOGIN: choose a password, and get a second factor."""
    with _beginning(login, url, root, into) as access:
        body = {"invitation": ask("invitation"), "password": _new_password(login)}
        _begin(access, "/v1/invitations/accept", body, NO_INVITATION)


@person.command()
@click.argument("login")
@click.argument("role", type=click.Choice(ROLES))
@click.option("--account", default="", help="A customer's account.")
@as_option
def add(credentials: Path, login: str, role: str, account: str) -> None:
    """Make an account LOGIN with ROLE. It waits until a second security officer has approved it."""
    body = {"login": login, "role": role, "account": account}
    with opened(credentials) as access:
        made = access.request("POST", "/v1/people", body, confirms=Action.PRINCIPAL_WRITE)
    click.echo(f"{made['person']['id']}  {made['person']['state']}")
    click.echo(f"invitation  {made['invitation']}")
    click.echo("            shown only now: hand it to its owner, for `gnomon person accept`")
    _tell_approval(made)


@person.command(name="list")
@as_option
def list_(credentials: Path) -> None:
    """List all people."""
    with opened(credentials) as access:
        for one in pages(access, "/v1/people"):
            click.echo(f"{one['id']}  {one['role']:<10} {one['state']:<9} {one['login']}")


@person.command()
@click.argument("id")
@click.argument("role", type=click.Choice(ROLES))
@click.option("--account", default="", help="A customer's account.")
@as_option
def role(credentials: Path, id: str, role: str, account: str) -> None:
    """Ask for ROLE for the person ID. It waits until a second security officer has approved it."""
    body = {"role": role, "account": account}
    with opened(credentials) as access:
        _tell_approval(access.request("PUT", f"/v1/people/{id}/role", body, confirms=Action.ROLE_GRANT))


@person.command()
@click.argument("id")
@as_option
def reset(credentials: Path, id: str) -> None:
    """Let the person ID, who lost a factor, begin anew. It waits for a second security officer."""
    with opened(credentials) as access:
        made = access.request("POST", f"/v1/people/{id}/reset", confirms=Action.PRINCIPAL_WRITE)
    click.echo(f"invitation  {made['invitation']}")
    _tell_approval(made)


@person.command()
@click.argument("id")
@as_option
def disable(credentials: Path, id: str) -> None:
    """Let nobody log in as ID any more, and end what is open."""
    with opened(credentials) as access:
        done = access.request("POST", f"/v1/people/{id}/disable", confirms=Action.PRINCIPAL_WRITE)
        click.echo(f"{done['id']}  {done['state']}")


@person.command()
@click.argument("id", required=False)
@click.option("--everybody", is_flag=True, help="All people and systems: each has to log in again.")
@as_option
def revoke(credentials: Path, id: str | None, everybody: bool) -> None:
    """End all sessions of the person ID within seconds, or those of everybody."""
    if everybody is (id is not None):
        raise click.UsageError("say whose: ID, or --everybody")
    with opened(credentials) as access:
        if id is not None:
            access.request("POST", f"/v1/people/{id}/revoke", confirms=Action.PRINCIPAL_WRITE)
            click.echo("ended")
        else:
            done = access.request("POST", "/v1/revoke-all", confirms=Action.REVOKE_ALL)
            click.echo("ended" if done["done"] else "not ended yet")
            _tell_approval(done)


@person.command()
@as_option
def approvals(credentials: Path) -> None:
    """List what waits for a second person, and you may approve."""
    with opened(credentials) as access:
        for one in pages(access, "/v1/approvals"):
            facts = " ".join(f"{name}={value}" for name, value in one["facts"].items())
            click.echo(f"{one['id']}  {one['act']:<18} {one['target']}  {facts}  by {one['by']}")


@person.command()
@click.argument("id")
@click.option("--refuse", is_flag=True, help="Decide against it, or withdraw what you asked for.")
@as_option
def approve(credentials: Path, id: str, refuse: bool) -> None:
    """Approve the act ID that somebody else asked for."""
    verb = "refuse" if refuse else "approve"
    with opened(credentials) as access:
        done = access.request("POST", f"/v1/approvals/{id}/{verb}", confirms=Action.APPROVAL_WRITE)
        click.echo(f"{done['id']}  {done['decision']}")


@contextmanager
def _beginning(login: str, url: str, root: str, into: Path | None) -> Iterator[Access]:
    """Reach the service for somebody who has no account yet, and write their credential file at the end.

    What can be known to be wrong is said before anything is asked for.
    """
    with told():
        check_url(url)
        place = Credentials(url, parse_login(login), root=str(Path(root).absolute()) if root else "")
        if into is not None:
            private_files.make_directory(into.parent)
        with connected(place, None if into is None else session_file(into)) as access:
            yield access
        if into is not None:
            values = {"url": place.url, "root": place.root, "login": place.login}
            write_credentials(into, {name: value for name, value in values.items() if value})


def _begin(access: Access, path: str, body: dict[str, str], unproved: str) -> None:
    """Begin an account, show its second factor, and log in, which makes it active."""
    factor = access.begin(path, body, unproved)
    if factor.get("totp_seed"):
        click.echo(f"second factor   {factor['totp_uri']}")
        click.echo(f"to type by hand {_in_fours(factor['totp_seed'])}")
        click.echo("recovery codes  " + "\n                ".join(factor["recovery_codes"]))
        click.echo("                shown only now; each of them opens once")
    access.log_in(Secret(body["password"]), factor="totp_seed" in factor)
    click.echo("logged in: the account is active")


def _new_password(login: str) -> str:
    for _ in range(PASSWORDS_MAX):
        text = ask("new password")
        try:
            passwords.check(text, login)
        except WeakPasswordError as error:
            click.echo(f"{error}. Nothing was sent.", err=True)
            continue
        if ask("the same password again") == text:
            return text
        click.echo("these two are not the same", err=True)
    raise AccessError("no new password: run it again")


def _in_fours(seed: str) -> str:
    return " ".join(seed[place : place + 4] for place in range(0, len(seed), 4))


def _tell_approval(made: dict[str, Any]) -> None:
    if "approval" in made:
        click.echo(f"waits for a second security officer: gnomon person approve {made['approval']['id']}")
