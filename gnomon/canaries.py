"""The canaries of this installation: certificates that are made anew at each start, and where they sing.

Two that are good and one that is revoked from its first day. None is on record as issued, so nothing but the
broker takes them; their names are nobody's to register. The keys lie beside the broker's, where only we read.
"""

import os
from pathlib import Path
from typing import Final

from cryptography import x509

from broker_bridge.mosquitto import LOOPBACK
from broker_bridge.selftest import Place, Voice
from broker_bridge.topics import CANARIES, REVOKED_CANARY
from gnomon.services import broker_directory
from infra.clock import Clock
from infra.settings import Settings
from security import private_files
from security.trust import keys
from security.trust.authority import Authority
from security.trust.crl import Revoked
from security.trust.identifiers import serial_text
from security.trust.issued import datetime_of

_FOLDER: Final = "canaries"
_ANY_ADDRESS: Final = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - nothing is bound here
_REASON: Final = "cessation_of_operation"


def make(settings: Settings, authority: Authority, clock: Clock) -> Revoked:
    """Make certificates for all three, in place of those of the last start; return what is to be revoked."""
    folder = _folder(settings)
    private_files.make_directory(folder)
    for name in CANARIES:
        _issue(folder, authority, name)
    serial, issuer = _issue(folder, authority, REVOKED_CANARY)
    return Revoked(serial, datetime_of(clock.now_ms()), _REASON, issuer)


def place(settings: Settings, roots: Path, device_port: int, voice: Voice | None = None) -> Place:
    """Return where the broker takes things, with the canaries of the last start."""
    folder, broker = _folder(settings), settings.broker
    first, second, revoked = (_file(folder, name) for name in (*CANARIES, REVOKED_CANARY))
    return Place(
        host=address_of(broker.listen),
        port=device_port,
        server_name=broker.hosts[0],
        roots=roots,
        canaries=(first, second),
        revoked=revoked,
        voice=voice,
    )


def revoked_serial(settings: Settings) -> str | None:
    """Return the serial of the canary that is revoked from its first day, None before the first start."""
    try:
        kept = _file(_folder(settings), REVOKED_CANARY).read_bytes()
    except FileNotFoundError:
        return None
    return serial_text(x509.load_pem_x509_certificates(kept)[0].serial_number)


def address_of(listen: str) -> str:
    """Return where this machine reaches what listens there, which may be on all its addresses."""
    return _ANY_ADDRESS.get(listen, listen)


def _folder(settings: Settings) -> Path:
    return broker_directory(settings) / _FOLDER


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def _issue(folder: Path, authority: Authority, name: str) -> tuple[str, str]:
    """Write key and certificate of a canary; return the certificate's serial and issuer."""
    key = keys.make_key()
    issued = authority.sign_thing(name, key.public_key())
    path = _file(folder, name)
    path.unlink(missing_ok=True)
    # Not flushed to disk: after a crash they are made anew.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(keys.key_pem(key) + issued.chain_pem)
    return issued.serial, issued.issuer
