"""Certificates for tests, straight from the authority's files: nobody is asked whether they may have one.

It works beside a running service of the same directory, because both read the same files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.clock import Clock, SystemClock
from infra.ids import RandomIds
from security.secretbox import SecretBox
from security.trust import certificates, keys
from security.trust.authority import Authority
from security.trust.certificates import Credentials


def open_authority(var: Path, clock: Clock | None = None, **options: Any) -> Authority:
    """Open the authority of a service's directory; make it if there is none."""
    box = SecretBox.open(var / "secrets" / "master.key", RandomIds())
    return Authority.open(var / "ca", box, clock or SystemClock(), **options)


def issue_thing(authority: Authority, name: str) -> Credentials:
    """Return a new key with a certificate for a thing, as it presents it: its issuer's beside it."""
    key = keys.make_key()
    return Credentials(authority.sign_thing(name, key.public_key()).chain_pem, keys.key_pem(key))


def issue_service(authority: Authority, name: str) -> Credentials:
    """Return the same for a service of ours."""
    key = keys.make_key()
    return Credentials(authority.sign_service(name, key.public_key()).chain_pem, keys.key_pem(key))


def issue_server(authority: Authority, hosts: Sequence[str] = ("localhost", "127.0.0.1")) -> Credentials:
    """Return a new server certificate, whatever is kept."""
    issuer, key = authority._newest(), keys.make_key()
    leaf = certificates.sign_server(issuer, hosts, key.public_key(), authority._now())
    return Credentials(certificates.pem(leaf, issuer.certificate), keys.key_pem(key))


def certificate_files(authority: Authority, folder: Path, name: str) -> tuple[Path, Path]:
    """Issue a thing's certificate into a folder, once; return the files of certificate and key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if not key.exists():
        folder.mkdir(parents=True, exist_ok=True)
        credentials = issue_thing(authority, name)
        certificate.write_bytes(credentials.certificate_pem)
        key.write_bytes(credentials.private_key_pem)
    return certificate, key
