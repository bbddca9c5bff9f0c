"""``gnomon enrol``: what a device does to become known, for a device that is a folder of files."""

import sys
from pathlib import Path

import click

from gnomon import joining
from gnomon.commands.options import telling
from gnomon.joining import Files, JoinError
from security import private_files
from security.secret import Secret


@click.command()
@click.argument("thing")
@click.option("--url", required=True, help="Where devices join, as https://localhost:8443.")
@click.option(
    "--code-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with ID:CODE, readable by you alone: the voucher, or a label's EUI-64 and install code."
    " `-`: standard input. Default: asked for.",
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
    code_file: Path | None,
    root: Path | None,
    root_sha256: str | None,
    into: Path,
    renew: bool,
    pin: bool,
) -> None:
    """Make a key for THING and get its certificate, as the device itself would.

    Writes THING.key, which never leaves the folder, THING.crt, and ca.crt, the root to trust. A run that was
    stopped is gone on with by the same command. With --pin and no --code-file THING only proves its PIN.
    """
    files = Files(into, thing)
    with telling():
        try:
            if renew:
                joining.renew(url, files)
            elif not (pin and code_file is None and files.certificate.exists()):
                pinned = None if root is None else root.read_bytes()
                joining.join(url, files, _secret(code_file, "code (ID:CODE)"), pinned, root_sha256)
            if pin:
                joining.prove_pin(url, files, _secret(None, "PIN"))
        except (JoinError, FileExistsError) as error:
            raise click.ClickException(str(error)) from error
    for file in (files.key, files.certificate, files.root):
        click.echo(file)


def _secret(file: Path | None, what: str) -> Secret:
    """Return what a file says, or who is asked; never an argument, which others on the machine can read."""
    if file is None:
        return Secret(click.prompt(what, hide_input=True))
    if str(file) == "-":
        return Secret(sys.stdin.readline().strip())
    kept = private_files.read(file, links=True)
    if not kept:
        raise click.ClickException(f"{file} holds no {what}")
    return Secret(kept.decode(errors="replace").strip())
