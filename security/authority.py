"""The first-run certificate authority: one root on this machine that makes things and the broker known.

What others may rely on is small, because the Trust Center takes this place later: ``Authority.open``,
``check_name``, ``issue_thing``, ``issue_server``, ``server_credentials`` and ``root_pem_path``. It decides
nothing about *who* gets a certificate, and keeps no private key of a thing.

In the directory: ``authority.pem`` (root key and certificate in one file, so that one step makes both),
``server.pem`` (the last server certificate with its key) and ``root.crt``, the only one to hand out.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from infra.clock import MS_PER_S, Clock
from security import certificates, private_files
from security.certificates import (
    NAME_CHARS_MAX,
    AuthorityError,
    AuthorityExpiredError,
    Credentials,
    ForeignPairError,
    InvalidHostError,
    Pair,
)
from security.private_files import DamagedFileError, ExposedFileError

__all__ = [
    "Authority",
    "AuthorityError",
    "AuthorityExpiredError",
    "Credentials",
    "DamagedFileError",
    "ExposedFileError",
    "InvalidHostError",
    "UncertifiableNameError",
]

SERVER_RENEWAL: Final = timedelta(days=30)
"""What is left of a server certificate when it is made anew."""
ROOT_FILE: Final = "root.crt"
AUTHORITY_FILE: Final = "authority.pem"
SERVER_FILE: Final = "server.pem"

_NAME: Final = re.compile(rf"[A-Za-z0-9-]{{1,{NAME_CHARS_MAX}}}")
_WIDE_NAME: Final = re.compile(rf"[A-Za-z0-9:_-]{{1,{NAME_CHARS_MAX}}}")


class UncertifiableNameError(AuthorityError):
    """The name may not stand in a certificate: the broker's patterns could take it for more than a name."""

    def __init__(self, name: str, *, wide_names: bool) -> None:
        allowed = "A-Z a-z 0-9 - : _" if wide_names else "A-Z a-z 0-9 - (`wide_names` adds : and _)"
        super().__init__(f"a name in a certificate has 1 to {NAME_CHARS_MAX} of {allowed}")
        self.name = name


class Authority:
    """Issues certificates from the root in its directory."""

    def __init__(self, directory: Path, clock: Clock, root: Pair, *, wide_names: bool) -> None:
        self._directory = directory
        self._clock = clock
        self._root = root
        self._wide_names = wide_names

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, wide_names: bool = False) -> "Authority":
        """Open the authority of this directory; make its root on first run, and never again.

        ``wide_names`` lets ``:`` and ``_`` into certificates, for fleets that have such names already.
        Raises :class:`DamagedFileError` or :class:`ExposedFileError`, never replaces a root.
        """
        private_files.make_directory(directory)
        path = directory / AUTHORITY_FILE
        kept = private_files.read(path)
        if kept is None:
            private_files.create(path, _pem(certificates.make_root(_now(clock))))
            # Another process may have been first, and then its root is the root.
            kept = private_files.read(path)
            assert kept is not None, "made a moment ago"
        root = _parse_root(path, kept)
        _publish(directory / ROOT_FILE, root)
        return cls(directory, clock, root, wide_names=wide_names)

    @property
    def root_pem_path(self) -> Path:
        """The root certificate, for whoever has to trust it."""
        return self._directory / ROOT_FILE

    @property
    def root_pem(self) -> bytes:
        """The same as bytes."""
        return self._root.credentials().certificate_pem

    @property
    def expires(self) -> datetime:
        """When the root, and with it everything it issued, comes to its end."""
        return self._root.certificate.not_valid_after_utc

    def check_name(self, name: str) -> None:
        """Raise :class:`UncertifiableNameError` unless a certificate could be issued to this name."""
        if not (_WIDE_NAME if self._wide_names else _NAME).fullmatch(name):
            raise UncertifiableNameError(name, wide_names=self._wide_names)

    def issue_thing(self, name: str) -> Credentials:
        """Return a new key with a certificate that says: this is the thing of that name."""
        self.check_name(name)
        return certificates.issue_thing(self._root, name, _now(self._clock)).credentials()

    def issue_server(self, hosts: Sequence[str]) -> Credentials:
        """Return a new key with a certificate for a server that is reached under these hosts."""
        return certificates.issue_server(self._root, hosts, _now(self._clock)).credentials()

    def server_credentials(self, hosts: Sequence[str]) -> Credentials:
        """Return the server certificate kept for these hosts, made anew when it would not do much longer."""
        names = certificates.host_names(hosts)
        path = self._directory / SERVER_FILE
        kept = _kept_pair(path)
        if kept is None or not self._will_do(kept.certificate, names):
            kept = certificates.issue_server(self._root, hosts, _now(self._clock))
            private_files.replace(path, _pem(kept))
        return kept.credentials()

    def _will_do(self, certificate: x509.Certificate, names: x509.SubjectAlternativeName) -> bool:
        try:
            certificates.check_issuer(certificate, self._root.certificate)
        except ForeignPairError:
            return False
        now, until = _now(self._clock), certificate.not_valid_after_utc
        # One that ends with the root itself cannot be made to last longer.
        lasting = until - now > SERVER_RENEWAL or until == self.expires
        return (
            lasting
            and certificate.not_valid_before_utc <= now < until
            and certificates.names_of(certificate) == names
        )


def _parse_root(path: Path, kept: bytes) -> Pair:
    try:
        return certificates.parse_root(kept)
    except ForeignPairError as error:
        raise DamagedFileError(
            path,
            f"does not hold our root ({error})",
            "put back a copy, or move it away: the next start makes a new root, and then every thing needs a"
            " new certificate",
        ) from error


def _kept_pair(path: Path) -> Pair | None:
    # Nothing is lost with a server certificate: whatever is wrong with it is cured by a new one.
    try:
        kept = private_files.read(path)
        return None if kept is None else certificates.parse_pair(kept)
    except (DamagedFileError, ExposedFileError, ForeignPairError):
        return None


def _publish(path: Path, root: Pair) -> None:
    pem = root.credentials().certificate_pem
    if not path.is_file() or path.read_bytes() != pem:
        private_files.replace(path, pem, private_files.PUBLIC_MODE)


def _pem(pair: Pair) -> bytes:
    credentials = pair.credentials()
    return credentials.private_key_pem + credentials.certificate_pem


def _now(clock: Clock) -> datetime:
    # Certificates count whole seconds.
    return datetime.fromtimestamp(clock.now_ms() // MS_PER_S, UTC)
