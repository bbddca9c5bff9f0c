"""From a file, the environment and the command line to one checked object.

The later source wins. Whatever is wrong stops the start: the message names the setting, where it was
given, and what is allowed.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from infra.settings.keys import ENVIRONMENT_PREFIX, KEYS, SECTIONS, Key
from infra.settings.masking import mask
from infra.settings.model import RELATIONS, Settings, StoreSettings

FILE_VARIABLE = "GNOMON_CONFIG"
FILE_DEFAULT = Path("gnomon.toml")
FILE_BYTES_MAX = 1_048_576
TEST_PREFIX = "GNOMON_TEST_"
"""Variables that belong to the test suite, never to a running service."""


class SettingsError(Exception):
    """A setting is wrong: which one, where it was given, and what is to be done."""

    def __init__(self, key: str, origin: str, problem: str) -> None:
        super().__init__(f"{key} ({origin}): {problem}")
        self.key = key
        self.origin = origin
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it; ``text`` still has to be read as what it stands for."""

    key: str
    value: object
    origin: str
    text: bool


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Return the effective settings, or raise :class:`SettingsError`.

    Args:
        file: TOML file; without it the one ``GNOMON_CONFIG`` names, else ``gnomon.toml`` if it is there.
        environ: Environment to read instead of the process's own.
        overrides: Values by dotted name, as the command line gives them.
    """
    environ = os.environ if environ is None else environ
    sources = (_from_file(file, environ), _from_environment(environ), _from_command_line(overrides or {}))
    given = {one.key: one for source in sources for one in source}
    values = {dotted: _convert(KEYS[dotted], one) for dotted, one in given.items()}
    settings = _assemble(values)
    for relation in RELATIONS:
        if not relation.holds(settings):
            origin = given[relation.key].origin if relation.key in given else "default"
            raise SettingsError(relation.key, origin, f"must be {relation.allowed}")
    return settings


def _from_file(file: Path | None, environ: Mapping[str, str]) -> Iterator[Given]:
    if file is None and FILE_VARIABLE in environ:
        file = Path(environ[FILE_VARIABLE])
    if file is None:
        if not FILE_DEFAULT.exists():
            return
        file = FILE_DEFAULT
    for name, value in _parse(file).items():
        if not isinstance(value, dict):
            yield Given(_known(name, str(file)), value, str(file), text=False)
            continue
        _known_section(name, str(file))
        for key, one in value.items():
            yield Given(_known(f"{name}.{key}", str(file)), one, str(file), text=False)


def _parse(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise SettingsError("settings file", str(file), f"has more than {FILE_BYTES_MAX:,} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; name one that exists with --config or {FILE_VARIABLE}"
        raise SettingsError("settings file", str(file), problem) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("settings file", str(file), f"is not TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    by_variable = {key.variable: dotted for dotted, key in KEYS.items()}
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(TEST_PREFIX):
            continue
        if variable == FILE_VARIABLE:
            continue
        if variable not in by_variable:
            raise SettingsError(variable, "environment", "is not a setting" + _nearest(variable, by_variable))
        yield Given(by_variable[variable], value, f"environment variable {variable}", text=True)


def _from_command_line(overrides: Mapping[str, str]) -> Iterator[Given]:
    for key, value in overrides.items():
        yield Given(_known(key, "command line"), value, "command line", text=True)


def _known(key: str, origin: str) -> str:
    if key in SECTIONS:
        raise SettingsError(key, origin, f"is a section: write its settings below [{key}]")
    if key not in KEYS:
        raise SettingsError(key, origin, "is not a setting" + _nearest(key, KEYS))
    return key


def _known_section(name: str, origin: str) -> None:
    if name in KEYS:
        raise SettingsError(name, origin, f"is a setting, not a section; allowed: {KEYS[name].allowed}")
    if name not in SECTIONS:
        raise SettingsError(f"[{name}]", origin, "is not a section" + _nearest(name, SECTIONS))


def _nearest(wrong: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(wrong, [name for name in known if name], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; `gnomon settings` lists all of them"


def _convert(key: Key, given: Given) -> object:
    value = given.value
    if given.text and isinstance(key.default, tuple):
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        return msgspec.convert(value, key.type, strict=not given.text, dec_hook=_path)
    except msgspec.ValidationError as error:
        shown = mask(str(given.value))
        raise SettingsError(
            key.dotted, given.origin, f"{shown!r} is not allowed; allowed: {key.allowed}"
        ) from error


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise msgspec.ValidationError


def _assemble(values: Mapping[str, object]) -> Settings:
    arguments: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for dotted, value in values.items():
        key = KEYS[dotted]
        arguments[key.section][key.name] = value
    top = arguments.pop("")
    parts = {section: SECTIONS[section](**arguments[section]) for section in arguments}
    settings = Settings(**top, **parts)  # type: ignore[arg-type]  # each value was converted to its field's type
    return msgspec.structs.replace(settings, store=_placed(settings))


def _placed(settings: Settings) -> StoreSettings:
    """Put the directory in the place that the store's address leaves for it."""
    return StoreSettings(url=settings.store.url.replace("{directory}", str(settings.directory)))
