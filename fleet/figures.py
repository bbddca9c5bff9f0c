"""Run something until it ends or is stopped, with a line of JSON about it every so often."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

Figures = Callable[[], dict[str, Any]]


async def run_and_print(
    run: Coroutine[Any, Any, None], stop: Callable[[], None], figures: Figures, every_s: float
) -> None:
    """Run; print figures every so often. SIGINT and SIGTERM call ``stop``, which must let ``run`` return."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as tasks:
        printing = tasks.create_task(_print_while_running(figures, every_s), name="figures")
        await run
        printing.cancel()


def print_line(line: dict[str, Any]) -> None:
    """Print one line, at once: whoever reads it waits for it."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


async def _print_while_running(figures: Figures, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        print_line(figures())
