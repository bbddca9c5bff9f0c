"""Making vouchers and loading labels: for a thing that is there, a few at a time, the code kept by nobody."""

import asyncio
import base64

import pytest

from infra.documents.port import PAGE_MAX
from security.audit import INSIDE
from security.secret import Secret
from security.trust.authority import UncertifiableNameError
from security.trust.claims import VOUCHER_LIFE_MS, State
from security.trust.vouchers import (
    LABELS_MAX,
    LIVE_VOUCHERS_MAX,
    InvalidLabelError,
    Label,
    NoSuchThingError,
    NoSuchVoucherError,
    TooManyVouchersError,
    UnfitThingError,
)
from tests.fakes import FakeClock
from tests.trust import SECURITY, Center, audited, open_store

EUI = "00124b0001a2b3c4"
CODE = Secret("83FED3407A93 9723A5C6 39B26916 D505 C3B5")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return open_store()


@pytest.fixture
def center(tmp_path, clock, store):
    center = Center(tmp_path, clock, store)
    yield center
    center.hashing.close()


async def test_a_voucher_is_for_one_thing_at_its_premises_and_for_a_day(center, clock):
    id, code = await center.voucher()
    claim = await center.vouchers.voucher(id)
    assert (claim.thing, claim.premises, claim.maker, claim.model) == ("hall", "home-7", "ada", "acme")
    assert claim.expires_at_ms == clock.now_ms() + VOUCHER_LIFE_MS
    assert code not in repr(claim)
    page = await center.vouchers.of_premises("home-7", PAGE_MAX)
    assert page.claims == (claim,)
    assert (await center.vouchers.of_premises("home-8", PAGE_MAX)).claims == ()


@pytest.mark.parametrize("facts", [{"thing": "attic"}, {"premises": "home-8"}])
async def test_a_thing_that_is_absent_and_one_elsewhere_are_told_alike(center, store, facts):
    with pytest.raises(NoSuchThingError, match="no thing of this name is registered at these premises"):
        await center.voucher(**{"thing": "hall", **facts})
    assert await audited(store) == []


@pytest.mark.parametrize(
    ("wanted", "facts"),
    [
        ({"is_gateway": True}, {}),
        ({}, {"is_gateway": True}),
        ({"model": "other"}, {}),
        ({}, {"barred": True}),
        ({}, {"has_certificate": False}),
    ],
)
async def test_a_thing_that_is_otherwise_than_said_gets_no_voucher(center, store, wanted, facts):
    center.things.place("hall", **facts)
    with pytest.raises(UnfitThingError):
        await center.voucher(**wanted)
    assert await audited(store) == []


async def test_premises_have_three_live_vouchers_also_when_asked_for_at_once(center, clock):
    results = await asyncio.gather(*(center.voucher() for _ in range(6)), return_exceptions=True)
    made = [result for result in results if isinstance(result, tuple)]
    assert len(made) == LIVE_VOUCHERS_MAX
    assert sum(isinstance(result, TooManyVouchersError) for result in results) == 6 - LIVE_VOUCHERS_MAX
    center.things.place("attic", premises="home-8")
    await center.voucher("attic", premises="home-8")
    await center.vouchers.revoke(made[0][0], SECURITY, INSIDE)
    await center.voucher()
    with pytest.raises(TooManyVouchersError):
        await center.voucher()
    clock.advance(VOUCHER_LIFE_MS / 1_000)
    await center.voucher()


async def test_two_processes_together_keep_the_quota_of_premises(center, tmp_path, clock, store, monkeypatch):
    other = Center(tmp_path, clock, store, seed=1)
    made = [(await center.voucher())[0] for _ in range(LIVE_VOUCHERS_MAX - 1)]
    put = center.claims.put

    async def overtaken(rows):
        monkeypatch.setattr(center.claims, "put", put)
        made.append((await other.voucher())[0])
        return await put(rows)

    monkeypatch.setattr(center.claims, "put", overtaken)
    with pytest.raises(TooManyVouchersError):
        await center.voucher()
    other.hashing.close()
    page = await center.vouchers.of_premises("home-7", PAGE_MAX)
    assert sorted(one.id for one in page.claims if one.state is State.ISSUED) == sorted(made)


