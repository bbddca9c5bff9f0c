"""What others wrote, as a terminal may show it: nothing in it moves the cursor, colours or renames anything.

Notes, reasons and names come from other people and from devices. What the service keeps of them is as they
wrote it; only who shows them knows where.
"""

from typing import Any, Final

INSTEAD: Final = "\N{REPLACEMENT CHARACTER}"


def harmless(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value of JSON with a mark in the place of each character that cannot be printed."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_printable, value))
    if isinstance(value, list):
        return [harmless(one) for one in value]
    if isinstance(value, dict):
        return {harmless(name): harmless(one) for name, one in value.items()}
    return value


def _printable(character: str) -> str:
    return character if character.isprintable() else INSTEAD
