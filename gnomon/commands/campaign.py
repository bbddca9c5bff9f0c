"""``gnomon campaign``: firmware to a fleet, over the API, with a credential file.

Starting takes two persons, stopping one. What is asked of a second factor is asked for by itself.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.console import Group as Rows
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gnomon.commands.listing import Group
from gnomon.commands.login import as_option, opened
from gnomon.rollout import Document, Rollout
from ota.states import CampaignState

LOOK_S: Final = 1.0
OVER: Final = frozenset({CampaignState.COMPLETED, CampaignState.ABORTED})
GOOD, OPEN = ("SUCCEEDED",), ("waiting", "active")
BAR_WIDTH: Final = 40
"""Characters."""
HELD: Final = 3
"""Exit code of ``watch`` where the campaign waits for people."""


@click.group(cls=Group)
def campaign() -> None:
    """Campaigns: bring a release to the devices that need it, watch it, and stop it.

    A campaign is made (create), looked at (dry-run), frozen (submit) and then approved by another person.
    """


@campaign.command(name="list")
@click.option("--state", type=click.Choice([state.value for state in CampaignState]), default=None)
@as_option
def list_(credentials: Path, state: str | None) -> None:
    """List the campaigns."""
    with _rollout(credentials) as rollout:
        for one in rollout.campaigns(state=state or ""):
            done = one["targets"] - sum(one["counts"].get(name, 0) for name in OPEN)
            click.echo(f"{one['id']}  {one['state']:<9}  {done}/{one['targets']}  release {one['release']}")


@campaign.command()
@click.argument("release")
@click.option(
    "--data",
    type=click.Choice(["preserve", "reset"]),
    default="preserve",
    show_default=True,
    help="What becomes of settings and data on the device.",
)
@click.option(
    "--path",
    type=click.Choice(["remote", "local"]),
    default="remote",
    show_default=True,
    help="By itself over the network, or by somebody on site (gnomon field).",
)
@click.option(
    "--wave",
    "waves",
    multiple=True,
    metavar="N|N%",
    help="Devices of a wave, all before it included. Default: 10 1% 10% 50% 100%.",
)
@click.option("--premises", multiple=True, help="Only devices at these premises.")
@click.option("--thing", "things", multiple=True, help="Only these devices.")
@click.option("--per-hour", type=click.IntRange(1), default=None, help="Offers an hour.")
@click.option("--in-flight", type=click.IntRange(1), default=None, help="Devices at once.")
@click.option(
    "--window",
    "windows",
    multiple=True,
    metavar="HH:MM-HH:MM",
    help="Only at these hours, in the local time of the premises.",
)
@click.option("--retries", type=click.IntRange(0, 10), default=None, help="Tries more for who fails.")
@click.option("--submit", "at_once", is_flag=True, help="Submit it at once, as it is.")
@as_option
def create(credentials: Path, release: str, *, at_once: bool, **how: Any) -> None:  # noqa: ANN401 - click's
    """Make a draft of a campaign that brings RELEASE to all devices that need it."""
    with _rollout(credentials) as rollout:
        made = rollout.create(_body(release, **how))
        if at_once:
            _submit(rollout, made["id"])
            return
    click.echo(f"{made['id']}  {made['state']}")
    click.echo(f"next: gnomon campaign dry-run {made['id']}; then submit, and have it approved", err=True)


@campaign.command(name="dry-run")
@click.argument("id")
@as_option
def dry_run(credentials: Path, id: str) -> None:
    """Show who would get it, who would not and why, and how long it would take."""
    with _rollout(credentials) as rollout:
        found = rollout.dry_run(id)
    click.echo(f"{found['included']:>7}  devices get it")
    for reason, count in sorted(found["excluded"].items()):
        click.echo(f"{count:>7}  {reason}")
    for number, devices in enumerate(found["waves"]):
        click.echo(f"wave {number}: {devices} devices, those before it included")
    if found.get("forecast_end"):
        click.echo(f"done by {found['forecast_end']} at the earliest, if started now")
    for warning, count in sorted(found["warnings"].items()):
        click.echo(f"WARNING {count} with {warning}", err=True)


@campaign.command()
@click.argument("id")
@as_option
def submit(credentials: Path, id: str) -> None:
    """Freeze the targets and the order, for a second person to approve."""
    with _rollout(credentials) as rollout:
        _submit(rollout, id)


@campaign.command()
@click.argument("id")
@as_option
def approve(credentials: Path, id: str) -> None:
    """Approve what another person has submitted; it starts when it is time."""
    with _rollout(credentials) as rollout:
        one = rollout.approve(id)
    click.echo(f"{one['id']}  {one['state']}")


def _stopping(name: str, what: str, act: Callable[[Rollout, str, str], Document]) -> None:
    @campaign.command(name=name, help=what)
    @click.argument("id")
    @click.option("--note", required=True, help="Why: it stands in the audit trail.")
    @as_option
    def command(credentials: Path, id: str, note: str) -> None:
        with _rollout(credentials) as rollout:
            one = act(rollout, id, note)
        click.echo(f"{one['id']}  {one['state']}")


_stopping("pause", "Offer nothing more and let nobody activate, until it is resumed.", Rollout.pause)
_stopping("resume", "Go on; after a pause that no person made it takes a second person.", Rollout.resume)
_stopping("abort", "End it for good: who has not activated keeps what it runs.", Rollout.abort)


@campaign.command()
@click.argument("id")
@as_option
def show(credentials: Path, id: str) -> None:
    """Show a campaign as it is now."""
    with _rollout(credentials) as rollout:
        Console().print(_view(rollout.campaign(id)))


@campaign.command()
@click.argument("id")
@as_option
def watch(credentials: Path, id: str) -> None:
    """Show its progress live, until it is over.

    Exit code 0: completed. 1: aborted. 3: it is paused, and waits for people.
    """
    with _rollout(credentials) as rollout:
        one = rollout.campaign(id)
        with Live(_view(one), console=Console(), auto_refresh=False) as live:
            while one["state"] not in OVER and one["state"] != CampaignState.PAUSED:
                threading.Event().wait(LOOK_S)
                one = rollout.campaign(id)
                live.update(_view(one), refresh=True)
    if one["state"] == CampaignState.PAUSED:
        click.echo(f"paused: {one['stop']['reason']}", err=True)
        raise click.exceptions.Exit(HELD)
    if one["state"] == CampaignState.ABORTED:
        raise click.exceptions.Exit(1)


@campaign.command()
@click.argument("id")
@click.option("--state", default="", help="Only targets in this state.")
@click.option("--reason", default="", help="Only targets with this reason.")
@as_option
def executions(credentials: Path, id: str, state: str, reason: str) -> None:
    """List the targets of a campaign, with what became of each."""
    with _rollout(credentials) as rollout:
        for one in rollout.executions(id, state=state, reason=reason):
            took = "" if one.get("seconds") is None else f"{one['seconds']:.1f} s"
            click.echo(f"{one['thing']:<32} {one['state']:<20} {took:>8}  {one.get('reason', '')}")


@campaign.command()
@click.argument("id")
@click.argument("thing")
@as_option
def cancel(credentials: Path, id: str, thing: str) -> None:
    """Take the device THING out of the campaign, unless it is activating already."""
    with _rollout(credentials) as rollout:
        click.echo(f"{thing}  {rollout.cancel(id, thing)['state']}")


@campaign.command()
@click.argument("id")
@click.argument("thing")
@as_option
def retry(credentials: Path, id: str, thing: str) -> None:
    """Give the device THING, which failed, another try."""
    with _rollout(credentials) as rollout:
        click.echo(f"{thing}  {rollout.retry(id, thing)['state']}")


# ------------------------------------------------------------------ parts


@contextmanager
def _rollout(credentials: Path) -> Iterator[Rollout]:
    with opened(credentials) as access:
        yield Rollout(access)


def _submit(rollout: Rollout, id: str) -> None:
    one = rollout.submit(id)
    click.echo(f"{one['id']}  {one['state']}  {one['targets']} devices")
    click.echo(f"waits for a second operator: gnomon campaign approve {one['id']}", err=True)


def _body(release: str, **how: Any) -> Document:  # noqa: ANN401 - click's
    body: Document = {"release": release, "data": how["data"], "path": how["path"]}
    selector = {name: list(how[name]) for name in ("premises", "things") if how[name]}
    optional = {
        "selector": selector,
        "waves": [_wave(text) for text in how["waves"]],
        "windows": [_window(text) for text in how["windows"]],
        "per_hour": how["per_hour"],
        "max_in_flight": how["in_flight"],
        "retries": how["retries"],
    }
    return body | {name: value for name, value in optional.items() if value not in (None, [], {})}


def _wave(text: str) -> Document:
    number, percent = text.removesuffix("%"), text.endswith("%")
    if not number.isdecimal():
        raise click.BadParameter("a number of devices, or a share as 10%", param_hint="--wave")
    return {"percent" if percent else "devices": int(number)}


def _window(text: str) -> Document:
    start, dash, end = text.partition("-")
    if not dash:
        raise click.BadParameter("two times of the day, as 22:00-06:00", param_hint="--window")
    return {"start": start, "end": end}


def _view(one: Document) -> Rows:
    """Return what a person wants to see of a campaign."""
    counts, clocks, targets = one["counts"], one["clocks"], one["targets"]
    done = targets - sum(counts.get(name, 0) for name in OPEN)
    head = Text.assemble((one["state"], "bold"), f"  {done} of {targets} done, wave {one['wave']}")
    rows: list[Any] = [head, ProgressBar(total=max(targets, 1), completed=done, width=BAR_WIDTH)]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, count in counts.items():
        if count:
            table.add_row(name, str(count), style=None if name in (*GOOD, *OPEN) else "red")
    rows.append(table)
    if clocks.get("p50_s") is not None:
        over = Text(f", {clocks['over']} over {clocks['limit_s']} s", style="red" if clocks["over"] else "")
        rows.append(
            Text(f"seconds a device: p50 {clocks['p50_s']}, p99 {clocks['p99_s']}, longest {clocks['max_s']}")
            + over
        )
    rows.append(Text(f"{clocks['per_hour']} an hour, {clocks['in_flight']} in flight"))
    if one.get("stop"):
        rows.append(Text(f"stopped: {one['stop']['reason']}", style="yellow"))
    rows += [Text(f"{count} with {text}", style="yellow") for text, count in one["warnings"].items()]
    return Rows(*rows)
