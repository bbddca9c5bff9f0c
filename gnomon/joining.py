"""The device's side of joining (RFC 7030): its own key, the root it was told of, a certificate for the key.

Meant to be read by whoever makes a device. Nothing is sent before the server has shown that it belongs to the
root; the key never leaves the folder; each file is written before the step that needs it, so that whatever
stops in between is gone on with, not begun anew.
"""

import base64
import hashlib
import http.client
import re
import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from gnomon import refusals
from security import private_files
from security.secret import Secret
from security.trust import identifiers, keys
from security.trust.pins import NONCE_BYTES, device_answer, server_proof

EST: Final = "/.well-known/est"
PIN: Final = "/.well-known/gnomon/pin"
PORT: Final = 443
TIMEOUT_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 262_144
CERTIFICATES_MAX: Final = 16
_THING: Final = re.compile(r"[A-Za-z0-9:_-]{1,128}")
_PEM: Final = serialization.Encoding.PEM
_DER: Final = serialization.Encoding.DER
_OK, _ACCEPTED, _NO_CONTENT = 200, 202, 204
_BAD_REQUEST, _UNAUTHORIZED, _SERVER_ERROR = 400, 401, 500


class JoinError(Exception):
    """The device is not known yet; the message says what to do."""


class RefusedError(JoinError):
    """The server said no: what was asked is not done, and the same asked again is refused again."""


