"""How connections of both listeners begin: in plain text or with TLS, and whose certificates are taken."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from security import private_files
from security.trust.certificates import Credentials

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BACKLOG: Final = 1_024
HANDSHAKE_S_MAX: Final = 10.0
"""A connection whose TLS handshake takes longer is closed."""


class ServerTls:
    """What a listener shows, and whose certificates it takes; both can be renewed while it serves."""

    def __init__(self, file: Path, clients: Path | None = None) -> None:
        """``file`` keeps what is shown; ``clients`` holds the authorities of those who may show theirs."""
        self._file = file
        self._clients = clients
        self._shown: Credentials | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if clients is not None:
            # Whoever has none yet comes to get one.
            self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.set_alpn_protocols(["http/1.1"])
        private_files.make_directory(file.parent)

    def load(self, credentials: Credentials) -> None:
        """Show this certificate to new connections, and take those of the authorities there are now."""
        if self._clients is not None:
            self.context.load_verify_locations(self._clients)
        if credentials != self._shown:
            # The library reads a key from a file only.
            private_files.replace(self._file, credentials.private_key_pem + credentials.certificate_pem)
            self.context.load_cert_chain(self._file)
            self._shown = credentials


class QuietServer(uvicorn.Server):
    """A server that leaves the signals to who owns the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class TlsServer(QuietServer):
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
