"""A code and a key for a certificate: once, in order, under race and after a crash; and renewal."""

import asyncio

import pytest
import structlog

from infra.documents.port import StoreBrokenError, StoreUnavailableError
from security.audit import INSIDE
from security.hashing import Hashing
from security.secret import Secret
from security.tries import TRIES_PER_ADDRESS_MAX, TooManyTriesError
from security.trust import enrolment, keys
from security.trust.authority import UncertifiableNameError
from security.trust.claims import OverError, SpentError, State
from security.trust.codes import InvalidClaimIdError, InvalidCodeError, MistypedCodeError
from security.trust.enrolment import (
    GOOD_MAX,
    GRACE_MS,
    AwaitingApprovalError,
    NotPlacedError,
    RenewalTooEarlyError,
    Source,
    TooManyCertificatesError,
    UnknownCertificateError,
    WrongCodeError,
)
from security.trust.issued import CertificateBusyError, IssuedState
from security.trust.known_keys import KeyKnownError
from security.trust.requests import InvalidRequestError
from security.trust.tries import WRONG_MAX
from security.trust.vouchers import Label
from tests.covers import covers
from tests.fakes import FakeClock, numbered
from tests.trust import SECURITY, Center, audited, names_of, open_store, request

DAY_S = 86_400
LABEL = "00124b0001a2b3c4"
LABEL_CODE = "83FED3407A939723A5C639B26916D505C3B5"
SOURCE = Source("a", INSIDE)
A_OR_B = str.maketrans("01", "ab")


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


async def nothing_issued(center, thing="hall"):
    return await center.issued.of_thing(thing) == () and center.things.accepted == []


# ---------------------------------------------------------------------------- one use


@covers("A8", "X8")
async def test_a_code_and_a_key_get_a_certificate_of_the_claims_thing(center, store):
    id, code = await center.voucher()
    chain = await center.enrol(id, code, request("whatever-it-says"))
    name, serial = names_of(chain)
    assert name == "hall"
    (record,) = await center.issued.of_thing("hall")
    assert (record.serial, record.chain) == (serial, chain.decode())
    assert center.things.accepted == [("hall", "voucher", serial)]
    assert sorted(await audited(store)) == [
        ("ada", "voucher.create", f"claim/{id}"),
        ("hall", "certificate.enrol", f"claim/{id}"),
        ("hall", "certificate.issue", f"certificate/hall/{serial}"),
    ]


async def test_the_code_is_kept_as_a_hash_only(center, store):
    id, code = await center.voucher()
    body = (await store.get("claims", [id]))[id].body
    assert code.replace("-", "")[:26].encode() not in body
    assert b"$argon2id$v=19$m=8192,t=1,p=1$" in body


async def test_the_same_code_with_the_same_key_hears_the_same_certificate_until_it_ends(center, clock):
    id, code = await center.voucher()
    asked = request()
    first = await center.enrol(id, code, asked)
    clock.advance(DAY_S - 1)
    assert await center.enrol(id, code, asked) == first
    clock.advance(1)
    with pytest.raises(OverError):
        await center.enrol(id, code, asked)
    assert len(await center.issued.of_thing("hall")) == 1


@covers("O11")
async def test_the_same_code_with_another_key_is_refused_and_told(center):
    id, code = await center.voucher()
    await center.enrol(id, code, request())
    with structlog.testing.capture_logs() as said, pytest.raises(SpentError):
        await center.enrol(id, code, request())
    assert [event["event"] for event in said] == ["enrolment_code_reused"]
    assert len(await center.issued.of_thing("hall")) == 1
    assert await center.refused() == [(f"claim/{id}", "SpentError", 1)]


@covers("O11")
async def test_a_hundred_uses_at_once_give_one_certificate_and_ninety_nine_refusals(center):
    id, code = await center.voucher()
    uses = [center.enrol(id, code, request(), numbered(number)) for number in range(100)]
    results = await asyncio.gather(*uses, return_exceptions=True)
    assert sum(isinstance(result, bytes) for result in results) == 1
    assert sum(isinstance(result, SpentError) for result in results) == 99
    assert len(await center.issued.of_thing("hall")) == 1


async def test_a_hundred_uses_by_one_key_give_one_certificate_a_hundred_times(center):
    id, code = await center.voucher()
    asked = request()
    uses = [center.enrol(id, code, asked, numbered(number)) for number in range(100)]
    assert len(set(await asyncio.gather(*uses))) == 1
    assert len(await center.issued.of_thing("hall")) == 1


