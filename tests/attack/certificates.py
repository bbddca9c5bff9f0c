"""Certificates with exactly one fault each, for the broker to refuse.

Most are signed with the real issuing key, read from the files of the service under attack: what is refused
must be refused for its fault, and not because somebody else signed it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from security.trust import keys
from security.trust.authority import AuthorityError
from tests.certificates import open_authority
from tests.system.child import Gnomon

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Files = tuple[Path, Path]
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate says; the defaults are those of a good one."""

    common_name: str
    key: PrivateKey
    not_before: timedelta = timedelta(hours=-1)
    not_after: timedelta = timedelta(days=1)
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH
    is_authority: bool = False
    chain: Sequence[x509.Certificate] = ()
    """What is shown behind the leaf."""


def issuing(gnomon: Gnomon) -> Signer:
    """Return the key that signs the certificates of this service's things."""
    pair = open_authority(gnomon.var)._newest()
    assert isinstance(pair.key, ec.EllipticCurvePrivateKey)
    return Signer(pair.certificate, pair.key)


def root(gnomon: Gnomon) -> Signer:
    """Return the root's key, which is in reach as long as nobody has taken it away."""
    pair = open_authority(gnomon.var).root()
    assert isinstance(pair.key, ec.EllipticCurvePrivateKey)
    return Signer(pair.certificate, pair.key)


def authority_signs(gnomon: Gnomon, name: str) -> bool:
    """Tell whether our own authority gives somebody a certificate of this name."""
    try:
        open_authority(gnomon.var).sign_thing(name, keys.make_key().public_key())
    except AuthorityError:
        return False
    return True


def rogue(like: Signer) -> Signer:
    """Return an authority of somebody else, with the very name of the real one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = like.certificate.subject
    leaf = Leaf("", key, not_after=timedelta(days=365), is_authority=True)
    return Signer(_built(leaf, name, name, key, key), key)


def below(signer: Signer, common_name: str) -> Signer:
    """Return an authority that this one has signed."""
    leaf = Leaf(common_name, new_key(), is_authority=True)
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    return Signer(signed(leaf, signer), leaf.key)


def thing_as_signer(name: str, signer: Signer) -> Signer:
    """Return a thing with a good certificate that takes itself for an authority."""
    key = new_key()
    return Signer(signed(Leaf(name, key), signer), key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def good(name: str) -> Leaf:
    """Return what a good certificate says, to be spoilt in one way."""
    return Leaf(name, new_key())


def spoilt(name: str) -> dict[str, Leaf]:
    """Return the faults that a certificate of our own authority can have."""
    leaf = good(name)
    short = rsa.generate_private_key(65_537, 1_024)  # noqa: S505 - too short is the point
    return {
        "expired": replace(leaf, not_before=timedelta(days=-9), not_after=timedelta(hours=-1)),
        "not yet valid": replace(leaf, not_before=timedelta(hours=1)),
        "wrong usage": replace(leaf, usage=ExtendedKeyUsageOID.CODE_SIGNING),
        "a server's": replace(leaf, usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "RSA 1024": replace(leaf, key=short),
    }


def signed(leaf: Leaf, signer: Signer) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)])
    return _built(leaf, name, signer.certificate.subject, leaf.key, signer.key)


def files(folder: Path, leaf: Leaf, signer: Signer) -> Files:
    """Write a certificate and its key as a client wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    number = next(_numbers)
    certificate, key = folder / f"{number}.crt", folder / f"{number}.key"
    chain = [signed(leaf, signer), *leaf.chain]
    certificate.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    key.write_bytes(
        leaf.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key


def _built(
    leaf: Leaf, subject: x509.Name, issuer: x509.Name, key: PrivateKey, by: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not leaf.is_authority,
        key_cert_sign=leaf.is_authority,
        crl_sign=leaf.is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + leaf.not_before)
        .not_valid_after(now + leaf.not_after)
        .add_extension(x509.BasicConstraints(ca=leaf.is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not leaf.is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([leaf.usage]), critical=False)
    return builder.sign(by, hashes.SHA256())
