"""Serves the devices' API: HTTPS in which a certificate of ours may be shown; the handshake checks it.

Uvicorn keeps the peer's certificate to itself; :class:`DeviceProtocol` puts its serial number into the
request's state. Only TLS says it: no header does.
"""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Final, cast

import uvicorn
from cryptography import x509
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.device_app import PEER, create_device_app
from api.limits import ApiLimits
from api.server import BACKLOG, BoundedProtocol, QuietServer, config, run_until
from api.services import ApiServices
from infra.documents.port import StoreBrokenError
from security import private_files
from security.trust.authority import Authority
from security.trust.certificates import Credentials
from security.trust.identifiers import serial_text

HANDSHAKE_S_MAX: Final = 10.0
"""A connection whose TLS handshake takes longer is closed."""
SERVER_FILE: Final = "devices.pem"


class DeviceTls:
    """What the listener shows, and whose certificates it takes; both can be renewed while it serves."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self._file = directory / SERVER_FILE
        self._authority = authority
        self._shown: Credentials | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Whoever has none yet comes to get one.
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.set_alpn_protocols(["http/1.1"])
        private_files.make_directory(directory)

    def load(self, credentials: Credentials) -> None:
        """Show this certificate to new connections, and take those of the authorities there are now."""
        self.context.load_verify_locations(self._authority.authorities_path)
        if credentials != self._shown:
            # The library reads a key from a file only.
            private_files.replace(self._file, credentials.private_key_pem + credentials.certificate_pem)
            self.context.load_cert_chain(self._file)
            self._shown = credentials


async def serve_devices(
    services: ApiServices, listener: socket.socket, tls: DeviceTls, stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set; requests under way are finished.

    Raises:
        StoreBrokenError: what is on disk is unknown; the process must not go on serving.
    """
    ending, broken = asyncio.Event(), list[StoreBrokenError]()

    def on_broken(error: StoreBrokenError) -> None:
        broken.append(error)
        ending.set()

    settings = config(create_device_app(services, on_broken), services.limits)
    settings.http = _protocol(services.limits)
    await run_until(_DeviceServer(settings, tls.context), listener, stop, ending, _no_streams)
    if broken:
        raise broken[0]


def _no_streams() -> None:
    """Nothing here has no end of its own."""


class _DeviceServer(QuietServer):
    """A server whose connections begin with TLS."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext) -> None:
        super().__init__(config)
        self._context = context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Uvicorn's own way knows no bound on a handshake."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._connection,
                sock=listener,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                backlog=BACKLOG,
            )
            for listener in sockets or ()
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        make = cast("type[HttpToolsProtocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _protocol(limits: ApiLimits) -> type[HttpToolsProtocol]:
    class Protocol(DeviceProtocol):
        head_bytes_max = limits.head_bytes_max
        head_timeout_s = limits.head_timeout_s

    return Protocol


class DeviceProtocol(BoundedProtocol):
    """Tells the application the serial number of the certificate that the peer has proved to own."""

    _peer: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own override
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if der is not None:
            self._peer = serial_text(x509.load_der_x509_certificate(der).serial_number)
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][PEER] = self._peer
