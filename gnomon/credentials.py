"""Credential files: where the service is, and who somebody is there.

TOML, readable by its owner only: ``url`` (and ``root``, the file of the root that signs for it, unless that
is a public one), and ``login`` (with ``password`` and ``totp_seed``, or they are asked for) or ``client_id``
and ``client_secret``. What is wrong with one is told without a word of what it holds.
"""

import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gnomon.refusals import AccessError
from infra.settings.model import is_loopback
from security import private_files
from security.people import totp
from security.secret import Secret

DEFAULT_URL: Final = "http://127.0.0.1:8080"
SESSION_SUFFIX: Final = ".session"
_PLACE: Final = re.compile(r"\(at [^()]*\)$")
"""The end of what tomllib says; what stands before it may repeat the file."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credential file holds."""

    url: str
    login: str = ""
    password: Secret | None = None
    totp_seed: Secret | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    root: str = ""


KEYS: Final = tuple(field.name for field in fields(Credentials))


def read_credentials(path: Path) -> Credentials:
    """Return what is in a credential file.

    Raises:
        AccessError: it is no such file, or it would send a secret over a network in the open.
        ExposedFileError: others may read it.
    """
    data = private_files.read(path, links=True)
    if data is None:
        raise AccessError(f"{path} is not there")
    texts = _texts(path, data)
    if "url" not in texts or ("login" in texts) is ("client_id" in texts):
        raise AccessError(f"{path} is no credential file: it needs url, and either login or client_id")
    check_url(texts["url"])
    return Credentials(
        url=texts["url"],
        login=texts.get("login", ""),
        password=_secret(texts, "password"),
        totp_seed=_seed(path, texts),
        client_id=texts.get("client_id", ""),
        client_secret=_secret(texts, "client_secret"),
        root=texts.get("root", ""),
    )


def write_credentials(path: Path, values: Mapping[str, str]) -> None:
    """Write a credential file. The values hold no quote, backslash or line end."""
    private_files.make_directory(path.parent)
    text = "".join(f'{name} = "{value}"\n' for name, value in values.items())
    private_files.replace(path, text.encode())


def session_file(path: Path) -> Path:
    """Return where the session of a credential file is kept; it opens the account as well."""
    return path.with_name(path.name + SESSION_SUFFIX)


def check_url(url: str) -> None:
    """Refuse an address at which a password would be read on the way."""
    if not _is_safe(url):
        raise AccessError(
            "the address (url) must be https://HOST:PORT, or http:// on this machine: a password is sent"
            " nowhere else"
        )


def trust(root: str) -> ssl.SSLContext:
    """Return whom to believe: the root in this file alone, or (empty) the public ones.

    Raises:
        AccessError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=root or None)
    except (OSError, ssl.SSLError) as error:
        raise AccessError(f"{root} holds no root certificate: {error}") from error


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
    return (
        plain and host != "" and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    )


def _texts(path: Path, data: bytes) -> dict[str, str]:
    try:
        found = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        # Nothing is chained: what is wrong may be the secret itself.
        raise AccessError(
            f"{path} is no credential file: not TOML {place[0] if place else ''}".rstrip()
        ) from None
    except UnicodeDecodeError:
        raise AccessError(f"{path} is no credential file: not text") from None
    return {name: _text(path, name, value) for name, value in found.items()}


def _text(path: Path, name: str, value: Any) -> str:  # noqa: ANN401 - whatever TOML has
    if name not in KEYS:
        meant = "".join(f" (did you mean {one}?)" for one in get_close_matches(name, KEYS, 1))
        raise AccessError(f"{path} has a key that means nothing{meant}; those that do: {', '.join(KEYS)}")
    if not isinstance(value, str):
        raise AccessError(f"{path}: {name} must be text in quotes")
    return value


def _secret(texts: Mapping[str, str], name: str) -> Secret | None:
    return Secret(texts[name]) if name in texts else None


def _seed(path: Path, texts: Mapping[str, str]) -> Secret | None:
    """Return the seed; it may stand there in fours, as it is shown to be typed."""
    if "totp_seed" not in texts:
        return None
    seed = "".join(texts["totp_seed"].split()).upper()
    try:
        totp.code_at(seed, 0)
    except ValueError:
        raise AccessError(f"{path}: totp_seed is no seed: it has 32 of A-Z and 2-7") from None
    return Secret(seed)
