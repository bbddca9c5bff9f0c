"""Connections held by hand, for what no library sends: TLS with any certificate, MQTT packets as bytes."""

import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.child import Gnomon

CONNACK_ACCEPTED: Final = b"\x20\x02\x00\x00"
TIMEOUT_S: Final = 5.0


V311, V5 = 4, 5
CLEAN: Final = 0x02
WILL: Final = 0x04 | 0x08
"""A will with QoS 1."""
KEEP_ALIVE: Final = (60).to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a broker said to a client that came with some certificate."""

    let_in: bool
    said: str


def connect_packet(client_id: str, will: tuple[str, bytes] | None = None, level: int = V311) -> bytes:
    """Return a CONNECT; what is to be done when the connection is lost may be with it."""
    no_properties = b"\x00" if level == V5 else b""
    flags = CLEAN | (0 if will is None else WILL)
    rest = _text(b"MQTT") + bytes([level, flags]) + KEEP_ALIVE + no_properties + _text(client_id.encode())
    if will is not None:
        rest += no_properties + _text(will[0].encode()) + _text(will[1])
    return b"\x10" + length(len(rest)) + rest


def publish_packet(topic: str, payload: bytes, packet_id: int = 1, *, retain: bool = False) -> bytes:
    """Return a PUBLISH of QoS 1 of MQTT 3.1.1."""
    rest = _text(topic.encode()) + packet_id.to_bytes(2, "big") + payload
    return bytes([0x32 | int(retain)]) + length(len(rest)) + rest


def fleeting_packet(topic: str, payload: bytes) -> bytes:
    """Return a PUBLISH of QoS 0 of MQTT 3.1.1."""
    rest = _text(topic.encode()) + payload
    return b"\x30" + length(len(rest)) + rest


def subscribe_packet(filter: str, packet_id: int = 1, level: int = V311) -> bytes:
    """Return a SUBSCRIBE with QoS 1."""
    no_properties = b"\x00" if level == V5 else b""
    rest = packet_id.to_bytes(2, "big") + no_properties + _text(filter.encode()) + b"\x01"
    return b"\x82" + length(len(rest)) + rest


def length(value: int) -> bytes:
    """Return a remaining length as MQTT writes it."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def client_context(
    gnomon: Gnomon, certificate: tuple[Path, Path] | None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return the TLS settings of a client that shows whatever it is given, however weak."""
    context = ssl.create_default_context(cafile=gnomon.root_certificate)
    if version is not None:
        context.maximum_version = version
    if certificate is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else our own side refuses a short key
        context.load_cert_chain(*certificate)
    return context


@contextmanager
def secured(
    gnomon: Gnomon, certificate: tuple[Path, Path] | None, version: ssl.TLSVersion | None = None
) -> Iterator[ssl.SSLSocket]:
    """Connect to the device listener and shake hands."""
    context = client_context(gnomon, certificate, version)
    with (
        socket.create_connection(("127.0.0.1", gnomon.device_port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def greet(
    gnomon: Gnomon,
    certificate: tuple[Path, Path] | None,
    version: ssl.TLSVersion | None = None,
    client_id: str = "x",
) -> Greeting:
    """Connect, say CONNECT, and return what came back. TLS 1.3 tells of a refusal only when one reads."""
    try:
        with secured(gnomon, certificate, version) as connection:
            connection.sendall(connect_packet(client_id))
            answer = connection.recv(4)
    except ssl.SSLError as error:
        return Greeting(let_in=False, said=error.reason or "closed")
    except OSError as error:
        return Greeting(let_in=False, said=type(error).__name__)
    return Greeting(let_in=answer == CONNACK_ACCEPTED, said=answer.hex() or "closed")


@contextmanager
def session(
    gnomon: Gnomon, name: str, will: tuple[str, bytes] | None = None, level: int = V311
) -> Iterator[ssl.SSLSocket]:
    """Hold an MQTT session of a thing, and break it off at the end without a goodbye."""
    with secured(gnomon, gnomon.certificate(name)) as connection:
        connection.sendall(connect_packet(name, will, level))
        answer = connection.recv(64)
        assert answer[:1] == b"\x20", f"{name} was not let in: {answer.hex()}"
        yield connection


def die(gnomon: Gnomon, name: str, will: tuple[str, bytes], level: int) -> None:
    """Connect as a thing, leave a will, and break off: the broker speaks the will."""
    with session(gnomon, name, will, level):
        pass


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
