"""The PIN exchange: the server proves first, each question is answered once, and three wrong answers stop."""

import pytest

from security.audit import INSIDE
from security.secret import Secret
from security.trust.pins import (
    NONCE_BYTES,
    OPEN_S,
    STOP_S,
    WRONG_MAX,
    InvalidPinError,
    NoPinError,
    PinStoppedError,
    WrongPinError,
    device_answer,
    server_proof,
)
from tests.covers import covers
from tests.fakes import FakeClock
from tests.trust import SECURITY, Center, audited, open_store, request

PIN, OTHER = Secret("123455"), Secret("111115")
NONCE = bytes(range(NONCE_BYTES))


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


@pytest.fixture
async def session(center):
    """The certificate in a device's TLS session."""
    id, code = await center.voucher()
    await center.enrol(id, code, request())
    (record,) = await center.issued.of_thing("hall")
    center.things.accepted.clear()
    return record


async def exchange(center, session, pin=PIN, nonce=NONCE):
    challenge = await center.pins.begin(session, nonce)
    answer = device_answer(pin, session.lfdi, challenge.nonce, nonce)
    await center.pins.finish(session, answer, INSIDE)
    return challenge


@covers("O2")
async def test_both_sides_prove_that_they_know_the_pin(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    challenge = await exchange(center, session)
    assert challenge.proof == server_proof(PIN, session.lfdi, NONCE)
    assert center.things.accepted == [("hall", "pin", session.serial)]


@covers("O2", "X8")
async def test_a_device_sees_that_a_server_does_not_know_its_pin(center, session):
    await center.pins.keep("hall", OTHER, SECURITY, INSIDE)
    challenge = await center.pins.begin(session, NONCE)
    assert challenge.proof != server_proof(PIN, session.lfdi, NONCE)


async def test_the_pin_is_kept_sealed(center, store):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    assert b"123455" not in (await store.get("pins", ["hall"]))["hall"].body
    assert ("sam", "install_code.write", "pin/hall") in await audited(store)


@pytest.mark.parametrize("pin", ["123456", "12345", "1234555", "12345x", ""])
async def test_what_can_be_no_pin_is_not_kept(center, store, pin):
    with pytest.raises(InvalidPinError):
        await center.pins.keep("hall", Secret(pin), SECURITY, INSIDE)
    assert await store.get("pins", ["hall"]) == {}


async def test_a_new_pin_takes_the_place_of_the_old(center, session):
    await center.pins.keep("hall", OTHER, SECURITY, INSIDE)
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    await exchange(center, session)


async def test_without_a_pin_nothing_is_proved(center, session):
    with pytest.raises(NoPinError):
        await center.pins.begin(session, NONCE)


async def enrolled_again(center):
    """Return the certificate of the next thing of the name."""
    center.things.place("hall", registration=2)
    id, code = await center.voucher()
    await center.enrol(id, code, request())
    return next(one for one in await center.issued.of_thing("hall") if one.registration == 2)


async def test_the_next_thing_of_a_name_has_not_the_pin_of_the_last(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    later = await enrolled_again(center)
    with pytest.raises(NoPinError):
        await center.pins.begin(later, NONCE)
    await center.pins.keep("hall", PIN, SECURITY, INSIDE, sfdi=session.sfdi)
    with pytest.raises(NoPinError):
        await center.pins.begin(later, NONCE)
    await center.pins.keep("hall", OTHER, SECURITY, INSIDE)
    await exchange(center, later, pin=OTHER)


async def test_the_next_thing_of_a_name_does_not_wait_for_wrong_answers_of_the_last(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    for _ in range(WRONG_MAX):
        with pytest.raises(WrongPinError):
            await exchange(center, session, pin=OTHER)
    later = await enrolled_again(center)
    await center.pins.keep("hall", OTHER, SECURITY, INSIDE)
    await exchange(center, later, pin=OTHER)


async def test_a_pin_for_a_thing_that_has_gone_is_nobodys(center, session):
    del center.things.placed["hall"]
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    with pytest.raises(NoPinError):
        await center.pins.begin(session, NONCE)


async def test_an_sfdi_entered_with_the_pin_must_be_one_of_the_things(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE, sfdi="167261211391")
    with pytest.raises(NoPinError):
        await center.pins.begin(session, NONCE)
    await center.pins.keep("hall", PIN, SECURITY, INSIDE, sfdi=session.sfdi)
    await exchange(center, session)


async def test_three_wrong_answers_stop_for_an_hour(center, session, clock):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    for _ in range(WRONG_MAX):
        with pytest.raises(WrongPinError):
            await exchange(center, session, pin=OTHER)
    with pytest.raises(PinStoppedError) as refused:
        await center.pins.begin(session, NONCE)
    assert refused.value.retry_s == STOP_S
    assert center.things.accepted == []
    assert ("pin/hall", "WrongPinError", 3) in await center.refused()
    clock.advance(STOP_S)
    await exchange(center, session)


async def test_our_own_proof_sent_back_is_no_answer(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    first = await center.pins.begin(session, NONCE)
    reflected = await center.pins.begin(session, first.nonce)
    with pytest.raises(WrongPinError):
        await center.pins.finish(session, reflected.proof, INSIDE)


async def test_a_question_is_answered_once_and_soon(center, session, clock):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    challenge = await exchange(center, session)
    answer = device_answer(PIN, session.lfdi, challenge.nonce, NONCE)
    with pytest.raises(WrongPinError):
        await center.pins.finish(session, answer, INSIDE)
    late = await center.pins.begin(session, NONCE)
    clock.advance(OPEN_S)
    with pytest.raises(WrongPinError):
        await center.pins.finish(session, device_answer(PIN, session.lfdi, late.nonce, NONCE), INSIDE)


@pytest.mark.parametrize("length", [0, NONCE_BYTES - 1, NONCE_BYTES + 1, 2 * NONCE_BYTES])
async def test_a_nonce_has_its_length(center, session, length):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    with pytest.raises(WrongPinError):
        await center.pins.begin(session, bytes(length))


async def test_an_answer_in_another_session_proves_nothing(center, session):
    await center.pins.keep("hall", PIN, SECURITY, INSIDE)
    challenge = await center.pins.begin(session, NONCE)
    id, code = await center.voucher()
    await center.enrol(id, code, request())
    other = next(one for one in await center.issued.of_thing("hall") if one.serial != session.serial)
    answer = device_answer(PIN, other.lfdi, challenge.nonce, NONCE)
    with pytest.raises(WrongPinError):
        await center.pins.finish(other, answer, INSIDE)
