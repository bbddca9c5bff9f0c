"""``gnomon image``: what a vendor does with an image before anybody is sent it. No server is asked here."""

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import click
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gnomon.commands.listing import Group
from gnomon.commands.options import passphrase_from, telling
from infra.clock import MS_PER_S, SystemClock
from ota import manifest as manifests
from ota import order as orders
from ota.envelope import Envelope, Typ, kid_of, open_envelope, public_of, seal
from ota.errors import EncodingError, FieldError
from ota.manifest import IMAGE_BYTES_MAX, LIFE_S_MAX, DataMode, Manifest, describes, version_of, version_text
from ota.order import Order
from ota.trees import leaf_list, list_tree
from ota.verification import KeyRole, Refused, TrustedKey, signed_manifest
from security import private_files
from security.secret import Secret
from security.trust.keyfiles import PASSPHRASE_CHARS_MAX, PASSPHRASE_CHARS_MIN, seal_key_for_a_person

DAY_S: Final = 86_400
LIFE_DAYS_MAX: Final = LIFE_S_MAX // DAY_S
PUBLIC_SUFFIX: Final = ".pub"
ABOUT_SUFFIX, MANIFEST_SUFFIX = ".toml", ".cose"
"""What lies beside an image and has its name."""

_File = click.Path(path_type=Path, dir_okay=False)
GIVEN: Final = click.Path(path_type=Path, dir_okay=False, exists=True)
passphrase_option = click.option(
    "--passphrase-file",
    type=_File,
    help="File whose first line is the key's passphrase, readable by you alone.",
)


class About(msgspec.Struct, forbid_unknown_fields=True):
    """What a description says of an image, in TOML; the rest is computed from the image."""

    vendor: str
    model: str
    hw: list[str]
    label: str
    version: str
    counter: int
    config_schema: int
    data: Literal["preserve", "reset", "chosen"] = "chosen"
    block: int = 4_096
    life_days: Annotated[int, msgspec.Meta(ge=1, le=LIFE_DAYS_MAX)] = 365
    min_from: str = ""
    requires: dict[str, int] = {}


@click.group(cls=Group)
def image() -> None:
    """Firmware images: keys that sign them, manifests made, checked and read, releases."""


@image.command()
@click.argument("file", type=_File)
@passphrase_option
def keygen(file: Path, passphrase_file: Path | None) -> None:
    """Make a key that signs manifests or orders: the private one in FILE, the public one in FILE.pub.

    Without a passphrase whoever can read FILE can sign.
    """
    key = Ed25519PrivateKey.generate()
    passphrase = passphrase_from(passphrase_file)
    with telling():
        if not private_files.create(file, _private_pem(key, passphrase)):
            raise click.ClickException(f"{file} exists: a key is never replaced")
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        beside = file.with_name(file.name + PUBLIC_SUFFIX)
        private_files.replace(
            beside, key.public_key().public_bytes(encoding, form), private_files.PUBLIC_MODE
        )
    click.echo(f"private     {file}   keep it: it is nowhere else")
    click.echo(f"public      {beside}   for the utility; it holds no secret")
    click.echo(f"kid         {kid_of(public_of(key)).hex()}")


@image.command()
@click.argument("file", type=GIVEN)
@click.option("--about", type=GIVEN, help="TOML file that describes it. Default: FILE, but with .toml.")
@click.option("--key", "key_file", type=GIVEN, required=True, help="The vendor's private key.")
@click.option("--out", type=_File, help="File to write the manifest to. Default: FILE, but with .cose.")
@passphrase_option
def sign(
    file: Path, about: Path | None, key_file: Path, out: Path | None, passphrase_file: Path | None
) -> None:
    """Say what the image in FILE is, and sign it: that is its manifest.

    The description has vendor, model, hw (UUIDs), label, version, counter and config_schema; and may have
    data (preserve, reset or chosen), block, life_days, min_from and requires.
    """
    about, out = about or file.with_suffix(ABOUT_SUFFIX), out or file.with_suffix(MANIFEST_SUFFIX)
    with telling():
        key = read_key(key_file, passphrase_from(passphrase_file))
        try:
            manifest = _manifest(_about(about), read_image(file))
            sealed = seal(manifests.write(manifest), Typ.MANIFEST, key)
        except (FieldError, ValueError) as error:
            raise click.ClickException(f"{about}: {error}") from error
        out.write_bytes(sealed)
    _show_manifest(manifest)
    click.echo(f"{'manifest':<16}{hashlib.sha256(sealed).hexdigest()}")


@image.command()
@click.argument("manifest", type=GIVEN)
@click.option("--vendor", required=True, help="Id of the vendor whose keys these are.")
@click.option("--public", "public_files", type=GIVEN, required=True, multiple=True, help="Public key file.")
@click.option("--image", "image_file", type=GIVEN, help="The image that it is to be for.")
def verify(manifest: Path, vendor: str, public_files: tuple[Path, ...], image_file: Path | None) -> None:
    """Check that a vendor signed MANIFEST, every field of it, and that it describes the image."""
    publics = [_public_key(one) for one in public_files]
    keys = {kid_of(public): TrustedKey(public, KeyRole.IMAGE, vendor) for public in publics}
    try:
        found = signed_manifest(manifest.read_bytes(), keys)
    except Refused as refused:
        raise click.ClickException(f"{manifest}: {refused}") from refused
    if image_file is not None and not describes(found, read_image(image_file)):
        raise click.ClickException(f"{manifest} describes another image than {image_file}")
    _show_manifest(found)
    click.echo(f"{'verified':<16}signed by {vendor}{', of this image' if image_file else ''}")


