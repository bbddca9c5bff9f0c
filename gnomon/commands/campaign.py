"""``gnomon campaign``: firmware to a fleet, over the API, with a credential file.

Starting takes two persons, stopping one. What is asked of a second factor is asked for by itself.
"""

import base64
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from api.patching import merge_patched
from gnomon.commands import campaign_view as view
from gnomon.commands.image import GIVEN, passphrase_option, read_key
from gnomon.commands.listing import Group
from gnomon.commands.login import as_option, opened
from gnomon.commands.options import passphrase_from, telling
from gnomon.rollout import Document, Rollout
from ota import order as orders
from ota.envelope import Typ, payload_of, seal
from ota.errors import EncodingError, FieldError
from ota.order import Order
from ota.states import CampaignState, ExecutionState

ABORTED, PAUSED = 1, 3
"""Exit codes of ``watch``: it ended before its time; it waits for people."""
STATES: Final = click.Choice([state.value for state in CampaignState])
TARGET_STATES: Final = click.Choice([state.value for state in ExecutionState])

_id: Final = click.argument("id")
_thing: Final = click.argument("thing")
_why: Final = click.option("--note", default="", help="Why: for the audit.")


@click.group(cls=Group)
def campaign() -> None:
    """Campaigns: bring a release to the devices that need it, watch it, and stop it.

    A campaign is made (create), looked at (dry-run), frozen (submit) and then approved by another person.
    """


