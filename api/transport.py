"""How connections of both listeners begin: in plain text or with TLS, and whose certificates are taken."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import structlog
import uvicorn

from security import private_files
from security.addresses import place
from security.trust.certificates import Credentials

if TYPE_CHECKING:
    from api.protocol import BoundedProtocol

BACKLOG: Final = 1_024
HANDSHAKE_S_MAX: Final = 10.0
"""A connection whose TLS handshake takes longer is closed."""
HANDSHAKES_MAX: Final = 512
"""TLS handshakes under way on one listener; above it who comes next waits to be accepted."""
HANDSHAKES_PER_ADDRESS_MAX: Final = 64
"""Those of one address; above it who comes next is closed at once."""
ACCEPT_RETRY_S: Final = 1.0
"""After an error that will not have gone at once, as when descriptors are used up."""

_log: Final = structlog.get_logger(__name__)


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
        self._protocol = cast("type[BoundedProtocol]", config.http)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Uvicorn's own way knows no bound on handshakes, and counts connections only after them."""
        await self.lifespan.startup()
        self.servers = [
            cast("asyncio.Server", Door(listener, self._context, self._connection, self._is_full))
            for listener in sockets or ()
        ]
        self.started = True

    def _is_full(self, address: str, handshakes: Counter[str]) -> bool:
        limits, its_open = self._protocol.limits, self._protocol.open_by_address[address]
        return (
            len(self.server_state.connections) + handshakes.total() >= limits.connections_max
            or its_open + handshakes[address] >= limits.connections_per_address_max
        )

    def _connection(self) -> asyncio.Protocol:
        return self._protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class Door:
    """Accepts connections while there is room, and lets those in whose TLS handshake is done."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connection: Callable[[], asyncio.Protocol],
        is_full: Callable[[str, Counter[str]], bool],
    ) -> None:
        """Begin to accept.

        ``connection`` makes what serves one; ``is_full`` tells for an address, and for the handshakes of each
        that are under way, whether it may have no more beside what is open.
        """
        self._listener = listener
        self._context = context
        self._connection = connection
        self._is_full = is_full
        self._room = asyncio.Semaphore(HANDSHAKES_MAX)
        self._handshakes = Counter[str]()
        # Uvicorn starts and ends a server by two calls, so there is no block around what it does.
        self._running = asyncio.create_task(self._run(), name="tls door")  # noqa: TID251

    def close(self) -> None:
        """Accept no more, and end the handshakes under way."""
        self._running.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until that is done."""
        await asyncio.wait({self._running})

    async def _run(self) -> None:
        self._listener.listen(BACKLOG)
        async with asyncio.TaskGroup() as handshakes:
            await self._accept(handshakes)

    async def _accept(self, handshakes: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                accepted, peer = await loop.sock_accept(self._listener)
            except OSError as error:
                self._room.release()
                _log.warning("connection_not_accepted", reason=str(error))
                await asyncio.sleep(ACCEPT_RETRY_S)
            else:
                self._receive(accepted, place(peer[0]), handshakes)

    def _receive(self, accepted: socket.socket, address: str, handshakes: asyncio.TaskGroup) -> None:
        many = self._handshakes[address] >= HANDSHAKES_PER_ADDRESS_MAX
        if many or self._is_full(address, self._handshakes):
            accepted.close()
            self._room.release()
            return
        self._handshakes[address] += 1
        handshakes.create_task(self._shake_hands(accepted, address), name="tls handshake")

    async def _shake_hands(self, accepted: socket.socket, address: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S_MAX
            )
        except Exception as error:  # noqa: BLE001 - one who comes in wrongly keeps no other out
            _log.debug("handshake_failed", reason=str(error))
        finally:
            self._leave(address)

    def _leave(self, address: str) -> None:
        self._room.release()
        self._handshakes[address] -= 1
        if not self._handshakes[address]:
            del self._handshakes[address]
