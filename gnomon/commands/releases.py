"""The part of ``gnomon image`` that speaks to the service: images sent, let out, and who needs them."""

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from api.firmware_reports import REASONS
from gnomon.access import Access
from gnomon.commands.image import GIVEN, MANIFEST_SUFFIX, read_envelope, read_image
from gnomon.commands.login import as_option, opened
from gnomon.commands.options import telling
from gnomon.pages import pages, whole_pages
from gnomon.uploads import send
from ota import manifest as manifests
from ota.envelope import Typ
from ota.errors import FieldError
from ota.needs_report import NEEDED
from ota.states import ReleaseState
from security.policy import Action

RELEASES: Final = "/v1/ota/releases"
REPORT: Final = "/v1/ota/firmware-report"
STATES: Final = [state.value for state in ReleaseState]
KEY_CHARS: Final = 32

_id: Final = click.argument("id")


@click.command()
@click.argument("file", type=GIVEN)
@click.option(
    "--manifest", type=GIVEN, help="What the vendor signed about it. Default: FILE, but with .cose."
)
@click.option("--afr-signature", type=GIVEN, help="The vendor's signature of the image, for FreeRTOS agents.")
@as_option
def upload(file: Path, manifest: Path | None, afr_signature: Path | None, credentials: Path) -> None:
    """Send the image in FILE with its manifest, and have both checked: that makes a release.

    After a cut the same command goes on where it broke off; again it is the same release. No device gets it
    before a second operator lets it out.
    """
    with telling():
        body = _body(file, manifest or file.with_suffix(MANIFEST_SUFFIX), afr_signature)
    with opened(credentials) as access:
        _send(access, file)
        made = access.request("POST", RELEASES, body, key=_key(body))
    click.echo(_line(made))
    if made["state"] == ReleaseState.VERIFIED:
        click.echo(f"waits for a second operator: gnomon image release {made['id']}", err=True)


@click.command()
@_id
@as_option
def release(id: str, credentials: Path) -> None:
    """Let devices have the release ID, which somebody else has brought. All of it is checked once more."""
    with opened(credentials) as access:
        click.echo(_line(access.request("POST", _path(id, "release"), confirms=Action.IMAGE_RELEASE)))


@click.command()
@_id
@click.option("--reason", required=True, help="Why: for the audit.")
@as_option
def withdraw(id: str, reason: str, credentials: Path) -> None:
    """Take the release ID back for good: nobody gets it any more, and its campaigns pause."""
    with opened(credentials) as access:
        body = {"reason": reason}
        click.echo(_line(access.request("POST", _path(id, "withdraw"), body, confirms=Action.IMAGE_RELEASE)))


@click.command(name="list")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only those in this state.")
@as_option
def list_(credentials: Path, state: str | None) -> None:
    """List the releases: id, state, model, version, counter, bytes, and who brought each."""
    with opened(credentials) as access:
        for one in pages(access, RELEASES, state=state or ""):
            click.echo(f"{_line(one)}  {one['manifest']['size']:>9} bytes  by {one['author']}")


@click.command()
@_id
@click.option(
    "--reason", type=click.Choice(REASONS), default=NEEDED, show_default=True, help="Name those of this one."
)
@as_option
def needs(id: str, reason: str, credentials: Path) -> None:
    """Say who needs the release ID, and for which reasons others do not."""
    with opened(credentials) as access:
        for number, page in enumerate(whole_pages(access, _path(id, "needs"), reason=reason)):
            if not number:
                click.echo(f"needed     {page['needed']}")
                click.echo(f"not        {_counts(page['reasons'])}")
                click.echo(f"no part    {page['not_enrolled']}")
            for one in page["items"]:
                way = f"  first {one['by_way_of']}" if "by_way_of" in one else ""
                click.echo(f"{one['thing']:<24} {one['kind']:<8} {_runs(one)}{way}")


@click.command()
@click.option("--model", default="", help="Only of this model.")
@as_option
def report(model: str, credentials: Path) -> None:
    """Say what meters, gateways and devices run, and what of it needs an upgrade.

    Each line is a model and kind, what it runs, how many do, and which release they need or what keeps them
    from a newer one.
    """
    with opened(credentials) as access:
        page: dict[str, Any] = {}
        for page in whole_pages(access, REPORT, model=model):
            for one in page["items"]:
                what = one.get("needs") or one.get("reason") or "up to date"
                click.echo(f"{one['model']:<20} {one['kind']:<8} {_runs(one)} {one['devices']:>7}  {what}")
    click.echo(f"needed     {page['needed']}")
    click.echo(f"no part    {page['not_enrolled']}")


COMMANDS: Final = (upload, release, withdraw, list_, needs, report)


def _send(access: Access, file: Path) -> None:
    size = file.stat().st_size
    with click.progressbar(length=size, label=f"sending {file.name}", file=sys.stderr) as bar:

        def show(there: int) -> None:
            bar.make_step(there - bar.pos)  # after a cut it goes back, which `update` does not
            bar.render_progress()

        is_new = send(access, file, show)
    click.echo(f"{size} bytes, {'sent' if is_new else 'was there'}", err=True)


def _body(file: Path, manifest: Path, afr_signature: Path | None) -> dict[str, str]:
    """Return what to ask for, if the manifest is about this image: that is known before all of it is sent."""
    sealed, data = read_envelope(manifest), read_image(file)
    try:
        is_about = sealed.typ is Typ.MANIFEST and manifests.describes(manifests.read(sealed.payload), data)
    except FieldError as error:
        raise click.ClickException(f"{manifest}: {error}") from error
    if not is_about:
        raise click.ClickException(f"{manifest} is no manifest of {file}. Nothing was sent.")
    body = {"image": hashlib.sha256(data).hexdigest(), "manifest": _base64(manifest)}
    return body if afr_signature is None else body | {"afr_sig": _base64(afr_signature)}


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _key(body: dict[str, str]) -> str:
    """Return a key by which the same again is the same release."""
    return hashlib.sha256("\0".join(body.values()).encode()).hexdigest()[:KEY_CHARS]


def _path(id: str, act: str) -> str:
    return f"{RELEASES}/{quote(id, safe='')}/{act}"


def _runs(one: dict[str, Any]) -> str:
    return f"{one.get('version', '?'):<12} counter {one['counter']:<4}"


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in reasons.items()) or "0"


def _line(one: dict[str, Any]) -> str:
    said = one["manifest"]
    return (
        f"{one['id']}  {one['state']:<9}  {said['model']:<16} {said['version']:<12} counter {said['counter']}"
    )
