"""The part of ``gnomon image`` that says whose signatures count: two officers change that."""

import base64
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gnomon.commands.image import GIVEN
from gnomon.commands.login import as_option, opened
from gnomon.commands.options import telling
from ota.envelope import kid_of
from ota.keys import UTILITY
from ota.verification import KeyRole
from security.policy import Action

KEYS: Final = "/v1/ota/keys"


@click.command(name="keys")
@as_option
def keys_(credentials: Path) -> None:
    """List the keys that may sign images or campaigns, and those that might once."""
    with opened(credentials) as access:
        found = access.request("GET", KEYS)
    click.echo(f"list number {found['number']}")
    for one in found["items"]:
        click.echo(f"{one['kid']}  {one['role']:<9} {one['state']:<8} {one['owner']}")


@click.command()
@click.argument("file", type=GIVEN)
@click.option("--vendor", default="", help="Id of the vendor whose images it signs. Default: it is ours.")
@as_option
def trust(file: Path, vendor: str, credentials: Path) -> None:
    """Ask that the public key in FILE may sign: a vendor's images, or our campaigns.

    Compare its kid with the vendor's, as `gnomon image keygen` printed it. It counts when a second officer
    has approved it; devices are told with their next job.
    """
    with telling():
        public = _public(file)
    role, owner = (KeyRole.IMAGE, vendor) if vendor else (KeyRole.CAMPAIGN, UTILITY)
    click.echo(f"kid         {kid_of(public).hex()}")
    body = {"public": base64.b64encode(public).decode(), "role": role.value, "owner": owner}
    with opened(credentials) as access:
        _tell(access.request("POST", KEYS, body, confirms=Action.SIGNING_KEY_WRITE))


@click.command()
@click.argument("kid")
@click.option("--reason", required=True, help="Why: for the audit.")
@as_option
def distrust(kid: str, reason: str, credentials: Path) -> None:
    """Ask that the key KID signs nothing any more. It waits for a second officer; then it counts at once."""
    with opened(credentials) as access:
        path = f"{KEYS}/{quote(kid, safe='')}/revoke"
        _tell(access.request("POST", path, {"reason": reason}, confirms=Action.SIGNING_KEY_WRITE))


COMMANDS: Final = (keys_, trust, distrust)


def _public(file: Path) -> bytes:
    """Return a raw Ed25519 key, or a point of P-256, which some agents check images with."""
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise click.ClickException(f"{file} is no public key") from error
    if isinstance(key, Ed25519PublicKey):
        return key.public_bytes_raw()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        form = serialization.PublicFormat.UncompressedPoint
        return key.public_bytes(serialization.Encoding.X962, form)
    raise click.ClickException(f"{file} is neither an Ed25519 key nor one of P-256")


def _tell(held: dict[str, Any]) -> None:
    click.echo(f"waits for a second security officer: gnomon person approve {held['id']}")
