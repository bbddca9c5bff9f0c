"""What was seen in a home and not chosen stays the customer's own business (the door-sensor test).

The home has a door sensor, which is no equipment of any program; a display that nobody chooses, although it
has proved itself; and a thermostat with a wrong label. The scenario goes on to its end around them.
"""

import asyncio
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fleet import provisioning as scenes
from infra.documents import sqlite_journal
from provisioning.care_embedded import EmbeddedCare
from provisioning.states import DeviceState
from security.policy import Principal, Role
from shadow.document import ShadowId
from shadow.records import HISTORY_HAN
from tests.covers import covers
from tests.system.accounts import Accounts
from tests.telephone import Call, Served, serving

pytestmark = pytest.mark.integration

SCENE = scenes.recognised(1)
PREMISES = SCENE.home.premises
(GATEWAY,) = (gateway.name for gateway in SCENE.home.gateways)
DOOR, DISPLAY, UPSTAIRS = (SCENE.eui64s[name] for name in ("door", "display", "upstairs"))
CHOSEN = SCENE.eui64s["thermostat"]
NOBODY = "00124B00FFFFFFFF"
"""Never seen anywhere: whoever asks for the sensor by its number is told what they are told of this."""
STAFF = (Role.REP, Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR, Role.CCS)
ENDLESS = ("/events", "/stream", "/live", "/notices")
"""What is followed and not read."""
OWN = ShadowId(GATEWAY, "han").key
"""Where the customer sees it."""


@covers("A3", "S1.4e")
async def test_what_was_seen_and_not_chosen_hears_nothing_and_no_staff_sees_anything_of_it(tmp_path):
    with capture_logs() as logged:
        async with serving(tmp_path, SCENE, people=True) as served:
            call, accounts = served.call, Accounts(tmp_path)
            call.by = await representative(served)
            await call.open()
            await call.discover("thermostat", "display", "upstairs")
            session = await call.until(everything_is_seen)
            assert session.others == 1, "staff hear how many others there are"
            await asyncio.to_thread(while_the_window_is_open, served, accounts)
            await call.stop()
            await call.select(["thermostat"])
            await call.choose({"thermostat": "tou-res"})
            await call.provision()
            await call.recorded()
            await call.delivered()
            await asyncio.to_thread(staff_see_nothing, served, accounts)
            for eui64 in (DOOR, DISPLAY, UPSTAIRS):
                await it_has_nothing(served, eui64)
            accounts.close()
    assert DOOR not in str(logged)
    assert not [place for place, text in kept(tmp_path) if DOOR in text]
    places = {place for place, text in kept(tmp_path) if CHOSEN in text}
    assert len(places) > 5, "the search finds what is there"


@covers("A3", "S1.4e")
async def test_who_asks_for_it_by_its_number_is_told_what_is_told_of_one_that_never_was(tmp_path):
    async with serving(tmp_path, SCENE, people=True) as served:
        call, accounts = served.call, Accounts(tmp_path)
        call.by = await representative(served)
        await call.open()
        await call.discover("thermostat", "display", "upstairs")
        await call.until(everything_is_seen)
        await asyncio.to_thread(nobody_can_tell, served, accounts)
        accounts.close()


def nobody_can_tell(served: Served, accounts: Accounts) -> None:
    """Ask for the sensor, and for a device that is nowhere: the answers differ in the number alone."""
    for role in (Role.REP, Role.INSTALLER, Role.OPERATOR):
        with client(served, accounts, role) as http:
            asked = [path for path in paths(http, served.call, DOOR) if DOOR in path]
            assert len(asked) > 5
            for path in asked:
                answer, unknown = http.get(path), http.get(path.replace(DOOR, NOBODY))
                assert answer.status_code == unknown.status_code
                assert without_id(answer).replace(DOOR, NOBODY) == without_id(unknown), f"{role}: {path}"


async def representative(served: Served) -> Principal:
    """Return who the demo's representative is, so that the call is theirs over HTTP too."""
    known = await served.system.services.people.accounts.at("#demo-rep")
    assert known is not None
    return Principal(known.id, Role.REP)


