"""Scenarios 3.2 and 3.3 step by step, as the use case has them. Each step is checked before the next."""

from types import MappingProxyType
from typing import Final

from fleet.provisioning import BRIDGE, BROADBAND, METER, NO_METER
from gnomon.tool import Document, Tool
from provisioning.states import DeviceState, SessionState
from tests.scenarios.stage import Stage, Ways

DISCOVERY_S_MAX: Final = 30
SENDING_S_MAX: Final = 60
REMEDY_S_MAX: Final = 60
CARE_S_MAX: Final = 20
NAMES: Final = MappingProxyType(
    {"thermostat": ("Hall", "hall"), "heater": ("Water heater", "cellar"), "display": ("Kitchen", "kitchen")}
)
CASE: Final = "c-1001"


def recognised(stage: Stage) -> None:
    """Scenario 3.2: the equipment is recognised."""
    with stage.tool() as tool:
        id = call(stage, tool)
        discovered(stage, tool, id)
        provisioned(stage, tool, id)


def not_recognised(stage: Stage) -> None:
    """Scenario 3.3: it is not; a new meter or a bridge comes first, and the session goes on days later."""
    with stage.tool() as tool:
        id = call(stage, tool)
        tool.discover(id, stage.grants())
        session = tool.wait_while_moving(id, DISCOVERY_S_MAX)
        stage.must(f"6.1: {session['state']}", held=session["state"] == SessionState.NOT_RECOGNIZED)
        stage.said("3.3/6.1", "tool", f"does not recognise the equipment: {session['cause']}")
        remedies = tool.remedies(id)
        kind = "bridge" if stage.number == BRIDGE else "new_meter"
        chosen = next((one for one in remedies if one["kind"] == kind), None)
        assert chosen is not None, f"6.2: {kind} is not among {[one['kind'] for one in remedies]}"
        prices = ", ".join(
            f"{one['id']} {one['price_minor'] / 100:.2f} {one['currency']}" for one in remedies
        )
        session = tool.tell(id, [one["id"] for one in remedies], "accepted", chosen["id"])
        accepted = {SessionState.AWAITING_REMEDY, SessionState.OPEN}  # the crew may be quicker
        stage.must(f"6.2: {session['state']}", held=session["state"] in accepted)
        stage.said("3.3/6.2", "representative", f"tells {prices}; the customer takes {chosen['id']}")
        awaited = _await(tool, id, SessionState.OPEN, REMEDY_S_MAX)
        stage.must(f"6.3: {awaited['state']}", held=awaited["state"] == SessionState.OPEN)
        who = "customer" if kind == "bridge" else "utility"
        stage.said("3.3/6.3", who, "has installed it; the session goes on by itself where it stopped")
        discovered(stage, tool, id)
        provisioned(stage, tool, id)


def call(stage: Stage, tool: Tool) -> str:
    """Steps 1 to 6."""
    stage.said("3.2/1-3", "customer", f"has bought {len(stage.scene.eui64s)} devices and calls")
    found = tool.search("account", stage.account_number(), CASE)
    stage.must(f"4: {len(found)} customers were found", held=len(found) == 1)
    stage.said("3.2/4", "representative", f"finds {found[0]['name']} in the customer care system")
    verification = tool.verify(found[0]["customer"], "questions", CASE)
    stage.said("3.2/5", "representative", f"records that it is them: {verification['id']}")
    account = next(one for one in verification["accounts"] if one["premises"] == stage.premises)
    session = tool.open(account, verification["id"], CASE)
    stage.must(f"6: {session['state']}", held=session["state"] == SessionState.OPEN)
    stage.said("3.2/6", "representative", f"opens the tool for {stage.premises}: {session['id']}")
    id: str = session["id"]
    return id


def discovered(stage: Stage, tool: Tool, id: str) -> None:
    """Step 7: four are equipment of programs, one of them with a wrong label; the door sensor is a number."""
    tool.discover(id, stage.grants())
    listed = _listed(tool, id)
    for device in listed["items"]:
        stage.said("3.2/7", "gateway", f"sees {_label(device)}: {device['state']} {device.get('reason', '')}")
    states = [device["state"] for device in listed["items"]]
    stage.must(f"7: {states}", held=states.count(DeviceState.AUTH_OK) == len(NAMES))
    stage.must(f"7: {states}", held=states.count(DeviceState.AUTH_FAILED) == 1)
    stage.must(f"7: {listed['others']} others", held=listed["others"] == 1)
    door = stage.scene.eui64s["door"]
    stage.must("7: staff see the door sensor", held=door not in str(listed))
    stage.said("3.2/7", "tool", "shows the rest as a number only: 1")
    tool.stop_discovery(id)
    tool.wait_while_moving(id, DISCOVERY_S_MAX)


