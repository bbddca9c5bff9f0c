"""Every setting by its dotted name, read from the definitions: for loading, printing and the page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Struct, structs

from infra.settings.model import Settings

ENVIRONMENT_PREFIX = "GNOMON_"
Hint = Any
"""A type as an annotation spells it; the type system has no name for these."""
_META_PARTS = ("description", "title", "ge", "le", "min_length", "max_length")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, as its definition describes it."""

    section: str
    name: str
    type: Hint
    default: object
    meaning: str
    allowed: str

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.dotted.replace(".", "_").upper()


def _sections() -> dict[str, type[Struct]]:
    hints = get_type_hints(Settings, include_extras=True)
    parts = {name: hint for name, hint in hints.items() if isinstance(hint, type)}
    return {"": Settings, **parts}


def _keys() -> Iterator[Key]:
    for section, owner in SECTIONS.items():
        hints = get_type_hints(owner, include_extras=True)
        for one in structs.fields(owner):
            if one.name not in SECTIONS:
                yield _key(section, one.name, hints[one.name], one.default)


def _key(section: str, name: str, hint: Hint, default: object) -> Key:
    meta: dict[str, Any] = {}
    for one in hint.__metadata__:
        meta |= {part: value for part in _META_PARTS if (value := getattr(one, part)) is not None}
    return Key(section, name, hint, default, meta["description"], _allowed(hint.__origin__, meta))


def _allowed(kind: Hint, meta: Mapping[str, Any]) -> str:
    if "title" in meta:
        return str(meta["title"])
    origin: object = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(f"`{one}`" for one in get_args(kind))
    if origin is tuple:
        return f"a list of {meta.get('min_length', 0)} to {meta['max_length']} texts"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number from {meta['ge']:,} to {meta['le']:,}"
    return {bool: "`true` or `false`", Path: "a path"}.get(kind, "a text")


SECTIONS = _sections()
"""Section name to its struct; "" holds what stands at the top."""
KEYS = {key.dotted: key for key in _keys()}


def value_of(settings: Settings, key: Key) -> object:
    """Return what a setting is set to."""
    owner = getattr(settings, key.section) if key.section else settings
    return getattr(owner, key.name)