async def test_two_processes_give_one_certificate_for_one_code(center, tmp_path, clock, store):
    other = Center(tmp_path, clock, store, seed=1)
    id, code = await center.voucher()
    uses = [one.enrol(id, code, request(), numbered(n)) for n in range(10) for one in (center, other)]
    results = await asyncio.gather(*uses, return_exceptions=True)
    other.hashing.close()
    assert sum(isinstance(result, bytes) for result in results) == 1
    assert len(await center.issued.of_thing("hall")) == 1


@covers("O11")
async def test_a_code_is_bound_to_the_first_gateway_that_uses_it(center):
    id, code = await center.voucher()
    asked = request()
    await center.enrol(id, code, asked, gateway="gw-1")
    with pytest.raises(SpentError):
        await center.enrol(id, code, asked, gateway="gw-2")
    assert await center.enrol(id, code, asked, gateway="gw-1")


# ---------------------------------------------------------------------------- who gets none


@covers("A8")
async def test_a_wrong_code_and_an_unknown_claim_hear_and_cost_the_same(center, store, monkeypatch):
    id, _ = await center.voucher()
    unknown, wrong = "v" + "a" * 16, "AAAA" * 6 + "AAA"
    hashed, read = [], []
    verify, get = Hashing.verify, store.get

    async def noted(self, hash, secret, cost):
        hashed.append(cost)
        return await verify(self, hash, secret, cost)

    async def noted_get(collection, ids):
        read.append(collection)
        return await get(collection, ids)

    monkeypatch.setattr(Hashing, "verify", noted)
    monkeypatch.setattr(store, "get", noted_get)
    said = []
    for one in (id, unknown):
        with pytest.raises(WrongCodeError) as refused:
            await center.enrol(one, wrong, request())
        said.append((str(refused.value), tuple(read)))
        read.clear()
    assert said[0] == said[1]
    assert hashed[0] == hashed[1]
    assert await nothing_issued(center)
    assert {target for target, _, _ in await center.refused()} == {f"claim/{id}", "claim"}


async def test_what_a_stranger_makes_up_is_one_row_a_minute_and_is_not_written_down(center):
    for number in range(200):
        for made_up in (f"x{number}" + "y" * 200, f"{number:016x}", "v" + f"{number:016b}".translate(A_OR_B)):
            with pytest.raises((InvalidClaimIdError, WrongCodeError, InvalidCodeError)):
                await center.enrol(made_up, "AAAA" * 6 + "AAA", request(), address=numbered(number))
        with pytest.raises(UnknownCertificateError):
            await center.enrolment.renew(f"{number:032x}", request(), SOURCE)
    assert await center.refused() == [
        ("certificate", "UnknownCertificateError", 200),
        ("claim", "InvalidClaimIdError", 600),
    ]


@pytest.mark.parametrize(
    ("id", "code"),
    [("nonsense", "x"), ("v" + "a" * 16, "?"), ("v" + "a" * 16, "AAAA" * 6 + "AAB")],
    ids=["malformed id", "malformed code", "mistyped code"],
)
async def test_nonsense_counts_against_the_address_it_comes_from(center, id, code):
    for _ in range(TRIES_PER_ADDRESS_MAX):
        with pytest.raises((InvalidClaimIdError, InvalidCodeError)):
            await center.enrol(id, code, request(), address="192.0.2.1")
    with pytest.raises(TooManyTriesError):
        await center.enrol(id, code, request(), address="192.0.2.1")
    known, right = await center.voucher()
    assert await center.enrol(known, right, request(), address="192.0.2.2")


async def test_ten_thousand_guesses_hash_five_and_honest_ones_go_on(center, monkeypatch):
    id, _ = await center.voucher()
    center.things.place("attic")
    honest, code = await center.voucher("attic")
    hashed = 0
    verify = Hashing.verify

    async def counted(self, hash, secret, cost):
        nonlocal hashed
        hashed += 1
        return await verify(self, hash, secret, cost)

    monkeypatch.setattr(Hashing, "verify", counted)

    async def guess(number):
        with pytest.raises((WrongCodeError, TooManyTriesError)):
            await center.enrol(id, "AAAA" * 6 + "AAA", request_once, numbered(number))

    request_once = request()
    for start in range(0, 10_000, 100):
        await asyncio.gather(*(guess(number) for number in range(start, start + 100)))
        center.clock.advance(6)
    assert hashed == WRONG_MAX
    assert await center.enrol(honest, code, request("attic"), "honest")


