"""``gnomon certificate``: files with which a thing proves who it is."""

from pathlib import Path

from gnomon.services import master_key_file, open_authority
from infra.clock import SystemClock
from infra.ids import RandomIds
from infra.settings import Settings
from security import private_files
from security.secretbox import SecretBox
from security.trust import keys


def issue(settings: Settings, thing: str, into: Path) -> tuple[Path, Path, Path]:
    """Write key, certificate and root for a thing; return the files.

    Raises:
        FileExistsError: there is a key of that name already, and it is not replaced.
        AuthorityError: the name cannot stand in a certificate, or the root is at its end.
    """
    box = SecretBox.open(master_key_file(settings), RandomIds())
    authority = open_authority(settings, box, SystemClock())
    authority.check_name(thing)
    into.mkdir(parents=True, exist_ok=True)
    key, certificate, root = into / f"{thing}.key", into / f"{thing}.crt", into / "ca.crt"
    made = keys.make_key()
    if not private_files.create(key, keys.key_pem(made)):
        raise FileExistsError(f"{key} exists: move it away first, or name another folder with --into")
    issued = authority.sign_thing(thing, made.public_key())
    private_files.replace(certificate, issued.chain_pem, private_files.PUBLIC_MODE)
    private_files.replace(root, authority.root_pem, private_files.PUBLIC_MODE)
    return key, certificate, root