class ForeignServerError(JoinError):
    """The server does not belong to the root that this device was told of, or does not know its PIN."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where a thing keeps what it is known by."""

    folder: Path
    thing: str

    @property
    def key(self) -> Path:
        return self.folder / f"{self.thing}.key"

    @property
    def next_key(self) -> Path:
        """The key for which a renewal was begun."""
        return self.folder / f"{self.thing}.next.key"

    @property
    def certificate(self) -> Path:
        """The certificate, and its issuer's."""
        return self.folder / f"{self.thing}.crt"

    @property
    def root(self) -> Path:
        return self.folder / "ca.crt"

    def check_enrolled(self) -> None:
        """Raise :class:`JoinError` unless all is here that a thing is known by."""
        if not all(file.exists() for file in (self.key, self.certificate, self.root)):
            raise JoinError(
                f"{self.folder.absolute()} does not hold {self.thing}'s key, certificate and root:"
                " enrol it first, or name its folder (--into)"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes
    retry_after: str = ""


class Server:
    """The Trust Center as a device sees it: an address, and the roots that its certificate must come from."""

    def __init__(self, url: str, roots: list[x509.Certificate]) -> None:
        self._host, self._port = _address(url)
        self.roots = roots

    def cacerts(self) -> list[x509.Certificate]:
        """Return roots and issuing authorities, from a server that has proved to belong to a root."""
        return _certificates(self._ask("GET", f"{EST}/cacerts", b"", {}, None))

    def enrol(self, request: bytes, code: Secret) -> x509.Certificate:
        """Return the certificate for a request, by the claim's id and code (``ID:CODE``)."""
        basic = base64.b64encode(code.reveal().encode()).decode()
        return self._certificate(f"{EST}/simpleenroll", request, {"Authorization": f"Basic {basic}"}, None)

    def renew(self, request: bytes, files: Files) -> x509.Certificate:
        """Return the certificate for a request, by the current certificate."""
        return self._certificate(f"{EST}/simplereenroll", request, {}, files)

    def post_json(self, path: str, body: Mapping[str, str], files: Files) -> Answer:
        """Send a JSON object, known by the certificate in these files."""
        sent = msgspec.json.encode(body)
        return self._ask("POST", path, sent, {"Content-Type": "application/json"}, files)

    def _certificate(
        self, path: str, request: bytes, fields: Mapping[str, str], files: Files | None
    ) -> x509.Certificate:
        fields = {"Content-Type": "application/pkcs10", **fields}
        answer = self._ask("POST", path, base64.encodebytes(request), fields, files)
        if answer.status == _ACCEPTED:
            raise JoinError(
                f"a person must approve this first: run the same again in {refusals.span(answer.retry_after)}"
            )
        if answer.status == _UNAUTHORIZED and files is not None:
            raise RefusedError(
                f"refused ({_UNAUTHORIZED}): {files.certificate} is not good any more. It has ended, or"
                " its thing was revoked or removed: ask for a new code, and enrol with it in another folder"
            )
        return _certificates(answer)[0]

    def _ask(
        self, method: str, path: str, body: bytes, fields: Mapping[str, str], files: Files | None
    ) -> Answer:
        context = ssl.create_default_context(cadata=_pem(*self.roots).decode())
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        return _exchange(self._host, self._port, context, (method, path, body, fields))


def join(url: str, files: Files, code: Secret, root: bytes | None, root_sha256: str | None) -> None:
    """Make a key and get its certificate by a code; trust the root given, or the one with this SHA-256.

    Raises:
        JoinError: it was refused, the server is not who it should be, or the code is another thing's.
        FileExistsError: the thing has a certificate here already.
    """
    if files.certificate.exists():
        raise FileExistsError(f"{files.certificate} exists: renew it (--renew), or name another folder")
    if not all(code.reveal().partition(":")[::2]):
        raise JoinError("a code is ID:CODE, as the voucher or the label has it: a part of it is missing")
    server = Server(url, _told_roots(url, root, root_sha256))
    authorities = server.cacerts()
    files.folder.mkdir(parents=True, exist_ok=True)
    with _key_of(files.key) as key:
        issued = server.enrol(keys.request(key, files.thing), code)
        _check(issued, key, authorities)
        named = _name(issued)
    owner = files if named == files.thing else _renamed(files, named)
    _keep_roots(owner, authorities)
    _put(owner.certificate, issued, authorities)
    if owner is not files:
        raise JoinError(
            f"this code is not {files.thing}'s but {named}'s, which has joined by it: see {owner.certificate}"
            f" and {owner.key}. {files.thing} needs a code of its own"
        )


def renew(url: str, files: Files) -> None:
    """Get a certificate for a new key by the current one, and put both in the place of the old ones."""
    files.check_enrolled()
    if _finish_renewal(files):
        return
    server = Server(url, _roots_of(files.root.read_bytes(), str(files.root)))
    authorities = server.cacerts()
    with _key_of(files.next_key) as key:
        issued = server.renew(keys.request(key, files.thing), files)
        _check(issued, key, authorities)
    _keep_roots(files, authorities)
    _put(files.certificate, issued, authorities)
    _finish_renewal(files)


def prove_pin(url: str, files: Files, pin: Secret) -> None:
    """See that the server knows our PIN, and only then show that we do.

    Raises:
        ForeignServerError: it does not: it is not our utility, or was told a wrong PIN.
        JoinError: it did not take our answer.
    """
    files.check_enrolled()
    server = Server(url, _roots_of(files.root.read_bytes(), str(files.root)))
    leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    lfdi, nonce = identifiers.lfdi(leaf.public_bytes(_DER)), secrets.token_bytes(NONCE_BYTES)
    begun = server.post_json(PIN, {"nonce": base64.b64encode(nonce).decode()}, files)
    if begun.status != _OK:
        raise _refusal(begun)
    said = _object(begun)
    proof, theirs = (base64.b64decode(said.get(name, "")) for name in ("proof", "nonce"))
    if not secrets.compare_digest(proof, server_proof(pin, lfdi, nonce)):
        raise ForeignServerError("the server does not know this device's PIN: it is refused")
    answer = base64.b64encode(device_answer(pin, lfdi, theirs, nonce)).decode()
    done = server.post_json(PIN, {"answer": answer}, files)
    if done.status != _NO_CONTENT:
        raise _refusal(done)


# ---------------------------------------------------------------------------- whom to trust


def _told_roots(url: str, root: bytes | None, root_sha256: str | None) -> list[x509.Certificate]:
    if root is not None:
        return _roots_of(root, "the file of the root")
    if root_sha256 is None:
        raise JoinError("say which root to trust: its file, or its SHA-256 as the label has it")
    wanted = root_sha256.replace(":", "").lower()
    # Nothing is believed of this answer but what has that SHA-256; nothing of ours is sent.
    unproved = ssl.create_default_context()
    unproved.check_hostname = False
    unproved.verify_mode = ssl.CERT_NONE
    answer = _exchange(*_address(url), unproved, ("GET", f"{EST}/cacerts", b"", {}))
    found = [one for one in _certificates(answer) if _sha256(one) == wanted]
    if not found:
        raise ForeignServerError("the server has no root with this SHA-256: it is another utility, or nobody")
    return found


def _roots_of(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise JoinError(f"{what} holds no certificate in PEM: take the service's ca/root.crt") from error


def _keep_roots(files: Files, authorities: list[x509.Certificate]) -> None:
    """Keep the roots, old and new: the server that sent them has proved to belong to one."""
    roots = [one for one in authorities if one.subject == one.issuer]
    private_files.replace(files.root, _pem(*roots), private_files.PUBLIC_MODE)


def _check(
    issued: x509.Certificate, key: ec.EllipticCurvePrivateKey, authorities: list[x509.Certificate]
) -> None:
    if issued.public_key() != key.public_key():
        raise ForeignServerError("the certificate is not for our key")
    if _issuer(issued, authorities) is None:
        raise ForeignServerError("the certificate is not from an authority of this server")


def _issuer(issued: x509.Certificate, authorities: list[x509.Certificate]) -> x509.Certificate | None:
    for authority in authorities:
        try:
            issued.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return authority
    return None


# ---------------------------------------------------------------------------- files


def _put(path: Path, issued: x509.Certificate, authorities: list[x509.Certificate]) -> None:
    """Write a certificate with its issuer's behind it, which is what a device presents."""
    issuer = _issuer(issued, authorities)
    assert issuer is not None, "checked before"
    chain = _pem(issued) if issuer.subject == issuer.issuer else _pem(issued, issuer)
    private_files.replace(path, chain, private_files.PUBLIC_MODE)


def _finish_renewal(files: Files) -> bool:
    """Put the new key in place, if the certificate is for it already."""
    if not files.next_key.exists():
        return False
    leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    if leaf.public_key() != _key(files.next_key).public_key():
        return False
    files.next_key.replace(files.key)
    return True


def _renamed(files: Files, thing: str) -> Files:
    """Give our key the name that its certificate has."""
    owner = Files(files.folder, thing)
    if owner.key.exists() or owner.certificate.exists():
        raise JoinError(
            f"this code is not {files.thing}'s but {thing}'s, which has files here already. Bring {files.key}"
            f" to another folder as {owner.key.name}, and enrol {thing} there: the code answers once more"
        )
    files.key.rename(owner.key)
    return owner


def _name(issued: x509.Certificate) -> str:
    """Return the thing of a certificate; it is a file name too, so what leads elsewhere is refused."""
    names = [str(one.value) for one in issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1 or not _THING.fullmatch(names[0]):
        raise ForeignServerError("the certificate is for what is no thing's name")
    return names[0]


@contextmanager
def _key_of(path: Path) -> Iterator[ec.EllipticCurvePrivateKey]:
    """Give the key that is to be certified: the one that is there, as the answer to it may have been lost.

    One made now goes again when it was refused; it stays where it may have been certified.
    """
    made = private_files.create(path, keys.key_pem(keys.make_key()))
    try:
        yield _key(path)
    except (RefusedError, ForeignServerError):
        if made:
            path.unlink()
        raise
    except JoinError as error:
        raise JoinError(f"{error}. {path} is kept: the same command goes on with it") from error


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    kept = private_files.read(path)
    assert kept is not None, "made a moment ago"
    return keys.parse_key(kept)


# ---------------------------------------------------------------------------- HTTP


def _exchange(
    host: str, port: int, context: ssl.SSLContext, sent: tuple[str, str, bytes, Mapping[str, str]]
) -> Answer:
    method, path, body, fields = sent
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request(method, path, body or None, dict(fields))
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX + 1)
        if len(data) > ANSWER_BYTES_MAX:
            raise JoinError("the server's answer is too long")
        return Answer(answer.status, data, answer.headers.get("Retry-After") or "")
    except ssl.SSLCertVerificationError as error:
        raise ForeignServerError(
            f"{host} does not belong to the root to trust: {error.verify_message}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise JoinError(f"{host} port {port} does not answer: {error}") from error
    finally:
        connection.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise JoinError("write the address as https://host:port")
    return parts.hostname, parts.port or PORT


def _certificates(answer: Answer) -> list[x509.Certificate]:
    if answer.status != _OK:
        raise _refusal(answer)
    try:
        found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))
    except ValueError as error:
        raise JoinError("the server's answer holds no certificates") from error
    if not 1 <= len(found) <= CERTIFICATES_MAX:
        raise JoinError("the server's answer holds no certificates, or too many")
    return found


def _refusal(answer: Answer) -> JoinError:
    is_final = _BAD_REQUEST <= answer.status < _SERVER_ERROR
    message = refusals.words(answer.status, _object(answer), answer.retry_after)
    return (RefusedError if is_final else JoinError)(message)


def _object(answer: Answer) -> dict[str, str]:
    try:
        said = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}
    texts = ((name, bytes(raw)) for name, raw in said.items())
    return {name: msgspec.json.decode(raw, type=str) for name, raw in texts if raw.startswith(b'"')}


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(_PEM) for one in certificates)


def _sha256(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(_DER)).hexdigest()
