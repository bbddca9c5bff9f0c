"""The Trust Center's authorities on this machine: a root, and the issuing authority that does the work.

It signs what it is told to sign. *Who* gets a certificate is decided elsewhere, and no private key of a thing
is ever here. Several processes may use one directory at a time.

In the directory::

    root.pem                 the root's certificate and encrypted key, until it is moved away
    root.passphrase          its passphrase, sealed
    root.crt                 the roots to trust, old and new; the only file to hand out
    issuing-0001.pem ...     issuing authorities, each with its encrypted key; the newest signs
    issuing.passphrase       their passphrase, sealed
    authorities.crt          roots and living issuing authorities, for the broker
    crl.pem                  a revocation list of each living issuing authority
    server-<hosts>.pem       the last server certificate for these hosts, with its key
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from infra.clock import MS_PER_S, Clock
from infra.ids import RandomIds
from security import private_files
from security.private_files import DamagedFileError, ExposedFileError
from security.secret import Secret
from security.secretbox import SealBrokenError, SecretBox
from security.trust import certificates, crl, keyfiles, keys
from security.trust.certificates import (
    ISSUING_LIFE,
    NAME_CHARS_MAX,
    SERVICE_PREFIX,
    AuthorityError,
    AuthorityExpiredError,
    Credentials,
    ForeignPairError,
    InvalidHostError,
    Issued,
    Pair,
)
from security.trust.crl import CrlTooSoonError, Lists, Revoked
from security.trust.requests import PublicKey, certs_only

__all__ = [
    "Alarm",
    "Authority",
    "AuthorityError",
    "AuthorityExpiredError",
    "Credentials",
    "CrlTooSoonError",
    "DamagedFileError",
    "ExposedFileError",
    "InvalidHostError",
    "Issued",
    "NoAuthorityError",
    "Revoked",
    "RootInReachError",
    "UncertifiableNameError",
    "settled",
]

SERVER_RENEWAL: Final = timedelta(days=30)
"""What is left of a server certificate when it is made anew."""
ISSUING_ALARM: Final = timedelta(days=365)
"""What is left of the issuing authority when its successor should be there."""
ROOT_ALARM: Final = ISSUING_LIFE
"""What is left of the root when issuing authorities begin to end with it."""
SETTLING: Final = timedelta(days=1)
"""How long a successor is published before it signs: each broker has read its certificate by then."""
PASSPHRASE_BITS: Final = 256
CRL_BYTES_MAX: Final = 67_108_864

ROOT_FILE: Final = "root.crt"
ROOT_KEY_FILE: Final = "root.pem"
ROOT_PASSPHRASE_FILE: Final = "root.passphrase"  # noqa: S105 - a file
ISSUING_PASSPHRASE_FILE: Final = "issuing.passphrase"  # noqa: S105 - a file
ISSUING_FILE: Final = "issuing-{:04}.pem"
AUTHORITIES_FILE: Final = "authorities.crt"
CRL_FILE: Final = "crl.pem"
SERVER_FILE: Final = "server-{}.pem"
OLD_FILE: Final = "authority.pem"
"""The one root of the time before the Trust Center."""

_LOCK_FILE: Final = "lock"
_ISSUING: Final = re.compile(r"issuing-\d{4}\.pem")
_NAME: Final = re.compile(rf"[A-Za-z0-9-]{{1,{NAME_CHARS_MAX}}}")
_WIDE_NAME: Final = re.compile(rf"[A-Za-z0-9:_-]{{1,{NAME_CHARS_MAX}}}")
_SERVICE: Final = re.compile(rf"[a-z][a-z0-9-]{{0,{NAME_CHARS_MAX - len(SERVICE_PREFIX) - 1}}}")
_RELIST: Final = (
    "the service makes it from what it has recorded, within a minute while it runs, else at its next start"
)
_RESTORE: Final = "put back a copy; without it every thing needs a new certificate in the end"


class UncertifiableNameError(AuthorityError):
    """The name may not stand in a certificate: the broker's patterns could take it for more than a name."""

    def __init__(self, name: str, *, wide_names: bool) -> None:
        allowed = "A-Z a-z 0-9 - : _" if wide_names else "A-Z a-z 0-9 - (`trust.wide_names` adds : and _)"
        super().__init__(f"a name in a certificate has 1 to {NAME_CHARS_MAX} of {allowed}")
        self.name = name


