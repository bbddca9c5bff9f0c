"""A key list as devices get it, and who vouches for it: a root, its issuing authority, a list key."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ota.key_list import KeyList, write
from security.trust import certificates
from tests import ota_base as base

NOW = datetime.fromtimestamp(base.NOW_S, UTC)
LIST_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ROOT = certificates.make_root(NOW)
ISSUING = certificates.make_issuing(ROOT, NOW)
OTHER = certificates.make_root(NOW)
LIST = KeyList(7, base.NOW_S - 10, base.NOW_S + 86_400, tuple(base.KEYS.values()))


def certify(issuer, usage=ExtendedKeyUsageOID.CODE_SIGNING, key=LIST_KEY, days=30):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "list key")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def der(pair):
    return pair.certificate.public_bytes(Encoding.DER)


CHAIN = (certify(ISSUING), der(ISSUING))
SEALED = write(LIST, LIST_KEY, CHAIN)


THING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))


def forged(list: KeyList) -> dict[str, bytes]:
    """Return a list as somebody else would seal it, by what is wrong with that."""
    things = certify(ISSUING, ExtendedKeyUsageOID.CLIENT_AUTH)
    return {
        "another root": write(list, LIST_KEY, [certify(OTHER)]),
        "a thing's certificate": write(list, LIST_KEY, [things, CHAIN[1]]),
        "a certificate that is over": write(list, LIST_KEY, [certify(ISSUING, days=0), CHAIN[1]]),
        "another key signs": write(list, THING_KEY, CHAIN),
        "issued by an end certificate": write(list, LIST_KEY, [CHAIN[0], CHAIN[0]]),
        "the issuing authority is missing": write(list, LIST_KEY, CHAIN[:1]),
        "the authority signs by itself": write(list, LIST_KEY, [der(ISSUING)]),
        "no certificate": write(list, LIST_KEY, [b"x"]),
    }
