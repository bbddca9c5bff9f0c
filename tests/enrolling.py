"""A thing joins as a device does: its own key, a voucher, the Trust Center over HTTPS."""

import base64
import ssl
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from gnomon import joining
from gnomon.joining import Files
from security.secret import Secret
from security.trust import keys
from tests.system.child import Gnomon

PATIENCE_S = 20.0


def voucher(gnomon: Gnomon, thing: str) -> Secret:
    """Return a new voucher for a registered thing, as ``gnomon enrol --code-file`` takes it."""
    known = gnomon.http.get(f"/v1/things/{thing}").json()
    wanted = {name: known[name] for name in ("premises", "kind")}
    made = gnomon.http.post("/v1/vouchers", json={"thing": thing, **wanted})
    assert made.status_code == 201, made.text
    return Secret(f"{made.json()['id']}:{made.json()['code']}")


def enrol(gnomon: Gnomon, thing: str) -> tuple[Path, Path]:
    """Return the files with a thing's certificate and key, which `Thing` finds too; it joins at first."""
    files = Files(gnomon.directory / "things", thing)
    if not files.certificate.exists():
        joining.join(gnomon.join_url, files, voucher(gnomon, thing), root_of(gnomon), None)
    return files.certificate, files.key


def enrol_from(address: str, gnomon: Gnomon, thing: str) -> tuple[Path, Path]:
    """Do the same from a loopback address of its own: an address has twenty tries a minute."""
    files = Files(gnomon.directory / "things", thing)
    if not files.certificate.exists():
        id, _, code = voucher(gnomon, thing).reveal().partition(":")
        key = keys.make_key()
        trusted = ssl.create_default_context(cadata=root_of(gnomon).decode())
        transport = httpx.HTTPTransport(verify=trusted, local_address=address)
        with httpx.Client(base_url=gnomon.join_url, transport=transport, timeout=PATIENCE_S) as client:
            answer = client.post(
                "/.well-known/est/simpleenroll",
                auth=(id, code),
                headers={"Content-Type": "application/pkcs10"},
                content=base64.encodebytes(keys.request(key, thing)),
            )
        assert answer.status_code == 200, answer.text
        (issued,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))
        files.certificate.parent.mkdir(exist_ok=True)
        files.key.write_bytes(keys.key_pem(key))
        files.certificate.write_bytes(issued.public_bytes(Encoding.PEM))
    return files.certificate, files.key


def root_of(gnomon: Gnomon) -> bytes:
    """Return the root that devices are told of."""
    return (gnomon.var / "ca" / "root.crt").read_bytes()
