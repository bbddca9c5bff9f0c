"""The broker's configuration as text: values in, file contents out. Pure.

Two listeners. *Device*: mutual TLS; who holds a certificate is the user **and** the client id, and a few
fixed patterns give each its own topics (default: no). *Service*: loopback, passwords, for our own
processes, each with exactly the topics it needs. No line ever names a thing, so nothing is rewritten when
things come and go. (spec: security 5; shadow 13)

The dynamic-security plugin stands on the service listener only, and knows nobody: its one use is that
making and deleting a user ends the sessions of that name on *all* listeners. On the device listener it would
need a role for each thing. It shares the listener with passwords and rules: of whom it does not know it
leaves both to them. [measured]
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker_bridge.topics import BRIDGE_ACL, CONTROL_ACL, DEVICE_ACL, PRESENCE_ACL, VOICE_ACL

BRIDGE_USER: Final = "svc.bridge"
"""Holds a dot, which no thing's name may: no device can be issued this name."""
PROBE_USER: Final = "svc.probe"
"""Proves that the broker on the port is ours, and speaks to a canary; it may do nothing else. It is not the
bridge's user, because a second connection with that name would end the bridge's session."""
JANITOR_USER: Final = "svc.janitor"
"""May ask the dynamic-security plugin, which the bridge may not, and nothing else."""

IN_FLIGHT_MAX: Final = 4_096
"""Unacknowledged messages a client may be sent, and may send: it is one figure for all clients, and the
bridge needs it."""
QUEUED_MESSAGES_MAX: Final = 100_000
QUEUED_BYTES_MAX: Final = 67_108_864
"""What waits for one client that is away; above either Mosquitto drops, and the sender is not told."""
MEMORY_BYTES_MAX: Final = 536_870_912
CONNECTION_BYTES: Final = 65_536
"""What a connection with TLS takes of the broker's memory at most, beside what is queued. [measured: 45 k]"""
KEEP_ALIVE_S_MAX: Final = 1_200
TOPIC_ALIASES_MAX: Final = 10
SESSION_EXPIRY: Final = "7d"
"""Also of a session that was ended by force: it stays behind, and what is queued in it."""
AUTOSAVE_S: Final = 300
"""A save rewrites the whole file. It is for the sessions of devices; ours is saved when we subscribe,
and nothing that was promised is kept by the broker."""
SERVICE_CONNECTIONS_MAX: Final = 16
PASSWORD_ITERATIONS: Final = 101  # Mosquitto's default; these passwords are 128 random bits
_SALT_BYTES: Final = 12


_PLUGIN_STATE: Final = {
    "defaultACLAccess": {
        "publishClientSend": False,
        "publishClientReceive": False,
        "subscribe": False,
        "unsubscribe": False,
    }
}
"""Left out, the last three would be allowed."""


class NotForProductionError(Exception):
    """A listener without TLS was asked for outside a test."""


class UnfitForConfigurationError(Exception):
    """The broker's configuration has one value a line, and no way to quote."""

    def __init__(self, value: str) -> None:
        super().__init__(
            f"{value!r} cannot stand in the broker's configuration: choose one that is printable"
        )


@dataclass(frozen=True, slots=True)
class Files:
    """Where the broker's files are; all below one directory of its own."""

    directory: Path

    @property
    def configuration(self) -> Path:
        return self.directory / "mosquitto.conf"

    @property
    def device_acl(self) -> Path:
        return self.directory / "device.acl"

    @property
    def service_acl(self) -> Path:
        return self.directory / "service.acl"

    @property
    def service_passwords(self) -> Path:
        return self.directory / "service.passwords"

    @property
    def plugin_state(self) -> Path:
        return self.directory / "dynamic-security.json"

    @property
    def server_certificate(self) -> Path:
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "server.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """What a deployment chooses; everything else is fixed below. A port 0 is any free one."""

    directory: Path
    """The broker's own: configuration, passwords, saved sessions, log."""
    authority_file: Path
    """The authorities that devices' certificates come from: roots, and issuing ones below them."""
    revocation_file: Path | None = None
    """Which certificates count no more; read at the start and at each reload. Once it is outdated nobody
    gets in, revoked or not. None: there is no list, for tests that are not about it."""
    plugin: Path | None = None
    """The dynamic-security plugin. None: no session can be ended, for tests that are not about it."""
    listen: str = "127.0.0.1"
    device_port: int = 8883
    service_port: int = 0
    connections_max: int = 10_000
    packet_bytes_max: int = 262_144
    in_flight_max: int = IN_FLIGHT_MAX
    plain_port: int | None = None
    """Also take devices without TLS, on loopback, by user name alone. Tests and benchmarks only."""
    testing: bool = False

    def __post_init__(self) -> None:
        if self.plain_port is not None and not self.testing:
            raise NotForProductionError(
                "plain_port lets anybody be any device: leave it out, devices connect to device_port"
            )
        files = (self.directory, self.authority_file, self.revocation_file, self.plugin)
        for value in (*(str(file) for file in files if file is not None), self.listen):
            if not value.isprintable() or value != value.strip():
                raise UnfitForConfigurationError(value)