async def test_a_name_that_no_certificate_can_carry_gets_no_voucher(center, store):
    center.things.place("my_thing")
    with pytest.raises(UncertifiableNameError, match="wide_names"):
        await center.voucher("my_thing")
    assert await audited(store) == []


async def test_vouchers_of_who_had_the_premises_before_take_nobodys_place(center, clock):
    for _ in range(LIVE_VOUCHERS_MAX):
        await center.voucher()
    clock.advance(1)
    center.things.place("hall", since_ms=clock.now_ms())
    for _ in range(LIVE_VOUCHERS_MAX):
        await center.voucher()
    with pytest.raises(TooManyVouchersError):
        await center.voucher()


async def test_a_voucher_taken_back_stays_listed_and_is_audited_once(center, store):
    id, _ = await center.voucher()
    for _ in range(2):
        await center.vouchers.revoke(id, SECURITY, INSIDE)
    assert (await center.vouchers.voucher(id)).state is State.REVOKED
    assert await audited(store) == [
        ("ada", "voucher.create", f"claim/{id}"),
        ("sam", "voucher.create", f"claim/{id}"),
    ]


@pytest.mark.parametrize("id", ["v" + "a" * 16, "x", EUI])
async def test_what_is_no_voucher_is_not_found_and_a_label_is_none(center, id):
    await center.vouchers.load_labels([Label(EUI, CODE)], SECURITY, INSIDE)
    with pytest.raises(NoSuchVoucherError):
        await center.vouchers.voucher(id)
    with pytest.raises(NoSuchVoucherError):
        await center.vouchers.revoke(id, SECURITY, INSIDE)


async def test_labels_are_kept_as_hashes_with_their_link_keys_sealed(center, store):
    assert await center.vouchers.load_labels([Label(EUI.upper(), CODE)], SECURITY, INSIDE) == ()
    kept = await center.claims.load(EUI)
    assert kept is not None
    assert (kept.claim.thing, kept.claim.premises, kept.claim.expires_at_ms) == (EUI, "", None)
    sealed = base64.b64decode(kept.claim.link_key)
    opened = center.box.open_sealed(sealed, f"claims/{EUI}/link_key")
    assert opened.hex().upper() == "66B6900981E1EE3CA4206B6B861C02BB"
    body = (await store.get("claims", [EUI]))[EUI].body
    assert b"83fed3407a93" not in body.lower()
    assert await audited(store) == [("sam", "install_code.write", f"claim/{EUI}")]


async def test_a_label_that_is_known_stays_as_it_is_and_is_named(center):
    await center.vouchers.load_labels([Label(EUI, CODE, thing="hall")], SECURITY, INSIDE)
    other = Label("00124b0001a2b3c5", CODE)
    assert await center.vouchers.load_labels([Label(EUI, CODE), other], SECURITY, INSIDE) == (EUI,)
    kept = await center.claims.load(EUI)
    assert kept is not None
    assert kept.claim.thing == "hall"
    assert await center.vouchers.load_labels([], SECURITY, INSIDE) == ()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([Label(EUI, CODE), Label("x", CODE)], "row 2: an EUI-64"),
        ([Label(EUI, Secret("83FED3407A932B71"))], "row 1: .*mistyped"),
        ([Label(EUI, CODE), Label(EUI.upper(), CODE)], "twice"),
        ([Label(EUI, CODE, thing="my_thing")], "row 1: .*wide_names"),
        ([Label(f"{number:016x}", CODE) for number in range(LABELS_MAX + 1)], f"at most {LABELS_MAX}"),
    ],
)
async def test_one_bad_row_keeps_the_whole_batch_out(center, store, labels, said):
    with pytest.raises(InvalidLabelError, match=said):
        await center.vouchers.load_labels(labels, SECURITY, INSIDE)
    assert await center.claims.load(EUI) is None
    assert await audited(store) == []
