"""The written list of what the emulator cannot show, and the rule that nothing else may be skipped."""

import tomllib
from pathlib import Path

LIST = Path(__file__).parent.parent / "emulator_skips.toml"


def known() -> dict[str, str]:
    """Return test id → reason; ids as pytest writes them, from the root of the repository."""
    return {entry["test"]: entry["reason"] for entry in tomllib.loads(LIST.read_text()).get("skip", [])}