@image.command()
@click.argument("file", type=GIVEN)
def inspect(file: Path) -> None:
    """Show every field of the manifest or order in FILE. Whose it is, is not checked."""
    sealed = read_envelope(file)
    try:
        if sealed.typ is Typ.MANIFEST:
            _show_manifest(manifests.read(sealed.payload))
        else:
            _show_order(orders.read(sealed.payload))
    except FieldError as error:
        raise click.ClickException(f"{file}: {error}") from error
    click.echo(f"{'kid':<16}{sealed.kid.hex()}   not verified")


# ---------------------------------------------------------------------------- files


def _private_pem(key: Ed25519PrivateKey, passphrase: str | None) -> bytes:
    if passphrase is None:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return key.private_bytes(encoding, form, serialization.NoEncryption())
    if not PASSPHRASE_CHARS_MIN <= len(passphrase) <= PASSPHRASE_CHARS_MAX:
        raise click.ClickException(
            f"a passphrase has {PASSPHRASE_CHARS_MIN} to {PASSPHRASE_CHARS_MAX} characters"
        )
    return seal_key_for_a_person(key, Secret(passphrase))


def read_key(file: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """Return a private key; who has sealed it is asked for its passphrase, unless it is given."""
    data = private_files.read(file, links=True) or b""
    if passphrase is None and b"ENCRYPTED" in data:
        passphrase = click.prompt(f"Passphrase of {file}", hide_input=True)
    password = None if passphrase is None else passphrase.encode()
    try:
        key = serialization.load_pem_private_key(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise click.ClickException(
            f"{file} does not open: it is no key, or has another passphrase"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise click.ClickException(f"{file} is no Ed25519 key: `gnomon image keygen` makes one")
    return key


def _public_key(file: Path) -> bytes:
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise click.ClickException(f"{file} is no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise click.ClickException(f"{file} is no Ed25519 key")
    return key.public_bytes_raw()


def read_image(file: Path) -> bytes:
    """Return an image, if it has as many bytes as one may have."""
    if not 0 < file.stat().st_size <= IMAGE_BYTES_MAX:
        raise click.ClickException(f"{file}: an image has 1 to {IMAGE_BYTES_MAX} bytes")
    return file.read_bytes()


def read_envelope(file: Path) -> Envelope:
    """Return the manifest or order in a file. Whose it is, is not checked."""
    data = file.read_bytes()
    try:
        return open_envelope(data, Typ.ORDER if Typ.ORDER.encode() in data else Typ.MANIFEST)
    except EncodingError as error:
        raise click.ClickException(f"{file} is neither manifest nor order: {error}") from error


def _about(file: Path) -> About:
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), About)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise click.ClickException(f"{file}: {error}") from error


def _manifest(about: About, data: bytes) -> Manifest:
    if about.block < manifests.BLOCK_BYTES_MIN:  # no tree is built of blocks of nothing
        raise FieldError(11, f"a block has at least {manifests.BLOCK_BYTES_MIN} bytes")
    now_s = SystemClock().now_ms() // MS_PER_S
    return Manifest(
        vendor=about.vendor,
        model=about.model,
        hw=tuple(about.hw),
        label=about.label,
        version=version_of(about.version),
        counter=about.counter,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        block=about.block,
        root=list_tree(leaf_list(data, about.block)).root,
        issued=now_s,
        expires=now_s + about.life_days * DAY_S,
        data=DataMode[about.data.upper()],
        config_schema=about.config_schema,
        min_from=version_of(about.min_from) if about.min_from else 0,
        requires=about.requires,
    )


# ---------------------------------------------------------------------------- showing


def _show_manifest(manifest: Manifest) -> None:
    _show(
        {
            "vendor": manifest.vendor,
            "model": manifest.model,
            "hw": " ".join(manifest.hw),
            "label": manifest.label,
            "version": version_text(manifest.version),
            "counter": manifest.counter,
            "size": manifest.size,
            "sha256": manifest.sha256,
            "block": manifest.block,
            "root": manifest.root.hex(),
            "issued": _moment(manifest.issued),
            "expires": _moment(manifest.expires),
            "data": manifest.data.name.lower(),
            "config_schema": manifest.config_schema,
            "min_from": version_text(manifest.min_from) if manifest.min_from else "any",
            "requires": " ".join(f"{name}≥{least}" for name, least in manifest.requires.items()) or "nothing",
            "sources": " ".join(manifest.sources) or "none",
            "notes": manifest.notes or "none",
        }
    )


def _show_order(order: Order) -> None:
    _show(
        {
            "campaign": order.campaign,
            "revision": order.revision,
            "manifest": order.manifest,
            "targets": order.targets.hex(),
            "count": order.count,
            "data": order.data.name.lower(),
            "not_before": _moment(order.not_before),
            "not_after": _moment(order.not_after),
            "per_hour": order.per_hour,
            "max_in_flight": order.max_in_flight,
        }
    )


def _show(fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        click.echo(f"{name:<16}{value}")


def _moment(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