async def test_a_typing_error_is_said_at_once_and_costs_no_try(center):
    id, code = await center.voucher()
    mistyped = ("B" if code[0] != "B" else "C") + code[1:]
    for number in range(WRONG_MAX + 1):
        with pytest.raises(MistypedCodeError):
            await center.enrol(id, mistyped, request(), numbered(number))
    assert center.tries.failures.value == 0
    assert await center.enrol(id, code, request())


@pytest.mark.parametrize(
    ("id", "code", "error"),
    [
        ("x", "AAAA", InvalidClaimIdError),
        ("v" + "a" * 16, "A", InvalidCodeError),
        (LABEL, "zz", InvalidCodeError),
    ],
)
async def test_what_can_be_no_code_is_not_hashed(center, id, code, error):
    with pytest.raises(error):
        await center.enrol(id, code, request())
    assert center.tries.failures.value == 0


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {"barred": True},
        {"has_certificate": False},
        {"premises": "home-8"},
    ],
    ids=["absent", "barred", "without-certificate", "moved"],
)
async def test_a_thing_that_is_not_as_it_was_gets_none_and_the_code_stays_unused(center, facts):
    id, code = await center.voucher()
    if facts is None:
        center.things.placed.clear()
    else:
        center.things.place("hall", **facts)
    asked = request()
    with pytest.raises(NotPlacedError):
        await center.enrol(id, code, asked)
    assert await nothing_issued(center)
    center.things.place("hall")
    assert await center.enrol(id, code, asked)


async def test_a_name_that_no_certificate_can_carry_any_more_uses_no_code_and_no_key_up(center):
    center.things.place("my_thing")
    center.authority._wide_names = True
    id, code = await center.voucher("my_thing")
    center.authority._wide_names = False
    csr = request("my_thing")
    with pytest.raises(UncertifiableNameError):
        await center.enrol(id, code, csr)
    assert (await center.claims.load(id)).claim.state is State.ISSUED
    await nothing_issued(center, "my_thing")
    center.authority._wide_names = True
    other, its_code = await center.voucher("my_thing")
    await center.enrol(other, its_code, csr)


async def test_while_a_person_must_approve_nothing_is_signed_and_the_same_request_may_come_again(center):
    id, code = await center.voucher()
    center.things.place("hall", waiting=True)
    asked = request()
    for _ in range(2):
        with pytest.raises(AwaitingApprovalError):
            await center.enrol(id, code, asked)
    assert await nothing_issued(center)
    center.things.place("hall")
    assert await center.enrol(id, code, asked)


async def test_a_request_that_proves_nothing_gets_none_and_the_code_stays_unused(center):
    id, code = await center.voucher()
    with pytest.raises(InvalidRequestError):
        await center.enrol(id, code, b"nonsense")
    assert await nothing_issued(center)
    assert await center.enrol(id, code, request())


async def test_a_replayed_request_is_refused_under_another_code_and_noted_on_both(center):
    id, code = await center.voucher()
    center.things.place("attic")
    other, other_code = await center.voucher("attic")
    asked = request()
    await center.enrol(id, code, asked)
    with pytest.raises(KeyKnownError):
        await center.enrol(other, other_code, asked)
    assert await center.issued.of_thing("attic") == ()
    assert [(await center.keys.suspicion(thing, 1)).count for thing in ("hall", "attic")] == [1, 1]
    assert await center.enrol(other, other_code, request())


async def test_a_voucher_that_was_taken_back_is_good_for_nothing(center):
    id, code = await center.voucher()
    await center.vouchers.revoke(id, SECURITY, INSIDE)
    with pytest.raises(OverError):
        await center.enrol(id, code, request())
    assert await nothing_issued(center)


async def test_a_revoked_certificate_is_not_said_again(center):
    id, code = await center.voucher()
    asked = request()
    _, serial = names_of(await center.enrol(id, code, asked))
    await center.issued.revoke([serial], "key_compromise", SECURITY)
    with pytest.raises(OverError):
        await center.enrol(id, code, asked)


