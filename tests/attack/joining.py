"""How a device joins, done by hand as an attacker would: vouchers, requests, codes."""

import base64
import itertools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from security.policy import Action, Role
from security.trust import keys
from tests.attack.field import Field
from tests.system.child import Gnomon

EST: Final = "/.well-known/est"
PIN_PATH: Final = "/.well-known/gnomon/pin"
PATIENCE_S: Final = 20.0
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Voucher:
    """A code as a person holds it, and for what."""

    id: str
    code: str
    thing: str
    premises: str


def voucher(field: Field, kind: str = "device") -> Voucher:
    """Register a thing at premises of its own, and have a voucher made for it."""
    thing, premises = f"joining-{next(_numbers)}", f"house-{next(_numbers)}"
    field.gnomon.register(thing, kind=kind, premises=premises)
    return another(field, thing, premises, kind)


def another(field: Field, thing: str, premises: str, kind: str = "device") -> Voucher:
    """Have one more voucher made for a thing."""
    made = field.gnomon.http.post(
        "/v1/vouchers", json={"premises": premises, "thing": thing, "kind": kind, "model": ""}
    )
    assert made.status_code == 201, made.text
    return Voucher(made.json()["id"], made.json()["code"], thing, premises)


class Joiner:
    """A client of the devices' listener that comes from an address of its own."""

    def __init__(
        self, gnomon: Gnomon, address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.gnomon = gnomon
        context = ssl.create_default_context(cafile=gnomon.root_certificate)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        self._http = httpx.Client(
            base_url=gnomon.join_url,
            transport=httpx.HTTPTransport(verify=context, local_address=address),
            timeout=PATIENCE_S,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def enrol(self, id: str, code: str, request: bytes) -> httpx.Response:
        return self._post("simpleenroll", request, auth=(id, code))

    def renew(self, request: bytes) -> httpx.Response:
        return self._post("simplereenroll", request)

    def pin(self, **members: bytes) -> httpx.Response:
        return self._http.post(
            PIN_PATH, json={name: base64.b64encode(value).decode() for name, value in members.items()}
        )

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def _post(self, what: str, request: bytes, **more: Any) -> httpx.Response:
        return self._http.post(
            f"{EST}/{what}",
            content=base64.encodebytes(request),
            headers={"Content-Type": "application/pkcs10"},
            **more,
        )


def keep_pin(gnomon: Gnomon, thing: str, pin: str) -> None:
    """Have the security officer enter the PIN of a label."""
    path, body = f"/v1/things/{thing}/pin", b'{"pin":"%s"}' % pin.encode()
    officer = gnomon.accounts.bearer(Role.SECURITY) | gnomon.accounts.step_up(
        Role.SECURITY, Action.INSTALL_CODE_WRITE, "PUT", path, body
    )
    fields = {"Content-Type": "application/json", **officer}
    kept = httpx.put(gnomon.api_url + path, content=body, headers=fields, timeout=PATIENCE_S)
    assert kept.status_code == 204, kept.text


def request(key: ec.EllipticCurvePrivateKey, name: str = "whoever") -> bytes:
    """Return a signing request (DER) in which one calls oneself as one likes."""
    return keys.request(key, name)


def certificate_in(answer: httpx.Response) -> x509.Certificate:
    """Return the certificate of a good answer."""
    assert answer.status_code == 200, answer.text
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))[0]


def names_in(certificate: x509.Certificate) -> str:
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return f"{certificate.subject.rfc4514_string()} {[str(name.value) for name in alternative]}"


def enrolled(field: Field, kind: str = "device") -> tuple[str, tuple[Path, Path]]:
    """Have a new thing join as it should; return its name and the files with its certificate and key."""
    return let_in(field, voucher(field, kind))


def let_in(field: Field, one: Voucher) -> tuple[str, tuple[Path, Path]]:
    """Have the thing of a voucher join as it should; see :func:`enrolled`."""
    key = keys.make_key()
    with Joiner(field.gnomon, next(ADDRESSES)) as joiner:
        leaf = certificate_in(joiner.enrol(one.id, one.code, request(key)))
        authorities = pkcs7.load_der_pkcs7_certificates(
            base64.b64decode(joiner.get(f"{EST}/cacerts").content)
        )
    issuers = [other for other in authorities if other.subject == leaf.issuer]
    folder = field.gnomon.directory / "things"
    folder.mkdir(exist_ok=True)
    certificate_file, key_file = folder / f"{one.thing}.crt", folder / f"{one.thing}.key"
    chain = [leaf, *issuers]
    certificate_file.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
    key_file.write_bytes(keys.key_pem(key))
    return one.thing, (certificate_file, key_file)


def issued_by(field: Field, one: Voucher) -> int:
    """Return how many certificates a voucher brought, as the audit has it."""
    return len(
        field.audit(lambda row: row["target"].startswith("certificate/") and one.id in row.get("reason", ""))
    )


def is_suspect(field: Field, thing: str) -> bool:
    """Tell whether a key of this thing was brought twice."""
    return bool(field.audit(lambda row: row["target"] == f"suspicion/{thing}"))


def addresses() -> "itertools.chain[str]":
    """Yield loopback addresses: each may try 20 times a minute."""
    return itertools.chain.from_iterable(
        (f"127.{second}.{third}.{fourth}" for fourth in range(1, 255))
        for second in range(1, 255)
        for third in range(255)
    )


ADDRESSES: Final = addresses()
