"""A thing joins as a device does: its own key, a voucher, the Trust Center over HTTPS."""

from pathlib import Path

from gnomon import joining
from gnomon.joining import Files
from security.secret import Secret
from tests.system.child import Gnomon


def voucher(gnomon: Gnomon, thing: str) -> Secret:
    """Return a new voucher for a registered thing, as ``gnomon enrol --code`` takes it."""
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


def root_of(gnomon: Gnomon) -> bytes:
    """Return the root that devices are told of."""
    return (gnomon.var / "ca" / "root.crt").read_bytes()