async def test_a_thing_has_sixteen_good_certificates_and_codes_bring_no_more(center, clock):
    for number in range(GOOD_MAX - 1):
        await center.enrol(*await center.voucher(), request(), numbered(number))
    id, code = await center.voucher()
    asked = request()
    chain = await center.enrol(id, code, asked)
    spare, spare_code = await center.voucher()
    another = request()
    with pytest.raises(TooManyCertificatesError):
        await center.enrol(spare, spare_code, another)
    assert await center.enrol(id, code, asked) == chain, "a lost answer is said again"
    assert len(await center.issued.of_thing("hall")) == GOOD_MAX
    clock.advance(DAY_S)
    await center.enrolment.tidy()
    assert await center.enrol(*await center.voucher(), another), "the older ones have ended"


async def test_a_voucher_ends_when_its_premises_change_hands(center, clock):
    id, code = await center.voucher()
    clock.advance(1)
    center.things.place("hall", since_ms=clock.now_ms())
    with pytest.raises(NotPlacedError):
        await center.enrol(id, code, request())
    assert await nothing_issued(center)
    assert await center.enrol(*await center.voucher(), request())


# ---------------------------------------------------------------------------- things that go meanwhile

GONE = {
    "absent": None,
    "barred": {"barred": True},
    "uncertified": {"has_certificate": False},
    "registered again": {"registration": 2},
    "elsewhere": {"premises": "home-8"},
    "in other hands": {"since_ms": 2**50},
}


def remove_while_signing(center, facts):
    """Have `hall` become so, and everything that is kept of it revoked, before a certificate is signed."""
    sign = center.authority.sign_thing

    def overtaken(thing, key):
        if facts is None:
            center.things.placed.clear()
        else:
            center.things.place("hall", **facts)
        return sign(thing, key)

    center.authority.sign_thing = overtaken


async def all_revoked(center):
    return {record.state for record in await center.issued.of_thing("hall")} == {IssuedState.REVOKED}


@pytest.mark.parametrize("facts", GONE.values(), ids=GONE)
async def test_a_thing_that_goes_while_its_certificate_is_signed_has_none(center, facts):
    id, code = await center.voucher()
    asked = request()
    remove_while_signing(center, facts)
    with pytest.raises(NotPlacedError):
        await center.enrol(id, code, asked)
    assert await all_revoked(center)
    assert center.things.accepted == []
    center.things.place("hall")
    with pytest.raises(OverError):
        await center.enrol(id, code, asked)


@pytest.mark.parametrize("facts", GONE.values(), ids=GONE)
async def test_a_thing_that_goes_while_it_renews_has_no_successor(center, facts):
    old = await enrolled(center)
    await due(center, old)
    accepted = len(center.things.accepted)
    remove_while_signing(center, facts)
    with pytest.raises(NotPlacedError):
        await center.enrolment.renew(old, request(), SOURCE)
    states = {record.serial: record.state for record in await center.issued.of_thing("hall")}
    assert len(states) == 2
    assert {state for serial, state in states.items() if serial != old} == {IssuedState.REVOKED}
    assert len(center.things.accepted) == accepted


@pytest.mark.parametrize("facts", GONE.values(), ids=GONE)
async def test_a_thing_that_goes_while_we_certify_it_has_no_certificate(center, facts):
    remove_while_signing(center, facts)
    with pytest.raises(NotPlacedError):
        await center.enrolment.certify("hall", keys.request(keys.make_key(), "hall"), SECURITY, INSIDE)
    assert await all_revoked(center)


async def test_what_is_taken_back_that_way_is_one_row(center, store):
    id, code = await center.voucher()
    remove_while_signing(center, None)
    with pytest.raises(NotPlacedError):
        await center.enrol(id, code, request())
    (record,) = await center.issued.of_thing("hall")
    revoked = ("trust-center", "certificate.revoke", f"certificate/hall/{record.serial}")
    assert [row for row in await audited(store) if row[1] == "certificate.revoke"] == [revoked]


async def test_a_voucher_and_a_certificate_are_of_one_registration_of_a_name(center):
    old = await enrolled(center)
    await due(center, old)
    spare, spare_code = await center.voucher()
    center.things.place("hall", registration=2)
    with pytest.raises(NotPlacedError):
        await center.enrol(spare, spare_code, request())
    with pytest.raises(NotPlacedError):
        await center.enrolment.renew(old, request(), SOURCE)
    assert len(await center.issued.of_thing("hall")) == 1


async def test_a_label_that_was_used_says_nothing_to_a_later_thing_of_the_name(center):
    center.things.place(LABEL)
    await center.vouchers.load_labels([Label(LABEL, Secret(LABEL_CODE))], SECURITY, INSIDE)
    asked = request()
    assert await center.enrol(LABEL, LABEL_CODE, asked)
    center.things.place(LABEL, registration=2)
    with pytest.raises(NotPlacedError):
        await center.enrol(LABEL, LABEL_CODE, asked)


