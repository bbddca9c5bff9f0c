"""Scenario 3.1: equipment gets new firmware, the customers' and the utility's own. Each step is checked.

The use case refers to steps of scenario 1 that it does not give, so these are ours: release, find who needs
it, approve, roll out in waves, activate, report; and the equipment works meanwhile.
"""

import base64
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner

from fleet.flash_file import pack, unpack
from fleet.keyring import read_roots
from fleet.provisioning import METER
from gnomon.access import Access
from gnomon.cli import main
from gnomon.commands.releases import RELEASES
from gnomon.uploads import send
from ota.states import CampaignState
from security.policy import Action, Role
from tests.on_site import Bench, field_tool
from tests.scenarios.stage import Stage, Ways
from tests.system.mqtt import until

Document = dict[str, Any]

CAMPAIGNS: Final = "/v1/ota/campaigns"
CANARY: Final = 5
SOAK_S: Final = 2
VERSION, NEXT_VERSION = "2.0.0.0", "2.1.0.0"
START_S_MAX: Final = 60
ROLLOUT_S_MAX: Final = 240
WISH_S_MAX: Final = 30
LOOK_S: Final = 0.5
OVER: Final = frozenset({CampaignState.COMPLETED, CampaignState.PAUSED, CampaignState.ABORTED})
MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
WISHES: Final = (19.0, 22.5)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What is upgraded; ``thing`` is one of it in the demo customer's home, and is looked at closely."""

    model: str
    maker: str
    thing: str
    asks_customers: bool


THERMOSTATS: Final = Equipment("norland-t1-wifi", "norland", "th-0001-upstairs", asks_customers=True)
METERS: Final = Equipment("acme-amg-4", "acme", "gw-0001-meter", asks_customers=False)


def customers(stage: Stage) -> None:
    """Upgrade the customers' thermostats, while one of them is used, and this one once more on site."""
    remotely(stage, THERMOSTATS)
    on_site(stage, THERMOSTATS)


def utility(stage: Stage) -> None:
    """Upgrade the utility's meters, and one of them once more on site."""
    remotely(stage, METERS)
    on_site(stage, METERS)


def remotely(stage: Stage, what: Equipment) -> None:
    """Bring the next version to all that need it."""
    one, other = _operators(stage)
    release = _released(stage, one, other, _signed(stage, what))
    id = _found(stage, other, release, what)
    before = _settings(one, what)
    _approved(stage, other, one, id)
    _rolled_out(stage, one, id, what)
    _checked(stage, one, what, VERSION)
    after = _settings(one, what)
    kept = {name: after.get(name) for name in before}
    stage.must(f"settings were {before} and are {after}", held=kept == before)
    new = sorted(after.keys() - before.keys())
    stage.said("3.1 post", "device", f"{what.thing} has its settings as before; new ones: {', '.join(new)}")


def on_site(stage: Stage, what: Equipment) -> None:
    """Bring the version after it to one device, by a crew, where there is no network."""
    one, other = _operators(stage)
    release = _released(stage, one, other, _signed(stage, what, of=_one_more(stage, what)))
    body = {"release": release, "path": "local", "selector": {"things": [what.thing]}, "soak_s": 0}
    id: str = other.request("POST", CAMPAIGNS, body, key=release, confirms=Action.CAMPAIGN_CREATE)["id"]
    _approved(stage, other, one, id)
    bundle = stage.gnomon.directory / f"{what.model}.bundle"
    one.download(f"{CAMPAIGNS}/{id}/bundle", bundle)
    stage.said("3.1/6", "crew", f"fetches {bundle.name}, {bundle.stat().st_size} bytes, and drives there")
    stage.gnomon.stop()
    demo = stage.gnomon.var / "demo"
    flashes, roots = demo / "flashes", read_roots(demo / "certificates" / "ca.crt")
    kept = unpack(flashes.read_bytes())
    with field_tool(bundle, stage.gnomon.directory / f"{what.model}.jsonl") as tool:
        device = Bench(what.thing, kept[what.thing], roots, tool)
        device.install()
        stage.said(
            "3.1/6", "crew", f"gives it to {what.thing}, which checks and installs it without a network"
        )
        flashes.write_bytes(pack(kept))
        stage.gnomon.start()
        ended = _ended(one, id)
        device.tells()
    stage.must(f"campaign: {ended}", held=ended["state"] == CampaignState.COMPLETED)
    (target,) = one.request("GET", f"{CAMPAIGNS}/{id}/executions")["items"]
    stage.must(f"target: {target}", held=(target["state"], target["how"]) == ("SUCCEEDED", "on_site"))
    stage.said("3.1/7", "service", f"hears of it from the device itself: {target['state']}, {target['how']}")
    _checked(stage, one, what, NEXT_VERSION)


