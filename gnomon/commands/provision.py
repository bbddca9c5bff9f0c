"""``gnomon provision``: the Provisioning Tool in a terminal, from the telephone call to the confirmation.

The session says where it is, and the tool asks what comes next there; so a session that was left, or had to
wait for a meter for weeks, goes on where it stopped. (spec: han, 5.2 and 5.3)
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

from gnomon.commands.login import as_option, opened
from gnomon.tool import Document, Tool
from provisioning.care import SearchBy
from provisioning.states import DeviceState, SessionState

DISCOVERY_S_MAX: Final = 600
PROVISION_S_MAX: Final = 660
"""A little longer than the service waits."""
LABELS_MAX: Final = 16
CAPABLE: Final = frozenset({DeviceState.AUTH_OK, DeviceState.SELECTED, DeviceState.LEFT_OUT})
SETTLED: Final = CAPABLE | {DeviceState.AUTH_FAILED, DeviceState.UNRECOGNIZED}
ACKED_S: Final = 1.0
Step = Callable[["Walk"], bool]
"""Does what comes next; True: go on in the state that it led to."""


@click.command()
@as_option
@click.option("--resume", "session", metavar="SESSION", default="", help="Go on in this session.")
@click.option("--case", default="", help="The case that the call centre gave this call.")
def provision(credentials: Path, session: str, case: str) -> None:
    """Bring a customer's equipment into utility programs, as a representative on the telephone."""
    with opened(credentials) as access:
        Walk(Tool(access, pause)).go(session, case or click.prompt("case"))