# ---------------------------------------------------------------------------- labels


@covers("O2")
async def test_a_labels_code_enrols_the_device_of_that_label_once(center):
    center.things.place(LABEL)
    assert await center.vouchers.load_labels([Label(LABEL, Secret(LABEL_CODE))], SECURITY, INSIDE) == ()
    _, serial = names_of(await center.enrol(LABEL, LABEL_CODE.lower(), request()))
    assert center.things.accepted == [(LABEL, "install_code", serial)]
    with pytest.raises(SpentError):
        await center.enrol(LABEL, LABEL_CODE, request())


# ---------------------------------------------------------------------------- crashes


class Dying:
    """A store that is gone after so many commits, the last of which may or may not have reached it."""

    def __init__(self, store, commits, *, reaches):
        self._store, self._left, self._reaches = store, commits, reaches

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes):
        if self._left <= 0:
            if self._left == 0 and self._reaches:
                self._left -= 1
                await self._store.commit(writes)
            raise StoreUnavailableError("gone")
        self._left -= 1
        return await self._store.commit(writes)


@pytest.mark.parametrize("reaches", [False, True], ids=["lost", "reached"])
@pytest.mark.parametrize("commits", range(4))
async def test_after_a_crash_between_any_two_steps_the_same_request_goes_on(
    center, tmp_path, clock, store, commits, reaches
):
    id, code = await center.voucher()
    asked = request()
    dying = Center(tmp_path, clock, Dying(store, commits, reaches=reaches), seed=1)
    with pytest.raises(StoreUnavailableError):
        await dying.enrol(id, code, asked)
    dying.hashing.close()
    chain = await center.enrol(id, code, asked)
    assert await center.enrol(id, code, asked) == chain
    (record,) = await center.issued.of_thing("hall")
    assert record.chain.encode() == chain
    assert set(center.things.accepted) == {("hall", "voucher", record.serial)}


async def test_an_enrolment_takes_four_commits(center, tmp_path, clock, store):
    id, code = await center.voucher()
    enough = Center(tmp_path, clock, Dying(store, 4, reaches=False), seed=1)
    assert await enough.enrol(id, code, request())
    enough.hashing.close()


# ---------------------------------------------------------------------------- renewal


async def enrolled(center):
    """Return the serial of a certificate of `hall`."""
    id, code = await center.voucher()
    return names_of(await center.enrol(id, code, request()))[1]


async def due(center, serial):
    """Let two thirds of a certificate's life pass."""
    record = await center.issued.by_serial(serial)
    life_ms = record.not_after_ms - record.not_before_ms
    center.clock.advance((record.not_before_ms + life_ms * 2 / 3 - center.clock.now_ms()) / 1_000)


async def test_from_two_thirds_of_its_life_a_certificate_gets_a_successor(center, clock):
    old = await enrolled(center)
    await due(center, old)
    name, new = names_of(await center.enrolment.renew(old, request(), SOURCE))
    assert (name, new != old) == ("hall", True)
    assert center.things.accepted[-1] == ("hall", "certificate", new)
    clock.advance(GRACE_MS / 1_000 - 1)
    assert await center.enrolment.tidy() == 0
    assert (await center.issued.by_serial(old)).is_good(clock.now_ms())
    clock.advance(1)
    assert await center.enrolment.tidy() == 1
    assert (await center.issued.by_serial(old)).state is IssuedState.SUPERSEDED
    assert (await center.issued.by_serial(new)).is_good(clock.now_ms())


async def test_before_that_it_is_too_early_and_nothing_is_signed(center, clock):
    old = await enrolled(center)
    await due(center, old)
    clock.jump(-1)
    with pytest.raises(RenewalTooEarlyError) as refused:
        await center.enrolment.renew(old, request(), SOURCE)
    assert refused.value.retry_s == 1
    assert len(await center.issued.of_thing("hall")) == 1


async def test_a_lost_answer_is_said_again_and_another_key_waits_a_day(center):
    old = await enrolled(center)
    await due(center, old)
    asked = request()
    chain = await center.enrolment.renew(old, asked, SOURCE)
    assert await center.enrolment.renew(old, asked, SOURCE) == chain
    with pytest.raises(RenewalTooEarlyError):
        await center.enrolment.renew(old, request(), SOURCE)
    assert len(await center.issued.of_thing("hall")) == 2


