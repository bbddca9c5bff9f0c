"""Certificate revocation lists: what is on them, how they are dated, how they are read again. Pure.

A verifier (OpenSSL) that has met several lists of one issuer believes the one with the later ``thisUpdate``,
by whole seconds, and of two alike the one it met first. A broker that reloads keeps the old ones. So each
list must be dated at least a second after the one before it, and none in the future: they begin an hour
back and count up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from security.trust.certificates import BACKDATING, Pair
from security.trust.identifiers import serial_text

LIFE: Final = timedelta(hours=24)
"""An expired list locks out everyone, revoked or not; hence the next three."""
RENEWAL: Final = timedelta(hours=6)
"""Age at which a list is made anew without a revocation."""
ALARM: Final = timedelta(hours=12)
"""What is left of a list when somebody has to look."""
STEP: Final = timedelta(seconds=1)

_PEM: Final = serialization.Encoding.PEM
_REASONS: Final = {
    flag.name: flag
    for flag in x509.ReasonFlags
    if flag not in (x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl)
}


class CrlTooSoonError(Exception):
    """So many lists were made in a short time that the next one would be dated in the future."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is not to be believed any more."""

    serial: str
    at: datetime
    reason: str
    """A name of :class:`x509.ReasonFlags` such as ``key_compromise``; others are left out of the list."""
    issuer: str
    """Key id of the authority that issued it."""


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of one file, one for each issuing authority."""

    pem: bytes
    this_update: datetime
    next_update: datetime
    number: int
    issuers: frozenset[str]


def make(issuers: Sequence[Pair], revoked: Iterable[Revoked], now: datetime, last: Lists | None) -> Lists:
    """Return the lists that come after ``last``; a row whose issuer is not among these has gone with it."""
    this_update, next_update = date_after(last, now), now + LIFE
    number = last.number + 1 if last else 1
    rows: dict[str, list[Revoked]] = {issuer.id: [] for issuer in issuers}
    for row in revoked:
        if row.issuer in rows:
            rows[row.issuer].append(row)
    text = b"".join(
        _sign(issuer, rows[issuer.id], this_update, next_update, number).public_bytes(_PEM)
        for issuer in issuers
    )
    return Lists(text, this_update, next_update, number, frozenset(rows))


def date_after(last: Lists | None, now: datetime) -> datetime:
    """Return the date of the next list, or raise :class:`CrlTooSoonError`."""
    begin = now - BACKDATING
    # A list from the future was made before the clock was set back; no verifier believes it.
    if last is None or last.this_update > now:
        return begin
    date = max(begin, last.this_update + STEP)
    if date > now:
        raise CrlTooSoonError("too many revocation lists were made within the hour: wait a second")
    return date


def parse(text: bytes) -> Lists | None:
    """Read the lists of a file, None when it holds none of ours."""
    try:
        lists = _split(text)
        if not lists:
            return None
        numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in lists]
        return Lists(
            text,
            max(one.last_update_utc for one in lists),
            min(one.next_update_utc or one.last_update_utc for one in lists),
            max(numbers),
            frozenset(_issuer(one) for one in lists),
        )
    except (ValueError, x509.ExtensionNotFound):
        return None


def rows(text: bytes) -> list[Revoked]:
    """Return all that is on the lists of a file that :func:`parse` has read."""
    return [
        Revoked(serial_text(row.serial_number), row.revocation_date_utc, _reason(row), _issuer(one))
        for one in _split(text)
        for row in one
    ]


def _sign(
    issuer: Pair, rows: Iterable[Revoked], this_update: datetime, next_update: datetime, number: int
) -> x509.CertificateRevocationList:
    key = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    # The rows go in at once: added one by one the library copies all before it each time.
    builder = x509.CertificateRevocationListBuilder(
        revoked_certificates=[_row(row) for row in sorted(rows, key=lambda row: row.serial)]
    )
    return (
        builder.issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


def _row(row: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(int(row.serial, 16), row.at)
    flag = _REASONS.get(row.reason)
    if flag is not None:
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def _reason(row: x509.RevokedCertificate) -> str:
    try:
        return row.extensions.get_extension_for_class(x509.CRLReason).value.reason.name
    except x509.ExtensionNotFound:
        return ""


def _issuer(one: x509.CertificateRevocationList) -> str:
    return (
        one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    ).hex()


def _split(text: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----"
    return [x509.load_pem_x509_crl(part + end) for part in text.split(end)[:-1]]
