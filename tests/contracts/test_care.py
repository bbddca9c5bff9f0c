"""What the port of the customer care system promises, of every adapter: ours on each store, and HTTP."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from infra.documents.opening import open_store
from infra.outbox import LANES, LOG, Item, ItemState, Outbox, OutboxItem
from infra.settings import CareSettings
from infra.telemetry import Metrics
from provisioning import care_demo
from provisioning.care import (
    BadSearchError,
    CareCustomer,
    CareRefusedError,
    CareUnavailableError,
    CustomerCare,
    SearchBy,
)
from provisioning.care_embedded import COLLECTIONS, RECORDS, EmbeddedCare
from provisioning.care_http import connect
from tests.care_server import RENAMED, TOKEN, CareServer, serving
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import EVERYTHING, FaultyStore

CUSTOMERS = care_demo.customers()
ADA = CUSTOMERS[0]
BOTH = next(one for one in CUSTOMERS if len(one.accounts) == 2)
KINDS = ("memory", "sqlite", "sqlite-folding", "http", "http with other words")


@dataclass
class Rig:
    """A system with the demo's customers, and ways to look behind it."""

    care: CustomerCare
    down: Callable[[bool], object]
    delivered: Callable[[str], Awaitable[list[int]]]
    clock: FakeClock = field(default_factory=FakeClock)


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> AsyncIterator[Rig]:
    if request.param.startswith("http"):
        async for made in _http(tmp_path, renamed=request.param != "http"):
            yield made
        return
    if request.param == "sqlite-folding":
        monkeypatch.setattr("infra.documents.sqlite_writer.OVERLAY_BYTES_MAX", 1)
    url = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'gnomon.db'}"
    store = FaultyStore(await open_store(url, COLLECTIONS, [RECORDS], testing=True))
    care = EmbeddedCare(store, FakeClock())
    await care.put(CUSTOMERS)

    def down(is_down: bool) -> None:
        store.refuses = EVERYTHING if is_down else ()

    async def delivered(premises: str) -> list[int]:
        return [one.seq for one in await care.records(premises, limit=1_000)]

    yield Rig(care, down, delivered)
    await care.close()
    await store.inner.close()


async def _http(tmp_path: Path, *, renamed: bool) -> AsyncIterator[Rig]:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    with serving(CareServer(CUSTOMERS, renamed=renamed)) as server:
        settings = CareSettings(
            adapter="http", url=server.url, token_file=str(token), fields=RENAMED if renamed else ()
        )
        care = connect(settings, FakeClock())

        def down(is_down: bool) -> None:
            server.status = 503 if is_down else 0

        async def delivered(premises: str) -> list[int]:
            return [seq for lane, seq in server.order if lane == premises]

        yield Rig(care, down, delivered)
        await care.close()


def item(seq: int, body: bytes = b'{"device":"th-1"}', premises: str = "pr-0001") -> OutboxItem:
    return OutboxItem(
        f"key-{premises}-{seq}", premises, seq, "han.device.registered", body, NOW_MS, ItemState.SENDING
    )


async def refs(rig: Rig, by: SearchBy, value: str, limit: int = 5) -> list[str]:
    return [one.ref for one in await rig.care.search(by, value, limit)]


@covers("A14a", "3.2/5")
@pytest.mark.parametrize(
    ("by", "value"),
    [
        (SearchBy.ACCOUNT, ADA.accounts[0].number),
        (SearchBy.ACCOUNT, ADA.accounts[0].number.replace("-", "  ")),
        (SearchBy.ADDRESS, ADA.accounts[0].address.upper()),
        (SearchBy.PHONE, ADA.phone),
        (SearchBy.PHONE, "(202) 555-0101"),
    ],
)
async def test_a_customer_is_found_by_what_they_can_say_on_the_telephone(rig, by, value):
    assert await rig.care.search(by, value, 5) == (ADA,)


@pytest.mark.parametrize(
    ("by", "value"),
    [
        (SearchBy.ACCOUNT, ADA.accounts[0].number[:-1]),
        (SearchBy.ADDRESS, "Gnomon Way"),
        (SearchBy.PHONE, "+1 202 555 0199"),
    ],
)
async def test_a_part_of_a_number_or_an_unknown_address_finds_nobody(rig, by, value):
    assert await refs(rig, by, value) == []


async def test_the_beginning_of_an_address_is_enough_and_the_number_of_answers_is_bounded(rig):
    assert await refs(rig, SearchBy.ADDRESS, "7 gnom") == ["cust-0007"]
    assert await refs(rig, SearchBy.ADDRESS, "1 GNÓMON") == ["cust-0001"]


async def test_who_shares_a_telephone_is_told_apart_by_the_caller(rig):
    assert await refs(rig, SearchBy.PHONE, CUSTOMERS[57].phone) == ["cust-0058", "cust-0059"]
    assert await refs(rig, SearchBy.PHONE, CUSTOMERS[57].phone, limit=1) == ["cust-0058"]


async def test_a_customer_with_two_accounts_is_one_answer(rig):
    for account in BOTH.accounts:
        assert await rig.care.search(SearchBy.ACCOUNT, account.number, 5) == (BOTH,)


async def test_what_is_too_short_to_be_searched_for_is_refused_before_anybody_is_asked(rig):
    rig.down(True)
    for by in SearchBy:
        with pytest.raises(BadSearchError):
            await rig.care.search(by, "12", 5)


async def test_a_customer_is_known_by_the_reference_and_a_strange_one_is_nobody(rig):
    assert await rig.care.customer(ADA.ref) == ADA
    assert await rig.care.customer("cust-0060") == CUSTOMERS[-1]
    for nobody in ("cust-9999", "no/such?one#here", "ünknown"):
        assert await rig.care.customer(nobody) is None


