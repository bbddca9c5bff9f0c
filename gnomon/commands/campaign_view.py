"""What ``gnomon campaign`` shows of campaigns and targets: where it stands to people, by lines to files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gnomon.rollout import Document
from ota.states import CampaignState

GOOD: Final = "SUCCEEDED"
OPEN: Final = ("waiting", "active")
BAD: Final = "red"
BAR_WIDTH: Final = 40
"""Characters."""


def is_over(one: Document) -> bool:
    """Tell whether nothing changes any more: it has ended, and so has each target."""
    ended = one["state"] in {CampaignState.COMPLETED, CampaignState.ABORTED}
    return ended and not any(one["counts"].get(name) for name in OPEN)


@contextmanager
def watching() -> Iterator[Callable[[Document], None]]:
    """Return what shows progress: where it stands at a terminal, and else by a line for each change."""
    console = Console()
    if not console.is_terminal:
        yield lambda one: click.echo(_line(one))
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda one: live.update(_progress(one), refresh=True)


def tell_progress(one: Document) -> None:
    """Show how far a campaign is."""
    Console().print(_progress(one))


def tell_terms(one: Document) -> None:
    """Show what is wanted of a campaign, and whom it would reach."""
    waves = ", ".join(map(_wave, one["waves"]))
    rows = {
        "release": one["release"],
        "revision": f"{one['revision']}, by {one['author']}"
        + (f", approved by {one['approver']}" if "approver" in one else ""),
        "devices": f"{one['targets']}, by path {one['path']}, data: {one['data']}",
        "waves": f"{waves} (each watched for {one['soak_s']} s)",
        "pace": f"{one['per_hour']} an hour, {one['max_in_flight']} at once, {one['deadline_s']} s each",
        "windows": _hours(one.get("windows", ())),
        "starts": one.get("start_at", ""),
        "activates": " ".join(
            filter(None, (one.get("activate_at", ""), _hours(one.get("activation_windows", ()))))
        ),
        "left out": ", ".join(f"{count} {reason}" for reason, count in one["excluded"].items()),
        "notes": one.get("notes", ""),
    }
    for name, value in rows.items():
        if value:
            click.echo(f"{name:<10}{value}")
    for warning, count in one["warnings"].items():
        click.echo(f"WARNING   {count} with {warning}", err=True)


def tell_dry_run(found: Document) -> None:
    """Show who would get it, and who would not."""
    click.echo(f"{found['included']:>7}  get it")
    if found["replaced"]:
        click.echo(f"{found['replaced']:>7}  have to be replaced: their customers are told")
    for reason, count in found["excluded"].items():
        click.echo(f"{count:>7}  not: {reason}")
    for number, devices in enumerate(found["waves"]):
        click.echo(f"wave {number}: {devices} devices, those before it included")
    if "forecast_end" in found:
        click.echo(f"done by {found['forecast_end']} at the earliest, if started now")
    for warning, count in found["warnings"].items():
        click.echo(f"WARNING {count} with {warning}", err=True)


def tell_target(one: Document) -> None:
    """Show one target in a line."""
    took = f"{one['seconds']:.1f} s" if "seconds" in one else "-"
    why = " ".join(filter(None, (one.get("reason", ""), one.get("how", ""))))
    click.echo(f"{one['thing']:<32}  {one['state']:<20}  {one['wave']:>2}  {took:>8}  {why}".rstrip())


def tell_attempts(one: Document) -> None:
    """Show one target with each of its tries."""
    tell_target(one)
    for name in ("transfer_s", "idle_s", "activation_s"):
        if one.get(name):
            click.echo(f"  {name.removesuffix('_s')}: {one[name]:.1f} s")
    for past in one.get("attempts", ()):
        late = " (late)" if past.get("late") else ""
        ended, why = past.get("ended_at", ""), past.get("reason", "")
        row = f"  try {past['number']}: {past['state']}{late}  {ended}  {why}"
        click.echo(row.rstrip())
    if one["attempt"] > 1:
        click.echo(f"  try {one['attempt']}: {one['state']}")


def _wave(wave: Document) -> str:
    return f"{wave['percent']} %" if "percent" in wave else str(wave["devices"])


def _hours(windows: Sequence[Document]) -> str:
    """Return hours of the day, with the days on which they begin unless those are all."""
    return ", ".join(
        " ".join((f"{hours['start']}-{hours['end']}", *hours.get("days", ()))) for hours in windows
    )


def _done(one: Document) -> int:
    open_: int = sum(one["counts"].get(name, 0) for name in OPEN)
    counted: int = sum(one["counts"].values())
    return counted - open_


def _line(one: Document) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in one["counts"].items() if count)
    stop = f"  {one['stop']['reason']}" if "stop" in one else ""
    return f"{one['state']:<9}  wave {one['wave']}  {_done(one)}/{one['targets']}  {counts}{stop}".rstrip()


def _progress(one: Document) -> RenderableType:
    clocks, done, targets = one["clocks"], _done(one), one["targets"]
    head = Text.assemble((one["state"], "bold"), f"  {done} of {targets} done, wave {one['wave']}")
    bar = Table.grid()  # a bar alone does not end its line
    bar.add_row(ProgressBar(total=max(targets, 1), completed=done, width=BAR_WIDTH))
    rows: list[Any] = [head, bar]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, count in one["counts"].items():
        if count:
            table.add_row(name, str(count), style=None if name in (GOOD, *OPEN) else BAD)
    rows.append(table)
    if clocks["p50_s"] is not None:
        rows.append(
            Text(
                f"seconds a device: p50 {clocks['p50_s']:.1f}, p95 {clocks['p95_s']:.1f},"
                f" p99 {clocks['p99_s']:.1f}, longest {clocks['max_s']:.1f}"
            )
        )
    rows.append(Text(f"{clocks['over']} over {clocks['limit_s']:.0f} s", style=BAD if clocks["over"] else ""))
    hour = f"{clocks['per_hour']} within the hour (aim {clocks['per_hour_aim']})"
    rows.append(Text(f"{hour}, {clocks['in_flight']} in flight"))
    if "stop" in one:
        rows.append(Text(f"stopped: {one['stop']['reason']}", style="yellow"))
    return Group(*rows)
