"""Serves the devices' API: HTTPS in which a certificate of ours may be shown; the handshake checks it.

Uvicorn keeps the peer's certificate to itself; :class:`DeviceProtocol` puts its serial number into the
request's state. Only TLS says it: no header does.
"""

import asyncio
import socket

from cryptography import x509

from api.device_app import PEER, create_device_app
from api.protocol import BoundedProtocol
from api.server import config, run_until
from api.services import ApiServices
from api.transport import ServerTls, TlsServer
from infra.documents.port import StoreBrokenError
from security.trust.identifiers import serial_text


async def serve_devices(
    services: ApiServices, listener: socket.socket, tls: ServerTls, stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set; requests under way are finished.

    Raises:
        StoreBrokenError: what is on disk is unknown; the process must not go on serving.
    """
    ending, broken = asyncio.Event(), list[StoreBrokenError]()

    def on_broken(error: StoreBrokenError) -> None:
        broken.append(error)
        ending.set()

    settings = config(create_device_app(services, on_broken), services.limits, DeviceProtocol)
    await run_until(TlsServer(settings, tls.context), listener, stop, ending, _no_streams)
    if broken:
        raise broken[0]


def _no_streams() -> None:
    """Nothing here has no end of its own."""


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