def everything_is_seen(session: Any) -> bool:
    states = {eui64: device.state for eui64, device in session.devices.items()}
    proved = states.get(CHOSEN) is DeviceState.AUTH_OK and states.get(DISPLAY) is DeviceState.AUTH_OK
    return proved and states.get(UPSTAIRS) is DeviceState.AUTH_FAILED and session.others == 1


def while_the_window_is_open(served: Served, accounts: Accounts) -> None:
    """The customer sees in their own gateway's shadow what staff do not."""
    with client(served, accounts, Role.CUSTOMER) as customer:
        seen = customer.get(f"/v1/things/{GATEWAY}/shadows/han").json()["state"]["reported"]["seen"]
        assert seen[DOOR]["maker"] == "Nestor"
    staff_see_nothing(served, accounts, (Role.REP, Role.OPERATOR))


def staff_see_nothing(served: Served, accounts: Accounts, roles: Iterable[Role] = STAFF) -> None:
    """Read whatever these roles may read, by each path that the service has."""
    told = 0
    with client(served, accounts, Role.REP) as http:
        all_paths = list(paths(http, served.call, CHOSEN))
    for role in roles:
        with client(served, accounts, role) as http:
            for path in all_paths:
                answer = http.get(path)
                assert DOOR not in answer.text, f"{role}: {path}"
                told += answer.is_success and CHOSEN in answer.text
    assert told, "somebody sees the one that was chosen"


def without_id(answer: httpx.Response) -> str:
    return re.sub(r'"(requestId|timestamp)":("[^"]*"|\d+),?', "", answer.text)


def client(served: Served, accounts: Accounts, role: Role) -> httpx.Client:
    return httpx.Client(base_url=served.system.api_url, auth=accounts.auth(role), timeout=10)


def paths(http: httpx.Client, call: Call, device: str) -> Iterator[str]:
    """Yield every path that can be read, for this home and one device in it."""
    known = {
        "session": [call.id],
        "premises": [PREMISES],
        "gateway": [GATEWAY],
        "thing": [GATEWAY, device],
        "device": [device],
        "shadow": ["han", "program"],
        "account": [call.customer.accounts[0].id],
        "enrolment": [f"enr-{device}-tou-res"],
    }
    document = http.get("/docs/openapi.json").json()
    for path, operations in document["paths"].items():
        if "get" not in operations or not path.startswith("/v1/") or path.endswith(ENDLESS):
            continue
        if "{" not in path:
            yield f"{path}?premises={PREMISES}"
        filled = [path]
        for name in re.findall(r"{(\w+)}", path):
            filled = [one.replace(f"{{{name}}}", value) for one in filled for value in known.get(name, ["x"])]
        yield from filled


async def it_has_nothing(served: Served, eui64: str) -> None:
    """Check that nothing was made for a device, and nothing said to it."""
    services = served.system.services
    assert await services.registry.standings([eui64]) == {}
    assert await services.programs.enrolments.of_device(eui64) == ()
    assert eui64 not in served.simulation.devices
    assert await services.shadows.shadows_of(eui64) == []
    assert isinstance(services.care, EmbeddedCare)
    records = await services.care.records(PREMISES, limit=100)
    assert not [record for record in records if eui64.encode() in record.body]


def kept(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield all that is on the disk, but for the gateway's own `han` shadow and its history."""
    database = directory / "gnomon.db"
    for file in directory.rglob("*"):
        if file.is_file() and not file.name.startswith(database.name):
            yield file.name, file.read_bytes().decode("latin-1")
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        for table in sorted({*tables} - {"journal", f"l_{HISTORY_HAN}"}):
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - its own names
                if OWN not in row:
                    yield table, " ".join(map(readable, row))
        for (record,) in connection.execute("SELECT record FROM journal"):
            yield from in_journal(record)


def in_journal(record: bytes) -> Iterator[tuple[str, str]]:
    """Yield what one commit wrote that is not in the tables yet."""
    writes, entries = sqlite_journal._decode(record)
    for collection, id, _, body, *_, of_document, _ in writes:
        if id != OWN:
            yield collection, f"{id} {readable(body)}"
        entries += of_document
    for log, *_, body in entries:
        if log != HISTORY_HAN:
            yield log, readable(body)


def readable(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