class Walk:
    """One call."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.id = ""
        self.customer = ""

    def go(self, session: str, case: str) -> None:
        """Open a session, or go on in one, and walk it as far as it goes now."""
        verification = self._verify(case)
        if session:
            self.id = session
            self.tool.renew_verification(session, verification["id"])
        else:
            account = _choose("account", verification["accounts"], _account)
            self.id = self.tool.open(account, verification["id"], case)["id"]
        click.echo(f"session {self.id}")
        while STEPS[SessionState(self.tool.session(self.id)["state"])](self):
            pass

    def _verify(self, case: str) -> Document:
        by = click.prompt("find the customer by", type=click.Choice([one.value for one in SearchBy]))
        found = self.tool.search(by, click.prompt(by), case)
        customer = _choose("customer", found, _customer)
        method = click.prompt("how did you make sure that it is them", default="questions")
        click.confirm("is it them", abort=True)
        self.customer = customer["customer"]
        return self.tool.verify(self.customer, method, case)

    def discover(self) -> bool:
        """Read labels, open the window, and show what comes in."""
        grants = list[Document]()
        click.echo("labels of the devices: EUI-64, then the code; just Enter ends the list")
        while len(grants) < LABELS_MAX and (eui64 := click.prompt("EUI-64", default="", show_default=False)):
            code = click.prompt("install code")
            grants.append({"eui64": eui64, "proof": "install_code", "value": code})
        self.tool.discover(self.id, grants)
        click.echo("looking for equipment (Ctrl-C: that is all)")
        return self.watch_discovery()

    def watch_discovery(self) -> bool:
        """Show devices as they come, until the window closes or somebody is content."""
        shown: dict[str, str] = {}

        def look(listed: Document) -> bool:
            _show_changes(listed, shown)
            return False

        try:
            self.tool.wait_while_moving(self.id, DISCOVERY_S_MAX, look)
        except KeyboardInterrupt:
            self.tool.stop_discovery(self.id)
            self.tool.wait_while_moving(self.id, DISCOVERY_S_MAX)
        listed = self.tool.devices(self.id)
        click.echo(
            f"{len(listed['items'])} devices, and {listed['others']} that are no equipment of programs"
        )
        return True

    def select(self) -> bool:
        """Ask which devices take part."""
        capable = [one for one in self.tool.devices(self.id)["items"] if one["state"] in CAPABLE]
        if not capable:
            return self.discover() if click.confirm("none of them can take part; look again") else False
        self.tool.select(self.id, [_ask_part(one) for one in capable])
        return True

    def choose(self) -> bool:
        """Ask for programs, and for the customer's consent to each."""
        catalogue, chosen = self.tool.programs(), list[Document]()
        options = self.tool.options(self.id)
        for device in self.tool.devices(self.id)["items"]:
            if device["state"] == DeviceState.SELECTED:
                mine = [one for one in options if one["device"] == device["id"]]
                chosen += _ask_programs(device, mine, catalogue)
        if not chosen:
            click.echo("nothing was chosen: nothing is sent")
            return False
        self.tool.choose(self.id, chosen)
        return True

    def send(self) -> bool:
        """Record the consents and send."""
        catalogue, pairs = self.tool.programs(), list[Document]()
        for device in self.tool.devices(self.id)["items"]:
            for one in device.get("programs", []):
                program = catalogue[one["program"]]
                click.echo(f"  {_label(device)}: {program['name']} (text {program['consent_text_version']})")
                pairs.append(
                    {
                        "device": device["id"],
                        "program": one["program"],
                        "text_version": program["consent_text_version"],
                    }
                )
        click.confirm("has the customer heard these texts, and agrees to all of them", abort=True)
        given_by = click.prompt("who said so (a reference, no name)", default=self.customer)
        relation = click.prompt("who is to the account", default="holder")
        self.tool.consent(self.id, given_by, relation, pairs)
        self.tool.provision(self.id)
        return self.watch_sending()

    def watch_sending(self) -> bool:
        """Show both answers of each device."""
        shown: dict[str, str] = {}

        def look(listed: Document) -> bool:
            _show_changes(listed, shown)
            return False

        self.tool.wait_while_moving(self.id, PROVISION_S_MAX, look)
        _show_changes(self.tool.devices(self.id), shown)
        return True

    def partial(self) -> bool:
        """Ask what to do about devices that did not become ready."""
        what = click.prompt(
            "some are not ready", type=click.Choice(["retry", "accept", "later"]), default="later"
        )
        if what == "retry":
            self.tool.retry(self.id)
            return self.watch_sending()
        if what == "accept":
            self.tool.accept_partial(self.id)
            return True
        return self.leave()

    def acked(self) -> bool:
        """Wait for the records to be durable."""
        pause(ACKED_S)
        return True

    def confirm(self) -> bool:
        """Tell the customer, and say so."""
        for one in self.tool.records(self.id):
            click.echo(f"  customer care: {one['kind']:<28} {one['state']}")
        click.confirm("have you told the customer that everything works", abort=True)
        self.tool.confirm(self.id)
        return True

    def not_recognised(self) -> bool:
        """Tell what would help, and note the answer."""
        session = self.tool.session(self.id)
        remedies = self.tool.remedies(self.id)
        click.echo(f"the equipment was not recognised: {session['cause']}")
        for one in remedies:
            click.echo(f"  {one['id']:<20} {_price(one):>12}  {one['lead_days']} days  {one['why']}")
        if not remedies or click.confirm("look once more"):
            return self.discover()
        answer = click.prompt(
            "the customer's answer",
            type=click.Choice(["accepted", "declined", "undecided"]),
            default="undecided",
        )
        told = [one["id"] for one in remedies]
        chosen = (
            click.prompt("which", type=click.Choice(told), default=told[0]) if answer == "accepted" else ""
        )
        self.tool.tell(self.id, told, answer, chosen)
        return answer == "declined"

    def await_remedy(self) -> bool:
        """Say that nothing can be done now."""
        click.echo("it waits for the remedy to be in place, and goes on by itself when it is")
        return self.leave()

    def leave(self) -> bool:
        """Say how to come back."""
        click.echo(f"go on later: gnomon provision --resume {self.id} --as …")
        return False

    def over(self) -> bool:
        """Say how it ended."""
        click.echo(f"session {self.id} is {self.tool.session(self.id)['state']}")
        return False


