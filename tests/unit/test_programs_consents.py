"""Consent: recorded once, told apart by text and account, taken back at any time, never forgotten."""

import asyncio

import pytest

from programs.errors import InvalidConsentError, ProgramNotFoundError
from programs.records import ConsentChannel
from security import audit
from tests.covers import covers
from tests.faulty_store import Crash
from tests.programs_rig import ANNA, HALL, RITA, open_rig, yes


@pytest.fixture
async def here():
    made = open_rig()
    await made.catalogue.seed()
    return made


@pytest.fixture
def consents(here):
    return here.consents


@covers("3.2/9", "S1.4f")
async def test_a_yes_says_who_gave_it_to_which_text_how_and_when(here, consents):
    given = await consents.give(
        yes("cpp-27", given_by="c-2", relation="partner", channel=ConsentChannel.PAPER), RITA
    )
    assert (given.device, given.program, given.account, given.customer) == (HALL, "cpp-27", "a-1", "c-a-1")
    assert (given.given_by, given.relation, given.channel) == ("c-2", "partner", "paper")
    assert (given.text_version, given.recorded_by, given.at_ms) == ("1", "rita", here.clock.now_ms())
    assert (await consents.standing(HALL)).consents == {"cpp-27": given}
    assert await here.audited("consent") == [("rita", "consent.give", f"consent/{HALL}/cpp-27")]


@covers("S1.4f")
async def test_consent_is_of_one_device_and_one_program(consents):
    await consents.give(yes("cpp-27"), RITA)
    assert (await consents.standing("th-other")).consents == {}
    assert "rtp" not in (await consents.standing(HALL)).consents


async def test_the_same_yes_again_is_the_same_record(here, consents):
    first = await consents.give(yes("cpp-27"), RITA)
    here.clock.advance(60)
    assert await consents.give(yes("cpp-27", given_by="c-3"), ANNA) == first
    assert len(await consents.history(HALL)) == 1
    assert len(await here.audited("consent")) == 1


async def test_a_yes_of_another_account_takes_the_place_of_the_one_before(consents):
    await consents.give(yes("cpp-27"), RITA)
    second = await consents.give(yes("cpp-27", account="a-2"), RITA)
    assert (await consents.standing(HALL)).consents == {"cpp-27": second}


@pytest.mark.parametrize(
    "fields",
    [
        {"given_by": "Anna Example"},
        {"given_by": ""},
        {"given_by": "anna@example.org"},
        {"customer": "x" * 129},
        {"relation": "wife of"},
        {"text_version": "2"},
    ],
    ids=str,
)
async def test_what_is_no_reference_or_not_the_text_is_refused_and_nothing_is_kept(consents, fields):
    with pytest.raises(InvalidConsentError):
        await consents.give(yes("cpp-27", **fields), RITA)
    assert await consents.history(HALL) == ()


async def test_there_is_no_consent_to_a_program_that_is_not_there(consents):
    with pytest.raises(ProgramNotFoundError):
        await consents.give(yes("none"), RITA)
    await consents.give(yes("ota"), RITA)


async def test_taking_back_ends_what_stands_and_forgets_nothing(here, consents):
    given = await consents.give(yes("cpp-27"), RITA)
    here.clock.advance(60)
    ended = await consents.withdraw(HALL, "cpp-27", ANNA)
    assert ended is not None
    assert (ended.id, ended.withdrawn_at_ms, ended.withdrawn_by) == (given.id, here.clock.now_ms(), "anna")
    assert (await consents.standing(HALL)).consents == {}
    assert await consents.history(HALL) == (ended, given)
    assert await consents.withdraw(HALL, "cpp-27", ANNA) is None
    again = await consents.give(yes("cpp-27"), RITA)
    assert again.id != given.id
    assert [action for _, action, _ in await here.audited("consent")] == [
        "consent.give",
        "consent.withdraw",
        "consent.give",
    ]


async def test_a_yes_that_is_younger_than_the_end_stays(here, consents):
    end_ms = here.clock.now_ms()
    here.clock.advance(1)
    given = await consents.give(yes("cpp-27"), RITA)
    assert await consents.withdraw(HALL, "cpp-27", ANNA, given_until_ms=end_ms) is None
    assert (await consents.standing(HALL)).consents == {"cpp-27": given}


async def test_who_moves_out_takes_every_yes_along(here, consents):
    for program in ("cpp-27", "info-display", "ota"):
        await consents.give(yes(program), RITA)
    await consents.close_all(HALL, RITA)
    assert (await consents.standing(HALL)).consents == {}
    assert len(await consents.history(HALL)) == 6
    await consents.close_all("nobody", RITA)
    assert len(await here.audited("consent")) == 6


async def test_a_change_is_marked_until_enrolments_were_looked_at(consents):
    await consents.give(yes("cpp-27"), RITA)
    assert await consents.unsettled() == [HALL]
    seen = await consents.standing(HALL)
    await consents.give(yes("info-display"), RITA)
    await consents.settle(HALL, seen)
    assert await consents.unsettled() == [HALL], "what came since has not been looked at"
    await consents.settle(HALL, await consents.standing(HALL))
    assert await consents.unsettled() == []
    assert (await consents.standing(HALL)).consents.keys() == {"cpp-27", "info-display"}


async def test_many_at_once_lose_none(consents):
    programs = ("cpp-27", "info-display", "ota", "dlc-ac", "rtp")
    await asyncio.gather(*(consents.give(yes(program), RITA) for program in programs))
    assert (await consents.standing(HALL)).consents.keys() == set(programs)
    assert len({one.id for one in await consents.history(HALL)}) == len(programs)


@pytest.mark.parametrize("crash", [Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])
async def test_a_yes_that_was_perhaps_recorded_is_said_again_without_a_second_record(here, consents, crash):
    here.store.crash = crash
    with pytest.raises(Exception, match="reply never came"):
        await consents.give(yes("cpp-27"), RITA)
    await consents.give(yes("cpp-27"), RITA)
    assert len(await consents.history(HALL)) == 1
    rows = (await audit.read(here.store, 0, here.clock.now_ms(), 100)).entries
    assert [row.action for row in rows] == ["consent.give"]
