"""Faults to plant in a child, each in one place of the service, each set off by what a request carries.

They stand for what nobody foresaw: a bug in a rule, a crash in a library, a store that goes away.
"""

import os
import signal
from collections.abc import Callable
from typing import Any
from unittest import mock

from shadow import commands, decisions

PARSER = "broker_bridge.dispatch.parse_update"

POISON = b"kill-the-process"
"""A payload that holds this kills the process as soon as it is parsed."""
BAD_APPLE = "fail-the-rule"
"""An update that writes a field of this name to ``reported`` meets a bug in the rules."""
BAD_BYTES = b"fail-the-parser"


def poison() -> None:
    """Kill the process from within the parser, as a bug in a codec of native code would."""
    honest = commands.parse_update

    def deadly(payload: bytes, *others: Any, **named: Any) -> Any:
        if POISON in payload:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(payload, *others, **named)

    _replace(PARSER, deadly)


def failing_rule() -> None:
    """Let the rules raise what they never should."""
    honest = decisions.carry_out

    def failing(current: Any, command: Any, circumstances: Any) -> Any:
        reported = (getattr(command, "state", None) or {}).get("reported") or {}
        if BAD_APPLE in reported:
            raise ZeroDivisionError("planted")
        return honest(current, command, circumstances)

    _replace("shadow.decisions.carry_out", failing)


def failing_parser() -> None:
    """Let the parser raise what it never should."""
    honest = commands.parse_update

    def failing(payload: bytes, *others: Any, **named: Any) -> Any:
        if BAD_BYTES in payload:
            raise ZeroDivisionError("planted")
        return honest(payload, *others, **named)

    _replace(PARSER, failing)


FAULTS: dict[str, Callable[[], None]] = {
    "poison": poison,
    "failing-rule": failing_rule,
    "failing-parser": failing_parser,
}


def plant(name: str) -> None:
    """Plant the fault of this name."""
    FAULTS[name]()


def _replace(what: str, by: Callable[..., Any]) -> None:
    mock.patch(what, by).start()  # never stopped: the child ends with it