def _operators(stage: Stage) -> tuple[Access, Access]:
    accounts = stage.gnomon.accounts
    return accounts.access(Role.OPERATOR, 1), accounts.access(Role.OPERATOR, 2)


def _one_more(stage: Stage, what: Equipment) -> Path:
    """Make the image that follows the one that lies there, as its maker would."""
    first = stage.gnomon.var / "demo" / "firmware" / f"{what.model}.bin"
    after = first.with_name(f"{what.model}-next.bin")
    after.write_bytes(first.read_bytes()[::-1])
    about = first.with_suffix(".toml").read_text()
    about = about.replace(VERSION, NEXT_VERSION).replace("counter = 2", "counter = 3")
    after.with_suffix(".toml").write_text(about)
    return after


def _signed(stage: Stage, what: Equipment, of: Path | None = None) -> Path:
    place = stage.gnomon.var / "demo" / "firmware"
    file = of or place / f"{what.model}.bin"
    words = ["image", "sign", str(file), "--key", str(place / f"{what.maker}.key")]
    done = CliRunner().invoke(main, words)
    stage.must(f"signing: {done.output}", held=done.exit_code == 0)
    stage.said("3.1/1", "maker", f"signs {file.name}, {file.stat().st_size} bytes")
    return file


def _released(stage: Stage, one: Access, other: Access, file: Path) -> str:
    send(one, file, lambda _bytes: None)
    body = {
        "image": hashlib.sha256(file.read_bytes()).hexdigest(),
        "manifest": base64.b64encode(file.with_suffix(".cose").read_bytes()).decode(),
    }
    made = one.request("POST", RELEASES, body, key=file.stem)
    stage.said("3.1/2", "operator", f"brings it: release {made['id']} is {made['state']}")
    let_out = other.request("POST", f"{RELEASES}/{made['id']}/release", confirms=Action.IMAGE_RELEASE)
    stage.must(f"release: {let_out['state']}", held=let_out["state"] == "released")
    stage.said("3.1/3", "another operator", "lets it out, all of it checked once more")
    id: str = made["id"]
    return id


def _found(stage: Stage, author: Access, release: str, what: Equipment) -> str:
    """Make a campaign, and see who needs it once a city that has just started has said what it runs."""
    body = {"release": release, "waves": [{"devices": CANARY}, {"percent": 100}], "soak_s": SOAK_S}
    id: str = author.request("POST", CAMPAIGNS, body, key=what.model, confirms=Action.CAMPAIGN_CREATE)["id"]

    def dry_run() -> Document:
        found: Document = author.request("POST", f"{CAMPAIGNS}/{id}/dry-run", confirms=Action.CAMPAIGN_CREATE)
        return found

    until(lambda: "UNKNOWN_FIRMWARE" not in dry_run()["excluded"], "all say what they run", START_S_MAX)
    found = dry_run()
    stage.must(f"who needs it: {found}", held=found["included"] > CANARY)
    others = "".join(f", {count} are {reason}" for reason, count in sorted(found["excluded"].items()))
    stage.said("3.1/4", "operator", f"finds {found['included']} that need it{others}")
    stage.must(f"who was asked: {found}", held=("NOT_ENROLLED" in found["excluded"]) == what.asks_customers)
    return id