class RootInReachError(AuthorityError):
    """In production the root's key does not lie on the machine that serves."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the root's key is within reach ({path}) although trust.production is set: take it to a"
            " removable medium with `gnomon ca move-root DIRECTORY`"
        )


class NoAuthorityError(AuthorityError):
    """There is no authority to open, and none is made here."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that ends too soon; ``remedy`` says what to do."""

    subject: str
    found: str
    remedy: str


class Authority:
    """Issues certificates and revocation lists from the authorities in its directory."""

    def __init__(
        self, directory: Path, box: SecretBox, clock: Clock, *, wide_names: bool, production: bool
    ) -> None:
        self._directory = directory
        self._box = box
        self._clock = clock
        self._wide_names = wide_names
        self._production = production
        self._read: dict[str, Pair] = {}

    @classmethod
    def open(
        cls,
        directory: Path,
        box: SecretBox,
        clock: Clock,
        *,
        wide_names: bool = False,
        production: bool = False,
    ) -> "Authority":
        """Open the authorities of this directory; make them on first run, and never again.

        ``wide_names`` lets ``:`` and ``_`` into certificates, for fleets that have such names already. With
        ``production`` nothing is made, and a root within reach is refused.

        Raises:
            AuthorityError: there is none, or its root is within reach.
            DamagedFileError: a file is not what we wrote. No authority is ever replaced.
            ExposedFileError: others than the owner may use a secret.
        """
        self = cls(directory, box, clock, wide_names=wide_names, production=production)
        private_files.make_directory(directory)
        self._check_reach()
        first = not self._issuing_files()
        if first:
            self._begin()
        self._publish(first=first)
        return self

    @classmethod
    def look(
        cls,
        directory: Path,
        box: SecretBox,
        clock: Clock,
        *,
        wide_names: bool = False,
        production: bool = False,
    ) -> "Authority":
        """Open what is there, and write nothing: to say how it is. Raises as :meth:`open` does."""
        self = cls(directory, box, clock, wide_names=wide_names, production=production)
        private_files.check_directory(directory)
        self._check_reach()
        if not self._issuing_files():
            raise self._lost_issuing()
        self._kept_root()
        self._check_chain()
        return self

    @classmethod
    def bare(cls, directory: Path, box: SecretBox, clock: Clock) -> "Authority":
        """Open what is left, be it without any issuing authority: for :meth:`renew` alone."""
        private_files.make_directory(directory)
        return cls(directory, box, clock, wide_names=False, production=False)

    @classmethod
    def found(cls, directory: Path, box: SecretBox, clock: Clock, root: Pair) -> "Authority":
        """Begin with a root that is kept elsewhere: make its first issuing authority here.

        Raises :class:`AuthorityError` when there is an authority already.
        """
        self = cls(directory, box, clock, wide_names=False, production=True)
        private_files.make_directory(directory)
        if self._issuing_files() or (directory / OLD_FILE).exists() or self.root_in_reach:
            raise AuthorityError(
                f"there is an authority in {directory} already: `gnomon ca show` tells of it"
            )
        self.renew(root)
        return self

    # ------------------------------------------------------------------ what to trust

    @staticmethod
    def is_begun(directory: Path) -> bool:
        """Tell whether there is an authority in this directory, whole or not."""
        marks = (directory / name for name in (ROOT_FILE, ROOT_KEY_FILE, OLD_FILE))
        return any(mark.exists() for mark in marks) or bool(_issuing_files(directory))

    @property
    def root_in_reach(self) -> bool:
        """Whether the root's key lies here, where whoever takes over the service can use it."""
        return self._path(ROOT_KEY_FILE).exists()

    @property
    def root_pem_path(self) -> Path:
        """The roots to trust, for whoever has to trust them."""
        return self._path(ROOT_FILE)

    @property
    def root_pem(self) -> bytes:
        """The same as bytes."""
        return certificates.pem(*self.roots())

    @property
    def authorities_path(self) -> Path:
        """Roots and living issuing authorities, for the broker's ``cafile``."""
        return self._path(AUTHORITIES_FILE)

    @property
    def crl_path(self) -> Path:
        """The revocation lists, for the broker's ``crlfile``. Only :meth:`write_crl` makes a lost one."""
        return self._path(CRL_FILE)

    @property
    def crl_next_update(self) -> datetime:
        """When the revocation lists end."""
        return self._lists().next_update

    @property
    def expires(self) -> datetime:
        """When the issuing authority in use comes to its end."""
        return self._newest().certificate.not_valid_after_utc

    def roots(self) -> tuple[x509.Certificate, ...]:
        """Return the roots to trust: those that live, old and new."""
        path = self._path(ROOT_FILE)
        try:
            kept = x509.load_pem_x509_certificates(path.read_bytes())
        except (FileNotFoundError, ValueError):
            kept = []
        roots = tuple(root for root in kept if certificates.is_alive(root, self._now())) or tuple(kept)
        if not roots:
            raise DamagedFileError(path, "does not hold our root", _RESTORE)
        return roots

    def issuing(self) -> tuple[x509.Certificate, ...]:
        """Return the certificates of the living issuing authorities, the oldest first."""
        return tuple(pair.certificate for pair in self._living())

    @property
    def signing(self) -> x509.Certificate:
        """The certificate of the issuing authority in use."""
        return self._newest().certificate

    def cacerts(self) -> bytes:
        """Return roots and issuing authorities as PKCS#7 (DER), the answer to EST's ``cacerts``."""
        return certs_only([certificates.pem(*self.roots(), *self.issuing())])

    # ------------------------------------------------------------------ signing

    def check_name(self, name: str) -> None:
        """Raise :class:`UncertifiableNameError` unless a certificate could be issued to this name."""
        if not (_WIDE_NAME if self._wide_names else _NAME).fullmatch(name):
            raise UncertifiableNameError(name, wide_names=self._wide_names)

    def sign_thing(self, name: str, public_key: PublicKey) -> Issued:
        """Return a certificate that says: who holds this key is the thing of that name."""
        self.check_name(name)
        issuer = self._newest()
        return certificates.issued(
            certificates.sign_thing(issuer, name, public_key, self._now()), issuer.certificate
        )

    def sign_service(self, name: str, public_key: PublicKey) -> Issued:
        """Return the same for a service of ours, ``svc.<name>``."""
        if not _SERVICE.fullmatch(name):
            raise UncertifiableNameError(name, wide_names=False)
        issuer = self._newest()
        return certificates.issued(
            certificates.sign_service(issuer, name, public_key, self._now()), issuer.certificate
        )

    def sign_list_key(self, public_key: Ed25519PublicKey) -> tuple[bytes, bytes]:
        """Return what vouches for the key that signs the list of signing keys, DER: its certificate, ours."""
        issuer = self._newest()
        made = certificates.sign_list_key(issuer, public_key, self._now())
        return made.public_bytes(Encoding.DER), issuer.certificate.public_bytes(Encoding.DER)

    def server_credentials(self, hosts: Sequence[str]) -> Credentials:
        """Return the server certificate kept for these hosts, made anew when it would not do much longer."""
        names = certificates.host_names(hosts)
        path = self._path(SERVER_FILE.format(hashlib.sha256("\n".join(hosts).encode()).hexdigest()[:12]))
        kept = _kept_server(path)
        if kept is not None and self._will_do(kept[1], names):
            return kept[0]
        issuer, key = self._newest(), keys.make_key()
        leaf = certificates.sign_server(issuer, hosts, key.public_key(), self._now())
        made = Credentials(certificates.pem(leaf, issuer.certificate), keys.key_pem(key))
        private_files.replace(path, keyfiles.server_file(made))
        return made

    # ------------------------------------------------------------------ revocation lists

    def write_crl(self, revoked: Iterable[Revoked]) -> None:
        """Write the lists with these rows: all that are revoked and have not expired.

        Raises :class:`CrlTooSoonError` when thousands were written in the last hour; the old ones stay.
        """
        with self._locked():
            self._write_crl(revoked)

    def refresh_crl(self) -> None:
        """Write the lists again with the rows they have, and so make them last.

        Raises :class:`DamagedFileError` when they are lost: who has been revoked is not known here.
        """
        with self._locked():
            self._write_crl(self._rows())

    @property
    def crl_is_due(self) -> bool:
        """Whether the revocation lists should be written again, though nothing was revoked."""
        return self.crl_next_update - self._now() <= crl.LIFE - crl.RENEWAL

    # ------------------------------------------------------------------ succession

    def root(self) -> Pair:
        """Return the root that is within reach, or raise :class:`NoAuthorityError`."""
        pair = self._kept_root()
        if pair is None:
            raise NoAuthorityError("the root is not here: say with --root where it is")
        return pair

    def renew(self, root: Pair) -> None:
        """Make the next issuing authority; what the old ones signed stays good.

        It signs after :data:`SETTLING`, or at once when there is no other.
        """
        issuing = certificates.make_issuing(root, self._now())
        with self._locked():
            first = not self._issuing_files()
            self._trust(root.certificate)
            self._seal_issuing(self._next_file(), issuing)
        self._publish(first=first)

    def trust(self, root: x509.Certificate) -> None:
        """Publish another root beside the ones there are, a long time before anything is signed under it."""
        with self._locked():
            self._trust(root)
        self._publish(first=False)

    def move_root(self, directory: Path, passphrase: Secret) -> Path:
        """Take the root's key elsewhere, under a person's passphrase, and leave none here; return its file.

        Raises:
            NoAuthorityError: it is not here.
            FileExistsError: there is a file of that name.
        """
        root = self.root()
        path = directory / f"gnomon-root-{root.id[:8]}.pem"
        write_root(path, root, passphrase)
        if read_root(path, passphrase).id != root.id:
            raise AuthorityError(f"{path} does not read as it was written: the root stays where it is")
        for name in (ROOT_KEY_FILE, ROOT_PASSPHRASE_FILE):
            self._path(name).unlink()
        private_files.flush_directory(self._directory)
        return path

    # ------------------------------------------------------------------ what needs a person

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what ends too soon."""
        return tuple(self._alarms())

    def _alarms(self) -> Iterator[Alarm]:
        now = self._now()
        root_ends = max(root.not_valid_after_utc for root in self.roots())
        if root_ends - now < ROOT_ALARM:
            remedy = "begin with the next: gnomon ca init --successor (runbook, Authorities)"
            yield Alarm("root", f"ends on {root_ends:%Y-%m-%d}", remedy)
        issuing_ends = self._all()[-1].certificate.not_valid_after_utc
        if issuing_ends - now < ISSUING_ALARM:
            yield Alarm("issuing authority", f"ends on {issuing_ends:%Y-%m-%d}", "gnomon ca renew")
        lists = self._lists()
        if lists.next_update - now < crl.ALARM:
            # The date is what nobody may reach: then TLS refuses every device.
            found = f"ends at {lists.next_update:%Y-%m-%d %H:%M} UTC"
            yield Alarm("revocation list", found, "gnomon ca crl, and look why it was not made anew")

    # ------------------------------------------------------------------ first run

    def _check_reach(self) -> None:
        if self._production and self.root_in_reach:
            raise RootInReachError(self._path(ROOT_KEY_FILE))
        old = self._path(OLD_FILE)
        if old.exists() and not self._issuing_files():
            raise NoAuthorityError(
                f"{old} is the root of an earlier version, which signed things itself: move it away, and the"
                " next start makes new authorities; then every thing needs a new certificate"
            )

    def _begin(self) -> None:
        """Make what a first run makes; of two at once, each takes what the other has made."""
        if self._production:
            raise NoAuthorityError(
                f"there is no authority in {self._directory} yet: `gnomon ca init --root FILE` makes one"
            )
        if self._path(ROOT_FILE).exists() and not self.root_in_reach:
            raise self._lost_issuing()
        root = self._kept_root() or self._make_root()
        self._trust(root.certificate)
        issuing = certificates.make_issuing(root, self._now())
        self._seal_issuing(self._path(ISSUING_FILE.format(1)), issuing)

    def _lost_issuing(self) -> DamagedFileError:
        path = self._path(ISSUING_FILE.format(1))
        return DamagedFileError(path, "is missing", "put back a copy, or `gnomon ca renew --root FILE`")

    def _make_root(self) -> Pair:
        made = certificates.make_root(self._now())
        passphrase = self._first_passphrase(ROOT_PASSPHRASE_FILE)
        private_files.create(self._path(ROOT_KEY_FILE), keyfiles.seal(made, passphrase))
        return self.root()

    # ------------------------------------------------------------------ files

    def _publish(self, *, first: bool) -> None:
        """Put right what others read: roots, authorities, and a list for each issuing authority.

        Only the ``first`` list is empty: :meth:`write_crl` makes a lost one, with what the store knows of it.
        """
        root, roots = self._kept_root(), self._roots_or_none()
        if root is not None and root.certificate not in roots:
            self._trust(root.certificate)
        self._check_chain()
        _write_changed(self._path(ROOT_FILE), self.root_pem)
        trusted = b"".join(map(certificates.trusted_pem, self.issuing()))
        _write_changed(self._path(AUTHORITIES_FILE), self.root_pem + trusted)
        with self._locked():
            kept = crl.parse(self._crl_bytes())
            if kept is None:
                if first and not self.crl_path.exists():
                    self._write_crl(())
            elif kept.issuers != {pair.id for pair in self._living()}:
                self._write_crl(self._rows())

    def _check_chain(self) -> None:
        """See that each living issuing authority comes from a root that we tell others to trust."""
        known = {root.subject: root for root in self.roots()}
        for issuing in self.issuing():
            try:
                certificates.check_issuer(issuing, known[issuing.issuer])
            except (KeyError, ForeignPairError) as error:
                path = self._path(ROOT_FILE)
                raise DamagedFileError(path, "lacks the root of an issuing authority", _RESTORE) from error

    def _trust(self, root: x509.Certificate) -> None:
        kept = self._roots_or_none()
        if root not in kept:
            _write_changed(self._path(ROOT_FILE), certificates.pem(*kept, root))

    def _roots_or_none(self) -> tuple[x509.Certificate, ...]:
        try:
            return self.roots()
        except DamagedFileError:
            return ()

    def _kept_root(self) -> Pair | None:
        path = self._path(ROOT_KEY_FILE)
        kept = private_files.read(path)
        return None if kept is None else self._parse(path, kept, ROOT_PASSPHRASE_FILE)

    def _parse(self, path: Path, kept: bytes, passphrase: str) -> Pair:
        try:
            keyfiles.parse_certificate(kept)
            return keyfiles.parse(kept, self._passphrase(passphrase))
        except ForeignPairError as error:
            raise DamagedFileError(path, f"does not hold our authority ({error})", _RESTORE) from error

    def _newest(self) -> Pair:
        """Return the authority that signs: the newest that has settled, else the one longest published."""
        living, now = self._living(), self._now()
        ready = [pair for pair in living if settled(pair.certificate) <= now]
        return ready[-1] if ready else (living or self._all()[-1:])[0]

    def _living(self) -> list[Pair]:
        now = self._now()
        return [pair for pair in self._all() if certificates.is_alive(pair.certificate, now)]

    def _all(self) -> list[Pair]:
        # A successor may be made by another process while this one serves.
        return [self._issuing(name) for name in self._issuing_files()]

    def _issuing(self, name: str) -> Pair:
        if name not in self._read:
            path = self._path(name)
            kept = private_files.read(path) or b""
            self._read[name] = self._parse(path, kept, ISSUING_PASSPHRASE_FILE)
        return self._read[name]

    def _issuing_files(self) -> list[str]:
        return _issuing_files(self._directory)

    def _next_file(self) -> Path:
        last = max(self._issuing_files(), default=ISSUING_FILE.format(0))
        return self._path(ISSUING_FILE.format(int(last[-8:-4]) + 1))

    def _seal_issuing(self, path: Path, issuing: Pair) -> None:
        passphrase = self._first_passphrase(ISSUING_PASSPHRASE_FILE)
        private_files.create(path, keyfiles.seal(issuing, passphrase))

    def _first_passphrase(self, name: str) -> Secret:
        """Return a sealed passphrase; make it at first, which is before anything is under it."""
        path = self._path(name)
        if not path.exists():
            self._box.write(path, RandomIds().token(PASSPHRASE_BITS).encode(), f"ca/{name}")
        return self._passphrase(name)

    def _passphrase(self, name: str) -> Secret:
        path = self._path(name)
        try:
            kept = self._box.read(path, f"ca/{name}")
        except SealBrokenError as error:
            problem, remedy = "does not open with the master key", "put back copies that belong together"
            raise DamagedFileError(path, problem, remedy) from error
        if kept is None:
            raise DamagedFileError(path, "is missing", _RESTORE)
        return Secret(kept.decode())

    def _will_do(self, chain: Sequence[x509.Certificate], names: x509.SubjectAlternativeName) -> bool:
        leaf, now = chain[0], self._now()
        if chain[1:] not in {(issuing,) for issuing in self.issuing()}:
            return False
        try:
            certificates.check_issuer(leaf, chain[1])
        except ForeignPairError:
            return False
        # One that ends with its issuer itself cannot be made to last longer.
        until = leaf.not_valid_after_utc
        lasting = until - now > SERVER_RENEWAL or until == self.expires
        return lasting and certificates.is_alive(leaf, now) and certificates.names_of(leaf) == names

    # ------------------------------------------------------------------ revocation lists

    def _write_crl(self, revoked: Iterable[Revoked]) -> None:
        lists = crl.make(self._living(), revoked, self._now(), crl.parse(self._crl_bytes()))
        private_files.replace(self._path(CRL_FILE), lists.pem, private_files.PUBLIC_MODE)

    def _lists(self) -> Lists:
        lists = crl.parse(self._crl_bytes())
        if lists is None:
            raise DamagedFileError(self._path(CRL_FILE), "holds no revocation list", _RELIST)
        return lists

    def _rows(self) -> list[Revoked]:
        return crl.rows(self._lists().pem)

    def _crl_bytes(self) -> bytes:
        try:
            with self._path(CRL_FILE).open("rb") as file:
                return file.read(CRL_BYTES_MAX)
        except FileNotFoundError:
            return b""

    # ------------------------------------------------------------------ details

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from what is read, changed and written again."""
        with self._path(_LOCK_FILE).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _now(self) -> datetime:
        # Certificates count whole seconds.
        return datetime.fromtimestamp(self._clock.now_ms() // MS_PER_S, UTC)


def settled(issuing: x509.Certificate) -> datetime:
    """Return when an issuing authority has been published for so long that it may sign."""
    return issuing.not_valid_before_utc + certificates.AUTHORITY_BACKDATING + SETTLING


def write_root(path: Path, root: Pair, passphrase: Secret) -> None:
    """Write a root to a removable medium; never replace a file."""
    # No links as for our own files, and no insisting on modes: such a medium is often FAT, which has neither.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(keyfiles.seal_for_a_person(root, passphrase))
        file.flush()
        os.fsync(file.fileno())
    private_files.flush_directory(path.parent)


def read_root(path: Path, passphrase: Secret) -> Pair:
    """Read a root back, or raise :class:`~security.trust.certificates.ForeignPairError`."""
    with path.open("rb") as file:
        return keyfiles.parse(file.read(private_files.FILE_BYTES_MAX), passphrase)


def _issuing_files(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if _ISSUING.fullmatch(path.name))


def _kept_server(path: Path) -> tuple[Credentials, tuple[x509.Certificate, ...]] | None:
    # Nothing is lost with a server certificate: whatever is wrong with it is cured by a new one.
    try:
        kept = private_files.read(path)
        return None if kept is None else keyfiles.parse_server_file(kept)
    except (DamagedFileError, ExposedFileError, ForeignPairError):
        return None


def _write_changed(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        private_files.replace(path, data, private_files.PUBLIC_MODE)
