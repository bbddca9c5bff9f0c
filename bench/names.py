"""What things of a bench are called, and where they live."""

from typing import Final

from registry.rules import THINGS_PER_PREMISES_MAX

NAME: Final = "load-%05d"
"""As `fleet.load` and `fleet.upgrades` call things that nobody names otherwise."""


def home(number: int) -> str:
    """Return where the thing with this number lives."""
    return f"pr-{number // THINGS_PER_PREMISES_MAX + 1}"