def _approved(stage: Stage, author: Access, other: Access, id: str) -> None:
    frozen = author.request("POST", f"{CAMPAIGNS}/{id}/submit", {}, confirms=Action.CAMPAIGN_CREATE)
    stage.must(f"submitted: {frozen['state']}", held=frozen["state"] == CampaignState.FROZEN)
    other.request("POST", f"{CAMPAIGNS}/{id}/approve", {}, confirms=Action.CAMPAIGN_APPROVE)
    stage.said("3.1/5", "another operator", f"approves it for {frozen['targets']}")


def _rolled_out(stage: Stage, access: Access, id: str, what: Equipment) -> None:
    end, wave, wishes = time.monotonic() + ROLLOUT_S_MAX, -1, 0
    one = access.request("GET", f"{CAMPAIGNS}/{id}")
    while one["state"] not in OVER and time.monotonic() < end:
        if what is THERMOSTATS:
            wishes += _used(stage, WISHES[wishes % len(WISHES)])
        if one["state"] == CampaignState.RUNNING and one["wave"] != wave:
            wave = one["wave"]
            stage.said("3.1/6", "service", f"opens wave {wave}; {_good(one)} of {one['targets']} are done")
        time.sleep(LOOK_S)
        one = access.request("GET", f"{CAMPAIGNS}/{id}")
    stage.must(f"campaign: {one}", held=one["state"] == CampaignState.COMPLETED)
    stage.must(f"campaign: {one['counts']}", held=_good(one) == one["targets"])
    clocks = one["clocks"]
    stage.must(f"clocks: {clocks}", held=clocks["max_s"] <= clocks["limit_s"])
    stage.said(
        "3.1/7",
        "service",
        f"all {one['targets']} have it, each within {clocks['max_s']:.1f} s from its start",
    )
    if wishes:
        stage.said("3.1/7", "customer", f"turned {what.thing} {wishes} times meanwhile; it obeyed each time")


def _ended(access: Access, id: str) -> Document:
    """Return a campaign as soon as it is over."""
    until(lambda: access.request("GET", f"{CAMPAIGNS}/{id}")["state"] in OVER, "it is over", ROLLOUT_S_MAX)
    found: Document = access.request("GET", f"{CAMPAIGNS}/{id}")
    return found


def _checked(stage: Stage, access: Access, what: Equipment, version: str) -> None:
    told = access.request("GET", f"/v1/things/{what.thing}/firmware")
    reported, job = told["reported"], told["executions"][0]
    is_new = (reported["version"], reported["healthy"], job["state"]) == (version, True, "SUCCEEDED")
    stage.must(f"{what.thing}: {told}", held=is_new)
    stage.said(
        "3.1/8", "device", f"{what.thing} reports {reported['version']}, healthy; its job is in its history"
    )


def _used(stage: Stage, heat_c: float) -> int:
    """Have the customer turn a thermostat, whatever it is doing; return 1 once it has obeyed."""
    answer = _as_customer(stage, "PATCH", {"desired": {"heat_c": heat_c}})
    stage.must(f"a wish: {answer}", held="state" in answer)
    until(lambda: "delta" not in _as_customer(stage, "GET")["state"], "the thermostat obeys", WISH_S_MAX)
    return 1


def _as_customer(stage: Stage, method: str, body: Document | None = None) -> Document:
    answer: Document = stage.gnomon.http.request(
        method,
        f"/v1/things/{THERMOSTATS.thing}/shadows/@classic",
        json=body,
        headers=MERGE_PATCH if body else None,
        auth=stage.gnomon.accounts.auth(Role.CUSTOMER),
    ).json()
    return answer


def _settings(access: Access, what: Equipment) -> Document:
    """Return how a device says that it is configured, as soon as it has said so."""
    things = f"/v1/things/{what.thing}/shadows"
    until(lambda: "config" in access.request("GET", things)["items"], "it says how it is set", START_S_MAX)
    found: Document = access.request("GET", f"{things}/config")["state"]["reported"]
    return found


def _good(one: Document) -> int:
    count: int = one["counts"].get("SUCCEEDED", 0)
    return count


WAYS: Final[Ways] = (
    ("customers' equipment, remotely and on site", METER, customers),
    ("the utility's own, remotely and on site", METER, utility),
)
