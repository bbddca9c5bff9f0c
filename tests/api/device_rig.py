"""The devices' API: in process with a certificate that is merely named, and over TLS with a real one."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from api.device_app import PEER, create_device_app
from api.device_server import serve_devices
from api.server import listen
from api.transport import ServerTls
from infra.telemetry import Metrics
from security.audit import INSIDE
from security.trust import keys
from security.trust.authority import Issued
from security.trust.vouchers import NewVoucher
from tests.api.rig import HALL, HOME, OPERATOR, Rig

EST = "/.well-known/est"
PKCS10 = {"Content-Type": "application/pkcs10"}


@asynccontextmanager
async def device(rig: Rig, serial: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Call as whoever has shown the certificate of this serial number."""
    app = create_device_app(replace(rig.services, metrics=Metrics()), rig.broken.append)

    async def peered(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {PEER: serial}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=peered, raise_app_exceptions=False, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://devices") as http:
        yield http


async def voucher(rig: Rig, thing: str = HALL, *, is_gateway: bool = False) -> httpx.BasicAuth:
    """Return a new voucher as a request carries it."""
    claim, code = await rig.services.trust.vouchers.make(
        NewVoucher(HOME, thing, is_gateway), OPERATOR, INSIDE
    )
    return httpx.BasicAuth(claim.id, code.reveal())


async def certified(rig: Rig, thing: str = HALL) -> tuple[Issued, Any]:
    """Return a recorded certificate of a thing, and its key."""
    key = keys.make_key()
    issued = await rig.services.trust.enrolment.certify(thing, keys.request(key, thing), OPERATOR, INSIDE)
    return issued, key


def request(name: str = HALL) -> bytes:
    """Return a request with a new key, as EST sends it."""
    return base64.encodebytes(keys.request(keys.make_key(), name))


def certificates(answer: httpx.Response) -> list[x509.Certificate]:
    """Return what an EST answer holds."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["content-transfer-encoding"] == "base64"
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))


@asynccontextmanager
async def over_tls(rig: Rig, directory: Path) -> AsyncIterator[str]:
    """Serve over TLS for the block; yield the address."""
    authority = rig.services.trust.authority
    tls = ServerTls(directory / "api" / "devices.pem", authority.authorities_path)
    tls.load(authority.server_credentials(["localhost", "127.0.0.1"]))
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    url = f"https://localhost:{listener.getsockname()[1]}"
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_devices(rig.services, listener, tls, stop))
        try:
            yield url
        finally:
            stop.set()


def trusting(root_pem: bytes, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return what a device trusts, and what it shows (certificate and key files)."""
    context = ssl.create_default_context(cadata=root_pem.decode())
    if files is not None:
        context.load_cert_chain(*files)
    return context


def write_pair(directory: Path, name: str, chain_pem: bytes, key: Any) -> tuple[Path, Path]:
    certificate, private = directory / f"{name}.crt", directory / f"{name}.key"
    certificate.write_bytes(chain_pem)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private