def _terms(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what is wanted of a campaign."""
    for option in (
        click.option(
            "--terms",
            type=GIVEN,
            help="TOML file with whatever the API takes of a campaign; options beside it count more.",
        ),
        click.option("--notes", help="What people should know of it."),
        click.option("--retries", type=click.IntRange(0, 10), help="Tries more for who fails."),
        click.option(
            "--window",
            "windows",
            multiple=True,
            metavar="HH:MM-HH:MM",
            help="Only at these hours, in the local time of the premises. May be repeated.",
        ),
        click.option("--soak", "soak_s", type=click.IntRange(0), help="Seconds to watch each wave."),
        click.option("--in-flight", "max_in_flight", type=click.IntRange(1), help="Devices at once."),
        click.option("--per-hour", type=click.IntRange(1), help="Offers an hour."),
        click.option("--thing", "things", multiple=True, help="Only this device. May be repeated."),
        click.option("--premises", multiple=True, help="Only devices at these premises. May be repeated."),
        click.option(
            "--wave",
            "waves",
            multiple=True,
            metavar="N|N%",
            help="Devices of a wave, all before it included; one that fails in the first pauses all. "
            "May be repeated. Default: 10 1% 10% 50% 100%.",
        ),
        click.option(
            "--path",
            type=click.Choice(["remote", "local"]),
            help="By itself over the network, or by somebody on site (gnomon field). Default: remote.",
        ),
        click.option(
            "--data",
            type=click.Choice(["preserve", "reset"]),
            help="What becomes of settings and data on the device. Default: preserve.",
        ),
    ):
        command = option(command)
    return command


@campaign.command()
@click.argument("release")
@_terms
@click.option("--submit", "at_once", is_flag=True, help="Submit it at once, as it is.")
@as_option
def create(credentials: Path, release: str, at_once: bool, **how: Any) -> None:  # noqa: ANN401 - click's
    """Make a draft of a campaign that brings RELEASE to all devices that need it."""
    body = {"release": release} | _body(**how)
    with _rollout(credentials) as rollout:
        made = rollout.create(body)
        if at_once:
            click.echo(f"draft {made['id']}", err=True)  # it is there, whatever becomes of it
            _submit(rollout, made["id"])
            return
    click.echo(f"{made['id']}  {made['state']}")
    click.echo(
        f"next: gnomon campaign dry-run {made['id']}, then gnomon campaign submit {made['id']}", err=True
    )


@campaign.command()
@_id
@_terms
@as_option
def edit(credentials: Path, id: str, **how: Any) -> None:  # noqa: ANN401 - click's
    """Change the draft ID: what no option names stays. It has to be submitted anew."""
    patch = _body(**how)
    if not patch:
        raise click.UsageError("say what is to change: what was submitted would be a draft again for nothing")
    with _rollout(credentials) as rollout:
        one = rollout.edit(id, patch)
    click.echo(f"{one['id']}  {one['state']}")


@campaign.command()
@_id
@as_option
def delete(credentials: Path, id: str) -> None:
    """Delete the draft ID."""
    with _rollout(credentials) as rollout:
        rollout.delete(id)


@campaign.command(name="dry-run")
@_id
@as_option
def dry_run(credentials: Path, id: str) -> None:
    """Show who would get it, who would not and why, and how long it would take."""
    with _rollout(credentials) as rollout:
        view.tell_dry_run(rollout.dry_run(id))


@campaign.command()
@_id
@_why
@as_option
def submit(credentials: Path, id: str, note: str) -> None:
    """Freeze the targets and the order, for a second person to approve."""
    with _rollout(credentials) as rollout:
        _submit(rollout, id, note)


@campaign.command()
@_id
@click.option("--revision", type=click.IntRange(1), help="Only if this is what was submitted last.")
@click.option("--key", "key_file", type=GIVEN, help="Sign the order with this key of your own, here.")
@passphrase_option
@_why
@as_option
def approve(
    credentials: Path,
    id: str,
    revision: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    note: str,
) -> None:
    """Approve what another person has submitted; it starts when it is time.

    It is told first what that is. Without a key of yours the service signs the order with its own.
    """
    with _rollout(credentials) as rollout:
        one = rollout.campaign(id)
        if revision not in {None, one["revision"]}:
            raise click.ClickException(f"what was submitted last is revision {one['revision']}: look at it")
        view.tell_terms(one)
        order = "" if key_file is None else _signed(one, key_file, passphrase_file)
        begun = rollout.approve(id, order, note, one["version"])
    click.echo(f"{begun['id']}  {begun['state']}")


def _stopping(name: str, what: str, act: Callable[[Rollout, str, str], Document]) -> None:
    @campaign.command(name=name, help=what)
    @_id
    @click.option("--note", required=True, help="Why: for the audit.")
    @as_option
    def command(credentials: Path, id: str, note: str) -> None:
        with _rollout(credentials) as rollout:
            one = act(rollout, id, note)
        click.echo(f"{one['id']}  {one['state']}")


_stopping("pause", "Offer nothing more and let nobody activate, until it is resumed.", Rollout.pause)
_stopping("resume", "Go on; after a pause that no person made it takes a second person.", Rollout.resume)
_stopping("abort", "End it for good: who has not activated keeps what it runs.", Rollout.abort)


@campaign.command(name="list")
@click.option("--state", type=STATES, default=None, help="Only those in this state.")
@as_option
def list_(credentials: Path, state: str | None) -> None:
    """List the campaigns: id, state, targets that are done, release, notes."""
    with _rollout(credentials) as rollout:
        for one in rollout.campaigns(state=state or ""):
            done = f"{one['done']}/{one['targets']}"
            row = f"{one['id']}  {one['state']:<9}  {done:>11}  {one['release']}  {one.get('notes', '')}"
            click.echo(row.rstrip())


@campaign.command()
@_id
@as_option
def show(credentials: Path, id: str) -> None:
    """Show a campaign as it is now."""
    with _rollout(credentials) as rollout:
        one = rollout.campaign(id)
        view.tell_terms(one)
        view.tell_progress(one)


@campaign.command()
@_id
@as_option
def watch(credentials: Path, id: str) -> None:
    """Show its progress live, until it is over or waits for people.

    Exit code 0: completed. 1: aborted. 3: it is paused.
    """
    with _rollout(credentials) as rollout, view.watching() as show_it:
        for one in rollout.progress(id):
            show_it(one)
            if one["state"] == CampaignState.PAUSED or view.is_over(one):
                break
    if one["state"] == CampaignState.PAUSED:
        raise click.exceptions.Exit(PAUSED)
    if one["state"] == CampaignState.ABORTED:
        raise click.exceptions.Exit(ABORTED)


@campaign.command(name="targets")
@_id
@click.option("--state", type=TARGET_STATES, default=None, help="Only those in this state.")
@click.option("--wave", type=click.IntRange(0), default=None, help="Only those of this wave.")
@click.option("--reason", default="", help="Only those with this reason.")
@as_option
def targets(credentials: Path, id: str, state: str | None, wave: int | None, reason: str) -> None:
    """List the targets of a campaign: name, state, wave, seconds it took, reason."""
    query = {"state": state or "", "wave": "" if wave is None else str(wave), "reason": reason}
    with _rollout(credentials) as rollout:
        for one in rollout.executions(id, **query):
            view.tell_target(one)


@campaign.command()
@_id
@_thing
@as_option
def target(credentials: Path, id: str, thing: str) -> None:
    """Show what became of the device THING, try by try."""
    with _rollout(credentials) as rollout:
        view.tell_attempts(rollout.execution(id, thing))


@campaign.command()
@_id
@_thing
@_why
@as_option
def cancel(credentials: Path, id: str, thing: str, note: str) -> None:
    """Take the device THING out of the campaign, unless it is activating already."""
    with _rollout(credentials) as rollout:
        click.echo(f"{thing}  {rollout.cancel(id, thing, note)['state']}")


@campaign.command()
@_id
@_thing
@_why
@as_option
def retry(credentials: Path, id: str, thing: str, note: str) -> None:
    """Give the device THING, which failed, another try."""
    with _rollout(credentials) as rollout:
        click.echo(f"{thing}  {rollout.retry(id, thing, note)['state']}")


# ---------------------------------------------------------------------------- parts


@contextmanager
def _rollout(credentials: Path) -> Iterator[Rollout]:
    with opened(credentials) as access:
        yield Rollout(access)


def _submit(rollout: Rollout, id: str, note: str = "") -> None:
    one = rollout.submit(id, note)
    click.echo(f"{one['id']}  {one['state']}  {one['targets']} devices  revision {one['revision']}")
    click.echo(f"waits for a second person: gnomon campaign approve {one['id']}", err=True)


def _body(
    *,
    terms: Path | None,
    things: tuple[str, ...],
    premises: tuple[str, ...],
    waves: tuple[str, ...],
    windows: tuple[str, ...],
    **plain: Any,  # noqa: ANN401 - click's
) -> Document:
    """Return what the API takes, of what was said."""
    named = {"things": list(things), "premises": list(premises)}
    lists = {"waves": list(map(_wave, waves)), "windows": list(map(_window, windows))}
    said = {name: value for name, value in plain.items() if value is not None}
    said |= {name: value for name, value in lists.items() if value}
    if selector := {name: value for name, value in named.items() if value}:
        said["selector"] = selector
    merged: Document = merge_patched(_read_terms(terms), said)  # what is pinned in the file stays so
    return merged


def _read_terms(file: Path | None) -> Document:
    if file is None:
        return {}
    with telling():
        try:
            terms = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise click.ClickException(f"{file}: {error}") from error
    for name, value in terms.items():
        if isinstance(value, datetime) and value.tzinfo is None:
            raise click.ClickException(f"{file}: {name}: say the offset too, as 2026-09-21T20:00:00Z")
    return terms


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


def _signed(one: Document, key_file: Path, passphrase_file: Path | None) -> str:
    """Return the order of a campaign under one's own signature, if it says what the campaign says."""
    with telling():
        key = read_key(key_file, passphrase_from(passphrase_file))
    try:
        order = orders.read(payload_of(base64.b64decode(one.get("order", ""))))
    except (ValueError, EncodingError, FieldError) as error:
        raise click.ClickException(f"there is no order here that waits for a signature: {error}") from error
    if not _is_about(order, one):
        raise click.ClickException("the order says other things than the campaign: do not sign it")
    return base64.b64encode(seal(orders.write(order), Typ.ORDER, key)).decode()


def _is_about(order: Order, one: Document) -> bool:
    said = (order.campaign, order.revision, order.data.name.lower(), order.per_hour, order.max_in_flight)
    shown = tuple(one[name] for name in ("id", "revision", "data", "per_hour", "max_in_flight"))
    return said == shown and order.count <= one["targets"]
