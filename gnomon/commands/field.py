"""``gnomon field``: firmware on site, where there is no network."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from gnomon.commands.listing import Group
from gnomon.commands.login import as_option, opened
from gnomon.field import Field, FieldServer, load
from gnomon.journal import Journal, JournalError, Line
from infra.clock import MS_PER_S, SystemClock
from ota.bundle import BundleError, Opened
from ota.local_jobs import is_over
from ota.manifest import version_text
from ota.models import Execution, job_id
from ota.states import JobStatus

HELP: Final = """Bring firmware to devices on site: no network is needed, and no key is held.

At the depot fetch the bundle of a campaign whose path is local. On site connect to the devices' own
link and serve it: each device checks by itself that it is meant, that vendor and utility have signed,
and that the time is right. Back at the depot report what the journal says.
"""
RESULTS: Final = {
    JobStatus.SUCCEEDED: "SUCCEEDED",
    JobStatus.FAILED: "FAILED",
    JobStatus.TIMED_OUT: "FAILED",
    JobStatus.REJECTED: "REJECTED",
}
PORT_MAX: Final = 65_535
_bundle: Final = click.argument(
    "bundle", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="BUNDLE"
)
_journal: Final = click.argument(
    "journal", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="JOURNAL"
)


@click.group(cls=Group, help=HELP)
def field() -> None:
    """Begin; the words for people are in ``HELP``."""


@field.command()
@click.argument("campaign")
@as_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. Default: the campaign's job and .bundle, here.",
)
def fetch(campaign: str, credentials: Path, out: Path | None) -> None:
    """Fetch the bundle of CAMPAIGN, which is approved and whose path is local, and check it."""
    target = out or Path(f"{job_id(campaign)}.bundle")
    with opened(credentials) as access:
        access.download(f"/v1/ota/campaigns/{quote(campaign, safe='')}/bundle", target)
    found = _loaded(target)
    click.echo(
        f"fetched    {target}, {len(found.bundle.proofs)} devices, until {_when(found.order.not_after)}"
    )


@field.command()
@_bundle
@click.option("--things", is_flag=True, help="List the devices that the order names.")
def show(bundle: Path, things: bool) -> None:
    """Say what BUNDLE holds, for how many devices it is, and from when until when it may be used.

    It is checked first that its parts belong together.
    """
    found = _loaded(bundle)
    click.echo(f"firmware   {found.manifest.vendor} {found.manifest.model}, {found.manifest.label}")
    click.echo(f"version    {version_text(found.manifest.version)}, counter {found.manifest.counter}")
    click.echo(f"image      {found.manifest.size} bytes, sha256 {found.manifest.sha256}")
    click.echo(f"campaign   {found.order.campaign}, revision {found.order.revision}")
    click.echo(f"data       {found.order.data.name.lower()}")
    click.echo(f"devices    {len(found.bundle.proofs)} of {found.order.count} that the order names")
    click.echo(f"keys       {_keys(found)}")
    click.echo(f"from       {_when(found.order.not_before)}")
    click.echo(f"until      {_when(found.order.not_after)}{_warning(found)}")
    for name in sorted(found.bundle.proofs) if things else ():
        click.echo(name)


@field.command()
@_bundle
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write down what devices say; one that is there is gone on with.",
)
@click.option("--operator", required=True, help="Who is on site: goes into each report.")
@click.option(
    "--listen",
    default="127.0.0.1:8480",
    show_default=True,
    metavar="HOST:PORT",
    help="Address of this computer on the devices' link; port 0 takes a free one.",
)
@click.option("--url", default="", help="How devices reach it, if not by the address above.")
def serve(bundle: Path, journal: Path, operator: str, listen: str, url: str) -> None:
    """Offer BUNDLE to devices on this computer's own link, until Ctrl-C.

    A device fetches its job from /v1/local/job/NAME and tells how it goes at /v1/local/status?thing=NAME.
    """
    host, port = _address(listen)
    found = _loaded(bundle)
    with _said():
        offer = Field(found, Journal(journal), operator, SystemClock(), click.echo)
    try:
        server = FieldServer(offer, host, port, url)
    except OSError as error:
        raise click.ClickException(
            f"{listen}: {error.strerror}; give --listen an address of this computer and a free port"
        ) from error
    click.echo(f"serving    {bundle} at {server.url}, {len(found.bundle.proofs)} devices{_warning(found)}")
    click.echo(f"journal    {journal}; stop with Ctrl-C, the same command goes on with it")
    with server, contextlib.suppress(KeyboardInterrupt):
        # In a thread, so that Ctrl-C does not wait for a device.
        threading.Thread(target=server.serve_forever, name="field", daemon=True).start()
        threading.Event().wait()
    click.echo(f"stopped    tell the service: gnomon field report {journal} --as FILE")


@field.command()
@_journal
def journal(journal: Path) -> None:
    """Say how far each device of JOURNAL is, and whether the service has been told."""
    with _said():
        lines = sorted(Journal(journal).last().values(), key=lambda one: one.execution.thing)
    if not lines:
        click.echo("nothing was done yet")
    for line in lines:
        state = line.execution
        reason = f"  {state.reason}" if state.reason else ""
        told = "told" if line.told else "not told yet" if is_over(state) else "not over"
        click.echo(f"{state.thing}  {state.status}{reason}  {_when(line.at_ms // MS_PER_S)}  {told}")


@field.command()
@_journal
@as_option
def report(journal: Path, credentials: Path) -> None:
    """Tell the service what JOURNAL says was done, as the account that is in FILE.

    What it was told before is not told again; to run it twice does no harm.
    """
    with _said():
        book = Journal(journal)
        waiting = [one for one in book.last().values() if is_over(one.execution) and not one.told]
    if not waiting:
        click.echo("there is nothing to tell")
        return
    with opened(credentials) as access:
        for line in sorted(waiting, key=lambda one: one.execution.thing):
            thing = line.execution.thing
            access.request("PUT", f"/v1/things/{thing}/installed", installed(line))
            book.add(replace(line, told=True))
            click.echo(f"{thing}  {line.execution.status}  told")


def installed(line: Line) -> dict[str, str]:
    """Return what the service is told of one device that is done."""
    state = line.execution
    return {
        "order": line.order,
        "manifest": line.manifest,
        "sha256": line.sha256,
        "started_at": _instant(_started_ms(state)),
        "finished_at": _instant(state.ended_at_ms or state.claimed_at_ms or line.at_ms),
        "result": RESULTS[state.status or JobStatus.FAILED],
        "operator": line.operator,
    }


def _started_ms(state: Execution) -> int:
    return state.started_at_ms or state.queued_at_ms


def _loaded(bundle: Path) -> Opened:
    try:
        return load(bundle)
    except BundleError as error:
        raise click.ClickException(f"{bundle}: {error}") from error


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except JournalError as error:
        raise click.ClickException(str(error)) from error


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise click.BadParameter("write HOST:PORT, for example 192.168.7.1:8480", param_hint="--listen")
    return host, int(port)


def _warning(found: Opened) -> str:
    now_s = SystemClock().now_ms() // MS_PER_S
    if now_s >= found.order.not_after:
        return "  OVER: no device takes it any more; fetch a new bundle"
    return "  NOT YET: devices refuse it until then" if now_s < found.order.not_before else ""


def _keys(found: Opened) -> str:
    if found.keys is None:
        return "no list: devices judge by the one that they hold"
    return f"list {found.keys.number}, until {_when(found.keys.expires)}"


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms // MS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
