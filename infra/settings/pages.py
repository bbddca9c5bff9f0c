"""Settings as text: the file that shows what is in effect, and ``docs/settings.md``."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import msgspec

from infra.settings.keys import KEYS, SECTIONS, Key, value_of
from infra.settings.masking import mask
from infra.settings.model import RELATIONS, Settings

_PAGE_HEAD = """\
# Settings

<!-- Made from infra/settings/model.py by `make vectors`; a change made here is lost. -->

Read once at start; the later source wins:

1. the defaults below,
2. a TOML file: `--config FILE`, else the one that `GNOMON_CONFIG` names, else `gnomon.toml` in the
   working directory, if it is there,
3. environment variables: `GNOMON_LIMITS_DEPTH_MAX` is `limits.depth_max`; lists are separated by commas,
4. the command line.

A wrong value or an unknown name stops the start with a message that says what is allowed.
`gnomon settings` prints what is in effect.
"""
_TOML_HEAD = """\
# The settings in effect. Saved as gnomon.toml they take effect again, after each *** was filled in."""
_TABLE_HEAD = "| setting | default | allowed | meaning |\n|---|---|---|---|"


def render_toml(settings: Settings) -> str:
    """Return the settings as a commented TOML file; credentials as ``***``."""
    blocks = [_TOML_HEAD]
    for section, keys in _by_section():
        lines = [f"# {_meaning(section)}", f"[{section}]"] if section else []
        blocks.append("\n".join([*lines, *(_entry(key, settings) for key in keys)]))
    return "\n\n".join(blocks) + "\n"


def render_page() -> str:
    """Return the page that lists every setting."""
    blocks = [_PAGE_HEAD]
    for section, keys in _by_section():
        title = f"## `[{section}]`" if section else "## At the top"
        rows = "\n".join(
            f"| `{key.name}` | `{_spell(key.default)}` | {key.allowed} | {key.meaning} |" for key in keys
        )
        blocks.append(f"{title}\n\n{_meaning(section)}\n\n{_TABLE_HEAD}\n{rows}\n")
    relations = "\n".join(f"* `{one.key}` must be {one.allowed}." for one in RELATIONS)
    return "\n".join([*blocks, f"## Between settings\n\n{relations}\n"])


def _by_section() -> Iterator[tuple[str, list[Key]]]:
    for section, keys in groupby(KEYS.values(), key=attrgetter("section")):
        yield section, list(keys)


def _meaning(section: str) -> str:
    return (SECTIONS[section].__doc__ or "").strip().splitlines()[0]


def _entry(key: Key, settings: Settings) -> str:
    value = value_of(settings, key)
    remark = "" if value == key.default else f"  # default {_spell(key.default)}"
    return f"# {key.meaning} ({key.allowed})\n{key.name} = {_spell(value)}{remark}"


def _spell(value: object) -> str:
    match value:
        case str() | Path():
            return msgspec.json.encode(mask(str(value))).decode()
        case tuple():
            return "[" + ", ".join(_spell(one) for one in value) + "]"
        case _:
            return msgspec.json.encode(value).decode()
