"""``gnomon certificate``: files with which a thing proves who it is."""

from pathlib import Path

from gnomon.services import authority_directory
from infra.clock import SystemClock
from infra.settings import Settings
from security import private_files
from security.authority import Authority


def issue(settings: Settings, thing: str, into: Path) -> tuple[Path, Path, Path]:
    """Write key, certificate and root for a thing; return the files.

    Raises:
        FileExistsError: there is a key of that name already, and it is not replaced.
        AuthorityError: the name cannot stand in a certificate, or the root is at its end.
    """
    authority = Authority.open(authority_directory(settings), SystemClock())
    authority.check_name(thing)
    into.mkdir(parents=True, exist_ok=True)
    key, certificate, root = into / f"{thing}.key", into / f"{thing}.crt", into / "ca.crt"
    credentials = authority.issue_thing(thing)
    if not private_files.create(key, credentials.private_key_pem):
        raise FileExistsError(f"{key} exists: move it away first, or name another folder with --into")
    private_files.replace(certificate, credentials.certificate_pem, private_files.PUBLIC_MODE)
    private_files.replace(root, authority.root_pem, private_files.PUBLIC_MODE)
    return key, certificate, root
