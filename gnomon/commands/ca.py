"""``gnomon ca``: the certificate authorities, for whoever keeps the root.

None of it needs the service to stop: a service that runs notices a successor, and its broker reads lists and
certificates again within hours. Each act is noted in ``ca/acts.jsonl``.
"""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec
from cryptography import x509

from gnomon import canaries
from gnomon.commands.listing import Group
from gnomon.commands.options import passphrase_from, settings_of, settings_options, telling
from gnomon.services import authority_directory, open_box
from infra.clock import MS_PER_S, SystemClock
from infra.ids import RandomIds
from infra.settings import Settings
from security import private_files
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust import certificates, crl
from security.trust.authority import Authority, read_root, settled, write_root
from security.trust.certificates import ForeignPairError, Pair
from security.trust.keyfiles import PASSPHRASE_CHARS_MAX, PASSPHRASE_CHARS_MIN

ACTS_FILE: Final = "acts.jsonl"
_CLOCK: Final = SystemClock()

_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the root's passphrase, readable by you alone. Default: it is asked for.",
)
_root_option = click.option(
    "--root",
    "root_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the root's key, on its medium. Default: the one that is still here.",
)


@click.group(cls=Group)
def ca() -> None:
    """Certificate authorities: make them, show them, replace them, take the root away.

    The root signs issuing authorities and nothing else; keep its key off this machine. The issuing
    authority signs things, services and servers.
    """


@ca.command()
@click.option(
    "--root",
    "root_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the root's key to, on a removable medium.",
)
@click.option(
    "--successor",
    is_flag=True,
    help="The deployment has a root: publish this one beside it. Nothing is signed under it yet.",
)
@_passphrase_option
@settings_options
def init(
    config: Path | None,
    pairs: tuple[str, ...],
    root_file: Path,
    successor: bool,
    passphrase_file: Path | None,
) -> None:
    """Make a root at FILE, encrypted under a passphrase, and the first issuing authority here.

    For production: the root's key never lies on this machine. A successor of a root that ends is made
    with --successor; devices learn it by `cacerts`, and `gnomon ca renew --root FILE` uses it at last.
    """
    settings = settings_of(config, pairs)
    with telling():
        _check_place(settings, root_file.parent)
        if root_file.exists():
            raise click.ClickException(f"{root_file} exists: a root is never replaced")
        present = _open(settings) if successor else None
        if present is None and Authority.is_begun(authority_directory(settings)):
            raise click.ClickException(
                "there is an authority already: `gnomon ca show` tells of it, and --successor makes the root"
                " that comes after"
            )
        root = certificates.make_root(_now())
        write_root(root_file, root, _new_passphrase(passphrase_file))
        _note(settings, "successor" if successor else "init", root)
        if present is None:
            present = Authority.found(authority_directory(settings), _box(settings), _CLOCK, root)
        else:
            present.trust(root.certificate)
    click.echo(f"root        {root_file}   keep a second copy elsewhere, and the passphrase apart from both")
    click.echo(f"trust       {present.root_pem_path}   for devices; it holds no secret")


