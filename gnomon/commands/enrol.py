"""``gnomon enrol``: what a device does to become known, for a device that is a folder of files."""

import sys
from pathlib import Path

import click

from gnomon import joining
from gnomon.commands.options import telling
from gnomon.joining import Files, JoinError
from security.secret import Secret


@click.command()
@click.argument("thing")
@click.option("--url", required=True, help="Where devices join, as https://localhost:8443.")
@click.option(
    "--code",
    metavar="ID:CODE",
    help="The voucher, or a label's EUI-64 and install code. `-`: from standard input. Default: asked.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The root to trust, as a PEM file.",
)
@click.option("--root-sha256", metavar="HEX", help="Or its SHA-256, as a label has it.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the files. Default: this one.",
)
@click.option("--renew", is_flag=True, help="Get a new key and certificate by the current one.")
@click.option(
    "--pin", is_flag=True, help="Then see that the server knows this device's PIN, which is asked for."
)
def enrol(
    thing: str,
    url: str,
    code: str | None,
    root: Path | None,
    root_sha256: str | None,
    into: Path,
    renew: bool,
    pin: bool,
) -> None:
    """Make a key for THING and get its certificate, as the device itself would.

    Writes THING.key, which never leaves the folder, THING.crt, and ca.crt, the root to trust. A run that was
    stopped is gone on with by the same command. With --pin and no code an enrolled THING only proves its PIN.
    """
    files = Files(into, thing)
    with telling():
        try:
            if renew:
                joining.renew(url, files)
            elif not (pin and code is None and files.certificate.exists()):
                pinned = None if root is None else root.read_bytes()
                joining.join(url, files, _secret(code, "code (ID:CODE)"), pinned, root_sha256)
            if pin:
                joining.prove_pin(url, files, _secret(None, "PIN"))
        except (JoinError, FileExistsError) as error:
            raise click.ClickException(str(error)) from error
    for file in (files.key, files.certificate, files.root):
        click.echo(file)


def _secret(given: str | None, what: str) -> Secret:
    if given is None:
        given = click.prompt(what, hide_input=True)
    elif given == "-":
        given = sys.stdin.readline().strip()
    return Secret(given)