def configuration(config: BrokerConfig, user: str) -> str:
    """Return ``mosquitto.conf``; all ports must be chosen. ``user`` is whom the broker runs as."""
    files = Files(config.directory)
    lines = [*_general(config, user), *_device_listener(config, files)]
    if config.plain_port is not None:
        lines += _plain_listener(config.plain_port, files)
    lines += _service_listener(config, files)
    return "\n".join(lines) + "\n"


def memory_bytes_max(config: BrokerConfig) -> int:
    """Return how much memory the broker may take; the kernel is told so."""
    return MEMORY_BYTES_MAX + CONNECTION_BYTES * config.connections_max


def device_acl() -> str:
    """Return the permissions on the device listener."""
    return "\n".join(DEVICE_ACL) + "\n"


def service_acl() -> str:
    """Return the permissions on the service listener; who is not named has none."""
    rules = {
        BRIDGE_USER: (*BRIDGE_ACL, *PRESENCE_ACL),
        JANITOR_USER: CONTROL_ACL,
        PROBE_USER: VOICE_ACL,
    }
    return "\n".join(f"user {user}\n" + "\n".join(lines) + "\n" for user, lines in rules.items())


def plugin_state() -> bytes:
    """Return what the plugin knows at first: nobody, and that all is forbidden."""
    return msgspec.json.encode(_PLUGIN_STATE)


def password_file(passwords: Mapping[str, str], salt: str) -> str:
    """Return the password file of these users, in the broker's own hashed form."""
    return "".join(f"{user}:{_hashed(password, f'{salt}{user}')}\n" for user, password in passwords.items())


def _hashed(password: str, salt: str) -> str:
    salt_bytes = hashlib.sha256(salt.encode()).digest()[:_SALT_BYTES]
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt_bytes, PASSWORD_ITERATIONS)
    salt_text, digest_text = (base64.b64encode(part).decode() for part in (salt_bytes, digest))
    return f"$7${PASSWORD_ITERATIONS}${salt_text}${digest_text}"


def _general(config: BrokerConfig, user: str) -> Iterable[str]:
    yield "# Written at each start: changes are lost."
    yield "per_listener_settings true"
    # As root Mosquitto would become another user, who cannot read what only we may read. Whoever does not
    # want a broker that runs as root runs the whole service as an account of its own.
    yield f"user {user}"
    yield "persistence true"
    yield f"persistence_location {config.directory}"
    yield f"autosave_interval {AUTOSAVE_S}"
    yield f"persistent_client_expiration {SESSION_EXPIRY}"
    yield f"max_inflight_messages {config.in_flight_max}"
    yield f"max_queued_messages {QUEUED_MESSAGES_MAX}"
    yield f"max_queued_bytes {QUEUED_BYTES_MAX}"
    yield f"max_packet_size {config.packet_bytes_max}"
    # No memory_limit: the plugin frees more than the broker has counted, about 500 bytes a command, until the
    # count runs below zero and the broker takes itself to be out of memory. [measured] See memory_bytes_max.
    yield f"max_keepalive {KEEP_ALIVE_S_MAX}"
    # Else a second small message waits for the TCP acknowledgement of the first: 40 ms. [measured]
    yield "set_tcp_nodelay true"
    yield "sys_interval 0"
    # Presence is read from the log (`subscribe` and the connections among `notice`); never `all`.
    yield "log_dest stderr"
    yield "log_dest topic"
    yield from (f"log_type {kind}" for kind in ("error", "warning", "notice", "information", "subscribe"))
    yield "connection_messages true"


def _device_listener(config: BrokerConfig, files: Files) -> Iterable[str]:
    yield ""
    yield f"listener {config.device_port} {config.listen}"
    yield f"cafile {config.authority_file}"
    if config.revocation_file is not None:
        yield f"crlfile {config.revocation_file}"
    yield f"certfile {files.server_certificate}"
    yield f"keyfile {files.server_key}"
    yield "tls_version tlsv1.2"
    yield "require_certificate true"
    yield "use_identity_as_username true"
    yield "allow_anonymous false"
    yield f"max_connections {config.connections_max}"
    yield from _for_devices(files)


def _plain_listener(port: int, files: Files) -> Iterable[str]:
    yield ""
    yield f"listener {port} 127.0.0.1"
    yield "allow_anonymous true"
    yield from _for_devices(files)


def _for_devices(files: Files) -> Iterable[str]:
    # Else whoever has a certificate throws any other device off by taking its client id.
    yield "use_username_as_clientid true"
    yield "allow_zero_length_clientid false"
    yield "max_qos 1"
    yield f"max_topic_alias {TOPIC_ALIASES_MAX}"
    yield f"acl_file {files.device_acl}"


def _service_listener(config: BrokerConfig, files: Files) -> Iterable[str]:
    yield ""
    yield f"listener {config.service_port} 127.0.0.1"
    yield "allow_anonymous false"
    yield "use_username_as_clientid true"
    yield "allow_zero_length_clientid false"
    yield "max_qos 1"
    yield f"max_connections {SERVICE_CONNECTIONS_MAX}"
    yield f"password_file {files.service_passwords}"
    yield f"acl_file {files.service_acl}"
    if config.plugin is not None:
        yield f"plugin {config.plugin}"
        yield f"plugin_opt_config_file {files.plugin_state}"
