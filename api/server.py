"""Serves the API inside the one process: uvicorn on uvloop and httptools, no signal handlers of its own."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import uvicorn
from litestar import Litestar

from api.app import create_app
from api.limits import ApiLimits
from api.protocol import BoundedProtocol, bounded
from api.services import ApiServices
from api.transport import BACKLOG, QuietServer, ServerTls, TlsServer
from infra.documents.port import StoreBrokenError
from infra.settings.model import is_loopback


class ListenError(Exception):
    """The address cannot be bound; the message says what to do."""


def listen(
    host: str, port: int, host_setting: str = "api.host", port_setting: str = "api.port"
) -> socket.socket:
    """Return a bound socket; port 0 takes any free one (``getsockname`` tells which).

    Raises:
        ListenError: the address is taken, or is none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        remedy = {
            errno.EADDRINUSE: f"end what listens there, or set {port_setting} (0 = any free one)",
            errno.EACCES: f"ports below 1024 are for root: set {port_setting} to a higher one",
        }.get(error.errno or 0, f"set {host_setting} to an address of this machine")
        # What `socket` itself says of the address is said here already.
        problem = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ListenError(f"cannot listen on {host} port {port} ({problem}): {remedy}") from error
    listener.setblocking(False)
    # What is accepted inherits it. Without it an answer's body may wait 40 ms for the word that its head has
    # come; uvloop sees to that, the loop of the standard library only where a socket names its protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(
    services: ApiServices, listener: socket.socket, stop: asyncio.Event, tls: ServerTls | None = None
) -> None:
    """Serve until ``stop`` is set; open streams are ended, requests under way are finished.

    Returns within ``stop_s`` and a second, whoever still hangs on.

    Raises:
        StoreBrokenError: what is on disk is unknown; the process must not go on serving.
        OpenToAllError: what may be heard or done from outside must not be.
    """
    _refuse_what_is_open(services, listener, tls)
    ending, broken = asyncio.Event(), list[StoreBrokenError]()

    def on_broken(error: StoreBrokenError) -> None:
        broken.append(error)
        ending.set()

    settings = config(create_app(services, on_broken), services.limits, BoundedProtocol)
    server = QuietServer(settings) if tls is None else TlsServer(settings, tls.context)
    await run_until(server, listener, stop, ending, services.live.close)
    if broken:
        raise broken[0]


async def run_until(
    server: uvicorn.Server,
    listener: socket.socket,
    stop: asyncio.Event,
    ending: asyncio.Event,
    end_streams: Callable[[], None],
) -> None:
    """Serve until one of the two events is set."""
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]), name="http server")
            waiting = group.create_task(_forward(stop, ending), name="http server stop")
            closing = group.create_task(_close(server, end_streams, ending), name="http server end")
            await asyncio.wait({serving})
            waiting.cancel()
            closing.cancel()
    finally:
        # Also when cancelled, which uvicorn takes for no reason to close what it listens on.
        for one in getattr(server, "servers", ()):
            one.close()
        listener.close()


async def _forward(stop: asyncio.Event, ending: asyncio.Event) -> None:
    await stop.wait()
    ending.set()


async def _close(server: uvicorn.Server, end_streams: Callable[[], None], ending: asyncio.Event) -> None:
    try:
        await ending.wait()
    finally:
        # The streams first: an open one would keep the server from stopping until its reader leaves.
        end_streams()
        server.should_exit = True


class OpenToAllError(Exception):
    """Somebody outside could hear or do what is nobody's business."""


def _refuse_what_is_open(services: ApiServices, listener: socket.socket, tls: ServerTls | None) -> None:
    host = listener.getsockname()[0]
    if is_loopback(host):
        return
    if services.settings.api.compat_http:
        raise OpenToAllError(f"api.compat_http takes anybody for the operator: bind 127.0.0.1, not {host}")
    if tls is None:
        raise OpenToAllError(f"passwords and tokens do not go in plain text: use TLS on {host}")


def config(app: Litestar, limits: ApiLimits, protocol: type[BoundedProtocol]) -> uvicorn.Config:
    """Return how an application is served, and by which kind of protocol."""
    return uvicorn.Config(
        app,
        http=bounded(protocol, limits),
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # A header that anybody can write does not say where a request comes from.
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=limits.connections_max,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.stop_s,
    )
