"""What all commands share: the options for settings, and how what went wrong is told."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import uvloop

from broker_bridge.mosquitto_config import UnfitForConfigurationError
from broker_bridge.session import SessionError
from gnomon import roles
from infra import logs
from infra.documents.port import StoreError
from infra.settings import Settings, SettingsError, load
from security import private_files
from security.heads import BadHeadsError
from security.people.errors import InvalidAccountError
from security.secretbox import SealBrokenError
from security.trust.authority import AuthorityError, CrlTooSoonError, DamagedFileError, ExposedFileError

TOLD = (
    roles.StartError,
    SessionError,
    UnfitForConfigurationError,
    AuthorityError,
    CrlTooSoonError,
    BadHeadsError,
    SealBrokenError,
    DamagedFileError,
    ExposedFileError,
    InvalidAccountError,
)
"""Errors whose message is a sentence for whoever started the program."""


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--config`` and ``--set``: its arguments ``config`` and ``pairs``."""
    command = click.option(
        "--set",
        "pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one setting, for example --set api.port=9000. May be repeated.",
    )(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file with settings. Default: gnomon.toml if there is one.",
    )(command)


def settings_of(config: Path | None, pairs: tuple[str, ...]) -> Settings:
    """Return the settings in effect, and set up the log by them."""
    try:
        overrides = dict(pair.split("=", 1) for pair in pairs)
    except ValueError:
        raise click.BadParameter(
            "write KEY=VALUE, for example --set api.port=9000", param_hint="--set"
        ) from None
    try:
        settings = load(config, overrides=overrides)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    logs.configure(settings.logs)
    return settings


def passphrase_from(file: Path | None) -> str | None:
    """Return the passphrase that a file holds, None where none was named."""
    if file is None:
        return None
    kept = private_files.read(file, links=True)
    if not kept:
        raise click.ClickException(f"{file} holds no passphrase")
    return kept.decode(errors="replace").partition("\n")[0].rstrip("\r")


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; say what stopped it in one sentence, if that is nobody's bug."""
    with telling():
        uvloop.run(work)


@contextmanager
def telling() -> Iterator[None]:
    """Say what stopped the block in one sentence, if that is nobody's bug."""
    try:
        yield
    except StoreError as error:
        raise click.ClickException(f"the store: {error}") from error
    except TOLD as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
