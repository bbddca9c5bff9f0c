"""The server: real sockets, bounds on the request head, and a stop that nothing holds up."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from api.limits import ApiLimits
from api.protocol import BoundedProtocol
from api.server import ListenError, OpenToAllError, config, listen, run_until, serve
from api.services import ApiServices
from api.transport import QuietServer
from infra.documents.port import StoreBrokenError
from infra.telemetry import Metrics
from tests.api.rig import SHADOW, Rig, api

PATIENCE_S = 5.0


@asynccontextmanager
async def serving(services: ApiServices) -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Task[None]]]:
    """Serve on a free port; stop at the end of the block."""
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(services, listener, stop), name="server")
        try:
            await _answering(port)
            yield port, stop, task
        finally:
            stop.set()


async def _answering(port: int) -> None:
    async with httpx.AsyncClient() as http, asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await http.get(f"http://127.0.0.1:{port}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.01)
            else:
                return


def _fresh(rig: Rig, **limits: float) -> ApiServices:
    """Return the services for a second application over them: metrics are registered once each."""
    return replace(rig.services, metrics=Metrics(), limits=ApiLimits(**limits))  # type: ignore[arg-type]


async def test_it_serves_over_a_socket(rig: Rig):
    async with serving(_fresh(rig)) as (port, _, _), httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{port}{SHADOW}"
        headers = {"Authorization": f"Bearer {rig.token}", "Content-Type": "application/merge-patch+json"}
        assert (await http.patch(url, content=b'{"desired":{"a":1}}', headers=headers)).status_code == 200
        answer = await http.get(url, headers=headers)
        assert answer.json()["state"]["desired"] == {"a": 1}
        assert "server" not in answer.headers
        assert (await http.get(url)).status_code == 401


async def test_it_stops_within_three_seconds_though_streams_are_open(rig: Rig):
    await rig.desire({"a": 1})
    async with serving(_fresh(rig)) as (port, stop, task):
        readers = [await _open_stream(port, rig.token) for _ in range(20)]
        started = time.monotonic()
        stop.set()
        async with asyncio.timeout(3):
            await task
        assert time.monotonic() - started < 3
        for reader, writer in readers:
            assert (await reader.read()).endswith(b"0\r\n\r\n"), "the stream ended properly"
            writer.close()


async def _open_stream(port: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {SHADOW}/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"event: shadow")
    return reader, writer


async def test_it_stops_though_a_request_hangs_and_a_connection_idles(rig: Rig):
    async def hang() -> tuple[str, ...]:
        await asyncio.sleep(60)
        return ()

    services = replace(_fresh(rig, check_timeout_s=60), readiness=hang)
    async with serving(services) as (port, stop, task):
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        _, hanging = await asyncio.open_connection("127.0.0.1", port)
        hanging.write(
            f"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode()
        )
        await hanging.drain()
        await asyncio.sleep(0.05)
        stop.set()
        async with asyncio.timeout(services.limits.stop_s + 1):
            await task
        idle.close()
        hanging.close()


async def _exchange(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_head_that_grows_beyond_its_bound_is_431(rig: Rig):
    async with serving(_fresh(rig, head_bytes_max=1_000)) as (port, _, _):
        begun = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "
        answer = await _exchange(port, begun, b"x" * 500, b"x" * 600)
        assert answer.startswith(b"HTTP/1.1 431 ")
        fine = await _exchange(port, begun, b"x" * 500, b"x" * 400, b"\r\nConnection: close\r\n\r\n")
        assert fine.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come_closes_the_connection(rig: Rig, begun: bytes):
    async with serving(_fresh(rig, head_timeout_s=0.1)) as (port, _, _):
        assert await _exchange(port, begun) == b""


async def test_a_body_that_does_not_come_is_408(rig: Rig):
    async with serving(_fresh(rig, body_timeout_s=0.1)) as (port, _, _):
        answer = await _exchange(
            port,
            f"POST /things/hall/shadow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
            "Content-Length: 100\r\n\r\nhalf of it".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(rig: Rig):
    async with serving(_fresh(rig)) as (port, _, _):
        answer = await _exchange(
            port,
            f"POST /things/hall/shadow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
            "Content-Length: 10000000000\r\n\r\n{".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_without_announced_length_is_refused_once_it_is_too_long(rig: Rig):
    async with serving(_fresh(rig)) as (port, _, _):
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        head = (
            f"POST /things/hall/shadow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        answer = await _exchange(port, head.encode(), chunk, chunk, chunk)
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_is_not_http_is_400(rig: Rig):
    async with serving(_fresh(rig)) as (port, _, _):
        assert (await _exchange(port, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


def test_no_part_of_an_answer_waits_for_the_one_before():
    with listen("127.0.0.1", 0) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_taken_port_is_told_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"port {port} \(Address already in use\): .*api\.port"):
            listen("127.0.0.1", port)
    with pytest.raises(ListenError, match=r"no\.such\.host\.invalid .*: set api\.host"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(ListenError, match=r"192\.0\.2\.1 .*: set here to an address of this machine"):
        listen("192.0.2.1", 0, "here")


async def test_compat_off_loopback_is_refused_at_the_start(tmp_path: Path):
    async with api(tmp_path, compat_http=True) as rig:
        listener = listen("0.0.0.0", 0)  # noqa: S104 - that is what must be refused
        with pytest.raises(OpenToAllError, match="bind 127"):
            await serve(rig.services, listener, asyncio.Event())
        listener.close()


async def test_plain_text_off_loopback_is_refused_at_the_start(rig: Rig):
    listener = listen("0.0.0.0", 0)  # noqa: S104 - that is what must be refused
    with pytest.raises(OpenToAllError, match="plain text"):
        await serve(rig.services, listener, asyncio.Event())
    listener.close()


async def test_a_store_that_is_broken_ends_the_server_so_that_the_process_reads_the_disk_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: object, **__: object) -> object:
        raise StoreBrokenError("fsync failed")

    headers = {"Authorization": f"Bearer {rig.token}"}
    with pytest.RaisesGroup(StoreBrokenError):
        async with serving(_fresh(rig)) as (port, _, task):
            monkeypatch.setattr(rig.store, "get", fail)
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"http://127.0.0.1:{port}/v1/things/attic", headers=headers)
            assert answer.status_code == 503
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait({task})


async def test_a_server_that_is_cancelled_leaves_nothing_open(rig: Rig):
    listener = listen("127.0.0.1", 0)
    task = asyncio.get_running_loop().create_task(
        serve(_fresh(rig), listener, asyncio.Event()), name="server"
    )
    await _answering(listener.getsockname()[1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert listener.fileno() == -1


async def test_nobody_says_by_a_header_where_a_request_comes_from():
    seen, stop = [], asyncio.Event()

    async def app(scope, _receive, send):
        seen.append(scope["client"][0])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = QuietServer(config(app, ApiLimits(), BoundedProtocol))  # type: ignore[arg-type]  # what counts is how it is served
    async with asyncio.TaskGroup() as group:
        group.create_task(run_until(server, listener, stop, stop, lambda: None))
        async with httpx.AsyncClient() as http:
            await http.get(url, headers={"X-Forwarded-For": "6.6.6.6"})
        stop.set()
    assert seen == ["127.0.0.1"]
