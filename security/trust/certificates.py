"""What our certificates look like: keys, names and a time in, a certificate out; no files, no clock.

Two levels: a root, which signs issuing authorities and nothing else, and an issuing authority, which signs
things, services, servers and its revocation list. Keys and serials come from the operating system's
generator and are meant to be unlike in every run. (spec: security 4.1, 4.2)
"""

import base64
import contextlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from security.trust import identifiers
from security.trust.requests import PublicKey, spki_sha256

ROOT_CURVE: Final = ec.SECP384R1()
CURVE: Final = ec.SECP256R1()
ROOT_LIFE: Final = timedelta(days=20 * 365)
ISSUING_LIFE: Final = timedelta(days=5 * 365)
THING_LIFE: Final = timedelta(days=365)
SERVICE_LIFE: Final = timedelta(days=30)
SERVER_LIFE: Final = timedelta(days=90)
LIST_KEY_LIFE: Final = timedelta(days=5 * 365)
BACKDATING: Final = timedelta(hours=1)
"""Devices whose clock is behind accept a new certificate all the same."""
AUTHORITY_BACKDATING: Final = timedelta(days=1)
SERIAL_BITS: Final = 128
NAME_CHARS_MAX: Final = 64
"""A certificate's common name ends here (RFC 5280)."""
HOSTS_MAX: Final = 32
THING_URN: Final = "urn:gnomon:thing:"
SERVICE_URN: Final = "urn:gnomon:svc:"
SERVICE_PREFIX: Final = "svc."
LIST_KEY: Final = "key-list"

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_TRUSTED: Final = "TRUSTED CERTIFICATE"
_FOR_CLIENTS: Final = bytes.fromhex("300c300a06082b06010505070302")
"""X509_CERT_AUX, DER: the uses for which to trust, of which there is one, clientAuth."""
_LINE_CHARS: Final = 64
_PEM: Final = serialization.Encoding.PEM
_DER: Final = serialization.Encoding.DER


class AuthorityError(Exception):
    """No certificate was issued."""


class InvalidHostError(AuthorityError):
    """A server certificate was asked for something that is no host."""


class AuthorityExpiredError(AuthorityError):
    """An authority is at the end of its life, or the clock is not within it."""


class ForeignPairError(Exception):
    """These bytes are not a certificate and its key, or not one of this authority."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate, with what it takes to check it up to the root, and its private key (PKCS 8), as PEM."""

    certificate_pem: bytes
    private_key_pem: bytes

    def __repr__(self) -> str:
        return "Credentials(***)"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def id(self) -> str:
        """The authority's key id, by which revocations name it."""
        return key_id(self.certificate)

    def __repr__(self) -> str:
        return "Pair(***)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that was issued, and all by which it may be found again."""

    serial: str
    """32 hexadecimal digits."""
    certificate_pem: bytes
    chain_pem: bytes
    """The certificate and its issuer's: what its owner presents."""
    der: bytes
    spki_sha256: str
    lfdi: str
    sfdi: str
    not_before: datetime
    not_after: datetime
    issuer: str
    """Key id of the issuing authority."""


# ---------------------------------------------------------------------------- authorities


def make_root(now: datetime) -> Pair:
    """Return a new root, which issues authorities and nothing else."""
    key = ec.generate_private_key(ROOT_CURVE)
    # A number in the name: two roots of two first runs are not mistaken for each other.
    name = _name(f"Gnomon root {secrets.token_hex(4)}")
    builder = _authority(name, name, key.public_key(), path_length=1)
    builder = builder.not_valid_before(now - AUTHORITY_BACKDATING).not_valid_after(now + ROOT_LIFE)
    return Pair(builder.sign(key, hashes.SHA384()), key)


def make_issuing(root: Pair, now: datetime) -> Pair:
    """Return a new issuing authority, which issues end certificates and no further authorities."""
    check_alive(root.certificate, now, "root")
    key = ec.generate_private_key(CURVE)
    name = _name(f"Gnomon issuing {secrets.token_hex(4)}")
    builder = _authority(name, root.certificate.subject, key.public_key(), path_length=0)
    builder = _within(builder, root, now - AUTHORITY_BACKDATING, now + ISSUING_LIFE)
    builder = builder.add_extension(_issuer_key(root), critical=False)
    return Pair(builder.sign(root.key, hashes.SHA384()), key)


def key_id(certificate: x509.Certificate) -> str:
    """Return the key id of a certificate of ours, in hexadecimal digits."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return extension.value.digest.hex()


def check_alive(authority: x509.Certificate, now: datetime, kind: str) -> None:
    """Raise :class:`AuthorityExpiredError` unless the authority may sign now."""
    if not is_alive(authority, now):
        first, last = authority.not_valid_before_utc, authority.not_valid_after_utc
        raise AuthorityExpiredError(
            f"the {kind} authority is good from {first:%Y-%m-%d} to {last:%Y-%m-%d}, and the clock says"
            f" {now:%Y-%m-%d}: set the clock, or make a successor (`gnomon ca renew`)"
        )


def is_alive(certificate: x509.Certificate, now: datetime) -> bool:
    """Tell whether a certificate is within its life."""
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def check_issuer(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise :class:`ForeignPairError` unless the one signed the other."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ForeignPairError("the certificate is not signed by this authority") from error


def check_authority(certificate: x509.Certificate) -> None:
    """Raise :class:`ForeignPairError` unless the certificate says that it may issue others."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ForeignPairError("the certificate does not say that it may issue others") from error
    if not constraints.ca:
        raise ForeignPairError("the certificate may not issue others")