STEPS: Final[Mapping[SessionState, Step]] = MappingProxyType(
    {
        SessionState.OPENING: Walk.leave,
        SessionState.OPEN: Walk.discover,
        SessionState.DISCOVERING: Walk.watch_discovery,
        SessionState.DISCOVERED: Walk.select,
        SessionState.SELECTED: Walk.choose,
        SessionState.PROGRAMS_CHOSEN: Walk.send,
        SessionState.PROVISIONING: Walk.watch_sending,
        SessionState.PARTIAL: Walk.partial,
        SessionState.ACKED: Walk.acked,
        SessionState.RECORDED: Walk.confirm,
        SessionState.NOT_RECOGNIZED: Walk.not_recognised,
        SessionState.AWAITING_REMEDY: Walk.await_remedy,
        SessionState.CONFIRMED: Walk.over,
        SessionState.ABORTED: Walk.over,
        SessionState.EXPIRED: Walk.over,
    }
)
"""What the tool does in each state."""


def pause(seconds: float) -> None:
    """Let time pass; an interrupt ends it."""
    threading.Event().wait(seconds)


def _choose(what: str, items: Sequence[Document], shown: Callable[[Document], str]) -> Document:
    """Have one of several chosen; a single one chooses itself."""
    if not items:
        raise click.ClickException(f"no {what} was found: ask for another detail")
    for number, one in enumerate(items, 1):
        click.echo(f"  {number}  {shown(one)}")
    if len(items) == 1:
        return items[0]
    return items[click.prompt(what, type=click.IntRange(1, len(items))) - 1]


def _customer(one: Document) -> str:
    places = "; ".join(f"{account['number']} at {account['address']}" for account in one["accounts"])
    return f"{one['name']}  {places}"


def _account(one: Document) -> str:
    return f"{one['number']}  {one['address']}  {one['tariff']}, {one['status']}"


def _label(device: Document) -> str:
    name = device.get("name") or device.get("model_name") or device.get("model") or device["id"]
    return f"{name} ({device['id']})"


def _price(one: Document) -> str:
    minor = one.get("price_minor")
    return "" if minor is None else f"{minor / 100:.2f} {one['currency']}"


def _show_changes(listed: Document, shown: dict[str, str]) -> None:
    for device in listed["items"]:
        states = [f"{one['program']} {one['state']}" for one in device.get("programs", []) if "state" in one]
        reason = device.get("reason", "")
        line = f"  {_label(device):<44} {device['state']:<12} {reason} {', '.join(states)}".rstrip()
        if shown.get(device["id"]) != line:
            shown[device["id"]] = line
            click.echo(line)


def _ask_part(device: Document) -> Document:
    choice: Document = {"device": device["id"]}
    choice["take_part"] = click.confirm(f"shall {_label(device)} take part", default=True)
    if choice["take_part"]:
        choice["name"] = click.prompt("  what does the customer call it", default="", show_default=False)
        choice["location"] = click.prompt("  in which room is it", default="", show_default=False)
    return choice


def _ask_programs(
    device: Document, options: Sequence[Document], catalogue: Mapping[str, Document]
) -> list[Document]:
    """Have programs chosen for a device; show why the others do not fit."""
    fits = [one["program"] for one in options if one["eligible"]]
    click.echo(f"programs for {_label(device)}:")
    for one in options:
        program = one["program"]
        why = "" if one["eligible"] else f"  not: {', '.join(one['reasons'])}"
        click.echo(f"  {program:<16} {catalogue[program]['name']}{why}")
    if not fits:
        return []
    text = click.prompt("  which (several with commas; empty: none)", default=fits[0])
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    return [{"device": device["id"], "program": one} for one in wanted]