def provisioned(stage: Stage, tool: Tool, id: str) -> None:
    """Steps 8 to 15."""
    choices = [
        {"device": stage.scene.eui64s[what], "take_part": True, "name": name, "location": room}
        for what, (name, room) in NAMES.items()
    ]
    tool.select(id, choices)
    stage.said("3.2/8-10", "customer", f"names {', '.join(name for name, _ in NAMES.values())}; it is noted")
    chosen = _choice(stage, tool, id)
    tool.choose(id, chosen)
    stage.said("3.2/11", "customer", "chooses " + ", ".join(f"{one['program']}" for one in chosen))
    catalogue = tool.programs()
    pairs = [
        {
            "device": one["device"],
            "program": one["program"],
            "text_version": catalogue[one["program"]]["consent_text_version"],
        }
        for one in chosen
    ]
    tool.consent(id, "account-holder", "holder", pairs)
    stage.said("3.2/9", "customer", f"agrees to {len(pairs)} texts, on the telephone")
    tool.provision(id)
    stage.said("3.2/12", "tool", "sends the programs")
    session = tool.wait_while_moving(id, SENDING_S_MAX)
    session = _await(tool, id, SessionState.RECORDED, SENDING_S_MAX)
    for device in tool.devices(id)["items"]:
        if device["state"] == DeviceState.READY:
            stage.said("3.2/13", "device", f"{_label(device)} is activated and ready")
    stage.must(f"13: {session['state']}", held=session["state"] == SessionState.RECORDED)
    _empty_delta(stage, tool, id, len(chosen))
    records = _delivered(tool, id)
    for record in records:
        stage.said(
            "3.2/14", "customer care", f"{record['kind']}: {record['state']} {record.get('receipt', '')}"
        )
    stage.must("14: not all was delivered", held=all(one["state"] == "delivered" for one in records))
    session = tool.confirm(id)
    stage.must(f"15: {session['state']}", held=session["state"] == SessionState.CONFIRMED)
    stage.said("3.2/15", "representative", "confirms; the customer gets a notice")


def _choice(stage: Stage, tool: Tool, id: str) -> list[Document]:
    """Return one program for each device: the first on offer that fits."""
    fits: dict[str, str] = {}
    for one in tool.options(id):
        if one["eligible"] and one["device"] in {stage.scene.eui64s[what] for what in NAMES}:
            fits.setdefault(one["device"], one["program"])
    stage.must(f"11: {fits}", held=len(fits) == len(NAMES))
    return [{"device": device, "program": program} for device, program in fits.items()]


def _listed(tool: Tool, id: str) -> Document:
    """Wait until each device has shown whether its proof is good."""

    def settled(listed: Document) -> bool:
        states = [device["state"] for device in listed["items"]]
        proved = sum(state in {DeviceState.AUTH_OK, DeviceState.AUTH_FAILED} for state in states)
        return proved > len(NAMES) and listed["others"] > 0

    tool.wait_while_moving(id, DISCOVERY_S_MAX, settled)
    return tool.devices(id)


def _empty_delta(stage: Stage, tool: Tool, id: str, pairs: int) -> None:
    """Check that no device has anything left to do for a program."""
    for device in tool.devices(id)["items"]:
        if device["state"] == DeviceState.READY:
            shadow = tool.shadow(device["thing"], "program")
            delta = shadow.get("state", {}).get("delta", {})
            stage.must(f"post-condition: {device['id']} lacks {delta}", held=not delta)
    stage.said("3.2 post", "tool", f"the program delta of every device is empty; {pairs} enrolments")


def _delivered(tool: Tool, id: str) -> list[Document]:
    records = tool.records(id)
    for _ in range(CARE_S_MAX * 2):
        if records and all(one["state"] == "delivered" for one in records):
            break
        tool.pause()
        records = tool.records(id)
    return records


def _await(tool: Tool, id: str, state: SessionState, seconds: float) -> Document:
    session = tool.session(id)
    for _ in range(int(seconds * 2)):
        if session["state"] == state:
            break
        tool.pause()
        session = tool.session(id)
    return session


def _label(device: Document) -> str:
    name = device.get("name") or device.get("model_name") or device.get("model") or ""
    return f"{name} {device['id']}".strip()


RECOGNISED: Final[Ways] = (
    ("over a meter", METER, recognised),
    ("over the customer's broadband gateway", BROADBAND, recognised),
)
NOT_RECOGNISED: Final[Ways] = (
    ("by a new meter", NO_METER, not_recognised),
    ("by a bridge", BRIDGE, not_recognised),
)