async def test_many_renewals_at_once_give_one_successor(center):
    old = await enrolled(center)
    await due(center, old)
    tries = [center.enrolment.renew(old, request(), SOURCE) for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, bytes) for result in results) == 1
    assert len(await center.issued.of_thing("hall")) == 2


async def test_a_key_that_was_used_is_not_taken_for_a_renewal(center):
    id, code = await center.voucher()
    asked = request()
    _, old = names_of(await center.enrol(id, code, asked))
    await due(center, old)
    with pytest.raises(KeyKnownError):
        await center.enrolment.renew(old, asked, SOURCE)


@pytest.mark.parametrize("commits", range(4))
async def test_after_a_crash_a_renewal_goes_on_with_the_same_key(center, tmp_path, clock, store, commits):
    old = await enrolled(center)
    await due(center, old)
    asked = request()
    dying = Center(tmp_path, clock, Dying(store, commits, reaches=True), seed=1)
    with pytest.raises(StoreUnavailableError):
        await dying.enrolment.renew(old, asked, SOURCE)
    dying.hashing.close()
    chain = await center.enrolment.renew(old, asked, SOURCE)
    assert {record.serial for record in await center.issued.of_thing("hall")} == {old, names_of(chain)[1]}


@pytest.mark.parametrize("case", ["unknown", "revoked", "expired", "barred", "uncertified", "absent"])
async def test_who_counts_for_nothing_renews_nothing(center, clock, case):
    old = await enrolled(center)
    await due(center, old)
    error: type[Exception] = UnknownCertificateError
    match case:
        case "unknown":
            old = "0" * 32
        case "revoked":
            await center.issued.revoke([old], "key_compromise", SECURITY)
        case "expired":
            clock.advance(200 * DAY_S)
        case "barred":
            center.things.place("hall", barred=True)
            error = NotPlacedError
        case "uncertified":
            center.things.place("hall", has_certificate=False)
            error = NotPlacedError
        case _:
            center.things.placed.clear()
            error = NotPlacedError
    with pytest.raises(error):
        await center.enrolment.renew(old, request(), SOURCE)
    assert len(await center.issued.of_thing("hall")) == 1


async def test_a_new_enrolment_ends_what_the_thing_had_a_day_later(center, clock):
    old = await enrolled(center)
    new = await enrolled(center)
    await center.enrolment.tidy()
    assert (await center.issued.by_serial(old)).is_good(clock.now_ms())
    clock.advance(DAY_S)
    await center.enrolment.tidy()
    assert (await center.issued.by_serial(old)).state is IssuedState.SUPERSEDED
    assert (await center.issued.by_serial(new)).state is IssuedState.ACTIVE


async def test_ended_vouchers_are_forgotten_after_a_week(center, clock, store):
    id, _ = await center.voucher()
    clock.advance(DAY_S + enrolment.KEEP_ENDED_MS / 1_000)
    await center.enrolment.tidy()
    assert await store.get("claims", [id]) == {}


async def test_what_we_certify_in_person_is_recorded_like_the_rest(center, store):
    issued = await center.enrolment.certify("hall", keys.request(keys.make_key(), "hall"), SECURITY, INSIDE)
    record = await center.issued.by_serial(issued.serial)
    assert record is not None
    assert record.thing == "hall"
    assert await audited(store) == [("sam", "certificate.issue", f"certificate/hall/{issued.serial}")]


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (CertificateBusyError("busy"), False),
        (StoreUnavailableError("away"), False),
        (StoreBrokenError("fsync"), True),
    ],
)
async def test_tidying_goes_on_after_anything_but_a_broken_store(center, monkeypatch, error, ends):
    monkeypatch.setattr(enrolment, "TIDY_S", 0.0)
    tries = 0

    async def fail():
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        raise StoreBrokenError("the end of the test")

    monkeypatch.setattr(center.enrolment, "tidy", fail)
    with pytest.raises(StoreBrokenError):
        await center.enrolment.run(superseded=lambda: None)
    assert tries == (1 if ends else 2)


async def test_who_keeps_the_revocation_list_hears_of_superseded_certificates(center, clock):
    old = await enrolled(center)
    await due(center, old)
    await center.enrolment.renew(old, request(), SOURCE)
    clock.advance(GRACE_MS / 1_000)
    heard = asyncio.Event()
    running = asyncio.ensure_future(center.enrolment.run(superseded=heard.set))
    async with asyncio.timeout(5):
        await heard.wait()
    running.cancel()