@ca.command()
@settings_options
def show(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Show the authorities, how long each lasts, and the revocation list."""
    settings = settings_of(config, pairs)
    with telling():
        authority = _open(settings)
        for root in authority.roots():
            click.echo(_line("root", root, ""))
        issuing = authority.issuing()
        signing = issuing.index(authority.signing) if authority.signing in issuing else len(issuing)
        for place, one in enumerate(issuing):
            click.echo(_line("issuing", one, _state(place - signing, one)))
        until = _moment(authority.crl_next_update)
        listed = {row.serial for row in crl.rows(authority.crl_path.read_bytes())}
        canary = listed & {canaries.revoked_serial(settings)}
        click.echo(f"revoked     {len(listed - canary)} on the list, which lasts until {until}")
        if canary:
            click.echo(
                "            and our canary, by which each start tries whether the broker heeds the list"
            )
        if authority.root_in_reach:
            click.echo("reminder    the root's key lies on this machine: gnomon ca move-root DIRECTORY")
        for alarm in authority.alarms():
            click.echo(f"ALARM       {alarm.subject} {alarm.found}\n            → {alarm.remedy}")


@ca.command()
@_root_option
@_passphrase_option
@settings_options
def renew(
    config: Path | None, pairs: tuple[str, ...], root_file: Path | None, passphrase_file: Path | None
) -> None:
    """Make the next issuing authority. Do it a year before the present one ends.

    It signs after a day, when every broker has read its certificate; what the old one signed stays good
    until its own end. No device notices.
    """
    settings = settings_of(config, pairs)
    with telling():
        # Not by `_open`: when all issuing authorities are lost, this is what brings one back.
        _check_begun(settings)
        authority = Authority.bare(authority_directory(settings), _box(settings), _CLOCK)
        root = _root(authority, root_file, passphrase_file)
        if root.certificate not in authority.roots():
            raise click.ClickException(
                f"{root_file} is no root of this deployment: devices would refuse what comes of it."
                " A new root is published with `gnomon ca init --successor`"
            )
        _note(settings, "renew", root)
        authority.renew(root)
        newest = authority.issuing()[-1]
        state = _state(0 if newest == authority.signing else 1, newest)
    click.echo(_line("issuing", newest, f"new, {state}"))
    click.echo("            a service that runs takes it up by itself: nothing is to be restarted")


@ca.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@_passphrase_option
@settings_options
def move_root(
    config: Path | None, pairs: tuple[str, ...], directory: Path, passphrase_file: Path | None
) -> None:
    """Take the root's key to DIRECTORY, a removable medium, and leave none here.

    It is encrypted under a passphrase, written, read back, and only then removed from this machine.
    """
    settings = settings_of(config, pairs)
    with telling():
        _check_place(settings, directory)
        authority = _open(settings)
        if not authority.root_in_reach:
            raise click.ClickException("the root's key is not on this machine: it was taken away already")
        root = authority.root()
        passphrase = _new_passphrase(passphrase_file)
        _note(settings, "move-root", root)
        path = authority.move_root(directory, passphrase)
    click.echo(f"root        {path}   keep a second copy elsewhere, and the passphrase apart from both")
    if directory.stat().st_dev == settings.directory.stat().st_dev:
        click.echo(
            f"warning     {directory} is on the same file system as {settings.directory}: take it away"
        )


@ca.command("crl")
@settings_options
def reissue(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Write the revocation list again, with the rows it has, so that it lasts another day.

    The service does so by itself every six hours. A broker that runs reads it at its next reload.
    """
    settings = settings_of(config, pairs)
    with telling():
        authority = _open(settings)
        _note(settings, "crl", None)
        authority.refresh_crl()
    click.echo(f"revoked     list lasts until {_moment(authority.crl_next_update)}")


# ---------------------------------------------------------------------------- details


def _open(settings: Settings) -> Authority:
    """Open what is there: also in production with the root in reach, or nobody could take it away."""
    _check_begun(settings)
    directory = authority_directory(settings)
    return Authority.open(directory, _box(settings), _CLOCK, wide_names=settings.trust.wide_names)


def _check_begun(settings: Settings) -> None:
    directory = authority_directory(settings)
    if not Authority.is_begun(directory):
        raise click.ClickException(
            f"there is no authority in {directory} yet: the first start makes one, or `gnomon ca init`"
        )


def _box(settings: Settings) -> SecretBox:
    return open_box(settings, RandomIds())


def _root(authority: Authority, file: Path | None, passphrase_file: Path | None) -> Pair:
    if file is None:
        return authority.root()
    text = passphrase_from(passphrase_file)
    if text is None:
        text = click.prompt("Passphrase of the root", hide_input=True)
    try:
        return read_root(file, Secret(text))
    except ForeignPairError as error:
        raise click.ClickException(f"{file} does not open: {error}") from error


def _new_passphrase(file: Path | None) -> Secret:
    text = passphrase_from(file)
    if text is None:
        text = click.prompt("Passphrase for the root", hide_input=True, confirmation_prompt=True)
    if not PASSPHRASE_CHARS_MIN <= len(text) <= PASSPHRASE_CHARS_MAX:
        raise click.ClickException(
            f"a passphrase has {PASSPHRASE_CHARS_MIN} to {PASSPHRASE_CHARS_MAX} characters:"
            " take five or more words that nobody would guess"
        )
    return Secret(text)


def _check_place(settings: Settings, directory: Path) -> None:
    if directory.resolve().is_relative_to(settings.directory.resolve()):
        raise click.ClickException(
            f"{directory} lies below {settings.directory}, where the service and its backups are:"
            " name a place on a removable medium"
        )


def _line(kind: str, certificate: x509.Certificate, state: str) -> str:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    id = certificates.key_id(certificate)[:8]
    return f"{kind:<12}{id}  {first:%Y-%m-%d} to {last:%Y-%m-%d}  {state}".rstrip()


def _state(behind: int, issuing: x509.Certificate) -> str:
    """Say what an issuing authority does, by how many it comes behind the one that signs now."""
    if behind > 0:
        return f"signs from {_moment(settled(issuing))} on"
    return "what it signed is good" if behind else "signs"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _note(settings: Settings, act: str, root: Pair | None) -> None:
    """Write down who is about to do what.

    Here, because the store, where the audit is, may belong to a service that runs.
    """
    row = {"at": _now().isoformat(), "by": getpass.getuser(), "act": act, "root": root.id if root else ""}
    directory = authority_directory(settings)
    private_files.make_directory(directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with os.fdopen(os.open(directory / ACTS_FILE, flags, private_files.FILE_MODE), "ab") as file:
        file.write(msgspec.json.encode(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _now() -> datetime:
    return datetime.fromtimestamp(_CLOCK.now_ms() // MS_PER_S, UTC)
