"""A customer care system that speaks HTTP: a real server on a free port, with own words and bad days."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from provisioning.care import CareCustomer, SearchBy, account_key, address_key, phone_key, search_key

TOKEN = "token-of-the-utility"
RENAMED = (
    "customers=result.hits",
    "ref=partnerId",
    "name=person.first+person.last",
    "accounts=contracts",
    "account.number=contractNo",
    "account.address=site.street+site.town",
    "receipt=document.id",
    "record=stored",
)
"""How the settings name what the server says with ``renamed``."""


@dataclass
class CareServer:
    """What the server knows, does and has heard."""

    customers: Sequence[CareCustomer]
    renamed: bool = False
    url: str = ""
    token: str = TOKEN
    status: int = 0
    """Answered to everything instead, if it is not 0."""
    said: bytes = b""
    """The body then; also of a good answer, if it is not empty."""
    headers: dict[str, str] = field(default_factory=dict)
    slow_s: float = 0.0
    deaf: bool = False
    """It keeps records but closes before it answers."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By idempotency key."""
    order: list[tuple[str, int]] = field(default_factory=list)
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""

    def spell(self, customer: CareCustomer) -> dict[str, Any]:
        if not self.renamed:
            accounts = [{name: getattr(one, name) for name in one.__slots__} for one in customer.accounts]
            own = ("ref", "name", "language", "phone", "email")
            return {name: getattr(customer, name) for name in own} | {"accounts": accounts}
        first, _, last = customer.name.partition(" ")
        return {
            "partnerId": customer.ref,
            "person": {"first": first, "last": last},
            "language": customer.language,
            "phone": customer.phone,
            "email": customer.email or None,
            "contracts": [
                {
                    "id": one.id,
                    "contractNo": one.number,
                    "tariff": one.tariff,
                    "status": one.status,
                    "premises": one.premises,
                    "site": dict(zip(("street", "town"), one.address.split(", "), strict=True)),
                }
                for one in customer.accounts
            ],
        }

    def search(self, asked: dict[str, Any]) -> Any:
        by = SearchBy(asked["by"])
        key = search_key(by, asked["value"])

        def fits(one: CareCustomer) -> bool:
            match by:
                case SearchBy.ACCOUNT:
                    return any(account_key(account.number) == key for account in one.accounts)
                case SearchBy.ADDRESS:
                    return any(address_key(account.address).startswith(key) for account in one.accounts)
                case SearchBy.PHONE:
                    return phone_key(one.phone) == key

        found = [self.spell(one) for one in self.customers if fits(one)][: asked["limit"]]
        return {"result": {"hits": found}} if self.renamed else {"customers": found}

    def take(self, key: str, record: dict[str, Any]) -> tuple[int, Any]:
        held = self.records.get(key)
        if held is None:
            self.records[key] = record
            self.order.append((record["premises"], record["seq"]))
            receipt = f"{record['premises']}/{record['seq']}"
            return 201, {"document": {"id": receipt}} if self.renamed else {"receipt": receipt}
        return 409, {"title": "Already there", ("stored" if self.renamed else "record"): held}

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, Any]:
        match method, path.split("/")[2:]:
            case "POST", ["customer-searches"]:
                return 200, self.search(json.loads(body))
            case "GET", ["customers", ref]:
                found = [self.spell(one) for one in self.customers if one.ref == unquote(ref)]
                return (200, found[0]) if found else (404, {"title": "Not Found"})
            case "POST", ["records"]:
                return self.take(key, json.loads(body))
            case _:
                return 404, {"title": "Not Found"}


def _handler(server: CareServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.heard.append((method, self.path))
            time.sleep(server.slow_s)
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                self._say(401, {"title": "Unauthorized"})
            elif server.status:
                self._say(server.status, None)
            else:
                status, tree = server.answer(method, self.path, self.headers.get("Idempotency-Key", ""), body)
                if server.deaf:
                    self.close_connection = True
                else:
                    self._say(status, tree)

        def _say(self, status: int, tree: Any) -> None:
            said = server.said or json.dumps(tree).encode()
            self.send_response(status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    return Handler


@contextmanager
def serving(server: CareServer, tls: ssl.SSLContext | None = None) -> Iterator[CareServer]:
    """Serve on a free port for as long as the block lasts."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away, or whose certificate is wrong

    listener = Quiet(("127.0.0.1", 0), _handler(server))
    if tls is not None:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.server_address[1]}/care"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, name="care")
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