@covers("A14a", "3.2/14")
async def test_a_record_that_comes_again_is_kept_once(rig):
    first = await rig.care.deliver(item(1))
    again = await rig.care.deliver(item(1))
    await rig.care.deliver(item(2))
    assert first.reference == "pr-0001/1"
    assert again.reference in {first.reference, ""}
    assert await rig.delivered("pr-0001") == [1, 2]
    assert await rig.delivered("pr-0002") == []


async def test_another_record_under_the_same_number_is_refused_and_changes_nothing(rig):
    await rig.care.deliver(item(1))
    with pytest.raises(CareRefusedError) as refused:
        await rig.care.deliver(item(1, b'{"device":"another"}'))
    assert refused.value.status == 409
    assert await rig.delivered("pr-0001") == [1]


async def test_a_system_that_is_down_says_so_and_nothing_is_taken_for_an_answer(rig):
    rig.down(True)
    for asked in (
        rig.care.search(SearchBy.PHONE, ADA.phone, 5),
        rig.care.customer(ADA.ref),
        rig.care.deliver(item(1)),
    ):
        with pytest.raises(CareUnavailableError):
            await asked
    rig.down(False)
    assert await rig.care.customer(ADA.ref) == ADA
    assert await rig.delivered("pr-0001") == []


@covers("A14a", "3.2/14", "A14")
async def test_after_an_hour_of_outage_each_record_is_delivered_once_and_in_order(rig):
    store = await open_store("memory:", [LANES], [LOG], testing=True)
    outbox = Outbox(store, rig.clock, random.Random(1), Metrics())
    rig.down(True)
    homes = [f"pr-{number:04d}" for number in range(1, 21)]
    for minute in range(61):
        new = [Item(f"{home}/{minute}", home, "han.enrolment.changed", b"{}", NOW_MS) for home in homes]
        await outbox.put(new if minute % 20 == 0 else [])
        await outbox.deliver_due(rig.care.deliver)
        rig.clock.advance(60)
    rig.down(False)
    for _ in range(15):
        rig.clock.advance(60)
        await outbox.deliver_due(rig.care.deliver)
    for home in homes:
        assert await rig.delivered(home) == [1, 2, 3, 4]
        assert {one.state for one in await outbox.items(home)} == {ItemState.DELIVERED}
    await store.close()


# The embedded one alone


async def embedded() -> EmbeddedCare:
    store = await open_store("memory:", COLLECTIONS, [RECORDS], testing=True)
    return EmbeddedCare(store, FakeClock())


async def test_what_is_not_true_any_more_finds_nobody():
    care = await embedded()
    await care.put([ADA])
    moved = replace(ADA.accounts[0], address="9 Elsewhere Road, 00000 Fixture Bay", number="7777-1")
    await care.put([replace(ADA, accounts=(moved,), phone="")])
    assert await care.search(SearchBy.ACCOUNT, ADA.accounts[0].number, 5) == ()
    assert await care.search(SearchBy.ADDRESS, ADA.accounts[0].address, 5) == ()
    assert await care.search(SearchBy.PHONE, ADA.phone, 5) == ()
    assert [one.ref for one in await care.search(SearchBy.ADDRESS, "9 elsewhere", 5)] == [ADA.ref]
    await care.put([replace(ADA, accounts=())])
    assert await care.search(SearchBy.ACCOUNT, "7777-1", 5) == ()


async def test_putting_the_same_again_writes_nothing():
    store = FaultyStore(await open_store("memory:", COLLECTIONS, [RECORDS], testing=True))
    care = EmbeddedCare(store, FakeClock())
    await care.put(CUSTOMERS)
    commits = len(store.commits)
    await care.put(CUSTOMERS)
    assert len(store.commits) == commits


async def test_an_address_of_strange_letters_cannot_make_the_store_stumble():
    care = await embedded()
    for strange in ("ﷺ" * 200, "ß" * 200, "😀 street 12"):
        assert await care.search(SearchBy.ADDRESS, strange, 5) == ()
        assert await care.search(SearchBy.ACCOUNT, strange[:-4] + "1234", 5) == ()


async def test_records_can_be_read_as_they_came():
    care = await embedded()
    body = msgspec.json.encode({"device": "th-1", "name": "hall"})
    await care.deliver(item(1, body))
    await care.deliver(item(2))
    (first,) = await care.records("pr-0001", limit=1)
    assert (first.key, first.seq, first.kind, first.body, first.at_ms) == (
        "key-pr-0001-1",
        1,
        "han.device.registered",
        body,
        NOW_MS,
    )
    assert [one.seq for one in await care.records("pr-0001", after=1, limit=9)] == [2]


def premises(customers: Sequence[CareCustomer]) -> list[str]:
    return [account.premises for one in customers for account in one.accounts]


def test_the_demo_has_sixty_homes_of_nobody_and_ten_of_them_are_for_scenarios():
    assert sorted(premises(CUSTOMERS)) == [f"pr-{number:04d}" for number in range(1, 61)]
    assert care_demo.SCENARIOS.keys() == {f"pr-{number:04d}" for number in range(51, 61)}
    assert care_demo.customers() == CUSTOMERS
    assert ADA.accounts[0].id == care_demo.DEMO_ACCOUNT
    accounts = [account for one in CUSTOMERS for account in one.accounts]
    assert len({one.id for one in accounts}) == len({one.number for one in accounts}) == 60
    for one in CUSTOMERS:
        # Ranges that are kept free: nobody is called, nobody is written to.
        assert one.phone == "" or one.phone.startswith("+1 202 555 01")
        assert one.email == "" or one.email.endswith("@example.com")
