"""Faults to plant in a child, each in one place, most of them set off by what a request carries.

They stand for what nobody foresaw: a bug in a rule, a crash in a library, a power cut in the worst moment;
and for the bugs that a suite must catch, or it proves nothing (spec: reliability, 6). What has a field of a
fault's name in ``reported`` sets it off; what happens once leaves a file of that name.
"""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from broker_bridge.link import ConnectionLostError
from broker_bridge.session import Session
from infra.documents import sqlite_files
from infra.documents.mongo import MongoStore
from infra.documents.port import Entry, Write
from infra.documents.sqlite import SqliteStore
from shadow import commands, decisions
from shadow.records import SHADOWS
from shadow.service import ShadowService

LATE_S = 0.05
PARSER = "broker_bridge.dispatch.parse_update"

POISON = "poison"
FAILING_RULE = "failing-rule"
FAILING_PARSER = "failing-parser"
DIE_AFTER_COMMIT = "die-after-commit"
DIE_BEFORE_ROWS = "die-before-rows"
LOSE_THE_LINK = "lose-the-link"
SPEAK_BEFORE_COMMIT = "speak-before-commit"
COMMIT_WITHOUT_FSYNC = "commit-without-fsync"
FORGET_TOKENS = "forget-tokens"
SEAL_ALWAYS = "seal-always"


def poison() -> None:
    """Kill the process from within the parser, as a bug in native code would; every time."""
    honest = commands.parse_update

    def deadly(payload: bytes, *others: Any, **named: Any) -> Any:
        if POISON.encode() in payload:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(payload, *others, **named)

    _replace(PARSER, deadly)


def failing_rule() -> None:
    """Let the rules raise what they never should."""
    honest = decisions.carry_out

    def failing(current: Any, command: Any, circumstances: Any) -> Any:
        if _carries(command, FAILING_RULE):
            raise ZeroDivisionError("planted")
        return honest(current, command, circumstances)

    _replace("shadow.decisions.carry_out", failing)


def failing_parser() -> None:
    """Let the parser raise what it never should."""
    honest = commands.parse_update

    def failing(payload: bytes, *others: Any, **named: Any) -> Any:
        if FAILING_PARSER.encode() in payload:
            raise ZeroDivisionError("planted")
        return honest(payload, *others, **named)

    _replace(PARSER, failing)


def die_after_commit() -> None:
    """Kill the process once, when an update is durable and nobody was told."""

    def die(outcomes: Sequence[Any]) -> None:
        if any(_carries(outcome.command, DIE_AFTER_COMMIT) for outcome in outcomes) and _once(
            DIE_AFTER_COMMIT
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    _listen_first(die)


def die_before_rows() -> None:
    """Kill the process once, when a document is written to MongoDB and its row of history is not."""
    honest = MongoStore._write_entries

    async def die(store: MongoStore, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        if any(DIE_BEFORE_ROWS.encode() in entry.body for entry in entries) and _once(DIE_BEFORE_ROWS):
            os.kill(os.getpid(), signal.SIGKILL)
        await honest(store, entries)

    _replace("infra.documents.mongo.MongoStore._write_entries", die)


def lose_the_link() -> None:
    """Lose the connection to the broker once, when an answer is written and its request not acknowledged."""
    due: list[bool] = []
    honest = Session.acknowledge

    def notice(outcomes: Sequence[Any]) -> None:
        if any(_carries(outcome.command, LOSE_THE_LINK) for outcome in outcomes) and _once(LOSE_THE_LINK):
            due.append(True)

    def acknowledge(session: Session, packet_id: int, connection: int) -> None:
        if due and session._link is not None:
            due.clear()
            session.flush()
            session._link.fail(ConnectionLostError("planted"))
        honest(session, packet_id, connection)

    _listen_first(notice)
    _replace("broker_bridge.session.Session.acknowledge", acknowledge)


def speak_before_commit() -> None:
    """Say that a commit is done when it has not begun: the bug that everything else is built against."""
    honest = SqliteStore.commit
    under_way: set[asyncio.Task[frozenset[int]]] = set()

    async def late(store: SqliteStore, writes: Sequence[Write]) -> frozenset[int]:
        await asyncio.sleep(LATE_S)
        return await honest(store, writes)

    async def hasty(store: SqliteStore, writes: Sequence[Write]) -> frozenset[int]:
        if any(write.collection != SHADOWS.name for write in writes):
            return await honest(store, writes)
        task = asyncio.create_task(late(store, writes))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return frozenset()

    _replace("infra.documents.sqlite.SqliteStore.commit", hasty)


def commit_without_fsync() -> None:
    """Commit to the page cache only."""
    honest = sqlite_files.connect_writer

    def careless(path: Path) -> sqlite3.Connection:
        connection = honest(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    _replace("infra.documents.sqlite.connect_writer", careless)


def forget_tokens() -> None:
    """Know no token again."""
    _replace("shadow.ledger.find", lambda *_: None)


def seal_always() -> None:
    """Seal the audit rows all the time, so that a kill at any moment meets a sealing."""
    mock.patch("security.sealer.SEAL_EVERY_S", 0.001).start()


FAULTS: dict[str, Callable[[], None]] = {
    POISON: poison,
    FAILING_RULE: failing_rule,
    FAILING_PARSER: failing_parser,
    DIE_AFTER_COMMIT: die_after_commit,
    DIE_BEFORE_ROWS: die_before_rows,
    LOSE_THE_LINK: lose_the_link,
    SPEAK_BEFORE_COMMIT: speak_before_commit,
    COMMIT_WITHOUT_FSYNC: commit_without_fsync,
    FORGET_TOKENS: forget_tokens,
    SEAL_ALWAYS: seal_always,
}


def plant(name: str) -> None:
    """Plant the fault of this name; ``module:function`` is one that stands elsewhere."""
    module, _, function = name.rpartition(":")
    (getattr(import_module(module), function) if module else FAULTS[name])()


def _carries(command: Any, name: str) -> bool:
    return name in ((getattr(command, "state", None) or {}).get("reported") or {})


def _once(name: str) -> bool:
    """Tell whether this happens for the first time in the child's directory."""
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _listen_first(listener: Callable[[Sequence[Any]], None]) -> None:
    """Have every shadow service call this listener before all others."""
    honest = ShadowService.__init__

    def prepared(service: ShadowService, *arguments: Any, **named: Any) -> None:
        honest(service, *arguments, **named)
        service.listen(listener)

    _replace("shadow.service.ShadowService.__init__", prepared)


def _replace(what: str, by: Callable[..., Any]) -> None:
    mock.patch(what, by).start()  # never stopped: the child ends with it