# ---------------------------------------------------------------------------- end certificates


def sign_thing(issuer: Pair, name: str, key: PublicKey, now: datetime) -> x509.Certificate:
    """Return a certificate for a thing's key; the caller has checked the name."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(THING_URN + name)])
    return _sign(issuer, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, key, now, THING_LIFE)


def sign_service(issuer: Pair, name: str, key: PublicKey, now: datetime) -> x509.Certificate:
    """Return a certificate for the key of a service of ours; the caller has checked the name."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SERVICE_URN + name)])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    return _sign(issuer, SERVICE_PREFIX + name, names, usage, key, now, SERVICE_LIFE)


def sign_list_key(issuer: Pair, key: ed25519.Ed25519PublicKey, now: datetime) -> x509.Certificate:
    """Return a certificate for the key that signs the list of signing keys, and may do nothing else."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SERVICE_URN + LIST_KEY)])
    usage = ExtendedKeyUsageOID.CODE_SIGNING
    return _sign(issuer, SERVICE_PREFIX + LIST_KEY, names, usage, key, now, LIST_KEY_LIFE)


def sign_server(issuer: Pair, hosts: Sequence[str], key: PublicKey, now: datetime) -> x509.Certificate:
    """Return a certificate for the key of a server that is reached under these hosts."""
    names = host_names(hosts)
    common_name = next((host for host in hosts if len(host) <= NAME_CHARS_MAX), None)
    if common_name is None:
        raise InvalidHostError(f"at least one host must have no more than {NAME_CHARS_MAX} characters")
    return _sign(issuer, common_name, names, ExtendedKeyUsageOID.SERVER_AUTH, key, now, SERVER_LIFE)


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> Issued:
    """Return all that is to be known of a certificate that was just signed."""
    der = certificate.public_bytes(_DER)
    key = certificate.public_key()
    assert isinstance(key, PublicKey), "no other key is ever certified"
    lfdi = identifiers.lfdi(der)
    return Issued(
        serial=identifiers.serial_text(certificate.serial_number),
        certificate_pem=pem(certificate),
        chain_pem=pem(certificate, issuer),
        der=der,
        spki_sha256=spki_sha256(key),
        lfdi=lfdi,
        sfdi=identifiers.sfdi(lfdi),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        issuer=key_id(issuer),
    )


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as one text."""
    return b"".join(certificate.public_bytes(_PEM) for certificate in certificates)


def trusted_pem(certificate: x509.Certificate) -> bytes:
    """Return an authority as OpenSSL's ``TRUSTED CERTIFICATE``: to be believed for clients by itself.

    The check of a thing ends there and does not go on to the root, whose P-384 signature costs a broker
    more than all the rest of the check: 1.0 instead of 1.7 ms for each handshake. [measured]
    """
    der = base64.b64encode(certificate.public_bytes(_DER) + _FOR_CLIENTS).decode()
    lines = (der[start : start + _LINE_CHARS] for start in range(0, len(der), _LINE_CHARS))
    return "\n".join((f"-----BEGIN {_TRUSTED}-----", *lines, f"-----END {_TRUSTED}-----", "")).encode()


def host_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the names of a server certificate, or raise :class:`InvalidHostError`."""
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise InvalidHostError(f"a server certificate names 1 to {HOSTS_MAX} hosts, not {len(hosts)}")
    return x509.SubjectAlternativeName([_host_name(host) for host in hosts])


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """Return the alternative names of a certificate of ours."""
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


# ---------------------------------------------------------------------------- details


def _sign(  # one builder for all profiles: what they share cannot drift apart
    issuer: Pair,
    common_name: str,
    names: x509.SubjectAlternativeName,
    usage: x509.ObjectIdentifier,
    key: PublicKey | ed25519.Ed25519PublicKey,
    now: datetime,
    life: timedelta,
) -> x509.Certificate:
    check_alive(issuer.certificate, now, "issuing")
    builder = _within(
        _builder(_name(common_name), issuer.certificate.subject, key), issuer, now - BACKDATING, now + life
    )
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(_issuer_key(issuer), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def _authority(
    name: x509.Name, issuer: x509.Name, key: PublicKey, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        _builder(name, issuer, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )


def _builder(
    name: x509.Name, issuer: x509.Name, key: PublicKey | ed25519.Ed25519PublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(SERIAL_BITS) or 1)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _within(
    builder: x509.CertificateBuilder, issuer: Pair, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    """Give a certificate its life, and nothing beyond its issuer's."""
    certificate = issuer.certificate
    return builder.not_valid_before(max(begin, certificate.not_valid_before_utc)).not_valid_after(
        min(end, certificate.not_valid_after_utc)
    )


def _issuer_key(issuer: Pair) -> x509.AuthorityKeyIdentifier:
    key = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    if not _HOST.fullmatch(host):
        raise InvalidHostError(
            f"{host!r} is neither a host name (letters, digits, - and .) nor an IP address"
        )
    return x509.DNSName(host)
