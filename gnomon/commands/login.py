"""How a command speaks to the service as somebody: ``--as FILE``, what it asks for, and what it tells.

Passwords and codes are asked for and not shown; none is taken from the command line.
"""

import getpass
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from gnomon.access import Access, NoTerminalError, Notice
from gnomon.commands.options import telling
from gnomon.credentials import Credentials, read_credentials, session_file
from gnomon.refusals import AccessError
from infra.clock import SystemClock
from security.people import persons

NOTICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        persons.Notice.SESSION_STOLEN: "somebody has, or had, a copy of a session of yours, and it was ended."
        " Change your password, which ends all others too, and see who can read your files",
        persons.Notice.RECOVERY_CODE_USED: "a recovery code of yours was used. If it was not you,"
        " somebody has them: change your password and your second factor",
    }
)


def as_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--as``: its argument ``credentials``."""
    return click.option(
        "--as",
        "credentials",
        type=click.Path(path_type=Path, dir_okay=False),
        required=True,
        metavar="FILE",
        help="Your credential file.",
    )(command)


@contextmanager
def opened(path: Path) -> Iterator[Access]:
    """Open the account of a credential file; say in words what went wrong."""
    with told(), connected(read_credentials(path), session_file(path)) as access:
        yield access


@contextmanager
def connected(credentials: Credentials, session: Path | None) -> Iterator[Access]:
    """Reach the service with these credentials; tell at the end what it had to tell."""
    access = Access(
        credentials,
        SystemClock(),
        ask,
        session_file=session,
        tell=lambda text: click.echo(text, err=True),
    )
    try:
        yield access
    finally:
        _tell(access.notices)
        access.close()


@contextmanager
def told() -> Iterator[None]:
    """Say in words what the service refused, or why it does not answer."""
    with telling():
        try:
            yield
        except AccessError as error:
            raise click.ClickException(str(error)) from error


def ask(what: str) -> str:
    """Return what somebody types; it is not shown.

    Raises:
        NoTerminalError: there is nobody.
    """
    try:
        with warnings.catch_warnings():
            # Else what is typed would be shown, or nothing would ever come.
            warnings.simplefilter("error", getpass.GetPassWarning)
            text: str = click.prompt(what, hide_input=True, default="", show_default=False, err=True)
    except getpass.GetPassWarning as error:
        raise NoTerminalError("run this where it can be typed") from error
    return text


def _tell(notices: list[Notice]) -> None:
    """Tell what the service had to tell, beside the output."""
    for one in notices:
        click.echo(f"NOTICE {one.at}: {NOTICES.get(one.notice, one.notice)}", err=True)
